//! Plans, summaries and errors for people. The colours are dropped by the stream that they are written to, where it
//! is no terminal or NO_COLOR is set.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde_json::Value as Json;
use similar::{ChangeTag, TextDiff};

use super::printable;
use crate::aws::Place;
use crate::change::{Change, Value};
use crate::config::Pipeline;
use crate::error::Error;
use crate::plan::{Action, Plan};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// The colour of an action.
pub(super) fn style(action: Action) -> Style {
    let color = match action {
        Action::Nothing => return DIM,
        Action::Create => AnsiColor::Green,
        Action::Update => AnsiColor::Yellow,
        Action::Delete => AnsiColor::Red,
    };
    color.on_default()
}

/// The whole plan, its last line the one that counts.
#[must_use]
pub fn plan(pipeline: &Pipeline, place: &Place, plan: &Plan) -> String {
    let mut out = String::new();
    let (name, region, account) = (&pipeline.name, &place.region, &place.account);
    let _ = writeln!(out, "{BOLD}{name}{BOLD:#} in {region}, account {account}\n");
    for item in plan.items.iter().filter(|item| item.action != Action::Nothing) {
        let color = style(item.action);
        let symbol = item.action.symbol();
        let _ = writeln!(out, "  {color}{symbol} {}{color:#}", printable(&item.address().to_string()));
        let width = item.changes().iter().map(|change| change.setting.len()).max().unwrap_or(0);
        for change in item.changes() {
            setting(&mut out, item.action, change, width);
        }
    }
    if !plan.is_empty() {
        out.push('\n');
    }
    for note in &plan.notes {
        let _ = writeln!(out, "{BOLD}note:{BOLD:#} {}", printable(note));
    }
    if plan.is_empty() {
        let _ = writeln!(out, "No changes.");
    } else {
        let counts = plan.counts();
        let _ = writeln!(
            out,
            "Plan: {} to create, {} to update, {} to delete.",
            counts.create, counts.update, counts.delete
        );
    }
    out
}

fn setting(out: &mut String, action: Action, change: &Change, width: usize) {
    let Change { setting, live, desired } = change;
    if let Some(diff) = document_diff(live, desired) {
        let _ = writeln!(out, "      {setting}:");
        for line in diff {
            let _ = writeln!(out, "        {line}");
        }
        return;
    }
    let desired = shown(desired);
    let _ = match action {
        Action::Update => writeln!(out, "      {setting:width$}  {} -> {desired}", shown(live)),
        _ => writeln!(out, "      {setting:width$}  {desired}"),
    };
}

/// A value in one line.
fn shown(value: &Value) -> String {
    let quoted = |text: &String| format!("\"{}\"", printable(text));
    match value {
        Value::Unset => "(not set)".to_owned(),
        Value::Flag(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => quoted(text),
        Value::Set(texts) => format!("[{}]", texts.iter().map(quoted).collect::<Vec<_>>().join(", ")),
        Value::Map(map) => {
            let pair = |(key, value): (&String, &String)| format!("{} = {}", printable(key), quoted(value));
            format!("{{ {} }}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Value::Document(document) => printable(&document.to_string()),
    }
}

/// The unified diff of two JSON documents where at least one is large enough to need one.
fn document_diff(live: &Value, desired: &Value) -> Option<Vec<String>> {
    let is_large = |value: &Value| matches!(value, Value::Document(json) if json.get("Effect").is_some() || json.get("Statement").is_some() || json.is_array());
    if !is_large(live) && !is_large(desired) {
        return None;
    }
    let text = |value: &Value| match value {
        Value::Document(json) => pretty(json),
        _ => String::new(),
    };
    let (old, new) = (text(live), text(desired));
    let diff = TextDiff::from_lines(&old, &new);
    let mut lines = Vec::new();
    for (i, hunk) in diff.unified_diff().context_radius(2).iter_hunks().enumerate() {
        if i > 0 {
            lines.push("...".to_owned());
        }
        for change in hunk.iter_changes() {
            let (sign, style) = match change.tag() {
                ChangeTag::Delete => ('-', style(Action::Delete)),
                ChangeTag::Insert => ('+', style(Action::Create)),
                ChangeTag::Equal => (' ', Style::new()),
            };
            lines.push(format!("{style}{sign} {}{style:#}", printable(change.value().trim_end_matches('\n'))));
        }
    }
    Some(lines)
}

fn pretty(json: &Json) -> String {
    format!("{:#}\n", compact(json))
}

/// With lists of one as their one entry, which is how people write policies.
fn compact(json: &Json) -> Json {
    match json {
        Json::Array(entries) => match entries.as_slice() {
            [Json::String(only)] => Json::String(only.clone()),
            _ => Json::Array(entries.iter().map(compact).collect()),
        },
        Json::Object(fields) => Json::Object(fields.iter().map(|(key, value)| (key.clone(), compact(value))).collect()),
        other => other.clone(),
    }
}

/// What was done, when all of it succeeded.
#[must_use]
pub fn summary(plan: &Plan, took: Duration) -> String {
    let counts = plan.counts();
    format!(
        "\nDone: {} created, {} updated, {} deleted, in {:.1} s.\n",
        counts.create,
        counts.update,
        counts.delete,
        took.as_secs_f64()
    )
}

/// An error as its last word to the person.
#[must_use]
pub fn error(error: &Error) -> String {
    match error {
        // Its messages begin with `error:` already.
        Error::Config(invalid) => invalid.to_string(),
        other => {
            let red = AnsiColor::Red.on_default().bold();
            format!("{red}error:{red:#} {other}")
        }
    }
}
