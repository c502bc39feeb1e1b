//! `provisioner validate` and failures before any change: a short error with cause and remedy, exit code 1, no panic.

use std::net::TcpListener;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::pipeline::{CommandOutput, Pipeline};

use crate::faults::weather;
use crate::pipeline;

fn assert_explains(run: &CommandOutput, parts: &[&str]) -> Result<()> {
    ensure!(run.code == Some(1), "{run:?}");
    ensure!(run.out.is_empty(), "{run:?}");
    ensure!(parts.iter().all(|part| run.err.contains(part)), "{parts:?} are not all in: {}", run.err);
    ensure!(run.err.lines().count() <= 12, "not short: {}", run.err);
    ensure!(!run.err.contains("panicked") && !run.err.contains("RUST_BACKTRACE"), "{}", run.err);
    Ok(())
}

fn run_with(pipeline: &Pipeline<'_>, args: &[&str], variables: &[(&str, &str)]) -> Result<CommandOutput> {
    let output = pipeline.command(args)?.envs(variables.iter().copied()).output()?;
    Ok(CommandOutput::of(&output))
}

const COMMANDS: [&[&str]; 4] = [&["plan"], &["apply", "--yes"], &["destroy", "--yes"], &["top"]];

#[test]
fn command_without_credentials_is_explained() -> Result<()> {
    let pipeline = pipeline()?;
    for command in COMMANDS {
        let mut command = pipeline.command(command)?;
        let output = command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").output()?;
        assert_explains(&CommandOutput::of(&output), &["no AWS credentials", "help: sign in", "AWS_PROFILE"])?;
    }
    Ok(())
}

#[test]
fn command_with_a_contradicting_region_is_explained() -> Result<()> {
    let pipeline = pipeline()?;
    for command in COMMANDS {
        let run = run_with(&pipeline, command, &[("AWS_REGION", "eu-west-1")])?;
        assert_explains(&run, &["us-east-1", "AWS_REGION names eu-west-1", "help: correct pipeline.region"])?;
    }
    let same = run_with(&pipeline, &["plan"], &[("AWS_REGION", "us-east-1")])?;
    ensure!(same.code == Some(0), "the same region is rejected");
    Ok(())
}

#[test]
fn plan_with_an_unknown_region_is_explained() -> Result<()> {
    let pipeline = pipeline()?;
    let file = std::fs::read_to_string(pipeline.config())?;
    std::fs::write(pipeline.config(), file.replacen("us-east-1", "us-esat-1", 1))?;
    let run = pipeline.run(&["plan"])?;
    assert_explains(&run, &["us-esat-1", "no AWS region has this name", "help: write a region such as"])
}

#[test]
fn command_with_a_dead_endpoint_is_explained() -> Result<()> {
    let pipeline = pipeline()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let endpoint = format!("http://127.0.0.1:{port}");
    for command in COMMANDS {
        let run = run_with(&pipeline, command, &[("AWS_ENDPOINT_URL", &endpoint)])?;
        assert_explains(&run, &["could not be sent", "refused", "help: check the network", "AWS_ENDPOINT_URL"])?;
    }
    Ok(())
}

#[test]
fn command_with_an_invalid_file_reports_every_mistake_before_any_call() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[function]\nmemory_mb = 64\ntimeout = 3")?;
    for command in COMMANDS.into_iter().chain([&["validate"][..]]) {
        // No server listens there, so a call would fail with another error.
        let output = pipeline.command(command)?.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").output()?;
        let run = CommandOutput::of(&output);
        ensure!(run.code == Some(1) && run.out.is_empty(), "{run:?}");
        for part in ["pipeline.toml:", "memory_mb = 64", "^^ 64 MB", "did you mean `timeout_seconds`?", "2 mistakes"] {
            ensure!(run.err.contains(part), "{part} is not in {}", run.err);
        }
    }
    Ok(())
}

#[test]
fn command_with_wrong_usage_exits_with_1() -> Result<()> {
    let pipeline = pipeline()?;
    for args in [&[][..], &["frobnicate"], &["plan", "--detailed"], &["query"], &["top", "--last", "soon"]] {
        let run = pipeline.run(args)?;
        ensure!(run.code == Some(1) && !run.err.is_empty(), "{args:?}: {run:?}");
    }
    ensure!(pipeline.run(&["--help"])?.code == Some(0), "--help does not exit with 0");
    Ok(())
}

#[test]
fn plan_with_another_account_is_explained() -> Result<()> {
    let pipeline = pipeline()?;
    let file = std::fs::read_to_string(pipeline.config())?;
    std::fs::write(pipeline.config(), file.replacen("[pipeline]\n", "[pipeline]\naccount = \"999999999999\"\n", 1))?;
    assert_explains(&pipeline.run(&["plan"])?, &["account 999999999999", &pipeline.account, "help: set AWS_PROFILE"])
}

#[test]
fn plan_with_an_unusable_artifact_is_explained() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[function]\nartifact = \"bootstrap\"")?;
    assert_explains(&pipeline.run(&["plan"])?, &["does not exist at", "help: build it with `make handler`"])?;
    let artifact = pipeline.config().with_file_name("bootstrap");
    std::fs::write(&artifact, "#!/bin/sh\n")?;
    assert_explains(&pipeline.run(&["plan"])?, &["would not run on Lambda", "not a 64-bit Linux (ELF) program"])?;
    pipeline.declare("[function]\narchitecture = \"arm64\"")?;
    assert_explains(&pipeline.run(&["plan"])?, &["built for x86_64", "function.architecture is arm64"])
}

#[test]
fn unusable_artifact_is_reported_before_a_failed_read() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[function]\nartifact = \"bootstrap\"")?;
    let denied = json!({ "operation": "DescribeTable", "error": { "code": "AccessDeniedException", "status": 403 } });
    weather()?.add(&pipeline.account, &[denied])?;
    let run = CommandOutput::of(&weather()?.route(pipeline.command(&["plan"])?).output()?);
    ensure!(weather()?.clear(&pipeline.account)? > 0, "no read failed");
    assert_explains(&run, &["does not exist at", "help: build it with `make handler`"])
}

#[test]
fn query_before_the_first_apply_is_explained() -> Result<()> {
    let pipeline = pipeline()?;
    for args in [&["top"][..], &["query", "Order Completed"]] {
        assert_explains(&pipeline.run(args)?, &["the table", "does not exist", "help: run `provisioner apply`"])?;
    }
    Ok(())
}
