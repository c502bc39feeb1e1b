//! `provisioner verify` and `apply --verify`: an end-to-end check with one object, which leaves no traces.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::pipeline::{COUNT_TIMEOUT, CommandOutput, Pipeline};
use tests::recount::Counts;

use crate::common::{file_of, remove_notification, run_json, send_signal};
use crate::pipeline;

/// Returns the numbers of objects in the bucket and of records in the ledger, and the counts. The empty claims that
/// `verify` leaves are no records: a late invocation must meet them.
async fn traces(pipeline: &Pipeline<'_>) -> Result<(usize, usize, Counts)> {
    let s3 = pipeline.s3().await?;
    let listed = s3.list_object_versions().bucket(&pipeline.name).send().await?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    let ledger = dynamodb.scan().table_name(format!("{}-ledger", pipeline.name)).send().await?;
    let objects = listed.versions().len() + listed.delete_markers().len();
    let records = ledger.items().iter().filter(|item| item.contains_key("counted_hour")).count();
    Ok((objects, records, pipeline.counts().await?))
}

#[tokio::test]
async fn verify_of_a_working_pipeline_succeeds_and_leaves_no_traces() -> Result<()> {
    let pipeline = pipeline()?;
    let declared = [
        "",
        "[bucket]\nversioning = true",
        "[rollup]\ncount = [\"page\", \"screen\"]",
        "[notification]\nprefix = \"other/\"\nsuffix = \".json\"",
    ];
    for declared in declared {
        pipeline.declare(declared)?;
        let run = pipeline.expect(0, &["apply", "--yes", "--verify"])?;
        ensure!(run.out.contains("The pipeline works: an object was counted"), "{}", run.out);
        let verified = run_json(&pipeline, 0, &["verify"])?;
        ensure!(verified["event"] == "verified", "{verified}");
        ensure!(verified["milliseconds"].as_u64().is_some_and(|ms| ms < 60_000), "{verified}");
        let traces = traces(&pipeline).await?;
        ensure!(traces == (0, 0, Counts::new()), "{declared}: {traces:?}");
    }
    Ok(())
}

#[tokio::test]
async fn concurrent_verify_runs_do_not_affect_counts() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (file, expected) = file_of(3);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await?;
    let runs = (0..4).map(|_| pipeline.command(&["verify"])?.stdout(Stdio::piped()).spawn().context("verify"));
    for run in runs.collect::<Result<Vec<_>>>()? {
        let output = run.wait_with_output()?;
        ensure!(output.status.success(), "{output:?}");
    }
    ensure!(traces(&pipeline).await? == (1, 1, expected), "a verify run left traces or removed data");
    Ok(())
}

#[tokio::test]
async fn verify_of_a_broken_pipeline_names_the_failed_checks() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[notification]\nvia = \"function\"\n[function]\nretries = 0")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let failed_checks = |run: &CommandOutput| -> BTreeSet<String> {
        let lines = run.err.lines().filter_map(|line| line.trim().strip_prefix("FAILED"));
        lines.map(|line| line.trim().split(':').next().unwrap_or_default().to_owned()).collect()
    };

    remove_notification(&pipeline).await?;
    let run = pipeline.expect(1, &["verify", "--timeout", "2"])?;
    let name = &pipeline.name;
    ensure!(failed_checks(&run) == [format!("notification {name}"), "invocation".to_owned()].into(), "{}", run.err);
    ensure!(run.err.contains("provisioner apply") && run.err.contains("was not counted within 2 s"), "{}", run.err);
    ensure!(traces(&pipeline).await? == (0, 0, Counts::new()), "traces are left");

    // The function is invoked without permissions: its own error is shown.
    pipeline.expect(0, &["apply", "--yes"])?;
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let role = format!("{name}-function");
    let policies = iam.list_role_policies().role_name(&role).send().await?.policy_names;
    for policy in &policies {
        iam.delete_role_policy().role_name(&role).policy_name(policy).send().await?;
    }
    let run = pipeline.expect(1, &["verify", "--timeout", "15"])?;
    ensure!(failed_checks(&run) == [format!("role {role}"), "invocation".to_owned()].into(), "{}", run.err);
    ensure!(run.err.contains("AccessDenied"), "{}", run.err);
    ensure!(traces(&pipeline).await? == (0, 0, Counts::new()), "traces are left");
    Ok(())
}

#[tokio::test]
async fn verify_after_interruption_removes_its_object() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    remove_notification(&pipeline).await?;
    let mut command = pipeline.command(&["verify"])?;
    let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let started = Instant::now();
    while traces(&pipeline).await?.0 == 0 {
        ensure!(started.elapsed() < COUNT_TIMEOUT, "no object was uploaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    send_signal("INT", run.id())?;
    let run = CommandOutput::of(&run.wait_with_output()?);
    ensure!(run.code == Some(130) && run.err.contains("all uploaded objects were removed"), "{run:?}");
    ensure!(traces(&pipeline).await?.0 == 0, "the object is left");
    Ok(())
}
