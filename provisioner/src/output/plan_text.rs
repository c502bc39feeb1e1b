//! Plans and summaries as text for a terminal. The output stream drops the colours if it is not a terminal or
//! NO_COLOR is set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::HumanBytes;
use serde_json::Value as Json;
use similar::{ChangeTag, TextDiff};

use crate::aws::policy;
use crate::reconcile::diff::{SettingChange, Value};
use crate::reconcile::document::{Dollars, Estimate, PlanDocument, PlanEntry, PlanProblem};
use crate::reconcile::plan::{Action, Counts};
use crate::text::{counted, printable};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Returns the style of an action.
pub(super) fn style(action: Action) -> Style {
    let color = match action {
        Action::NoOp => return DIM,
        Action::Create => AnsiColor::Green,
        Action::Update => AnsiColor::Yellow,
        Action::Delete | Action::Conflict => AnsiColor::Red,
    };
    color.on_default()
}

/// Formats the place of a pipeline: `us-east-1, account 123456789012, environment staging`.
pub(super) fn place(document: &PlanDocument) -> String {
    let PlanDocument { region, account, environment, .. } = document;
    let environment = environment.as_ref().map(|name| format!(", environment {name}")).unwrap_or_default();
    printable(&format!("{region}, account {account}{environment}"))
}

/// Lists the resources of a first plan, which is too long to be read at once. The lines have no signs, since the
/// resources follow with theirs.
fn overview(document: &PlanDocument) -> String {
    let entries = &document.resources;
    let is_first = entries.iter().all(|entry| entry.action == Action::Create) && entries.len() > 1;
    if !is_first {
        return String::new();
    }
    let width = entries.iter().map(|entry| entry.kind.chars().count()).max().unwrap_or_default();
    let line = |entry: &PlanEntry| format!("    {:width$}  {}\n", entry.kind, printable(&entry.name));
    let list: String = entries.iter().map(line).collect();
    format!("  {} to create:\n{list}\n", counted(entries.len() as u64, "resource"))
}

/// Renders a plan; the last line is the verdict.
pub(crate) fn plan(document: &PlanDocument) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{BOLD}{}{BOLD:#} in {}\n", document.pipeline, place(document));
    out.push_str(&overview(document));
    for entry in &document.resources {
        let color = style(entry.action);
        let _ = writeln!(out, "  {color}{}{color:#}", printable(&title(entry)));
        if let (Some(reason), Some(help)) = (&entry.reason, &entry.help) {
            let _ = writeln!(out, "      {}", printable(reason));
            let _ = writeln!(out, "      {BOLD}help:{BOLD:#} {}", printable(help));
        }
        for line in changes(entry) {
            let style = line.sign.map_or(Style::new(), style);
            let _ = writeln!(out, "      {style}{}{style:#}", line.text);
        }
    }
    if !document.resources.is_empty() {
        out.push('\n');
    }
    let warning = AnsiColor::Red.on_default();
    for PlanProblem { kind, name, reason, help } in &document.problems {
        let _ = writeln!(
            out,
            "{warning}problem:{warning:#} {} {}",
            printable(&format!("{kind} {name}")),
            printable(reason)
        );
        let _ = writeln!(out, "      {BOLD}help:{BOLD:#} {}", printable(help));
    }
    for note in &document.notes {
        let _ = writeln!(out, "{BOLD}note:{BOLD:#} {}", printable(note));
    }
    if let Some(estimate) = &document.estimate {
        let _ = writeln!(out, "{BOLD}cost:{BOLD:#} {}", cost(estimate));
        for (name, price) in cost_lines(estimate) {
            let _ = writeln!(out, "        {name:26} {price}");
        }
    }
    let counts = document.counts;
    let last = match counts.conflict > 0 || !document.problems.is_empty() {
        true => AnsiColor::Red.on_default().bold(),
        false => BOLD,
    };
    let _ = writeln!(out, "{last}{}{last:#}", document.verdict());
    out
}

/// Formats the heading of an entry: `~ table segment-events-counts`.
pub(super) fn title(entry: &PlanEntry) -> String {
    format!("{} {} {}", entry.action.symbol(), entry.kind, entry.name)
}

/// Formats the price per month at the declared volume, and the current one if it differs.
pub(super) fn cost(estimate: &Estimate) -> String {
    let Estimate { events_per_month, files_per_month, prices, current, planned, .. } = estimate;
    format!(
        "about {} per month for {events_per_month} events in {files_per_month} files, excluding storage (prices: {prices})",
        price(*current, *planned)
    )
}

/// Returns the name and the price of each service, and the total with the other way of delivery.
pub(super) fn cost_lines(estimate: &Estimate) -> impl Iterator<Item = (String, String)> {
    let services = estimate.services.iter().map(|cost| (cost.service.clone(), price(cost.current, cost.planned)));
    let other = &estimate.other_way;
    services.chain([(format!("all with via = \"{}\"", other.via), price(None, other.planned))])
}

fn price(current: Option<Dollars>, planned: Dollars) -> String {
    let shown = |Dollars { list, billed }: Dollars| {
        if list == billed { format!("${list:.2}") } else { format!("${billed:.2} (${list:.2} without the free tier)") }
    };
    match current.filter(|current| *current != planned) {
        None => shown(planned),
        Some(current) => format!("{} -> {}", shown(current), shown(planned)),
    }
}

/// A line of the changes of a resource.
pub(super) struct Line {
    /// The text, safe for a terminal.
    pub(super) text: String,
    /// The sign of a line: create for an added line, delete for a removed one, conflict for lowered protection.
    pub(super) sign: Option<Action>,
}

/// Formats the changes of a resource: the settings in columns, policies statement by statement.
pub(super) fn changes(entry: &PlanEntry) -> Vec<Line> {
    let plain = |text: String| Line { text, sign: None };
    // For a new resource, only the desired values are shown.
    let has_live = entry.action == Action::Update || entry.changes.iter().any(|change| change.live != Value::Unset);
    let rows: Vec<Row> = entry.changes.iter().flat_map(|change| rows(change, has_live)).collect();
    let width = rows.iter().map(|row| row.setting.chars().count()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for Row { setting, change } in rows {
        match change {
            Shown::Diff(diff) => {
                lines.push(plain(format!("{setting}:")));
                lines.extend(diff);
            }
            Shown::Values(None, desired) => lines.push(plain(format!("{setting:width$}  {desired}"))),
            Shown::Values(Some(live), desired) => lines.push(plain(format!("{setting:width$}  {live} -> {desired}"))),
        }
    }
    for change in &entry.changes {
        if let Some(loss) = &change.weakens {
            let text = printable(&format!("! {} lowers protection: {loss}", change.setting));
            lines.push(Line { text, sign: Some(Action::Conflict) });
        }
    }
    lines
}

/// A setting, or a part of one, and its change.
struct Row {
    setting: String,
    change: Shown,
}

enum Shown {
    /// The live value, unless the resource is new, and the desired one.
    Values(Option<String>, String),
    Diff(Vec<Line>),
}

/// Returns the rows of a change: for a value of several parts, one row for each part that differs.
fn rows(change: &SettingChange, has_live: bool) -> Vec<Row> {
    let SettingChange { setting, live, desired, .. } = change;
    if let Some(diff) = document_diff(live, desired) {
        return vec![Row { setting: (*setting).to_owned(), change: Shown::Diff(diff) }];
    }
    let (Some(old), Some(new)) = (parts(live), parts(desired)) else {
        let live = (has_live || *live != Value::Unset).then(|| shown(live));
        return vec![Row { setting: (*setting).to_owned(), change: Shown::Values(live, shown(desired)) }];
    };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differing = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let value = |part: Option<&String>| part.cloned().unwrap_or_else(|| shown(&Value::Unset));
    let row = |name: &String| Row {
        setting: format!("{setting}.{}", printable(name)),
        change: Shown::Values(Some(value(old.get(name))), value(new.get(name))),
    };
    differing.map(row).collect()
}

/// Returns the names and formatted values of the parts of a value, or `None` if it has no parts.
fn parts(value: &Value) -> Option<BTreeMap<String, String>> {
    match value {
        Value::Map(map) => {
            let text = |value: &String| shown(&Value::Text(value.clone()));
            Some(map.iter().map(|(name, value)| (name.clone(), text(value))).collect())
        }
        Value::Document(Json::Object(map)) => {
            Some(map.iter().map(|(name, value)| (name.clone(), printable(&value.to_string()))).collect())
        }
        _ => None,
    }
}

/// Formats a value in one line.
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
        Value::Code(code) => {
            let revision = code.revision.as_ref().map(|revision| format!(", revision {}", printable(revision)));
            let (hash, size) = (printable(&code.sha256), HumanBytes(code.bytes));
            format!("{hash} ({size}{})", revision.unwrap_or_default())
        }
        Value::Document(document) => printable(&document.to_string()),
    }
}

/// Returns the unified diffs of the statements that differ in two policies or statements; `None` for other documents,
/// which fit on a line.
fn document_diff(live: &Value, desired: &Value) -> Option<Vec<Line>> {
    let (old, new) = (statements_of(live)?, statements_of(desired)?);
    if old.is_empty() && new.is_empty() {
        return None;
    }
    let (mut old, mut new) = (old, new);
    old.retain(|statement| match new.iter().position(|other| other == statement) {
        Some(same) => {
            new.remove(same);
            false
        }
        None => true,
    });
    // Statements with a Sid are compared with those of the same Sid, the others in order.
    let mut pairs: Vec<(Option<Json>, Option<Json>)> = Vec::new();
    for statement in old {
        let counterpart = new.iter().position(|other| policy::sid(other) == policy::sid(&statement));
        pairs.push((Some(statement), counterpart.map(|index| new.remove(index))));
    }
    pairs.extend(new.into_iter().map(|statement| (None, Some(statement))));
    let text = |statement: &Option<Json>| statement.as_ref().map(pretty).unwrap_or_default();
    Some(pairs.iter().flat_map(|(old, new)| text_diff(&text(old), &text(new))).collect())
}

/// Returns the statements of a policy, a list of statements or a single statement; `None` for any other value.
fn statements_of(value: &Value) -> Option<Vec<Json>> {
    match value {
        Value::Unset => Some(Vec::new()),
        Value::Document(json) if json.get("Statement").is_some() => Some(policy::statements(json)),
        Value::Document(json) if json.get("Effect").is_some() => Some(vec![json.clone()]),
        Value::Document(Json::Array(statements)) => Some(statements.clone()),
        _ => None,
    }
}

fn text_diff(old: &str, new: &str) -> Vec<Line> {
    let diff = TextDiff::from_lines(old, new);
    let mut lines = Vec::new();
    for (i, hunk) in diff.unified_diff().context_radius(2).iter_hunks().enumerate() {
        if i > 0 {
            lines.push(Line { text: "  ...".to_owned(), sign: None });
        }
        for change in hunk.iter_changes() {
            let (symbol, sign) = match change.tag() {
                ChangeTag::Delete => ('-', Some(Action::Delete)),
                ChangeTag::Insert => ('+', Some(Action::Create)),
                ChangeTag::Equal => (' ', None),
            };
            let text = format!("  {symbol} {}", printable(change.value().trim_end_matches('\n')));
            lines.push(Line { text, sign });
        }
    }
    lines
}

fn pretty(json: &Json) -> String {
    format!("{:#}\n", compact(json))
}

/// Replaces each list of one string with the string, as policies are usually written.
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

/// Formats the last line of a successful apply.
pub(crate) fn summary(counts: Counts, took: Duration) -> String {
    let Counts { create, update, delete, .. } = counts;
    let style = AnsiColor::Green.on_default().bold();
    let done = format!("Done: {create} created, {update} updated, {delete} deleted, in {:.1} s.", took.as_secs_f64());
    format!("\n{style}{done}{style:#}\n")
}
