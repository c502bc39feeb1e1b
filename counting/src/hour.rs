//! The UTC hour of an RFC 3339 timestamp, computed by arithmetic alone because every line needs it.

/// Returns the hour of a timestamp, in hours since 1970-01-01T00Z. `None` if the text is not an RFC 3339 timestamp, or
/// if its UTC year is outside 0000 to 9999, which the format cannot express.
///
/// Accepts `T`, `t` or a space between date and time; `Z`, `z` or an offset; any number of fractional digits; and
/// second 60, which is a leap second.
pub fn parse(text: impl AsRef<[u8]>) -> Option<i64> {
    let (fixed, rest) = text.as_ref().split_first_chunk::<19>()?;
    let pair = |at: usize| digits(fixed[at], fixed[at + 1]);
    let separated = fixed[4] == b'-'
        && fixed[7] == b'-'
        && matches!(fixed[10], b'T' | b't' | b' ')
        && fixed[13] == b':'
        && fixed[16] == b':';
    if !separated {
        return None;
    }
    let (year, month, day) = (pair(0)? * 100 + pair(2)?, pair(5)?, pair(8)?);
    let (hour, minute, second) = (pair(11)?, pair(14)?, pair(17)?);
    let in_range = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 60;
    if !in_range {
        return None;
    }
    let offset = offset_minutes(after_fraction(rest)?)?;
    // A leap second ends its minute, so the second never changes the hour.
    let minutes = (days_since_1970(year, month, day) * 24 + hour) * 60 + minute - offset;
    let hours = minutes.div_euclid(60);
    (FIRST..=LAST).contains(&hours).then_some(hours)
}

/// The first and the last hour: 0000-01-01T00Z and 9999-12-31T23Z.
const FIRST: i64 = days_since_1970(0, 1, 1) * 24;
const LAST: i64 = days_since_1970(9999, 12, 31) * 24 + 23;

const fn digits(tens: u8, ones: u8) -> Option<i64> {
    if tens.is_ascii_digit() && ones.is_ascii_digit() {
        return Some((tens - b'0') as i64 * 10 + (ones - b'0') as i64);
    }
    None
}

/// Returns the rest after an optional fraction of a second; `None` if the fraction has no digits.
fn after_fraction(rest: &[u8]) -> Option<&[u8]> {
    let Some(fraction) = rest.strip_prefix(b".") else { return Some(rest) };
    let count = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 { None } else { fraction.get(count..) }
}

fn offset_minutes(zone: &[u8]) -> Option<i64> {
    match *zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(h1, h2)?, digits(m1, m2)?);
            let offset = hours * 60 + minutes;
            (hours <= 23 && minutes <= 59).then_some(if sign == b'-' { -offset } else { offset })
        }
        _ => None,
    }
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + is_leap(year) as i64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts days in the proleptic Gregorian calendar. Years begin in March, so that the leap day is the last of its year.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Counted from March, (153 m + 2) / 5 is the number of days before month m. There are 719,468 days between
    // 0000-03-01 and 1970-01-01.
    year * 365 + leaps + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// Formats an hour as in the counts table: `2015-08-04T12:00:00Z`.
#[must_use]
pub fn format(hour: i64) -> String {
    let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
    let time = jiff::Span::new().try_hours(hour).and_then(|span| epoch.checked_add(span));
    // Every hour that `parse` returns can be formatted; the fallback only avoids a panic.
    time.map_or_else(|_| hour.to_string(), |time| format!("{time}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};
    use proptest::prelude::*;

    const HOUR: i64 = 3600;

    /// Computes the same with chrono.
    fn reference(text: &str) -> Option<i64> {
        let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
        let hours = time.timestamp().div_euclid(HOUR);
        (FIRST..=LAST).contains(&hours).then_some(hours)
    }

    #[test]
    fn hour_of_a_timestamp_is_in_utc() {
        for (text, expected) in [
            ("2015-08-04T12:34:56.789Z", "2015-08-04T12:00:00Z"),
            ("2015-08-04t12:34:56z", "2015-08-04T12:00:00Z"),
            ("2015-08-04T12:34:56+05:30", "2015-08-04T07:00:00Z"),
            ("2015-08-04T00:10:00+00:11", "2015-08-03T23:00:00Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:00:00Z"),
            ("2016-02-29T23:59:59-00:01", "2016-03-01T00:00:00Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:00:00Z"),
            ("1969-12-31T23:59:59.999999999999Z", "1969-12-31T23:00:00Z"),
        ] {
            assert_eq!(parse(text).map(super::format).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn hour_of_an_invalid_timestamp_is_none() {
        for text in [
            "",
            "2015-08-04",
            "2015-08-04T12:34:56",
            "2015-02-29T00:00:00Z",
            "2015-13-01T00:00:00Z",
            "2015-08-04T24:00:00Z",
            "2015-08-04T12:60:00Z",
            "2015-08-04T12:00:61Z",
            "2015-08-04T12:34:56.Z",
            "2015-08-04T12:34:56+0530",
            "2015-08-04T12:34:56+24:00",
            "2015-08-04T12:34:56ZZ",
            "+2015-08-04T12:34:56Z",
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "２015-08-04T12:34:56Z",
            "2015-08-04T12:34:5６Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        // No character of a timestamp can be another one.
        let valid = "2015-08-04T12:34:56.7+05:30";
        assert!(parse(valid).is_some());
        for at in 0..valid.len() {
            let text = format!("{}x{}", &valid[..at], &valid[at + 1..]);
            assert_eq!(parse(&text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn hour_of_a_random_timestamp_matches_the_reference(
            y in 0..=9999_u32, mo in 0..=13_u32, d in 0..=32_u32, h in 0..=24_u32, m in 0..=60_u32, s in 0..=61_u32,
            separator in "[Tt ]", fraction in "(\\.[0-9]{0,12})?", zone in "[Zz]|[+-][0-2][0-9]:[0-6][0-9]|",
        ) {
            let text = format!("{y:04}-{mo:02}-{d:02}{separator}{h:02}:{m:02}:{s:02}{fraction}{zone}");
            prop_assert_eq!(parse(&text), reference(&text), "{}", text);
        }

        #[test]
        fn parse_of_random_text_never_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn formatted_hour_parses_back(hours in FIRST..=LAST) {
            prop_assert_eq!(parse(super::format(hours)), Some(hours));
        }

        #[test]
        fn formatted_hour_near_the_maximum_parses_back(hours in LAST - 100..=LAST) {
            prop_assert_eq!(parse(super::format(hours)), Some(hours));
        }
    }
}
