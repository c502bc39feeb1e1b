//! Concurrent runs, and counting during updates.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::local_aws::root;
use tests::pipeline::{CommandOutput, Pipeline, RESOURCES};
use tests::recount::Counts;
use tests::samples::gzip;

use crate::{pipeline, strict_pipeline, verdict};

fn start(pipeline: &Pipeline<'_>, args: &[&str]) -> Result<Child> {
    let mut command = pipeline.command(args)?;
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("failed to start")
}

/// Checks that a run succeeded, or failed with an error that names the concurrent change and a remedy.
fn assert_success_or_conflict(run: &CommandOutput) -> Result<()> {
    let clear = run.err.contains("concurrently") || run.err.contains("during this run");
    ensure!(
        run.code == Some(0) || (run.code == Some(1) && clear && run.err.contains("help: ")),
        "{}\n{}",
        run.out,
        run.err
    );
    Ok(())
}

#[tokio::test]
async fn concurrent_applies_of_one_file_converge() -> Result<()> {
    // Only the strict local AWS refuses a second event source mapping.
    let pipeline = strict_pipeline()?;
    for (round, declared) in [
        "",
        "[function]\nmemory_mb = 512\nretries = 1\nlog_retention_days = 7\n[bucket]\nversioning = true\nexpire_days = 30",
        "[table]\nbilling = { read = 5, write = 5 }\n[tags]\nteam = \"data\"\n[notification]\nprefix = \"other/\"",
    ]
    .into_iter()
    .enumerate()
    {
        pipeline.declare(declared)?;
        let both = [start(&pipeline, &["apply", "--yes"])?, start(&pipeline, &["apply", "--yes"])?];
        let mut succeeded = 0;
        for child in both {
            let run = CommandOutput::of(&child.wait_with_output()?);
            assert_success_or_conflict(&run)?;
            succeeded += usize::from(run.code == Some(0));
        }
        ensure!(succeeded > 0, "no run succeeded in round {round}");
        let plan = pipeline.expect(0, &["plan"])?;
        ensure!(verdict(&plan.out)? == "No changes.", "round {round}: {}", plan.out);
    }
    let both = [["destroy", "--yes", "--delete-data"]; 2].map(|args| start(&pipeline, &args));
    for child in both {
        let run = CommandOutput::of(&child?.wait_with_output()?);
        ensure!(run.code == Some(0), "{}", run.err);
    }
    let all = format!("Plan: {RESOURCES} to create");
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)?.starts_with(&all), "a resource is left");
    Ok(())
}

#[tokio::test]
async fn concurrent_applies_of_two_files_leave_a_state_that_either_can_complete() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let other = pipeline.config().with_file_name("other.toml");
    let other_path = other.to_str().context("a path")?;
    for round in 0..3 {
        pipeline.declare(&format!("[function]\nmemory_mb = {}\n[bucket]\nexpire_days = 30", 300 + round))?;
        std::fs::copy(pipeline.config(), &other)?;
        pipeline.declare(&format!("[function]\nmemory_mb = {}\ntimeout_seconds = 30", 600 + round))?;
        let both =
            [start(&pipeline, &["apply", "--yes"])?, start(&pipeline, &["--config", other_path, "apply", "--yes"])?];
        for child in both {
            assert_success_or_conflict(&CommandOutput::of(&child.wait_with_output()?))?;
        }
        // Either file can be applied afterwards.
        for config in [&pipeline.config(), &other] {
            let config = config.to_str().context("a path")?;
            pipeline.expect(0, &["--config", config, "apply", "--yes"])?;
            let plan = pipeline.expect(0, &["--config", config, "plan"])?;
            ensure!(verdict(&plan.out)? == "No changes.", "{}", plan.out);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counting_during_updates_loses_no_event() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[function]\ntimeout_seconds = 5")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let name = pipeline.name.clone();
    let s3 = pipeline.s3().await?;
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let uploading = tokio::spawn({
        let (done, name) = (std::sync::Arc::clone(&done), name.clone());
        async move {
            let mut expected = Counts::new();
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                let event = format!("Event {n}");
                let line = json!({ "type": "track", "event": event, "timestamp": "2015-08-04T12:00:00Z" });
                let put = s3.put_object().bucket(&name).key(format!("segment-logs/x/1/{n}.gz"));
                put.body(gzip(line.to_string().as_bytes()).into()).send().await.context("failed to upload")?;
                expected.insert((event, "2015-08-04T12:00:00Z".to_owned()), 1);
                n += 1;
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            anyhow::Ok(expected)
        }
    });

    // Different code: the same program with an extra byte.
    let code = pipeline.config().with_file_name("bootstrap");
    let mut bytes = std::fs::read(root().join("target/lambda/bootstrap"))?;
    bytes.push(0);
    std::fs::write(&code, bytes)?;
    let code = format!("artifact = \"{}\"", code.display());
    // The local AWS ends invocations when it updates their function, and the queue hides their messages for six timeouts.
    let function = "[function]\ntimeout_seconds = 5\n";
    for update in [
        format!("{function}memory_mb = 512"),
        format!("{function}memory_mb = 512\n{code}"),
        format!("{function}[notification]\nprefix = \"segment-logs\""),
        format!("{function}[notification]\nsuffix = \"gz\""),
        format!("{function}[notification]\nvia = \"function\""),
        format!("{function}[rollup]\ncount = [\"track\", \"page\"]"),
        format!("{function}name = \"{name}-counter\""),
        format!("{function}name = \"{name}-counter\"\n{code}"),
        format!("{function}[bucket]\nversioning = true\nexpire_days = 30"),
        // Versioning stays on: turning it off revokes the permission to read versions from notifications in flight.
        format!("{function}[bucket]\nversioning = true\n[table]\nbilling = {{ read = 50, write = 50 }}"),
        "[function]\ntimeout_seconds = 4\n[bucket]\nversioning = true".to_owned(),
    ] {
        pipeline.declare(&update)?;
        tokio::task::block_in_place(|| pipeline.expect(0, &["apply", "--yes"]))?;
    }
    done.store(true, Ordering::Relaxed);
    let expected = uploading.await??;
    ensure!(expected.len() > 20, "only {} objects were uploaded during the updates", expected.len());
    pipeline.wait_for_counts(&expected).await
}
