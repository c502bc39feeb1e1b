//! What goes wrong before anything is done: short, with the cause and the remedy, exit code 1, no panic.

use std::net::TcpListener;

use anyhow::{Result, ensure};
use tests::pipeline::{Pipeline, Ran};

use crate::pipeline;

fn explains(ran: &Ran, parts: &[&str]) -> Result<()> {
    ensure!(ran.code == Some(1), "{ran:?}");
    ensure!(ran.out.is_empty(), "{ran:?}");
    ensure!(parts.iter().all(|part| ran.err.contains(part)), "{parts:?} are not all in: {}", ran.err);
    ensure!(ran.err.lines().count() <= 12, "not short: {}", ran.err);
    ensure!(!ran.err.contains("panicked") && !ran.err.contains("RUST_BACKTRACE"), "{}", ran.err);
    Ok(())
}

fn with(pipeline: &Pipeline<'_>, args: &[&str], variables: &[(&str, &str)]) -> Result<Ran> {
    let output = pipeline.command(args)?.envs(variables.iter().copied()).output()?;
    Ok(Ran::of(&output))
}

const COMMANDS: [&[&str]; 4] = [&["plan"], &["apply", "--yes"], &["destroy", "--yes"], &["top"]];

#[test]
fn without_credentials() -> Result<()> {
    let pipeline = pipeline()?;
    for command in COMMANDS {
        let mut command = pipeline.command(command)?;
        let output = command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").output()?;
        explains(&Ran::of(&output), &["no AWS credentials", "help: sign in", "AWS_PROFILE"])?;
    }
    Ok(())
}

#[test]
fn with_a_region_that_contradicts_the_file() -> Result<()> {
    let pipeline = pipeline()?;
    for command in COMMANDS {
        let ran = with(&pipeline, command, &[("AWS_REGION", "eu-west-1")])?;
        explains(&ran, &["us-east-1", "AWS_REGION says eu-west-1", "help: correct pipeline.region"])?;
    }
    ensure!(with(&pipeline, &["plan"], &[("AWS_REGION", "us-east-1")])?.code == Some(0), "the same region is fine");
    Ok(())
}

#[test]
fn with_a_region_that_does_not_exist() -> Result<()> {
    let pipeline = pipeline()?;
    let file = std::fs::read_to_string(pipeline.config())?;
    std::fs::write(pipeline.config(), file.replacen("us-east-1", "us-esat-1", 1))?;
    explains(&pipeline.run(&["plan"])?, &["us-esat-1", "no AWS region has this name", "help: write a region such as"])
}

#[test]
fn with_an_endpoint_that_nobody_listens_at() -> Result<()> {
    let pipeline = pipeline()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let endpoint = format!("http://127.0.0.1:{port}");
    for command in COMMANDS {
        let ran = with(&pipeline, command, &[("AWS_ENDPOINT_URL", &endpoint)])?;
        explains(&ran, &["could not be sent", "refused", "help: check the network", "AWS_ENDPOINT_URL"])?;
    }
    Ok(())
}

#[test]
fn with_a_file_that_has_mistakes() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[function]\nmemory_mb = 64\ntimeout = 3")?;
    for command in COMMANDS.into_iter().chain([&["validate"][..]]) {
        // Nobody listens there: whatever is said, is said before any call.
        let output = pipeline.command(command)?.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").output()?;
        let ran = Ran::of(&output);
        ensure!(ran.code == Some(1) && ran.out.is_empty(), "{ran:?}");
        for part in ["pipeline.toml:", "memory_mb = 64", "^^ 64 MB", "did you mean `timeout_seconds`?", "2 mistakes"] {
            ensure!(ran.err.contains(part), "{part} is not in {}", ran.err);
        }
    }
    Ok(())
}

#[test]
fn with_wrong_usage() -> Result<()> {
    let pipeline = pipeline()?;
    for args in [&[][..], &["frobnicate"], &["plan", "--detailed"], &["query"], &["top", "--last", "soon"]] {
        let ran = pipeline.run(args)?;
        ensure!(ran.code == Some(1) && !ran.err.is_empty(), "{args:?}: {ran:?}");
    }
    ensure!(pipeline.run(&["--help"])?.code == Some(0), "help is no error");
    Ok(())
}

#[test]
fn with_another_account_than_the_files() -> Result<()> {
    let pipeline = pipeline()?;
    let file = std::fs::read_to_string(pipeline.config())?;
    std::fs::write(pipeline.config(), file.replacen("[pipeline]\n", "[pipeline]\naccount = \"999999999999\"\n", 1))?;
    explains(&pipeline.run(&["plan"])?, &["account 999999999999", &pipeline.account, "help: set AWS_PROFILE"])
}

#[test]
fn with_a_handler_that_would_not_run() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[function]\nartifact = \"bootstrap\"")?;
    explains(&pipeline.run(&["plan"])?, &["is not at", "help: build it with `make handler`"])?;
    let artifact = pipeline.config().with_file_name("bootstrap");
    std::fs::write(&artifact, "#!/bin/sh\n")?;
    explains(&pipeline.run(&["plan"])?, &["would not run on Lambda", "not a 64-bit Linux (ELF) program"])?;
    pipeline.declare("[function]\narchitecture = \"arm64\"")?;
    explains(&pipeline.run(&["plan"])?, &["built for x86_64", "function.architecture is arm64"])
}

#[test]
fn asking_for_counts_before_there_is_a_table() -> Result<()> {
    let pipeline = pipeline()?;
    for args in [&["top"][..], &["query", "Order Completed"]] {
        explains(&pipeline.run(args)?, &["counts table", "is not there", "help: run `provisioner apply`"])?;
    }
    Ok(())
}
