//! `provisioner adopt`

use std::path::PathBuf;
use std::process::ExitCode;

use super::args::{listen, unless_stopped};
use super::written;
use crate::error::Error;
use crate::operations::adopt::{self, Description, Target};
use crate::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Bucket of the files [default: the function's]
    #[arg(long, value_name = "BUCKET", required_unless_present = "function")]
    bucket: Option<String>,
    /// Function that counts them [default: the bucket's]
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Region of both [env: AWS_REGION]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Name of the pipeline [default: after the function]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// File to write, which must not exist, with a schema beside it [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) async fn run(args: &Args, output: &Output) -> Result<ExitCode, Error> {
    let target = Target {
        bucket: args.bucket.clone(),
        function: args.function.clone(),
        name: args.name.clone(),
        region: region(args.region.as_deref())?,
    };
    let Description { file, bucket, function } = unless_stopped(&listen()?, adopt::describe(&target)).await?;
    let Some(path) = &args.out else {
        output.print(&file)?;
        return Ok(ExitCode::SUCCESS);
    };
    written::write(path, &file, false).map_err(|(path, source)| {
        let help = "choose another file with --out, in a folder that exists and is writable";
        Error::io(format_args!("write {}", path.display()), help, &source)
    })?;
    let path = path.display();
    let function = function.map(|function| format!(" and function {function}")).unwrap_or_default();
    output.print(&format!(
        "{path} describes bucket {bucket}{function}. Read its comments, then: provisioner --config {path} plan --adopt\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the region of the option, or of the variables that the AWS CLI reads.
fn region(given: Option<&str>) -> Result<String, Error> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let of_variables = || variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
    let missing = || Error::usage("the region is not known", "pass --region, or set AWS_REGION");
    given.map(str::to_owned).or_else(of_variables).ok_or_else(missing)
}
