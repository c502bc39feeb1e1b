//! `provisioner query`, `top` and `events`: every number equals that of an independent recount of the files.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Duration, FixedOffset, SecondsFormat, TimeZone as _, Utc};
use fastrand::Rng;
use serde_json::{Value, json};
use tests::faults::proxy::Proxy;
use tests::pipeline::Pipeline;
use tests::recount::{self, Counts};
use tests::samples::gzip;

use crate::completions::offered;
use crate::{aws, pipeline};

/// A name with special meaning to a terminal, a spreadsheet and HTML. Its escape sequence has no end.
const HOSTILE_NAME: &str = "=cmd|'/c calc'!A1,\u{1b}]0;<script>alert(\"x\")</script>\u{202e}";

fn begin() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2015, 7, 5, 0, 0, 0).single().unwrap_or_default()
}

/// Deploys the pipeline and lets the function count thirty days of two hundred events, in files of twelve hours each.
/// Returns the recount.
pub(crate) async fn count_a_month(pipeline: &Pipeline<'_>) -> Result<Counts> {
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut rng = Rng::with_seed(30);
    let mut expected = Counts::new();
    for file in 0..60 {
        let mut text = String::new();
        for n in 0..400 {
            let event = match n {
                0 => HOSTILE_NAME.to_owned(),
                // As in real data, a few names make up most of the events.
                _ => format!("Event {:03}", rng.usize(0..199) * rng.usize(0..199) / 199),
            };
            let time = begin() + Duration::hours(12 * file) + Duration::seconds(rng.i64(0..12 * 3600));
            let time = time.to_rfc3339_opts(SecondsFormat::Millis, true);
            text.push_str(&json!({ "type": "track", "event": event, "timestamp": time }).to_string());
            text.push('\n');
        }
        let bytes = gzip(text.as_bytes());
        recount::add(&mut expected, &bytes)?;
        pipeline.upload(&format!("segment-logs/x/1/{file}.gz"), &bytes).await?;
    }
    pipeline.wait_for_counts(&expected).await?;
    Ok(expected)
}

fn sum(counts: &Counts, wanted: impl Fn(&str, DateTime<Utc>) -> bool) -> u64 {
    let hour = |text: &str| DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc)).unwrap_or_default();
    counts.iter().filter(|((event, time), _)| wanted(event, hour(time))).map(|(_, count)| count).sum()
}

#[tokio::test]
async fn query_and_top_equal_the_recount() -> Result<()> {
    let pipeline = pipeline()?;
    let expected = count_a_month(&pipeline).await?;
    let json = |args: &[&str]| -> Result<Value> {
        Ok(serde_json::from_str(&pipeline.expect(0, &[args, &["--format", "json"]].concat())?.out)?)
    };
    let tokyo = FixedOffset::east_opt(9 * 3600).context("a zone")?;

    // By day, in another time zone, several events in one CSV.
    let args = ["query", "Event 000", "Event 007", "--from", "2015-07-06", "--to", "2015-07-20"];
    let csv = pipeline.expect(0, &[&args[..], &["--by", "day", "--tz", "Asia/Tokyo", "--format", "csv"]].concat())?.out;
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    ensure!(rows.len() == 15 && rows[0] == ["start", "Event 000", "Event 007", "extent"], "{csv}");
    ensure!(rows[1][0] == "2015-07-06T00:00:00+09:00" && rows[1][3] == "whole", "{csv}");
    for (day, row) in rows[1..].iter().enumerate() {
        let date = chrono::NaiveDate::from_ymd_opt(2015, 7, 6).context("a day")? + Duration::days(day as i64);
        for (column, event) in ["Event 000", "Event 007"].into_iter().enumerate() {
            let wanted = sum(&expected, |e, time| e == event && time.with_timezone(&tokyo).date_naive() == date);
            ensure!(row[column + 1] == wanted.to_string(), "{date} {event}: {} is not {wanted}", row[column + 1]);
        }
    }

    // Compared with the previous period, in one command.
    let months =
        json(&["query", "Event 001", "--from", "2015-07-20", "--to", "2015-08-01", "--by", "week", "--compare"])?;
    let event = &months["events"][0];
    let between = |from: (i32, u32, u32), to: (i32, u32, u32)| {
        let at = |(y, m, d)| Utc.with_ymd_and_hms(y, m, d, 0, 0, 0).single().unwrap_or_default();
        sum(&expected, |e, time| e == "Event 001" && time >= at(from) && time < at(to))
    };
    ensure!(event["total"] == between((2015, 7, 20), (2015, 8, 1)), "{months}");
    // The same days of the two weeks before.
    ensure!(event["before"] == between((2015, 7, 6), (2015, 7, 18)), "{months}");
    ensure!(months["previous"]["hours"] == 12 * 24 && months["previous"]["instead_of"] == 12 * 24, "{months}");
    let weeks = event["counts"].as_array().context("counts")?;
    ensure!(
        weeks.len() == 2 && weeks.iter().filter_map(|w| w["count"].as_u64()).sum::<u64>() == event["total"],
        "{months}"
    );

    // By hour, with empty hours as 0, and with consistent reads.
    let hours =
        json(&["query", "Event 150", "--from", "2015-07-05", "--to", "2015-08-04", "--by", "hour", "--consistent"])?;
    let hours = hours["events"][0]["counts"].as_array().context("counts")?.clone();
    ensure!(hours.len() == 720 && hours.iter().any(|hour| hour["count"] == 0), "{} hours", hours.len());
    for hour in &hours {
        let start = hour["start"].as_str().context("a start")?.to_owned();
        let wanted = expected.get(&("Event 150".to_owned(), start)).copied().unwrap_or(0);
        ensure!(hour["count"] == wanted, "{hour}");
    }

    // All events by frequency, compared with the previous period.
    let top = json(&["top", "--from", "2015-07-20", "--to", "2015-08-03", "-n", "500"])?;
    let mut wanted: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for ((event, hour), count) in &expected {
        let day = DateTime::parse_from_rfc3339(hour)?.with_timezone(&Utc).date_naive();
        let days = (day - chrono::NaiveDate::from_ymd_opt(2015, 7, 20).context("a day")?).num_days();
        match days {
            0..14 => wanted.entry(event.clone()).or_default()[0] += count,
            -14..0 => wanted.entry(event.clone()).or_default()[1] += count,
            _ => {}
        }
    }
    let ranked = top["events"].as_array().context("events")?;
    for event in ranked {
        let [count, before] = wanted[event["event"].as_str().context("a name")?];
        ensure!(event["count"] == count && event["before"] == before, "{event} is not {count}, {before}");
    }
    let counts: Vec<u64> = ranked.iter().filter_map(|event| event["count"].as_u64()).collect();
    ensure!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
    ensure!(ranked.len() == wanted.values().filter(|[count, _]| *count > 0).count(), "{}", ranked.len());
    ensure!(top["total"] == wanted.values().map(|[count, _]| count).sum::<u64>(), "{}", top["total"]);
    ensure!(top["total_before"] == wanted.values().map(|[_, before]| before).sum::<u64>(), "{}", top["total_before"]);

    // In periods that begin and end within a UTC day.
    for (from, to, tz) in [
        ("2015-07-06T05:00:00Z", "2015-08-02T20:00:00Z", "UTC"),
        ("2015-07-06T05:00:00Z", "2015-07-06T20:00:00Z", "UTC"),
        ("2015-07-06", "2015-08-01", "Asia/Tokyo"),
        ("2014-08-01", "2015-08-01", "UTC"),
    ] {
        let top = json(&["top", "--from", from, "--to", to, "--tz", tz, "-n", "500"])?;
        let at = |time: &Value| DateTime::parse_from_rfc3339(time.as_str().unwrap_or_default());
        let (from, to) = (at(&top["from"])?, at(&top["to"])?);
        for event in top["events"].as_array().context("events")? {
            let wanted = sum(&expected, |name, time| event["event"] == name && time >= from && time < to);
            ensure!(event["count"] == wanted, "{event} is not {wanted} from {from} to {to}");
        }
        let wanted = sum(&expected, |_, time| time >= from && time < to);
        ensure!(top["total"] == wanted, "{} is not {wanted} from {from} to {to}", top["total"]);
    }

    // The number of files, from the ledger.
    let status = json(&["status"])?;
    ensure!(status["last_day"]["objects"] == 60 && status["last_hour"]["objects"] == 60, "{status}");
    let files = json(&["backfill", "--dry-run"])?;
    ensure!(files["listed"] == 60 && files["counted_before"] == 60 && files["due"] == 0, "{files}");

    // All event names.
    let names: BTreeSet<String> = serde_json::from_value(json(&["events"])?)?;
    ensure!(names == expected.keys().map(|(event, _)| event.clone()).collect(), "{names:?}");
    let offered = offered(&pipeline, &["query", "Event 00"])?;
    ensure!(offered.contains(&"Event 007".to_owned()), "{offered:?}");
    Ok(())
}

#[tokio::test]
async fn twelve_months_of_two_hundred_events_take_at_most_a_thousand_calls() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut rng = Rng::with_seed(12);
    let mut expected = Counts::new();
    let mut text = String::new();
    let now = Utc::now();
    for n in 0..2_000 {
        let time = now - Duration::seconds(rng.i64(0..800 * 24 * 3600));
        let time = time.to_rfc3339_opts(SecondsFormat::Millis, true);
        text.push_str(
            &json!({ "type": "track", "event": format!("Event {:03}", n % 200), "timestamp": time }).to_string(),
        );
        text.push('\n');
    }
    let bytes = gzip(text.as_bytes());
    recount::add(&mut expected, &bytes)?;
    pipeline.upload("segment-logs/x/1/year.gz", &bytes).await?;
    pipeline.wait_for_counts(&expected).await?;

    let proxy = Proxy::start(&aws()?.endpoint())?;
    let calls = |args: &[&str]| -> Result<usize> { Ok(proxy.run(pipeline.command(args)?, None)?.0) };
    let args = ["top", "--last", "12mo", "-n", "500", "--format", "json"];
    let of_two_years = calls(&args)?;
    // On the first day of a month, eleven months of it are past.
    ensure!((650..=1_000).contains(&of_two_years), "{of_two_years} calls");
    let top = pipeline.expect(0, &args)?.out;
    let top: Value = serde_json::from_str(&top)?;
    let at = |time: &Value| DateTime::parse_from_rfc3339(time.as_str().unwrap_or_default());
    let (from, to) = (at(&top["from"])?, at(&top["to"])?);
    let wanted = sum(&expected, |_, time| time >= from && time < to);
    ensure!(top["total"] == wanted, "{} is not {wanted} from {from} to {to}", top["total"]);
    for event in top["events"].as_array().context("events")? {
        let wanted = sum(&expected, |name, time| event["event"] == name && time >= from && time < to);
        ensure!(event["count"] == wanted, "{event} is not {wanted}");
    }

    let of_a_page = calls(&["dashboard", "--out", "year.html", "--last", "12mo"])?;
    ensure!((300..=500).contains(&of_a_page), "{of_a_page} calls");
    let page = std::fs::read_to_string(pipeline.config().with_file_name("year.html"))?;
    let total = page.split_once("id=\"total\"").and_then(|(_, rest)| rest.split_once('>')).context("a total")?.1;
    let total = total.split('<').next().unwrap_or_default().replace(',', "");
    ensure!(total == wanted.to_string(), "{total} is not {wanted}");

    // The names of the last days need no scan, and all names one of the daily table.
    let since = now - Duration::days(28);
    for (args, scans) in [(&["events", "--format", "json"][..], 0), (&["events", "--all", "--format", "json"], 4)] {
        let started = SystemTime::now();
        let names: BTreeSet<String> = serde_json::from_str(&pipeline.expect(0, args)?.out)?;
        let wanted = expected.keys().filter(|(_, time)| scans > 0 || **time >= *since.to_rfc3339());
        ensure!(wanted.clone().count() > 0 && wanted.clone().all(|(event, _)| names.contains(event)), "{names:?}");
        let scanned = pipeline.calls(started)?.iter().filter(|call| call.name.ends_with("Scan")).count();
        ensure!(scanned == scans, "{scanned} scans for {args:?}");
    }
    Ok(())
}

#[tokio::test]
async fn query_of_unknown_event_suggests_names_and_hostile_names_are_escaped() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    let now = Utc::now();
    let events = ["Order Completed", "Order Cancelled", "Signed Up", HOSTILE_NAME];
    let lines: String = events
        .iter()
        .map(|event| json!({ "type": "track", "event": event, "timestamp": now.to_rfc3339() }).to_string() + "\n")
        .collect();
    let bytes = gzip(lines.as_bytes());
    recount::add(&mut expected, &bytes)?;
    pipeline.upload("segment-logs/x/1/a.gz", &bytes).await?;
    pipeline.wait_for_counts(&expected).await?;

    let run = pipeline.expect(1, &["query", "order completd"])?;
    ensure!(run.err.contains("event `order completd` was never counted"), "{}", run.err);
    ensure!(run.err.contains("did you mean `Order Completed` or `Order Cancelled`"), "{}", run.err);
    // An event without counts in the period is not an error.
    let none =
        pipeline.expect(0, &["query", "Signed Up", "--from", "2015-01-01", "--to", "2015-01-03", "--by", "day"])?;
    ensure!(none.out.matches("│     0 ┆").count() + none.out.matches(" 0 ").count() > 0, "{}", none.out);

    for format in ["table", "csv", "tsv"] {
        for command in [vec!["events"], vec!["top", "--last", "2d"], vec!["query", HOSTILE_NAME, "--last", "2d"]] {
            let out = pipeline.expect(0, &[&command[..], &["--format", format]].concat())?.out;
            ensure!(!out.contains('\u{1b}'), "{format} {command:?}: {out:?}");
            let formula = out.lines().flat_map(|line| line.split(['\t', ','])).any(|field| field.starts_with('='));
            ensure!(format == "table" || !formula, "{format} {command:?}: {out:?}");
        }
    }
    // A name that looks like the start of an escape sequence hides nothing behind it, and JSON has it exactly.
    let names: BTreeSet<String> = serde_json::from_str(&pipeline.expect(0, &["events", "--format", "json"])?.out)?;
    ensure!(names == events.iter().map(|event| (*event).to_owned()).collect(), "{names:?}");
    // An event that is named twice is one column.
    let twice = ["query", "Signed Up", "Signed Up", "--last", "2d", "--format", "csv"];
    let csv = pipeline.expect(0, &twice)?.out;
    ensure!(csv.lines().next() == Some("start,Signed Up,extent"), "{csv}");
    ensure!(csv.lines().last().is_some_and(|line| line.ends_with(",so_far")), "{csv}");
    let zones = pipeline.expect(1, &["top", "--tz", "Mars/Olympus"])?;
    ensure!(
        zones.err.contains("--tz Mars/Olympus cannot be used") && zones.err.contains("Europe/Berlin"),
        "{}",
        zones.err
    );
    Ok(())
}

#[tokio::test]
async fn sums_of_adjacent_days_are_the_sum_of_both_in_a_zone_of_half_hours() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    // One message in each hour of five days.
    let line = |hour: i64| {
        let time = Utc.with_ymd_and_hms(2015, 7, 30, 0, 0, 0).single().unwrap_or_default() + Duration::hours(hour);
        json!({ "type": "track", "event": "Tick", "timestamp": time.to_rfc3339() }).to_string() + "\n"
    };
    let bytes = gzip((0..120).map(line).collect::<String>().as_bytes());
    recount::add(&mut expected, &bytes)?;
    pipeline.upload("segment-logs/x/1/a.gz", &bytes).await?;
    pipeline.wait_for_counts(&expected).await?;
    let query = |from: &str, to: &str| -> Result<(Value, String)> {
        let args =
            ["query", "Tick", "--tz", "Asia/Kolkata", "--format", "json", "--from", from, "--to", to, "--by", "day"];
        let run = pipeline.expect(0, &args)?;
        Ok((serde_json::from_str(&run.out)?, run.err))
    };
    let (first, note) = query("2015-07-31", "2015-08-01")?;
    let (second, _) = query("2015-08-01", "2015-08-02")?;
    let (both, _) = query("2015-07-31", "2015-08-02")?;
    ensure!(first["events"][0]["total"] == 24 && second["events"][0]["total"] == 24, "{first} {second}");
    ensure!(both["events"][0]["total"] == 48 && both["divides_hours"] == true, "{both}");
    ensure!(note.contains("belongs to the day in which it begins"), "{note}");
    let start = &both["events"][0]["counts"][1]["start"];
    ensure!(start == "2015-08-01T00:00:00+05:30", "{both}");
    // A month has no sliver of the month before.
    let month =
        ["query", "Tick", "--tz", "Asia/Kolkata", "--from", "2015-08-01", "--to", "2015-09-01", "--by", "month"];
    let csv = pipeline.expect(0, &[&month[..], &["--format", "csv"]].concat())?.out;
    ensure!(csv == "start,Tick,extent\n2015-08-01T00:00:00+05:30,77,whole\n", "{csv}");
    Ok(())
}

#[tokio::test]
async fn tables_fit_the_terminal() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let events =
        ["Order Completed", "Subscription Renewal Reminder Sent by Mail", "注文が完了しましたのでお知らせします", "🎉"];
    let now = Utc::now().to_rfc3339();
    let line = |event: &str| json!({ "type": "track", "event": event, "timestamp": now }).to_string() + "\n";
    let (bytes, mut expected) = (gzip(events.map(line).concat().as_bytes()), Counts::new());
    recount::add(&mut expected, &bytes)?;
    pipeline.upload("segment-logs/x/1/a.gz", &bytes).await?;
    pipeline.wait_for_counts(&expected).await?;
    for width in [50, 80, 200] {
        let columns = width.to_string();
        let query = [&["query"][..], &events, &["--last", "3h"]].concat();
        for args in [&["top", "--last", "2h"][..], &query, &[&query[..], &["--compare"]].concat()] {
            let output = pipeline.command(args)?.env("COLUMNS", &columns).output()?;
            let out = String::from_utf8(output.stdout)?;
            let wide = out.lines().find(|line| unicode_width::UnicodeWidthStr::width(*line) > width);
            ensure!(wide.is_none(), "{width}: {wide:?}\n{out}");
            let rows = out.lines().filter(|line| line.starts_with('│')).count();
            ensure!(args[0] != "top" || rows == 2 + events.len(), "{width}: {out}");
        }
    }
    Ok(())
}
