//! Hours, days, weeks and months of a time zone.

use clap::ValueEnum;
use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp, ToSpan, Unit, ZonedDateTime};

/// Seconds in an hour.
pub(super) const HOUR: i64 = 3600;

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

/// Returns the start of a date: midnight, or the end of the gap if the clocks skip midnight.
fn start_of(date: Date, zone: &TimeZone) -> Option<ZonedDateTime> {
    let midnight = zone.to_ambiguous_zoned_datetime(date.to_datetime(Time::midnight()));
    let is_skipped = matches!(midnight.offset(), AmbiguousOffset::Gap { .. });
    let start = midnight.compatible().ok()?;
    if !is_skipped {
        return Some(start);
    }
    let after = start.timestamp().checked_add(1.nanosecond()).ok()?;
    Some(zone.preceding(after).next()?.timestamp().to_zoned_datetime(zone.clone()))
}

/// Returns the first UTC hour that begins at a time or later.
pub(super) fn hour_from(time: &ZonedDateTime) -> Option<Timestamp> {
    let time = time.timestamp();
    let begun = Timestamp::from_second(time.as_second().div_euclid(HOUR) * HOUR).ok()?;
    if begun == time { Some(begun) } else { begun.checked_add(1.hour()).ok() }
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
    pub(super) fn for_hours(hours: i64) -> Self {
        match hours {
            ..=49 => Self::Hour,
            50..=2400 => Self::Day,
            2401..=4800 => Self::Week,
            _ => Self::Month,
        }
    }

    pub(super) fn span(self, n: i64) -> Span {
        match self {
            Self::Hour => n.hours(),
            Self::Day => n.days(),
            Self::Week => n.weeks(),
            Self::Month => n.months(),
        }
    }

    pub(super) fn unit(self) -> Unit {
        match self {
            Self::Hour => Unit::Hour,
            Self::Day => Unit::Day,
            Self::Week => Unit::Week,
            Self::Month => Unit::Month,
        }
    }

    /// Returns the first date of the part that contains a date.
    pub(super) fn first(self, date: Date) -> Option<Date> {
        match self {
            Self::Hour | Self::Day => Some(date),
            Self::Week => date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).ok(),
            Self::Month => Some(date.first_of_month()),
        }
    }

    /// Returns the start of the part after the one that starts at a time.
    pub(super) fn next(self, start: &ZonedDateTime) -> Option<ZonedDateTime> {
        match self {
            Self::Hour => start.checked_add(1.hour()).ok(),
            Self::Day | Self::Week | Self::Month => {
                let date = self.first(start.date())?.checked_add(self.span(1)).ok()?;
                start_of(date, start.time_zone())
            }
        }
    }

    /// Returns the start of the part that contains a time.
    pub(super) fn floor(self, time: &ZonedDateTime) -> Option<ZonedDateTime> {
        if self == Self::Hour {
            let hour = Timestamp::from_second(time.timestamp().as_second().div_euclid(HOUR) * HOUR).ok()?;
            return Some(hour.to_zoned_datetime(time.time_zone().clone()));
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
    pub(super) fn starts_at(self, time: &ZonedDateTime) -> bool {
        self.floor(time).as_ref() == Some(time)
    }

    /// Returns the time `n` units earlier. The start of a day remains one, even if the clocks skip midnight.
    pub(super) fn back(self, time: &ZonedDateTime, n: i64) -> Option<ZonedDateTime> {
        if self == Self::Hour || !Self::Day.starts_at(time) {
            return time.checked_sub(self.span(n)).ok();
        }
        start_of(time.date().checked_sub(self.span(n)).ok()?, time.time_zone())
    }
}
