//! Plan, apply, plan again, change, destroy.

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::{pipeline, steps, verdict};

const ALL: [&str; 9] =
    ["bucket", "table", "table", "role", "log group", "queue", "function", "permission", "notification"];

#[tokio::test]
async fn apply_makes_what_plan_shows_and_then_there_is_nothing_to_do() -> Result<()> {
    let pipeline = pipeline()?;

    let plan = pipeline.expect(2, &["plan", "--detailed-exitcode"])?;
    let shown = steps(&plan.out);
    ensure!(
        shown.len() == ALL.len() && shown.iter().zip(ALL).all(|(step, kind)| step.starts_with(&format!("  + {kind} "))),
        "{}",
        plan.out
    );
    ensure!(verdict(&plan.out)? == "Plan: 9 to create, 0 to update, 0 to delete.", "{}", plan.out);
    ensure!(pipeline.expect(2, &["plan", "--detailed-exitcode"])?.out == plan.out, "plan changed something");

    let applied = pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(applied.out.contains("Done: 9 created, 0 updated, 0 deleted"), "{}", applied.out);
    ensure!(ALL.iter().all(|kind| applied.err.contains(&format!("+ {kind} "))), "{}", applied.err);

    let again = pipeline.expect(0, &["plan", "--detailed-exitcode"])?;
    ensure!(verdict(&again.out)? == "No changes.", "{}", again.out);
    ensure!(pipeline.expect(0, &["apply", "--yes"])?.err.is_empty(), "apply did something");
    Ok(())
}

#[tokio::test]
async fn one_edit_is_one_change() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    for (edit, shown) in [
        ("[function]\nmemory_mb = 512", vec!["  ~ function", "memory_mb  256 -> 512"]),
        ("[function]\nmemory_mb = 512\ntimeout_seconds = 30", vec!["  ~ function", "timeout_seconds  60 -> 30"]),
        ("[function]\nlog_retention_days = 7\nmemory_mb = 512\ntimeout_seconds = 30", vec!["  ~ log group", "30 -> 7"]),
        (
            "[function]\nlog_retention_days = 7\nmemory_mb = 512\ntimeout_seconds = 30\nretries = 1\nmax_concurrency = 5",
            vec!["  ~ function", "retries          2 -> 1", "max_concurrency  (not set) -> 5"],
        ),
    ] {
        pipeline.declare(edit)?;
        let plan = pipeline.expect(2, &["plan", "--detailed-exitcode"])?;
        ensure!(
            steps(&plan.out).len() == 1 && shown.iter().all(|part| plan.out.contains(part)),
            "{edit}\n{}",
            plan.out
        );
        let applied = pipeline.expect(0, &["apply", "--yes"])?;
        ensure!(applied.out.contains("Done: 0 created, 1 updated, 0 deleted"), "{}", applied.out);
        pipeline.expect(0, &["plan", "--detailed-exitcode"])?;
    }
    Ok(())
}

#[tokio::test]
async fn every_declaration_converges() -> Result<()> {
    let pipeline = pipeline()?;
    for file in [
        "[bucket]\nversioning = true\nexpire_days = 30\nrequire_tls = true\n[table]\nbilling = { read = 5, write = 5 }\n\
         [segment]\nworkspace_id = \"abc123\"\n[tags]\nteam = \"analytics\"",
        "[bucket]\nversioning = false\nexpire_days = 60\n[table]\nbilling = { read = 6, write = 5 }\n\
         point_in_time_recovery = false\n[segment]\nworkspace_id = \"abc123\"\n[tags]\nteam = \"data\"\n\
         [[role.statement]]\nactions = [\"s3:GetObject\"]\nresources = [\"arn:aws:s3:::acme/*\"]",
        "[table]\ndeletion_protection = false\n[rollup]\ncount = [\"track\", \"page\"]\n[notification]\nprefix = \"other/\"",
    ] {
        pipeline.declare(file)?;
        pipeline.expect(0, &["apply", "--yes"])?;
        let plan = pipeline.expect(0, &["plan"])?;
        ensure!(verdict(&plan.out)? == "No changes.", "{file}\n{}", plan.out);
    }
    Ok(())
}

#[tokio::test]
async fn destroy_keeps_data_unless_told_otherwise() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.upload("segment-logs/x/1/kept.gz", b"").await?;

    let destroyed = pipeline.expect(0, &["destroy", "--yes"])?;
    ensure!(steps(&destroyed.out).len() == 6, "{}", destroyed.out);
    ensure!(destroyed.out.matches("holds data and stays").count() == 3, "{}", destroyed.out);
    let left = pipeline.expect(0, &["plan"])?;
    // An invocation that was under way may have written its log after the group was gone, and so made it again.
    let left = verdict(&left.out)?;
    ensure!(left.starts_with("Plan: 6 to create") || left.starts_with("Plan: 5 to create, 1 to update"), "{left}");

    pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    let nothing = pipeline.expect(0, &["plan"])?;
    ensure!(verdict(&nothing.out)? == "Plan: 9 to create, 0 to update, 0 to delete.", "{}", nothing.out);
    let again = pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    ensure!(verdict(&again.out)? == "No changes.", "{}", again.out);
    Ok(())
}

#[tokio::test]
async fn a_bucket_is_emptied_of_every_version_page_by_page() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[bucket]\nversioning = true\n[function]\nmax_concurrency = 1")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let s3 = pipeline.s3().await?;
    // Three versions each, the last a marker; a listing has a thousand of them a page.
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
    ensure!(s3.head_bucket().bucket(&pipeline.name).send().await.is_err(), "the bucket is there");
    Ok(())
}

#[tokio::test]
async fn apply_asks_and_takes_only_yes() -> Result<()> {
    use std::io::Write as _;
    use std::process::Stdio;

    let pipeline = pipeline()?;
    for (answer, code) in [("", 1), ("no\n", 1), ("yes\n", 0)] {
        let mut command = pipeline.command(&["apply"])?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(answer.as_bytes())?;
        }
        let ran = tests::pipeline::Ran::of(&child.wait_with_output()?);
        ensure!(ran.code == Some(code), "{answer:?}: {ran:?}");
        ensure!((code == 0) == ran.out.contains("Done: "), "{ran:?}");
    }
    Ok(())
}
