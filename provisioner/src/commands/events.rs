//! `provisioner events`

use std::process::ExitCode;

use super::args::Global;
use crate::aws::Aws;
use crate::counts::Reader;
use crate::error::Error;
use crate::output::Output;
use crate::output::counts::{self, CountsFormat};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: CountsFormat,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let aws = Aws::connect(&pipeline).await?;
    let reader =
        Reader { aws: &aws, table: &pipeline.table.counts, daily: &pipeline.table.daily, is_consistent: false };
    output.print(&counts::events(&reader.events().await?, args.format))?;
    Ok(ExitCode::SUCCESS)
}
