//! `provisioner plan`: one change per edit, no writes, and saved plans.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tests::pipeline::RESOURCES;

use crate::common::send_signal;
use crate::{pipeline, steps, verdict};

#[tokio::test]
async fn plan_of_one_edit_shows_one_change() -> Result<()> {
    let pipeline = pipeline()?;
    // With a queue, timeout and retries of the function are settings of the queue too.
    pipeline.declare("[notification]\nvia = \"function\"")?;
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
        pipeline.declare(&format!("[notification]\nvia = \"function\"\n{edit}"))?;
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
async fn plan_and_no_op_apply_write_nothing() -> Result<()> {
    use std::time::SystemTime;

    let pipeline = pipeline()?;
    pipeline.declare("[segment]\nworkspace_id = \"abc123\"\n[bucket]\nexpire_days = 30\nversioning = true")?;
    let writes = |since| -> Result<Vec<String>> {
        let calls = pipeline.calls(since)?;
        Ok(calls.into_iter().filter(|call| call.writes).map(|call| call.name).collect())
    };
    // A plan never writes: before the first apply, in sync, and with drift.
    let started = SystemTime::now();
    pipeline.expect(2, &["plan", "--detailed-exitcode"])?;
    ensure!(writes(started)?.is_empty(), "{:?}", writes(started)?);
    ensure!(pipeline.calls(started)?.len() > RESOURCES, "no calls were recorded");
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(writes(started)?.len() > RESOURCES, "writes are not recorded");

    let started = SystemTime::now();
    pipeline.expect(0, &["plan", "--detailed-exitcode"])?;
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(writes(started)?.is_empty(), "{:?}", writes(started)?);

    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    lambda.update_function_configuration().function_name(&function).timeout(3).send().await?;
    let started = SystemTime::now();
    pipeline.expect(2, &["plan", "--detailed-exitcode", "--adopt", "--prune", "--out", "plan.json"])?;
    ensure!(writes(started)?.is_empty(), "{:?}", writes(started)?);
    Ok(())
}

#[tokio::test]
async fn saved_plan_is_applied_exactly_or_refused() -> Result<()> {
    let pipeline = pipeline()?;
    let file = pipeline.config().with_file_name("plan.json");
    let path = file.to_str().context("a path")?;
    let save = || pipeline.expect(0, &["plan", "--out", path]);
    let refused = |parts: &[&str]| -> Result<()> {
        let run = pipeline.expect(1, &["apply", path, "--yes"])?;
        ensure!(run.err.contains("the saved plan is stale; nothing was changed"), "{}", run.err);
        ensure!(parts.iter().all(|part| run.err.contains(part)), "{parts:?} are not in {}", run.err);
        Ok(())
    };

    save()?;
    let mut command = pipeline.command(&["plan", "--out", path, "--format", "json"])?;
    command.env("AWS_SECRET_ACCESS_KEY", "a-secret-key").env("AWS_SESSION_TOKEN", "a-secret-token");
    let shown = tests::pipeline::CommandOutput::of(&command.output()?);
    let saved = std::fs::read_to_string(&file)?;
    for text in [&saved, &shown.out, &shown.err] {
        ensure!(!text.contains("a-secret") && !text.contains(env!("CARGO_MANIFEST_DIR")), "{text}");
    }
    {
        use std::os::unix::fs::PermissionsExt as _;
        ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "other users may read the plan");
    }
    let applied = pipeline.expect(0, &["apply", path, "--yes"])?;
    ensure!(applied.out.contains(&format!("Done: {RESOURCES} created")), "{}", applied.out);
    refused(&["bucket", "is in sync now"])?;

    // The live state has changed.
    pipeline.declare("[function]\nmemory_mb = 512")?;
    save()?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    lambda.update_function_configuration().function_name(&function).memory_size(128).send().await?;
    refused(&["memory_mb was 256, and is 128 now"])?;
    lambda.update_function_configuration().function_name(&function).memory_size(256).timeout(3).send().await?;
    refused(&["timeout_seconds would change now too"])?;
    lambda.update_function_configuration().function_name(&function).timeout(60).send().await?;

    // The desired state has changed; comments are ignored.
    pipeline.declare("[function]\nmemory_mb = 1024")?;
    refused(&["memory_mb was planned as 512, but is declared as 1024 now"])?;
    pipeline.declare("[function]\nmemory_mb = 512\n[estimate]\nevents_per_month = 5")?;
    refused(&["the declaration"])?;
    pipeline.declare("[function]\nmemory_mb = 512")?;
    let text = std::fs::read_to_string(pipeline.config())?;
    std::fs::write(pipeline.config(), format!("# reviewed\n{text}"))?;

    // The artifact has changed.
    let other = pipeline.config().with_file_name("bootstrap");
    let mut bytes = std::fs::read(tests::local_aws::root().join("target/lambda/bootstrap"))?;
    bytes.push(0);
    std::fs::write(&other, bytes)?;
    let artifact = tests::local_aws::root().join("target/lambda/bootstrap");
    let moved = std::fs::read_to_string(pipeline.config())?.replace(&artifact.display().to_string(), "bootstrap");
    let before = std::fs::read_to_string(pipeline.config())?;
    std::fs::write(pipeline.config(), moved)?;
    refused(&[&format!("function {function}: code would change now too")])?;
    std::fs::write(pipeline.config(), before)?;

    // Nothing has changed since: the plan is applied.
    let applied = pipeline.expect(0, &["apply", path, "--yes"])?;
    ensure!(applied.out.contains("Done: 0 created, 1 updated, 0 deleted"), "{}", applied.out);

    // A file that is not a plan is refused.
    for (text, why) in [
        ("", "is not a plan"),
        ("{}", "is not a plan"),
        ("{\"provisioner\":\"9.9.9\"}", "was written by version 9.9.9"),
    ] {
        std::fs::write(&file, text)?;
        let run = pipeline.expect(1, &["apply", path, "--yes"])?;
        ensure!(run.err.contains(why) && run.err.contains("plan --out"), "{}", run.err);
    }
    let run = pipeline.expect(1, &["plan", "--out", "missing/plan.json"])?;
    ensure!(run.err.contains("failed to write the plan to missing/plan.json"), "{}", run.err);
    Ok(())
}

#[tokio::test]
async fn saved_plan_keeps_its_prune_option() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.declare(&format!("[function]\nfailure_queue = \"{}-lost\"", pipeline.name))?;
    let plan = pipeline.expect(0, &["plan", "--prune", "--out", "plan.json"])?;
    ensure!(steps(&plan.out).iter().any(|step| step.starts_with("  - queue")), "{}", plan.out);
    let refused = pipeline.expect(1, &["apply", "plan.json", "--yes"])?;
    ensure!(refused.err.contains("the plan was saved with --prune"), "{}", refused.err);
    let applied = pipeline.expect(0, &["apply", "plan.json", "--prune", "--yes"])?;
    ensure!(applied.out.contains("1 created, 3 updated, 1 deleted"), "{}", applied.out);
    Ok(())
}

#[tokio::test]
async fn interrupted_plan_and_prompt_say_that_nothing_was_changed() -> Result<()> {
    let pipeline = pipeline()?;
    let interrupted = |mut child: std::process::Child| -> Result<()> {
        send_signal("INT", child.id())?;
        let mut err = String::new();
        child.stderr.take().context("standard error")?.read_to_string(&mut err)?;
        let code = child.wait()?.code();
        ensure!(code == Some(130) && err.contains("SIGINT: ") && err.contains("nothing was changed"), "{code:?} {err}");
        Ok(())
    };
    // A server that never answers.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", silent.local_addr()?);
    for args in [&["plan"][..], &["apply", "--yes"], &["destroy", "--yes"]] {
        let mut command = pipeline.command(args)?;
        let child = command.env("AWS_ENDPOINT_URL", &endpoint).stderr(Stdio::piped()).spawn()?;
        let _connection = silent.accept()?;
        interrupted(child)?;
    }
    // The question of an apply.
    let mut command = pipeline.command(&["apply"])?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let _stdin = child.stdin.take();
    let out = BufReader::new(child.stdout.take().context("standard output")?);
    ensure!(out.lines().any(|line| line.is_ok_and(|line| line.starts_with("Plan: "))), "no plan");
    interrupted(child)?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)?.starts_with("Plan: "), "something was created");
    Ok(())
}
