//! A pipeline at work: proof, state, objects from before, and failures, by the built commands alone.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::types::{BucketVersioningStatus, NotificationConfiguration, VersioningConfiguration};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};
use tests::pipeline::{COUNTED, Pipeline, Ran};
use tests::recount::{self, Counts};
use tests::samples::{self, gzip};
use tokio::task::JoinSet;

use crate::deployer::User;
use crate::exactly_once::{file_of, notification, track};
use crate::patience::signal;
use crate::pipeline;

/// Takes the bucket's notification away, so that nothing is counted by itself.
async fn silence(pipeline: &Pipeline<'_>) -> Result<()> {
    let nothing = NotificationConfiguration::builder().build();
    let request = pipeline.s3().await?.put_bucket_notification_configuration().bucket(&pipeline.name);
    request.notification_configuration(nothing).send().await?;
    Ok(())
}

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

fn json_of(pipeline: &Pipeline<'_>, code: i32, args: &[&str]) -> Result<Value> {
    let out = pipeline.expect(code, &[args, &["--format", "json"]].concat())?.out;
    serde_json::from_str(&out).with_context(|| format!("{args:?} printed {out}"))
}

/// What is in the bucket, in the ledger and in the counts.
async fn traces(pipeline: &Pipeline<'_>) -> Result<(usize, usize, Counts)> {
    let s3 = pipeline.s3().await?;
    let there = s3.list_object_versions().bucket(&pipeline.name).send().await?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    let ledger = dynamodb.scan().table_name(format!("{}-ledger", pipeline.name)).send().await?;
    let objects = there.versions().len() + there.delete_markers().len();
    Ok((objects, ledger.items().len(), pipeline.counts().await?))
}

#[tokio::test]
async fn a_deployment_is_proved_and_nothing_of_the_proof_stays() -> Result<()> {
    let pipeline = pipeline()?;
    let declared = [
        "",
        "[bucket]\nversioning = true",
        "[rollup]\ncount = [\"page\", \"screen\"]",
        "[notification]\nprefix = \"a b/ä+/\"\nsuffix = \".json\"",
    ];
    for declared in declared {
        pipeline.declare(declared)?;
        let ran = pipeline.expect(0, &["apply", "--yes", "--verify"])?;
        ensure!(ran.out.contains("The pipeline works: an object was counted"), "{}", ran.out);
        let verified = json_of(&pipeline, 0, &["verify"])?;
        ensure!(verified["event"] == "verified", "{verified}");
        ensure!(verified["milliseconds"].as_u64().is_some_and(|ms| ms < 60_000), "{verified}");
        let traces = traces(&pipeline).await?;
        ensure!(traces == (0, 0, Counts::new()), "{declared}: {traces:?}");
    }
    Ok(())
}

#[tokio::test]
async fn proofs_side_by_side_and_real_counts_do_not_meet() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (file, expected) = file_of(3);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.counted(&expected).await?;
    let runs = (0..4).map(|_| pipeline.command(&["verify"])?.stdout(Stdio::piped()).spawn().context("verify"));
    for run in runs.collect::<Result<Vec<_>>>()? {
        let output = run.wait_with_output()?;
        ensure!(output.status.success(), "{output:?}");
    }
    ensure!(traces(&pipeline).await? == (1, 1, expected), "a proof left something, or took something away");
    Ok(())
}

#[tokio::test]
async fn a_broken_chain_is_shown_link_by_link() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[function]\nretries = 0")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let broken = |ran: &Ran| -> BTreeSet<String> {
        let lines = ran.err.lines().filter_map(|line| line.trim().strip_prefix("BROKEN"));
        lines.map(|line| line.trim().split(':').next().unwrap_or_default().to_owned()).collect()
    };

    silence(&pipeline).await?;
    let ran = pipeline.expect(1, &["verify", "--timeout", "2"])?;
    let name = &pipeline.name;
    ensure!(broken(&ran) == [format!("notification {name}"), "invocation".to_owned()].into(), "{}", ran.err);
    ensure!(ran.err.contains("provisioner apply") && ran.err.contains("was not counted within 2 s"), "{}", ran.err);
    ensure!(traces(&pipeline).await? == (0, 0, Counts::new()), "something stays");

    // The function is run and may not do its work: its own words are shown.
    pipeline.expect(0, &["apply", "--yes"])?;
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let role = format!("{name}-function");
    let policies = iam.list_role_policies().role_name(&role).send().await?.policy_names;
    for policy in &policies {
        iam.delete_role_policy().role_name(&role).policy_name(policy).send().await?;
    }
    let ran = pipeline.expect(1, &["verify", "--timeout", "15"])?;
    ensure!(broken(&ran) == [format!("role {role}"), "invocation".to_owned()].into(), "{}", ran.err);
    ensure!(ran.err.contains("AccessDenied"), "{}", ran.err);
    ensure!(traces(&pipeline).await? == (0, 0, Counts::new()), "something stays");
    Ok(())
}

#[tokio::test]
async fn a_proof_that_is_stopped_takes_its_object_away() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    silence(&pipeline).await?;
    let mut command = pipeline.command(&["verify"])?;
    let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let started = Instant::now();
    while traces(&pipeline).await?.0 == 0 {
        ensure!(started.elapsed() < COUNTED, "nothing was uploaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    signal("INT", run.id())?;
    let ran = Ran::of(&run.wait_with_output()?);
    ensure!(ran.code == Some(130) && ran.err.contains("what was uploaded is removed"), "{ran:?}");
    ensure!(traces(&pipeline).await?.0 == 0, "the object stays");
    Ok(())
}

#[tokio::test]
async fn objects_from_before_are_counted_once() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    // One of many chunks, counted before; what lies there from before the notification; what it does not name.
    let (large, mut expected) = file_of(500);
    pipeline.upload("segment-logs/x/0/large.gz", &large).await?;
    pipeline.counted(&expected).await?;
    silence(&pipeline).await?;
    let mut files = Vec::new();
    for sample in samples::make(7, chrono::Utc::now(), 120, 20) {
        recount::add(&mut expected, &sample.bytes)?;
        files.push((sample.key, sample.bytes));
    }
    let odd = gzip(track("odd key").as_bytes());
    recount::add(&mut expected, &odd)?;
    files.push(("segment-logs/x/a b+ä/%41?.gz".to_owned(), odd));
    files.push(("segment-logs/x/dummy-object.txt".to_owned(), b"This is a test.".to_vec()));
    files.push(("elsewhere/a.gz".to_owned(), gzip(track("not ours").as_bytes())));
    upload_all(&pipeline, files).await?;

    let dry = json_of(&pipeline, 0, &["backfill", "--dry-run"])?;
    let of =
        |tally: &Value| ["listed", "left_out", "counted_before", "due", "sent", "counted"].map(|n| tally[n].as_u64());
    ensure!(of(&dry) == [123, 1, 1, 121, 0, 0].map(Some), "{dry}");
    let part = json_of(&pipeline, 0, &["backfill", "--prefix", "segment-logs/x/"])?;
    ensure!(of(&part) == [3, 1, 1, 1, 1, 1].map(Some), "{part}");
    let text = pipeline.expect(0, &["backfill"])?.out;
    ensure!(text.contains("123 objects under segment-logs/") && text.contains("120  counted now"), "{text}");
    ensure!(pipeline.counts().await? == expected, "the counts differ from the recount");
    let again = json_of(&pipeline, 0, &["backfill"])?;
    ensure!(of(&again) == [123, 1, 122, 0, 0, 0].map(Some), "{again}");
    ensure!(pipeline.counts().await? == expected, "something was counted twice");

    // By the time of upload, which was a moment ago.
    let none = json_of(&pipeline, 0, &["backfill", "--to", "yesterday"])?;
    ensure!(of(&none) == [123, 123, 0, 0, 0, 0].map(Some), "{none}");
    let all = json_of(&pipeline, 0, &["backfill", "--from", "yesterday", "--tz", "Asia/Tokyo"])?;
    ensure!(of(&all) == [123, 1, 122, 0, 0, 0].map(Some), "{all}");
    let behind = json_of(&pipeline, 0, &["backfill", "--start-after", "segment-logs/x/a"])?;
    ensure!(behind["listed"] == 2, "{behind}");

    let wrong = pipeline.expect(1, &["backfill", "--prefix", "elsewhere/"])?;
    ensure!(wrong.err.contains("notification.prefix: segment-logs/"), "{}", wrong.err);
    let wrong = pipeline.expect(1, &["backfill", "--from", "today", "--to", "yesterday"])?;
    ensure!(wrong.err.contains("let --from be earlier than --to"), "{}", wrong.err);
    let wrong = pipeline.expect(1, &["backfill", "--from", "soon"])?;
    ensure!(wrong.err.contains("--from soon cannot be used"), "{}", wrong.err);
    Ok(())
}

#[tokio::test]
async fn versions_from_before_are_counted_once() -> Result<()> {
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
    // Counted as it came; then three without a notification, one of them from while versions were off.
    let key = "segment-logs/x/1/a.gz";
    pipeline.upload(key, &file("counted")?).await?;
    let started = Instant::now();
    while pipeline.counts().await?.is_empty() {
        ensure!(started.elapsed() < COUNTED, "the first version was not counted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    silence(&pipeline).await?;
    pipeline.upload(key, &file("second")?).await?;
    versions(BucketVersioningStatus::Suspended).await?;
    pipeline.upload(key, &file("without a version")?).await?;
    pipeline.upload("segment-logs/x/1/b.gz", &file("latest without a version")?).await?;
    versions(BucketVersioningStatus::Enabled).await?;
    pipeline.upload(key, &file("last")?).await?;
    let first = json_of(&pipeline, 0, &["backfill"])?;
    ensure!(first["listed"] == 5 && first["counted_before"] == 1 && first["counted"] == 4, "{first}");
    ensure!(pipeline.counts().await? == expected, "{:?}", pipeline.counts().await?);
    let again = json_of(&pipeline, 0, &["backfill"])?;
    ensure!(again["counted_before"] == 5 && again["sent"] == 0, "{again}");
    Ok(())
}

#[tokio::test]
async fn a_backfill_that_is_stopped_goes_on_where_it_was() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    silence(&pipeline).await?;
    let mut expected = Counts::new();
    let mut files = Vec::new();
    for sample in samples::make(8, chrono::Utc::now(), 60, 2) {
        recount::add(&mut expected, &sample.bytes)?;
        files.push((sample.key, sample.bytes));
    }
    upload_all(&pipeline, files).await?;
    let mut command = pipeline.command(&["backfill", "--rate", "10"])?;
    let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let started = Instant::now();
    while pipeline.counts().await?.is_empty() {
        ensure!(started.elapsed() < COUNTED, "nothing was sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    signal("TERM", run.id())?;
    let ran = Ran::of(&run.wait_with_output()?);
    ensure!(ran.code == Some(143) && ran.err.contains("run the same command again to continue"), "{ran:?}");
    ensure!(ran.out.contains("60 objects under segment-logs/"), "{}", ran.out);
    let rest = json_of(&pipeline, 0, &["backfill", "--rate", "1000"])?;
    ensure!(rest["counted_before"].as_u64().is_some_and(|n| n > 0 && n < 60), "{rest}");
    ensure!(pipeline.counts().await? == expected, "the counts differ from the recount");
    Ok(())
}

#[tokio::test]
async fn failures_are_shown_run_again_and_removed_when_they_are_counted() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[function]\nretries = 0")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let empty = pipeline.expect(0, &["replay"])?;
    ensure!(empty.out == "The failure queue is empty.\n", "{}", empty.out);

    let (good, expected) = file_of(150);
    let cut = &good[..good.len() - 20];
    pipeline.upload("segment-logs/x/1/a b.gz", cut).await?;
    pipeline.upload("segment-logs/x/1/gone.gz", cut).await?;
    failed(&pipeline, 2).await?;
    pipeline.s3().await?.delete_object().bucket(&pipeline.name).key("segment-logs/x/1/gone.gz").send().await?;
    let looked = pipeline.expect(0, &["replay", "--dry-run"])?.out;
    for part in ["segment-logs/x/1/a b.gz", "ObjectDamaged: failed to inflate", "attempts\n", "    not counted"] {
        ensure!(looked.contains(part), "{part} is not in {looked}");
    }
    ensure!(looked.contains("gone.gz is not in the bucket any more"), "{looked}");
    ensure!(looked.contains("2 messages: 0 counted, 2 not."), "{looked}");

    // Still damaged: it stays, and is not there twice.
    let ran = pipeline.expect(1, &["replay"])?;
    ensure!(ran.out.contains("failed again: ObjectDamaged") && ran.err.contains("2 of 2 messages stay"), "{ran:?}");
    // Mended, with nobody told of it.
    silence(&pipeline).await?;
    pipeline.upload("segment-logs/x/1/a b.gz", &good).await?;
    let ran = pipeline.expect(1, &["replay"])?;
    ensure!(ran.out.contains("counted now") && ran.out.contains("2 messages: 1 counted, 1 not."), "{}", ran.out);
    ensure!(pipeline.counts().await? == expected, "the counts differ from the recount");

    // Nothing is deleted uncounted without a yes.
    let asked = pipeline.expect(1, &["replay", "--purge"])?;
    ensure!(asked.out.contains("gone.gz") && asked.err.contains("nothing was done"), "{asked:?}");
    let purged = pipeline.expect(0, &["replay", "--purge", "--yes"])?;
    ensure!(purged.out.contains("1 message: 0 counted, 1 deleted uncounted, 0 not."), "{}", purged.out);
    ensure!(pipeline.expect(0, &["replay"])?.out == empty.out, "something stays");
    Ok(())
}

/// Waits until so many messages are in the failure queue, without touching them.
async fn failed(pipeline: &Pipeline<'_>, messages: usize) -> Result<()> {
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    let started = Instant::now();
    loop {
        let name = QueueAttributeName::ApproximateNumberOfMessages;
        let request = sqs.get_queue_attributes().set_queue_url(url.clone()).attribute_names(name.clone());
        let found = request.send().await?.attributes.unwrap_or_default().remove(&name);
        if found.as_deref() == Some(messages.to_string().as_str()) {
            return Ok(());
        }
        ensure!(started.elapsed() < COUNTED, "{found:?} messages are in the failure queue");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_message_of_several_objects_goes_when_all_are_counted_and_foreign_ones_stay() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    silence(&pipeline).await?;
    let mut expected = Counts::new();
    for (key, event) in [("a", "first"), ("b", "second")] {
        let bytes = gzip(track(event).as_bytes());
        recount::add(&mut expected, &bytes)?;
        pipeline.upload(&format!("segment-logs/x/1/{key}.gz"), &bytes).await?;
    }
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    let told = notification(&pipeline.name, &["segment-logs/x/1/a.gz", "segment-logs/x/1/b.gz"]);
    let record = json!({
        "version": "1.0", "timestamp": "2015-08-04T12:34:56.789Z",
        "requestContext": { "condition": "RetriesExhausted", "approximateInvokeCount": 3 },
        "requestPayload": told, "responsePayload": { "errorType": "CountsUnwritable", "errorMessage": "throttled" },
    });
    for body in [record.to_string(), "hello \u{202e}".to_owned()] {
        sqs.send_message().set_queue_url(url.clone()).message_body(body).send().await?;
    }
    let found: Value = json_of(&pipeline, 1, &["replay"])?;
    let states: BTreeSet<&str> =
        found.as_array().context("messages")?.iter().filter_map(|message| message["state"]["is"].as_str()).collect();
    ensure!(states == ["counted", "unknown"].into(), "{found}");
    ensure!(pipeline.counts().await? == expected, "the counts differ");
    let left = pipeline.expect(0, &["replay", "--dry-run"])?.out;
    ensure!(left.contains("1 message: 0 counted, 1 not.") && !left.contains('\u{202e}'), "{left:?}");
    Ok(())
}

#[tokio::test]
async fn the_state_is_on_one_screen() -> Result<()> {
    let pipeline = pipeline()?;
    let nothing = pipeline.expect(1, &["status"])?;
    ensure!(nothing.err.contains("run `provisioner apply` first"), "{}", nothing.err);
    pipeline.declare("[function]\nretries = 0")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let fresh = json_of(&pipeline, 0, &["status"])?;
    ensure!(fresh["last_day"]["objects"] == 0 && fresh["failures"] == 0 && fresh["errors"] == json!([]), "{fresh}");
    ensure!(fresh["function"]["state"] == "Active", "{fresh}");

    let (file, expected) = file_of(250);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.upload("segment-logs/x/1/cut.gz", &file[..file.len() / 2]).await?;
    pipeline.counted(&expected).await?;
    failed(&pipeline, 1).await?;
    let status = json_of(&pipeline, 0, &["status"])?;
    for span in ["last_hour", "last_day"] {
        let counted = &status[span];
        ensure!(counted["objects"] == 1, "{status}");
        let lags = ["median_seconds", "longest_seconds"].map(|lag| counted[lag].as_i64());
        ensure!(lags[0] == lags[1] && lags[0].is_some_and(|lag| (0..120).contains(&lag)), "{status}");
    }
    ensure!(status["failures"] == 1, "{status}");
    let errors = status["errors"].as_array().context("errors")?;
    ensure!(errors.iter().any(|line| line["message"].to_string().contains("cut.gz")), "{status}");
    let text = pipeline.expect(0, &["status"])?.out;
    ensure!(text.contains("1 object counted, half of them within") && text.contains("replay --dry-run"), "{text}");
    Ok(())
}

/// The rights that `provisioner policy` prints for those who do not deploy.
#[tokio::test]
async fn readers_and_operators_need_no_more_than_is_printed() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (file, expected) = file_of(250);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.counted(&expected).await?;
    silence(&pipeline).await?;
    pipeline.upload("segment-logs/x/1/b.gz", &file).await?;
    let policy = |to: &str| -> Result<Value> { Ok(serde_json::from_str(&pipeline.expect(0, &["policy", to])?.out)?) };
    let reads: [&[&str]; 4] = [
        &["query", "event 7", "--from", "2015-08-04", "--to", "2015-08-05"],
        &["top", "--from", "2015-08-04", "--to", "2015-08-05"],
        &["events"],
        &["dashboard", "--out", "report.html", "--from", "2015-08-04", "--to", "2015-08-05"],
    ];
    let operates: [&[&str]; 4] = [&["status"], &["backfill"], &["replay"], &["verify", "--timeout", "30"]];

    let reader = User::new(&pipeline, "reader").await?;
    reader.allow(&policy("reader")?).await?;
    for args in reads {
        let ran = reader.run(args)?;
        ensure!(ran.code == Some(0), "{args:?}: {ran:?}");
    }
    let operator = User::new(&pipeline, "operator").await?;
    operator.allow(&policy("operator")?).await?;
    for args in operates {
        if args[0] == "verify" {
            pipeline.expect(0, &["apply", "--yes"])?;
        }
        let ran = operator.run(args)?;
        ensure!(ran.code == Some(0), "{args:?}: {ran:?}");
        let refused = reader.run(args)?;
        ensure!(refused.code == Some(1) && refused.err.contains("AccessDenied"), "{args:?}: {refused:?}");
    }
    let refused = operator.run(&["events"])?;
    ensure!(refused.code == Some(1) && refused.err.contains("allow the caller dynamodb:Scan"), "{refused:?}");
    Ok(())
}
