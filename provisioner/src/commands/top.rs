//! `provisioner top`

use std::process::ExitCode;

use super::args::Global;
use crate::aws::Aws;
use crate::counts::period::{Period, PeriodArgs};
use crate::counts::{Measure, Reader};
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
    /// Number of events
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: CountsFormat,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let (pipeline, period) = (global.load()?, Period::of(&args.period)?);
    let before = period.before()?;
    let aws = Aws::connect(&pipeline).await?;
    let reader = Reader::new(&aws, &pipeline);
    let measure = args.by_sum.clone().map_or(Measure::Count, Measure::Sum);
    let (progress, reading) = (reader.progress(), reader.top(&period, &before, args.limit, &measure));
    let top = show_while(output, &progress, reading).await?;
    output.print(&counts::top(&top, &period, &before, &measure, args.format))?;
    output.notes(&counts::notes(&period, Some(&before)));
    output.notes(&counts::sum_notes(&measure, &pipeline.rollup.sum));
    Ok(ExitCode::SUCCESS)
}
