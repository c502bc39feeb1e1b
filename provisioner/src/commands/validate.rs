//! `provisioner validate`

use std::process::ExitCode;

use super::args::Global;
use crate::config::display_name;
use crate::error::Error;
use crate::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    global.load()?;
    output.print(&format!("{} is valid.\n", display_name(&global.config())))?;
    Ok(ExitCode::SUCCESS)
}
