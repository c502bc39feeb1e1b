//! A period of time, divided into the parts for which counts are shown.
//!
//! Counts are stored by UTC hour, and an hour is never divided: it belongs to the part, and to the period, in which it
//! begins. Therefore every count belongs to exactly one part, and the sums of adjacent periods are the sum of both, in
//! every time zone. The rule shows wherever a boundary is not a whole UTC hour: in a zone such as Asia/Kolkata, or with
//! a time such as 12:30. [`Period::divides_hours`] tells.

use counting::names::daily::day_of;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, ZonedDateTime};

use super::calendar::{By, HOUR, hour_from};
use super::moment::{last, time, unusable, zone};
use crate::error::Error;

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

/// A span of time for which one partition holds the counts of all events: a UTC hour, or a UTC day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Span {
    /// Its start.
    pub(crate) start: Timestamp,
    /// True for a day of the daily table, false for an hour of the counts table.
    pub(crate) is_day: bool,
}

impl Span {
    /// Returns the partition key: a day in the format of the daily table, or an hour in the format of the counts table.
    pub(crate) fn key(self) -> String {
        let hour = self.start.to_string();
        if self.is_day { day_of(&hour).to_owned() } else { hour }
    }

    /// Divides the time between two hours into whole UTC days, and the hours before and after them.
    fn cover((first, end): (Timestamp, Timestamp)) -> impl Iterator<Item = Self> {
        const DAY: i64 = 24 * HOUR;
        let (mut second, end) = (first.as_second(), end.as_second());
        std::iter::from_fn(move || {
            let start = Timestamp::from_second(second).ok().filter(|_| second < end)?;
            let is_day = second.rem_euclid(DAY) == 0 && end - second >= DAY;
            second += if is_day { DAY } else { HOUR };
            Some(Self { start, is_day })
        })
    }
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

impl Period {
    /// Parses the period of a command line.
    ///
    /// # Errors
    /// A time, a span or a zone cannot be parsed.
    pub(crate) fn of(args: &PeriodArgs) -> Result<Self, Error> {
        Self::at(args, Timestamp::now())
    }

    fn at(args: &PeriodArgs, now: Timestamp) -> Result<Self, Error> {
        let now = now.to_zoned_datetime(zone(args.tz.as_deref())?);
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
    fn new(from: &ZonedDateTime, to: &ZonedDateTime, by: By, step: By, now: Timestamp) -> Result<Self, Error> {
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

    fn zoned(&self, time: Timestamp) -> ZonedDateTime {
        time.to_zoned_datetime(self.zone.clone())
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

    /// Returns the fewest spans that cover the period.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> {
        Span::cover(self.hour_bounds())
    }

    /// Returns the fewest spans of which each lies within one part.
    pub(crate) fn spans_by_part(&self) -> impl Iterator<Item = Span> {
        self.parts.iter().flat_map(|part| Span::cover(part.hours))
    }

    /// Divides the hours into ranges of at most `most` hours. Returns the first and the last hour of each, in the format of
    /// the counts table.
    pub(crate) fn ranges(&self, most: i64) -> Vec<(String, String)> {
        let (first, end) = self.hour_bounds();
        let (first, end, step) = (first.as_second(), end.as_second(), most * HOUR);
        let hour = |second: i64| Timestamp::from_second(second).ok().map(|hour| hour.to_string());
        let starts = std::iter::successors(Some(first), |start| Some(start + step)).take_while(|start| *start < end);
        starts.filter_map(|start| hour(start).zip(hour(end.min(start + step) - HOUR))).collect()
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

    /// Returns the part to which the hour that begins at `hour` belongs.
    pub(crate) fn part_of(&self, hour: Timestamp) -> Option<usize> {
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
            By::Hour if self.zone.to_ambiguous_zoned_datetime(start.datetime()).is_ambiguous() => "%Y-%m-%d %H:%M %:z",
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

#[cfg(test)]
mod tests;
