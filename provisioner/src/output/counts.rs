//! Counts as tables, JSON, CSV and TSV.

use std::collections::BTreeSet;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::delimited;
use super::table::{Column, narrowest, table, terminal_width, wrapped};
use crate::counts::period::{Extent, Period};
use crate::counts::{Measure, Names, Quantity, RECENT_DAYS, Ranked, Series, Top, Which};
use crate::text::{grouped, printable};

/// The format of counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CountsFormat {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
    /// For spreadsheets
    Csv,
    /// For shells: fields between tabs; tabs, newlines and backslashes in names as \t, \n, \r, \\
    #[value(help = "For shells: fields between tabs; tabs, newlines and backslashes in names as \\t, \\n, \\r, \\\\")]
    Tsv,
}

/// The header of the first column of CSV and TSV, and of the last one.
const START: &str = "start";
const EXTENT: &str = "extent";

/// Formats the counts of events by part of a period, and of the previous period if it was read.
pub(crate) fn series(
    all: &[Series],
    period: &Period,
    before: Option<&Period>,
    measure: &Measure,
    format: CountsFormat,
) -> String {
    match format {
        CountsFormat::Json => {
            let event = |series: &Series| {
                let counts: Vec<_> = (0..period.len())
                    .map(|part| {
                        json!({
                            "start": period.start_of(part), "end": period.end_of(part),
                            "extent": period.extent(part).name(), member(measure): json_of(number_at(series, part), measure),
                        })
                    })
                    .collect();
                let total = json_of(series.numbers.total, measure);
                let mut event = json!({ "event": series.event, "total": total, "counts": counts });
                if let Some(before) = &series.before {
                    event["before"] = json_of(before.total, measure);
                }
                event
            };
            let mut whole = bounds(period, before);
            whole["by"] = json!(period.by().name());
            if let Measure::Sum(field) | Measure::Average(field) = measure {
                whole["field"] = json!(field);
            }
            whole["events"] = all.iter().map(event).collect();
            format!("{whole:#}\n")
        }
        CountsFormat::Csv => delimited::csv(series_rows(all, period)),
        CountsFormat::Tsv => delimited::tsv(series_rows(all, period)),
        CountsFormat::Table => series_table(all, period, before),
    }
}

/// Returns the name of a number in JSON.
fn member(measure: &Measure) -> &'static str {
    match measure {
        Measure::Count => "count",
        Measure::Sum(_) => "sum",
        Measure::Average(_) => "average",
    }
}

/// Returns a number as JSON. Sums are texts, since programs read JSON's numbers with few digits.
fn json_of(number: Quantity, measure: &Measure) -> Value {
    let text = number.to_string();
    match measure {
        Measure::Count => text.parse::<i64>().map_or_else(|_| json!(text), |count| json!(count)),
        Measure::Sum(_) | Measure::Average(_) => json!(text),
    }
}

/// Returns the bounds of a period and of the previous one.
fn bounds(period: &Period, before: Option<&Period>) -> Value {
    let mut bounds = json!({
        "from": period.from(), "to": period.to(), "tz": period.zone(), "divides_hours": period.divides_hours(),
        "extent": period.extent(period.len().saturating_sub(1)).name(),
    });
    if let Some(before) = before {
        bounds["previous"] = json!({
            "from": before.from(), "to": before.to(), "hours": before.hour_count(), "instead_of": period.hour_count(),
        });
    }
    bounds
}

/// Says what a reader of the counts of a period must know.
pub(crate) fn notes(period: &Period, before: Option<&Period>) -> Vec<String> {
    let mut notes = Vec::new();
    if period.divides_hours() || before.is_some_and(Period::divides_hours) {
        let unit = period.by().name();
        notes.push(format!(
            "counts are kept by UTC hour: an hour that a boundary divides belongs to the {unit} in which it begins"
        ));
    }
    if let Some(before) = before.filter(|before| before.hour_count() != period.hour_count()) {
        let (hours, instead) = (grouped(before.hour_count()), grouped(period.hour_count()));
        notes.push(format!("the previous period is not as long: it has {hours} hours instead of {instead}"));
    }
    notes
}

/// Says what a reader of sums must know.
pub(crate) fn sum_notes(measure: &Measure, summed: &[String]) -> Vec<String> {
    match measure {
        Measure::Sum(field) | Measure::Average(field) if !summed.contains(field) => {
            let field = printable(field);
            vec![format!("`{field}` is not in rollup.sum: only what was summed before is shown")]
        }
        _ => Vec::new(),
    }
}

/// Returns the header and the rows of CSV and TSV: the start, the counts of each event, and the extent.
fn series_rows(all: &[Series], period: &Period) -> impl Iterator<Item = Vec<String>> {
    let mut header = vec![START.to_owned()];
    for series in all {
        let before = series.before.as_ref().map(|_| format!("{} (before)", series.event));
        for mut name in std::iter::once(series.event.clone()).chain(before) {
            // A program finds a column by its header.
            while name == EXTENT || header.contains(&name) {
                name.push_str(" (event)");
            }
            header.push(name);
        }
    }
    header.push(EXTENT.to_owned());
    // The previous period may have more parts, such as the days of a longer month.
    let longest = all.iter().filter_map(|series| Some(series.before.as_ref()?.parts.len())).max().unwrap_or(0);
    let rows = (0..period.len().max(longest)).map(|part| {
        let exists = part < period.len();
        let counts = all.iter().flat_map(|series| {
            let current = if exists { number_at(series, part).to_string() } else { String::new() };
            let before = series.before.as_ref();
            let before = before.map(|before| before.parts.get(part).map(Quantity::to_string).unwrap_or_default());
            std::iter::once(current).chain(before)
        });
        let extent = if exists { period.extent(part).name() } else { "" };
        std::iter::once(period.start_of(part)).chain(counts).chain([extent.to_owned()]).collect()
    });
    std::iter::once(header).chain(rows)
}

fn number_at(series: &Series, part: usize) -> Quantity {
    series.numbers.parts.get(part).copied().unwrap_or_default()
}

/// Returns the change of an event since the part before. A part that is not whole is not compared with a whole one.
fn change_since(series: &Series, part: usize, period: &Period) -> String {
    let is_whole = |part: usize| period.extent(part) == Extent::Whole;
    match part.checked_sub(1).filter(|earlier| is_whole(*earlier) && is_whole(part)) {
        Some(earlier) => change(number_at(series, part), number_at(series, earlier)),
        None => String::new(),
    }
}

fn series_table(all: &[Series], period: &Period, before: Option<&Period>) -> String {
    let width = terminal_width();
    let mut labels: Vec<String> = (0..period.len()).map(|part| period.label(part)).collect();
    labels.push("total".to_owned());
    labels.extend(before.map(|_| "before".to_owned()));
    let unit = || Column::times(format!("{} ({})", period.by().name(), period.zone()), labels.clone());
    // A comparison also shows the change from part to part, such as the growth month over month.
    let columns = |series: &Series| {
        let total_before = series.before.as_ref().map(|before| before.total).unwrap_or_default();
        let mut counts: Vec<String> = series.numbers.parts.iter().copied().map(Quantity::grouped).collect();
        counts.push(series.numbers.total.grouped());
        counts.extend(before.map(|_| total_before.grouped()));
        let mut columns = vec![
            Column::values(printable(&series.event), counts),
            Column::bars(series.numbers.parts.iter().copied().map(Some).collect()),
        ];
        if before.is_some() {
            let mut changes: Vec<String> = (0..period.len()).map(|part| change_since(series, part, period)).collect();
            changes.push(change(series.numbers.total, total_before));
            columns.push(Column::values("change", changes));
        }
        columns
    };
    // As many events side by side as fit, then the next ones below.
    let mut out = heading(&format!("from {} to {}", period.from(), period.to()), before, width);
    let mut rest = all;
    while let Some((first, mut others)) = rest.split_first() {
        let mut block: Vec<Column> = std::iter::once(unit()).chain(columns(first)).collect();
        while let Some((next, after)) = others.split_first() {
            let next = columns(next);
            if width.is_some_and(|width| narrowest(&block) + narrowest(&next) > width) {
                break;
            }
            block.extend(next);
            others = after;
        }
        out.push_str(&table(block, width));
        rest = others;
    }
    out
}

/// Returns the lines above a table.
fn heading(text: &str, before: Option<&Period>, width: Option<usize>) -> String {
    let before = before.map(|before| format!(", compared with {} to {}", before.from(), before.to()));
    wrapped(&(text.to_owned() + &before.unwrap_or_default()), width) + "\n"
}

/// Formats the most frequent events.
pub(crate) fn top(top: &Top, period: &Period, before: &Period, measure: &Measure, format: CountsFormat) -> String {
    let rows = || {
        let header = ["event", member(measure), "before"].map(str::to_owned).to_vec();
        let row = |ranked: &Ranked| vec![ranked.event.clone(), ranked.number.to_string(), ranked.before.to_string()];
        std::iter::once(header).chain(top.events.iter().map(row))
    };
    match format {
        CountsFormat::Json => {
            let event = |ranked: &Ranked| {
                json!({
                    "event": ranked.event, member(measure): json_of(ranked.number, measure),
                    "before": json_of(ranked.before, measure), "share": ranked.number.share_of(top.total),
                })
            };
            let mut whole = bounds(period, Some(before));
            whole["events"] = top.events.iter().map(event).collect();
            whole["distinct"] = json!(top.distinct);
            whole["total"] = json_of(top.total, measure);
            whole["total_before"] = json_of(top.total_before, measure);
            format!("{whole:#}\n")
        }
        CountsFormat::Csv => delimited::csv(rows()),
        CountsFormat::Tsv => delimited::tsv(rows()),
        CountsFormat::Table => top_table(top, period, before, measure),
    }
}

fn top_table(top: &Top, period: &Period, before: &Period, measure: &Measure) -> String {
    /// Returns a column of the events and, below, of all of them.
    fn column<T>(top: &Top, of: impl Fn(&Ranked) -> T, all: T) -> Vec<T> {
        top.events.iter().map(of).chain([all]).collect()
    }
    let width = terminal_width();
    let share = |ranked: &Ranked| format!("{:.1} %", ranked.number.share_of(top.total) * 100.0);
    let header = match measure {
        Measure::Count => "count",
        Measure::Sum(field) | Measure::Average(field) => field,
    };
    let columns = vec![
        Column::names("event", column(top, |ranked| printable(&ranked.event), "all".to_owned())),
        Column::values(header, column(top, |ranked| ranked.number.grouped(), top.total.grouped())),
        Column::bars(column(top, |ranked| Some(ranked.number), None)),
        Column::values("share", column(top, share, String::new())).optional(),
        Column::values("before", column(top, |ranked| ranked.before.grouped(), top.total_before.grouped())).optional(),
        Column::values(
            "change",
            column(top, |ranked| change(ranked.number, ranked.before), change(top.total, top.total_before)),
        )
        .optional(),
    ];
    let (shown, distinct) = (top.events.len(), top.distinct);
    let text = format!("{shown} of {distinct} events, from {} to {}", period.from(), period.to());
    heading(&text, Some(before), width) + &table(columns, width)
}

/// Formats the names of events.
pub(crate) fn events(names: &BTreeSet<String>, format: CountsFormat) -> String {
    let rows = || std::iter::once(vec!["event".to_owned()]).chain(names.iter().map(|name| vec![name.clone()]));
    match format {
        CountsFormat::Json => format!("{:#}\n", json!(names)),
        CountsFormat::Csv => delimited::csv(rows()),
        CountsFormat::Tsv => delimited::tsv(rows()),
        CountsFormat::Table => names.iter().map(|name| printable(name) + "\n").collect(),
    }
}

/// Returns what a reader of a list of names must know: which of all names it has.
pub(crate) fn names_notes(names: &Names) -> Vec<String> {
    let note = match names.which {
        Which::All => return Vec::new(),
        Which::Recent => format!("these are the events of the last {RECENT_DAYS} days; --all lists all names"),
        Which::Some if names.names.is_empty() => "no event was counted yet".to_owned(),
        Which::Some => {
            format!("no event of the last {RECENT_DAYS} days; these are some older ones; --all lists all names")
        }
    };
    vec![note]
}

/// Formats the change since the previous period: `+1,200 (+12.5 %)`.
pub(crate) fn change(current: Quantity, before: Quantity) -> String {
    let difference = current.minus(before);
    let sign = if difference > Quantity::default() { "+" } else { "" };
    let numbers = format!("{sign}{}", difference.grouped());
    if before.is_zero() {
        return if current.is_zero() { numbers } else { format!("{numbers} (new)") };
    }
    let percent = difference.share_of(before) * 100.0;
    // Tenths are noise in a percentage of four digits.
    if percent.abs() < 1000.0 {
        return format!("{numbers} ({percent:+.1} %)");
    }
    let percent = format!("{percent:.0}").parse().map(grouped).unwrap_or_default();
    format!("{numbers} ({}{percent} %)", if percent.starts_with('-') { "" } else { "+" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_has_a_sign_and_a_percentage() {
        assert_eq!(change(1125.into(), 1000.into()), "+125 (+12.5 %)");
        assert_eq!(change(500.into(), 1000.into()), "-500 (-50.0 %)");
        assert_eq!(change(123_456.into(), 10.into()), "+123,446 (+1,234,460 %)");
        assert_eq!((change(5.into(), 0.into()).as_str(), change(0.into(), 0.into()).as_str()), ("+5 (new)", "0"));
    }
}
