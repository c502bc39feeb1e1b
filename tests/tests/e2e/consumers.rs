//! `[[consumer]]`: its resources through their life, and the totals that it is told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_lambda::types::EventSourceMappingConfiguration;
use serde_json::json;
use tests::consumer::{create_told, section, told};
use tests::pipeline::{COUNT_TIMEOUT, Pipeline};
use tests::recount::Counts;
use tests::samples::gzip;

use crate::common::{HOUR, run_json, track};
use crate::drift::corrected;
use crate::handler::log_of;
use crate::strict::{assert_in_sync, assert_valid};
use crate::strict_kinds::{deployer, eventually, succeed};
use crate::{pipeline, steps, strict_pipeline, verdict};

const EVENTS: [&str; 2] = ["Order Completed", "Signed Up"];

/// Waits until the consumer was told of these counts.
async fn wait_until_told(pipeline: &Pipeline<'_>, expected: &Counts) -> Result<()> {
    let started = Instant::now();
    loop {
        let found = told(pipeline).await?;
        if found == *expected {
            return Ok(());
        }
        ensure!(started.elapsed() < COUNT_TIMEOUT, "the consumer was told {found:?}, and not {expected:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn mapping(pipeline: &Pipeline<'_>) -> Result<EventSourceMappingConfiguration> {
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let request = lambda.list_event_source_mappings().function_name(format!("{}-alert", pipeline.name));
    request.send().await?.event_source_mappings.unwrap_or_default().pop().context("a mapping")
}

#[tokio::test]
async fn consumer_is_planned_created_changed_corrected_pruned_and_destroyed() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let name = format!("{}-alert", pipeline.name);
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.declare(&section(&pipeline, &EVENTS, ""))?;
    let deployer = deployer(&pipeline).await?;
    let plan = succeed(&deployer, &["plan"])?;
    ensure!(!plan.contains("the caller lacks"), "{plan}");
    let expected = [
        format!("  ~ table {}-ledger", pipeline.name),
        format!("  + role {name}"),
        format!("  + log group /aws/lambda/{name}"),
        format!("  + queue {name}-failures"),
        format!("  ~ function {}-handler", pipeline.name),
        format!("  + function {name}"),
        format!("  + stream mapping {name}"),
    ];
    ensure!(steps(&plan) == expected, "{plan}");
    succeed(&deployer, &["apply", "--yes"])?;
    assert_in_sync(&pipeline)?;

    // Changed in the file, and by hand.
    pipeline.declare(&section(&pipeline, &EVENTS, "memory_mb = 256\nbatch_size = 7\nretries = 3"))?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    let changed = [format!("  ~ function {name}"), format!("  ~ stream mapping {name}")];
    ensure!(steps(&plan) == changed, "{plan}");
    succeed(&deployer, &["apply", "--yes"])?;
    let live = mapping(&pipeline).await?;
    ensure!((live.batch_size, live.maximum_retry_attempts) == (Some(7), Some(3)), "{live:?}");
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let change = lambda.update_event_source_mapping().set_uuid(live.uuid.clone()).batch_size(9);
    eventually(|| change.clone().send()).await?;
    corrected(&pipeline, &format!("stream mapping {name}"), "batch_size", "9", "7")?;
    let delete = lambda.delete_event_source_mapping().set_uuid(live.uuid);
    eventually(|| delete.clone().send()).await?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(steps(&plan) == [format!("  + stream mapping {name}")], "{plan}");
    succeed(&deployer, &["apply", "--yes"])?;
    let disable = lambda.update_event_source_mapping().set_uuid(mapping(&pipeline).await?.uuid).enabled(false);
    eventually(|| disable.clone().send()).await?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(plan.contains(&format!("function {name} is told nothing")), "{plan}");

    // Taken out: the stream of the table stays, and nothing reads it.
    pipeline.declare("")?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    for kind in ["role", "function", "stream mapping"] {
        ensure!(plan.contains(&format!("{kind} {name} is orphaned")), "{kind}: {plan}");
    }
    pipeline.expect(0, &["apply", "--yes", "--prune"])?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(verdict(&plan)? == "No changes." && !plan.contains("orphaned"), "{plan}");
    pipeline.declare(&section(&pipeline, &EVENTS, ""))?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let destroyed = succeed(&deployer, &["destroy", "--yes", "--delete-data"])?;
    for kind in ["role", "function", "stream mapping"] {
        ensure!(steps(&destroyed).contains(&format!("  - {kind} {name}").as_str()), "{kind}: {destroyed}");
    }
    assert_valid(&pipeline)
}

#[tokio::test]
async fn consumer_is_told_exactly_what_was_counted_recounted_and_taken_back() -> Result<()> {
    let pipeline = strict_pipeline()?;
    create_told(&pipeline).await?;
    let by = "[rollup]\nby = [\"properties.plan\"]\n";
    pipeline.declare(&format!(
        "{by}{}",
        section(&pipeline, &[&EVENTS[..], &["provisioner verify", "page"]].concat(), "")
    ))?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    for file in 0..6 {
        let page = json!({ "type": "page", "timestamp": HOUR, "messageId": file.to_string() });
        let order = json!({
            "type": "track", "event": EVENTS[0], "timestamp": HOUR, "messageId": file.to_string(),
            "properties": { "plan": format!("plan {file}") },
        });
        let lines = [order.to_string(), track(EVENTS[1]), page.to_string()];
        let bytes = gzip(lines.join("\n").as_bytes());
        // The second object has the same content.
        for folder in ["x", "y"] {
            pipeline.upload(&format!("segment-logs/{folder}/1/{file}.gz"), &bytes).await?;
        }
        for event in EVENTS {
            *expected.entry((event.to_owned(), HOUR.to_owned())).or_default() += 1;
        }
    }
    pipeline.wait_for_counts(&expected).await?;
    wait_until_told(&pipeline, &expected).await?;

    // A recount by other rules, and a count that is taken back.
    pipeline.declare(&format!(
        "[rollup]\ncount = [\"track\", \"page\"]\n{}",
        section(&pipeline, &[&EVENTS[..], &["provisioner verify", "page"]].concat(), "")
    ))?;
    pipeline.expect(0, &["apply", "--yes"])?;
    run_json(&pipeline, 0, &["backfill", "--recount"])?;
    pipeline.expect(0, &["verify"])?;
    expected.insert(("page".to_owned(), HOUR.to_owned()), 6);
    pipeline.wait_for_counts(&expected).await?;
    wait_until_told(&pipeline, &expected).await
}

#[tokio::test]
async fn consumer_of_the_kinesis_stream_is_told_the_same() -> Result<()> {
    let pipeline = pipeline()?;
    create_told(&pipeline).await?;
    pipeline
        .declare(&format!("[stream]\nretention_hours = 24\n{}", section(&pipeline, &EVENTS, "from = \"kinesis\"")))?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(verdict(&plan)? == "No changes.", "{plan}");
    let line = track(EVENTS[0]);
    pipeline.upload("segment-logs/x/1/a.gz", &gzip(line.as_bytes())).await?;
    let expected = Counts::from([((EVENTS[0].to_owned(), HOUR.to_owned()), 1)]);
    pipeline.wait_for_counts(&expected).await?;
    wait_until_told(&pipeline, &expected).await
}

#[tokio::test]
async fn failed_batch_is_told_again_until_it_is_consumed() -> Result<()> {
    let pipeline = pipeline()?;
    // Its table does not exist.
    pipeline.declare(&section(&pipeline, &EVENTS, ""))?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.upload("segment-logs/x/1/a.gz", &gzip(track(EVENTS[0]).as_bytes())).await?;
    pipeline.wait_for_counts(&Counts::from([((EVENTS[0].to_owned(), HOUR.to_owned()), 1)])).await?;
    let function = format!("{}-alert", pipeline.name);
    let started = Instant::now();
    while !log_of(&pipeline, &function).await?.contains("not consumed") {
        ensure!(started.elapsed() < COUNT_TIMEOUT, "no failure in {}", log_of(&pipeline, &function).await?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // As soon as it can, it is told: the batch waits in the stream.
    create_told(&pipeline).await?;
    wait_until_told(&pipeline, &Counts::from([((EVENTS[0].to_owned(), HOUR.to_owned()), 1)])).await?;
    Ok(())
}
