//! `provisioner init`, `outputs` and `logs`: the first steps with a pipeline, and its names and log.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::local_aws::root;
use tests::pipeline::{COUNT_TIMEOUT, Pipeline};
use tests::recount::Counts;
use tests::samples::gzip;

use crate::common::{HOUR, run_json, send_signal, track};
use crate::pipeline;

/// The environment of a file that `init` writes, on the local AWS.
const LOCAL: [&str; 2] = ["--env", "local"];

#[test]
fn init_without_a_terminal_demands_a_name_and_keeps_existing_files() -> Result<()> {
    let pipeline = pipeline()?;
    let existing = std::fs::read_to_string(pipeline.config())?;
    let refused = pipeline.expect(1, &["init", "--name", "events"])?;
    ensure!(refused.err.contains("pipeline.toml exists") && refused.err.contains("--force"), "{}", refused.err);
    ensure!(std::fs::read_to_string(pipeline.config())? == existing, "the file was changed");
    let unnamed = pipeline.expect(1, &["init", "--force"])?;
    ensure!(unnamed.err.contains("has no name") && unnamed.err.contains("pass --name NAME"), "{}", unnamed.err);
    for (option, value, why) in [
        ("--name", "Events", "`E` is not allowed here"),
        ("--name", "ev\"ents\u{1b}", "is not allowed here"),
        ("--region", "us-esat-1", "no AWS region has this name"),
        ("--prefix", "/logs/", "do not begin with a slash"),
        ("--events-per-month", "many", "is not a whole number"),
    ] {
        let name = if option == "--name" { value } else { "events" };
        let args = ["--config", "new.toml", "init", "--name", name, option, value];
        let args = if option == "--name" { &args[..5] } else { &args[..] };
        let refused = pipeline.expect(1, args)?;
        ensure!(refused.err.contains(option) && refused.err.contains(why), "{value}: {}", refused.err);
        ensure!(!refused.err.contains('\u{1b}'), "{:?}", refused.err);
    }
    ensure!(!pipeline.config().with_file_name("new.toml").exists(), "a file was written");

    // No server listens there, so a call would fail.
    let mut command = pipeline.command(&["--config", "new.toml", "init", "--name", "events"])?;
    let made = command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").env("AWS_REGION", "eu-west-1").output()?;
    let out = String::from_utf8(made.stdout)?;
    ensure!(made.status.success() && out.contains("provisioner --config new.toml plan"), "{out}");
    let file: toml::Table = std::fs::read_to_string(pipeline.config().with_file_name("new.toml"))?.parse()?;
    let of = |section: &str, key: &str| file.get(section)?.get(key)?.as_str();
    ensure!(of("pipeline", "region") == Some("eu-west-1") && of("bucket", "name") == Some("events"), "{file:?}");
    pipeline.expect(0, &["--config", "new.toml", "validate"])?;
    Ok(())
}

/// A command that prints lines until it gets a signal. Dropping it ends it.
struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(pipeline: &Pipeline<'_>, args: &[&str]) -> Result<Self> {
        let mut child = pipeline.command(args)?.stdout(Stdio::piped()).spawn()?;
        let out = BufReader::new(child.stdout.take().context("standard output")?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok(Self { child, lines })
    }

    /// Returns the lines up to the first one with this text.
    fn until(&self, text: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let line = self.lines.recv_timeout(COUNT_TIMEOUT).with_context(|| format!("no {text} in {lines:?}"))?;
            lines.push(line);
            if lines.last().is_some_and(|line| line.contains(text)) {
                return Ok(lines);
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn written_file_is_applied_and_its_names_and_log_are_printed() -> Result<()> {
    let pipeline = pipeline()?;
    let name = pipeline.name.as_str();
    let local = |args: &[&'static str]| -> Vec<&'static str> { [&LOCAL[..], args].concat() };
    let early = pipeline.expect(1, &["logs"])?;
    ensure!(early.err.contains("it does not exist") && early.err.contains("provisioner apply"), "{}", early.err);
    let made = pipeline.expect(
        0,
        &[
            "init",
            "--name",
            name,
            "--bucket",
            name,
            "--workspace-id",
            "abc123",
            "--events-per-month",
            "1000000",
            "--force",
        ],
    )?;
    ensure!(made.out.contains("Wrote pipeline.toml.") && made.out.contains("provisioner outputs"), "{}", made.out);
    pipeline.expect(0, &["validate"])?;
    let built = pipeline.config().with_file_name("target").join("lambda");
    std::fs::create_dir_all(&built)?;
    std::fs::copy(root().join("target/lambda/bootstrap"), built.join("bootstrap"))?;
    pipeline.expect(0, &local(&["apply", "--yes"]))?;

    let outputs = run_json(&pipeline, 0, &local(&["outputs"]))?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let live = lambda.get_function().function_name(format!("{name}-handler")).send().await?.configuration;
    let arn = live.and_then(|function| function.function_arn).context("an ARN")?;
    ensure!(outputs["function"]["arn"] == arn.as_str() && outputs["bucket"]["name"] == name, "{outputs}");
    let role = format!("arn:aws:iam::{}:role/pipeline/{name}/{name}-segment", pipeline.account);
    ensure!(outputs["segment"]["role_arn"] == role.as_str(), "{outputs}");
    ensure!(outputs["segment"]["external_id"] == "abc123" && outputs["segment"]["is_counted"] == true, "{outputs}");
    let resources = outputs["resources"].as_array().context("a list")?;
    // A local AWS has no console.
    ensure!(resources.iter().all(|resource| resource["console_url"].is_null()), "{outputs}");
    let text = pipeline.expect(0, &local(&["outputs"]))?.out;
    let form = text.split_once("\nSegment's form").context("a form")?.1;
    ensure!(form.contains(&role) && form.contains("abc123") && form.contains("us-east-1"), "{text}");

    let upload = async |file: &str, event: &str| {
        pipeline.upload(&format!("segment-logs/x/1/{file}.gz"), &gzip(track(event).as_bytes())).await
    };
    upload("first", "Signed Up").await?;
    pipeline.wait_for_counts(&Counts::from([(("Signed Up".to_owned(), HOUR.to_owned()), 1)])).await?;
    let mut following = Following::start(&pipeline, &local(&["logs", "--follow"]))?;
    let lines = following.until("first.gz")?;
    ensure!(
        lines.last().is_some_and(|line| line.contains(" INFO  counted key=segment-logs/x/1/first.gz")),
        "{lines:?}"
    );
    upload("second", "Signed In").await?;
    let lines = following.until("second.gz")?;
    ensure!(!lines.iter().any(|line| line.contains("first.gz")), "printed twice: {lines:?}");
    send_signal("INT", following.child.id())?;
    ensure!(following.child.wait()?.code() == Some(0), "the exit code after SIGINT is not 0");

    pipeline.upload("segment-logs/x/1/cut.gz", b"\x1f\x8b cut").await?;
    let started = Instant::now();
    let failures = loop {
        let failures = pipeline.expect(0, &local(&["logs", "--failures"]))?.out;
        if failures.contains("cut.gz") {
            break failures;
        }
        ensure!(started.elapsed() < COUNT_TIMEOUT, "no failure in the log: {failures}");
    };
    ensure!(failures.contains(" ERROR not counted ") && !failures.contains("first.gz"), "{failures}");
    let lines = pipeline.expect(0, &local(&["logs", "--format", "json", "--since", "2h"]))?.out;
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let of = |key: &str| lines.iter().filter(|line| line["fields"]["key"] == json!(key)).count();
    ensure!(of("segment-logs/x/1/first.gz") > 0 && of("segment-logs/x/1/cut.gz") > 0, "{lines:?}");
    ensure!(lines.iter().any(|line| line["text"].to_string().contains("REPORT RequestId")), "{lines:?}");
    let unknown = pipeline.expect(1, &local(&["logs", "--consumer", "alert"]))?;
    ensure!(unknown.err.contains("--consumer alert cannot be used"), "{}", unknown.err);
    Ok(())
}
