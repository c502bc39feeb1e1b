//! `provisioner top`

use std::process::ExitCode;

use super::args::Global;
use super::event_names;
use crate::aws::Aws;
use crate::counts::period::{Period, PeriodArgs};
use crate::counts::{Breakdown, Measure, Reader};
use crate::error::Error;
use crate::output::Output;
use crate::output::counts::{self, CountsFormat};
use crate::output::progress::show_while;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    period: PeriodArgs,
    /// Rank by the sums of this field, one of rollup.sum: properties.revenue
    #[arg(long, value_name = "FIELD")]
    by_sum: Option<String>,
    /// Rank the values of a field of this event instead of the events
    #[arg(long, value_name = "EVENT", requires = "property")]
    of: Option<String>,
    /// The field, one of rollup.by: properties.plan
    #[arg(long, value_name = "PATH", requires = "of")]
    property: Option<String>,
    /// Number of events, or of values
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: CountsFormat,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let (pipeline, period) = (global.load()?, Period::of(&args.period)?);
    let before = period.before()?;
    let breakdown = args.of.as_ref().zip(args.property.as_ref());
    let breakdown = breakdown.map(|(event, path)| Breakdown::new(event, path, &pipeline.rollup.by)).transpose()?;
    let breakdown = breakdown.as_ref();
    let aws = Aws::connect(&pipeline).await?;
    let reader = Reader::new(&aws, &pipeline);
    let measure = args.by_sum.clone().map_or(Measure::Count, Measure::Sum);
    let reading = async {
        match breakdown {
            Some(breakdown) => reader.top_values(breakdown, &period, &before, args.limit, &measure).await,
            None => reader.top(&period, &before, args.limit, &measure).await,
        }
    };
    let top = show_while(output, &reader.progress(), reading).await?;
    output.print(&counts::top(&top, &period, &before, &measure, breakdown, args.format))?;
    if breakdown.is_none() {
        event_names::remember(&pipeline, top.events.iter().map(|ranked| ranked.event.as_str()));
    }
    output.notes(&counts::notes(&period, Some(&before)));
    output.notes(&counts::sum_notes(&measure, &pipeline.rollup.sum));
    output.notes(&counts::breakdown_notes(breakdown));
    Ok(ExitCode::SUCCESS)
}
