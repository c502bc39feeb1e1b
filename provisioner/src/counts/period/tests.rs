//! Tests of periods: by example, and in every zone of the database.

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

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// Returns the start of every hour of some spans.
fn hours(spans: impl Iterator<Item = Span>) -> Vec<Timestamp> {
    let each = |span: Span| (0..if span.is_day { 24 } else { 1 }).map(move |n| span.start.checked_add(n.hours()));
    spans.flat_map(each).collect::<Result<_, _>>().expect("times")
}

fn labels(period: &Period) -> Vec<String> {
    (0..period.len()).map(|part| period.label(part)).collect()
}

#[test]
fn span_is_a_day_only_if_the_period_has_all_of_it() {
    let keys = |spans: &mut dyn Iterator<Item = Span>| spans.map(Span::key).collect::<Vec<_>>();
    let around = of("2015-08-01T22:00:00Z", "2015-08-04T02:00:00Z", By::Month, "UTC");
    let expected = [
        "2015-08-01T22:00:00Z",
        "2015-08-01T23:00:00Z",
        "2015-08-02",
        "2015-08-03",
        "2015-08-04T00:00:00Z",
        "2015-08-04T01:00:00Z",
    ];
    assert_eq!(keys(&mut around.spans()), expected);
    assert_eq!(keys(&mut around.spans_by_part()), expected);
    // A day of a zone is not one of UTC.
    let tokyo = of("2015-08-01", "2015-08-03", By::Day, "Asia/Tokyo");
    assert_eq!(keys(&mut tokyo.spans()).iter().filter(|key| *key == "2015-08-01").count(), 1);
    assert!(tokyo.spans_by_part().count() == 48 && tokyo.spans_by_part().all(|span| !span.is_day));
    // A whole year, and the hours of today.
    let year = period(Some("12mo"), None, None, By::Month, "UTC").expect("a period");
    assert_eq!((year.spans().count(), year.spans_by_part().count()), (337 + 13, 337 + 13));
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
        (period.first_hour(), period.last_hour(), period.len())
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
    assert_eq!(period.hour_count(), 24 + 23 + 24);
    assert_eq!(period.part_of(at("2015-03-28T22:00:00Z")), Some(0));
    assert_eq!(period.part_of(at("2015-03-28T23:00:00Z")), Some(1));
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
    assert_eq!(
        (days.part_of(at("2015-08-01T18:00:00Z")), days.part_of(at("2015-08-01T19:00:00Z"))),
        (Some(0), Some(1))
    );
    assert_eq!((days.part_of(at("2015-07-31T18:00:00Z")), days.part_of(at("2015-08-02T19:00:00Z"))), (None, None));
    assert!(!of("2015-08-01", "2015-09-01", By::Month, "Europe/Berlin").divides_hours());
    // Hours are those of UTC, in every zone.
    assert_eq!(of("2015-08-01", "2015-08-02", By::Hour, "Asia/Kolkata").label(0), "2015-08-01 00:30");
    assert!(period(None, Some("2015-08-04T12:10:00Z"), Some("2015-08-04T12:50:00Z"), By::Hour, "UTC").is_err());
}

/// The instants between 1970 and 2040 at which the clocks of a zone change.
fn transitions(zone: &TimeZone) -> Vec<Timestamp> {
    let years = |year: i16| jiff::civil::date(year, 1, 1).to_zoned_datetime(TimeZone::UTC).expect("a time").timestamp();
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
            let (now, at) = (at, at.to_zoned_datetime(zone.clone()));
            let (from, to) = (at.checked_sub(50.hours()).expect("a time"), at.checked_add(50.hours()).expect("a time"));
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
            let time = Timestamp::from_second(second).expect("a time").to_zoned_datetime(zone.clone());
            if at_dates { By::Day.floor(&time).expect("a day") } else { time }
        };
        let [a, b, c] = [start, start + first, start + first + second].map(time);
        let of = |from: &ZonedDateTime, to: &ZonedDateTime| Period::new(from, to, by, By::Hour, Timestamp::UNIX_EPOCH);
        let all = |period: Result<Period, Error>| {
            period.map(|period| { assert_partition(&period); hours(period.spans()) }).unwrap_or_default()
        };
        let both = [all(of(&a, &b)), all(of(&b, &c))].concat();
        proptest::prop_assert_eq!(&both, &all(of(&a, &c)));
        let Ok(period) = of(&a, &c) else { return Ok(()) };
        proptest::prop_assert_eq!(&both, &hours(period.spans_by_part()));
        for hour in both.iter().step_by(7) {
            let part = period.part_of(*hour).and_then(|part| period.parts.get(part)).expect("a part");
            proptest::prop_assert!(part.bounds.0 <= *hour && *hour < part.bounds.1);
        }
        for span in period.spans_by_part() {
            let ends = hours(std::iter::once(span));
            let parts = [ends.first(), ends.last()].map(|hour| period.part_of(*hour.expect("an hour")));
            proptest::prop_assert!(parts[0].is_some() && parts[0] == parts[1]);
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
            let time = Timestamp::from_second(second).expect("a time").to_zoned_datetime(zone.clone());
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
        assert_eq!((before.from().as_str(), before.to().as_str()), ("2015-07-22T00:00:00Z", "2015-07-28T13:00:00Z"));
        assert_eq!((before.hour_count(), before.len()), (seven.hour_count(), seven.len()));
    }
    let year = period(Some("12mo"), None, None, By::Month, "UTC").expect("a period");
    assert_eq!(year.before().expect("a period").to(), "2014-08-04T13:00:00Z");
    let hours = period(Some("24h"), None, None, By::Hour, "UTC").expect("a period");
    assert_eq!(hours.before().expect("a period").to(), hours.from());
}

#[test]
fn extent_tells_whole_cut_current_and_future_parts_apart() {
    let extents =
        |period: Period| -> Vec<&'static str> { (0..period.len()).map(|part| period.extent(part).name()).collect() };
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

#[test]
fn ranges_divide_the_hours_without_a_gap() {
    let period = of("2015-08-01", "2015-08-03T01:00:00Z", By::Day, "UTC");
    let ranges = |hours| period.ranges(hours).into_iter().map(|(first, last)| format!("{first} {last}")).collect();
    let all: Vec<String> = ranges(24);
    assert_eq!(
        all,
        [
            "2015-08-01T00:00:00Z 2015-08-01T23:00:00Z",
            "2015-08-02T00:00:00Z 2015-08-02T23:00:00Z",
            "2015-08-03T00:00:00Z 2015-08-03T00:00:00Z",
        ]
    );
    let all: Vec<String> = ranges(1_000);
    assert_eq!(all, ["2015-08-01T00:00:00Z 2015-08-03T00:00:00Z"]);
}
