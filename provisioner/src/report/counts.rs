//! Counts, as tables for people and JSON for programs.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::json;

use super::printable;
use crate::cli::Format;
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

fn empty(header: [&str; 2]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    if let Some(numbers) = table.column_mut(1) {
        numbers.set_cell_alignment(CellAlignment::Right);
    }
    table
}
