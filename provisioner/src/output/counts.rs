//! Counts as tables, JSON, CSV and TSV.

use std::collections::BTreeSet;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::json;

use crate::counts::period::Period;
use crate::counts::{Ranked, Series, Top};
use crate::text::{grouped, printable};
use clap::ValueEnum;

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

/// Formats the counts of events by part of a period.
pub(crate) fn series(all: &[Series], period: &Period, format: CountsFormat) -> String {
    match format {
        CountsFormat::Json => {
            let event = |series: &Series| {
                let counts: Vec<_> = series
                    .parts
                    .iter()
                    .enumerate()
                    .map(|(part, count)| json!({ "start": period.start_of(part), "count": count }))
                    .collect();
                let mut event = json!({ "event": series.event, "total": series.total(), "counts": counts });
                if let Some(before) = series.total_before() {
                    event["before"] = json!(before);
                }
                event
            };
            let events: Vec<_> = all.iter().map(event).collect();
            let whole = json!({
                "from": period.from(), "to": period.to(), "by": period.by().name(), "tz": period.zone(),
                "events": events,
            });
            format!("{whole:#}\n")
        }
        CountsFormat::Csv | CountsFormat::Tsv => {
            let names = all.iter().flat_map(|series| {
                let before = series.before.as_ref().map(|_| format!("{} (before)", series.event));
                std::iter::once(series.event.clone()).chain(before)
            });
            let header = std::iter::once("start".to_owned()).chain(names);
            // The previous period may have more parts, such as the days of a longer month.
            let longest = all.iter().filter_map(|series| Some(series.before.as_ref()?.len())).max().unwrap_or(0);
            let rows = (0..period.len().max(longest)).map(|part| {
                let exists = part < period.len();
                let counts = all.iter().flat_map(|series| {
                    let current = if exists { count_at(series, part).to_string() } else { String::new() };
                    let before = series.before.as_ref();
                    let before = before.map(|parts| parts.get(part).map(i64::to_string).unwrap_or_default());
                    std::iter::once(current).chain(before)
                });
                let start = if exists { period.start_of(part) } else { String::new() };
                std::iter::once(start).chain(counts).collect()
            });
            lines(std::iter::once(header.collect()).chain(rows), format)
        }
        CountsFormat::Table => series_table(all, period),
    }
}

fn count_at(series: &Series, part: usize) -> i64 {
    series.parts.get(part).copied().unwrap_or(0)
}

fn series_table(all: &[Series], period: &Period) -> String {
    // A comparison also shows the change from part to part, such as the growth month over month.
    let compares = all.iter().any(|series| series.before.is_some());
    let mut header = vec![format!("{} ({})", period.by().name(), period.zone())];
    for series in all {
        header.push(printable(&series.event));
        header.push(String::new());
        header.extend(compares.then(|| "change".to_owned()));
    }
    let mut table = empty_table(&header);
    let most: Vec<i64> = all.iter().map(|series| series.parts.iter().copied().max().unwrap_or(0)).collect();
    for part in 0..period.len() {
        let so_far = if period.is_cut_short(part) { " (so far)" } else { "" };
        let mut row = vec![period.label(part) + so_far];
        for (series, most) in all.iter().zip(&most) {
            let count = count_at(series, part);
            row.push(grouped(count));
            row.push(bar(count, *most));
            let since = part.checked_sub(1).map(|earlier| change(count, count_at(series, earlier)));
            row.extend(compares.then(|| since.unwrap_or_default()));
        }
        table.add_row(row);
    }
    let mut totals = vec!["total".to_owned()];
    for series in all {
        totals.push(grouped(series.total()));
        totals.push(String::new());
        totals.extend(compares.then(|| change(series.total(), series.total_before().unwrap_or(0))));
    }
    table.add_row(totals);
    if compares {
        let mut row = vec!["before".to_owned()];
        for series in all {
            row.extend([grouped(series.total_before().unwrap_or(0)), String::new(), String::new()]);
        }
        table.add_row(row);
    }
    let width = if compares { 3 } else { 2 };
    right_aligned(&mut table, (1..header.len()).filter(|column| (column - 1) % width != 1));
    format!("from {} to {}\n{table}\n", period.from(), period.to())
}

/// Formats the most frequent events.
pub(crate) fn top(top: &Top, period: &Period, format: CountsFormat) -> String {
    match format {
        CountsFormat::Json => {
            let event = |ranked: &Ranked| {
                json!({
                    "event": ranked.event, "count": ranked.count, "before": ranked.before,
                    "share": share(ranked.count, top.total),
                })
            };
            let events: Vec<_> = top.events.iter().map(event).collect();
            let whole = json!({
                "from": period.from(), "to": period.to(), "events": events,
                "distinct": top.distinct, "total": top.total, "total_before": top.total_before,
            });
            format!("{whole:#}\n")
        }
        CountsFormat::Csv | CountsFormat::Tsv => {
            let header = ["event", "count", "before"].map(str::to_owned).to_vec();
            let rows = top
                .events
                .iter()
                .map(|ranked| vec![ranked.event.clone(), ranked.count.to_string(), ranked.before.to_string()]);
            lines(std::iter::once(header).chain(rows), format)
        }
        CountsFormat::Table => {
            let mut table = empty_table(&["event", "count", "", "share", "before", "change"].map(str::to_owned));
            let most = top.events.first().map_or(0, |ranked| ranked.count);
            for Ranked { event, count, before } in &top.events {
                let share = format!("{:.1} %", share(*count, top.total) * 100.0);
                let row = [
                    printable(event),
                    grouped(*count),
                    bar(*count, most),
                    share,
                    grouped(*before),
                    change(*count, *before),
                ];
                table.add_row(row);
            }
            let (all, before) = (grouped(top.total), grouped(top.total_before));
            let row =
                ["all".to_owned(), all, String::new(), String::new(), before, change(top.total, top.total_before)];
            table.add_row(row);
            right_aligned(&mut table, [1, 3, 4, 5].into_iter());
            let (shown, distinct) = (top.events.len(), top.distinct);
            format!("{shown} of {distinct} events, from {} to {}\n{table}\n", period.from(), period.to())
        }
    }
}

/// Formats the names of events.
pub(crate) fn events(names: &BTreeSet<String>, format: CountsFormat) -> String {
    match format {
        CountsFormat::Json => format!("{:#}\n", json!(names)),
        CountsFormat::Csv | CountsFormat::Tsv => {
            let header = vec!["event".to_owned()];
            lines(std::iter::once(header).chain(names.iter().map(|name| vec![name.clone()])), format)
        }
        CountsFormat::Table => names.iter().map(|name| printable(name) + "\n").collect(),
    }
}

/// Formats rows as CSV or TSV. A spreadsheet evaluates a field that begins like a formula, so such a field gets a
/// leading apostrophe, which marks it as text (OWASP, CSV injection).
fn lines(rows: impl Iterator<Item = Vec<String>>, format: CountsFormat) -> String {
    let safe = |field: String| match field.chars().next() {
        Some('=' | '+' | '@' | '\t' | '\r') => format!("'{field}"),
        Some('-') if field.parse::<i64>().is_err() => format!("'{field}"),
        _ => field,
    };
    let mut out = String::new();
    for row in rows {
        let fields: Vec<String> = row
            .into_iter()
            .map(safe)
            .map(|field| match format {
                CountsFormat::Tsv => escaped(&field),
                _ if field.contains(['"', ',', '\n', '\r']) => format!("\"{}\"", field.replace('"', "\"\"")),
                _ => field,
            })
            .collect();
        out.push_str(&fields.join(if format == CountsFormat::Tsv { "\t" } else { "," }));
        out.push('\n');
    }
    out
}

/// Escapes the characters that would end a line or a field.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// The length of the longest bar, in characters.
const BAR: i64 = 20;

/// Returns the bar of a count, rounded up to an eighth of a character.
fn bar(count: i64, most: i64) -> String {
    if count <= 0 || most <= 0 {
        return String::new();
    }
    let eighths = (i128::from(count) * i128::from(BAR) * 8 + i128::from(most) - 1) / i128::from(most);
    let (whole, rest) = (usize::try_from(eighths / 8).unwrap_or(0), usize::try_from(eighths % 8).unwrap_or(0));
    let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(rest).copied().unwrap_or_default();
    "█".repeat(whole) + part
}

/// Formats the change since the previous period: `+1,200 (+12.5 %)`.
pub(crate) fn change(current: i64, before: i64) -> String {
    let difference = current.saturating_sub(before);
    let sign = if difference > 0 { "+" } else { "" };
    let numbers = format!("{sign}{}", grouped(difference));
    if before == 0 {
        return if current == 0 { numbers } else { format!("{numbers} (new)") };
    }
    let percent = share(difference, before) * 100.0;
    // Tenths are noise in a percentage of four digits.
    if percent.abs() < 1000.0 {
        return format!("{numbers} ({percent:+.1} %)");
    }
    let percent = format!("{percent:.0}").parse().map(grouped).unwrap_or_default();
    format!("{numbers} ({sign}{percent} %)")
}

/// Returns the ratio of a part to a whole, or 0 if the whole is 0. Counts are far below 2^53, up to which a float is
/// exact.
#[expect(clippy::cast_precision_loss, reason = "a percentage needs no higher precision")]
pub(crate) fn share(part: i64, whole: i64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

pub(crate) fn empty_table(header: &[String]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    table
}

pub(crate) fn right_aligned(table: &mut Table, columns: impl Iterator<Item = usize>) {
    for column in columns {
        if let Some(numbers) = table.column_mut(column) {
            numbers.set_cell_alignment(CellAlignment::Right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_has_a_sign_and_a_percentage() {
        assert_eq!(change(1125, 1000), "+125 (+12.5 %)");
        assert_eq!(change(500, 1000), "-500 (-50.0 %)");
        assert_eq!(change(123_456, 10), "+123,446 (+1,234,460 %)");
        assert_eq!((change(5, 0).as_str(), change(0, 0).as_str()), ("+5 (new)", "0"));
    }

    #[test]
    fn bar_is_proportional_to_its_count() {
        assert_eq!(bar(10, 10).chars().count(), 20);
        assert_eq!(bar(5, 10).chars().count(), 10);
        assert_eq!((bar(1, 1_000_000).as_str(), bar(0, 10).as_str()), ("▏", ""));
        assert_eq!(bar(i64::MAX, i64::MAX).chars().count(), 20);
    }

    #[test]
    fn csv_field_that_begins_like_a_formula_is_quoted() {
        let rows = || {
            [["=1+1", "a,b", "-5"], ["@x", "say \"hi\"", "-x"]].map(|row| row.map(str::to_owned).to_vec()).into_iter()
        };
        assert_eq!(lines(rows(), CountsFormat::Csv), "'=1+1,\"a,b\",-5\n'@x,\"say \"\"hi\"\"\",'-x\n");
        let tabs = [vec!["a\tb\nc".to_owned(), "1".to_owned()]];
        assert_eq!(lines(tabs.into_iter(), CountsFormat::Tsv), "a\\tb\\nc\t1\n");
    }
}
