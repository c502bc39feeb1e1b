//! `rollup.sum`: the sums of fields, exact to the last decimal, through duplicates, recounts and a change of the key.

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use serde_json::{Value, json};
use tests::pipeline::{Pipeline, by_day};
use tests::recount::{self, Counts};
use tests::samples::gzip;

use crate::common::run_json;
use crate::strict_pipeline;

const REVENUE: &str = "properties.revenue";
const QUANTITY: &str = "properties.cart.quantity";

/// Formats cents as a decimal number without zeros at the end.
fn dollars(cents: i64) -> String {
    let text = format!("{}.{:02}", cents / 100, cents % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What the test expects of one event.
#[derive(Default)]
struct Expected {
    cents: i64,
    values: i64,
    quantity: i64,
}

/// Uploads files of orders and refunds; some messages have no revenue, and some have one that is no number.
async fn upload(pipeline: &Pipeline<'_>) -> Result<(Counts, Expected)> {
    let mut random = Rng::with_seed(16);
    let (mut counts, mut expected) = (Counts::new(), Expected::default());
    for file in 0..12 {
        let mut text = String::new();
        for n in 0..40 {
            let cents = random.i64(1..1_000_000);
            let revenue = match n % 8 {
                0 => json!(null),
                1 => json!("free"),
                2 | 3 => json!(dollars(cents)),
                _ => serde_json::from_str(&dollars(cents))?,
            };
            if n % 8 > 1 {
                expected.cents += cents;
                expected.values += 1;
            }
            let quantity = random.i64(1..9);
            expected.quantity += quantity;
            let time = format!("2015-08-{:02}T{:02}:00:00Z", random.u8(1..29), random.u8(0..24));
            let properties = json!({ "revenue": revenue, "cart": { "quantity": quantity } });
            text.push_str(
                &json!({
                    "type": "track", "event": "Order Completed", "timestamp": time, "messageId": format!("{file}-{n}"),
                    "properties": properties,
                })
                .to_string(),
            );
            text.push('\n');
        }
        let bytes = gzip(text.as_bytes());
        recount::add(&mut counts, &bytes)?;
        pipeline.upload(&format!("segment-logs/x/1/{file}.gz"), &bytes).await?;
        // The same content under a second key counts once.
        pipeline.upload(&format!("segment-logs/copies/{file}.gz"), &bytes).await?;
    }
    let other = json!({ "type": "track", "event": "Signed Up", "timestamp": "2015-08-04T12:00:00Z" }).to_string();
    let bytes = gzip(other.as_bytes());
    recount::add(&mut counts, &bytes)?;
    pipeline.upload("segment-logs/x/1/other.gz", &bytes).await?;
    Ok((counts, expected))
}

#[tokio::test]
async fn revenue_of_a_month_equals_an_exact_recount() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let declare = |fields: &[&str]| pipeline.declare(&format!("[rollup]\nsum = {}", json!(fields)));
    declare(&[REVENUE])?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (counts, expected) = upload(&pipeline).await?;
    pipeline.wait_for_counts(&counts).await?;
    run_json(&pipeline, 0, &["backfill"])?;

    let month = ["--from", "2015-08-01", "--to", "2015-09-01"];
    let query = |event: &str, more: &[&str]| -> Result<Value> {
        Ok(run_json(&pipeline, 0, &[&["query", event], &month[..], more].concat())?["events"][0].clone())
    };
    let revenue = query("Order Completed", &["--sum", REVENUE, "--by", "day", "--tz", "Asia/Tokyo"])?;
    // The days of Tokyo begin earlier; all messages are within the hours of both months or the last day of July.
    ensure!(revenue["counts"].as_array().map(Vec::len) == Some(31), "{revenue}");
    let revenue = query("Order Completed", &["--sum", REVENUE, "--by", "month"])?;
    ensure!(revenue["total"] == dollars(expected.cents), "{revenue} is not {}", dollars(expected.cents));
    ensure!(revenue["counts"][0]["sum"] == revenue["total"], "{revenue}");
    let average = query("Order Completed", &["--sum", REVENUE, "--average"])?;
    let millionths = expected.cents * 10_000 / expected.values;
    let found: f64 = average["total"].as_str().context("a text")?.parse()?;
    ensure!((found * 1e6 - millionths as f64).abs() < 2.0, "{found} is not {millionths} millionths");
    let none = query("Signed Up", &["--sum", REVENUE])?;
    ensure!(none["total"] == "0", "{none}");
    let top = run_json(&pipeline, 0, &[&["top", "--by-sum", REVENUE], &month[..]].concat())?;
    ensure!(top["distinct"] == 1 && top["events"][0]["sum"] == dollars(expected.cents), "{top}");
    let csv = pipeline.expect(
        0,
        &[&["query", "Order Completed", "--sum", REVENUE, "--by", "month", "--format", "csv"], &month[..]].concat(),
    )?;
    ensure!(csv.out.contains(&format!(",{},", dollars(expected.cents))), "{}", csv.out);

    pipeline.expect(0, &[&["dashboard", "--out", "sums.html", "--sum", REVENUE], &month[..]].concat())?;
    let page = std::fs::read_to_string(pipeline.config().with_file_name("sums.html"))?;
    let total = page.split_once("id=\"total\">").and_then(|(_, rest)| rest.split_once('<')).context("a total")?.0;
    ensure!(total.replace(',', "") == dollars(expected.cents), "{total} is not {}", dollars(expected.cents));
    ensure!(page.contains(&format!("Sum of {REVENUE}")) && !page.contains("Signed Up"), "{page}");

    // Another field, which only a recount sums; the counts stay, and a second recount adds nothing.
    let note = pipeline.expect(0, &[&["query", "Order Completed", "--sum", QUANTITY], &month[..]].concat())?;
    ensure!(note.err.contains(&format!("`{QUANTITY}` is not in rollup.sum")), "{}", note.err);
    declare(&[REVENUE, QUANTITY])?;
    pipeline.expect(0, &["apply", "--yes"])?;
    for _ in 0..2 {
        let tally = run_json(&pipeline, 0, &["backfill", "--recount"])?;
        ensure!(tally["counted"] == 25, "{tally}");
        let quantity = query("Order Completed", &["--sum", QUANTITY])?;
        let wanted = json!(expected.quantity.to_string());
        ensure!(quantity["total"] == wanted, "{quantity} is not {wanted}");
        let revenue = query("Order Completed", &["--sum", REVENUE])?;
        ensure!(revenue["total"] == dollars(expected.cents), "{revenue}");
        ensure!(pipeline.counts().await? == counts && pipeline.daily().await? == by_day(&counts), "the counts differ");
    }
    Ok(())
}
