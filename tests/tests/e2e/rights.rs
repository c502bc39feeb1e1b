//! What the function may do, and that it needs all of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::pipeline::{COUNTED, Pipeline};
use tests::recount::Counts;
use tests::samples::gzip;

use crate::pipeline;

/// The log of the function, as far as it is written.
async fn log(pipeline: &Pipeline<'_>) -> Result<String> {
    let client = aws_sdk_cloudwatchlogs::Client::new(&pipeline.sdk().await?);
    let group = format!("/aws/lambda/{}-handler", pipeline.name);
    let pages = client.filter_log_events().log_group_name(group).into_paginator().send();
    let pages: Vec<_> = pages.collect::<Result<_, _>>().await.context("failed to read the log")?;
    let messages = pages.into_iter().flat_map(|page| page.events.unwrap_or_default()).filter_map(|event| event.message);
    Ok(messages.collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn without_any_one_of_its_rights_the_function_counts_nothing() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let role = format!("{}-function", pipeline.name);
    let policy = iam.get_role_policy().role_name(&role).policy_name("handler").send().await?.policy_document;
    let policy: Value = serde_json::from_str(&percent_encoding::percent_decode_str(&policy).decode_utf8()?)?;
    let put = async |document: &Value| {
        let request = iam.put_role_policy().role_name(&role).policy_name("handler");
        request.policy_document(document.to_string()).send().await.context("failed to put the policy")
    };

    let statements = policy["Statement"].as_array().context("statements")?;
    let mut tried = 0;
    for (s, statement) in statements.iter().enumerate() {
        for (a, action) in statement["Action"].as_array().context("actions")?.iter().enumerate() {
            let action = action.as_str().context("an action")?;
            // These are what Lambda does in the function's name, and the local AWS does it by itself: that they are
            // needed cannot be tried here.
            if action.starts_with("logs:") || action.starts_with("sqs:") {
                continue;
            }
            let mut less = policy.clone();
            less["Statement"][s]["Action"].as_array_mut().context("actions")?.remove(a);
            if less["Statement"][s]["Action"] == json!([]) {
                less["Statement"].as_array_mut().context("statements")?.remove(s);
            }
            put(&less).await?;

            let key = format!("segment-logs/x/1/without-{}.gz", action.replace(':', "-"));
            let line = json!({ "type": "track", "event": action, "timestamp": "2015-08-04T12:00:00Z" });
            pipeline.upload(&key, &gzip(line.to_string().as_bytes())).await?;
            let denied =
                async || {
                    Ok::<_, anyhow::Error>(log(&pipeline).await?.lines().any(|line| {
                        line.contains(&key) && line.contains("not counted") && line.contains("AccessDenied")
                    }))
                };
            let started = Instant::now();
            while !denied().await? {
                ensure!(started.elapsed() < COUNTED, "nothing was denied without {action}\n{}", log(&pipeline).await?);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tried += 1;
            let counted: u64 = pipeline.counts().await?.values().sum();
            ensure!(counted == tried - 1, "counted without {action}");

            // With it, the retry counts: nothing was lost and nothing was half done.
            put(&policy).await?;
            let started = Instant::now();
            while pipeline.counts().await?.values().sum::<u64>() != tried {
                ensure!(started.elapsed() < COUNTED, "not counted with all rights\n{}", log(&pipeline).await?);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    ensure!(tried == 4, "{tried} rights were tried");
    Ok(())
}

#[tokio::test]
async fn the_log_has_one_line_an_object_and_none_of_its_content() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let good = json!({ "type": "track", "event": "Secret Name", "timestamp": "2015-08-04T12:00:00Z" });
    let text = format!("{good}\n{good}\nnot json, but secret\n\n{}\n", json!({ "type": "page" }));
    pipeline.upload("segment-logs/x/1/a.gz", &gzip(text.as_bytes())).await?;
    pipeline.counted(&Counts::from([(("Secret Name".to_owned(), "2015-08-04T12:00:00Z".to_owned()), 2)])).await?;

    let started = Instant::now();
    let line = loop {
        let log = log(&pipeline).await?;
        ensure!(!log.to_lowercase().contains("secret"), "{log}");
        if let Some(line) = log.lines().find(|line| line.contains("\"counted\"")) {
            break serde_json::from_str::<Value>(line)?;
        }
        ensure!(started.elapsed() < COUNTED, "no summary line\n{log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ensure!(line["key"] == "segment-logs/x/1/a.gz" && line["events"] == 2 && line["pairs"] == 1, "{line}");
    ensure!(line["skipped"] == 1 && line["bytes"] == text.len() && line["milliseconds"].is_u64(), "{line}");
    Ok(())
}
