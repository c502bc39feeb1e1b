//! The page, as HTML. Askama escapes every text except the SVG, style and script, which come from this crate.

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use counting::rollup::OVERFLOW;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::breakdowns::Values;
use super::chart::{self, COLOURS, Drawing, Drawn};
use super::frame::{Event, Frame};
use super::view::{Chart, ROWS, View};
use crate::counts::period::{Extent, Period};
use crate::counts::{Quantity, Series, Skipped, similar};
use crate::error::Error;
use crate::output::counts::{self, CountsFormat};
use crate::text::{counted, grouped, printable};

/// The style sheet.
pub(crate) const STYLE: &str = include_str!("../../templates/style.css");
/// The script; the page works without it.
pub(crate) const SCRIPT: &str = include_str!("../../templates/script.js");

/// The number of events drawn if none is chosen.
const DRAWN: usize = 5;
/// The maximum number of series for which the previous period is drawn too: more dashed lines are illegible.
const COMPARED: usize = 3;
/// The maximum number of names suggested for the event field.
const OFFERED: usize = 1_000;
/// The maximum number of objects with skipped lines.
const SKIPS: usize = 20;
/// The maximum number of rows of a page.
const MOST_ROWS: usize = 5_000;
/// The options of the period field.
const SPANS: [(&str, &str); 7] = [
    ("", "custom range"),
    ("24h", "last 24 hours"),
    ("7d", "last 7 days"),
    ("30d", "last 30 days"),
    ("90d", "last 90 days"),
    ("12mo", "last 12 months"),
    ("24mo", "last 24 months"),
];
/// The options of the unit field.
const UNITS: [(&str, &str); 5] =
    [("", "automatic"), ("hour", "hour"), ("day", "day"), ("week", "week"), ("month", "month")];

/// An option of a select field.
struct Choice {
    value: String,
    text: String,
    is_chosen: bool,
}

/// Formats a change, with a no-break space before the percent sign.
fn change(current: Quantity, before: Quantity) -> String {
    counts::change(current, before).replace(" %", "\u{a0}%")
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

/// Returns the options of the field that chooses what is shown; none if there is no choice.
fn measures(sums: &[String], chosen: &str) -> Vec<Choice> {
    if sums.is_empty() && chosen.is_empty() {
        return Vec::new();
    }
    let texts: Vec<(&str, String)> =
        sums.iter().map(|field| (field.as_str(), format!("sum of {}", printable(field)))).collect();
    let all: Vec<(&str, &str)> =
        std::iter::once(("", "counts")).chain(texts.iter().map(|(field, text)| (*field, text.as_str()))).collect();
    choices(&all, chosen)
}

/// An entry of the chart's legend.
struct Entry {
    colour: usize,
    name: String,
    total: String,
    change: Option<String>,
    /// The query of the page without this event; absent for an event that was not chosen.
    without: Option<String>,
}

/// A row of the table of events.
struct Row {
    name: String,
    /// The unmodified name, which identifies the row after a refresh.
    event: String,
    toggle: String,
    colour: Option<usize>,
    count: String,
    /// The width of the bar, in percent of the most frequent event's.
    width: String,
    share: String,
    before: String,
    change: String,
}

/// A table of the values of a field.
struct Breakdown {
    path: String,
    rows: Vec<BreakdownRow>,
    /// The reason why it has no rows.
    note: Option<String>,
}

/// A value of a field, or the others together.
struct BreakdownRow {
    value: String,
    number: String,
    /// The width of the bar, in percent of the largest.
    width: String,
    share: String,
}

impl Breakdown {
    fn of(values: &Values) -> Self {
        let path = printable(&values.path);
        let numbers = values.numbers.as_deref().unwrap_or_default();
        let all: Quantity = numbers.iter().map(|(_, number)| *number).sum();
        let most = numbers.iter().map(|(_, number)| *number).max().unwrap_or_default();
        let row = |(value, number): &(String, Quantity)| BreakdownRow {
            value: printable(value),
            number: number.grouped(),
            width: format!("{:.1}", (number.share_of(most) * 100.0).clamp(0.0, 100.0)),
            share: format!("{:.1} %", number.share_of(all) * 100.0),
        };
        let note = match &values.numbers {
            Err(error) => Some(format!("The values are unknown: {}.", error.summary())),
            Ok(numbers) if numbers.is_empty() => Some("Nothing was counted by this field in the period.".to_owned()),
            Ok(_) => None,
        };
        Self { path, rows: numbers.iter().map(row).collect(), note }
    }
}

/// A row of the table of numbers.
struct Part {
    label: String,
    counts: Vec<String>,
}

/// A row of the table of objects with skipped lines.
struct Skip {
    object: String,
    lines: String,
    reasons: String,
    first: String,
}

impl Skip {
    fn of(skipped: &Skipped) -> Self {
        let lines = i64::try_from(skipped.lines).unwrap_or(i64::MAX);
        Self {
            object: printable(&skipped.object),
            lines: grouped(lines),
            reasons: printable(&skipped.reasons()),
            first: printable(&skipped.first()),
        }
    }
}

/// The content of a page without an error.
struct Data {
    from: String,
    to: String,
    unit: &'static str,
    zone: String,
    total: String,
    distinct: usize,
    /// The total of the previous period, and the change since.
    before: Option<(String, String)>,
    entries: Vec<Entry>,
    /// The chart in words, for screen readers.
    summary: String,
    wide: Drawing,
    narrow: Drawing,
    parts: Vec<Part>,
    totals: Vec<String>,
    /// Remarks for a reader of the chart, one sentence each.
    notes: Vec<String>,
    /// The chosen events without a count, each with similar names and the queries of the views with these instead.
    unknown: Vec<(String, Vec<(String, String)>)>,
    rows: Vec<Row>,
    hidden_rows: usize,
    all_rows: String,
    names: Vec<String>,
    csv: String,
    /// The name of the file with the CSV.
    csv_name: String,
    age_seconds: u64,
    is_fresh: bool,
    skips: Vec<Skip>,
    /// The number of objects with skipped lines that are not shown, or the reason why none is.
    skips_note: Option<String>,
    /// The values of the fields of `rollup.by`, if one event is chosen.
    breakdowns: Vec<Breakdown>,
}

/// An error on a page.
struct Problem {
    message: String,
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
    /// The choices of numbers: the counts, or the sums of a field. Empty if no field is summed.
    measures: Vec<Choice>,
    data: Option<Data>,
    problem: Option<Problem>,
    /// True if the page is one self-contained file, with style and script inlined and without the form.
    standalone: bool,
    style: &'static str,
    script: &'static str,
    policy: String,
}

/// The properties that all pages of a dashboard share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// The pipeline's name.
    pub(crate) pipeline: &'a str,
    pub(crate) region: &'a str,
    /// The fields that are summed.
    pub(crate) sums: &'a [String],
    /// True if the page is one self-contained file.
    pub(crate) standalone: bool,
}

/// The counts of a page.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) period: &'a Period,
    /// The previous period, if it is compared.
    pub(crate) before: Option<&'a Period>,
    /// The counts of the period.
    pub(crate) frame: &'a Frame,
    /// Seconds since the oldest read.
    pub(crate) age_seconds: u64,
    /// True if all of them are fresh.
    pub(crate) is_fresh: bool,
    /// The objects of the last day with skipped lines, latest first, if they were read.
    pub(crate) skips: Option<Result<&'a [Skipped], &'a Error>>,
    /// The breakdowns of the event, if one is chosen.
    pub(crate) breakdowns: &'a [Values],
}

fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64.encode(Sha256::digest(text)))
}

impl Source<'_> {
    /// Renders the page with the counts or the error.
    ///
    /// # Errors
    /// The error of plotters or Askama; neither fails when it writes into memory.
    pub(crate) fn page(&self, view: &View, found: Result<&Found<'_>, &Error>) -> Result<String, String> {
        let (data, problem) = match found {
            Ok(found) => (Some(Data::new(view, found, self.standalone)?), None),
            Err(error) => {
                let text = error.to_string();
                let (message, help) = text.split_once("\nhelp: ").unwrap_or((&text, ""));
                (None, Some(Problem { message: message.to_owned(), help: help.to_owned() }))
            }
        };
        let page = Page {
            pipeline: self.pipeline,
            region: self.region,
            view,
            spans: choices(&SPANS, &view.last),
            units: choices(&UNITS, &view.by),
            measures: measures(self.sums, &view.sum),
            data,
            problem,
            standalone: self.standalone,
            style: STYLE,
            script: SCRIPT,
            policy: format!("default-src 'none'; style-src {}; script-src {}", hash(STYLE), hash(SCRIPT)),
        };
        page.render().map_err(|error| error.to_string())
    }
}

/// Returns the chosen events, or the most frequent ones if none is chosen.
fn chosen(view: &View, frame: &Frame) -> Vec<Event> {
    match view.events.as_slice() {
        [] => frame.events.iter().filter(|event| !event.total.is_zero()).take(DRAWN).cloned().collect(),
        names => names.iter().map(|name| frame.event(name)).collect(),
    }
}

/// Returns the events to draw: the chosen ones, or the most frequent ones. Those without a colour of their own are
/// joined.
pub(crate) fn drawn(view: &View, frame: &Frame, length: usize) -> Vec<(usize, Event)> {
    let mut drawn: Vec<(usize, Event)> = chosen(view, frame).into_iter().enumerate().collect();
    let mut others: Vec<Event> = if drawn.len() > COLOURS {
        drawn.split_off(COLOURS).into_iter().map(|(_, event)| event).collect()
    } else if view.events.is_empty() && view.chart == Chart::Bars {
        frame.events.iter().skip(DRAWN).cloned().collect()
    } else {
        Vec::new()
    };
    others.retain(|event| !event.total.is_zero() || !event.total_before().unwrap_or_default().is_zero());
    if !others.is_empty() {
        let joined = Event::joined(&format!("{} others", others.len()), &others.iter().collect::<Vec<_>>(), length);
        drawn.push((COLOURS, joined));
    }
    drawn
}

/// Formats the counts of the drawn events as CSV. Chosen events are not joined, even if they have no colour of their
/// own.
pub(crate) fn csv(view: &View, found: &Found<'_>) -> String {
    let events = match view.events.is_empty() {
        true => drawn(view, found.frame, found.period.len()).into_iter().map(|(_, event)| event).collect(),
        false => chosen(view, found.frame),
    };
    let series: Vec<Series> = events.iter().map(Series::from).collect();
    counts::series(&series, found.period, found.before, &view.measure(), None, CountsFormat::Csv)
}

/// Returns the name of the file with the CSV; it has the zone of its times.
pub(crate) fn csv_name(period: &Period) -> String {
    let zone: String = period.zone().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("counts-{zone}.csv")
}

/// Returns the previous period of the drawn events as dashed lines: one for each event, or one for all of them if there
/// would be too many or they are stacked.
fn previous(view: &View, events: &[(usize, Event)], length: usize) -> Vec<(usize, Vec<Quantity>)> {
    let line = |(colour, event): &(usize, Event)| Some((*colour, event.before.clone()?));
    let mut lines: Vec<(usize, Vec<Quantity>)> = if view.chart == Chart::Bars || events.len() > COMPARED {
        let all: Vec<&Event> = events.iter().map(|(_, event)| event).collect();
        line(&(COLOURS, Event::joined("", &all, length))).into_iter().collect()
    } else {
        events.iter().filter_map(line).collect()
    };
    for (_, parts) in &mut lines {
        parts.truncate(length);
    }
    lines
}

impl Data {
    fn new(view: &View, found: &Found<'_>, standalone: bool) -> Result<Self, String> {
        let Found { period, before, frame, age_seconds, is_fresh, skips, breakdowns } = found;
        let events = drawn(view, frame, period.len());
        let series: Vec<Drawn<'_>> = events
            .iter()
            .map(|(colour, event)| Drawn { colour: *colour, parts: &event.parts, is_previous: false })
            .collect();
        let previous = previous(view, &events, period.len());
        let dashes = previous.iter().map(|(colour, parts)| Drawn { colour: *colour, parts, is_previous: true });
        // Dashes first, so that the lines of the period itself are drawn over them.
        let all: Vec<Drawn<'_>> = dashes.chain(series.iter().copied()).collect();
        let is_chosen = |event: &Event| view.events.iter().any(|name| **name == *event.name);
        let entries = events.iter().map(|(colour, event)| Entry {
            colour: *colour,
            name: printable(&event.name),
            total: event.total.grouped(),
            change: event.total_before().map(|before| change(event.total, before)),
            without: is_chosen(event).then(|| view.toggled(&event.name).query()),
        });
        let colour_of = |event: &Event| events.iter().find(|(_, other)| other.name == event.name).map(|(c, _)| *c);
        let most = frame.events.first().map(|event| event.total).unwrap_or_default();
        let find = view.find.to_lowercase();
        let ranked = frame.events.iter().filter(|event| !event.total.is_zero() || is_chosen(event));
        let ranked: Vec<&Event> = ranked.filter(|event| event.name.to_lowercase().contains(&find)).collect();
        let shown = if standalone { ranked.len() } else { view.rows.min(MOST_ROWS) };
        let unknown = view.events.iter().filter(|name| !frame.events.iter().any(|event| *event.name == ***name));
        let unknown = unknown.map(|name| {
            let near = similar(frame.events.iter().map(|event| &*event.name), name);
            (printable(name), near.iter().map(|other| (printable(other), view.replaced(name, other).query())).collect())
        });
        let rows = ranked.iter().take(shown).map(|event| Row {
            name: printable(&event.name),
            event: event.name.to_string(),
            toggle: view.toggled(&event.name).query(),
            colour: colour_of(event),
            count: event.total.grouped(),
            width: format!("{:.1}", event.total.share_of(most) * 100.0),
            share: format!("{:.1} %", event.total.share_of(frame.total) * 100.0),
            before: event.total_before().map(Quantity::grouped).unwrap_or_default(),
            change: event.total_before().map(|before| change(event.total, before)).unwrap_or_default(),
        });
        let label = |part: usize| period.label(part);
        let parts = (0..period.len()).map(|part| Part {
            label: label(part),
            counts: events
                .iter()
                .map(|(_, event)| event.parts.get(part).copied().unwrap_or_default().grouped())
                .collect(),
        });
        let query = view.query();
        Ok(Self {
            from: period.from(),
            to: period.to(),
            unit: period.by().name(),
            zone: period.zone().to_owned(),
            total: frame.total.grouped(),
            distinct: frame.distinct(),
            before: frame.before.map(|before| (before.grouped(), change(frame.total, before))),
            summary: summary(&events, &label),
            entries: entries.collect(),
            wide: chart::draw(&all, period, view.chart, chart::WIDE)?,
            narrow: chart::draw(&all, period, view.chart, chart::NARROW)?,
            parts: parts.collect(),
            totals: events.iter().map(|(_, event)| event.total.grouped()).collect(),
            notes: notes(period, *before, previous.len(), events.len()).into_iter().chain(cut(frame)).collect(),
            unknown: unknown.collect(),
            rows: rows.collect(),
            hidden_rows: ranked.len().saturating_sub(shown),
            all_rows: View { rows: if view.rows > ROWS { ROWS } else { ranked.len().max(1) }, ..view.clone() }.query(),
            names: frame.events.iter().take(OFFERED).map(|event| event.name.to_string()).collect(),
            csv: if standalone {
                format!("data:text/csv;charset=utf-8,{}", utf8_percent_encode(&csv(view, found), NON_ALPHANUMERIC))
            } else {
                format!("counts.csv?{query}")
            },
            csv_name: csv_name(period),
            age_seconds: *age_seconds,
            is_fresh: *is_fresh,
            skips: skips.and_then(Result::ok).unwrap_or_default().iter().take(SKIPS).map(Skip::of).collect(),
            skips_note: skips.and_then(skips_note),
            breakdowns: breakdowns.iter().map(Breakdown::of).collect(),
        })
    }
}

/// Returns what a reader of the chart must know.
fn notes(period: &Period, before: Option<&Period>, lines: usize, events: usize) -> Vec<String> {
    let has = |extent: Extent| (0..period.len()).any(|part| period.extent(part) == extent);
    let unit = period.by().name();
    let mut notes = Vec::new();
    if lines > 0 {
        let what = if lines < events { ", all drawn events together" } else { "" };
        notes.push(format!("Thin dashed line: the previous period{what}."));
    }
    if has(Extent::SoFar) {
        notes.push(format!("The {unit} that includes the present is not over yet; it is dashed or pale."));
    }
    if has(Extent::Partial) {
        notes.push(format!("The period begins or ends within a {unit}, which is marked (partial)."));
    }
    for note in counts::notes(period, before) {
        let mut letters = note.chars();
        let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
        notes.push(format!("{first}{}.", letters.as_str()));
    }
    notes
}

/// Returns the note on hours and days with so many events that only the most frequent ones are known.
fn cut(frame: &Frame) -> Option<String> {
    let readings = counted(u64::try_from(frame.cut).unwrap_or_default(), "reading");
    let text = format!(
        "{readings} of an hour or a day had very many different events: the less frequent ones are counted as {OVERFLOW}."
    );
    (frame.cut > 0).then_some(text)
}

/// Returns the note on the objects with skipped lines that are not shown.
fn skips_note(skips: Result<&[Skipped], &Error>) -> Option<String> {
    match skips {
        Ok(skips) => {
            let more = skips.len().saturating_sub(SKIPS);
            let more = counted(u64::try_from(more).unwrap_or_default(), "older object");
            (skips.len() > SKIPS).then(|| format!("{more} not shown; `provisioner status --format json` lists all."))
        }
        Err(error) => Some(format!("The skipped lines of the last day are unknown: {}.", error.summary())),
    }
}

/// Describes the chart in words.
fn summary(events: &[(usize, Event)], label: &dyn Fn(usize) -> String) -> String {
    let sentences = events.iter().map(|(_, event)| {
        let peak = event.parts.iter().enumerate().max_by_key(|(part, count)| (**count, std::cmp::Reverse(*part)));
        let peak = peak.filter(|(_, count)| count.is_positive()).map(|(part, count)| (label(part), count.grouped()));
        let peak = peak.map_or_else(String::new, |(when, count)| format!(", at most {count} in {when}"));
        format!("{}: {} in all{peak}.", printable(&event.name), event.total.grouped())
    });
    sentences.collect::<Vec<_>>().join(" ")
}
