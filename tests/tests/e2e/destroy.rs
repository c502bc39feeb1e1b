//! `provisioner destroy`: data stays unless `--delete-data` is given.

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tests::pipeline::{DATA_RESOURCES, RESOURCES};
use tests::recount::Counts;
use tests::samples::gzip;

use crate::common::{HOUR, track};
use crate::{pipeline, steps, verdict};

#[tokio::test]
async fn destroy_without_delete_data_keeps_data() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.upload("segment-logs/x/1/kept.gz", &gzip(track("kept").as_bytes())).await?;
    pipeline.wait_for_counts(&Counts::from([(("kept".to_owned(), HOUR.to_owned()), 1)])).await?;

    let destroyed = pipeline.expect(0, &["destroy", "--yes"])?;
    let rest = RESOURCES - DATA_RESOURCES;
    ensure!(steps(&destroyed.out).len() == rest, "{}", destroyed.out);
    ensure!(destroyed.out.matches("holds data and is kept").count() == DATA_RESOURCES, "{}", destroyed.out);
    let refused = pipeline.expect(1, &["plan"])?;
    ensure!(refused.out.contains(&format!("Plan refused: {DATA_RESOURCES} conflicts.")), "{}", refused.out);
    let left = pipeline.expect(0, &["plan", "--adopt"])?;
    // An invocation in flight can recreate the log group by writing to it after its deletion.
    let left = verdict(&left.out)?;
    let recreated = format!("Plan: {} to create, 1 to update", rest - 1);
    ensure!(left.starts_with(&format!("Plan: {rest} to create")) || left.starts_with(&recreated), "{left}");

    let name = &pipeline.name;
    let destroyed = pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?.out;
    for note in [
        format!("note: bucket {name} is deleted with 1 object"),
        format!("note: table {name}-counts is deleted with about 1 item "),
        format!("note: table {name}-daily is deleted with about 1 item "),
        // The record may not be written yet.
        format!("note: table {name}-ledger is deleted with about "),
    ] {
        ensure!(destroyed.contains(&note), "{note}\n{destroyed}");
    }
    ensure!(destroyed.contains("its deletion protection is turned off first"), "{destroyed}");
    let plan = pipeline.expect(0, &["plan"])?;
    let all = format!("Plan: {RESOURCES} to create, 0 to update, 0 to delete.");
    ensure!(verdict(&plan.out)? == all, "{}", plan.out);
    let again = pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    ensure!(verdict(&again.out)? == "No changes.", "{}", again.out);
    Ok(())
}

#[tokio::test]
async fn destroy_of_a_large_bucket_deletes_every_version() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[bucket]\nversioning = true\n[function]\nmax_concurrency = 1")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let s3 = pipeline.s3().await?;
    // Three versions each, the last a delete marker; a page of a listing has a thousand.
    let versions = stream::iter(0..500).map(|n| {
        let (s3, bucket) = (s3.clone(), pipeline.name.clone());
        async move {
            let key = format!("not-counted/{n}");
            for body in ["a", "b"] {
                let put = s3.put_object().bucket(&bucket).key(&key).body(body.as_bytes().to_vec().into());
                put.send().await.context("failed to put")?;
            }
            s3.delete_object().bucket(&bucket).key(&key).send().await.context("failed to delete")?;
            anyhow::Ok(())
        }
    });
    versions.buffer_unordered(16).try_collect::<Vec<()>>().await?;

    let destroyed = pipeline.expect(0, &["destroy", "--yes", "--delete-data", "--format", "json"])?;
    let last = destroyed.out.lines().rfind(|line| line.contains("\"progress\"")).context("no progress")?;
    let last: serde_json::Value = serde_json::from_str(last)?;
    ensure!(last["done"] == 1500 && last["total"] == 1500, "{last}");
    ensure!(s3.head_bucket().bucket(&pipeline.name).send().await.is_err(), "the bucket still exists");
    Ok(())
}
