//! `[stream]`: the stream of the ledger's changes and the destination of the ledger table, on the strict local AWS.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::{DestinationStatus, KinesisDataStreamDestination};
use aws_sdk_kinesis::types::{EncryptionType, ShardIteratorType, StreamMode, StreamModeDetails};
use serde_json::Value;
use tests::local_aws::REGION;
use tests::pipeline::{COUNT_TIMEOUT, Pipeline};

use crate::common::file_of;
use crate::drift::corrected;
use crate::strict::{assert_in_sync, assert_valid, report};
use crate::strict_kinds::{deployer, eventually, succeed};
use crate::{pipeline, steps, strict_pipeline, verdict};

fn stream_of(pipeline: &Pipeline<'_>) -> String {
    format!("{}-stream", pipeline.name)
}

fn arn(pipeline: &Pipeline<'_>, stream: &str) -> String {
    format!("arn:aws:kinesis:{REGION}:{}:stream/{stream}", pipeline.account)
}

async fn kinesis(pipeline: &Pipeline<'_>) -> Result<aws_sdk_kinesis::Client> {
    Ok(aws_sdk_kinesis::Client::new(&pipeline.sdk().await?))
}

async fn dynamodb(pipeline: &Pipeline<'_>) -> Result<aws_sdk_dynamodb::Client> {
    Ok(aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?))
}

/// Returns the status of each destination of the ledger table, by the ARN of its stream.
async fn destinations(pipeline: &Pipeline<'_>) -> Result<Vec<(String, DestinationStatus)>> {
    let request = dynamodb(pipeline).await?.describe_kinesis_streaming_destination();
    let answer = request.table_name(format!("{}-ledger", pipeline.name)).send().await?;
    let all = answer.kinesis_data_stream_destinations.unwrap_or_default().into_iter();
    let status = |one: KinesisDataStreamDestination| -> Result<_> {
        Ok((one.stream_arn.context("an ARN")?, one.destination_status.context("a status")?))
    };
    all.map(status).collect()
}

#[tokio::test]
async fn stream_is_planned_created_and_in_sync() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let stream = stream_of(&pipeline);
    pipeline.declare("[stream]\nretention_hours = 48")?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    for step in [format!("  + stream {stream}"), format!("  + stream destination {stream}")] {
        ensure!(steps(&plan).contains(&step.as_str()), "{step} is not in {plan}");
    }
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(&pipeline)?;
    let answer = kinesis(&pipeline).await?.describe_stream_summary().stream_name(&stream).send().await?;
    let live = answer.stream_description_summary.context("a stream")?;
    ensure!(live.stream_mode_details.as_ref().map(|mode| &mode.stream_mode) == Some(&StreamMode::OnDemand), "{live:?}");
    ensure!(live.retention_period_hours == 48 && live.key_id.as_deref() == Some("alias/aws/kinesis"), "{live:?}");
    let found = destinations(&pipeline).await?;
    ensure!(found == [(arn(&pipeline, &stream), DestinationStatus::Active)], "{found:?}");
    let fired = &report(&pipeline)?["fired"];
    for behaviour in ["streams_change_slowly", "streams_are_created_with_tags", "destinations_change_slowly"] {
        ensure!(fired[behaviour].as_u64() > Some(0), "{behaviour}: {fired}");
    }
    assert_valid(&pipeline)
}

#[tokio::test]
async fn stream_is_created_where_tags_are_ignored() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[stream]")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(&pipeline)?;
    pipeline.expect(0, &["destroy", "--yes", "--delete-data"]).map(drop)
}

#[tokio::test]
async fn stream_drift_is_shown_and_corrected() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let name = stream_of(&pipeline);
    pipeline.declare("[stream]\nretention_hours = 48")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let kinesis = kinesis(&pipeline).await?;
    let stream = format!("stream {name}");
    let corrected = |setting: &str, from: &str, to: &str| corrected(&pipeline, &stream, setting, from, to);

    let request = kinesis.decrease_stream_retention_period().stream_name(&name).retention_period_hours(24);
    eventually(|| request.clone().send()).await?;
    corrected("retention_hours", "24", "48")?;
    let request = kinesis.increase_stream_retention_period().stream_name(&name).retention_period_hours(72);
    eventually(|| request.clone().send()).await?;
    corrected("retention_hours", "72", "48")?;
    let request = kinesis.stop_stream_encryption().stream_name(&name).encryption_type(EncryptionType::Kms);
    let request = request.key_id("alias/aws/kinesis");
    eventually(|| request.clone().send()).await?;
    corrected("encryption", "(not set)", "\"alias/aws/kinesis\"")?;
    let provisioned = StreamModeDetails::builder().stream_mode(StreamMode::Provisioned).build()?;
    let request = kinesis.update_stream_mode().stream_arn(arn(&pipeline, &name)).stream_mode_details(provisioned);
    eventually(|| request.clone().send()).await?;
    corrected("mode", "\"PROVISIONED\"", "\"ON_DEMAND\"")?;
    let request = kinesis.remove_tags_from_stream().stream_name(&name).tag_keys("managed-by");
    eventually(|| request.clone().send()).await?;
    corrected("tags", "tags.managed-by  (not set)", "-> \"provisioner\"")?;

    let request = dynamodb(&pipeline).await?.disable_kinesis_streaming_destination();
    let request = request.table_name(format!("{}-ledger", pipeline.name)).stream_arn(arn(&pipeline, &name));
    eventually(|| request.clone().send()).await?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(steps(&plan) == [format!("  + stream destination {name}")], "{plan}");
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(&pipeline).map(drop)
}

#[tokio::test]
async fn longer_retention_is_kept_unless_a_shorter_one_is_declared() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare("[stream]\nretention_hours = 168")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.declare("[stream]")?;
    let plan = assert_in_sync(&pipeline)?;
    ensure!(plan.contains("retention_hours is 168, which protects more than the default 24, and is kept"), "{plan}");
    pipeline.declare("[stream]\nretention_hours = 24")?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(plan.contains("retention_hours lowers protection: records of the stream are deleted sooner"), "{plan}");
    Ok(())
}

#[tokio::test]
async fn undeclared_stream_is_pruned_after_its_destination() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let stream = stream_of(&pipeline);
    pipeline.declare("[stream]")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.declare("")?;
    // The counter no longer says in its markers what it adds.
    pipeline.expect(0, &["apply", "--yes"])?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(verdict(&plan)? == "No changes. 2 resources are orphaned.", "{plan}");
    for orphan in [format!("stream {stream}"), format!("stream destination {stream}")] {
        ensure!(plan.contains(&format!("note: {orphan} is orphaned")), "{orphan}: {plan}");
    }
    let pruned = pipeline.expect(0, &["apply", "--yes", "--prune"])?.out;
    ensure!(pruned.contains("Done: 0 created, 0 updated, 2 deleted"), "{pruned}");
    let found = destinations(&pipeline).await?;
    ensure!(found == [(arn(&pipeline, &stream), DestinationStatus::Disabled)], "{found:?}");
    let gone = kinesis(&pipeline).await?.describe_stream_summary().stream_name(&stream).send().await;
    ensure!(gone.as_ref().is_err_and(|error| format!("{error:?}").contains("ResourceNotFound")), "{gone:?}");
    let plan = assert_in_sync(&pipeline)?;
    ensure!(!plan.contains("orphaned"), "{plan}");
    // The names are free again.
    pipeline.declare("[stream]")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(&pipeline).map(drop)
}

#[tokio::test]
async fn stream_is_destroyed_without_the_ledger() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let stream = stream_of(&pipeline);
    pipeline.declare("[stream]")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let destroyed = pipeline.expect(0, &["destroy", "--yes"])?.out;
    for step in [format!("  - stream {stream}"), format!("  - stream destination {stream}")] {
        ensure!(steps(&destroyed).contains(&step.as_str()), "{step} is not in {destroyed}");
    }
    ensure!(kinesis(&pipeline).await?.list_streams().send().await?.stream_names.is_empty(), "a stream is left");
    let found = destinations(&pipeline).await?;
    ensure!(found == [(arn(&pipeline, &stream), DestinationStatus::Disabled)], "{found:?}");
    pipeline.expect(0, &["destroy", "--yes", "--delete-data"]).map(drop)
}

#[tokio::test]
async fn table_that_copies_to_another_stream_is_a_conflict() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare("[stream]")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.declare("[stream]\nname = \"changes\"")?;
    let refused = pipeline.expect(1, &["apply", "--yes", "--prune"])?;
    let why = format!("copies its changes to {}, and DynamoDB allows one", arn(&pipeline, &stream_of(&pipeline)));
    ensure!(refused.err.contains("stream destination changes cannot be enabled"), "{refused:?}");
    ensure!(refused.err.contains(&why) && !refused.out.contains("Done"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn changes_of_the_ledger_reach_the_stream() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare("[stream]")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (file, expected) = file_of(3);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await?;
    let (kinesis, stream) = (kinesis(&pipeline).await?, stream_of(&pipeline));
    let shards = kinesis.list_shards().stream_name(&stream).send().await?.shards.unwrap_or_default();
    let started = Instant::now();
    loop {
        for shard in &shards {
            let request = kinesis.get_shard_iterator().stream_name(&stream).shard_id(&shard.shard_id);
            let iterator = request.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?.shard_iterator;
            let records = kinesis.get_records().set_shard_iterator(iterator).send().await?.records;
            for record in records {
                let change: Value = serde_json::from_slice(record.data.as_ref())?;
                if change["dynamodb"]["NewImage"]["object"]["S"].is_string() {
                    return Ok(());
                }
            }
        }
        ensure!(started.elapsed() < COUNT_TIMEOUT, "no change of the ledger is in the stream");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn printed_policies_suffice_for_a_stream() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare("[stream]\nretention_hours = 48")?;
    let deployer = deployer(&pipeline).await?;
    let plan = succeed(&deployer, &["plan"])?;
    ensure!(!plan.contains("the caller lacks"), "{plan}");
    succeed(&deployer, &["apply", "--yes"])?;
    let plan = succeed(&deployer, &["plan"])?;
    ensure!(verdict(&plan)? == "No changes.", "{plan}");
    succeed(&deployer, &["destroy", "--yes", "--delete-data"])?;
    // The index of tags lists the deleted stream.
    let applied = succeed(&deployer, &["apply", "--yes"])?;
    ensure!(!applied.contains("orphaned"), "{applied}");
    Ok(())
}
