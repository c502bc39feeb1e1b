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
    /// status, verify, backfill and replay
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
    output.print(&format!("{policy:#}\n"))?;
    Ok(ExitCode::SUCCESS)
}
