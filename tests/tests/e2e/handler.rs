//! The function's binary: memory at startup, size, missing variables, log. `make bench-rollup` measures its speed.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::local_aws::root;
use tests::pipeline::{COUNT_TIMEOUT, Pipeline};
use tests::recount::Counts;
use tests::samples::gzip;

use crate::pipeline;

#[test]
fn handler_at_startup_uses_little_memory_and_polls_for_work() -> Result<()> {
    let runtime = TcpListener::bind("127.0.0.1:0")?;
    let variables = [
        ("AWS_LAMBDA_RUNTIME_API", runtime.local_addr()?.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", "handler".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128".to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ("COUNTS_TABLE", "counts".to_owned()),
        ("DAILY_TABLE", "daily".to_owned()),
        ("LEDGER_TABLE", "ledger".to_owned()),
        ("BUCKET", "events".to_owned()),
        ("BUCKET_OWNER", "123456789012".to_owned()),
        ("COUNT_TYPES", "track".to_owned()),
    ];
    let mut command = Command::new(root().join("target/lambda/bootstrap"));
    let mut child = command.env_clear().envs(variables).stdout(Stdio::null()).spawn()?;
    let answer = (|| {
        let (mut connection, _) = runtime.accept()?;
        let mut request = [0; 64];
        let read = connection.read(&mut request)?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        Ok::<_, anyhow::Error>((String::from_utf8_lossy(&request[..read]).into_owned(), status))
    })();
    child.kill()?;
    child.wait()?;
    let (request, status) = answer?;
    ensure!(request.contains("/runtime/invocation/next"), "{request}");
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    let peak: u64 = peak.context("a peak")?;
    ensure!(peak < 30 * 1024, "{peak} KiB");
    Ok(())
}

#[test]
fn handler_without_its_variables_names_the_missing_one() -> Result<()> {
    let mut command = Command::new(root().join("target/lambda/bootstrap"));
    let output = command.env_clear().env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9").output()?;
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && err.contains("COUNTS_TABLE") && !err.contains("panicked"), "{output:?}");
    Ok(())
}

#[tokio::test]
async fn handler_zip_is_below_five_megabytes() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function =
        lambda.get_function_configuration().function_name(format!("{}-handler", pipeline.name)).send().await?;
    ensure!(function.code_size < 5_000_000, "{} bytes", function.code_size);
    Ok(())
}

/// Returns the messages in the log of the function that counts so far.
pub(crate) async fn function_log(pipeline: &Pipeline<'_>) -> Result<String> {
    log_of(pipeline, &format!("{}-handler", pipeline.name)).await
}

/// Returns the messages in a function's log so far.
pub(crate) async fn log_of(pipeline: &Pipeline<'_>, function: &str) -> Result<String> {
    let client = aws_sdk_cloudwatchlogs::Client::new(&pipeline.sdk().await?);
    let pages = client.filter_log_events().log_group_name(format!("/aws/lambda/{function}")).into_paginator().send();
    let pages: Vec<_> = pages.collect::<Result<_, _>>().await.context("failed to read the log")?;
    let messages = pages.into_iter().flat_map(|page| page.events.unwrap_or_default()).filter_map(|event| event.message);
    Ok(messages.collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn log_of_a_counted_object_is_one_line_without_content() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let good = json!({ "type": "track", "event": "Secret Name", "timestamp": "2015-08-04T12:00:00Z" });
    let text = format!("{good}\n{good}\nnot json, but secret\n\n{}\n", json!({ "type": "page" }));
    pipeline.upload("segment-logs/x/1/a.gz", &gzip(text.as_bytes())).await?;
    let expected = Counts::from([(("Secret Name".to_owned(), "2015-08-04T12:00:00Z".to_owned()), 2)]);
    pipeline.wait_for_counts(&expected).await?;

    let started = Instant::now();
    let line = loop {
        let log = function_log(&pipeline).await?;
        ensure!(!log.to_lowercase().contains("secret"), "{log}");
        if let Some(line) = log.lines().find(|line| line.contains("\"counted\"")) {
            break serde_json::from_str::<Value>(line)?;
        }
        ensure!(started.elapsed() < COUNT_TIMEOUT, "no line for the object\n{log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ensure!(line["key"] == "segment-logs/x/1/a.gz" && line["events"] == 2 && line["pairs"] == 1, "{line}");
    ensure!(line["skipped"] == 1 && line["bytes"] == text.len() && line["milliseconds"].is_u64(), "{line}");
    Ok(())
}
