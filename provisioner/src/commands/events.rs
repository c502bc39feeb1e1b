//! `provisioner events`

use std::process::ExitCode;

use super::args::Global;
use super::event_names;
use crate::aws::Aws;
use crate::counts::Reader;
use crate::error::Error;
use crate::output::Output;
use crate::output::counts::{self, CountsFormat};
use crate::output::progress::show_while;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// List all names that were ever counted: scans the daily table
    #[arg(long)]
    all: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: CountsFormat,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let aws = Aws::connect(&pipeline).await?;
    let reader = Reader::new(&aws, &pipeline);
    let (progress, reading) = (reader.progress(), reader.names(args.all));
    let names = show_while(output, &progress, reading).await?;
    output.print(&counts::events(&names.names, args.format))?;
    event_names::remember(&pipeline, names.names.iter().map(String::as_str));
    output.notes(&counts::names_notes(&names));
    Ok(ExitCode::SUCCESS)
}
