//! `provisioner status`

use std::process::ExitCode;

use super::args::Global;
use crate::aws::Session;
use crate::counts::Skipped;
use crate::error::Error;
use crate::operations::function_log::LogLine;
use crate::operations::status::{ConsumerFailures, Counted, Deployed, Status};
use crate::output::{Output, TextOrJson};
use crate::text::{counted, grouped, printable};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: TextOrJson,
}

/// The exit code of a pipeline that cannot count, has failures, or cannot be read.
pub(super) const NOT_WORKING: u8 = 3;
/// The most objects with skipped lines that are listed; JSON has all.
const MOST_SKIPS: usize = 5;

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let (status, unread) = Session::connect(&pipeline).await?.status().await;
    output.show(args.format, &status, || text(&status))?;
    if let Some(error) = Error::all(unread) {
        output.error(&error);
    }
    Ok(if status.is_working { ExitCode::SUCCESS } else { NOT_WORKING.into() })
}

fn text(status: &Status) -> String {
    let Status { pipeline, region, account, at, function, last_hour, last_day, .. } = status;
    let Status { skips, waiting, oldest_waiting_seconds, failures, consumers, errors, findings, .. } = status;
    let mut out = format!("{pipeline} in {region}, account {account}, at {at}\n\n");
    out.push_str(&match function {
        // The findings tell missing and unknown apart.
        None => "function    see below\n".to_owned(),
        Some(Deployed { name, state, code_sha256, revision, changed }) => {
            let revision = revision.as_deref().filter(|revision| *revision != "unknown");
            let revision =
                revision.map_or_else(String::new, |revision| format!(" of revision {}", printable(revision)));
            format!(
                "function    {}: {}, changed {}\n            code {}{revision}\n",
                printable(name),
                printable(state),
                printable(changed),
                printable(code_sha256),
            )
        }
    });
    let objects = |span: &Option<Counted>| span.as_ref().map_or_else(|| "unknown".to_owned(), counted_text);
    out.push_str(&format!("last hour   {}\nlast day    {}\n", objects(last_hour), objects(last_day)));
    out.push_str(&match skips.as_deref() {
        None => "skips       unknown\n".to_owned(),
        Some([]) => "skips       no lines of the last day\n".to_owned(),
        Some(skips) => skips_text(skips),
    });
    if let Some(waiting) = waiting {
        let oldest = oldest_waiting_seconds.and_then(|seconds| i64::try_from(seconds).ok()).map(grouped);
        let oldest = oldest.map_or_else(String::new, |seconds| format!(", the oldest for {seconds} s"));
        out.push_str(&format!("waiting     {}{oldest}\n", counted(*waiting, "notification")));
    }
    out.push_str(&match failures {
        None => "failures    unknown\n".to_owned(),
        Some(0) => "failures    none\n".to_owned(),
        Some(n) => format!("failures    {n}\n"),
    });
    for ConsumerFailures { function, failures, .. } in consumers.iter().flatten() {
        let failures = if *failures == 0 {
            "no failed batches".to_owned()
        } else {
            format!("{} failed", grouped(i64::try_from(*failures).unwrap_or(i64::MAX)))
        };
        out.push_str(&format!("consumer    {}: {failures}\n", printable(function)));
    }
    out.push_str(match errors.as_deref() {
        None => "errors      unknown\n",
        Some([]) => "errors      none in the log of the last day\n",
        Some(_) => "errors      the most recent ones in the log:\n",
    });
    for LogLine { at, message } in errors.iter().flatten() {
        out.push_str(&format!("            {at} {}\n", printable(message.trim())));
    }
    out.push_str(match findings.is_empty() {
        true => "\nThe pipeline counts.\n",
        false => "\nThe pipeline does not count everything, or may not:\n",
    });
    for finding in findings {
        out.push_str(&format!("  {}\n", printable(&finding.line())));
    }
    out
}

/// Lists the latest objects with skipped lines.
fn skips_text(skips: &[Skipped]) -> String {
    let (sum, values) =
        (skips.iter().map(Skipped::skipped_lines).sum(), skips.iter().map(Skipped::skipped_values).sum());
    let [lines, objects] = [counted(sum, "line"), counted(skips.len() as u64, "object")];
    let values = if values > 0 { format!(" and {}", counted(values, "value")) } else { String::new() };
    let mut out = format!("skips       {lines}{values} in {objects} of the last day, in the latest:\n");
    for skipped in skips.iter().take(MOST_SKIPS) {
        let (reasons, first) = (printable(&skipped.reasons()), printable(&skipped.first()));
        let (object, lines) = (printable(&skipped.object), skipped.lines);
        out.push_str(&format!("            {object} of {lines} lines: {reasons}; first: {first}\n"));
    }
    out
}

fn counted_text(span: &Counted) -> String {
    let lag = match (span.median_seconds, span.longest_seconds) {
        (Some(median), Some(longest)) => {
            // The ledger's clock has a resolution of one second.
            let within = |seconds: i64| match seconds {
                0 | 1 => "a second".to_owned(),
                more => format!("{} seconds", grouped(more)),
            };
            format!(", half of them within {} of their upload, all within {}", within(median), within(longest))
        }
        _ => String::new(),
    };
    let duplicates = match span.duplicates as u64 {
        0 => String::new(),
        n => format!("; {} with the content of another", counted(n, "object")),
    };
    format!("{} counted{lag}{duplicates}", counted(span.objects as u64, "object"))
}
