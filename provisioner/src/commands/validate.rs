//! `provisioner validate`

use std::path::PathBuf;
use std::process::ExitCode;

use super::args::Global;
use crate::config::{Function, Pipeline, display_name};
use crate::error::Error;
use crate::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// List the architecture and binary of each function, for make
    #[arg(long, hide = true)]
    functions: bool,
}

/// The folder to which `make handler` writes the binaries that have no path in the file.
const BUILT: &str = "target/lambda";

/// Returns the path of a function's binary: as the file declares it, or the default of the counter or of a consumer.
fn binary(pipeline: &Pipeline, function: &Function) -> PathBuf {
    let default = PathBuf::from(BUILT);
    match (&function.artifact, function.name.strip_prefix(&format!("{}-", pipeline.name))) {
        (Some(path), _) => pipeline.directory.join(path),
        (None, Some(consumer)) if function.name != pipeline.function.name => default.join(consumer).join("bootstrap"),
        _ => default.join("bootstrap"),
    }
}

pub(crate) fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    if args.functions {
        let line =
            |function: &Function| format!("{}\t{}\n", function.architecture, binary(&pipeline, function).display());
        output.print(&pipeline.functions().into_iter().map(line).collect::<String>())?;
    } else {
        output.print(&format!("{} is valid.\n", display_name(&global.config())))?;
    }
    Ok(ExitCode::SUCCESS)
}
