//! Every object is counted exactly once or kept in the failure queue, regardless of repeated notifications and damage.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use serde_json::{Value, json};
use tests::pipeline::{COUNT_TIMEOUT, Pipeline};
use tests::recount::Counts;
use tests::samples::gzip;
use tokio::task::JoinSet;

use crate::common::{HOUR, failure_messages, file_of, remove_notification, run_json, s3_notification, track};
use crate::pipeline;

/// Invokes the function with a notification. Returns true if it failed, and the answer.
async fn invoke(client: &aws_sdk_lambda::Client, function: &str, payload: &Value) -> Result<(bool, String)> {
    let request = client.invoke().function_name(function).invocation_type(InvocationType::RequestResponse);
    let answer = request.payload(Blob::new(payload.to_string())).send().await.context("failed to invoke")?;
    let text = answer.payload.map(|payload| String::from_utf8_lossy(payload.as_ref()).into_owned());
    Ok((answer.function_error.is_some(), text.unwrap_or_default()))
}

#[tokio::test]
async fn notification_delivered_many_times_counts_once() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    // S3's own notification would count the object before the concurrent invocations begin.
    remove_notification(&pipeline).await?;
    // Large enough for the invocations to overlap.
    let (file, expected) = file_of(1000);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;

    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    let payload = s3_notification(&pipeline.name, &["segment-logs/x/1/a.gz"]);
    let mut running = JoinSet::new();
    for _ in 0..30 {
        let (lambda, function, payload) = (lambda.clone(), function.clone(), payload.clone());
        running.spawn(async move { invoke(&lambda, &function, &payload).await });
    }
    while let Some(done) = running.join_next().await {
        let (failed, answer) = done??;
        ensure!(!failed, "{answer}");
    }
    pipeline.wait_for_counts(&expected).await?;
    for _ in 0..5 {
        ensure!(!invoke(&lambda, &function, &payload).await?.0, "a repetition failed");
    }
    ensure!(pipeline.counts().await? == expected, "counted again");
    Ok(())
}

#[tokio::test]
async fn object_with_thousands_of_pairs_is_counted_completely() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (file, expected) = file_of(5000);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await
}

#[tokio::test]
async fn concurrent_objects_with_the_same_pair_add_up() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let s3 = pipeline.s3().await?;
    let mut uploads = JoinSet::new();
    for n in 0..50 {
        // Each object has its own line, so no two objects are equal.
        let file = gzip(format!("{}\n{}", track("hot"), track(&format!("own {n}"))).as_bytes());
        let put = s3.put_object().bucket(&pipeline.name).key(format!("segment-logs/x/1/{n}.gz")).body(file.into());
        uploads.spawn(put.send());
    }
    while let Some(done) = uploads.join_next().await {
        done?.context("failed to upload")?;
    }
    let mut expected: Counts = (0..50).map(|n| ((format!("own {n}"), HOUR.to_owned()), 1)).collect();
    expected.insert(("hot".to_owned(), HOUR.to_owned()), 50);
    pipeline.wait_for_counts(&expected).await
}

#[tokio::test]
async fn content_under_two_keys_counts_once_or_if_declared_twice() -> Result<()> {
    for (duplicates, times) in [("once", 1), ("count", 2)] {
        let pipeline = pipeline()?;
        pipeline.declare(&format!("[rollup]\nduplicates = \"{duplicates}\""))?;
        pipeline.expect(0, &["apply", "--yes"])?;
        let (file, mut expected) = file_of(1);
        // The last upload replaces an object by itself.
        let keys = ["segment-logs/x/1/a.gz", "segment-logs/x/1/b.gz", "segment-logs/x/1/a.gz"];
        for key in keys {
            pipeline.upload(key, &file).await?;
        }
        // Compressed differently, it is the same content.
        let plain = compressed_otherwise(&file)?;
        ensure!(plain != file, "the files are the same");
        if times == 1 {
            pipeline.upload("segment-logs/x/1/c.gz", &plain).await?;
        }
        expected.values_mut().for_each(|count| *count = times);
        wait_for_records(&pipeline, if times == 1 { 3 } else { 2 }).await?;
        pipeline.wait_for_counts(&expected).await?;
        let last_day = &run_json(&pipeline, 0, &["status"])?["last_day"];
        ensure!(last_day["duplicates"] == if times == 1 { 2 } else { 0 }, "{last_day}");
    }
    Ok(())
}

/// Inflates a gzipped file and compresses it in another way.
fn compressed_otherwise(file: &[u8]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(file).read_to_end(&mut text)?;
    let mut again = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    again.write_all(&text)?;
    Ok(again.finish()?)
}

/// Waits until this many objects are recorded as counted.
async fn wait_for_records(pipeline: &Pipeline<'_>, objects: u64) -> Result<()> {
    let deadline = Instant::now() + COUNT_TIMEOUT;
    loop {
        let status = run_json(pipeline, 0, &["status"])?;
        if status["last_day"]["objects"] == objects {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn versions_of_one_object_are_counted_separately() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[bucket]\nversioning = true")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    for n in 0..3 {
        let event = format!("version {n}");
        pipeline.upload("segment-logs/x/1/a.gz", &gzip(track(&event).as_bytes())).await?;
        expected.insert((event, HOUR.to_owned()), 1);
    }
    pipeline.wait_for_counts(&expected).await
}

#[tokio::test]
async fn uncountable_object_ends_in_the_failure_queue() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[notification]\nvia = \"function\"\n")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (good, expected) = file_of(200);
    let cut = &good[..good.len() - 20];
    let mut wrong = good.clone();
    let checksum = wrong.len() - 8;
    wrong[checksum] ^= 1;
    pipeline.upload("segment-logs/x/1/cut.gz", cut).await?;
    pipeline.upload("segment-logs/x/1/wrong.gz", &wrong).await?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    // A missing object, as after a deletion between upload and invocation.
    let request = lambda.invoke().function_name(&function).invocation_type(InvocationType::Event);
    let gone = s3_notification(&pipeline.name, &["segment-logs/x/1/gone.gz"]);
    request.payload(Blob::new(gone.to_string())).send().await?;

    let bodies = failure_messages(&pipeline, 3).await?;
    for (key, error) in [("cut.gz", "ObjectDamaged"), ("wrong.gz", "ObjectDamaged"), ("gone.gz", "ObjectGone")] {
        let found = bodies.iter().find(|body| body["requestPayload"].to_string().contains(key));
        let payload = &found.with_context(|| format!("{key} is not in {bodies:?}"))?["responsePayload"];
        ensure!(payload["errorType"] == error && payload["errorMessage"].to_string().contains(key), "{payload}");
    }
    ensure!(pipeline.counts().await?.is_empty(), "something was counted");

    // The same object, complete, is counted.
    pipeline.upload("segment-logs/x/1/cut.gz", &good).await?;
    pipeline.wait_for_counts(&expected).await
}

#[tokio::test]
async fn notification_with_missing_objects_counts_the_others() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let payload = s3_notification(
        &pipeline.name,
        &[
            "segment-logs/mixed/gone.gz",
            "segment-logs/mixed/a.gz",
            "segment-logs/mixed/gone2.gz",
            "segment-logs/mixed/b.gz",
        ],
    );
    pipeline.upload("segment-logs/mixed/a.gz", &gzip(track("a").as_bytes())).await?;
    pipeline.upload("segment-logs/mixed/b.gz", &gzip(track("b").as_bytes())).await?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let (failed, answer) = invoke(&lambda, &format!("{}-handler", pipeline.name), &payload).await?;
    ensure!(failed && answer.contains("SeveralObjectsFailed"), "{answer}");
    ensure!(answer.contains("2 of 4") && answer.contains("gone.gz") && answer.contains("gone2.gz"), "{answer}");
    pipeline.wait_for_counts(&["a", "b"].map(|event| ((event.to_owned(), HOUR.to_owned()), 1)).into()).await
}

#[tokio::test]
async fn unknown_notification_fails_with_a_named_error() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let (failed, answer) = invoke(&lambda, &format!("{}-handler", pipeline.name), &json!({ "hello": "world" })).await?;
    ensure!(failed && answer.contains("NotificationUnknown"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn forged_notification_counts_nothing_twice_and_no_other_bucket() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[bucket]\nversioning = true")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (file, expected) = file_of(3);
    let key = "segment-logs/x/1/a.gz";
    pipeline.upload(key, &file).await?;
    pipeline.wait_for_counts(&expected).await?;

    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    // Without its version, and with one that does not exist.
    let payload = s3_notification(&pipeline.name, &[key]);
    let (failed, answer) = invoke(&lambda, &function, &payload).await?;
    ensure!(!failed && pipeline.counts().await? == expected, "counted again: {answer}");
    let mut other = payload.clone();
    other["Records"][0]["s3"]["object"]["versionId"] = json!("forged");
    let (failed, answer) = invoke(&lambda, &function, &other).await?;
    ensure!(failed && pipeline.counts().await? == expected, "counted again: {answer}");

    // A bucket of the same account, which the function's role may not even read.
    let s3 = pipeline.s3().await?;
    let bucket = format!("{}-other", pipeline.name);
    s3.create_bucket().bucket(&bucket).send().await?;
    s3.put_object().bucket(&bucket).key(key).body(file.into()).send().await?;
    let (failed, answer) = invoke(&lambda, &function, &s3_notification(&bucket, &[key])).await?;
    ensure!(failed && answer.contains("BucketUnknown") && answer.contains(&pipeline.name), "{answer}");
    ensure!(pipeline.counts().await? == expected, "the other bucket was counted");
    Ok(())
}

#[tokio::test]
async fn object_that_ends_the_process_does_not_starve_the_others() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[notification]\nvia = \"function\"\n[function]\ntimeout_seconds = 1\nretries = 0")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    remove_notification(&pipeline).await?;
    // Inflating it takes several times the timeout.
    let member = gzip(&vec![b'\n'; 64 * 1024 * 1024]);
    let long: Vec<u8> = std::iter::repeat_n(member, 256).flatten().collect();
    pipeline.upload("segment-logs/x/1/a.gz", &long).await?;
    pipeline.upload("segment-logs/x/1/b.gz", &gzip(track("beside").as_bytes())).await?;

    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    let payload = s3_notification(&pipeline.name, &["segment-logs/x/1/a.gz", "segment-logs/x/1/b.gz"]);
    let (failed, answer) = invoke(&lambda, &function, &payload).await?;
    ensure!(failed && pipeline.counts().await?.is_empty(), "it did not take too long: {answer}");
    // As Lambda does by itself after a minute. On a busy machine, the other object may need more than the timeout too.
    let mut attempts = 0;
    while pipeline.counts().await?.is_empty() && attempts < 20 {
        let (failed, answer) = invoke(&lambda, &function, &payload).await?;
        ensure!(failed, "it did not take too long: {answer}");
        attempts += 1;
    }
    pipeline.wait_for_counts(&Counts::from([(("beside".to_owned(), HOUR.to_owned()), 1)])).await
}
