//! `provisioner pause` and `provisioner resume`

use std::process::ExitCode;

use super::args::Global;
use crate::aws::Session;
use crate::error::Error;
use crate::operations::pause::Counting;
use crate::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs `pause` or `resume`.
pub(crate) async fn run(counting: Counting, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    Session::connect(&pipeline).await?.set_counting(counting).await?;
    let queue = &pipeline.notification.queue;
    output.print(&match counting {
        Counting::Paused => format!(
            "The pipeline is paused. Notifications wait in queue {queue}, for up to 14 days, until `provisioner resume`.\n"
        ),
        Counting::Running => format!("The pipeline counts again, beginning with what waits in queue {queue}.\n"),
    })?;
    Ok(ExitCode::SUCCESS)
}
