//! Counts, as tables for people and JSON for programs.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use handler::rollup::Totals;
use serde_json::json;

use super::printable;
use crate::cli::{Format, RollupFormat};
use crate::counts::{Series, Top};

/// One event by hour.
#[must_use]
pub fn series(series: &Series, format: Format) -> String {
    if format == Format::Json {
        let hours: Vec<_> = series.hours.iter().map(|(hour, count)| json!({ "hour": hour, "count": count })).collect();
        let whole = json!({
            "event": series.event,
            "from": series.window.from(),
            "to": series.window.to(),
            "hours": hours,
            "total": series.total(),
        });
        return format!("{whole:#}\n");
    }
    let mut table = empty(["hour (UTC)", "count"]);
    for (hour, count) in &series.hours {
        table.add_row([printable(hour), count.to_string()]);
    }
    table.add_row(["total".to_owned(), series.total().to_string()]);
    let event = printable(&series.event);
    format!("{event}, from {} to {}\n{table}\n", series.window.from(), series.window.to())
}

/// The most frequent events.
#[must_use]
pub fn top(top: &Top, format: Format) -> String {
    if format == Format::Json {
        let events: Vec<_> =
            top.events.iter().map(|(event, count)| json!({ "event": event, "count": count })).collect();
        let whole = json!({
            "from": top.window.from(),
            "to": top.window.to(),
            "events": events,
            "distinct": top.distinct,
            "total": top.total,
        });
        return format!("{whole:#}\n");
    }
    let mut table = empty(["event", "count"]);
    for (event, count) in &top.events {
        table.add_row([printable(event), count.to_string()]);
    }
    table.add_row(["all".to_owned(), top.total.to_string()]);
    let (shown, distinct) = (top.events.len(), top.distinct);
    let (from, to) = (top.window.from(), top.window.to());
    format!("{shown} of {distinct} events, from {from} to {to}\n{table}\n")
}

/// What files would add to the counts.
#[must_use]
pub fn rollup(totals: &Totals, format: RollupFormat) -> String {
    match format {
        RollupFormat::Tsv => {
            let mut out = String::new();
            for ((event, hour), count) in totals {
                // So that a line stays a line and a column a column, whatever the name holds.
                for c in event.chars() {
                    match c {
                        '\t' => out.push_str("\\t"),
                        '\n' => out.push_str("\\n"),
                        '\r' => out.push_str("\\r"),
                        '\\' => out.push_str("\\\\"),
                        c if c.is_control() => out.extend(c.escape_unicode()),
                        c => out.push(c),
                    }
                }
                out.push_str(&format!("\t{hour}\t{count}\n"));
            }
            out
        }
        RollupFormat::Json => {
            let rows: Vec<_> = totals
                .iter()
                .map(|((event, hour), count)| json!({ "event": event, "hour": hour, "count": count }))
                .collect();
            format!("{:#}\n", json!(rows))
        }
        RollupFormat::Table => {
            let mut table = empty(["event", "hour (UTC)", "count"]);
            for ((event, hour), count) in totals {
                table.add_row([printable(event), hour.clone(), count.to_string()]);
            }
            format!("{table}\n")
        }
    }
}

fn empty<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    if let Some(numbers) = table.column_mut(N - 1) {
        numbers.set_cell_alignment(CellAlignment::Right);
    }
    table
}
