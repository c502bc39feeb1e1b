//! Files go in, counts come out, by S3's notification alone.

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use tests::recount::{self, Counts};
use tests::samples::{self, gzip};

use crate::pipeline;

#[tokio::test]
async fn uploaded_files_are_counted_and_can_be_asked_for() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    for sample in samples::make(1, Utc::now(), 5, 200) {
        recount::add(&mut expected, &sample.bytes)?;
        pipeline.upload(&sample.key, &sample.bytes).await?;
    }
    pipeline.counted(&expected).await?;

    // A day's width more than needed: the hour may have turned since.
    let top: Value = serde_json::from_str(&pipeline.expect(0, &["top", "--last", "1d", "--format", "json"])?.out)?;
    ensure!(top["total"].as_u64() == Some(expected.values().sum()), "{top}");
    let event = "Clicked \"Buy now\"";
    let query: Value =
        serde_json::from_str(&pipeline.expect(0, &["query", event, "--last", "1d", "--format", "json"])?.out)?;
    let hours = query["events"][0]["counts"].as_array().context("counts")?;
    ensure!(hours.len() == 24, "empty hours are shown: {query}");
    let there: Counts = hours
        .iter()
        .filter(|part| part["count"] != 0)
        .map(|part| Some(((event.to_owned(), part["start"].as_str()?.to_owned()), part["count"].as_u64()?)))
        .collect::<Option<_>>()
        .context("a count")?;
    let wanted: Counts = expected.iter().filter(|((name, _), _)| name == event).map(|(k, v)| (k.clone(), *v)).collect();
    ensure!(!wanted.is_empty() && there == wanted, "{query}\n{wanted:?}");

    let table = pipeline.expect(0, &["top", "-n", "1"])?.out;
    ensure!(table.contains("1 of 8 events") && table.contains("Order Completed"), "{table}");
    Ok(())
}

#[tokio::test]
async fn keys_with_any_sign_in_them_are_found() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let line = json!({ "type": "track", "event": "e", "timestamp": "2015-08-04T12:34:56.789Z" }).to_string();
    let keys = ["a b", "a+b", "a%2Bb", "ä/注文", "q?x=1&y=2", "#", "'\"", "a\u{301}"];
    for key in keys {
        pipeline.upload(&format!("segment-logs/{key}.gz"), &gzip(line.as_bytes())).await?;
    }
    let count = keys.len() as u64;
    pipeline.counted(&Counts::from([(("e".to_owned(), "2015-08-04T12:00:00Z".to_owned()), count)])).await
}

#[tokio::test]
async fn files_are_read_however_they_are_packed() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let line = json!({ "type": "track", "event": "e", "timestamp": "2015-08-04T12:34:56.789Z" }).to_string();
    let zipped = gzip(line.as_bytes());
    let s3 = pipeline.s3().await?;
    // What says that it is gzip, and what does not; what is not gzip in spite of its name; what Segment tests with.
    let request = s3.put_object().bucket(&pipeline.name).key("segment-logs/encoded.gz").content_encoding("gzip");
    request.body(zipped.clone().into()).send().await?;
    pipeline.upload("segment-logs/plain.gz", line.as_bytes()).await?;
    pipeline.upload("segment-logs/members.gz", &[zipped.clone(), gzip(b"\n"), zipped.clone()].concat()).await?;
    pipeline.upload("segment-logs/empty.gz", b"").await?;
    pipeline.upload("segment-logs/dummy-object.txt.gz", b"This is a test.").await?;
    pipeline.counted(&Counts::from([(("e".to_owned(), "2015-08-04T12:00:00Z".to_owned()), 4)])).await
}

#[tokio::test]
async fn only_what_the_filter_names_is_counted() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[notification]\nprefix = \"in/\"\nsuffix = \".json.gz\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let file = |event: &str| {
        gzip(json!({ "type": "track", "event": event, "timestamp": "2015-08-04T12:00:00Z" }).to_string().as_bytes())
    };
    pipeline.upload("out/a.json.gz", &file("wrong prefix")).await?;
    pipeline.upload("in/a.gz", &file("wrong suffix")).await?;
    pipeline.upload("in/a.json.gz", &file("right")).await?;
    pipeline.counted(&Counts::from([(("right".to_owned(), "2015-08-04T12:00:00Z".to_owned()), 1)])).await
}

#[tokio::test]
async fn types_are_counted_as_declared() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[rollup]\ncount = [\"track\", \"page\"]")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut random = fastrand::Rng::with_seed(3);
    let time = Utc::now() - TimeDelta::days(400);
    let messages: Vec<Value> = (0..300).map(|_| samples::message(&mut random, time)).collect();
    let of = |kind: &str| messages.iter().filter(|message| message["type"] == kind).count();
    let text: String = messages.iter().map(|message| format!("{message}\n")).collect();
    pipeline.upload("segment-logs/x/1/a.gz", &gzip(text.as_bytes())).await?;

    let mut expected = Counts::new();
    recount::add(&mut expected, &gzip(text.as_bytes()))?;
    ensure!(expected.values().sum::<u64>() == of("track") as u64, "the recount is of track messages");
    let hour = expected.keys().next().map(|(_, hour)| hour.clone()).unwrap_or_default();
    expected.insert(("page".to_owned(), hour), of("page") as u64);
    pipeline.counted(&expected).await
}
