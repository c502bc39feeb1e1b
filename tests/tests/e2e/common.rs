//! Helpers of several test modules.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::types::NotificationConfiguration;
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};
use tests::pipeline::{COUNT_TIMEOUT, Pipeline};
use tests::recount::Counts;
use tests::samples::gzip;

pub(crate) const HOUR: &str = "2015-08-04T12:00:00Z";

pub(crate) fn track(event: &str) -> String {
    json!({ "type": "track", "event": event, "timestamp": HOUR }).to_string()
}

/// Returns a file with this many pairs of event and hour, each once, and its counts.
pub(crate) fn file_of(pairs: usize) -> (Vec<u8>, Counts) {
    let names: Vec<String> = (0..pairs).map(|n| format!("event {n}")).collect();
    let text = names.iter().map(|name| track(name)).collect::<Vec<_>>().join("\n");
    (gzip(text.as_bytes()), names.into_iter().map(|name| ((name, HOUR.to_owned()), 1)).collect())
}

/// Returns a notification in S3's format.
pub(crate) fn s3_notification(bucket: &str, keys: &[&str]) -> Value {
    let record = |key: &&str| {
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
            "s3": { "bucket": { "name": bucket }, "object": { "key": key } },
        })
    };
    json!({ "Records": keys.iter().map(record).collect::<Vec<_>>() })
}

/// Runs a command with `--format json` and returns the document.
pub(crate) fn run_json(pipeline: &Pipeline<'_>, code: i32, args: &[&str]) -> Result<Value> {
    let out = pipeline.expect(code, &[args, &["--format", "json"]].concat())?.out;
    serde_json::from_str(&out).with_context(|| format!("{args:?} printed {out}"))
}

/// Removes the bucket's notification, so that uploads are not counted.
pub(crate) async fn remove_notification(pipeline: &Pipeline<'_>) -> Result<()> {
    let nothing = NotificationConfiguration::builder().build();
    let request = pipeline.s3().await?.put_bucket_notification_configuration().bucket(&pipeline.name);
    request.notification_configuration(nothing).send().await?;
    Ok(())
}

/// Waits for `expected` messages in the failure queue and returns their bodies.
pub(crate) async fn failure_messages(pipeline: &Pipeline<'_>, expected: usize) -> Result<Vec<Value>> {
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    let started = Instant::now();
    let (mut seen, mut bodies) = (BTreeSet::new(), Vec::new());
    while bodies.len() < expected {
        ensure!(started.elapsed() < COUNT_TIMEOUT, "only {bodies:?} are in the failure queue");
        let request = sqs.receive_message().set_queue_url(url.clone()).max_number_of_messages(10).wait_time_seconds(1);
        for message in request.send().await?.messages.unwrap_or_default() {
            if seen.insert(message.message_id.clone()) {
                bodies.push(serde_json::from_str(message.body().context("a body")?)?);
            }
        }
    }
    Ok(bodies)
}

/// Waits until the failure queue holds this many messages, without receiving them.
pub(crate) async fn wait_for_failures(pipeline: &Pipeline<'_>, messages: usize) -> Result<()> {
    wait_for_failures_until(pipeline, &|found| found == messages).await
}

/// Waits until the failure queue holds a message, without receiving it.
pub(crate) async fn wait_for_a_failure(pipeline: &Pipeline<'_>) -> Result<()> {
    wait_for_failures_until(pipeline, &|found| found > 0).await
}

async fn wait_for_failures_until(pipeline: &Pipeline<'_>, is_enough: &(dyn Fn(usize) -> bool + Sync)) -> Result<()> {
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    let started = Instant::now();
    loop {
        let name = QueueAttributeName::ApproximateNumberOfMessages;
        let request = sqs.get_queue_attributes().set_queue_url(url.clone()).attribute_names(name.clone());
        let found = request.send().await?.attributes.unwrap_or_default().remove(&name).context("a number")?;
        if is_enough(found.parse()?) {
            return Ok(());
        }
        ensure!(started.elapsed() < COUNT_TIMEOUT, "the failure queue holds {found} messages");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sends a signal to a process by its id.
pub(crate) fn send_signal(name: &str, process: u32) -> Result<()> {
    let status = std::process::Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status()?;
    ensure!(status.success(), "no process {process}");
    Ok(())
}
