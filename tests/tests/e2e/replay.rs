//! `provisioner replay`: messages of the failure queue are shown, processed again, and deleted once counted.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::recount::{self, Counts};
use tests::samples::gzip;

use crate::common::{file_of, remove_notification, run_json, s3_notification, track, wait_for_failures};
use crate::pipeline;

#[tokio::test]
async fn replay_of_failures_deletes_the_counted_ones() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[notification]\nvia = \"function\"\n[function]\nretries = 0")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let empty = pipeline.expect(0, &["replay"])?;
    ensure!(empty.out == "The failure queue is empty.\n", "{}", empty.out);

    let (good, expected) = file_of(150);
    let cut = &good[..good.len() - 20];
    pipeline.upload("segment-logs/x/1/a b.gz", cut).await?;
    pipeline.upload("segment-logs/x/1/gone.gz", cut).await?;
    wait_for_failures(&pipeline, 2).await?;
    pipeline.s3().await?.delete_object().bucket(&pipeline.name).key("segment-logs/x/1/gone.gz").send().await?;
    let shown = pipeline.expect(0, &["replay", "--dry-run"])?.out;
    for part in ["segment-logs/x/1/a b.gz", "ObjectDamaged: failed to inflate", "attempts\n", "    not counted"] {
        ensure!(shown.contains(part), "{part} is not in {shown}");
    }
    ensure!(shown.contains("gone.gz is no longer in the bucket"), "{shown}");
    ensure!(shown.contains("2 messages: 0 counted, 2 not counted."), "{shown}");

    // Still damaged: the message stays, and is not duplicated.
    let run = pipeline.expect(1, &["replay"])?;
    ensure!(
        run.out.contains("failed again: ObjectDamaged")
            && run.err.contains("2 of 2 messages remain in the failure queue"),
        "{run:?}"
    );
    // The object is replaced by a complete one, without a notification.
    remove_notification(&pipeline).await?;
    pipeline.upload("segment-logs/x/1/a b.gz", &good).await?;
    let run = pipeline.expect(1, &["replay"])?;
    ensure!(
        run.out.contains("counted now") && run.out.contains("2 messages: 1 counted, 1 not counted."),
        "{}",
        run.out
    );
    ensure!(pipeline.counts().await? == expected, "the counts differ from the recount");

    // No uncounted message is deleted without confirmation.
    let asked = pipeline.expect(1, &["replay", "--purge"])?;
    ensure!(asked.out.contains("gone.gz") && asked.err.contains("nothing was deleted"), "{asked:?}");
    let purged = pipeline.expect(0, &["replay", "--purge", "--yes"])?;
    ensure!(purged.out.contains("1 message: 0 counted, 1 deleted uncounted, 0 not counted."), "{}", purged.out);
    ensure!(pipeline.expect(0, &["replay"])?.out == empty.out, "a message is left");
    Ok(())
}

#[tokio::test]
async fn replay_of_a_multi_object_message_deletes_it_and_keeps_foreign_messages() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    remove_notification(&pipeline).await?;
    let mut expected = Counts::new();
    for (key, event) in [("a", "first"), ("b", "second")] {
        let bytes = gzip(track(event).as_bytes());
        recount::add(&mut expected, &bytes)?;
        pipeline.upload(&format!("segment-logs/x/1/{key}.gz"), &bytes).await?;
    }
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    let payload = s3_notification(&pipeline.name, &["segment-logs/x/1/a.gz", "segment-logs/x/1/b.gz"]);
    let record = json!({
        "version": "1.0", "timestamp": "2015-08-04T12:34:56.789Z",
        "requestContext": { "condition": "RetriesExhausted", "approximateInvokeCount": 3 },
        "requestPayload": payload, "responsePayload": { "errorType": "CountsUnwritable", "errorMessage": "throttled" },
    });
    for body in [record.to_string(), "hello \u{202e}".to_owned()] {
        sqs.send_message().set_queue_url(url.clone()).message_body(body).send().await?;
    }
    let found: Value = run_json(&pipeline, 1, &["replay"])?;
    let states: BTreeSet<&str> =
        found.as_array().context("messages")?.iter().filter_map(|entry| entry["state"]["status"].as_str()).collect();
    ensure!(states == ["counted", "unknown"].into(), "{found}");
    ensure!(pipeline.counts().await? == expected, "the counts differ");
    let left = pipeline.expect(0, &["replay", "--dry-run"])?.out;
    ensure!(left.contains("1 message: 0 counted, 1 not counted.") && !left.contains('\u{202e}'), "{left:?}");
    Ok(())
}

#[tokio::test]
async fn replayed_recount_counts_recorded_objects_again() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (file, expected) = file_of(3);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await?;
    run_json(&pipeline, 0, &["backfill"])?;
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    let mut body = s3_notification(&pipeline.name, &["segment-logs/x/1/a.gz"]);
    // A notification of a recorded object has nothing to do; a recount may have been killed halfway.
    for (recount, status) in [(None, "counted_before"), (Some("one"), "counted"), (Some("one"), "counted_before")] {
        body["recount"] = recount.into();
        sqs.send_message().set_queue_url(url.clone()).message_body(body.to_string()).send().await?;
        let messages = run_json(&pipeline, 0, &["replay"])?;
        ensure!(messages[0]["state"]["status"] == status, "{recount:?}: {messages}");
        ensure!(pipeline.counts().await? == expected, "{recount:?} changed the counts");
    }
    Ok(())
}
