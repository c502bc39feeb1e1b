//! `provisioner completions`

use std::process::ExitCode;

use crate::error::Error;
use crate::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shell that runs the script
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &Args, mut program: clap::Command, output: &Output) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "provisioner", &mut script);
    output.print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
