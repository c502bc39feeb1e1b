//! `provisioner schema`

use std::process::ExitCode;

use clap::ValueEnum;

use crate::config;
use crate::error::Error;
use crate::output::Output;
use crate::output::apply_stream::Line;
use crate::reconcile::document::PlanDocument;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Document that the schema describes
    #[arg(value_enum)]
    of: Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Document {
    /// pipeline.toml
    Pipeline,
    /// The output of plan --format json
    Plan,
    /// Each line of apply --format json
    Apply,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<ExitCode, Error> {
    let schema = match args.of {
        Document::Pipeline => config::schema(),
        Document::Plan => schemars::schema_for!(PlanDocument),
        Document::Apply => schemars::schema_for!(Line<'_>),
    };
    output.print(&format!("{:#}\n", schema.as_value()))?;
    Ok(ExitCode::SUCCESS)
}
