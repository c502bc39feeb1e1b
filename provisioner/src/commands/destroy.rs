//! `provisioner destroy`

use std::process::ExitCode;

use super::apply::execute;
use super::args::Global;
use crate::aws::Session;
use crate::error::Error;
use crate::output::{Output, TextOrJson};
use crate::reconcile::document::PlanDocument;
use crate::reconcile::plan::Plan;
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
    let Session { aws, account, .. } = Session::connect(&pipeline).await?;
    let context = Context { pipeline: &pipeline, account: &account, artifacts: None };
    let (found, unread) = discover(&aws, &context).await?;
    let mut plan = Plan::destroy(found, args.delete_data);
    plan.notes.extend(unread);
    let document = PlanDocument::new(&pipeline, &account, &plan, None);
    execute(&aws, &plan, &document, args.yes, args.format, output).await?;
    Ok(ExitCode::SUCCESS)
}
