//! `provisioner validate`

use std::process::ExitCode;

use super::args::Global;
use crate::config::{Function, display_name};
use crate::error::Error;
use crate::output::Output;
use crate::resources::function::artifact::BUILT;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// List the architecture and binary of each function, for make
    #[arg(long, hide = true)]
    functions: bool,
}

pub(crate) fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    if args.functions {
        let line = |function: &Function| {
            let path = function.artifact.as_ref().map_or_else(|| BUILT.into(), |path| pipeline.directory.join(path));
            format!("{}\t{}\n", function.architecture, path.display())
        };
        output.print(&pipeline.functions().into_iter().map(line).collect::<String>())?;
    } else {
        output.print(&format!("{} is valid.\n", display_name(&global.config())))?;
    }
    Ok(ExitCode::SUCCESS)
}
