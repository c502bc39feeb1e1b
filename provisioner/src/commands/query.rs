//! `provisioner query`

use std::process::ExitCode;

use super::args::Global;
use crate::aws::Aws;
use crate::counts::period::{Period, PeriodArgs};
use crate::counts::{Measure, Reader, add_event};
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
    /// Print the sums of this field, one of rollup.sum: properties.revenue
    #[arg(long, value_name = "FIELD")]
    sum: Option<String>,
    /// Print its averages, over the messages that have it
    #[arg(long, requires = "sum")]
    average: bool,
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
    let measure = match &args.sum {
        None => Measure::Count,
        Some(field) if args.average => Measure::Average(field.clone()),
        Some(field) => Measure::Sum(field.clone()),
    };
    let (progress, reading) = (reader.progress(), reader.series(&events, &period, before.as_ref(), &measure));
    let series = show_while(output, &progress, reading).await?;
    output.print(&counts::series(&series, &period, before.as_ref(), &measure, args.format))?;
    output.notes(&counts::notes(&period, before.as_ref()));
    output.notes(&counts::sum_notes(&measure, &pipeline.rollup.sum));
    Ok(ExitCode::SUCCESS)
}
