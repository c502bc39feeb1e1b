//! docs/from-terraform.md: a pipeline that another tool made is taken over, and every file is counted once.

use std::io::{Cursor, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::ScalarAttributeType;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{Environment, FunctionCode, Runtime};
use aws_sdk_s3::types::{
    Event, FilterRule, FilterRuleName, LambdaFunctionConfiguration, NotificationConfiguration,
    NotificationConfigurationFilter, S3KeyFilter,
};
use serde_json::json;
use tests::local_aws::{REGION, root};
use tests::pipeline::{COUNT_TIMEOUT, CommandOutput, Pipeline};
use tests::recount::{self, Counts};
use tests::samples::gzip;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::common::{HOUR, track};
use crate::ownership::table;
use crate::policy::User;
use crate::strict_kinds::eventually;
use crate::{pipeline, steps, verdict};

/// The pause between two uploads while an apply runs.
const PACE: Duration = Duration::from_millis(100);

/// Returns the zipped code of another tool's function, which does nothing.
fn code() -> Result<Vec<u8>> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("index.py", SimpleFileOptions::default().unix_permissions(0o644))?;
    writer.write_all(b"def handler(event, context):\n    return None\n")?;
    Ok(writer.finish()?.into_inner())
}

/// Uploads a file with one event, which has the name of the file.
async fn upload(pipeline: &Pipeline<'_>, expected: &mut Counts, name: &str) -> Result<()> {
    let bytes = gzip(track(name).as_bytes());
    pipeline.upload(&format!("segment-logs/x/1/{name}.gz"), &bytes).await?;
    recount::add(expected, &bytes)
}

/// Waits until an event is counted.
async fn wait_for(pipeline: &Pipeline<'_>, event: &str) -> Result<()> {
    let started = Instant::now();
    while !pipeline.counts().await?.contains_key(&(event.to_owned(), HOUR.to_owned())) {
        ensure!(started.elapsed() < COUNT_TIMEOUT, "{event} was not counted");
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

/// Runs `apply --adopt`, and uploads files until it ends.
async fn apply_during_uploads(pipeline: &Pipeline<'_>, expected: &mut Counts) -> Result<CommandOutput> {
    let mut command = pipeline.command(&["apply", "--adopt", "--yes"])?;
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut uploaded = 0;
    while run.try_wait()?.is_none() {
        upload(pipeline, expected, &format!("during-{uploaded}")).await?;
        uploaded += 1;
        tokio::time::sleep(PACE).await;
    }
    let run = CommandOutput::of(&run.wait_with_output()?);
    ensure!(run.code == Some(0) && uploaded > 0, "{uploaded} uploads\n{}\n{}", run.out, run.err);
    Ok(run)
}

/// Makes what Terraform would: a bucket, a table, a function with a role at the path `/`, and an entry that notifies it.
async fn create_by_hand(pipeline: &Pipeline<'_>) -> Result<()> {
    let (sdk, name) = (pipeline.sdk().await?, &pipeline.name);
    let s3 = pipeline.s3().await?;
    s3.create_bucket().bucket(name).send().await?;
    let keys = [("Event", ScalarAttributeType::S), ("Timestamp", ScalarAttributeType::N)];
    table(&aws_sdk_dynamodb::Client::new(&sdk), "EventCounts", keys).await?;
    let trust = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": { "Service": "lambda.amazonaws.com" }, "Action": "sts:AssumeRole",
    }]});
    let function = format!("{name}-lambda");
    let iam = aws_sdk_iam::Client::new(&sdk);
    let request = iam.create_role().role_name(&function).assume_role_policy_document(trust.to_string());
    let role = request.send().await?.role.context("a role")?;
    let lambda = aws_sdk_lambda::Client::new(&sdk);
    let request = lambda
        .create_function()
        .function_name(&function)
        .role(role.arn)
        .runtime(Runtime::Python312)
        .handler("index.handler")
        .memory_size(512)
        .timeout(30)
        .environment(Environment::builder().variables("TABLE", "EventCounts").build())
        .code(FunctionCode::builder().zip_file(Blob::new(code()?)).build());
    eventually(|| request.clone().send()).await?;
    let request = lambda.add_permission().function_name(&function).statement_id("AllowExecutionFromS3Bucket");
    let request = request.action("lambda:InvokeFunction").principal("s3.amazonaws.com");
    request.source_arn(format!("arn:aws:s3:::{name}")).send().await?;
    let rule = |name, value: &str| FilterRule::builder().name(name).value(value).build();
    let key = S3KeyFilter::builder()
        .filter_rules(rule(FilterRuleName::Prefix, "segment-logs/"))
        .filter_rules(rule(FilterRuleName::Suffix, ".gz"));
    let entry = LambdaFunctionConfiguration::builder()
        .id("tf-s3-lambda-1")
        .lambda_function_arn(format!("arn:aws:lambda:{REGION}:{}:function:{function}", pipeline.account))
        .events(Event::from("s3:ObjectCreated:*"))
        .filter(NotificationConfigurationFilter::builder().key(key.build()).build());
    let all = NotificationConfiguration::builder().lambda_function_configurations(entry.build()?).build();
    s3.put_bucket_notification_configuration().bucket(name).notification_configuration(all).send().await?;
    Ok(())
}

/// Runs `adopt`, and adds the path of the handler to its file.
fn adopt(pipeline: &Pipeline<'_>, args: &[&str]) -> Result<()> {
    let base = ["adopt", "--region", REGION, "--name", pipeline.name.as_str(), "--out", "pipeline.toml"];
    let args = [base.as_slice(), args].concat();
    // The file of the harness is in the way.
    let refused = pipeline.expect(1, &args)?;
    ensure!(refused.err.contains("failed to write pipeline.toml"), "{}", refused.err);
    std::fs::remove_file(pipeline.config())?;
    let adopted = pipeline.expect(0, &args)?;
    ensure!(adopted.out.contains(&format!("describes bucket {}", pipeline.name)), "{}", adopted.out);
    let valid = pipeline.expect(0, &["validate"])?;
    ensure!(valid.out.contains("is valid"), "{}", valid.out);
    let file = std::fs::read_to_string(pipeline.config())?;
    for line in ["memory_mb = 512", "timeout_seconds = 30", "via = \"function\"", "require_tls = false"] {
        ensure!(file.lines().any(|other| other == line), "{line} is not in {file}");
    }
    for kept in ["The table EventCounts (keys Event (S), Timestamp (N)) is left as it is", "The variables TABLE stay"] {
        ensure!(file.contains(kept), "{kept} is not in {file}");
    }
    let artifact = format!("[function]\nartifact = \"{}\"\n", root().join("target/lambda/bootstrap").display());
    std::fs::write(pipeline.config(), file.replacen("[function]\n", &artifact, 1))?;
    Ok(())
}

/// Checks the plans without and with `--adopt`.
fn check_plans(pipeline: &Pipeline<'_>, function: &str) -> Result<()> {
    let name = &pipeline.name;
    let refused = pipeline.expect(1, &["plan"])?;
    ensure!(refused.err.contains(&format!("notification {name} exists and is unmanaged")), "{}", refused.err);
    let plan = pipeline.expect(0, &["plan", "--adopt"])?.out;
    for step in
        [format!("  + role {name}-function"), format!("  ~ function {function}"), format!("  ~ notification {name}")]
    {
        ensure!(steps(&plan).contains(&step.as_str()), "{step} is not in {plan}");
    }
    for part in
        ["unmanaged_entries", "tf-s3-lambda-", "is unmanaged: the pipeline's own takes its place", "0 to delete"]
    {
        ensure!(plan.contains(part), "{part} is not in {plan}");
    }
    Ok(())
}

/// Returns the destinations of the bucket's notifications.
async fn destinations(pipeline: &Pipeline<'_>) -> Result<Vec<String>> {
    let all = pipeline.s3().await?.get_bucket_notification_configuration().bucket(&pipeline.name).send().await?;
    let functions = all.lambda_function_configurations().iter().map(|entry| entry.lambda_function_arn.clone());
    Ok(functions.chain(all.queue_configurations().iter().map(|entry| entry.queue_arn.clone())).collect())
}

#[tokio::test]
async fn pipeline_of_another_tool_is_taken_over_without_losing_a_file() -> Result<()> {
    let pipeline = pipeline()?;
    create_by_hand(&pipeline).await?;
    let (name, function) = (&pipeline.name, format!("{}-lambda", pipeline.name));
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let role_before = iam.get_role().role_name(&function).send().await?.role;
    let mut expected = Counts::new();
    upload(&pipeline, &mut expected, "before").await?;

    // The bucket is that of the function's policy.
    adopt(&pipeline, &["--function", &function])?;
    let planner = User::new(&pipeline, "planner").await?;
    planner.allow(&serde_json::from_str(&pipeline.expect(0, &["policy", "planner"])?.out)?).await?;
    let described = planner.run(&["adopt", "--bucket", name.as_str(), "--region", REGION])?;
    ensure!(described.code == Some(0) && described.out.contains(&format!("name = \"{function}\"")), "{described:?}");
    check_plans(&pipeline, &function)?;

    let applied = apply_during_uploads(&pipeline, &mut expected).await?;
    ensure!(applied.out.contains(&format!("~ notification {name}")), "{}", applied.out);
    let arn = format!("arn:aws:lambda:{REGION}:{}:function:{function}", pipeline.account);
    ensure!(destinations(&pipeline).await? == [arn], "{:?}", destinations(&pipeline).await?);
    upload(&pipeline, &mut expected, "after").await?;
    wait_for(&pipeline, "after").await?;
    pipeline.expect(0, &["backfill"])?;
    pipeline.wait_for_counts(&expected).await?;
    let plan = pipeline.expect(0, &["plan", "--detailed-exitcode"])?.out;
    ensure!(verdict(&plan)? == "No changes." && plan.contains("Service:s3.amazonaws.com"), "{plan}");
    let role_after = iam.get_role().role_name(&function).send().await?.role;
    ensure!(role_after.map(|role| (role.arn, role.tags)) == role_before.map(|role| (role.arn, role.tags)), "changed");

    // The entry moves to a queue in the same way.
    let file = std::fs::read_to_string(pipeline.config())?;
    std::fs::write(pipeline.config(), file.replacen("via = \"function\"\n", "", 1))?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let queue = format!("arn:aws:sqs:{REGION}:{}:{name}-notifications", pipeline.account);
    ensure!(destinations(&pipeline).await? == [queue], "{:?}", destinations(&pipeline).await?);
    upload(&pipeline, &mut expected, "queued").await?;
    pipeline.wait_for_counts(&expected).await
}

#[tokio::test]
async fn entry_of_another_tool_moves_to_the_queue_in_one_call() -> Result<()> {
    let pipeline = pipeline()?;
    create_by_hand(&pipeline).await?;
    let mut expected = Counts::new();
    upload(&pipeline, &mut expected, "before").await?;
    pipeline.declare(&format!("[function]\nname = \"{}-lambda\"", pipeline.name))?;
    apply_during_uploads(&pipeline, &mut expected).await?;
    let queue = format!("arn:aws:sqs:{REGION}:{}:{}-notifications", pipeline.account, pipeline.name);
    ensure!(destinations(&pipeline).await? == [queue], "{:?}", destinations(&pipeline).await?);
    pipeline.expect(0, &["backfill"])?;
    pipeline.wait_for_counts(&expected).await?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not in sync");
    Ok(())
}

/// Says that a test is skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skip(reason: &str) {
    eprintln!("SKIPPED: {reason}");
}

/// Terraform in a folder of its own, in the pipeline's account.
struct Terraform<'a> {
    pipeline: &'a Pipeline<'a>,
    folder: tempfile::TempDir,
}

impl Terraform<'_> {
    /// Runs Terraform; `None` if it is not installed.
    fn run(&self, args: &[&str]) -> Result<Option<CommandOutput>> {
        // The provisioner's environment is that of the account alone.
        let variables = self.pipeline.command(&[])?;
        let mut command = Command::new("terraform");
        command.current_dir(self.folder.path()).args(args).stdin(Stdio::null());
        command.env_remove("AWS_PROFILE").env_remove("AWS_SESSION_TOKEN");
        for (name, value) in variables.get_envs() {
            if let Some(value) = value.filter(|_| name != "HOME") {
                command.env(name, value);
            }
        }
        match command.env("TF_IN_AUTOMATION", "1").output() {
            Ok(output) => Ok(Some(CommandOutput::of(&output))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("failed to run terraform"),
        }
    }

    fn expect(&self, args: &[&str]) -> Result<CommandOutput> {
        let run = self.run(args)?.context("terraform is not installed")?;
        ensure!(run.code == Some(0), "terraform {args:?}\n{}\n{}", run.out, run.err);
        Ok(run)
    }
}

/// Returns the `main.tf` of the doc, with the names of this test.
fn main_tf(pipeline: &Pipeline<'_>) -> Result<String> {
    let doc = std::fs::read_to_string(root().join("docs/from-terraform.md"))?;
    let (_, rest) = doc.split_once("`main.tf`:\n").context("the set-up")?;
    let block = rest.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let text = block.map(|line| line.strip_prefix("    ").unwrap_or(line)).collect::<Vec<_>>().join("\n");
    ensure!(text.contains("aws_s3_bucket_notification"), "{text}");
    let function = format!("{}-lambda", pipeline.name);
    Ok(text.replace("acme-segment-logs", &pipeline.name).replace("segment-event-counter", &function))
}

/// Needs Terraform and its provider `hashicorp/aws`; `TF_CLI_ARGS_init=-plugin-dir=FOLDER` names a folder with it.
#[tokio::test]
async fn steps_of_the_doc_hold_with_terraform() -> Result<()> {
    let pipeline = pipeline()?;
    let terraform = Terraform { pipeline: &pipeline, folder: tempfile::TempDir::with_prefix("terraform-")? };
    std::fs::write(terraform.folder.path().join("main.tf"), main_tf(&pipeline)?)?;
    std::fs::write(terraform.folder.path().join("lambda.zip"), code()?)?;
    let missing = match terraform.run(&["init"])? {
        Some(run) if run.code == Some(0) => None,
        Some(run) => Some(format!("terraform init failed: {}", run.err.trim())),
        None => Some("terraform is not installed".to_owned()),
    };
    if let Some(missing) = missing {
        skip(&missing);
        return Ok(());
    }
    terraform.expect(&["apply", "-auto-approve"])?;
    let mut expected = Counts::new();
    upload(&pipeline, &mut expected, "before").await?;

    adopt(&pipeline, &["--bucket", &pipeline.name])?;
    check_plans(&pipeline, &format!("{}-lambda", pipeline.name))?;
    let doc = std::fs::read_to_string(root().join("docs/from-terraform.md"))?;
    let (_, taken) = doc.split_once("$ terraform state rm ").context("the resources that are taken over")?;
    let taken = taken.split("\n\n").next().unwrap_or_default().replace('\\', " ");
    let taken: Vec<&str> = ["state", "rm"].into_iter().chain(taken.split_whitespace()).collect();
    terraform.expect(&taken)?;
    apply_during_uploads(&pipeline, &mut expected).await?;
    ensure!(verdict(&pipeline.expect(0, &["plan", "--detailed-exitcode"])?.out)? == "No changes.", "not in sync");
    terraform.expect(&["destroy", "-auto-approve"])?;

    let plan = pipeline.expect(0, &["plan", "--detailed-exitcode"])?.out;
    ensure!(verdict(&plan)? == "No changes." && !plan.contains("Service:s3.amazonaws.com"), "{plan}");
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let old_role = iam.get_role().role_name(format!("{}-lambda", pipeline.name)).send().await;
    ensure!(old_role.is_err(), "the old role is left");
    upload(&pipeline, &mut expected, "after").await?;
    wait_for(&pipeline, "after").await?;
    pipeline.expect(0, &["backfill"])?;
    pipeline.wait_for_counts(&expected).await
}
