//! Eventual consistency, failures and signals: transient errors are waited for in bounded time and reported; permanent
//! ones are not retried.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::pipeline::{CommandOutput, Pipeline, RESOURCES};

use crate::common::send_signal;
use crate::faults::weather;
use crate::{pipeline, verdict};

fn run_through_proxy(pipeline: &Pipeline<'_>, args: &[&str]) -> Result<CommandOutput> {
    Ok(CommandOutput::of(&weather()?.route(pipeline.command(args)?).output()?))
}

/// Returns a rule that injects an AWS error into the first `times` calls of an operation.
fn rule(service: &str, operation: &str, times: u32, code: &str, status: u16, message: &str) -> Value {
    json!({
        "service": service, "operation": operation, "times": times,
        "error": { "code": code, "status": status, "message": message },
    })
}

/// Returns errors that AWS returns for a bounded time after a creation or change, each with the condition whose wait is
/// reported. The texts are AWS's own, as quoted in the sources of Terraform and other tools.
fn transient_errors() -> Vec<(Value, &'static str)> {
    let lambda = |operation, code, status, message| rule("lambda", operation, 4, code, status, message);
    let dynamodb = |operation, code, message| rule("dynamodb", operation, 4, code, 400, message);
    vec![
        (
            lambda(
                "CreateFunction",
                "InvalidParameterValueException",
                400,
                "The role defined for the function cannot be assumed by Lambda.",
            ),
            "the role to become assumable",
        ),
        (
            lambda(
                "PutFunctionEventInvokeConfig",
                "InvalidParameterValueException",
                400,
                "The provided destination config DestinationConfig is invalid: the function's execution role does not have \
                 permissions to call SendMessage on arn:aws:sqs",
            ),
            "the role to be allowed to send to the queue",
        ),
        (
            lambda("AddPermission", "PreconditionFailedException", 412, "The RevisionId provided does not match"),
            "the function's policy to accept a change",
        ),
        (
            rule("iam", "CreateRole", 4, "MalformedPolicyDocument", 400, "Invalid principal in policy: \"AWS\""),
            "the role's principal to be known",
        ),
        (
            rule(
                "s3",
                "CreateBucket",
                4,
                "OperationAborted",
                409,
                "A conflicting conditional operation is in progress",
            ),
            "S3 to release the name of the bucket",
        ),
        (
            rule("s3", "PutBucketVersioning", 4, "NoSuchBucket", 404, "The specified bucket does not exist"),
            "S3 to accept the settings of the bucket",
        ),
        (
            rule(
                "s3",
                "PutBucketNotification",
                4,
                "InvalidArgument",
                400,
                "Unable to validate the following destination configurations",
            ),
            "S3 to see the permission to notify",
        ),
        (
            dynamodb(
                "CreateTable",
                "LimitExceededException",
                "Too many operations for a given subscriber: tables can be created simultaneously",
            ),
            "DynamoDB to accept the new table",
        ),
        (
            dynamodb("UpdateTimeToLive", "ResourceInUseException", "Table is being updated"),
            "the table to accept its time to live",
        ),
        (
            dynamodb(
                "UpdateContinuousBackups",
                "ContinuousBackupsUnavailableException",
                "Backups are being enabled for the table. Please retry later",
            ),
            "the table's backups to become available",
        ),
        (
            rule(
                "sqs",
                "CreateQueue",
                4,
                "AWS.SimpleQueueService.QueueDeletedRecently",
                400,
                "You must wait 60 seconds after deleting a queue before you can create another with the same name.",
            ),
            "SQS to release the name of the deleted queue",
        ),
    ]
}

#[tokio::test]
async fn transient_errors_are_waited_for_and_reported() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[segment]\nworkspace_id = \"abc123\"\n[bucket]\nversioning = true")?;
    let (rules, waits): (Vec<Value>, Vec<&str>) = transient_errors().into_iter().unzip();
    weather()?.add(&pipeline.account, &rules)?;
    let applied = run_through_proxy(&pipeline, &["apply", "--yes", "--format", "json"])?;
    let fired = weather()?.clear(&pipeline.account)?;
    ensure!(applied.code == Some(0), "{}\n{}", applied.out, applied.err);
    ensure!(fired == 4 * rules.len(), "only {fired} faults were injected");
    for condition in waits {
        let reported = |line: &str| line.contains("\"event\":\"waiting\"") && line.contains(condition);
        ensure!(applied.out.lines().any(reported), "{condition} is not reported in\n{}", applied.out);
    }
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not in sync");
    Ok(())
}

#[tokio::test]
async fn function_being_updated_is_waited_for() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.declare("[function]\nmemory_mb = 512")?;
    let busy = "The operation cannot be performed at this time. An update is in progress for resource";
    let rule = rule("lambda", "UpdateFunctionConfiguration", 5, "ResourceConflictException", 409, busy);
    weather()?.add(&pipeline.account, &[rule])?;
    let applied = run_through_proxy(&pipeline, &["apply", "--yes"])?;
    ensure!(weather()?.clear(&pipeline.account)? == 5 && applied.code == Some(0), "{}", applied.err);
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not in sync");
    Ok(())
}

#[tokio::test]
async fn permanent_errors_are_not_retried() -> Result<()> {
    for (service, operation, code, message) in [
        ("lambda", "CreateFunction", "InvalidParameterValueException", "Layers are not valid"),
        ("iam", "CreateRole", "MalformedPolicyDocument", "Syntax errors in policy"),
        ("s3", "PutBucketNotification", "InvalidArgument", "Configurations overlap"),
    ] {
        let pipeline = pipeline()?;
        weather()?.add(&pipeline.account, &[rule(service, operation, 100, code, 400, message)])?;
        let applied = run_through_proxy(&pipeline, &["apply", "--yes"])?;
        ensure!(weather()?.clear(&pipeline.account)? == 1, "{operation} was retried: {}", applied.err);
        ensure!(applied.code == Some(1) && applied.err.contains(message), "{}", applied.err);
        pipeline.expect(0, &["apply", "--yes"])?;
    }
    Ok(())
}

#[tokio::test]
async fn failed_step_skips_its_dependents_only() -> Result<()> {
    let pipeline = pipeline()?;
    let denied = rule("sqs", "CreateQueue", 100, "AccessDenied", 403, "not authorized to perform: sqs:createqueue");
    weather()?.add(&pipeline.account, &[denied])?;
    let applied = run_through_proxy(&pipeline, &["apply", "--yes"])?;
    weather()?.clear(&pipeline.account)?;
    let name = &pipeline.name;
    ensure!(applied.code == Some(1), "{applied:?}");
    for part in [
        &format!("failed to create queue {name}-failures: sqs:CreateQueue answered 403"),
        "help: allow the caller sqs:CreateQueue",
        &format!("function {name}-handler: skipped, because queue {name}-failures failed"),
        &format!("queue {name}-notifications: skipped, because queue {name}-failures failed"),
        &format!("event source mapping {name}-notifications: skipped, because queue {name}-failures failed"),
        &format!("permission {name}-handler: skipped, because queue {name}-failures failed"),
        &format!("notification {name}: skipped, because queue {name}-failures failed"),
        &format!("bucket {name}: created"),
        &format!("table {name}-counts: created"),
        &format!("1 of {RESOURCES} steps failed, 5 were skipped"),
        "fix the cause and run the command again",
    ] {
        ensure!(applied.err.contains(part), "{part} is not in {}", applied.err);
    }
    let plan = pipeline.expect(0, &["plan"])?;
    ensure!(verdict(&plan.out)? == "Plan: 6 to create, 0 to update, 0 to delete.", "{}", plan.out);
    pipeline.expect(0, &["apply", "--yes"])?;
    Ok(())
}

#[tokio::test]
async fn credentials_expiring_during_apply_are_reported() -> Result<()> {
    for (code, status, remedy) in [
        ("ExpiredToken", 400, "sign in again"),
        ("ExpiredTokenException", 400, "sign in again"),
        ("InvalidClientTokenId", 403, "AWS does not know these credentials"),
        ("SignatureDoesNotMatch", 403, "the secret key belongs to the access key"),
    ] {
        let pipeline = pipeline()?;
        let message = "The security token included in the request is expired";
        // From the first change on, every call is rejected.
        let rules: Vec<Value> = ["CreateTable", "CreateRole", "CreateQueue", "CreateBucket", "CreateLogGroup"]
            .map(|operation| {
                json!({
                    "operation": operation, "error": { "code": code, "status": status, "message": message },
                })
            })
            .into();
        weather()?.add(&pipeline.account, &rules)?;
        let started = Instant::now();
        let applied = run_through_proxy(&pipeline, &["apply", "--yes"])?;
        weather()?.clear(&pipeline.account)?;
        ensure!(applied.code == Some(1) && applied.err.contains(remedy), "{code}: {}", applied.err);
        ensure!(started.elapsed() < Duration::from_secs(60), "{code} was retried for too long");
        pipeline.expect(0, &["apply", "--yes"])?;
    }
    Ok(())
}

#[tokio::test]
async fn network_failures_are_reported_with_a_remedy() -> Result<()> {
    let pipeline = pipeline()?;
    let weather = weather()?;
    // A proxy without TLS, an unknown host, a port without a listener.
    let https = weather.endpoint().replace("http://", "https://");
    for (endpoint, part) in [
        (https.as_str(), "could not be sent"),
        ("http://aws.invalid", "could not be sent"),
        ("http://127.0.0.1:1", "could not be sent"),
    ] {
        let started = Instant::now();
        let output = pipeline.command(&["plan"])?.env("AWS_ENDPOINT_URL", endpoint).output()?;
        let run = CommandOutput::of(&output);
        ensure!(run.code == Some(1) && run.err.contains(part), "{endpoint}: {}", run.err);
        ensure!(run.err.contains("check the network, pipeline.region and AWS_ENDPOINT_URL"), "{}", run.err);
        ensure!(run.err.lines().count() <= 4 && !run.err.contains("panicked"), "{}", run.err);
        ensure!(started.elapsed() < Duration::from_secs(60), "{endpoint} was retried for too long");
    }
    Ok(())
}

/// Starts an apply, waits until its first step has begun, and sends it the signals. Returns its output, and the time
/// from the first signal to its end.
fn interrupt_apply(pipeline: &Pipeline<'_>, signals: &[&str]) -> Result<(CommandOutput, Duration)> {
    use std::io::{BufRead as _, BufReader, Read as _};

    let mut command = weather()?.route(pipeline.command(&["apply", "--yes", "--format", "json"])?);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("stdout")?);
    let mut text = String::new();
    while !text.contains("\"event\":\"started\"") {
        ensure!(out.read_line(&mut text)? > 0, "apply ended too early: {text}");
    }
    let sent = Instant::now();
    for name in signals {
        send_signal(name, child.id())?;
        std::thread::sleep(Duration::from_millis(100));
    }
    out.read_to_string(&mut text)?;
    let output = child.wait_with_output()?;
    Ok((CommandOutput { out: text, ..CommandOutput::of(&output) }, sent.elapsed()))
}

#[tokio::test]
async fn signal_during_apply_finishes_running_steps_and_starts_no_more() -> Result<()> {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let pipeline = pipeline()?;
        weather()?.add(&pipeline.account, &[json!({ "latency": 300 })])?;
        let (run, _) = interrupt_apply(&pipeline, &[name])?;
        weather()?.clear(&pipeline.account)?;
        ensure!(run.code == Some(code), "{run:?}");
        let count = |event: &str| run.out.matches(&format!("\"event\":\"{event}\"")).count();
        ensure!(count("started") == count("done") && count("failed") == 0, "a step did not finish: {}", run.out);
        ensure!(count("skipped") > 0 && count("started") + count("skipped") == RESOURCES, "{}", run.out);
        ensure!(run.out.contains(&format!("\"signal\":\"SIG{name}\"")), "{}", run.out);
        ensure!(run.err.contains(&format!("SIG{name}: stopped after")), "{}", run.err);
        ensure!(run.err.contains("run the command again to continue"), "{}", run.err);
        pipeline.expect(0, &["apply", "--yes"])?;
        ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not in sync");
    }
    Ok(())
}

#[tokio::test]
async fn signal_during_a_waiting_step_lets_it_finish() -> Result<()> {
    let pipeline = pipeline()?;
    let message = "The role defined for the function cannot be assumed by Lambda.";
    let wait = rule("lambda", "CreateFunction", 6, "InvalidParameterValueException", 400, message);
    // Only the function is left to create, and the permission and the notification that depend on it.
    pipeline.expect(0, &["apply", "--yes"])?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    lambda.delete_function().function_name(format!("{}-handler", pipeline.name)).send().await?;
    weather()?.add(&pipeline.account, &[wait])?;
    let (run, _) = interrupt_apply(&pipeline, &["INT"])?;
    ensure!(weather()?.clear(&pipeline.account)? == 6 && run.code == Some(130), "{run:?}");
    let count = |event: &str| run.out.matches(&format!("\"event\":\"{event}\"")).count();
    ensure!(count("done") == 1 && count("failed") == 0 && count("skipped") > 0, "{}", run.out);
    lambda.get_function().function_name(format!("{}-handler", pipeline.name)).send().await.context("the function")?;
    Ok(())
}

#[tokio::test]
async fn concurrent_change_of_the_function_is_not_overwritten() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.declare("[function]\nmemory_mb = 512")?;
    // The change, bound to a revision, is delayed, and another change is made first.
    weather()?.add(
        &pipeline.account,
        &[json!({ "service": "lambda", "operation": "UpdateFunctionConfiguration", "latency": 2_000, "times": 1 })],
    )?;
    let mut command = weather()?.route(pipeline.command(&["apply", "--yes", "--format", "json"])?);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    let started = Instant::now();
    while weather()?.fired_for(&pipeline.account)? == 0 {
        ensure!(started.elapsed() < Duration::from_secs(60), "the change was never attempted");
        ensure!(child.try_wait()?.is_none(), "apply ended too early");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lambda.update_function_configuration().function_name(&function).memory_size(1024).send().await?;
    let run = CommandOutput::of(&child.wait_with_output()?);
    weather()?.clear(&pipeline.account)?;
    ensure!(run.code == Some(1), "{run:?}");
    ensure!(run.out.contains("was changed concurrently by another process"), "{}", run.out);
    let now = lambda.get_function_configuration().function_name(&function).send().await?;
    ensure!(now.memory_size == Some(1024), "{:?}", now.memory_size);
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not in sync");
    Ok(())
}

#[tokio::test]
async fn wrong_clock_is_reported_for_every_error_code() -> Result<()> {
    for (code, message) in [
        ("SignatureDoesNotMatch", "Signature expired: 20150804T120000Z is now earlier than 20150804T121500Z"),
        (
            "InvalidSignatureException",
            "Signature not yet current: 20150804T123000Z is still later than 20150804T121500Z",
        ),
        ("RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
    ] {
        let pipeline = pipeline()?;
        weather()?.add(&pipeline.account, &[rule("sts", "GetCallerIdentity", 9, code, 403, message)])?;
        let run = run_through_proxy(&pipeline, &["plan"])?;
        weather()?.clear(&pipeline.account)?;
        ensure!(run.code == Some(1) && run.err.contains("this machine's clock is wrong"), "{}", run.err);
    }
    Ok(())
}

#[tokio::test]
async fn second_signal_stops_apply_immediately() -> Result<()> {
    let pipeline = pipeline()?;
    weather()?.add(&pipeline.account, &[json!({ "latency": 5_000, "operation": "CreateQueue" })])?;
    let (run, took) = interrupt_apply(&pipeline, &["INT", "INT"])?;
    weather()?.clear(&pipeline.account)?;
    ensure!(run.code == Some(130), "{run:?}");
    ensure!(took < Duration::from_secs(4), "apply ended only after {took:?}");
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not in sync");
    Ok(())
}
