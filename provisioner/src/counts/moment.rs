//! The times and spans of a command line.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Unit, ZonedDateTime};

use super::calendar::By;
use crate::error::Error;

pub(super) fn zone(name: Option<&str>) -> Result<TimeZone, Error> {
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
    time(flag, text, &Timestamp::now().to_zoned_datetime(zone(tz)?)).map(|time| time.timestamp())
}

/// Parses the start of a period up to now: a span before it, or a time in UTC.
///
/// # Errors
/// The text is neither.
pub(crate) fn since(flag: &str, text: &str) -> Result<Timestamp, Error> {
    start(flag, text, &Timestamp::now().to_zoned_datetime(TimeZone::UTC))
}

fn start(flag: &str, text: &str, now: &ZonedDateTime) -> Result<Timestamp, Error> {
    let start = match text.parse::<Span>().ok().filter(|span| span.is_positive()) {
        Some(span) => now.checked_sub(span).ok(),
        None => time(flag, text, now).ok(),
    };
    start.map(|start| start.timestamp()).ok_or_else(|| {
        let help = "pass a span such as 90m or 24h, or a time such as 2015-08-04T12:00:00Z";
        unusable(&format!("{flag} {}", text.escape_debug()), help)
    })
}

/// Parses the span of `--last` and returns its start and its unit. The period has the number of units that the span
/// names, including the current one, however it is divided into parts: `24h` is the current hour and the 23 before it,
/// `7d` is today and the six days before it. A span of less than two hours includes all hours that it overlaps, as the
/// current hour may have only begun.
pub(super) fn last(text: &str, now: &ZonedDateTime) -> Result<(ZonedDateTime, By), Error> {
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

pub(super) fn unusable(what: &str, help: &str) -> Error {
    Error::usage(format!("{what} cannot be used"), help.to_owned())
}

/// Parses a time with its zone, a date or time in the zone of `now`, or a word such as today.
pub(super) fn time(flag: &str, text: &str, now: &ZonedDateTime) -> Result<ZonedDateTime, Error> {
    let zone = now.time_zone();
    let midnight = |date: Date| date.to_zoned_datetime(zone.clone()).ok();
    let word = match text {
        "now" => Some(now.clone()),
        "today" => midnight(now.date()),
        "yesterday" => now.date().yesterday().ok().and_then(midnight),
        "tomorrow" => now.date().tomorrow().ok().and_then(midnight),
        _ => None,
    };
    word.or_else(|| Some(text.parse::<Timestamp>().ok()?.to_zoned_datetime(zone.clone())))
        .or_else(|| midnight(text.parse::<Date>().ok()?).filter(|_| !text.contains('T')))
        .or_else(|| text.parse::<DateTime>().ok()?.to_zoned_datetime(zone.clone()).ok())
        .ok_or_else(|| {
            let help = "pass a date such as 2015-08-04, a time such as 2015-08-04T12:00:00Z, today or yesterday";
            unusable(&format!("{flag} {}", text.escape_debug()), help)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_is_a_span_before_now_or_a_time() {
        let now = "2015-08-04T12:30:00Z".parse::<Timestamp>().expect("a time").to_zoned_datetime(TimeZone::UTC);
        let of = |text: &str| start("--since", text, &now).map(|start| start.to_string()).ok();
        assert_eq!(of("90m").as_deref(), Some("2015-08-04T11:00:00Z"));
        assert_eq!(of("2d").as_deref(), Some("2015-08-02T12:30:00Z"));
        assert_eq!(of("2015-08-03").as_deref(), Some("2015-08-03T00:00:00Z"));
        assert_eq!(of("2015-08-03T10:00:00Z").as_deref(), Some("2015-08-03T10:00:00Z"));
        assert_eq!(of("yesterday").as_deref(), Some("2015-08-03T00:00:00Z"));
        assert_eq!(["", "soon", "-1h", "0m"].map(of), [None, None, None, None]);
    }
}
