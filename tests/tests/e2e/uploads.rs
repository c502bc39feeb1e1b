//! Uploaded files are counted through S3's notification.

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use tests::recount::{self, Counts};
use tests::samples::{self, gzip};

use crate::pipeline;

#[tokio::test]
async fn uploaded_files_are_counted_and_queryable() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    for sample in samples::generate(1, Utc::now(), 5, 200) {
        recount::add(&mut expected, &sample.bytes)?;
        pipeline.upload(&sample.key, &sample.bytes).await?;
    }
    pipeline.wait_for_counts(&expected).await?;

    // A wider period than needed, because a new hour may have begun since.
    let top: Value = serde_json::from_str(&pipeline.expect(0, &["top", "--last", "24h", "--format", "json"])?.out)?;
    ensure!(top["total"].as_u64() == Some(expected.values().sum()), "{top}");
    let event = "Clicked \"Buy now\"";
    let query: Value =
        serde_json::from_str(&pipeline.expect(0, &["query", event, "--last", "24h", "--format", "json"])?.out)?;
    let hours = query["events"][0]["counts"].as_array().context("counts")?;
    ensure!(hours.len() == 24, "empty hours are shown: {query}");
    let found: Counts = hours
        .iter()
        .filter(|part| part["count"] != 0)
        .map(|part| Some(((event.to_owned(), part["start"].as_str()?.to_owned()), part["count"].as_u64()?)))
        .collect::<Option<_>>()
        .context("a count")?;
    let wanted: Counts = expected.iter().filter(|((name, _), _)| name == event).map(|(k, v)| (k.clone(), *v)).collect();
    ensure!(!wanted.is_empty() && found == wanted, "{query}\n{wanted:?}");

    let table = pipeline.expect(0, &["top", "-n", "1"])?.out;
    ensure!(table.contains("1 of 8 events") && table.contains("Order Completed"), "{table}");
    Ok(())
}

#[tokio::test]
async fn keys_with_special_characters_are_counted() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let line = |key: &str| {
        json!({ "type": "track", "event": "e", "timestamp": "2015-08-04T12:34:56.789Z", "messageId": key }).to_string()
    };
    let keys = ["a b", "a+b", "a%2Bb", "ä/注文", "q?x=1&y=2", "#", "'\"", "a\u{301}"];
    for key in keys {
        pipeline.upload(&format!("segment-logs/{key}.gz"), &gzip(line(key).as_bytes())).await?;
    }
    let count = keys.len() as u64;
    pipeline.wait_for_counts(&Counts::from([(("e".to_owned(), "2015-08-04T12:00:00Z".to_owned()), count)])).await
}

#[tokio::test]
async fn files_in_any_compression_are_counted() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let line = json!({ "type": "track", "event": "e", "timestamp": "2015-08-04T12:34:56.789Z" }).to_string();
    let zipped = gzip(line.as_bytes());
    let s3 = pipeline.s3().await?;
    // Gzip with a content encoding, plain text named .gz, several members, an empty file, and Segment's test file.
    let request = s3.put_object().bucket(&pipeline.name).key("segment-logs/encoded.gz").content_encoding("gzip");
    request.body(zipped.clone().into()).send().await?;
    // Of other content than the first.
    pipeline.upload("segment-logs/plain.gz", format!("{line}\n").as_bytes()).await?;
    pipeline.upload("segment-logs/members.gz", &[zipped.clone(), gzip(b"\n"), zipped.clone()].concat()).await?;
    pipeline.upload("segment-logs/empty.gz", b"").await?;
    pipeline.upload("segment-logs/dummy-object.txt.gz", b"This is a test.").await?;
    pipeline.wait_for_counts(&Counts::from([(("e".to_owned(), "2015-08-04T12:00:00Z".to_owned()), 4)])).await
}

#[tokio::test]
async fn objects_outside_the_filter_are_not_counted() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[notification]\nprefix = \"in/\"\nsuffix = \".json.gz\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let file = |event: &str| {
        gzip(json!({ "type": "track", "event": event, "timestamp": "2015-08-04T12:00:00Z" }).to_string().as_bytes())
    };
    pipeline.upload("out/a.json.gz", &file("wrong prefix")).await?;
    pipeline.upload("in/a.gz", &file("wrong suffix")).await?;
    pipeline.upload("in/a.json.gz", &file("right")).await?;
    pipeline.wait_for_counts(&Counts::from([(("right".to_owned(), "2015-08-04T12:00:00Z".to_owned()), 1)])).await
}

#[tokio::test]
async fn declared_message_types_are_counted() -> Result<()> {
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
    pipeline.wait_for_counts(&expected).await
}
