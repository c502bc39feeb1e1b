//! `provisioner policy`

use std::process::ExitCode;

use clap::ValueEnum;

use super::args::Global;
use crate::aws::{Account, Aws};
use crate::error::Error;
use crate::operations::iam_policies;
use crate::output::Output;
use crate::resources::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Task that the policy allows
    #[arg(value_enum, default_value_t)]
    task: Task,
    /// Print only this part of a policy that is too long for a managed policy
    #[arg(long, value_name = "N")]
    part: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Task {
    /// plan, apply, verify and destroy
    #[default]
    Deployer,
    /// plan, without changes
    Planner,
    /// query, events, top and dashboard
    Reader,
    /// status, logs, verify, backfill and replay
    Operator,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let aws = Aws::connect(&pipeline).await?;
    // A file that names its account needs no call.
    let account = match Account::declared(&pipeline) {
        Some(account) => account,
        None => Account::caller_identity(&aws, &pipeline).await?,
    };
    let context = Context { pipeline: &pipeline, account: &account, artifacts: None };
    let policy = match args.task {
        Task::Deployer => iam_policies::deployer_policy(&context),
        Task::Planner => iam_policies::planner_policy(&context),
        Task::Reader => iam_policies::reader_policy(&context),
        Task::Operator => iam_policies::operator_policy(&context),
    };
    let parts = iam_policies::parts(&policy);
    let printed = match args.part {
        None => &policy,
        Some(part) => part.checked_sub(1).and_then(|at| parts.get(at)).ok_or_else(|| {
            Error::usage(format!("the policy has no part {part}"), format!("choose one of 1 to {}", parts.len()))
        })?,
    };
    output.print(&format!("{printed:#}\n"))?;
    if args.part.is_none() && parts.len() > 1 {
        output.notes(&[format!(
            "the policy is too long for one managed policy: attach {0} of them, printed by --part 1 to --part {0}",
            parts.len()
        )]);
    }
    Ok(ExitCode::SUCCESS)
}
