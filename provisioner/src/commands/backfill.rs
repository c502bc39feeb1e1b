//! `provisioner backfill`

use std::process::ExitCode;

use jiff::Timestamp;

use super::args::{Global, listen};
use crate::aws::Session;
use crate::counts::moment::moment;
use crate::error::Error;
use crate::operations::backfill::{Options, Tally, backfill};
use crate::output::progress::Bar;
use crate::output::{Output, TextOrJson};
use crate::text::{counted, grouped, printable};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Count keys with this prefix only [default: notification.prefix]
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Count objects uploaded at or after this time: 2015-08-04, 2015-08-04T12:00:00Z, yesterday
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Count objects uploaded before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Time zone of times without a zone: Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// Start after this key, as an earlier run printed it
    #[arg(long, value_name = "KEY")]
    start_after: Option<String>,
    /// Maximum objects per second [default: 50, or what table.billing carries]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: Option<u32>,
    /// Count objects again that are counted, and add the difference
    #[arg(long)]
    recount: bool,
    /// Report the objects without counting them
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the counts
    #[arg(long)]
    no_wait: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: TextOrJson,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let time = |flag: &str, text: &Option<String>| {
        text.as_deref().map(|text| moment(flag, text, args.tz.as_deref())).transpose()
    };
    let options = Options {
        prefix: args.prefix.clone().unwrap_or_else(|| pipeline.notification.prefix.clone()),
        from: time("--from", &args.from)?,
        to: time("--to", &args.to)?,
        after: args.start_after.clone(),
        rate: args.rate.unwrap_or_else(|| pipeline.table.billing.objects_a_second()),
        recount: args.recount.then(|| Timestamp::now().to_string()),
        dry_run: args.dry_run,
        wait: !args.no_wait,
    };
    if let (Some(from), Some(to)) = (options.from, options.to)
        && from >= to
    {
        return Err(Error::usage(
            format!("the period from {from} to {to} is empty"),
            "pass a --from that is earlier than --to",
        ));
    }
    let session = Session::connect(&pipeline).await?;
    session.ensure_readable(&options.prefix).await?;
    let shutdown = listen()?;
    let (tally, result) = {
        let bar = Bar::for_stderr(output, "objects done:");
        backfill(&session, &options, &|done, total| bar.set(done, total), &shutdown).await
    };
    output.show(args.format, &tally, || text(&tally, &options, result.is_ok()))?;
    result?;
    Ok(ExitCode::SUCCESS)
}

/// Formats the outcome of a run, which `is_complete` if it listed all objects.
fn text(tally: &Tally, options: &Options, is_complete: bool) -> String {
    let number = |n: u64| grouped(i64::try_from(n).unwrap_or(i64::MAX));
    let mut out = format!("{} below {}\n", counted(tally.listed, "object"), printable(&options.prefix));
    let mut line = |n: u64, what: &str| {
        if n > 0 {
            out.push_str(&format!("  {:>11}  {what}\n", number(n)));
        }
    };
    line(tally.left_out, "left out: uploaded at another time, or outside the notification's filter");
    line(tally.counted_before, "counted before");
    line(
        tally.forgotten,
        "left out: perhaps counted; bucket.expire_days was shorter, and the ledger has forgotten that time",
    );
    line(tally.archived, "left out: archived; restore them, then run the command again");
    if options.dry_run {
        let bytes = indicatif::HumanBytes(tally.bytes);
        let what = if options.recount.is_some() { "to count again" } else { "not counted" };
        line(tally.due, &format!("{what}, {bytes}: would be sent"));
    } else {
        line(tally.counted, "counted now");
        line(tally.sent.saturating_sub(tally.counted), "sent, not counted yet");
        line(tally.due.saturating_sub(tally.sent), "not counted, not sent");
    }
    for key in tally.forgotten_examples.iter().chain(&tally.archived_examples).chain(&tally.examples) {
        out.push_str(&format!("               {}\n", printable(key)));
    }
    if is_complete && tally.due + tally.archived + tally.forgotten == 0 {
        out.push_str("Everything is counted.\n");
    }
    out
}
