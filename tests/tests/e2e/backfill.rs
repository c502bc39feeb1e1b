//! `provisioner backfill`: objects from before the notification are counted, each version once.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use serde_json::Value;
use tests::pipeline::{COUNT_TIMEOUT, CommandOutput, Pipeline, by_day};
use tests::recount::{self, Counts};
use tests::samples::{self, gzip};
use tokio::task::JoinSet;

use crate::common::{file_of, remove_notification, run_json, send_signal, track, wait_for_failures};
use crate::{pipeline, strict_pipeline, verdict};

async fn upload_all(pipeline: &Pipeline<'_>, files: Vec<(String, Vec<u8>)>) -> Result<()> {
    let s3 = pipeline.s3().await?;
    let mut uploads = JoinSet::new();
    for (key, bytes) in files {
        uploads.spawn(s3.put_object().bucket(&pipeline.name).key(key).body(bytes.into()).send());
    }
    while let Some(done) = uploads.join_next().await {
        done?.context("failed to upload")?;
    }
    Ok(())
}

#[tokio::test]
async fn backfill_of_existing_objects_counts_each_once() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    // One object of many chunks that is already counted, objects from before the notification, and keys outside of it.
    let (large, mut expected) = file_of(500);
    pipeline.upload("segment-logs/x/0/large.gz", &large).await?;
    pipeline.wait_for_counts(&expected).await?;
    remove_notification(&pipeline).await?;
    let mut files = Vec::new();
    for sample in samples::generate(7, chrono::Utc::now(), 120, 20) {
        recount::add(&mut expected, &sample.bytes)?;
        files.push((sample.key, sample.bytes));
    }
    let odd = gzip(track("odd key").as_bytes());
    recount::add(&mut expected, &odd)?;
    files.push(("segment-logs/x/a b+ä/%41?.gz".to_owned(), odd));
    files.push(("segment-logs/x/dummy-object.txt".to_owned(), b"This is a test.".to_vec()));
    files.push(("elsewhere/a.gz".to_owned(), gzip(track("outside of the prefix").as_bytes())));
    upload_all(&pipeline, files).await?;

    let dry = run_json(&pipeline, 0, &["backfill", "--dry-run"])?;
    let of =
        |tally: &Value| ["listed", "left_out", "counted_before", "due", "sent", "counted"].map(|n| tally[n].as_u64());
    ensure!(of(&dry) == [123, 1, 1, 121, 0, 0].map(Some), "{dry}");
    let part = run_json(&pipeline, 0, &["backfill", "--prefix", "segment-logs/x/"])?;
    ensure!(of(&part) == [3, 1, 1, 1, 1, 1].map(Some), "{part}");
    let text = pipeline.expect(0, &["backfill"])?.out;
    ensure!(text.contains("123 objects below segment-logs/") && text.contains("120  counted now"), "{text}");
    ensure!(pipeline.counts().await? == expected, "the counts differ from the recount");
    let again = run_json(&pipeline, 0, &["backfill"])?;
    ensure!(of(&again) == [123, 1, 122, 0, 0, 0].map(Some), "{again}");
    ensure!(pipeline.counts().await? == expected, "an object was counted twice");

    // Selected by the time of upload, which is within the last minutes.
    let none = run_json(&pipeline, 0, &["backfill", "--to", "yesterday"])?;
    ensure!(of(&none) == [123, 123, 0, 0, 0, 0].map(Some), "{none}");
    let all = run_json(&pipeline, 0, &["backfill", "--from", "yesterday", "--tz", "Asia/Tokyo"])?;
    ensure!(of(&all) == [123, 1, 122, 0, 0, 0].map(Some), "{all}");
    let after = run_json(&pipeline, 0, &["backfill", "--start-after", "segment-logs/x/a"])?;
    ensure!(after["listed"] == 2, "{after}");

    let wrong = pipeline.expect(1, &["backfill", "--prefix", "elsewhere/"])?;
    ensure!(wrong.err.contains("begin it with segment-logs/"), "{}", wrong.err);
    let wrong = pipeline.expect(1, &["backfill", "--from", "today", "--to", "yesterday"])?;
    ensure!(wrong.err.contains("pass a --from that is earlier than --to"), "{}", wrong.err);
    let wrong = pipeline.expect(1, &["backfill", "--from", "soon"])?;
    ensure!(wrong.err.contains("--from soon cannot be used"), "{}", wrong.err);
    Ok(())
}

#[tokio::test]
async fn backfill_of_existing_versions_counts_each_once() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[bucket]\nversioning = true")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let s3 = pipeline.s3().await?;
    let versions = |status: BucketVersioningStatus| {
        let configuration = VersioningConfiguration::builder().status(status).build();
        s3.put_bucket_versioning().bucket(&pipeline.name).versioning_configuration(configuration).send()
    };
    let mut expected = Counts::new();
    let mut file = |event: &str| -> Result<Vec<u8>> {
        let bytes = gzip(track(event).as_bytes());
        recount::add(&mut expected, &bytes)?;
        Ok(bytes)
    };
    // The first version is counted by the notification; four more are uploaded without it, two of them while versioning
    // is suspended.
    let key = "segment-logs/x/1/a.gz";
    pipeline.upload(key, &file("counted")?).await?;
    let started = Instant::now();
    while pipeline.counts().await?.is_empty() {
        ensure!(started.elapsed() < COUNT_TIMEOUT, "the first version was not counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    remove_notification(&pipeline).await?;
    pipeline.upload(key, &file("second")?).await?;
    versions(BucketVersioningStatus::Suspended).await?;
    pipeline.upload(key, &file("without a version")?).await?;
    pipeline.upload("segment-logs/x/1/b.gz", &file("latest without a version")?).await?;
    versions(BucketVersioningStatus::Enabled).await?;
    pipeline.upload(key, &file("last")?).await?;
    let first = run_json(&pipeline, 0, &["backfill"])?;
    ensure!(first["listed"] == 5 && first["counted_before"] == 1 && first["counted"] == 4, "{first}");
    ensure!(pipeline.counts().await? == expected, "{:?}", pipeline.counts().await?);
    let again = run_json(&pipeline, 0, &["backfill"])?;
    ensure!(again["counted_before"] == 5 && again["sent"] == 0, "{again}");
    Ok(())
}

#[tokio::test]
async fn backfill_after_interruption_continues() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    remove_notification(&pipeline).await?;
    let mut expected = Counts::new();
    let mut files = Vec::new();
    for sample in samples::generate(8, chrono::Utc::now(), 60, 2) {
        recount::add(&mut expected, &sample.bytes)?;
        files.push((sample.key, sample.bytes));
    }
    upload_all(&pipeline, files).await?;
    let mut command = pipeline.command(&["backfill", "--rate", "10"])?;
    let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let started = Instant::now();
    while pipeline.counts().await?.is_empty() {
        ensure!(started.elapsed() < COUNT_TIMEOUT, "no object was counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    send_signal("TERM", run.id())?;
    let run = CommandOutput::of(&run.wait_with_output()?);
    ensure!(run.code == Some(143) && run.err.contains("run the same command again to continue"), "{run:?}");
    ensure!(run.out.contains("60 objects below segment-logs/"), "{}", run.out);
    let rest = run_json(&pipeline, 0, &["backfill", "--rate", "1000"])?;
    ensure!(rest["counted_before"].as_u64().is_some_and(|n| n > 0 && n < 60), "{rest}");
    ensure!(pipeline.counts().await? == expected, "the counts differ from the recount");
    Ok(())
}

#[tokio::test]
async fn change_of_the_prefix_loses_no_file_below_the_old_one() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let declare = |prefix: &str| {
        pipeline.declare(&format!(
            "[notification]\nvia = \"function\"\nprefix = \"{prefix}\"\n[function]\nretries = 0\nmax_concurrency = 5"
        ))
    };
    declare("segment-logs/")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let mut expected = Counts::new();
    let mut file = |event: &str| -> Result<Vec<u8>> {
        let bytes = gzip(track(event).as_bytes());
        recount::add(&mut expected, &bytes)?;
        Ok(bytes)
    };
    // A file that is in the failure queue while the prefix changes, and one that has no notification.
    let waiting = file("waiting")?;
    pipeline.upload("segment-logs/x/1/waiting.gz", &waiting[..10]).await?;
    wait_for_failures(&pipeline, 1).await?;
    pipeline.upload("segment-logs/x/1/waiting.gz", &waiting).await?;
    let unnoticed = file("unnoticed")?;
    let new = file("new")?;
    declare("events/")?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(plan.contains("it may read files below the earlier prefix segment-logs/ until"), "{plan}");
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "the earlier prefix is drift");
    pipeline.upload("segment-logs/x/1/unnoticed.gz", &unnoticed).await?;
    pipeline.upload("events/x/1/new.gz", &new).await?;
    pipeline.expect(0, &["replay"])?;
    let tally = run_json(&pipeline, 0, &["backfill", "--prefix", "segment-logs/"])?;
    ensure!(tally["listed"] == 2 && tally["due"] == tally["counted"], "{tally}");
    pipeline.wait_for_counts(&expected).await?;
    let wrong = pipeline.expect(1, &["backfill", "--prefix", "elsewhere/"])?;
    ensure!(wrong.err.contains("begin it with events/ or segment-logs/"), "{}", wrong.err);
    Ok(())
}

#[tokio::test]
async fn recount_adds_the_difference_of_another_rule_once() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let declare = |types: &str| pipeline.declare(&format!("[rollup]\ncount = [{types}]"));
    let line = |kind: &str, n: usize| {
        format!(
            "{{\"type\":\"{kind}\",\"event\":\"Signed Up\",\"messageId\":\"{n}\",\"timestamp\":\"2015-08-04T12:34:56Z\"}}\n"
        )
    };
    let counts = |track: u64, page: u64| {
        let of = |event: &str, count| ((event.to_owned(), "2015-08-04T12:00:00Z".to_owned()), count);
        Counts::from([of("Signed Up", track), of("page", page)])
    };
    let without_zeros = |mut counts: Counts| {
        counts.retain(|_, count| *count != 0);
        counts
    };
    declare("\"track\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    // Two files have the same content.
    for (n, key) in ["1/0", "1/1", "1/2", "1/3", "2/4", "2/copy"].into_iter().enumerate() {
        let n = n.min(4);
        let bytes = gzip([line("track", n), line("page", n)].concat().as_bytes());
        pipeline.upload(&format!("segment-logs/x/{key}.gz"), &bytes).await?;
    }
    pipeline.wait_for_counts(&without_zeros(counts(5, 0))).await?;
    run_json(&pipeline, 0, &["backfill"])?;

    // Another rule changes nothing of what is counted, until a recount.
    declare("\"track\", \"page\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let none = run_json(&pipeline, 0, &["backfill"])?;
    ensure!(none["due"] == 0, "{none}");
    let dry = run_json(&pipeline, 0, &["backfill", "--recount", "--dry-run"])?;
    ensure!(dry["due"] == 6 && dry["sent"] == 0, "{dry}");
    let part = run_json(&pipeline, 0, &["backfill", "--recount", "--prefix", "segment-logs/x/1/"])?;
    ensure!(part["due"] == 4 && part["counted"] == 4, "{part}");
    ensure!(pipeline.counts().await? == counts(5, 4), "the difference of a part is wrong");
    for _ in 0..2 {
        let all = run_json(&pipeline, 0, &["backfill", "--recount", "--from", "yesterday"])?;
        ensure!(all["due"] == 6 && all["counted"] == 6, "{all}");
        ensure!(pipeline.counts().await? == counts(5, 5), "the difference is wrong");
    }
    // Less is counted, too.
    declare("\"page\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let text = pipeline.expect(0, &["backfill", "--recount"])?.out;
    ensure!(text.contains("6  counted now"), "{text}");
    ensure!(without_zeros(pipeline.counts().await?) == without_zeros(counts(0, 5)), "the difference is wrong");
    ensure!(without_zeros(pipeline.daily().await?) == by_day(&without_zeros(counts(0, 5))), "the days are wrong");
    let top = run_json(&pipeline, 0, &["top", "--from", "2015-08-04", "--to", "2015-08-05"])?;
    ensure!(top["distinct"] == 1 && top["total"] == 5, "{top}");
    Ok(())
}

#[tokio::test]
async fn object_that_the_ledger_may_have_forgotten_is_left_out_by_name() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare("[bucket]\nexpire_days = 30")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    // Objects that live longer from now on are older than what the ledger knows of them.
    pipeline.declare("[bucket]\nexpire_days = 90")?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(plan.contains("ledger-life") && plan.contains("95 until "), "{plan}");
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "the memory is drift");

    remove_notification(&pipeline).await?;
    pipeline.upload("segment-logs/x/1/new.gz", &gzip(track("new").as_bytes())).await?;
    let dry = run_json(&pipeline, 0, &["backfill", "--dry-run"])?;
    ensure!(dry["due"] == 1 && dry["forgotten"] == 0, "{dry}");
    // As if the object were older than the earlier life.
    let dynamodb = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    let arn = format!("arn:aws:dynamodb:us-east-1:{}:table/{}-ledger", pipeline.account, pipeline.name);
    let tag =
        aws_sdk_dynamodb::types::Tag::builder().key("ledger-life").value("0 until 2099-01-01 then 215").build()?;
    dynamodb.tag_resource().resource_arn(arn).tags(tag).send().await?;
    for recount in [&[][..], &["--recount"]] {
        let tally = run_json(&pipeline, 0, &[&["backfill"], recount].concat())?;
        ensure!(tally["due"] == 0 && tally["forgotten"] == 1, "{tally}");
        ensure!(tally["forgotten_examples"] == serde_json::json!(["segment-logs/x/1/new.gz"]), "{tally}");
    }
    let text = pipeline.expect(0, &["backfill"])?.out;
    ensure!(text.contains("left out: perhaps counted") && !text.contains("Everything is counted"), "{text}");
    Ok(())
}
