//! Counts as tables, JSON, CSV and TSV.

use std::collections::BTreeSet;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::delimited;
use super::table::{Column, narrowest, table, terminal_width, wrapped};
use crate::counts::period::{Extent, Period};
use crate::counts::{Breakdown, Measure, Names, Quantity, RECENT_DAYS, Ranked, Series, Top, Which};
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

/// Returns the noun for the rows: values of a breakdown `of` an event, or events.
fn noun(of: Option<&Breakdown>) -> &'static str {
    if of.is_some() { "value" } else { "event" }
}

/// Returns the beginning of the line above a table of a breakdown.
fn subject(of: Option<&Breakdown>) -> String {
    of.map(|of| format!("{} by {}, ", printable(&of.event), printable(&of.path))).unwrap_or_default()
}

/// Formats the counts of events, or of the values of a breakdown `of` an event, by part of a period, and of the previous
/// period if it was read.
pub(crate) fn series(
    all: &[Series],
    period: &Period,
    before: Option<&Period>,
    measure: &Measure,
    of: Option<&Breakdown>,
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
                let mut event = json!({ noun(of): series.event, "total": total, "counts": counts });
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
            if let Some(of) = of {
                whole["event"] = json!(of.event);
                whole["property"] = json!(of.path);
            }
            whole[format!("{}s", noun(of))] = all.iter().map(event).collect();
            format!("{whole:#}\n")
        }
        CountsFormat::Csv => delimited::csv(series_rows(all, period, noun(of))),
        CountsFormat::Tsv => delimited::tsv(series_rows(all, period, noun(of))),
        CountsFormat::Table => series_table(all, period, before, of),
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

/// Says what a reader of a breakdown must know.
pub(crate) fn breakdown_notes(of: Option<&Breakdown>) -> Vec<String> {
    let undeclared = of.filter(|of| !of.is_declared).map(|of| printable(&of.path));
    let note = |path: String| format!("`{path}` is not in rollup.by: only what was counted before is shown");
    undeclared.map(note).into_iter().collect()
}

/// Returns the header and the rows of CSV and TSV: the start, the counts of each event, and the extent.
fn series_rows(all: &[Series], period: &Period, noun: &str) -> impl Iterator<Item = Vec<String>> {
    let mut header = vec![START.to_owned()];
    for series in all {
        let before = series.before.as_ref().map(|_| format!("{} (before)", series.event));
        for mut name in std::iter::once(series.event.clone()).chain(before) {
            // A program finds a column by its header.
            while name == EXTENT || header.contains(&name) {
                name.push_str(&format!(" ({noun})"));
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

fn series_table(all: &[Series], period: &Period, before: Option<&Period>, of: Option<&Breakdown>) -> String {
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
    let mut out = heading(&format!("{}from {} to {}", subject(of), period.from(), period.to()), before, width);
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

/// Formats the most frequent events, or the most frequent values of a breakdown `of` an event.
pub(crate) fn top(
    top: &Top,
    period: &Period,
    before: &Period,
    measure: &Measure,
    of: Option<&Breakdown>,
    format: CountsFormat,
) -> String {
    let rows = || {
        let header = [noun(of), member(measure), "before"].map(str::to_owned).to_vec();
        let row = |ranked: &Ranked| vec![ranked.event.clone(), ranked.number.to_string(), ranked.before.to_string()];
        std::iter::once(header).chain(top.events.iter().map(row))
    };
    match format {
        CountsFormat::Json => {
            let event = |ranked: &Ranked| {
                json!({
                    noun(of): ranked.event, member(measure): json_of(ranked.number, measure),
                    "before": json_of(ranked.before, measure), "share": ranked.number.share_of(top.total),
                })
            };
            let mut whole = bounds(period, Some(before));
            if let Some(of) = of {
                whole["of"] = json!(of.event);
                whole["property"] = json!(of.path);
            }
            whole[format!("{}s", noun(of))] = top.events.iter().map(event).collect();
            whole["distinct"] = json!(top.distinct);
            whole["total"] = json_of(top.total, measure);
            whole["total_before"] = json_of(top.total_before, measure);
            format!("{whole:#}\n")
        }
        CountsFormat::Csv => delimited::csv(rows()),
        CountsFormat::Tsv => delimited::tsv(rows()),
        CountsFormat::Table => top_table(top, period, before, measure, of),
    }
}

fn top_table(top: &Top, period: &Period, before: &Period, measure: &Measure, of: Option<&Breakdown>) -> String {
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
        Column::names(noun(of), column(top, |ranked| printable(&ranked.event), "all".to_owned())),
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
    let (shown, distinct, noun) = (top.events.len(), top.distinct, noun(of));
    let (from, to) = (period.from(), period.to());
    let text = format!("{}{shown} of {distinct} {noun}s, from {from} to {to}", subject(of));
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
    use crate::counts::Numbers;
    use crate::counts::calendar::By;
    use crate::counts::period::PeriodArgs;

    fn plan() -> (Breakdown, Period) {
        let args = PeriodArgs {
            last: None,
            from: Some("2015-08-04".to_owned()),
            to: Some("2015-08-05".to_owned()),
            by: Some(By::Day),
            tz: None,
        };
        let breakdown = Breakdown::new("Signed Up", "properties.plan", &[]).expect("a path");
        (breakdown, Period::of(&args).expect("a period"))
    }

    #[test]
    fn json_of_a_breakdown_names_its_event_and_property() {
        let (of, period) = plan();
        let value = Series { event: "pro".to_owned(), numbers: Numbers::of(vec![3.into()]), before: None };
        let text = |of| series(std::slice::from_ref(&value), &period, None, &Measure::Count, of, CountsFormat::Json);
        let json = |text: String| serde_json::from_str::<Value>(&text).expect("JSON");
        let (breakdown, plain) = (json(text(Some(&of))), json(text(None)));
        assert_eq!((&breakdown["event"], &breakdown["property"]), (&json!("Signed Up"), &json!("properties.plan")));
        assert_eq!((&breakdown["values"][0]["value"], &breakdown["values"][0]["total"]), (&json!("pro"), &json!(3)));
        assert_eq!((&plain["events"][0]["event"], &plain["property"]), (&json!("pro"), &Value::Null));
        let ranked = Ranked { event: "pro".to_owned(), number: 3.into(), before: 1.into() };
        let all = Top { events: vec![ranked], distinct: 1, total: 3.into(), total_before: 1.into() };
        let top = json(top(&all, &period, &period, &Measure::Count, Some(&of), CountsFormat::Json));
        assert_eq!((&top["of"], &top["property"]), (&json!("Signed Up"), &json!("properties.plan")));
        assert_eq!((&top["values"][0]["value"], &top["values"][0]["count"]), (&json!("pro"), &json!(3)));
    }

    #[test]
    fn undeclared_path_has_a_note() {
        let (of, _) = plan();
        let declared = Breakdown { is_declared: true, ..of.clone() };
        assert!(breakdown_notes(Some(&of)).iter().any(|note| note.contains("`properties.plan` is not in rollup.by")));
        assert!(breakdown_notes(Some(&declared)).is_empty() && breakdown_notes(None).is_empty());
    }

    #[test]
    fn change_has_a_sign_and_a_percentage() {
        assert_eq!(change(1125.into(), 1000.into()), "+125 (+12.5 %)");
        assert_eq!(change(500.into(), 1000.into()), "-500 (-50.0 %)");
        assert_eq!(change(123_456.into(), 10.into()), "+123,446 (+1,234,460 %)");
        assert_eq!((change(5.into(), 0.into()).as_str(), change(0.into(), 0.into()).as_str()), ("+5 (new)", "0"));
    }
}
