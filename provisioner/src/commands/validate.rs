//! `provisioner validate`

use std::process::ExitCode;

use super::args::Global;
use crate::error::Error;
use crate::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    global.load()?;
    output.print(&format!("{} is valid.\n", global.config().display()))?;
    Ok(ExitCode::SUCCESS)
}
