//! The page, as HTML. The template crate escapes every text; what it is told to leave as it is, is drawn or written by us.

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::chart::{self, COLOURS, Drawing, Drawn};
use super::frame::{Event, Frame};
use super::view::{Chart, ROWS, View};
use crate::counts::Series;
use crate::counts::period::Period;
use crate::error::Error;
use crate::output::counts::{self, CountsFormat, share};
use crate::text::grouped;
use crate::text::printable;

/// How the page looks.
pub(crate) const STYLE: &str = include_str!("../../templates/style.css");
/// What makes it handier; it works without.
pub(crate) const SCRIPT: &str = include_str!("../../templates/script.js");

/// Events that are drawn where none is chosen.
const DRAWN: usize = 5;
/// With more lines than this, dashes for the period before would be a thicket.
const COMPARED: usize = 3;
/// Names that are offered for typing.
const OFFERED: usize = 1_000;
/// Spans to choose from.
const SPANS: [(&str, &str); 7] = [
    ("", "from and to"),
    ("24h", "last 24 hours"),
    ("7d", "last 7 days"),
    ("30d", "last 30 days"),
    ("90d", "last 90 days"),
    ("12mo", "last 12 months"),
    ("24mo", "last 24 months"),
];
/// Units to choose from.
const UNITS: [(&str, &str); 5] =
    [("", "automatic"), ("hour", "hour"), ("day", "day"), ("week", "week"), ("month", "month")];

/// Something to choose.
struct Choice {
    value: String,
    text: String,
    is_chosen: bool,
}

/// The change, which does not break before its sign for per cent.
fn change(now: i64, before: i64) -> String {
    counts::change(now, before).replace(" %", "\u{a0}%")
}

fn choices(all: &[(&str, &str)], chosen: &str) -> Vec<Choice> {
    let choice = |(value, text): &(&str, &str)| Choice {
        value: (*value).to_owned(),
        text: (*text).to_owned(),
        is_chosen: *value == chosen,
    };
    let mut choices: Vec<Choice> = all.iter().map(choice).collect();
    if !chosen.is_empty() && !choices.iter().any(|choice| choice.is_chosen) {
        choices.push(Choice { value: chosen.to_owned(), text: chosen.to_owned(), is_chosen: true });
    }
    choices
}

/// A line or layer of the chart, in its legend.
struct Entry {
    colour: usize,
    name: String,
    total: String,
    change: Option<String>,
    /// Where the page without it is; nothing for all others.
    without: Option<String>,
}

/// A row of the table of events.
struct Row {
    name: String,
    /// The name as it is, by which a row is found again.
    event: String,
    toggle: String,
    colour: Option<usize>,
    count: String,
    /// In hundredths of the most frequent one's.
    width: String,
    share: String,
    before: String,
    change: String,
}

/// A row of the table of numbers.
struct Part {
    label: String,
    counts: Vec<String>,
}

/// What was read.
struct Data {
    from: String,
    to: String,
    unit: &'static str,
    zone: String,
    total: String,
    distinct: usize,
    /// The total of the period before, and the change since.
    before: Option<(String, String)>,
    entries: Vec<Entry>,
    /// For those who do not see the chart.
    summary: String,
    wide: Drawing,
    narrow: Drawing,
    parts: Vec<Part>,
    totals: Vec<String>,
    /// Whether there are dashes for the period before.
    is_dashed: bool,
    /// Whether the last part is not over.
    is_cut_short: bool,
    rows: Vec<Row>,
    hidden_rows: usize,
    all_rows: String,
    names: Vec<String>,
    csv: String,
    age_seconds: u64,
    is_fresh: bool,
}

/// What went wrong.
struct Problem {
    what: String,
    help: String,
}

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    pipeline: &'a str,
    region: &'a str,
    view: &'a View,
    spans: Vec<Choice>,
    units: Vec<Choice>,
    data: Option<Data>,
    problem: Option<Problem>,
    /// In one file, without anything else: style and script are in it, and there is nothing to choose.
    alone: bool,
    style: &'static str,
    script: &'static str,
    policy: String,
}

/// What a page is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// The pipeline's name.
    pub(crate) pipeline: &'a str,
    /// Where it is.
    pub(crate) region: &'a str,
    /// Whether it is a file of its own.
    pub(crate) alone: bool,
}

/// What was read for a page.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// The period.
    pub(crate) period: &'a Period,
    /// Its counts.
    pub(crate) frame: &'a Frame,
    /// Seconds since the oldest of them was read.
    pub(crate) age_seconds: u64,
    /// Whether all of them were read for this page.
    pub(crate) is_fresh: bool,
}

fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64.encode(Sha256::digest(text)))
}

impl Source<'_> {
    /// The page, with what was found or what went wrong.
    ///
    /// # Errors
    /// What the drawing or the template crate says; neither has a way to fail in memory.
    pub(crate) fn page(&self, view: &View, found: Result<&Found<'_>, &Error>) -> Result<String, String> {
        let (data, problem) = match found {
            Ok(found) => (Some(Data::new(view, found, self.alone)?), None),
            Err(error) => {
                let text = error.to_string();
                let (what, help) = text.split_once("\nhelp: ").unwrap_or((&text, ""));
                (None, Some(Problem { what: what.to_owned(), help: help.to_owned() }))
            }
        };
        let page = Page {
            pipeline: self.pipeline,
            region: self.region,
            view,
            spans: choices(&SPANS, &view.last),
            units: choices(&UNITS, &view.by),
            data,
            problem,
            alone: self.alone,
            style: STYLE,
            script: SCRIPT,
            policy: format!("default-src 'none'; style-src {}; script-src {}", hash(STYLE), hash(SCRIPT)),
        };
        page.render().map_err(|error| error.to_string())
    }
}

/// The events that are asked for, or the most frequent ones.
fn chosen(view: &View, frame: &Frame) -> Vec<Event> {
    match view.events.as_slice() {
        [] => frame.events.iter().filter(|event| event.total != 0).take(DRAWN).cloned().collect(),
        names => names.iter().map(|name| frame.event(name)).collect(),
    }
}

/// The events that are drawn: those chosen, or the most frequent ones; what has no colour of its own goes together.
pub(crate) fn drawn(view: &View, frame: &Frame, length: usize) -> Vec<(usize, Event)> {
    let mut drawn: Vec<(usize, Event)> = chosen(view, frame).into_iter().enumerate().collect();
    let mut others: Vec<Event> = if drawn.len() > COLOURS {
        drawn.split_off(COLOURS).into_iter().map(|(_, event)| event).collect()
    } else if view.events.is_empty() && view.chart == Chart::Bars {
        frame.events.iter().skip(DRAWN).cloned().collect()
    } else {
        Vec::new()
    };
    others.retain(|event| event.total != 0 || event.total_before().unwrap_or(0) != 0);
    if !others.is_empty() {
        let joined = Event::joined(&format!("{} others", others.len()), &others.iter().collect::<Vec<_>>(), length);
        drawn.push((COLOURS, joined));
    }
    drawn
}

/// The chosen events' counts as CSV, each for itself.
pub(crate) fn csv(view: &View, found: &Found<'_>) -> String {
    let series: Vec<Series> = chosen(view, found.frame).iter().map(Series::from).collect();
    counts::series(&series, found.period, CountsFormat::Csv)
}

impl Data {
    fn new(view: &View, found: &Found<'_>, alone: bool) -> Result<Self, String> {
        let Found { period, frame, age_seconds, is_fresh } = found;
        let events = drawn(view, frame, period.len());
        let series: Vec<Drawn<'_>> = events
            .iter()
            .map(|(colour, event)| Drawn { colour: *colour, parts: &event.parts, dashed: false })
            .collect();
        let dashes = events.iter().filter(|_| events.len() <= COMPARED).filter_map(|(colour, event)| {
            let parts = event.before.as_deref()?;
            Some(Drawn { colour: *colour, parts: parts.get(..parts.len().min(period.len()))?, dashed: true })
        });
        // Below the lines of the period itself.
        let all: Vec<Drawn<'_>> = dashes.chain(series.iter().copied()).collect();
        let is_chosen = |event: &Event| view.events.iter().any(|name| **name == *event.name);
        let entries = events.iter().map(|(colour, event)| Entry {
            colour: *colour,
            name: printable(&event.name),
            total: grouped(event.total),
            change: event.total_before().map(|before| change(event.total, before)),
            without: is_chosen(event).then(|| view.toggled(&event.name).query()),
        });
        let colour_of = |event: &Event| events.iter().find(|(_, other)| other.name == event.name).map(|(c, _)| *c);
        let most = frame.events.first().map_or(0, |event| event.total);
        let ranked: Vec<&Event> = frame.events.iter().filter(|event| event.total != 0 || is_chosen(event)).collect();
        let shown = if alone { ranked.len() } else { view.rows };
        let rows = ranked.iter().take(shown).map(|event| Row {
            name: printable(&event.name),
            event: event.name.to_string(),
            toggle: view.toggled(&event.name).query(),
            colour: colour_of(event),
            count: grouped(event.total),
            width: format!("{:.1}", share(event.total, most) * 100.0),
            share: format!("{:.1} %", share(event.total, frame.total) * 100.0),
            before: event.total_before().map(grouped).unwrap_or_default(),
            change: event.total_before().map(|before| change(event.total, before)).unwrap_or_default(),
        });
        let label = |part: usize| {
            let so_far = if period.is_cut_short(part) { " (so far)" } else { "" };
            format!("{}{so_far}", period.label(part))
        };
        let parts = (0..period.len()).map(|part| Part {
            label: label(part),
            counts: events.iter().map(|(_, event)| grouped(event.parts.get(part).copied().unwrap_or(0))).collect(),
        });
        let query = view.query();
        Ok(Self {
            from: period.from(),
            to: period.to(),
            unit: period.by().name(),
            zone: period.zone().to_owned(),
            total: grouped(frame.total),
            distinct: frame.distinct(),
            before: frame.before.map(|before| (grouped(before), change(frame.total, before))),
            summary: summary(&events, &label),
            entries: entries.collect(),
            wide: chart::draw(&all, period, view.chart, chart::WIDE)?,
            narrow: chart::draw(&all, period, view.chart, chart::NARROW)?,
            parts: parts.collect(),
            totals: events.iter().map(|(_, event)| grouped(event.total)).collect(),
            is_dashed: all.iter().any(|drawn| drawn.dashed),
            is_cut_short: period.is_cut_short(period.len().saturating_sub(1)),
            rows: rows.collect(),
            hidden_rows: ranked.len().saturating_sub(view.rows),
            all_rows: View { rows: if view.rows > ROWS { ROWS } else { ranked.len().max(1) }, ..view.clone() }.query(),
            names: frame.events.iter().take(OFFERED).map(|event| event.name.to_string()).collect(),
            csv: if alone {
                format!("data:text/csv;charset=utf-8,{}", utf8_percent_encode(&csv(view, found), NON_ALPHANUMERIC))
            } else {
                format!("counts.csv?{query}")
            },
            age_seconds: *age_seconds,
            is_fresh: *is_fresh,
        })
    }
}

/// What the chart shows, in words.
fn summary(events: &[(usize, Event)], label: &dyn Fn(usize) -> String) -> String {
    let sentences = events.iter().map(|(_, event)| {
        let peak = event.parts.iter().enumerate().max_by_key(|(part, count)| (**count, std::cmp::Reverse(*part)));
        let peak = peak.filter(|(_, count)| **count > 0).map(|(part, count)| (label(part), grouped(*count)));
        let peak = peak.map_or_else(String::new, |(when, count)| format!(", at most {count} in {when}"));
        format!("{}: {} in all{peak}.", printable(&event.name), grouped(event.total))
    });
    sentences.collect::<Vec<_>>().join(" ")
}
