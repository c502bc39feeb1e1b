//! Makes a fifth of the function's own calls fail: every object is counted exactly once, or ends in the failure
//! queue, and a consumer is told exactly what was counted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::weather::Weather;
use super::{Outcome, pipeline};
use crate::consumer;
use crate::local_aws::{LocalAws, free_port};
use crate::pipeline::s3;
use crate::samples::gzip;

/// The time within which all retries finish, even on a busy machine.
const RETRIES_TIMEOUT: Duration = Duration::from_secs(180);

/// The function's timeout in seconds. The queue hides a message for six of them.
const TIMEOUT_SECONDS: u64 = 3;
/// A time longer than the pause between two attempts plus an attempt.
const QUIET_TIME: Duration = Duration::from_secs(7 * TIMEOUT_SECONDS);

const HOUR: &str = "2015-08-04T12:00:00Z";

/// Returns the event in the n-th object.
fn event(n: usize) -> String {
    format!("Event {n}")
}

/// Returns the key of the n-th object.
fn key(n: usize) -> String {
    format!("segment-logs/x/1/{n}.gz")
}

/// Returns true if the n-th object is truncated.
fn is_damaged(n: usize) -> bool {
    n.is_multiple_of(20)
}

/// Uploads `objects` objects, each with its own event, while calls of the function fail at random.
///
/// # Errors
/// The local AWS or the proxy cannot be run. An object that is neither counted nor queued, or is counted twice, is
/// reported as lost, not as an error.
pub async fn fail_at_random(objects: usize, seed: u64) -> Result<Outcome> {
    let port = free_port()?;
    let aws = LocalAws::start_behind(&format!("http://127.0.0.1:{port}"))?;
    let weather = Weather::start_at(port, &aws.endpoint(), seed)?;
    let pipeline = pipeline(&aws)?;
    // A consumer records what it is told; its calls fail too.
    let events: Vec<String> = (0..objects).map(event).collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let consumer = consumer::section(&pipeline, &events, "batch_size = 5\nretries = 1000");
    pipeline.declare(&format!("[function]\ntimeout_seconds = {TIMEOUT_SECONDS}\nretries = 4\n{consumer}"))?;
    consumer::create_told(&pipeline).await?;
    pipeline.expect(0, &["apply", "--yes"])?;

    let fault_rules = |service: &str, code: &str, status: u16| {
        let error = json!({ "code": code, "status": status });
        [
            json!({ "service": service, "probability": 0.12, "error": error }),
            json!({ "service": service, "probability": 0.05, "reset": true }),
            json!({ "service": service, "probability": 0.05, "response": { "abort_bytes": 0 } }),
        ]
    };
    let mut rules = fault_rules("s3", "SlowDown", 503).to_vec();
    rules.extend(fault_rules("dynamodb", "ProvisionedThroughputExceededException", 400));
    // Only the function calls through the proxy.
    weather.add_for_all(&rules)?;

    let client = s3(&aws.sdk(&pipeline.account).await?);
    for n in 0..objects {
        let line = json!({ "type": "track", "event": event(n), "timestamp": HOUR });
        let put = client.put_object().bucket(&pipeline.name).key(key(n));
        // Some objects cannot be counted, so that the failure queue is used.
        let mut bytes = gzip(line.to_string().as_bytes());
        if is_damaged(n) {
            bytes.truncate(bytes.len() / 2);
        }
        put.body(bytes.into()).send().await.context("failed to upload")?;
    }

    let sqs = aws_sdk_sqs::Client::new(&aws.sdk(&pipeline.account).await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    let mut queued = BTreeSet::new();
    let started = Instant::now();
    let mut last_missing = started;
    let counts = loop {
        let messages = sqs.receive_message().set_queue_url(url.clone()).max_number_of_messages(10).send().await?;
        for message in messages.messages.unwrap_or_default() {
            let body: Value = serde_json::from_str(message.body.as_deref().unwrap_or_default())?;
            let records = body["Records"].as_array().cloned().unwrap_or_default();
            queued
                .extend(records.iter().filter_map(|record| record["s3"]["object"]["key"].as_str().map(str::to_owned)));
        }
        let counts = pipeline.counts().await?;
        let accounted =
            (0..objects).filter(|n| counts.contains_key(&(event(*n), HOUR.to_owned())) || queued.contains(&key(*n)));
        if accounted.count() < objects {
            last_missing = Instant::now();
        }
        // A retry that counts twice, or a second message, would arrive within this time.
        if last_missing.elapsed() > QUIET_TIME || started.elapsed() > RETRIES_TIMEOUT {
            break counts;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let mut outcome = Outcome { runs: objects, faults: weather.fired()?, lost: Vec::new() };
    for n in 0..objects {
        let count = counts.get(&(event(n), HOUR.to_owned()));
        let is_queued = queued.contains(&key(n));
        match count {
            Some(1) if !is_damaged(n) => {}
            None if is_queued => {}
            Some(count) => outcome.lost.push(format!("object {n} was counted {count} times")),
            None => outcome.lost.push(format!("object {n} is neither counted nor in the queue")),
        }
    }
    let started = Instant::now();
    let mut told = consumer::told(&pipeline).await?;
    while told != counts && started.elapsed() < RETRIES_TIMEOUT {
        tokio::time::sleep(Duration::from_millis(200)).await;
        told = consumer::told(&pipeline).await?;
    }
    if told != counts {
        outcome.lost.push(format!("a consumer was told {told:?}, and not {counts:?}"));
    }
    ensure!(!queued.is_empty(), "the failure queue is empty");
    ensure!(counts.len() > objects / 2, "too many faults: {} counted, {} queued", counts.len(), queued.len());
    Ok(outcome)
}
