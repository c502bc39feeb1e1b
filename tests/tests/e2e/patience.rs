//! AWS is of one mind only after a while: what passes by itself is waited for, told of, and bounded.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::pipeline::{Pipeline, Ran};

use crate::faults::weather;
use crate::{pipeline, verdict};

fn over(pipeline: &Pipeline<'_>, args: &[&str]) -> Result<Ran> {
    Ok(Ran::of(&weather()?.over(pipeline.command(args)?).output()?))
}

/// An error of AWS's for some calls of an operation.
fn rule(service: &str, operation: &str, times: u32, code: &str, status: u16, message: &str) -> Value {
    json!({
        "service": service, "operation": operation, "times": times,
        "error": { "code": code, "status": status, "message": message },
    })
}

/// What AWS answers for a while after something was made or changed, and what is said to be waited for. The texts are
/// AWS's own, as Terraform's and other tools' sources quote them.
fn passing() -> Vec<(Value, &'static str)> {
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
            "the function's policy to take a change",
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
            "S3 to have finished with that name",
        ),
        (
            rule("s3", "PutPublicAccessBlock", 4, "NoSuchBucket", 404, "The specified bucket does not exist"),
            "S3 to know the bucket everywhere",
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
            "S3 to see the permission to invoke the function",
        ),
        (
            dynamodb(
                "CreateTable",
                "LimitExceededException",
                "Too many operations for a given subscriber: tables can be created simultaneously",
            ),
            "the table's turn to be made",
        ),
        (
            dynamodb("UpdateTimeToLive", "ResourceInUseException", "Table is being updated"),
            "the table to take its time to live",
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
            "SQS to forget the queue that was deleted a moment ago",
        ),
    ]
}

#[tokio::test]
async fn what_passes_by_itself_is_waited_for_and_told_of() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[segment]\nworkspace_id = \"abc123\"")?;
    let (rules, waits): (Vec<Value>, Vec<&str>) = passing().into_iter().unzip();
    weather()?.add(&pipeline.account, &rules)?;
    let applied = over(&pipeline, &["apply", "--yes", "--format", "json"])?;
    let fired = weather()?.clear(&pipeline.account)?;
    ensure!(applied.code == Some(0), "{}\n{}", applied.out, applied.err);
    ensure!(fired == 4 * rules.len(), "only {fired} faults were met");
    for what in waits {
        let told = |line: &str| line.contains("\"event\":\"waiting\"") && line.contains(what);
        ensure!(applied.out.lines().any(told), "{what} is not told of in\n{}", applied.out);
    }
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not converged");
    Ok(())
}

#[tokio::test]
async fn a_function_that_is_being_changed_is_waited_for() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.declare("[function]\nmemory_mb = 512")?;
    let busy = "The operation cannot be performed at this time. An update is in progress for resource";
    let rule = rule("lambda", "UpdateFunctionConfiguration", 5, "ResourceConflictException", 409, busy);
    weather()?.add(&pipeline.account, &[rule])?;
    let applied = over(&pipeline, &["apply", "--yes"])?;
    ensure!(weather()?.clear(&pipeline.account)? == 5 && applied.code == Some(0), "{}", applied.err);
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not converged");
    Ok(())
}

#[tokio::test]
async fn what_does_not_pass_by_itself_is_not_waited_for() -> Result<()> {
    for (service, operation, code, message) in [
        ("lambda", "CreateFunction", "InvalidParameterValueException", "Layers are not valid"),
        ("iam", "CreateRole", "MalformedPolicyDocument", "Syntax errors in policy"),
        ("s3", "PutBucketNotification", "InvalidArgument", "Configurations overlap"),
    ] {
        let pipeline = pipeline()?;
        weather()?.add(&pipeline.account, &[rule(service, operation, 100, code, 400, message)])?;
        let applied = over(&pipeline, &["apply", "--yes"])?;
        ensure!(weather()?.clear(&pipeline.account)? == 1, "{operation} was tried again: {}", applied.err);
        ensure!(applied.code == Some(1) && applied.err.contains(message), "{}", applied.err);
        pipeline.expect(0, &["apply", "--yes"])?;
    }
    Ok(())
}

#[tokio::test]
async fn what_depends_on_a_failure_is_skipped_and_the_rest_goes_on() -> Result<()> {
    let pipeline = pipeline()?;
    let denied = rule("sqs", "CreateQueue", 100, "AccessDenied", 403, "not authorized to perform: sqs:createqueue");
    weather()?.add(&pipeline.account, &[denied])?;
    let applied = over(&pipeline, &["apply", "--yes"])?;
    weather()?.clear(&pipeline.account)?;
    let name = &pipeline.name;
    ensure!(applied.code == Some(1), "{applied:?}");
    for part in [
        &format!("failed to create queue {name}-failures: sqs:CreateQueue answered 403"),
        "help: allow the caller sqs:CreateQueue",
        &format!("function {name}-handler: skipped, because queue {name}-failures failed"),
        &format!("permission {name}-handler: skipped, because queue {name}-failures failed"),
        &format!("notification {name}: skipped, because queue {name}-failures failed"),
        &format!("bucket {name}: created"),
        &format!("table {name}-counts: created"),
        "1 of 9 steps failed, 3 were skipped",
        "run the command again to continue",
    ] {
        ensure!(applied.err.contains(part), "{part} is not in {}", applied.err);
    }
    let plan = pipeline.expect(0, &["plan"])?;
    ensure!(verdict(&plan.out)? == "Plan: 4 to create, 0 to update, 0 to delete.", "{}", plan.out);
    pipeline.expect(0, &["apply", "--yes"])?;
    Ok(())
}

#[tokio::test]
async fn credentials_that_expire_on_the_way_are_said_so() -> Result<()> {
    for (code, status, remedy) in [
        ("ExpiredToken", 400, "sign in again"),
        ("ExpiredTokenException", 400, "sign in again"),
        ("InvalidClientTokenId", 403, "AWS does not know these credentials"),
        ("SignatureDoesNotMatch", 403, "the secret key does not belong to the access key"),
    ] {
        let pipeline = pipeline()?;
        let said = "The security token included in the request is expired";
        // From the first change on, nothing is accepted any more.
        let rules: Vec<Value> = ["CreateTable", "CreateRole", "CreateQueue", "CreateBucket", "CreateLogGroup"]
            .map(|operation| {
                json!({
                    "operation": operation, "error": { "code": code, "status": status, "message": said },
                })
            })
            .into();
        weather()?.add(&pipeline.account, &rules)?;
        let started = Instant::now();
        let applied = over(&pipeline, &["apply", "--yes"])?;
        weather()?.clear(&pipeline.account)?;
        ensure!(applied.code == Some(1) && applied.err.contains(remedy), "{code}: {}", applied.err);
        ensure!(started.elapsed() < Duration::from_secs(60), "{code} was tried for long");
        pipeline.expect(0, &["apply", "--yes"])?;
    }
    Ok(())
}

#[tokio::test]
async fn networks_that_fail_are_said_so() -> Result<()> {
    let pipeline = pipeline()?;
    let weather = weather()?;
    // A proxy that speaks no TLS, a name that nobody knows, a port that nobody listens at.
    let https = weather.endpoint().replace("http://", "https://");
    for (endpoint, part) in [
        (https.as_str(), "could not be sent"),
        ("http://aws.invalid", "could not be sent"),
        ("http://127.0.0.1:1", "could not be sent"),
    ] {
        let started = Instant::now();
        let output = pipeline.command(&["plan"])?.env("AWS_ENDPOINT_URL", endpoint).output()?;
        let ran = Ran::of(&output);
        ensure!(ran.code == Some(1) && ran.err.contains(part), "{endpoint}: {}", ran.err);
        ensure!(ran.err.contains("check the network, pipeline.region and AWS_ENDPOINT_URL"), "{}", ran.err);
        ensure!(ran.err.lines().count() <= 4 && !ran.err.contains("panicked"), "{}", ran.err);
        ensure!(started.elapsed() < Duration::from_secs(60), "{endpoint} was tried for long");
    }
    Ok(())
}

/// Sends a signal to a process by its id.
pub(crate) fn signal(name: &str, process: u32) -> Result<()> {
    let status = std::process::Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status()?;
    ensure!(status.success(), "no process {process}");
    Ok(())
}

/// Starts an apply whose every call takes a while, waits until its first step has begun, and sends it a signal, and, if
/// asked, another.
fn interrupted(pipeline: &Pipeline<'_>, signals: &[&str]) -> Result<(Ran, Duration)> {
    use std::io::{BufRead as _, BufReader, Read as _};

    let mut command = weather()?.over(pipeline.command(&["apply", "--yes", "--format", "json"])?);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("stdout")?);
    let mut text = String::new();
    while !text.contains("\"event\":\"started\"") {
        ensure!(out.read_line(&mut text)? > 0, "it ended: {text}");
    }
    let sent = Instant::now();
    for name in signals {
        signal(name, child.id())?;
        std::thread::sleep(Duration::from_millis(100));
    }
    out.read_to_string(&mut text)?;
    let output = child.wait_with_output()?;
    Ok((Ran { out: text, ..Ran::of(&output) }, sent.elapsed()))
}

#[tokio::test]
async fn a_signal_lets_steps_finish_and_begins_no_more() -> Result<()> {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let pipeline = pipeline()?;
        weather()?.add(&pipeline.account, &[json!({ "latency": 300 })])?;
        let (ran, _) = interrupted(&pipeline, &[name])?;
        weather()?.clear(&pipeline.account)?;
        ensure!(ran.code == Some(code), "{ran:?}");
        let count = |event: &str| ran.out.matches(&format!("\"event\":\"{event}\"")).count();
        ensure!(count("started") == count("done") && count("failed") == 0, "a step was left: {}", ran.out);
        ensure!(count("skipped") > 0 && count("started") + count("skipped") == 9, "{}", ran.out);
        ensure!(ran.out.contains(&format!("\"signal\":\"SIG{name}\"")), "{}", ran.out);
        ensure!(ran.err.contains(&format!("SIG{name}: stopped after")), "{}", ran.err);
        ensure!(ran.err.contains("run the command again to continue"), "{}", ran.err);
        pipeline.expect(0, &["apply", "--yes"])?;
        ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not converged");
    }
    Ok(())
}

#[tokio::test]
async fn a_signal_lets_a_step_that_waits_go_on_to_its_end() -> Result<()> {
    let pipeline = pipeline()?;
    let said = "The role defined for the function cannot be assumed by Lambda.";
    let wait = rule("lambda", "CreateFunction", 6, "InvalidParameterValueException", 400, said);
    // Only the function is left to make, with the permission and the notification behind it.
    pipeline.expect(0, &["apply", "--yes"])?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    lambda.delete_function().function_name(format!("{}-handler", pipeline.name)).send().await?;
    weather()?.add(&pipeline.account, &[wait])?;
    let (ran, _) = interrupted(&pipeline, &["INT"])?;
    ensure!(weather()?.clear(&pipeline.account)? == 6 && ran.code == Some(130), "{ran:?}");
    let count = |event: &str| ran.out.matches(&format!("\"event\":\"{event}\"")).count();
    ensure!(count("done") == 1 && count("failed") == 0 && count("skipped") > 0, "{}", ran.out);
    lambda.get_function().function_name(format!("{}-handler", pipeline.name)).send().await.context("the function")?;
    Ok(())
}

#[tokio::test]
async fn what_somebody_else_changes_meanwhile_is_not_undone() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.declare("[function]\nmemory_mb = 512")?;
    // The change is held up, with the revision that it is for, and another one comes first.
    weather()?.add(
        &pipeline.account,
        &[json!({ "service": "lambda", "operation": "UpdateFunctionConfiguration", "latency": 2_000, "times": 1 })],
    )?;
    let mut command = weather()?.over(pipeline.command(&["apply", "--yes", "--format", "json"])?);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    let started = Instant::now();
    while weather()?.fired_of(&pipeline.account)? == 0 {
        ensure!(started.elapsed() < Duration::from_secs(60), "the change was never tried");
        ensure!(child.try_wait()?.is_none(), "it ended too early");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lambda.update_function_configuration().function_name(&function).memory_size(1024).send().await?;
    let ran = Ran::of(&child.wait_with_output()?);
    weather()?.clear(&pipeline.account)?;
    ensure!(ran.code == Some(1), "{ran:?}");
    ensure!(ran.out.contains("was changed while this ran, by something else than this run"), "{}", ran.out);
    let now = lambda.get_function_configuration().function_name(&function).send().await?;
    ensure!(now.memory_size == Some(1024), "{:?}", now.memory_size);
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not converged");
    Ok(())
}

#[tokio::test]
async fn a_wrong_clock_is_said_so_whichever_service_finds_it() -> Result<()> {
    for (code, said) in [
        ("SignatureDoesNotMatch", "Signature expired: 20150804T120000Z is now earlier than 20150804T121500Z"),
        (
            "InvalidSignatureException",
            "Signature not yet current: 20150804T123000Z is still later than 20150804T121500Z",
        ),
        ("RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
    ] {
        let pipeline = pipeline()?;
        weather()?.add(&pipeline.account, &[rule("sts", "GetCallerIdentity", 9, code, 403, said)])?;
        let ran = over(&pipeline, &["plan"])?;
        weather()?.clear(&pipeline.account)?;
        ensure!(ran.code == Some(1) && ran.err.contains("this machine's clock is wrong"), "{}", ran.err);
    }
    Ok(())
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() -> Result<()> {
    let pipeline = pipeline()?;
    weather()?.add(&pipeline.account, &[json!({ "latency": 5_000, "operation": "CreateQueue" })])?;
    let (ran, took) = interrupted(&pipeline, &["INT", "INT"])?;
    weather()?.clear(&pipeline.account)?;
    ensure!(ran.code == Some(130), "{ran:?}");
    ensure!(took < Duration::from_secs(4), "it took {took:?}");
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not converged");
    Ok(())
}
