//! `provisioner query`

use std::process::ExitCode;

use super::args::Global;
use crate::aws::Aws;
use crate::counts::period::{Period, PeriodArgs};
use crate::counts::{Reader, add_event};
use crate::error::Error;
use crate::output::Output;
use crate::output::counts::{self, CountsFormat};
use crate::output::progress::show_while;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names of the events
    #[arg(required = true, value_name = "EVENT")]
    events: Vec<String>,
    #[command(flatten)]
    period: PeriodArgs,
    /// Compare with the previous period of the same length
    #[arg(long)]
    compare: bool,
    /// Read the counts strongly consistently, at twice the price
    #[arg(long)]
    consistent: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: CountsFormat,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let (pipeline, period) = (global.load()?, Period::of(&args.period)?);
    let before = args.compare.then(|| period.before()).transpose()?;
    let aws = Aws::connect(&pipeline).await?;
    let reader = Reader::new(&aws, &pipeline).consistent(args.consistent);
    let mut events = Vec::new();
    for event in &args.events {
        add_event(&mut events, event);
    }
    let (progress, reading) = (reader.progress(), reader.series(&events, &period, before.as_ref()));
    let series = show_while(output, "readings done:", || progress.now(), reading).await?;
    output.print(&counts::series(&series, &period, before.as_ref(), args.format))?;
    output.notes(&counts::notes(&period, before.as_ref()));
    Ok(ExitCode::SUCCESS)
}
