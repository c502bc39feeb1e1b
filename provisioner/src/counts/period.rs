//! A period of time, divided into the parts for which counts are shown.
//!
//! Counts are stored by UTC hour, so a period consists of whole UTC hours. Days, weeks and months are those of a time
//! zone; if its offset from UTC is not a whole number of hours, an hour belongs to the part in which it begins.

use clap::ValueEnum;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Unit, Zoned, ZonedRound};

use crate::error::Error;

/// Seconds in an hour.
const HOUR: i64 = 3600;
/// The maximum number of parts: more than ten years of hours, which no output needs.
const MAX_PARTS: usize = 100_000;

/// The period of a query. Its first and last hours are included whole.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PeriodArgs {
    /// Period up to now: 90m, 24h, 7d, 12mo [default: 24h]
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["from", "to"])]
    pub(crate) last: Option<String>,
    /// Start: 2015-08-04, 2015-08-04T12:00:00Z, today, yesterday
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// End, exclusive [default: now]
    #[arg(long, value_name = "TIME", requires = "from")]
    pub(crate) to: Option<String>,
    /// Length of the parts [default: hour]
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

/// Whole UTC hours, divided into parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Period {
    zone: TimeZone,
    by: By,
    /// The start of each part, and the end of the last one.
    cuts: Vec<Timestamp>,
    /// True if it includes the present; the last part is then incomplete.
    is_running: bool,
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

    fn span(self) -> Span {
        match self {
            Self::Hour => 1.hour(),
            Self::Day => 1.day(),
            Self::Week => 1.week(),
            Self::Month => 1.month(),
        }
    }

    /// Returns the start of the part that contains a time.
    fn floor(self, time: &Zoned) -> Option<Zoned> {
        match self {
            // Counts are stored by UTC hour.
            Self::Hour => {
                let hour = Timestamp::from_second(time.timestamp().as_second().div_euclid(HOUR) * HOUR).ok()?;
                Some(hour.to_zoned(time.time_zone().clone()))
            }
            Self::Day => time.round(ZonedRound::new().smallest(Unit::Day).mode(jiff::RoundMode::Floor)).ok(),
            Self::Week => {
                let day = Self::Day.floor(time)?;
                let back = i64::from(day.weekday().to_monday_zero_offset());
                Self::Day.floor(&day.checked_sub(back.days()).ok()?)
            }
            Self::Month => Self::Day.floor(&time.first_of_month().ok()?),
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
        let now = now.to_zoned(zone(args.tz.as_deref())?);
        let (from, to) = match &args.from {
            Some(from) => {
                let to = args.to.as_ref().map_or(Ok(now.clone()), |to| time("--to", to, &now))?;
                (time("--from", from, &now)?, to)
            }
            None => last(args.last.as_deref().unwrap_or("24h"), args.by.unwrap_or(By::Hour), &now)?,
        };
        let mut period = Self::new(&from, &to, args.by.unwrap_or(By::Hour))?;
        period.is_running = period.first() <= now.timestamp() && now.timestamp() < period.end();
        Ok(period)
    }

    /// Creates the period of all hours that overlap the time from `from` to before `to`.
    fn new(from: &Zoned, to: &Zoned, by: By) -> Result<Self, Error> {
        if from >= to {
            let help = format!(
                "choose a start before the end: the period begins at {} and ends at {}",
                from.timestamp(),
                to.timestamp()
            );
            return Err(unusable("the period", &help));
        }
        let out_of_range = || unusable("the period", "choose times within the years 1 to 9998");
        let first = By::Hour.floor(from).ok_or_else(out_of_range)?;
        let begun = By::Hour.floor(to).ok_or_else(out_of_range)?;
        let end = if begun == *to { begun } else { begun.checked_add(1.hour()).map_err(|_| out_of_range())? };
        let mut cuts = vec![first.timestamp()];
        let mut next = by.floor(&first).ok_or_else(out_of_range)?;
        loop {
            next = next.checked_add(by.span()).map_err(|_| out_of_range())?;
            if next >= end {
                break;
            }
            // If the zone's offset is not a whole number of hours, an hour belongs to the part in which it begins.
            let hour = (next.timestamp().as_second() + HOUR - 1).div_euclid(HOUR) * HOUR;
            let hour = Timestamp::from_second(hour).map_err(|_| out_of_range())?;
            if hour >= end.timestamp() {
                break;
            }
            cuts.push(hour);
            if cuts.len() > MAX_PARTS {
                return Err(unusable("the period", "pass --by day, week or month: it has too many parts"));
            }
        }
        cuts.push(end.timestamp());
        Ok(Self { zone: from.time_zone().clone(), by, cuts, is_running: false })
    }

    /// Returns the previous period of the same length, measured in calendar months or days if this one consists of
    /// whole ones.
    ///
    /// # Errors
    /// It would begin before the year 1.
    pub(crate) fn before(&self) -> Result<Self, Error> {
        let out_of_range =
            || unusable("--compare", "choose a later period: the previous one would begin before the year 1");
        let (from, to) = (self.zoned(self.first()), self.zoned(self.end()));
        let midnight = |time: &Zoned| By::Day.floor(time).as_ref() == Some(time);
        let whole = midnight(&from) && midnight(&to);
        let unit = if whole && from.day() == 1 && to.day() == 1 {
            Unit::Month
        } else if whole {
            Unit::Day
        } else {
            Unit::Hour
        };
        let length = from.until((unit, &to)).map_err(|_| out_of_range())?;
        let earlier = from.checked_sub(length).map_err(|_| out_of_range())?;
        let mut before = Self::new(&earlier, &from, self.by)?;
        if !whole {
            // The parts correspond one to one: the cuts of this period, shifted by its length.
            let back = self.first().duration_since(before.first());
            let cuts: Result<Vec<Timestamp>, _> = self.cuts.iter().map(|cut| cut.checked_sub(back)).collect();
            before.cuts = cuts.map_err(|_| out_of_range())?;
        }
        Ok(before)
    }

    fn zoned(&self, time: Timestamp) -> Zoned {
        time.to_zoned(self.zone.clone())
    }

    fn first(&self) -> Timestamp {
        self.cuts.first().copied().unwrap_or(Timestamp::MIN)
    }

    fn end(&self) -> Timestamp {
        self.cuts.last().copied().unwrap_or(Timestamp::MIN)
    }

    /// Returns the first hour, in the format of the counts table.
    pub(crate) fn from(&self) -> String {
        self.first().to_string()
    }

    /// Returns the hour after the last one.
    pub(crate) fn to(&self) -> String {
        self.end().to_string()
    }

    /// Returns the last hour.
    pub(crate) fn last(&self) -> String {
        self.end().checked_sub(1.hour()).unwrap_or(self.end()).to_string()
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
        let (first, end) = (self.first().as_second(), self.end().as_second());
        (first..end).step_by(3600).filter_map(|second| Some(Timestamp::from_second(second).ok()?.to_string()))
    }

    /// Returns the number of parts.
    pub(crate) fn len(&self) -> usize {
        self.cuts.len().saturating_sub(1)
    }

    /// Returns the part that contains an hour of the counts table.
    pub(crate) fn part_of(&self, hour: &str) -> Option<usize> {
        let hour: Timestamp = hour.parse().ok()?;
        let after = self.cuts.partition_point(|cut| *cut <= hour);
        (after > 0 && after < self.cuts.len()).then(|| after - 1)
    }

    /// Returns the machine-readable start of a part.
    pub(crate) fn start_of(&self, part: usize) -> String {
        self.cuts.get(part).map(ToString::to_string).unwrap_or_default()
    }

    /// Returns the human-readable label of a part.
    pub(crate) fn label(&self, part: usize) -> String {
        let Some(start) = self.cuts.get(part) else { return String::new() };
        let start = self.zoned(*start);
        let format = match self.by {
            By::Hour => "%Y-%m-%d %H:%M",
            By::Day => "%Y-%m-%d %a",
            By::Week => "%G-W%V",
            By::Month => "%Y-%m",
        };
        start.strftime(format).to_string()
    }

    /// Returns the short label of a part, for the axis of a chart.
    pub(crate) fn tick(&self, part: usize) -> String {
        let Some(start) = self.cuts.get(part) else { return String::new() };
        let format = match self.by {
            By::Hour => "%b %-d %H:%M",
            By::Day => "%b %-d",
            By::Week => "%G-W%V",
            By::Month => "%b %Y",
        };
        self.zoned(*start).strftime(format).to_string()
    }

    /// Returns whether the part is the last one and incomplete, for example because it includes the present.
    pub(crate) fn is_cut_short(&self, part: usize) -> bool {
        let whole = |start: &Timestamp| self.by.floor(&self.zoned(*start))?.checked_add(self.by.span()).ok();
        let is_cut = || self.cuts.get(part).and_then(whole).is_some_and(|end| end.timestamp() > self.end());
        part + 1 == self.len() && (self.is_running || is_cut())
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

/// Parses the span of `--last`, which ends now. A span of less than two hours includes all hours that it overlaps. A
/// longer one has exactly the requested number of parts, including the current one: `24h` is the last 24 hours,
/// without a partial 25th, and `7d` by day is seven days including today. The parts are those of the span's unit or
/// of `by`, whichever is finer.
fn last(text: &str, by: By, now: &Zoned) -> Result<(Zoned, Zoned), Error> {
    let help = "pass a span such as 90m, 24h, 7d or 12mo";
    let invalid = || unusable(&format!("--last {}", text.escape_debug()), help);
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
    let part = by.min(unit);
    // The elapsed part of the current hour may cover almost nothing of a short span.
    let is_short = span.total((Unit::Hour, now)).is_ok_and(|hours| hours < 2.0);
    let start = part.floor(&begin).ok_or_else(invalid)?;
    let from = match start == begin || is_short {
        true => start,
        false => part.floor(&start.checked_add(part.span()).map_err(|_| invalid())?).ok_or_else(invalid)?,
    };
    Ok((from, now.checked_add(1.nanosecond()).unwrap_or(now.clone())))
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

    fn bounds(last: &str, by: By) -> (String, String, usize) {
        let period = period(Some(last), None, None, by, "UTC").expect("a period");
        (period.from(), period.to(), period.len())
    }

    fn expected(from: &str, to: &str, parts: usize) -> (String, String, usize) {
        (from.to_owned(), to.to_owned(), parts)
    }

    #[test]
    fn long_span_has_the_requested_number_of_parts_including_the_current_one() {
        assert_eq!(bounds("24h", By::Hour), expected("2015-08-03T13:00:00Z", "2015-08-04T13:00:00Z", 24));
        assert_eq!(bounds("1h", By::Hour), expected("2015-08-04T11:00:00Z", "2015-08-04T13:00:00Z", 2));
        assert_eq!(bounds("2h", By::Hour), expected("2015-08-04T11:00:00Z", "2015-08-04T13:00:00Z", 2));
        assert_eq!(bounds("3h", By::Hour), expected("2015-08-04T10:00:00Z", "2015-08-04T13:00:00Z", 3));
        assert_eq!(bounds("7d", By::Day), expected("2015-07-29T00:00:00Z", "2015-08-04T13:00:00Z", 7));
        assert_eq!(bounds("7d", By::Hour), expected("2015-07-28T13:00:00Z", "2015-08-04T13:00:00Z", 168));
        assert_eq!(bounds("2w", By::Week), expected("2015-07-27T00:00:00Z", "2015-08-04T13:00:00Z", 2));
        assert_eq!(bounds("12mo", By::Month), expected("2014-09-01T00:00:00Z", "2015-08-04T13:00:00Z", 12));
        assert_eq!(bounds("1y", By::Month).2, 12);
        assert_eq!(bounds("24h", By::Day), expected("2015-08-03T13:00:00Z", "2015-08-04T13:00:00Z", 2));
    }

    #[test]
    fn short_span_includes_all_overlapping_hours() {
        assert_eq!(bounds("60m", By::Hour), bounds("1h", By::Hour));
        assert_eq!(bounds("90m", By::Hour), expected("2015-08-04T11:00:00Z", "2015-08-04T13:00:00Z", 2));
        assert_eq!(bounds("40m", By::Hour), expected("2015-08-04T11:00:00Z", "2015-08-04T13:00:00Z", 2));
    }

    #[test]
    fn dates_and_words_are_read_in_the_zone_with_an_exclusive_end() {
        let of = |from, to, tz| {
            let period = period(None, Some(from), Some(to), By::Day, tz).expect("a period");
            (period.from(), period.to(), period.len())
        };
        assert_eq!(of("2015-08-03", "2015-08-04", "UTC"), expected("2015-08-03T00:00:00Z", "2015-08-04T00:00:00Z", 1));
        assert_eq!(of("yesterday", "today", "UTC"), expected("2015-08-03T00:00:00Z", "2015-08-04T00:00:00Z", 1));
        assert_eq!(
            of("2015-08-03", "2015-08-04", "Europe/Berlin"),
            expected("2015-08-02T22:00:00Z", "2015-08-03T22:00:00Z", 1)
        );
        assert_eq!(
            of("2015-08-03T02:00:00+02:00", "2015-08-03T00:00:01Z", "UTC"),
            expected("2015-08-03T00:00:00Z", "2015-08-03T01:00:00Z", 1)
        );
    }

    #[test]
    fn day_of_the_clock_change_has_23_hours() {
        let period = period(None, Some("2015-03-28"), Some("2015-03-31"), By::Day, "Europe/Berlin").expect("a period");
        assert_eq!(period.len(), 3);
        assert_eq!(period.hours().count(), 24 + 23 + 24);
        assert_eq!(period.part_of("2015-03-28T22:00:00Z"), Some(0));
        assert_eq!(period.part_of("2015-03-28T23:00:00Z"), Some(1));
        assert_eq!(period.label(1), "2015-03-29 Sun");
    }

    #[test]
    fn every_hour_belongs_to_one_part_in_every_zone() {
        for zone in ["UTC", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe", "Europe/Berlin"] {
            for by in [By::Hour, By::Day, By::Week, By::Month] {
                let period = period(None, Some("2015-03-20"), Some("2015-05-03"), by, zone).expect("a period");
                let parts: Vec<usize> = period.hours().map(|hour| period.part_of(&hour).expect("a part")).collect();
                assert!(parts.windows(2).all(|pair| pair[0] == pair[1] || pair[0] + 1 == pair[1]), "{zone} {by:?}");
                assert_eq!((parts.first(), parts.last()), (Some(&0), Some(&(period.len() - 1))), "{zone} {by:?}");
            }
        }
    }

    #[test]
    fn previous_period_of_whole_days_has_the_same_calendar_length() {
        let before = |from, to, by| {
            let before = period(None, Some(from), Some(to), by, "UTC").expect("a period").before().expect("a period");
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
    }

    #[test]
    fn previous_period_has_parts_of_the_same_length() {
        let seven = period(Some("7d"), None, None, By::Day, "UTC").expect("a period");
        let before = seven.before().expect("a period");
        assert_eq!((seven.len(), before.len()), (7, 7));
        assert_eq!(
            (before.start_of(0).as_str(), before.start_of(1).as_str()),
            ("2015-07-22T11:00:00Z", "2015-07-23T11:00:00Z")
        );
        assert_eq!(before.to(), seven.from());
        assert_eq!(before.hours().count(), seven.hours().count());
        // A month may have more days than the next one.
        let february = period(None, Some("2015-02-01"), Some("2015-03-01"), By::Day, "UTC").expect("a period");
        assert_eq!((february.len(), february.before().expect("a period").len()), (28, 31));
    }

    #[test]
    fn part_that_includes_the_present_is_cut_short() {
        let of = |last: &str, by| period(Some(last), None, None, by, "UTC").expect("a period");
        for (last, by) in [("1h", By::Hour), ("24h", By::Hour), ("7d", By::Day), ("12mo", By::Month)] {
            let period = of(last, by);
            assert!(period.is_cut_short(period.len() - 1) && (period.len() == 1 || !period.is_cut_short(0)), "{last}");
        }
        let past = |from, to, by| period(None, Some(from), Some(to), by, "UTC").expect("a period");
        let day = past("2015-08-03", "2015-08-04", By::Hour);
        assert!(!day.is_cut_short(day.len() - 1));
        let week = past("2015-07-20", "2015-07-22", By::Week);
        assert!(week.is_cut_short(0), "two days of a week");
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
