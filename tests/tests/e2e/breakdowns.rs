//! `rollup.by`: an event by the values of a field, exact through duplicates and recounts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use serde_json::{Value, json};
use tests::pipeline::{Pipeline, by_day};
use tests::recount::{self, Counts};
use tests::samples::gzip;

use crate::common::run_json;
use crate::strict_pipeline;

const EVENT: &str = "Order Completed";
const PLAN: &str = "properties.plan";
const VERSION: &str = "context.app.version";
const REVENUE: &str = "properties.revenue";
const FILES: usize = 8;
const MONTH: [&str; 6] = ["--from", "2015-08-01", "--to", "2015-09-01", "--by", "month"];

/// The messages and cents of each value.
type Expected = BTreeMap<String, (u64, i64)>;

fn add(expected: &mut Expected, value: &str, cents: i64) {
    let (count, sum) = expected.entry(value.to_owned()).or_default();
    *count += 1;
    *sum += cents;
}

/// Formats cents as a decimal number without zeros at the end.
fn dollars(cents: i64) -> String {
    let text = format!("{}.{:02}", cents / 100, cents % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Uploads files of orders with plans and versions, and returns the counts, and those by plan and by version.
async fn upload(pipeline: &Pipeline<'_>) -> Result<(Counts, Expected, Expected)> {
    // The field, if it is there, and the value under which it is counted.
    let plans = [
        (None, "(none)"),
        (Some(json!(null)), "(none)"),
        (Some(json!("")), "(none)"),
        (Some(json!(3)), "3"),
        (Some(json!({ "name": "pro" })), "(other)"),
        (Some(json!("free")), "free"),
        (Some(json!("pro")), "pro"),
        (Some(json!("pro#2")), "pro#2"),
        (Some(json!("<b>bold</b>")), "<b>bold</b>"),
        (Some(json!("Bücher")), "Bücher"),
    ];
    let versions = [None, Some("1.0.0"), Some("1.1.0"), Some("2.0.0")];
    let mut random = Rng::with_seed(17);
    let (mut counts, mut by_plan, mut by_version) = (Counts::new(), Expected::new(), Expected::new());
    for file in 0..FILES {
        let mut text = String::new();
        for n in 0..40 {
            let (plan, value) = &plans[random.usize(..plans.len())];
            let version = versions[random.usize(..versions.len())];
            let cents = random.i64(1..1_000_000);
            add(&mut by_plan, value, cents);
            add(&mut by_version, version.unwrap_or("(none)"), cents);
            let time = format!("2015-08-{:02}T{:02}:00:00Z", random.u8(1..29), random.u8(0..24));
            let mut message = json!({
                "type": "track", "event": EVENT, "timestamp": time, "messageId": format!("{file}-{n}"),
                "properties": { "revenue": dollars(cents) }, "context": {},
            });
            if let Some(plan) = plan {
                message["properties"]["plan"] = plan.clone();
            }
            if let Some(version) = version {
                message["context"]["app"] = json!({ "version": version });
            }
            text.push_str(&message.to_string());
            text.push('\n');
        }
        if file == 0 {
            let other = json!({
                "type": "track", "event": "Signed Up", "timestamp": "2015-08-04T12:00:00Z", "properties": { "plan": "team" },
            });
            text.push_str(&other.to_string());
            text.push('\n');
        }
        let bytes = gzip(text.as_bytes());
        recount::add(&mut counts, &bytes)?;
        pipeline.upload(&format!("segment-logs/x/1/{file}.gz"), &bytes).await?;
        // The same content under a second key counts once.
        pipeline.upload(&format!("segment-logs/copies/{file}.gz"), &bytes).await?;
    }
    Ok((counts, by_plan, by_version))
}

/// Returns the totals of `query --by-property` by value.
fn totals(found: &Value) -> Result<BTreeMap<String, Value>> {
    let values = found["values"].as_array().with_context(|| format!("no list in {found}"))?;
    values.iter().map(|one| Ok((one["value"].as_str().context("a value")?.to_owned(), one["total"].clone()))).collect()
}

/// Checks that the counts and the sums of each value are those expected.
fn ensure_exact(pipeline: &Pipeline<'_>, path: &str, expected: &Expected) -> Result<()> {
    let query =
        |more: &[&str]| run_json(pipeline, 0, &[&["query", EVENT, "--by-property", path], &MONTH[..], more].concat());
    let found = query(&[])?;
    ensure!(found["event"] == EVENT && found["property"] == path, "{found}");
    let wanted: BTreeMap<String, Value> =
        expected.iter().map(|(value, (count, _))| (value.clone(), json!(count))).collect();
    ensure!(totals(&found)? == wanted, "{found} is not {wanted:?}");
    let found = query(&["--sum", REVENUE])?;
    let wanted: BTreeMap<String, Value> =
        expected.iter().map(|(value, (_, cents))| (value.clone(), json!(dollars(*cents)))).collect();
    ensure!(totals(&found)? == wanted, "{found} is not {wanted:?}");
    Ok(())
}

#[tokio::test]
async fn values_of_a_month_equal_an_exact_recount() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let declare =
        |paths: &[&str]| pipeline.declare(&format!("[rollup]\nby = {}\nsum = {}", json!(paths), json!([REVENUE])));
    declare(&[PLAN])?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (counts, by_plan, by_version) = upload(&pipeline).await?;
    pipeline.wait_for_counts(&counts).await?;
    run_json(&pipeline, 0, &["backfill"])?;
    ensure_exact(&pipeline, PLAN, &by_plan)?;

    // The values add up to the event, also if some are taken together, and in each part.
    let whole = run_json(&pipeline, 0, &[&["query", EVENT], &MONTH[..]].concat())?["events"][0].clone();
    let few = run_json(&pipeline, 0, &[&["query", EVENT, "--by-property", PLAN, "-n", "2"], &MONTH[..]].concat())?;
    let few = totals(&few)?;
    ensure!(few.contains_key(&format!("({} more values)", by_plan.len() - 2)) && few.len() == 3, "{few:?}");
    ensure!(few.values().filter_map(Value::as_u64).sum::<u64>() == whole["total"], "{few:?} is not {whole}");
    let days = ["query", EVENT, "--from", "2015-08-01", "--to", "2015-09-01", "--by", "day", "--tz", "Asia/Tokyo"];
    let parts = |more: &[&str]| -> Result<Vec<u64>> {
        let found = run_json(&pipeline, 0, &[&days[..], more].concat())?;
        let series = found["values"].as_array().or(found["events"].as_array()).context("a list")?;
        let count = |n: usize| -> u64 { series.iter().filter_map(|one| one["counts"][n]["count"].as_u64()).sum() };
        Ok((0..31).map(count).collect())
    };
    ensure!(parts(&["--by-property", PLAN])? == parts(&[])?, "the days differ");

    // The ranking.
    let of = [&["top", "--of", EVENT, "--property", PLAN, "-n", "3"], &MONTH[..]].concat();
    let top = run_json(&pipeline, 0, &of)?;
    ensure!(top["of"] == EVENT && top["property"] == PLAN && top["distinct"] == by_plan.len(), "{top}");
    ensure!(top["total"] == whole["total"], "{top}");
    let mut ranked: Vec<(&String, u64)> = by_plan.iter().map(|(value, (count, _))| (value, *count)).collect();
    ranked.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let wanted: Vec<Value> = ranked.iter().take(3).map(|(value, count)| json!([value, count])).collect();
    let found = top["values"].as_array().context("a list")?.iter();
    let found: Vec<Value> = found.map(|one| json!([one["value"], one["count"]])).collect();
    ensure!(found == wanted, "{found:?} is not {wanted:?}");

    // The values are no events.
    let top = run_json(&pipeline, 0, &[&["top"], &MONTH[..]].concat())?;
    ensure!(top["distinct"] == 2 && top["events"][0]["event"] == EVENT, "{top}");
    let names = run_json(&pipeline, 0, &["events", "--all"])?;
    ensure!(names == json!([EVENT, "Signed Up"]), "{names}");

    pipeline.expect(0, &[&["dashboard", "--out", "plans.html", "--event", EVENT], &MONTH[..]].concat())?;
    let page = std::fs::read_to_string(pipeline.config().with_file_name("plans.html"))?;
    ensure!(page.contains(&format!("By <bdi>{PLAN}</bdi>")) && !page.contains("<b>bold"), "{page}");
    for (value, count) in ranked.iter().filter(|(value, _)| !value.starts_with('<')) {
        let row = page.split_once(&format!("<bdi class=\"name\">{value}</bdi></th>")).context("a row")?.1;
        let cell = row.split_once("<td class=\"right\">").and_then(|(_, rest)| rest.split_once('<'));
        ensure!(cell.context("a cell")?.0.replace(',', "") == count.to_string(), "{value} is not {count} in {page}");
    }

    // Another field, by which only a recount counts old files; a second one changes nothing.
    let other = [&["query", EVENT, "--by-property", VERSION], &MONTH[..]].concat();
    let note = pipeline.expect(0, &other)?;
    ensure!(note.err.contains(&format!("`{VERSION}` is not in rollup.by")), "{}", note.err);
    let refused = pipeline.expect(1, &["query", EVENT, "Signed Up", "--by-property", PLAN])?;
    ensure!(refused.err.contains("name one event"), "{}", refused.err);
    declare(&[PLAN, VERSION])?;
    pipeline.expect(0, &["apply", "--yes"])?;
    for _ in 0..2 {
        let tally = run_json(&pipeline, 0, &["backfill", "--recount"])?;
        ensure!(tally["counted"] == 2 * FILES, "{tally}");
        ensure_exact(&pipeline, PLAN, &by_plan)?;
        ensure_exact(&pipeline, VERSION, &by_version)?;
        ensure!(pipeline.counts().await? == counts && pipeline.daily().await? == by_day(&counts), "the counts differ");
    }
    Ok(())
}

#[tokio::test]
async fn breakdown_without_its_table_says_what_to_declare() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let refused = pipeline.expect(1, &["query", EVENT, "--by-property", PLAN])?;
    ensure!(refused.err.contains(&format!("declare `{PLAN}` in rollup.by")), "{}", refused.err);
    Ok(())
}
