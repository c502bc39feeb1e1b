//! `provisioner query`

use std::process::ExitCode;

use super::args::Global;
use super::event_names;
use crate::aws::Aws;
use crate::counts::period::{Period, PeriodArgs};
use crate::counts::{Breakdown, Measure, Reader, add_event};
use crate::error::Error;
use crate::output::Output;
use crate::output::counts::{self, CountsFormat};
use crate::output::progress::show_while;

/// The default number of values.
const VALUES: usize = 20;

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
    /// Print a series for each value of this field, one of rollup.by
    #[arg(long, value_name = "PATH", conflicts_with = "compare")]
    by_property: Option<String>,
    /// Number of values; the others are taken together [default: 20]
    #[arg(short = 'n', long, value_name = "N", requires = "by_property")]
    limit: Option<usize>,
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
    let mut events = Vec::new();
    for event in &args.events {
        add_event(&mut events, event);
    }
    let breakdown = match (&args.by_property, events.as_slice()) {
        (None, _) => None,
        (Some(path), [event]) => Some(Breakdown::new(event, path, &pipeline.rollup.by)?),
        (Some(_), _) => {
            let message = format!("--by-property cannot be used with {} events", events.len());
            return Err(Error::usage(message, "name one event"));
        }
    };
    let aws = Aws::connect(&pipeline).await?;
    let reader = Reader::new(&aws, &pipeline).consistent(args.consistent);
    let measure = match &args.sum {
        None => Measure::Count,
        Some(field) if args.average => Measure::Average(field.clone()),
        Some(field) => Measure::Sum(field.clone()),
    };
    let (before, breakdown) = (before.as_ref(), breakdown.as_ref());
    let reading = async {
        match breakdown {
            Some(breakdown) => reader.by_value(breakdown, &period, args.limit.unwrap_or(VALUES), &measure).await,
            None => reader.series(&events, &period, before, &measure).await,
        }
    };
    let series = show_while(output, &reader.progress(), reading).await?;
    output.print(&counts::series(&series, &period, before, &measure, breakdown, args.format))?;
    event_names::remember(&pipeline, events.iter().map(String::as_str));
    output.notes(&counts::notes(&period, before));
    output.notes(&counts::sum_notes(&measure, &pipeline.rollup.sum));
    output.notes(&counts::breakdown_notes(breakdown));
    Ok(ExitCode::SUCCESS)
}
