//! A period of time, divided into the parts for which counts are shown.
//!
//! Counts are stored by UTC hour, and an hour is never divided: it belongs to the part, and to the period, in which it
//! begins. Therefore every count belongs to exactly one part, and the sums of adjacent periods are the sum of both, in
//! every time zone. The rule shows wherever a boundary is not a whole UTC hour: in a zone such as Asia/Kolkata, or with
//! a time such as 12:30. [`Period::divides_hours`] tells.

use clap::ValueEnum;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp, ToSpan, Unit, Zoned};

use crate::error::Error;

/// Seconds in an hour.
const HOUR: i64 = 3600;
/// The maximum number of parts: more than ten years of hours, which no output needs.
const MAX_PARTS: usize = 100_000;

/// The period of a query, in whole hours.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PeriodArgs {
    /// Period up to now: 24h, 7d, 4w or 12mo [default: 24h]
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["from", "to"])]
    pub(crate) last: Option<String>,
    /// Start: 2015-08-04, 2015-08-04T12:00:00Z, today, yesterday
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// End, exclusive [default: now]
    #[arg(long, value_name = "TIME", requires = "from")]
    pub(crate) to: Option<String>,
    /// Length of the parts [default: by the length of the period]
    #[arg(long, value_enum)]
    pub(crate) by: Option<By>,
    /// Time zone of days, weeks and months, and of times without a zone: Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,
}

/// The parts of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum By {
    /// Hours
    Hour,
    /// Days
    Day,
    /// Weeks, from Monday
    Week,
    /// Months
    Month,
}

/// How much of a part has counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// The period begins or ends within it.
    Partial,
    /// It includes the present.
    SoFar,
    /// It has not begun.
    Future,
}

/// An hour, day, week or month, or as much of it as is in the period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    /// The start, and the end, exclusive.
    bounds: (Timestamp, Timestamp),
    /// The same of the UTC hours that belong to it.
    hours: (Timestamp, Timestamp),
    /// True if the period begins or ends within it.
    is_cut: bool,
}

/// Whole UTC hours, divided into parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Period {
    zone: TimeZone,
    by: By,
    /// The unit by which the previous period precedes this one.
    step: By,
    /// At least one; adjacent.
    parts: Vec<Part>,
    now: Timestamp,
}

/// Returns the start of a date: midnight, or the end of the gap if the clocks skip midnight.
fn start_of(date: Date, zone: &TimeZone) -> Option<Zoned> {
    let midnight = zone.to_ambiguous_zoned(date.to_datetime(Time::midnight()));
    let is_skipped = matches!(midnight.offset(), AmbiguousOffset::Gap { .. });
    let start = midnight.compatible().ok()?;
    if !is_skipped {
        return Some(start);
    }
    let after = start.timestamp().checked_add(1.nanosecond()).ok()?;
    Some(zone.preceding(after).next()?.timestamp().to_zoned(zone.clone()))
}

/// Returns the first UTC hour that begins at a time or later.
fn hour_from(time: &Zoned) -> Option<Timestamp> {
    let time = time.timestamp();
    let begun = Timestamp::from_second(time.as_second().div_euclid(HOUR) * HOUR).ok()?;
    if begun == time { Some(begun) } else { begun.checked_add(1.hour()).ok() }
}

impl Extent {
    /// Returns the name in JSON and CSV.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Partial => "partial",
            Self::SoFar => "so_far",
            Self::Future => "future",
        }
    }

    /// Returns the mark behind a label.
    fn mark(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Partial => " (partial)",
            Self::SoFar => " (so far)",
            Self::Future => " (future)",
        }
    }
}

impl By {
    /// Returns the name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// Returns the unit that divides a period of so many hours into a readable number of parts.
    fn for_hours(hours: i64) -> Self {
        match hours {
            ..=49 => Self::Hour,
            50..=2400 => Self::Day,
            2401..=4800 => Self::Week,
            _ => Self::Month,
        }
    }

    fn span(self, n: i64) -> Span {
        match self {
            Self::Hour => n.hours(),
            Self::Day => n.days(),
            Self::Week => n.weeks(),
            Self::Month => n.months(),
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::Hour => Unit::Hour,
            Self::Day => Unit::Day,
            Self::Week => Unit::Week,
            Self::Month => Unit::Month,
        }
    }

    /// Returns the first date of the part that contains a date.
    fn first(self, date: Date) -> Option<Date> {
        match self {
            Self::Hour | Self::Day => Some(date),
            Self::Week => date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).ok(),
            Self::Month => Some(date.first_of_month()),
        }
    }

    /// Returns the start of the part after the one that starts at a time.
    fn next(self, start: &Zoned) -> Option<Zoned> {
        match self {
            Self::Hour => start.checked_add(1.hour()).ok(),
            Self::Day | Self::Week | Self::Month => {
                let date = self.first(start.date())?.checked_add(self.span(1)).ok()?;
                start_of(date, start.time_zone())
            }
        }
    }

    /// Returns the start of the part that contains a time.
    fn floor(self, time: &Zoned) -> Option<Zoned> {
        if self == Self::Hour {
            let hour = Timestamp::from_second(time.timestamp().as_second().div_euclid(HOUR) * HOUR).ok()?;
            return Some(hour.to_zoned(time.time_zone().clone()));
        }
        let mut start = start_of(self.first(time.date())?, time.time_zone())?;
        // A date occurs twice if the clocks go back over midnight; its second time belongs to the next date.
        loop {
            let next = self.next(&start)?;
            if next > *time {
                return Some(start);
            }
            start = next;
        }
    }

    /// Returns whether a part starts at a time.
    fn starts_at(self, time: &Zoned) -> bool {
        self.floor(time).as_ref() == Some(time)
    }

    /// Returns the time `n` units earlier. The start of a day remains one, even if the clocks skip midnight.
    fn back(self, time: &Zoned, n: i64) -> Option<Zoned> {
        if self == Self::Hour || !Self::Day.starts_at(time) {
            return time.checked_sub(self.span(n)).ok();
        }
        start_of(time.date().checked_sub(self.span(n)).ok()?, time.time_zone())
    }
}

impl Period {
    /// Parses the period of a command line.
    ///
    /// # Errors
    /// A time, a span or a zone cannot be parsed.
    pub(crate) fn of(args: &PeriodArgs) -> Result<Self, Error> {
        Self::at(args, Timestamp::now())
    }

    fn at(args: &PeriodArgs, now: Timestamp) -> Result<Self, Error> {
        let now = now.to_zoned(zone(args.tz.as_deref())?);
        // The current hour has counts already.
        let present = By::Hour.floor(&now).and_then(|hour| By::Hour.next(&hour)).unwrap_or(now.clone());
        let (from, to, step) = match &args.from {
            Some(from) => {
                let from = time("--from", from, &now)?;
                let to = args.to.as_ref().map_or(Ok(present), |to| time("--to", to, &now))?;
                let step = match () {
                    () if By::Month.starts_at(&from) && By::Month.starts_at(&to) => By::Month,
                    () if By::Day.starts_at(&from) => By::Day,
                    () => By::Hour,
                };
                (from, to, step)
            }
            None => {
                let (from, unit) = last(args.last.as_deref().unwrap_or("24h"), &now)?;
                (from, present, unit)
            }
        };
        let seconds = to.timestamp().as_second().saturating_sub(from.timestamp().as_second());
        let by = args.by.unwrap_or(By::for_hours(seconds / HOUR));
        Self::new(&from, &to, by, step, now.timestamp())
    }

    /// Creates the period of all hours that begin between `from`, inclusive, and `to`, exclusive.
    fn new(from: &Zoned, to: &Zoned, by: By, step: By, now: Timestamp) -> Result<Self, Error> {
        let bounds = || format!("it begins at {} and ends at {}", from.timestamp(), to.timestamp());
        if from >= to {
            return Err(unusable("the period", &format!("choose a start before the end: {}", bounds())));
        }
        let out_of_range = || unusable("the period", "choose times within the years 1 to 9998");
        let mut parts = Vec::new();
        let mut start = by.floor(from).ok_or_else(out_of_range)?;
        while start < *to {
            let next = by.next(&start).filter(|next| *next > start).ok_or_else(out_of_range)?;
            let (begin, end) = (from.max(&start), to.min(&next));
            let hours = hour_from(begin).zip(hour_from(end)).ok_or_else(out_of_range)?;
            // No hour begins in a part of some minutes.
            if hours.0 < hours.1 {
                let is_cut = *begin != start || *end != next;
                parts.push(Part { bounds: (begin.timestamp(), end.timestamp()), hours, is_cut });
            }
            if parts.len() > MAX_PARTS {
                return Err(unusable("the period", "pass --by day, week or month: it has too many parts"));
            }
            start = next;
        }
        if parts.is_empty() {
            let help = format!("choose a period in which a UTC hour begins, as counts are kept by hour: {}", bounds());
            return Err(unusable("the period", &help));
        }
        Ok(Self { zone: from.time_zone().clone(), by, step, parts, now })
    }

    /// Returns the previous period: the same times, earlier by as many whole units as this period overlaps. Its parts
    /// thus begin and end like those of this period. The unit is that of `--last` or of the parts, whichever is longer;
    /// a period that begins within a day is preceded by one of the same length, unless its parts are longer than hours.
    ///
    /// # Errors
    /// It would begin before the year 1.
    pub(crate) fn before(&self) -> Result<Self, Error> {
        let out_of_range =
            || unusable("--compare", "choose a later period: the previous one would begin before the year 1");
        let (from, to) = (self.zoned(self.bounds().0), self.zoned(self.bounds().1));
        let unit = self.step.max(self.by);
        let length = from.until((unit.unit(), &to)).map_err(|_| out_of_range())?;
        let whole = match unit {
            By::Hour => length.get_hours().into(),
            By::Day => length.get_days().into(),
            By::Week => length.get_weeks().into(),
            By::Month => length.get_months().into(),
        };
        let mut n = 1.max(whole);
        while unit.back(&to, n).ok_or_else(out_of_range)? > from {
            n += 1;
        }
        let (begin, end) = unit.back(&from, n).zip(unit.back(&to, n)).ok_or_else(out_of_range)?;
        let earlier = Self::new(&begin, &end, self.by, self.step, self.now);
        // Days that a shorter month lacks may be all that there is.
        earlier.or_else(|_| {
            let begin = from.checked_sub(to.duration_since(&from)).map_err(|_| out_of_range())?;
            Self::new(&begin, &from, self.by, self.step, self.now)
        })
    }

    fn zoned(&self, time: Timestamp) -> Zoned {
        time.to_zoned(self.zone.clone())
    }

    /// Returns the start of the first part and the end of the last one.
    fn bounds(&self) -> (Timestamp, Timestamp) {
        let first = self.parts.first().map_or(Timestamp::MIN, |part| part.bounds.0);
        (first, self.parts.last().map_or(Timestamp::MIN, |part| part.bounds.1))
    }

    /// Returns the first hour and the end of the last one.
    fn hour_bounds(&self) -> (Timestamp, Timestamp) {
        let first = self.parts.first().map_or(Timestamp::MIN, |part| part.hours.0);
        (first, self.parts.last().map_or(Timestamp::MIN, |part| part.hours.1))
    }

    /// Returns the start in the zone, as RFC 3339.
    pub(crate) fn from(&self) -> String {
        self.local(self.bounds().0)
    }

    /// Returns the end, exclusive, in the zone, as RFC 3339.
    pub(crate) fn to(&self) -> String {
        self.local(self.bounds().1)
    }

    fn local(&self, time: Timestamp) -> String {
        match self.zone() == "UTC" {
            true => time.to_string(),
            false => self.zoned(time).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        }
    }

    /// Returns the first hour, in the format of the counts table.
    pub(crate) fn first_hour(&self) -> String {
        self.hour_bounds().0.to_string()
    }

    /// Returns the last hour, in the format of the counts table.
    pub(crate) fn last_hour(&self) -> String {
        let end = self.hour_bounds().1;
        end.checked_sub(1.hour()).unwrap_or(end).to_string()
    }

    /// Returns the name of the time zone.
    pub(crate) fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    pub(crate) fn by(&self) -> By {
        self.by
    }

    /// Returns every hour, in the format of the counts table.
    pub(crate) fn hours(&self) -> impl Iterator<Item = String> + use<> {
        let (first, end) = self.hour_bounds();
        (first.as_second()..end.as_second())
            .step_by(3600)
            .filter_map(|second| Some(Timestamp::from_second(second).ok()?.to_string()))
    }

    /// Returns the number of hours.
    pub(crate) fn hour_count(&self) -> i64 {
        let (first, end) = self.hour_bounds();
        (end.as_second() - first.as_second()) / HOUR
    }

    /// Returns whether a boundary lies within a UTC hour, which then belongs to the part in which it begins.
    pub(crate) fn divides_hours(&self) -> bool {
        self.parts.iter().any(|part| part.bounds != part.hours)
    }

    /// Returns the number of parts.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Returns the part to which an hour of the counts table belongs.
    pub(crate) fn part_of(&self, hour: &str) -> Option<usize> {
        let hour: Timestamp = hour.parse().ok()?;
        let part = self.parts.partition_point(|part| part.hours.1 <= hour);
        self.parts.get(part).filter(|part| part.hours.0 <= hour).map(|_| part)
    }

    /// Returns the start of a part in the zone, as RFC 3339.
    pub(crate) fn start_of(&self, part: usize) -> String {
        self.parts.get(part).map(|part| self.local(part.bounds.0)).unwrap_or_default()
    }

    /// Returns the end of a part, exclusive, in the zone, as RFC 3339.
    pub(crate) fn end_of(&self, part: usize) -> String {
        self.parts.get(part).map(|part| self.local(part.bounds.1)).unwrap_or_default()
    }

    /// Returns how much of a part has counts.
    pub(crate) fn extent(&self, part: usize) -> Extent {
        match self.parts.get(part) {
            Some(part) if part.hours.0 > self.now => Extent::Future,
            Some(part) if self.now < part.hours.1 => Extent::SoFar,
            Some(part) if part.is_cut => Extent::Partial,
            Some(_) | None => Extent::Whole,
        }
    }

    /// Returns the human-readable label of a part, with a mark if it is not whole.
    pub(crate) fn label(&self, part: usize) -> String {
        let Some(start) = self.parts.get(part).map(|part| self.zoned(part.bounds.0)) else { return String::new() };
        let format = match self.by {
            // Two hours have one time if the clocks go back.
            By::Hour if self.zone.to_ambiguous_zoned(start.datetime()).is_ambiguous() => "%Y-%m-%d %H:%M %:z",
            By::Hour => "%Y-%m-%d %H:%M",
            By::Day => "%Y-%m-%d %a",
            By::Week => "%G-W%V",
            By::Month => "%Y-%m",
        };
        start.strftime(format).to_string() + self.extent(part).mark()
    }

    /// Returns the short label of a part, for the axis of a chart.
    pub(crate) fn tick(&self, part: usize) -> String {
        let Some(start) = self.parts.get(part) else { return String::new() };
        let format = match self.by {
            By::Hour => "%b %-d %H:%M",
            By::Day => "%b %-d",
            By::Week => "%G-W%V",
            By::Month => "%b %Y",
        };
        self.zoned(start.bounds.0).strftime(format).to_string()
    }
}

fn zone(name: Option<&str>) -> Result<TimeZone, Error> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    TimeZone::get(name).map_err(|_| {
        unusable(&format!("--tz {}", name.escape_debug()), "pass a zone of the IANA database, such as Europe/Berlin")
    })
}

/// Parses a time of the command line; `tz` is the zone of a time without one.
///
/// # Errors
/// The time or the zone cannot be parsed.
pub(crate) fn moment(flag: &str, text: &str, tz: Option<&str>) -> Result<Timestamp, Error> {
    time(flag, text, &Timestamp::now().to_zoned(zone(tz)?)).map(|time| time.timestamp())
}

/// Parses the span of `--last` and returns its start and its unit. The period has the number of units that the span
/// names, including the current one, however it is divided into parts: `24h` is the current hour and the 23 before it,
/// `7d` is today and the six days before it. A span of less than two hours includes all hours that it overlaps, as the
/// current hour may have only begun.
fn last(text: &str, now: &Zoned) -> Result<(Zoned, By), Error> {
    let invalid = || unusable(&format!("--last {}", text.escape_debug()), "pass a span such as 90m, 24h, 7d or 12mo");
    let span: Span = text.parse().map_err(|_| invalid())?;
    if !span.is_positive() {
        return Err(invalid());
    }
    let begin = now.checked_sub(span).map_err(|_| invalid())?;
    let unit = if span.get_hours() != 0 || span.get_minutes() != 0 || span.get_seconds() != 0 {
        By::Hour
    } else if span.get_days() != 0 {
        By::Day
    } else if span.get_weeks() != 0 {
        By::Week
    } else {
        By::Month
    };
    let start = unit.floor(&begin).ok_or_else(invalid)?;
    let is_short = span.total((Unit::Hour, now)).is_ok_and(|hours| hours < 2.0);
    let from = if is_short { start } else { unit.next(&start).ok_or_else(invalid)? };
    Ok((from, unit))
}

fn unusable(what: &str, help: &str) -> Error {
    Error::usage(format!("{what} cannot be used"), help.to_owned())
}

/// Parses a time with its zone, a date or time in the zone of `now`, or a word such as today.
fn time(flag: &str, text: &str, now: &Zoned) -> Result<Zoned, Error> {
    let zone = now.time_zone();
    let midnight = |date: Date| date.to_zoned(zone.clone()).ok();
    let word = match text {
        "now" => Some(now.clone()),
        "today" => midnight(now.date()),
        "yesterday" => now.date().yesterday().ok().and_then(midnight),
        "tomorrow" => now.date().tomorrow().ok().and_then(midnight),
        _ => None,
    };
    word.or_else(|| Some(text.parse::<Timestamp>().ok()?.to_zoned(zone.clone())))
        .or_else(|| midnight(text.parse::<Date>().ok()?).filter(|_| !text.contains('T')))
        .or_else(|| text.parse::<DateTime>().ok()?.to_zoned(zone.clone()).ok())
        .ok_or_else(|| {
            let help = "pass a date such as 2015-08-04, a time such as 2015-08-04T12:00:00Z, today or yesterday";
            unusable(&format!("{flag} {}", text.escape_debug()), help)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2015-08-04T12:34:56Z";

    fn period(last: Option<&str>, from: Option<&str>, to: Option<&str>, by: By, tz: &str) -> Result<Period, Error> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let args = PeriodArgs { last: own(last), from: own(from), to: own(to), by: Some(by), tz: Some(tz.to_owned()) };
        Period::at(&args, NOW.parse().expect("a time"))
    }

    fn of(from: &str, to: &str, by: By, tz: &str) -> Period {
        period(None, Some(from), Some(to), by, tz).expect("a period")
    }

    fn bounds(last: &str, by: By) -> (String, String, usize) {
        let period = period(Some(last), None, None, by, "UTC").expect("a period");
        (period.from(), period.to(), period.len())
    }

    fn expected(from: &str, to: &str, parts: usize) -> (String, String, usize) {
        (from.to_owned(), to.to_owned(), parts)
    }

    fn labels(period: &Period) -> Vec<String> {
        (0..period.len()).map(|part| period.label(part)).collect()
    }

    #[test]
    fn last_has_the_named_units_including_the_current_one_however_it_is_divided() {
        assert_eq!(bounds("24h", By::Hour), expected("2015-08-03T13:00:00Z", "2015-08-04T13:00:00Z", 24));
        assert_eq!(bounds("24h", By::Day), expected("2015-08-03T13:00:00Z", "2015-08-04T13:00:00Z", 2));
        assert_eq!(bounds("2h", By::Hour), expected("2015-08-04T11:00:00Z", "2015-08-04T13:00:00Z", 2));
        assert_eq!(bounds("3h", By::Hour), expected("2015-08-04T10:00:00Z", "2015-08-04T13:00:00Z", 3));
        assert_eq!(bounds("7d", By::Day), expected("2015-07-29T00:00:00Z", "2015-08-04T13:00:00Z", 7));
        assert_eq!(bounds("7d", By::Hour), expected("2015-07-29T00:00:00Z", "2015-08-04T13:00:00Z", 6 * 24 + 13));
        assert_eq!(bounds("7d", By::Month), expected("2015-07-29T00:00:00Z", "2015-08-04T13:00:00Z", 2));
        assert_eq!(bounds("2w", By::Week), expected("2015-07-27T00:00:00Z", "2015-08-04T13:00:00Z", 2));
        assert_eq!(bounds("12mo", By::Month), expected("2014-09-01T00:00:00Z", "2015-08-04T13:00:00Z", 12));
        assert_eq!(bounds("1y", By::Month), bounds("12mo", By::Month));
    }

    #[test]
    fn short_span_includes_all_overlapping_hours() {
        assert_eq!(bounds("60m", By::Hour), bounds("1h", By::Hour));
        assert_eq!(bounds("90m", By::Hour), expected("2015-08-04T11:00:00Z", "2015-08-04T13:00:00Z", 2));
        assert_eq!(bounds("40m", By::Hour), expected("2015-08-04T11:00:00Z", "2015-08-04T13:00:00Z", 2));
    }

    #[test]
    fn default_parts_depend_on_the_length_of_the_period() {
        let by = |last: &str| {
            let args = PeriodArgs { last: Some(last.to_owned()), from: None, to: None, by: None, tz: None };
            Period::at(&args, NOW.parse().expect("a time")).map(|period| (period.by(), period.len())).expect("a period")
        };
        assert_eq!(["24h", "48h", "7d", "90d"].map(by), [(By::Hour, 24), (By::Hour, 48), (By::Day, 7), (By::Day, 90)]);
        assert_eq!(["6mo", "1y", "10y"].map(by), [(By::Week, 24), (By::Month, 12), (By::Month, 120)]);
    }

    #[test]
    fn dates_and_words_are_read_in_the_zone_with_an_exclusive_end() {
        let of = |from, to, tz| {
            let period = of(from, to, By::Day, tz);
            (period.first_hour(), period.hours().last().expect("an hour"), period.len())
        };
        assert_eq!(of("2015-08-03", "2015-08-04", "UTC"), expected("2015-08-03T00:00:00Z", "2015-08-03T23:00:00Z", 1));
        assert_eq!(of("yesterday", "today", "UTC"), of("2015-08-03", "2015-08-04", "UTC"));
        assert_eq!(
            of("2015-08-03", "2015-08-04", "Europe/Berlin"),
            expected("2015-08-02T22:00:00Z", "2015-08-03T21:00:00Z", 1)
        );
        assert_eq!(
            of("2015-08-03T02:00:00+02:00", "2015-08-03T00:00:01Z", "UTC"),
            expected("2015-08-03T00:00:00Z", "2015-08-03T00:00:00Z", 1)
        );
    }

    #[test]
    fn bounds_of_parts_are_local_times_with_their_offset() {
        let october = of("2015-10-01", "2015-11-01", By::Month, "Europe/Berlin");
        assert_eq!((october.from(), october.to()), (october.start_of(0), october.end_of(0)));
        assert_eq!(october.start_of(0), "2015-10-01T00:00:00+02:00");
        assert_eq!(october.end_of(0), "2015-11-01T00:00:00+01:00");
        assert_eq!(of("2015-10-01", "2015-11-01", By::Month, "UTC").start_of(0), "2015-10-01T00:00:00Z");
    }

    #[test]
    fn hour_that_occurs_twice_has_two_labels() {
        let day = of("2014-10-26", "2014-10-27", By::Hour, "Europe/Berlin");
        let labels = labels(&day);
        assert_eq!(labels.len(), 25);
        assert_eq!(
            labels.get(1..5).expect("hours"),
            ["2014-10-26 01:00", "2014-10-26 02:00 +02:00", "2014-10-26 02:00 +01:00", "2014-10-26 03:00"]
        );
    }

    #[test]
    fn day_of_the_clock_change_has_23_hours() {
        let period = of("2015-03-28", "2015-03-31", By::Day, "Europe/Berlin");
        assert_eq!(period.len(), 3);
        assert_eq!(period.hours().count(), 24 + 23 + 24);
        assert_eq!(period.part_of("2015-03-28T22:00:00Z"), Some(0));
        assert_eq!(period.part_of("2015-03-28T23:00:00Z"), Some(1));
        assert_eq!(period.label(1), "2015-03-29 Sun");
    }

    #[test]
    fn days_after_a_skipped_midnight_begin_at_midnight() {
        for (zone, skipped, next) in [
            ("Africa/Cairo", "2023-04-28T01:00:00+03:00", "2023-04-29T00:00:00+03:00"),
            ("America/Santiago", "2019-09-08T01:00:00-03:00", "2019-09-09T00:00:00-03:00"),
        ] {
            let (from, date) = (skipped.parse::<Timestamp>().expect("a time"), skipped.get(..10).expect("a date"));
            let to = from.checked_add(72.hours()).expect("a time");
            for by in [By::Day, By::Hour] {
                let period = of(date, &to.to_string(), by, zone);
                let starts: Vec<String> = (0..period.len()).map(|part| period.start_of(part)).collect();
                assert!(starts.first().is_some_and(|start| start == skipped), "{starts:?}");
                assert!(starts.iter().any(|start| start == next), "{starts:?}");
                // The previous period begins at midnight too.
                assert!(period.before().expect("a period").from().contains("T00:00:00"), "{zone}");
            }
        }
        // Samoa had no 30 December 2011.
        let apia = of("2011-12-29", "2012-01-01", By::Day, "Pacific/Apia");
        assert_eq!(labels(&apia), ["2011-12-29 Thu", "2011-12-31 Sat"]);
    }

    #[test]
    fn hour_that_a_boundary_divides_belongs_to_the_part_in_which_it_begins() {
        let month = of("2015-08-01", "2015-09-01", By::Month, "Asia/Kolkata");
        assert_eq!((month.len(), month.hour_count(), month.divides_hours()), (1, 31 * 24, true));
        assert_eq!(
            (month.from().as_str(), month.first_hour().as_str()),
            ("2015-08-01T00:00:00+05:30", "2015-07-31T19:00:00Z")
        );
        let days = of("2015-08-01", "2015-08-03", By::Day, "Asia/Kolkata");
        assert_eq!((days.part_of("2015-08-01T18:00:00Z"), days.part_of("2015-08-01T19:00:00Z")), (Some(0), Some(1)));
        assert_eq!((days.part_of("2015-07-31T18:00:00Z"), days.part_of("2015-08-02T19:00:00Z")), (None, None));
        assert!(!of("2015-08-01", "2015-09-01", By::Month, "Europe/Berlin").divides_hours());
        // Hours are those of UTC, in every zone.
        assert_eq!(of("2015-08-01", "2015-08-02", By::Hour, "Asia/Kolkata").label(0), "2015-08-01 00:30");
        assert!(period(None, Some("2015-08-04T12:10:00Z"), Some("2015-08-04T12:50:00Z"), By::Hour, "UTC").is_err());
    }

    /// The instants between 1970 and 2040 at which the clocks of a zone change.
    fn transitions(zone: &TimeZone) -> Vec<Timestamp> {
        let years = |year: i16| jiff::civil::date(year, 1, 1).to_zoned(TimeZone::UTC).expect("a time").timestamp();
        zone.following(years(1970)).map(|at| at.timestamp()).take_while(|at| *at < years(2040)).collect()
    }

    fn zones() -> Vec<TimeZone> {
        let zones: Vec<TimeZone> =
            jiff::tz::db().available().filter_map(|name| TimeZone::get(name.as_str()).ok()).collect();
        assert!(zones.len() > 400, "{} zones", zones.len());
        zones
    }

    /// Asserts that every hour belongs to exactly one part, in which it begins, and that the parts are adjacent.
    fn assert_partition(period: &Period) {
        let name = || format!("{} {:?} from {} to {}", period.zone(), period.by(), period.from(), period.to());
        let pairs = period.parts.windows(2);
        assert!(pairs.clone().all(|pair| pair[0].hours.1 == pair[1].hours.0), "{}", name());
        assert!(pairs.clone().all(|pair| pair[0].bounds.1 == pair[1].bounds.0), "{}", name());
        for part in &period.parts {
            assert!(part.hours.0 < part.hours.1 && part.bounds.0 < part.bounds.1, "{}", name());
            let late = |(bound, hour): (Timestamp, Timestamp)| hour.as_second() - bound.as_second();
            assert!((0..HOUR).contains(&late((part.bounds.0, part.hours.0))), "{}", name());
            assert!((0..HOUR).contains(&late((part.bounds.1, part.hours.1))), "{}", name());
        }
    }

    #[test]
    fn parts_at_every_clock_change_of_every_zone_begin_with_their_dates() {
        for zone in zones() {
            for at in transitions(&zone) {
                let (now, at) = (at, at.to_zoned(zone.clone()));
                let (from, to) =
                    (at.checked_sub(50.hours()).expect("a time"), at.checked_add(50.hours()).expect("a time"));
                for by in [By::Day, By::Week, By::Month] {
                    let period = Period::new(&from, &to, by, By::Hour, now).expect("a period");
                    assert_partition(&period);
                    for part in &period.parts[1..] {
                        let start = period.zoned(part.bounds.0);
                        let name = format!("{by:?} {start}");
                        // The instant before belongs to another date, week or month.
                        let before = start.checked_sub(1.nanosecond()).expect("a time");
                        assert!(by.first(before.date()) != by.first(start.date()), "{name}");
                        assert!(start.minute() == 0 || by == By::Day || start.hour() == 0, "{name}");
                        assert!(by.starts_at(&start) && by.floor(&before) < Some(start), "{name}");
                    }
                }
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(700))]
        #[test]
        fn sums_of_adjacent_periods_are_the_sum_of_both_in_every_zone(
            zone in proptest::sample::select(zones()),
            by in proptest::sample::select(vec![By::Hour, By::Day, By::Week, By::Month]),
            start in 0_i64..2_200_000_000, first in 1_i64..4_000_000, second in 1_i64..4_000_000,
            at_dates: bool,
        ) {
            let time = |second: i64| {
                let time = Timestamp::from_second(second).expect("a time").to_zoned(zone.clone());
                if at_dates { By::Day.floor(&time).expect("a day") } else { time }
            };
            let [a, b, c] = [start, start + first, start + first + second].map(time);
            let of = |from: &Zoned, to: &Zoned| Period::new(from, to, by, By::Hour, Timestamp::UNIX_EPOCH);
            let hours = |period: Result<Period, Error>| {
                period.map(|period| { assert_partition(&period); period.hours().collect::<Vec<_>>() }).unwrap_or_default()
            };
            let both = [hours(of(&a, &b)), hours(of(&b, &c))].concat();
            proptest::prop_assert_eq!(&both, &hours(of(&a, &c)));
            let Ok(period) = of(&a, &c) else { return Ok(()) };
            for hour in both.iter().step_by(7) {
                let part = period.part_of(hour).and_then(|part| period.parts.get(part)).expect("a part");
                let hour: Timestamp = hour.parse().expect("a time");
                proptest::prop_assert!(part.bounds.0 <= hour && hour < part.bounds.1);
            }
        }

        #[test]
        fn previous_period_ends_before_this_one_and_has_parts_of_the_same_unit(
            zone in proptest::sample::select(zones()),
            by in proptest::sample::select(vec![By::Hour, By::Day, By::Week, By::Month]),
            step in proptest::sample::select(vec![By::Hour, By::Day, By::Week, By::Month]),
            start in 100_000_000_i64..2_200_000_000, length in 3600_i64..9_000_000,
            at_dates: bool,
        ) {
            let time = |second: i64| {
                let time = Timestamp::from_second(second).expect("a time").to_zoned(zone.clone());
                if at_dates { By::Day.floor(&time).expect("a day") } else { time }
            };
            let Ok(period) = Period::new(&time(start), &time(start + length), by, step, Timestamp::UNIX_EPOCH) else { return Ok(()) };
            let before = period.before().expect("a period");
            proptest::prop_assert!(before.bounds().1 <= period.bounds().0);
            // Clock changes and short months aside, both are equally long.
            let difference = before.hour_count() - period.hour_count();
            let tolerance = if by == By::Month || step == By::Month { 3 * 24 + 2 } else { 24 };
            proptest::prop_assert!(difference.abs() <= tolerance, "{} and {}", before.hour_count(), period.hour_count());
        }
    }

    #[test]
    fn previous_period_has_the_same_calendar_length() {
        let before = |from, to, by| {
            let before = of(from, to, by, "UTC").before().expect("a period");
            (before.from(), before.to(), before.len())
        };
        assert_eq!(
            before("2015-03-01", "2015-04-01", By::Month),
            expected("2015-02-01T00:00:00Z", "2015-03-01T00:00:00Z", 1)
        );
        assert_eq!(
            before("2015-08-03", "2015-08-04", By::Hour),
            expected("2015-08-02T00:00:00Z", "2015-08-03T00:00:00Z", 24)
        );
        assert_eq!(
            before("2015-08-04T10:00:00Z", "2015-08-04T12:00:00Z", By::Hour),
            expected("2015-08-04T08:00:00Z", "2015-08-04T10:00:00Z", 2)
        );
        // February has fewer days than January.
        assert_eq!(before("2015-02-01", "2015-03-01", By::Day).2, 31);
        // Two days of March that February lacks are compared with the two days before them.
        assert_eq!(
            before("2015-03-29", "2015-03-31", By::Month),
            expected("2015-03-27T00:00:00Z", "2015-03-29T00:00:00Z", 1)
        );
    }

    #[test]
    fn parts_of_the_previous_period_begin_like_those_of_this_one() {
        let starts = |period: &Period| -> Vec<String> { (0..period.len()).map(|part| period.start_of(part)).collect() };
        // Twelve days of two weeks: Monday to Monday, Monday to Saturday.
        let weeks = of("2015-07-20", "2015-08-01", By::Week, "UTC");
        let before = weeks.before().expect("a period");
        assert_eq!(starts(&before), ["2015-07-06T00:00:00Z", "2015-07-13T00:00:00Z"]);
        assert_eq!((before.to().as_str(), before.hour_count()), ("2015-07-18T00:00:00Z", weeks.hour_count()));
        // A running period is compared with the same times of the previous one.
        for by in [By::Hour, By::Day] {
            let seven = period(Some("7d"), None, None, by, "UTC").expect("a period");
            let before = seven.before().expect("a period");
            assert_eq!(
                (before.from().as_str(), before.to().as_str()),
                ("2015-07-22T00:00:00Z", "2015-07-28T13:00:00Z")
            );
            assert_eq!((before.hour_count(), before.len()), (seven.hour_count(), seven.len()));
        }
        let year = period(Some("12mo"), None, None, By::Month, "UTC").expect("a period");
        assert_eq!(year.before().expect("a period").to(), "2014-08-04T13:00:00Z");
        let hours = period(Some("24h"), None, None, By::Hour, "UTC").expect("a period");
        assert_eq!(hours.before().expect("a period").to(), hours.from());
    }

    #[test]
    fn extent_tells_whole_cut_current_and_future_parts_apart() {
        let extents = |period: Period| -> Vec<&'static str> {
            (0..period.len()).map(|part| period.extent(part).name()).collect()
        };
        let last = |last: &str, by| extents(period(Some(last), None, None, by, "UTC").expect("a period"));
        assert_eq!(last("3h", By::Hour), ["whole", "whole", "so_far"]);
        assert_eq!(last("2d", By::Day), ["whole", "so_far"]);
        assert_eq!(last("24h", By::Day), ["partial", "so_far"]);
        assert_eq!(last("3mo", By::Month), ["whole", "whole", "so_far"]);
        let past = |from, to, by| extents(of(from, to, by, "UTC"));
        assert_eq!(past("2015-08-03", "2015-08-07", By::Day), ["whole", "so_far", "future", "future"]);
        assert_eq!(past("2015-08-03T12:00:00Z", "2015-08-04T12:00:00Z", By::Day), ["partial", "partial"]);
        assert_eq!(past("2015-07-20", "2015-07-22", By::Week), ["partial"]);
        assert_eq!(past("2015-08-03", "2015-08-04", By::Day), ["whole"]);
        assert_eq!(of("2015-08-03", "2015-08-06", By::Day, "UTC").label(1), "2015-08-04 Tue (so far)");
    }

    #[test]
    fn invalid_period_is_refused() {
        for bad in ["", "soon", "-3h", "0h", "99999999999999999999h"] {
            assert!(period(Some(bad), None, None, By::Hour, "UTC").is_err(), "{bad}");
        }
        assert!(period(None, Some("2015-13-01"), None, By::Hour, "UTC").is_err());
        assert!(period(None, Some("2015-08-04"), Some("2015-08-03"), By::Hour, "UTC").is_err());
        assert!(period(None, Some("0001-01-01"), None, By::Hour, "UTC").is_err(), "too many parts");
        assert!(period(Some("1h"), None, None, By::Hour, "Mars/Olympus").is_err());
    }
}
