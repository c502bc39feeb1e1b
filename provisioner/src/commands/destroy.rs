//! `provisioner destroy`

use std::process::ExitCode;

use futures_util::future::join_all;

use super::apply::execute;
use super::args::{Global, listen, unless_stopped};
use crate::aws::Session;
use crate::config::Pipeline;
use crate::error::Error;
use crate::output::{Output, TextOrJson};
use crate::reconcile::document::PlanDocument;
use crate::reconcile::plan::{Action, Plan};
use crate::resources::Context;
use crate::resources::discover::discover;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Delete the bucket with all of its objects, and the tables
    #[arg(long)]
    delete_data: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: TextOrJson,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let shutdown = listen()?;
    let (Session { aws, account, .. }, plan) = unless_stopped(&shutdown, make(&pipeline, args.delete_data)).await?;
    let document = PlanDocument::new(&pipeline, &account, &plan, None);
    execute(&aws, &plan, &document, args.yes, &shutdown, args.format, output).await?;
    Ok(ExitCode::SUCCESS)
}

/// Creates the plan that deletes everything the pipeline owns, with notes on the data that are lost.
async fn make(pipeline: &Pipeline, delete_data: bool) -> Result<(Session<'_>, Plan), Error> {
    let session = Session::connect(pipeline).await?;
    let context = Context { pipeline, account: &session.account, artifacts: None };
    let (found, unread) = discover(&session.aws, &context).await?;
    let mut plan = Plan::destroy(found, delete_data);
    plan.notes.extend(unread);
    let lost = plan.items.iter().filter(|item| item.action == Action::Delete && item.observed.holds_data());
    let notes = join_all(lost.map(|item| async {
        match item.observed.data(&session.aws).await {
            Ok(data) => format!("{} is deleted with {data}", item.address()),
            Err(error) => format!("{} is deleted with its data: {}", item.address(), error.summary()),
        }
    }));
    let notes = notes.await;
    plan.notes.extend(notes);
    Ok((session, plan))
}
