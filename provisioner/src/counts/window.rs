//! A span of time, as the hours that it touches.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Unit};

use crate::cli;
use crate::error::Error;

/// Whole UTC hours, from the first to before the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    first: Timestamp,
    end: Timestamp,
}

/// Seconds of an hour.
const HOUR: i64 = 3600;

impl Window {
    /// The hours that the time from `from` to before `to` touches.
    fn new(from: Timestamp, to: Timestamp) -> Result<Self, Error> {
        let hour = |seconds: i64| {
            Timestamp::from_second(seconds * HOUR)
                .map_err(|_| wrong("the span of time", "keep within the years 1 to 9999"))
        };
        if from >= to {
            return Err(wrong(
                "the span of time",
                &format!("it begins at {from} and ends at {to}: let it begin before it ends"),
            ));
        }
        // The last hour begins before `to`, however little of it lies within.
        let last = (to.as_nanosecond() - 1).div_euclid(i128::from(HOUR) * 1_000_000_000);
        let last = i64::try_from(last).unwrap_or(i64::MAX / HOUR - 1);
        Ok(Self { first: hour(from.as_second().div_euclid(HOUR))?, end: hour(last + 1)? })
    }

    /// The first hour, as in the counts table.
    #[must_use]
    pub fn from(&self) -> String {
        self.first.to_string()
    }

    /// The hour after the last.
    #[must_use]
    pub fn to(&self) -> String {
        self.end.to_string()
    }

    /// The last hour.
    #[must_use]
    pub fn last(&self) -> String {
        self.end.checked_sub(1.hour()).unwrap_or(self.end).to_string()
    }

    /// Every hour.
    pub fn hours(self) -> impl Iterator<Item = String> {
        let count = (self.end.as_second() - self.first.as_second()) / HOUR;
        (0..count)
            .filter_map(move |n| Some(Timestamp::from_second(self.first.as_second() + n * HOUR).ok()?.to_string()))
    }
}

/// The window of the command line.
///
/// # Errors
/// [`Error::Refused`] where a time or span cannot be understood.
pub fn of(args: &cli::Window) -> Result<Window, Error> {
    window(args, Timestamp::now())
}

fn window(args: &cli::Window, now: Timestamp) -> Result<Window, Error> {
    match &args.from {
        Some(from) => {
            let to = args.to.as_ref().map_or(Ok(now), |to| time("--to", to))?;
            Window::new(time("--from", from)?, to)
        }
        None => {
            let text = args.last.as_deref().unwrap_or("24h");
            let unclear = || wrong(&format!("--last {}", text.escape_debug()), "write a span such as 90m, 24h or 7d");
            let span: Span = text.parse().map_err(|_| unclear())?;
            if !span.is_positive() {
                return Err(unclear());
            }
            // In UTC a day has 24 hours and a month its own length.
            let then = now.to_zoned(TimeZone::UTC).checked_sub(span).map_err(|_| unclear())?.timestamp();
            // `--last 24h` means the last 24 hours and the one that has begun, not a 25th that the minute touches.
            let whole = then.as_second().rem_euclid(HOUR) != 0
                && span.total((Unit::Hour, &now.to_zoned(TimeZone::UTC))).is_ok_and(|hours| hours >= 1.0);
            let from = if whole { then.checked_add(1.hour()).unwrap_or(then) } else { then };
            Window::new(from, now.checked_add(1.nanosecond()).unwrap_or(now))
        }
    }
}

fn wrong(what: &str, help: &str) -> Error {
    Error::Refused { what: format!("{what} cannot be used"), help: help.to_owned() }
}

/// A time with its zone, or a date or time without one, which is in UTC.
fn time(flag: &str, text: &str) -> Result<Timestamp, Error> {
    let in_utc = |time: DateTime| time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    text.parse::<Timestamp>()
        .ok()
        .or_else(|| in_utc(text.parse::<Date>().ok()?.at(0, 0, 0, 0)).filter(|_| !text.contains('T')))
        .or_else(|| in_utc(text.parse::<DateTime>().ok()?))
        .ok_or_else(|| {
            let help = "write a date such as 2015-08-04, or a time such as 2015-08-04T12:00:00Z";
            wrong(&format!("{flag} {}", text.escape_debug()), help)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(last: Option<&str>, from: Option<&str>, to: Option<&str>) -> cli::Window {
        let own = |text: Option<&str>| text.map(str::to_owned);
        cli::Window { last: own(last), from: own(from), to: own(to) }
    }

    fn bounds(args: &cli::Window) -> (String, String) {
        let now = "2015-08-04T12:34:56Z".parse().expect("a time");
        let window = window(args, now).expect("a window");
        (window.from(), window.to())
    }

    fn pair(from: &str, to: &str) -> (String, String) {
        (from.to_owned(), to.to_owned())
    }

    #[test]
    fn the_last_day_is_24_hours_with_the_one_that_has_begun() {
        assert_eq!(bounds(&args(None, None, None)), pair("2015-08-03T13:00:00Z", "2015-08-04T13:00:00Z"));
        assert_eq!(bounds(&args(Some("1h"), None, None)), pair("2015-08-04T12:00:00Z", "2015-08-04T13:00:00Z"));
    }

    #[test]
    fn minutes_touch_the_hours_that_they_lie_in() {
        assert_eq!(bounds(&args(Some("40m"), None, None)), pair("2015-08-04T11:00:00Z", "2015-08-04T13:00:00Z"));
    }

    #[test]
    fn dates_are_in_utc_and_the_end_is_left_out() {
        let day = args(None, Some("2015-08-03"), Some("2015-08-04"));
        assert_eq!(bounds(&day), pair("2015-08-03T00:00:00Z", "2015-08-04T00:00:00Z"));
        let zoned = args(None, Some("2015-08-03T02:00:00+02:00"), Some("2015-08-03T00:00:01Z"));
        assert_eq!(bounds(&zoned), pair("2015-08-03T00:00:00Z", "2015-08-03T01:00:00Z"));
    }

    #[test]
    fn a_window_lists_its_hours() {
        let now = "2015-08-04T01:00:00Z".parse().expect("a time");
        let window = window(&args(Some("2h"), None, None), now).expect("a window");
        assert_eq!(
            window.hours().collect::<Vec<_>>(),
            ["2015-08-03T23:00:00Z", "2015-08-04T00:00:00Z", "2015-08-04T01:00:00Z"]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let now = Timestamp::UNIX_EPOCH;
        for bad in ["", "soon", "-3h", "0h", "99999999999999999999h"] {
            assert!(window(&args(Some(bad), None, None), now).is_err(), "{bad}");
        }
        assert!(window(&args(None, Some("2015-13-01"), None), now).is_err());
        assert!(window(&args(None, Some("2015-08-04"), Some("2015-08-03")), now).is_err());
    }
}
