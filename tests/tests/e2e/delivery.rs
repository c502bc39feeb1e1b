//! The delivery of notifications: through the queue, in batches, and the change to the direct way and back.

use anyhow::{Context, Result, ensure};
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum};
use serde_json::json;
use tests::pipeline::Pipeline;
use tests::recount::Counts;
use tests::samples::gzip;
use tokio::task::JoinSet;

use crate::common::{HOUR, failure_messages, file_of, run_json, track, wait_for_failures};
use crate::{pipeline, steps, strict_pipeline, verdict};

/// Uploads objects at the same time, each with a shared event and one of its own; returns their counts.
async fn upload_burst(pipeline: &Pipeline<'_>, objects: usize) -> Result<Counts> {
    let s3 = pipeline.s3().await?;
    let mut uploads = JoinSet::new();
    for n in 0..objects {
        let file = gzip(format!("{}\n{}", track("shared"), track(&format!("own {n}"))).as_bytes());
        let put = s3.put_object().bucket(&pipeline.name).key(format!("segment-logs/x/1/{n}.gz"));
        uploads.spawn(put.body(file.into()).send());
    }
    while let Some(done) = uploads.join_next().await {
        done?.context("failed to upload")?;
    }
    let mut expected: Counts = (0..objects).map(|n| ((format!("own {n}"), HOUR.to_owned()), 1)).collect();
    expected.insert(("shared".to_owned(), HOUR.to_owned()), u64::try_from(objects)?);
    Ok(expected)
}

#[tokio::test]
async fn burst_is_counted_exactly_and_in_groups() -> Result<()> {
    for pipeline in [pipeline()?, strict_pipeline()?] {
        pipeline.expect(0, &["apply", "--yes"])?;
        let expected = upload_burst(&pipeline, 200).await?;
        pipeline.wait_for_counts(&expected).await?;
        wait_for_failures(&pipeline, 0).await?;
        let status = run_json(&pipeline, 0, &["status"])?;
        ensure!(status["waiting"].is_u64() && status["failures"] == 0, "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn paused_pipeline_keeps_notifications_until_it_resumes() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.expect(0, &["pause"])?;
    let expected = upload_burst(&pipeline, 3).await?;
    let plan = pipeline.expect(0, &["plan"])?;
    ensure!(steps(&plan.out).is_empty() && plan.out.contains("is paused: notifications wait in queue"), "{}", plan.out);
    let status = run_json(&pipeline, 3, &["status"])?;
    ensure!(status["waiting"] == 3 && status["findings"].to_string().contains("is paused"), "{status}");
    ensure!(status["oldest_waiting_seconds"].is_null(), "{status}");
    ensure!(pipeline.counts().await?.is_empty(), "a paused pipeline counts");
    // SQS sends its metrics to CloudWatch, which the local one does not.
    let queue = format!("{}-notifications", pipeline.name);
    let age = MetricDatum::builder().metric_name("ApproximateAgeOfOldestMessage").value(272.0);
    let age = age.dimensions(Dimension::builder().name("QueueName").value(queue).build()).build();
    let cloudwatch = aws_sdk_cloudwatch::Client::new(&pipeline.sdk().await?);
    cloudwatch.put_metric_data().namespace("AWS/SQS").metric_data(age).send().await?;
    let status = run_json(&pipeline, 3, &["status"])?;
    ensure!(status["oldest_waiting_seconds"] == 272, "{status}");
    // An apply neither resumes nor fails.
    pipeline.declare("[function]\nmemory_mb = 512")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(run_json(&pipeline, 3, &["status"])?["waiting"] == 3, "the apply resumed");
    pipeline.expect(0, &["resume"])?;
    pipeline.wait_for_counts(&expected).await?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not in sync");

    pipeline.declare("[notification]\nvia = \"function\"")?;
    let refused = pipeline.expect(1, &["pause"])?;
    ensure!(refused.err.contains("notifications go to the function directly"), "{}", refused.err);
    Ok(())
}

#[tokio::test]
async fn damaged_object_fails_alone_and_is_replayed() -> Result<()> {
    let pipeline = pipeline()?;
    // SQS moves a message when it would be delivered once more, six timeouts after the last delivery.
    pipeline.declare("[function]\ntimeout_seconds = 2\nretries = 0")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (file, mut expected) = file_of(2);
    pipeline.upload("segment-logs/x/1/cut.gz", &file[..file.len() / 2]).await?;
    let good = upload_burst(&pipeline, 10).await?;
    pipeline.wait_for_counts(&good).await?;
    wait_for_failures(&pipeline, 1).await?;
    let shown = run_json(&pipeline, 0, &["replay", "--dry-run"])?;
    ensure!(shown[0]["objects"] == json!(["segment-logs/x/1/cut.gz"]), "{shown}");
    let text = pipeline.expect(0, &["replay", "--dry-run"])?.out;
    ensure!(text.contains("the reason is in the function's log"), "{text}");
    ensure!(pipeline.counts().await? == good, "something else was counted");

    // A message that is no notification ends there too.
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let queue = sqs.get_queue_url().queue_name(format!("{}-notifications", pipeline.name)).send().await?.queue_url;
    sqs.send_message().set_queue_url(queue).message_body("hello").send().await?;
    wait_for_failures(&pipeline, 2).await?;
    expected.extend(good);
    pipeline.upload("segment-logs/x/1/cut.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await?;
    let replayed = pipeline.run(&["replay"])?;
    ensure!(replayed.code == Some(1) && replayed.out.contains("1 counted"), "{replayed:?}");
    ensure!(pipeline.counts().await? == expected, "counted again");
    Ok(())
}

#[tokio::test]
async fn queue_that_is_no_longer_declared_is_kept_until_it_is_pruned() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let expected = upload_burst(&pipeline, 3).await?;
    pipeline.wait_for_counts(&expected).await?;
    pipeline.declare("[notification]\nvia = \"function\"")?;
    let plan = pipeline.expect(0, &["plan"])?;
    let name = &pipeline.name;
    ensure!(steps(&plan.out) == [format!("  ~ notification {name}")], "{}", plan.out);
    pipeline.expect(0, &["apply", "--yes"])?;
    let pruned = pipeline.expect(0, &["apply", "--yes", "--prune"])?;
    let gone = [format!("  - queue {name}-notifications"), format!("  - event source mapping {name}-notifications")];
    ensure!(gone.iter().all(|step| pruned.out.contains(step)), "{}", pruned.out);
    pipeline.upload("segment-logs/y/1/a.gz", &gzip(track("direct").as_bytes())).await?;
    let mut more = expected.clone();
    more.insert(("direct".to_owned(), HOUR.to_owned()), 1);
    pipeline.wait_for_counts(&more).await?;
    // SQS refuses the name of a deleted queue for a minute, which apply waits for.
    pipeline.declare("")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.upload("segment-logs/y/1/b.gz", &gzip(track("queued").as_bytes())).await?;
    more.insert(("queued".to_owned(), HOUR.to_owned()), 1);
    pipeline.wait_for_counts(&more).await?;
    ensure!(failure_messages(&pipeline, 0).await?.is_empty(), "something failed");
    Ok(())
}
