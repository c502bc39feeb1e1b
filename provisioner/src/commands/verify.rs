//! `provisioner verify`

use std::process::ExitCode;
use std::time::Duration;

use super::args::{Global, listen};
use crate::aws::Session;
use crate::error::Error;
use crate::operations::verify::Verified;
use crate::output::apply_stream::{self, Line};
use crate::output::{Output, TextOrJson};

/// The default of `--timeout`. Counting takes a second or two; the first notification of a new bucket takes up to five
/// minutes (S3 user guide, enabling event notifications).
pub(super) const TIMEOUT_SECONDS: u64 = 330;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Time limit for the count, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT_SECONDS, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: TextOrJson,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let session = Session::connect(&pipeline).await?;
    verify(&session, args.timeout, args.format, output).await?;
    Ok(ExitCode::SUCCESS)
}

/// Tests the deployment and prints the result.
pub(super) async fn verify(
    session: &Session<'_>,
    timeout_seconds: u64,
    format: TextOrJson,
    output: &Output,
) -> Result<(), Error> {
    let shutdown = listen()?;
    let verified = session.verify(Duration::from_secs(timeout_seconds), &shutdown).await?;
    match format {
        TextOrJson::Text => output.print(&text(&verified)),
        TextOrJson::Json => {
            apply_stream::print(output, &Line::Verified(&verified));
            Ok(())
        }
    }
}

fn text(verified: &Verified) -> String {
    let took = match verified.milliseconds {
        n @ 0..1000 => format!("{n} ms"),
        n => format!("{}.{} s", n / 1000, n % 1000 / 100),
    };
    format!(
        "The pipeline works: an object was counted {took} after its upload. The object and its count were removed.\n"
    )
}
