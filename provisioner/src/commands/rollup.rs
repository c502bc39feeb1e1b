//! `provisioner rollup`

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use counting::amount::{Amount, Sum, plain};
use counting::names::MESSAGE_TYPES;
use counting::rollup::{OVERFLOW, RollupError, Totals};
use counting::stats::Stats;
use serde_json::json;

use super::args::Global;
use crate::config::Rollup;
use crate::error::{Error, ErrorKind};
use crate::output::Output;
use crate::output::delimited::escaped;
use crate::output::table::{Column, table, terminal_width};
use crate::text::printable;

/// The number of bytes per read.
const BLOCK: usize = 256 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Segment's files, gzipped or not; - for stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Count messages of this type; repeatable [default: rollup.count of pipeline.toml, or track]
    #[arg(long, value_name = "TYPE")]
    count: Vec<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: RollupFormat,
}

/// The format of a rollup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum RollupFormat {
    /// Sorted lines of event, hour and count between tabs
    #[default]
    #[value(
        help = "Sorted lines of event, hour and count between tabs; tabs, newlines and backslashes in names as \\t, \\n, \\r, \\\\"
    )]
    Tsv,
    /// For people
    Table,
    /// For programs
    Json,
}

pub(crate) fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let rules = rules(&args.count, global)?;
    let (totals, failed) = count_files(&args.files, &rules, output);
    output.print(&text(&totals, &rules.sum, args.format))?;
    Error::fail_with(failed)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the rules of counting: those of pipeline.toml if it exists, and the message types of `--count`.
fn rules(named: &[String], global: &Global) -> Result<Rollup, Error> {
    if let Some(unknown) = named.iter().find(|name| !MESSAGE_TYPES.contains(&name.as_str())) {
        return Err(Error::usage(
            format!("`{}` is not a Segment message type", unknown.escape_debug()),
            format!("pass one of {}", MESSAGE_TYPES.join(", ")),
        ));
    }
    let mut rules = if global.config().exists() { global.load()?.rollup } else { Rollup::default() };
    if !named.is_empty() {
        rules.count = named.to_vec();
    }
    Ok(rules)
}

/// Returns the totals of all readable files, and the errors of the others. Reports skipped lines on stderr.
fn count_files(files: &[PathBuf], rules: &Rollup, output: &Output) -> (Totals, Vec<Error>) {
    let (mut totals, mut failed) = (Totals::new(), Vec::new());
    let mut contents: HashMap<String, &PathBuf> = HashMap::new();
    for path in files {
        match count_file(path, rules) {
            Ok((added, stats)) => {
                let first = contents.insert(stats.digest.clone(), path).filter(|_| !added.is_empty());
                if let Some(first) = first.filter(|_| !rules.counts_duplicates) {
                    let [name, first] = [path, first].map(|path| printable(&path.display().to_string()));
                    output.progress(&format!("{name}: not counted, as it has the same content as {first}"));
                    continue;
                }
                for (pair, amount) in added {
                    *totals.entry(pair).or_default() += &amount;
                }
                let name = printable(&path.display().to_string());
                if stats.overflowed > 0 {
                    let number = stats.overflowed;
                    output.progress(&format!(
                        "{name}: messages counted as `{OVERFLOW}`, as there are too many pairs: {number}"
                    ));
                }
                if stats.beyond_limits > 0 {
                    let number = stats.beyond_limits;
                    output.progress(&format!(
                        "{name}: messages counted when they were received, as their time is too early or late: {number}"
                    ));
                }
                if let Some(summary) = stats.skip_summary() {
                    output.progress(&format!("{name}: {summary}"));
                }
                if !stats.fields_skipped.is_empty() {
                    output.progress(&format!("{name}: values that are not summed: {}", stats.fields()));
                }
                if !stats.other_types.is_empty() {
                    output.progress(&format!("{name}: messages of other types: {}", stats.types()));
                }
                if !stats.fallbacks.is_empty() {
                    output.progress(&format!("{name}: messages by another time: {}", stats.other_times()));
                }
            }
            Err(error) => failed.push(error),
        }
    }
    (totals, failed)
}

fn count_file(path: &Path, rules: &Rollup) -> Result<(Totals, Stats), Error> {
    let name = printable(&path.display().to_string());
    let unreadable =
        |source: io::Error| Error::io(format_args!("read {name}"), "check the file's name and permissions", &source);
    let damaged = |error| match error {
        RollupError::Damaged(source) => {
            let help = "replace the file: it is damaged or truncated, and the function would not count it either";
            Error::io(format_args!("inflate {name}"), help, &source)
        }
        RollupError::Format(_) | RollupError::NoMessages(_) => Error::new(
            ErrorKind::Usage,
            format!("failed to count {name}: {error}"),
            "write one JSON object on each line: the function would not count the file either",
        ),
    };
    let mut input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(unreadable)?)
    };
    let (mut rollup, mut block) = (counting::rollup::Rollup::new(&rules.rules()), vec![0; BLOCK]);
    loop {
        match input.read(&mut block) {
            Ok(0) => break,
            Ok(read) => rollup.push(block.get(..read).unwrap_or_default()).map_err(damaged)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    rollup.finish().map_err(damaged)
}

/// Formats the totals. With sums, each row has the further attributes of its item.
fn text(totals: &Totals, sums: &[String], format: RollupFormat) -> String {
    match format {
        RollupFormat::Tsv => {
            let mut out = String::new();
            for ((event, hour), amount) in totals {
                out.push_str(&escaped(event));
                out.push_str(&format!("\t{hour}\t{}", amount.count));
                for field in sums {
                    let Sum { values, sum } = amount.sums.get(field).cloned().unwrap_or_default();
                    out.push_str(&format!("\t{}\t{values}", plain(&sum)));
                }
                out.push('\n');
            }
            out
        }
        RollupFormat::Json => {
            let row = |((event, hour), amount): (&(String, String), &Amount)| {
                let mut row = json!({ "event": event, "hour": hour, "count": amount.count });
                for (field, Sum { values, sum }) in &amount.sums {
                    // JSON has no limit of digits, but its readers do.
                    row["sums"][field] = json!({ "sum": plain(sum), "values": values });
                }
                row
            };
            format!("{:#}\n", json!(totals.iter().map(row).collect::<Vec<_>>()))
        }
        RollupFormat::Table => {
            let column = |of: &dyn Fn(&str, &str, &Amount) -> String| -> Vec<String> {
                totals.iter().map(|((event, hour), amount)| of(event, hour, amount)).collect()
            };
            let mut columns = vec![
                Column::names("event", column(&|event, _, _| printable(event))),
                Column::times("hour (UTC)", column(&|_, hour, _| hour.to_owned())),
                Column::values("count", column(&|_, _, amount| amount.count.to_string())),
            ];
            for field in sums {
                let sum = |amount: &Amount| amount.sums.get(field).map(|sum| plain(&sum.sum)).unwrap_or_default();
                columns.push(Column::values(field, column(&|_, _, amount| sum(amount))));
            }
            table(columns, terminal_width())
        }
    }
}
