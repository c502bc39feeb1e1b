//! Resources that the pipeline does not own are neither changed nor deleted; orphaned resources are found.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use aws_sdk_s3::types::{Event, LambdaFunctionConfiguration, NotificationConfiguration, Tag, Tagging};
use serde_json::{Value, json};
use tests::pipeline::{Pipeline, RESOURCES};
use tests::samples::gzip;

use crate::{pipeline, steps, strict_pipeline, verdict};

/// Creates an unmanaged table.
pub(crate) async fn table(
    client: &aws_sdk_dynamodb::Client,
    name: &str,
    keys: [(&str, ScalarAttributeType); 2],
) -> Result<()> {
    let mut request = client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    for ((key, scalar), role) in keys.into_iter().zip([KeyType::Hash, KeyType::Range]) {
        request = request
            .key_schema(KeySchemaElement::builder().attribute_name(key).key_type(role).build()?)
            .attribute_definitions(AttributeDefinition::builder().attribute_name(key).attribute_type(scalar).build()?);
    }
    request.send().await?;
    Ok(())
}

/// Creates an unmanaged resource under each of the pipeline's names that allows one.
async fn create_unmanaged_resources(pipeline: &Pipeline<'_>) -> Result<()> {
    let (sdk, name) = (pipeline.sdk().await?, &pipeline.name);
    let s3 = pipeline.s3().await?;
    s3.create_bucket().bucket(name).send().await?;
    s3.put_object().bucket(name).key("unmanaged").body(b"kept".to_vec().into()).send().await?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk);
    let string = ScalarAttributeType::S;
    table(&dynamodb, &format!("{name}-counts"), [("event", string.clone()), ("hour", string.clone())]).await?;
    table(&dynamodb, &format!("{name}-daily"), [("day", string.clone()), ("event", string.clone())]).await?;
    table(&dynamodb, &format!("{name}-ledger"), [("object", string), ("chunk", ScalarAttributeType::N)]).await?;
    let logs = aws_sdk_cloudwatchlogs::Client::new(&sdk);
    logs.create_log_group().log_group_name(format!("/aws/lambda/{name}-handler")).send().await?;
    aws_sdk_sqs::Client::new(&sdk).create_queue().queue_name(format!("{name}-failures")).send().await?;
    Ok(())
}

#[tokio::test]
async fn unmanaged_resources_are_refused_unless_adopted() -> Result<()> {
    let pipeline = pipeline()?;
    create_unmanaged_resources(&pipeline).await?;
    let (account, name) = (&pipeline.account, &pipeline.name);

    let plan = pipeline.expect(1, &["plan", "--detailed-exitcode"])?;
    let refused: Vec<&str> = plan.out.lines().filter(|line| line.starts_with("  ! ")).collect();
    ensure!(refused.len() == 6, "{}", plan.out);
    for arn in [
        format!("(arn:aws:s3:::{name})"),
        format!("(arn:aws:dynamodb:us-east-1:{account}:table/{name}-counts)"),
        format!("(arn:aws:dynamodb:us-east-1:{account}:table/{name}-daily)"),
        format!("(arn:aws:dynamodb:us-east-1:{account}:table/{name}-ledger)"),
        format!("(arn:aws:logs:us-east-1:{account}:log-group:/aws/lambda/{name}-handler)"),
        format!("(arn:aws:sqs:us-east-1:{account}:{name}-failures)"),
    ] {
        ensure!(plan.out.contains(&arn) && plan.err.contains(&arn), "{arn} is not in {}\n{}", plan.out, plan.err);
    }
    // The changes that adoption would make are shown.
    for change in ["retention_days", "point_in_time_recovery  false -> true", "retention_seconds", "index", "tags"] {
        ensure!(plan.out.contains(change), "{change} is not in {}", plan.out);
    }
    ensure!(plan.out.contains("Plan refused: 6 conflicts"), "{}", plan.out);
    ensure!(plan.err.contains("--adopt"), "{}", plan.err);
    let applied = pipeline.expect(1, &["apply", "--yes"])?;
    ensure!(!applied.out.contains("Done"), "{}", applied.out);
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    ensure!(iam.list_roles().send().await?.roles.is_empty(), "apply executed a part of a refused plan");

    let plan = pipeline.expect(2, &["plan", "--adopt", "--detailed-exitcode"])?;
    let adopted = format!("Plan: {} to create, 6 to update, 0 to delete.", RESOURCES - 6);
    ensure!(verdict(&plan.out)?.starts_with(&*adopted), "{}", plan.out);
    pipeline.expect(0, &["apply", "--yes", "--adopt"])?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not in sync after adoption");
    let line = json!({ "type": "track", "event": "Adopted", "timestamp": "2015-08-04T12:00:00Z" });
    pipeline.upload("segment-logs/x/1/a.gz", &gzip(line.to_string().as_bytes())).await?;
    pipeline.wait_for_counts(&[(("Adopted".to_owned(), "2015-08-04T12:00:00Z".to_owned()), 1)].into()).await?;
    let s3 = pipeline.s3().await?;
    s3.head_object().bucket(name).key("unmanaged").send().await.context("the unmanaged object was deleted")?;
    Ok(())
}

#[tokio::test]
async fn resources_of_another_pipeline_are_never_adopted_or_destroyed() -> Result<()> {
    let pipeline = pipeline()?;
    let (s3, name) = (pipeline.s3().await?, &pipeline.name);
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    s3.create_bucket().bucket(name).send().await?;
    s3.put_object().bucket(name).key("unmanaged").body(b"kept".to_vec().into()).send().await?;
    // First unmanaged, then owned by another pipeline.
    for owner in [None, Some("visits")] {
        if let Some(owner) = owner {
            let tag = Tag::builder().key("pipeline").value(owner).build()?;
            let tagging = Tagging::builder().tag_set(tag).build()?;
            s3.put_bucket_tagging().bucket(name).tagging(tagging).send().await?;
            for command in [["plan", "--adopt"].as_slice(), &["apply", "--yes", "--adopt"]] {
                let run = pipeline.expect(1, command)?;
                ensure!(run.err.contains("is owned by the pipeline `visits`"), "{}", run.err);
                ensure!(run.err.contains(&format!("arn:aws:s3:::{name}")), "{}", run.err);
            }
        }
        let destroyed = pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
        ensure!(destroyed.out.contains("is not owned by this pipeline and is kept"), "{}", destroyed.out);
        s3.head_object().bucket(name).key("unmanaged").send().await.context("the object was deleted")?;
    }

    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let trust = json!({ "Version": "2012-10-17", "Statement": [] });
    let role = format!("{name}-function");
    iam.create_role().role_name(&role).assume_role_policy_document(trust.to_string()).send().await?;
    let run = pipeline.expect(1, &["plan", "--adopt"])?;
    ensure!(run.err.contains(&format!("arn:aws:iam::{}:role/{role}", pipeline.account)), "{}", run.err);
    pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    iam.get_role().role_name(&role).send().await.context("the role was deleted")?;
    Ok(())
}

#[tokio::test]
async fn orphaned_resources_are_reported_and_pruned() -> Result<()> {
    let pipeline = pipeline()?;
    let name = &pipeline.name;
    pipeline.declare("[segment]\nworkspace_id = \"abc123\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    // Segment's role is no longer declared, and the function and the queue have new names.
    pipeline.declare(&format!("[function]\nname = \"{name}-counter\"\nfailure_queue = \"{name}-lost\""))?;
    let orphans = [
        format!("role {name}-segment"),
        format!("log group /aws/lambda/{name}-handler"),
        format!("queue {name}-failures"),
        format!("function {name}-handler"),
    ];

    let plan = pipeline.expect(2, &["plan", "--detailed-exitcode"])?;
    for orphan in &orphans {
        let note = format!(
            "note: {orphan} is orphaned (owned by this pipeline, no longer declared); `apply --prune` deletes it"
        );
        ensure!(plan.out.contains(&note), "{note} is not in {}", plan.out);
    }
    pipeline.expect(0, &["apply", "--yes"])?;
    let plan = pipeline.expect(3, &["plan", "--detailed-exitcode"])?;
    ensure!(verdict(&plan.out)? == "No changes. 4 resources are orphaned.", "{}", plan.out);
    let plan: Value = serde_json::from_str(&pipeline.expect(0, &["plan", "--format", "json"])?.out)?;
    ensure!(plan["orphans"].as_array().is_some_and(|orphans| orphans.len() == 4), "{plan}");
    let plan = pipeline.expect(2, &["plan", "--prune", "--detailed-exitcode"])?;
    ensure!(steps(&plan.out) == orphans.clone().map(|orphan| format!("  - {orphan}")), "{}", plan.out);
    let line = json!({ "type": "track", "event": "Moved", "timestamp": "2015-08-04T12:00:00Z" });
    pipeline.upload("segment-logs/x/1/a.gz", &gzip(line.to_string().as_bytes())).await?;
    pipeline.wait_for_counts(&[(("Moved".to_owned(), "2015-08-04T12:00:00Z".to_owned()), 1)].into()).await?;

    pipeline.expect(0, &["apply", "--yes", "--prune"])?;
    let plan = pipeline.expect(0, &["plan", "--prune", "--detailed-exitcode"])?;
    ensure!(verdict(&plan.out)? == "No changes." && !plan.out.contains("note:"), "{}", plan.out);

    // A destroy deletes orphaned resources too.
    pipeline.declare("")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let destroyed = pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    ensure!(steps(&destroyed.out).contains(&format!("  - function {name}-counter").as_str()), "{}", destroyed.out);
    let all = format!("Plan: {RESOURCES} to create");
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)?.starts_with(&all), "a resource is left");
    Ok(())
}

#[tokio::test]
async fn resources_with_data_are_never_renamed_or_pruned() -> Result<()> {
    let pipeline = pipeline()?;
    let name = &pipeline.name;
    pipeline.expect(0, &["apply", "--yes"])?;
    for (renamed, kind, old) in [
        (format!("[bucket]\nname = \"{name}-new\""), "bucket", name.clone()),
        (format!("[table]\nname = \"{name}-new\""), "table", format!("{name}-counts")),
        (format!("[table]\ndaily_name = \"{name}-new\""), "table", format!("{name}-daily")),
        (format!("[table]\nledger_name = \"{name}-new\""), "table", format!("{name}-ledger")),
    ] {
        pipeline.declare(&renamed)?;
        for command in [["plan"].as_slice(), &["apply", "--yes", "--prune", "--adopt"]] {
            let run = pipeline.expect(1, command)?;
            let why = format!(
                "{kind} {old} is orphaned (owned by this pipeline, no longer declared): a {kind} cannot be renamed"
            );
            ensure!(run.err.contains(&why) && run.err.contains("by hand"), "{}", run.err);
        }
    }

    // After the user has created the new bucket, the old one is kept for the user to delete.
    let s3 = pipeline.s3().await?;
    s3.create_bucket().bucket(format!("{name}-new")).send().await?;
    pipeline.declare(&format!("[bucket]\nname = \"{name}-new\""))?;
    let applied = pipeline.expect(0, &["apply", "--yes", "--prune", "--adopt"])?;
    let note =
        format!("bucket {name} is orphaned (owned by this pipeline, no longer declared); it holds data and is kept");
    ensure!(applied.out.contains(&note) && applied.out.contains("aws s3api delete-bucket"), "{}", applied.out);
    s3.head_bucket().bucket(name).send().await.context("the old bucket was deleted")?;
    Ok(())
}

#[tokio::test]
async fn failure_queue_with_messages_is_kept() -> Result<()> {
    let pipeline = pipeline()?;
    let name = &pipeline.name;
    pipeline.expect(0, &["apply", "--yes"])?;
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{name}-failures")).send().await?.queue_url;
    sqs.send_message().set_queue_url(url.clone()).message_body("not counted").send().await?;

    pipeline.declare(&format!("[function]\nfailure_queue = \"{name}-lost\""))?;
    let applied = pipeline.expect(0, &["apply", "--yes", "--prune"])?;
    let note = format!(
        "queue {name}-failures is orphaned (owned by this pipeline, no longer declared); it holds data and is kept"
    );
    ensure!(applied.out.contains(&note) && applied.out.contains("aws sqs delete-queue"), "{}", applied.out);
    let destroyed = pipeline.expect(0, &["destroy", "--yes"])?;
    ensure!(destroyed.out.contains(&format!("queue {name}-failures holds data and is kept")), "{}", destroyed.out);
    ensure!(sqs.receive_message().set_queue_url(url).send().await?.messages().len() == 1, "the message was deleted");
    pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    ensure!(sqs.get_queue_url().queue_name(format!("{name}-failures")).send().await.is_err(), "the queue still exists");
    Ok(())
}

#[tokio::test]
async fn overlapping_notification_is_refused_by_the_plan() -> Result<()> {
    let pipeline = pipeline()?;
    let name = &pipeline.name;
    pipeline.expect(0, &["apply", "--yes"])?;
    let s3 = pipeline.s3().await?;
    let notify = async |function: &str| -> Result<()> {
        let foreign = LambdaFunctionConfiguration::builder()
            .id("by-hand")
            .lambda_function_arn(format!("arn:aws:lambda:us-east-1:{}:function:{function}", pipeline.account))
            .events(Event::S3ObjectCreatedPut)
            .build()?;
        let all = NotificationConfiguration::builder().lambda_function_configurations(foreign).build();
        s3.put_bucket_notification_configuration().bucket(name).notification_configuration(all).send().await?;
        Ok(())
    };
    notify("others").await?;
    for command in [["plan"].as_slice(), &["plan", "--adopt"], &["apply", "--yes", "--adopt"]] {
        let run = pipeline.expect(1, command)?;
        ensure!(run.err.contains("overlaps the entry `by-hand`"), "{}", run.err);
        ensure!(run.err.contains("function:others") && run.err.contains("remove that entry"), "{}", run.err);
    }
    // An entry for the pipeline's own function can be adopted.
    notify(&format!("{name}-handler")).await?;
    for command in [["plan"].as_slice(), &["apply", "--yes"]] {
        let run = pipeline.expect(1, command)?;
        ensure!(run.err.contains(&format!("notification {name} exists and is unmanaged")), "{}", run.err);
        ensure!(run.err.contains("pass --adopt") && run.out.contains("by-hand"), "{}\n{}", run.out, run.err);
    }
    pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    Ok(())
}

#[tokio::test]
async fn immutable_setting_that_differs_is_refused() -> Result<()> {
    let pipeline = pipeline()?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    let string = ScalarAttributeType::S;
    table(&dynamodb, &format!("{}-counts", pipeline.name), [("id", string.clone()), ("hour", string)]).await?;
    for command in [["plan", "--adopt"].as_slice(), &["apply", "--adopt", "--yes"]] {
        let run = pipeline.expect(1, command)?;
        ensure!(run.err.contains("DynamoDB cannot change keys") && run.err.contains("id (S)"), "{}", run.err);
    }

    // A bucket cannot change its region.
    let pipeline = crate::pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let file = std::fs::read_to_string(pipeline.config())?;
    std::fs::write(pipeline.config(), file.replacen("us-east-1", "eu-west-1", 1))?;
    for command in [["plan"].as_slice(), &["apply", "--yes"], &["destroy", "--yes"]] {
        let run = pipeline.expect(1, command)?;
        ensure!(run.err.contains("is in another region") && run.err.contains("cannot be moved"), "{}", run.err);
    }
    Ok(())
}

#[tokio::test]
async fn plan_in_another_account_is_refused_before_any_other_call() -> Result<()> {
    let pipeline = pipeline()?;
    let started = SystemTime::now();
    let file = std::fs::read_to_string(pipeline.config())?;
    let file = file.replacen("[pipeline]\n", "[pipeline]\naccount = \"123456789012\"\n", 1);
    std::fs::write(pipeline.config(), file)?;
    for command in [["plan"].as_slice(), &["apply", "--yes"], &["destroy", "--yes"]] {
        let run = pipeline.expect(1, command)?;
        ensure!(run.err.contains("names account 123456789012") && run.out.is_empty(), "{}", run.err);
    }
    let calls = pipeline.calls(started)?;
    ensure!(calls.len() == 3 && calls.iter().all(|call| call.name == "sts:GetCallerIdentity"), "{calls:?}");
    Ok(())
}

#[tokio::test]
async fn environments_of_one_file_are_independent() -> Result<()> {
    let pipeline = pipeline()?;
    let name = &pipeline.name;
    pipeline.declare("[environments.staging]\nfunction.memory_mb = 128")?;
    let staging = |args: &[&str]| pipeline.expect(0, &[args, &["--env", "staging"]].concat());
    pipeline.expect(0, &["apply", "--yes"])?;
    let applied = staging(&["apply", "--yes"])?;
    ensure!(applied.out.contains(&format!("+ bucket {name}-staging")), "{}", applied.out);
    let done = format!("Done: {RESOURCES} created, 0 updated, 0 deleted");
    ensure!(applied.out.contains(&done), "{}", applied.out);
    for plan in [pipeline.expect(0, &["plan"])?, staging(&["plan"])?] {
        ensure!(verdict(&plan.out)? == "No changes." && !plan.out.contains("note:"), "{}", plan.out);
    }

    // An overlay that names a resource of production is refused: by the check of the file, or by the owner tag if the
    // two are in different files.
    let file = std::fs::read_to_string(pipeline.config())?;
    let clash = format!("{file}bucket.name = \"{name}\"\n");
    std::fs::write(pipeline.config(), &clash)?;
    let run = pipeline.expect(1, &["plan", "--env", "staging"])?;
    ensure!(run.err.contains("shares `bucket.name` with the rest of the file"), "{}", run.err);
    let alone = file.split("[environments").next().unwrap_or_default();
    let alone = alone.replacen(&format!("name = \"{name}\""), &format!("name = \"{name}-staging\""), 1);
    std::fs::write(pipeline.config(), alone.replacen("[bucket]\n", &format!("[bucket]\nname = \"{name}\"\n"), 1))?;
    let run = pipeline.expect(1, &["apply", "--yes", "--adopt"])?;
    ensure!(run.err.contains(&format!("is owned by the pipeline `{name}`")), "{}", run.err);

    std::fs::write(pipeline.config(), &file)?;
    staging(&["destroy", "--yes", "--delete-data"])?;
    let plan = pipeline.expect(0, &["plan", "--detailed-exitcode"])?;
    ensure!(verdict(&plan.out)? == "No changes.", "{}", plan.out);
    let all = format!("Plan: {RESOURCES} to create, 0 to update, 0 to delete.");
    ensure!(verdict(&staging(&["plan"])?.out)? == all, "a resource of staging is left");
    Ok(())
}

/// Returns the tags of every tagged resource of the pipeline, by its kind.
async fn all_tags(pipeline: &Pipeline<'_>) -> Result<BTreeMap<&'static str, BTreeMap<String, String>>> {
    let (config, name) = (pipeline.sdk().await?, &pipeline.name);
    let account = &pipeline.account;
    let arn = |service: &str, rest: String| format!("arn:aws:{service}:us-east-1:{account}:{rest}");
    let mut all = BTreeMap::new();
    let bucket = pipeline.s3().await?.get_bucket_tagging().bucket(name).send().await?.tag_set;
    all.insert("bucket", bucket.into_iter().map(|tag| (tag.key, tag.value)).collect());
    let dynamodb = aws_sdk_dynamodb::Client::new(&config);
    let table = dynamodb.list_tags_of_resource().resource_arn(arn("dynamodb", format!("table/{name}-counts")));
    let table = table.send().await?.tags.unwrap_or_default();
    all.insert("table", table.into_iter().map(|tag| (tag.key, tag.value)).collect());
    let role = aws_sdk_iam::Client::new(&config).list_role_tags().role_name(format!("{name}-function")).send().await?;
    all.insert("role", role.tags.into_iter().map(|tag| (tag.key, tag.value)).collect());
    let lambda =
        aws_sdk_lambda::Client::new(&config).list_tags().resource(arn("lambda", format!("function:{name}-handler")));
    all.insert("function", lambda.send().await?.tags.unwrap_or_default().into_iter().collect());
    let logs = aws_sdk_cloudwatchlogs::Client::new(&config);
    let group =
        logs.list_tags_for_resource().resource_arn(arn("logs", format!("log-group:/aws/lambda/{name}-handler")));
    all.insert("log group", group.send().await?.tags.unwrap_or_default().into_iter().collect());
    let sqs = aws_sdk_sqs::Client::new(&config);
    let url = sqs.get_queue_url().queue_name(format!("{name}-failures")).send().await?.queue_url;
    let queue = sqs.list_queue_tags().set_queue_url(url).send().await?.tags.unwrap_or_default();
    all.insert("queue", queue.into_iter().collect());
    Ok(all)
}

#[tokio::test]
async fn tag_that_is_no_longer_declared_is_taken_off_every_resource() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare("[tags]\nteam = \"data\"\nstage = \"test\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let foreign = aws_sdk_iam::types::Tag::builder().key("foreign").value("stays").build()?;
    iam.tag_role().role_name(format!("{}-function", pipeline.name)).tags(foreign).send().await?;

    // One tag is renamed, the other one is gone.
    pipeline.declare("[tags]\nowner = \"data\"")?;
    let plan = pipeline.expect(0, &["apply", "--yes"])?.out;
    ensure!(plan.contains("tags.team") && plan.contains("tags.stage"), "{plan}");
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not in sync");
    for (kind, tags) in all_tags(&pipeline).await? {
        ensure!(tags.get("owner").is_some_and(|owner| owner == "data"), "{kind}: {tags:?}");
        ensure!(!tags.contains_key("team") && !tags.contains_key("stage"), "{kind}: {tags:?}");
        ensure!(kind != "role" || tags.contains_key("foreign"), "{kind}: {tags:?}");
    }
    pipeline.declare("")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    for (kind, tags) in all_tags(&pipeline).await? {
        let ours = ["pipeline", "managed-by", "revision", "foreign"];
        ensure!(tags.keys().all(|key| ours.contains(&&**key)), "{kind}: {tags:?}");
    }
    Ok(())
}
