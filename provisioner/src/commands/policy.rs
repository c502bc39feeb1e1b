//! `provisioner policy`

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;

use super::args::Global;
use crate::aws::{Account, Aws};
use crate::error::Error;
use crate::operations::iam_policies;
use crate::operations::trust::{Jobs, Name, Repository};
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
    /// Also print the trust policy for the jobs of this repository
    #[arg(long, value_name = "OWNER/REPO")]
    github: Option<Repository>,
    /// Environment of GitHub whose jobs deploy
    #[arg(long = "environment", value_name = "NAME", default_value = "production", requires = "github")]
    github_environment: Name,
    /// Branch whose jobs plan, verify, read or operate
    #[arg(long, value_name = "NAME", default_value = "main", requires = "github")]
    branch: Name,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Task {
    /// plan, apply, verify and destroy
    #[default]
    Deployer,
    /// plan, without changes
    Planner,
    /// verify
    Verifier,
    /// query, events, top and dashboard
    Reader,
    /// status, logs, verify, backfill and replay
    Operator,
}

impl Args {
    /// Returns the jobs that may assume the role.
    fn jobs(&self) -> Vec<Jobs<'_>> {
        match self.task {
            // An apply waits for the approval of the environment's reviewers.
            Task::Deployer => vec![Jobs::Environment(&self.github_environment)],
            Task::Planner => vec![Jobs::PullRequests, Jobs::Branch(&self.branch)],
            Task::Verifier | Task::Reader | Task::Operator => vec![Jobs::Branch(&self.branch)],
        }
    }
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
        Task::Verifier => iam_policies::verifier_policy(&context),
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
    match &args.github {
        None => output.print(&format!("{printed:#}\n"))?,
        Some(repository) => {
            let trust = repository.trust_policy(&account, &args.jobs());
            output.print(&format!("{:#}\n", json!({ "policy": printed, "trust_policy": trust })))?;
            if !repository.has_ids() {
                // GitHub's changelog of 23 April 2026, on immutable subject claims.
                let note = "the tokens of repositories that were created, renamed or transferred since July 2026, or have opted \
                            in, have ids in their subjects: for such a repository, pass OWNER@ID/REPO@ID";
                output.notes(&[note.to_owned()]);
            }
        }
    }
    let is_inline = args.github.is_some() && iam_policies::fits_role(&policy);
    if args.part.is_none() && parts.len() > 1 && !is_inline {
        output.notes(&[format!(
            "the policy is too long for one managed policy: attach {0} of them, printed by --part 1 to --part {0}",
            parts.len()
        )]);
    }
    Ok(ExitCode::SUCCESS)
}
