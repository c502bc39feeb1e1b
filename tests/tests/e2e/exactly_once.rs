//! However often an object is told of, and whatever is wrong with it, it is counted once or kept in the failure queue.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use aws_sdk_s3::types::NotificationConfiguration;
use serde_json::{Value, json};
use tests::pipeline::{COUNTED, Pipeline};
use tests::recount::Counts;
use tests::samples::gzip;
use tokio::task::JoinSet;

use crate::pipeline;

const HOUR: &str = "2015-08-04T12:00:00Z";

pub(crate) fn track(event: &str) -> String {
    json!({ "type": "track", "event": event, "timestamp": HOUR }).to_string()
}

/// A file of so many different pairs, each once.
pub(crate) fn file_of(pairs: usize) -> (Vec<u8>, Counts) {
    let names: Vec<String> = (0..pairs).map(|n| format!("event {n}")).collect();
    let text = names.iter().map(|name| track(name)).collect::<Vec<_>>().join("\n");
    (gzip(text.as_bytes()), names.into_iter().map(|name| ((name, HOUR.to_owned()), 1)).collect())
}

/// A notification as S3 sends it.
pub(crate) fn notification(bucket: &str, keys: &[&str]) -> Value {
    let record = |key: &&str| {
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
            "s3": { "bucket": { "name": bucket }, "object": { "key": key } },
        })
    };
    json!({ "Records": keys.iter().map(record).collect::<Vec<_>>() })
}

/// Runs the function with a notification of ours; says what it answered and whether that was an error.
async fn invoke(client: &aws_sdk_lambda::Client, function: &str, payload: &Value) -> Result<(bool, String)> {
    let request = client.invoke().function_name(function).invocation_type(InvocationType::RequestResponse);
    let answer = request.payload(Blob::new(payload.to_string())).send().await.context("failed to invoke")?;
    let text = answer.payload.map(|payload| String::from_utf8_lossy(payload.as_ref()).into_owned());
    Ok((answer.function_error.is_some(), text.unwrap_or_default()))
}

/// The bodies of the messages in the failure queue, as soon as there are `expected`.
pub(crate) async fn failures(pipeline: &Pipeline<'_>, expected: usize) -> Result<Vec<Value>> {
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    let started = Instant::now();
    let (mut seen, mut bodies) = (BTreeSet::new(), Vec::new());
    while bodies.len() < expected {
        ensure!(started.elapsed() < COUNTED, "only {bodies:?} are in the failure queue");
        let request = sqs.receive_message().set_queue_url(url.clone()).max_number_of_messages(10).wait_time_seconds(1);
        for message in request.send().await?.messages.unwrap_or_default() {
            if seen.insert(message.message_id.clone()) {
                bodies.push(serde_json::from_str(message.body().context("a body")?)?);
            }
        }
    }
    Ok(bodies)
}

#[tokio::test]
async fn the_same_notification_many_times_counts_once() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    // Without S3's own notification, which would count the object before the others have begun.
    let nothing = NotificationConfiguration::builder().build();
    let request = pipeline.s3().await?.put_bucket_notification_configuration().bucket(&pipeline.name);
    request.notification_configuration(nothing).send().await?;
    // Large enough that those that run at once are at it at once.
    let (file, expected) = file_of(1000);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;

    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    let payload = notification(&pipeline.name, &["segment-logs/x/1/a.gz"]);
    let mut running = JoinSet::new();
    for _ in 0..50 {
        let (lambda, function, payload) = (lambda.clone(), function.clone(), payload.clone());
        running.spawn(async move { invoke(&lambda, &function, &payload).await });
    }
    while let Some(done) = running.join_next().await {
        let (failed, answer) = done??;
        ensure!(!failed, "{answer}");
    }
    pipeline.counted(&expected).await?;
    for _ in 0..5 {
        ensure!(!invoke(&lambda, &function, &payload).await?.0, "a repetition failed");
    }
    ensure!(pipeline.counts().await? == expected, "counted again");
    Ok(())
}

#[tokio::test]
async fn objects_with_thousands_of_pairs_are_counted_whole() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (file, expected) = file_of(5000);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.counted(&expected).await
}

#[tokio::test]
async fn many_objects_with_the_same_pair_at_once_add_up() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let s3 = pipeline.s3().await?;
    let mut uploads = JoinSet::new();
    for n in 0..50 {
        // Another line of another length each, so that no two objects are the same.
        let file = gzip(format!("{}\n{}", track("hot"), track(&format!("own {n}"))).as_bytes());
        let put = s3.put_object().bucket(&pipeline.name).key(format!("segment-logs/x/1/{n}.gz")).body(file.into());
        uploads.spawn(put.send());
    }
    while let Some(done) = uploads.join_next().await {
        done?.context("failed to upload")?;
    }
    let mut expected: Counts = (0..50).map(|n| ((format!("own {n}"), HOUR.to_owned()), 1)).collect();
    expected.insert(("hot".to_owned(), HOUR.to_owned()), 50);
    pipeline.counted(&expected).await
}

#[tokio::test]
async fn the_same_file_under_two_keys_is_two_files_and_the_same_again_is_one() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (file, mut expected) = file_of(1);
    for key in ["segment-logs/x/1/a.gz", "segment-logs/x/1/b.gz", "segment-logs/x/1/a.gz"] {
        pipeline.upload(key, &file).await?;
    }
    expected.values_mut().for_each(|count| *count = 2);
    pipeline.counted(&expected).await
}

#[tokio::test]
async fn versions_of_an_object_are_objects() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[bucket]\nversioning = true")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    for n in 0..3 {
        let event = format!("version {n}");
        pipeline.upload("segment-logs/x/1/a.gz", &gzip(track(&event).as_bytes())).await?;
        expected.insert((event, HOUR.to_owned()), 1);
    }
    pipeline.counted(&expected).await
}

#[tokio::test]
async fn what_cannot_be_counted_lies_in_the_failure_queue() -> Result<()> {
    let pipeline = pipeline()?;
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
    // An object that is gone, as it is between upload and invocation now and then.
    let request = lambda.invoke().function_name(&function).invocation_type(InvocationType::Event);
    let gone = notification(&pipeline.name, &["segment-logs/x/1/gone.gz"]);
    request.payload(Blob::new(gone.to_string())).send().await?;

    let bodies = failures(&pipeline, 3).await?;
    for (key, error) in [("cut.gz", "ObjectDamaged"), ("wrong.gz", "ObjectDamaged"), ("gone.gz", "ObjectUnreadable")] {
        let found = bodies.iter().find(|body| body["requestPayload"].to_string().contains(key));
        let payload = &found.with_context(|| format!("{key} is not in {bodies:?}"))?["responsePayload"];
        ensure!(payload["errorType"] == error && payload["errorMessage"].to_string().contains(key), "{payload}");
    }
    ensure!(pipeline.counts().await?.is_empty(), "something was counted");

    // The same object whole is counted.
    pipeline.upload("segment-logs/x/1/cut.gz", &good).await?;
    pipeline.counted(&expected).await
}

#[tokio::test]
async fn a_bad_object_does_not_hide_the_others() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let payload = notification(
        &pipeline.name,
        &[
            "segment-logs/told/gone.gz",
            "segment-logs/told/a.gz",
            "segment-logs/told/gone2.gz",
            "segment-logs/told/b.gz",
        ],
    );
    pipeline.upload("segment-logs/told/a.gz", &gzip(track("a").as_bytes())).await?;
    pipeline.upload("segment-logs/told/b.gz", &gzip(track("b").as_bytes())).await?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let (failed, answer) = invoke(&lambda, &format!("{}-handler", pipeline.name), &payload).await?;
    ensure!(failed && answer.contains("SeveralObjectsFailed"), "{answer}");
    ensure!(answer.contains("2 of 4") && answer.contains("gone.gz") && answer.contains("gone2.gz"), "{answer}");
    pipeline.counted(&["a", "b"].map(|event| ((event.to_owned(), HOUR.to_owned()), 1)).into()).await
}

#[tokio::test]
async fn what_is_no_notification_fails_by_its_name() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let (failed, answer) = invoke(&lambda, &format!("{}-handler", pipeline.name), &json!({ "hello": "world" })).await?;
    ensure!(failed && answer.contains("NotificationUnknown"), "{answer}");
    Ok(())
}
