//! The local AWS behind the layer that is as strict as AWS's documentation: whole life cycles with all behaviours on
//! and off, and each behaviour that a command must cope with.

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, CreateGlobalSecondaryIndexAction, GlobalSecondaryIndexUpdate, KeySchemaElement, KeyType,
    Projection, ProjectionType, ScalarAttributeType,
};
use aws_sdk_s3::types::{
    AbacStatus, BucketAbacStatus, BucketLifecycleConfiguration, BucketLocationConstraint, CreateBucketConfiguration,
    ExpirationStatus, LifecycleExpiration, LifecycleRule, ServerSideEncryption, ServerSideEncryptionByDefault,
    ServerSideEncryptionConfiguration, ServerSideEncryptionRule, StorageClass,
};
use serde_json::{Value, json};
use tests::pipeline::Pipeline;

use tests::samples::gzip;

use crate::common::{failure_messages, file_of, remove_notification, run_json};
use crate::policy::User;
use crate::{pipeline, strict_pipeline, verdict};

pub(crate) const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555";

/// Switches behaviours that only some accounts have.
pub(crate) fn switch(pipeline: &Pipeline<'_>, on: &[&str], settings: &Value) -> Result<()> {
    crate::strict_aws()?.strict().context("a strict layer")?.switch(&pipeline.account, on, &[], settings)
}

pub(crate) fn report(pipeline: &Pipeline<'_>) -> Result<Value> {
    crate::strict_aws()?.strict().context("a strict layer")?.report(&pipeline.account)
}

/// Asserts that no request broke a service model.
pub(crate) fn assert_valid(pipeline: &Pipeline<'_>) -> Result<()> {
    let report = report(pipeline)?;
    ensure!(report["violations"] == json!([]), "{}", report["violations"]);
    Ok(())
}

pub(crate) fn assert_in_sync(pipeline: &Pipeline<'_>) -> Result<String> {
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(verdict(&plan)? == "No changes.", "{plan}");
    Ok(plan)
}

/// Creates, counts, verifies, changes, corrects, counts again, and destroys.
async fn live(pipeline: &Pipeline<'_>) -> Result<()> {
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(pipeline)?;
    let (file, mut expected) = file_of(250);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await?;
    pipeline.expect(0, &["verify", "--timeout", "60"])?;
    pipeline.wait_for_counts(&expected).await?;

    pipeline.declare(
        "[function]\nmemory_mb = 512\ntimeout_seconds = 3\nretries = 0\nlog_retention_days = 7\nenvironment = { STAGE = \"production\" }\n\
         [bucket]\nversioning = true\nexpire_days = 30\n[table]\nbilling = { read = 5, write = 5 }\n\
         [tags]\nteam = \"data\"\n[segment]\nworkspace_id = \"abc123\"",
    )?;
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(pipeline)?;

    // S3 would abort the second call if it came right after the first.
    remove_notification(pipeline).await?;
    pipeline.s3().await?.delete_public_access_block().bucket(&pipeline.name).send().await?;
    // Of other content: the same would not count again.
    pipeline.upload("segment-logs/x/1/b.gz", &[&file[..], &gzip(b"\n")].concat()).await?;
    pipeline.expect(0, &["backfill"])?;
    expected.values_mut().for_each(|count| *count *= 2);
    pipeline.wait_for_counts(&expected).await?;
    // S3 may still return the notification.
    let s3 = pipeline.s3().await?;
    let started = std::time::Instant::now();
    loop {
        let read = s3.get_bucket_notification_configuration().bucket(&pipeline.name).send().await?;
        if read.lambda_function_configurations().is_empty() && read.queue_configurations().is_empty() {
            break;
        }
        ensure!(started.elapsed() < tests::pipeline::COUNT_TIMEOUT, "the notification is still there");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(pipeline)?;

    pipeline.upload("segment-logs/x/1/broken.gz", &file[..file.len() / 2]).await?;
    if let Err(error) = failure_messages(pipeline, 1).await {
        anyhow::bail!("{error}\n{}", crate::handler::function_log(pipeline).await?);
    }
    let status = pipeline.expect(3, &["status"])?.out;
    ensure!(status.contains("FAILED   failures: 1 in queue"), "{status}");
    pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(verdict(&plan)?.contains("0 to update, 0 to delete."), "{plan}");
    // The names are free again.
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    Ok(())
}

#[tokio::test]
async fn whole_life_passes_with_all_behaviours_on() -> Result<()> {
    let pipeline = strict_pipeline()?;
    live(&pipeline).await?;
    assert_valid(&pipeline)
}

#[tokio::test]
async fn whole_life_passes_with_all_behaviours_off() -> Result<()> {
    live(&pipeline()?).await
}

#[tokio::test]
async fn printed_policies_suffice_for_the_whole_life() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare("[function]\nmax_concurrency = 3\n[segment]\nworkspace_id = \"abc123\"")?;
    let policy = |to: &str| -> Result<Value> { Ok(serde_json::from_str(&pipeline.expect(0, &["policy", to])?.out)?) };
    let planner = User::new(&pipeline, "planner").await?;
    planner.allow(&policy("planner")?).await?;
    let deployer = User::new(&pipeline, "deployer").await?;
    deployer.allow(&policy("deployer")?).await?;
    let run = |user: &User<'_>, args: &[&str]| -> Result<String> {
        let run = user.run(args)?;
        ensure!(run.code == Some(0), "{args:?}: {run:?}");
        Ok(run.out)
    };
    let first = run(&planner, &["plan"])?;
    ensure!(first.contains("the caller lacks permissions"), "{first}");
    let first = run(&deployer, &["plan"])?;
    ensure!(!first.contains("note: the caller") && !first.contains("failed to look"), "{first}");
    run(&deployer, &["apply", "--yes", "--verify"])?;
    let plan = run(&planner, &["plan"])?;
    ensure!(verdict(&plan)? == "No changes.", "{plan}");
    let refused = planner.run(&["destroy", "--yes"])?;
    ensure!(refused.code == Some(1), "{refused:?}");
    run(&deployer, &["apply", "--yes"])?;

    let (file, expected) = file_of(3);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await?;
    let reader = User::new(&pipeline, "reader").await?;
    reader.allow(&policy("reader")?).await?;
    run(&reader, &["top", "--from", "2015-08-04", "--to", "2015-08-05"])?;
    run(&reader, &["events"])?;
    let operator = User::new(&pipeline, "operator").await?;
    operator.allow(&policy("operator")?).await?;
    for args in [["status"].as_slice(), &["backfill"], &["replay"], &["verify", "--timeout", "60"]] {
        run(&operator, args)?;
    }
    run(&deployer, &["destroy", "--yes", "--delete-data"])?;
    assert_valid(&pipeline)
}

#[tokio::test]
async fn filter_with_special_characters_counts() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare("[notification]\nprefix = \"year=2026/a b/\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(&pipeline)?;
    let (file, expected) = file_of(2);
    pipeline.upload("year=2026/a b/x.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await
}

#[tokio::test]
async fn bucket_is_created_where_tags_are_refused() -> Result<()> {
    for code in ["UnsupportedArgument", "MalformedXML"] {
        let pipeline = strict_pipeline()?;
        switch(&pipeline, &["create_bucket_with_tags_is_refused"], &json!({ "create_bucket_tags": code }))?;
        pipeline.expect(0, &["apply", "--yes"])?;
        assert_in_sync(&pipeline)?;
    }
    Ok(())
}

#[tokio::test]
async fn bucket_in_another_region_is_refused_with_the_region() -> Result<()> {
    for on in [[].as_slice(), &["buckets_in_other_regions_answer_400"]] {
        let pipeline = strict_pipeline()?;
        switch(&pipeline, on, &json!({}))?;
        let region =
            CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::EuWest1).build();
        let request = pipeline.s3().await?.create_bucket().bucket(&pipeline.name);
        request.create_bucket_configuration(region).send().await?;
        let refused = pipeline.expect(1, &["plan"])?;
        ensure!(refused.err.contains("is in eu-west-1"), "{}", refused.err);
    }
    Ok(())
}

#[tokio::test]
async fn tags_of_a_bucket_with_attribute_based_access_are_put() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let status = AbacStatus::builder().status(BucketAbacStatus::Enabled).build();
    pipeline.s3().await?.put_bucket_abac().bucket(&pipeline.name).abac_status(status).send().await?;
    pipeline.declare("[tags]\nteam = \"data\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(&pipeline).map(drop)
}

#[tokio::test]
async fn lifecycle_rule_of_the_old_form_is_kept() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    #[expect(deprecated, reason = "the old form")]
    let old = LifecycleRule::builder()
        .id("unmanaged")
        .status(ExpirationStatus::Enabled)
        .prefix("images/")
        .expiration(LifecycleExpiration::builder().days(3).build())
        .build()?;
    let s3 = pipeline.s3().await?;
    let rules = BucketLifecycleConfiguration::builder().rules(old).build()?;
    s3.put_bucket_lifecycle_configuration().bucket(&pipeline.name).lifecycle_configuration(rules).send().await?;
    pipeline.declare("[bucket]\nexpire_days = 30")?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(plan.contains("lifecycle lowers protection"), "{plan}");
    pipeline.expect(0, &["apply", "--yes"])?;
    let rules = s3.get_bucket_lifecycle_configuration().bucket(&pipeline.name).send().await?.rules.unwrap_or_default();
    let kept = rules.iter().find(|rule| rule.id() == Some("unmanaged")).context("the unmanaged rule")?;
    ensure!(kept.filter().and_then(|filter| filter.prefix()) == Some("images/"), "{kept:?}");
    assert_in_sync(&pipeline).map(drop)
}

#[tokio::test]
async fn keys_with_control_characters_are_deleted() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    for key in ["other/\u{1}.gz", "other/a+b c.gz", "other/%41.gz"] {
        pipeline.upload(key, b"x").await?;
    }
    pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    assert_valid(&pipeline)
}

#[tokio::test]
async fn archived_objects_are_left_out_of_a_backfill() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    remove_notification(&pipeline).await?;
    let (file, expected) = file_of(2);
    let put = pipeline.s3().await?.put_object().bucket(&pipeline.name).key("segment-logs/archived.gz");
    put.storage_class(StorageClass::Glacier).body(file.clone().into()).send().await?;
    pipeline.upload("segment-logs/readable.gz", &file).await?;
    let tally = run_json(&pipeline, 0, &["backfill"])?;
    ensure!(tally["archived"] == 1 && tally["counted"] == 1, "{tally}");
    ensure!(tally["archived_examples"] == json!(["segment-logs/archived.gz"]), "{tally}");
    pipeline.wait_for_counts(&expected).await
}

async fn encrypt(pipeline: &Pipeline<'_>, key: Option<&str>) -> Result<()> {
    let kms = ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::AwsKms);
    let kms = kms.set_kms_master_key_id(key.map(str::to_owned)).build()?;
    let rule = ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(kms).build();
    let encryption = ServerSideEncryptionConfiguration::builder().rules(rule).build()?;
    let request = pipeline.s3().await?.put_bucket_encryption().bucket(&pipeline.name);
    request.server_side_encryption_configuration(encryption).send().await?;
    Ok(())
}

#[tokio::test]
async fn stronger_encryption_and_versioning_are_kept() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    encrypt(&pipeline, None).await?;
    let versions = aws_sdk_s3::types::VersioningConfiguration::builder();
    let versions = versions.status(aws_sdk_s3::types::BucketVersioningStatus::Enabled).build();
    let s3 = pipeline.s3().await?;
    s3.put_bucket_versioning().bucket(&pipeline.name).versioning_configuration(versions).send().await?;
    let plan = assert_in_sync(&pipeline)?;
    ensure!(plan.contains("encryption is aws:kms") && plan.contains("versioning is true"), "{plan}");
    let (file, expected) = file_of(2);
    pipeline.upload("segment-logs/a.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await?;

    pipeline.declare("[bucket]\nversioning = false\nkms_key = \"AES256\"")?;
    let plan = run_json(&pipeline, 0, &["plan"])?;
    let changes = plan["resources"][0]["changes"].as_array().context("changes")?;
    ensure!(changes.len() == 2 && changes.iter().all(|change| change["weakens"].is_string()), "{plan}");
    let text = pipeline.expect(0, &["plan"])?.out;
    ensure!(verdict(&text)?.ends_with("2 changes lower protection."), "{text}");
    let markdown = pipeline.expect(0, &["plan", "--format", "markdown"])?.out;
    ensure!(markdown.contains("! versioning lowers protection"), "{markdown}");
    Ok(())
}

#[tokio::test]
async fn undeclared_kms_key_is_a_problem_until_it_is_declared() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    encrypt(&pipeline, Some(KEY)).await?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(verdict(&plan)?.ends_with("1 problem.") && plan.contains("bucket.kms_key"), "{plan}");
    pipeline.expect(2, &["plan", "--detailed-exitcode"])?;
    pipeline.declare(&format!("[bucket]\nkms_key = \"{KEY}\""))?;
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(&pipeline).map(drop)
}

#[tokio::test]
async fn account_with_few_executions_gets_all_but_the_reservation() -> Result<()> {
    let pipeline = strict_pipeline()?;
    switch(&pipeline, &[], &json!({ "concurrency_limit": 10 }))?;
    pipeline.declare("[function]\nmax_concurrency = 5")?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(plan.contains("cannot reserve max_concurrency = 5"), "{plan}");
    pipeline.expect(0, &["apply", "--yes"])?;
    let (file, expected) = file_of(2);
    pipeline.upload("segment-logs/a.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(verdict(&plan)? == "Plan: 0 to create, 0 to update, 0 to delete. 1 problem.", "{plan}");
    Ok(())
}

#[tokio::test]
async fn log_retention_of_the_account_is_no_drift() -> Result<()> {
    let pipeline = strict_pipeline()?;
    switch(&pipeline, &["account_log_retention_wins"], &json!({ "log_retention_days": 90 }))?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let plan = assert_in_sync(&pipeline)?;
    ensure!(plan.contains("log retention policy"), "{plan}");
    Ok(())
}

#[tokio::test]
async fn organization_that_demands_a_boundary_is_satisfied() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let document = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
    let made = iam.create_policy().policy_name("boundary").policy_document(document.to_string()).send().await?;
    let arn = made.policy.and_then(|policy| policy.arn).context("an ARN")?;
    switch(&pipeline, &["organization_requires_a_permissions_boundary"], &json!({ "boundary": arn }))?;
    pipeline.expect(1, &["apply", "--yes"])?;
    pipeline.declare(&format!("[role]\npermissions_boundary = \"{arn}\"\n[segment]\nworkspace_id = \"abc123\""))?;
    let deployer = User::new(&pipeline, "deployer").await?;
    deployer.allow(&serde_json::from_str(&pipeline.expect(0, &["policy"])?.out)?).await?;
    let run = deployer.run(&["apply", "--yes"])?;
    ensure!(run.code == Some(0), "{run:?}");
    assert_in_sync(&pipeline)?;
    // Undeclared, it is kept.
    pipeline.declare("[segment]\nworkspace_id = \"abc123\"")?;
    let plan = assert_in_sync(&pipeline)?;
    ensure!(plan.contains("permissions boundary"), "{plan}");
    Ok(())
}

#[tokio::test]
async fn provisioned_billing_names_the_indexes_of_others() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let table = format!("{}-counts", pipeline.name);
    let attribute =
        |name: &str| AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build();
    let index = CreateGlobalSecondaryIndexAction::builder()
        .index_name("unmanaged")
        .key_schema(KeySchemaElement::builder().attribute_name("hour").key_type(KeyType::Hash).build()?)
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .build()?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    let request = dynamodb.update_table().table_name(&table).attribute_definitions(attribute("event")?);
    let request = request.attribute_definitions(attribute("hour")?);
    request.global_secondary_index_updates(GlobalSecondaryIndexUpdate::builder().create(index).build()).send().await?;
    pipeline.declare("[table]\nbilling = { read = 5, write = 5 }")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(&pipeline).map(drop)
}

#[tokio::test]
async fn notification_of_a_removed_object_is_named_gone() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let invoke = async |key: &str| -> Result<String> {
        let payload = crate::common::s3_notification(&pipeline.name, &[key]).to_string();
        let request = lambda.invoke().function_name(format!("{}-handler", pipeline.name));
        let answer = request.payload(payload.into_bytes().into()).send().await?;
        Ok(String::from_utf8_lossy(&answer.payload.map(|blob| blob.into_inner()).unwrap_or_default()).into_owned())
    };
    let gone = invoke("segment-logs/none.gz").await?;
    ensure!(gone.contains("ObjectGone"), "{gone}");
    let probe = invoke("segment-logs/provisioner-verify/none.gz").await?;
    ensure!(!probe.contains("error"), "{probe}");
    Ok(())
}

#[test]
fn table_of_behaviours_in_the_docs_is_current() -> Result<()> {
    let root = tests::local_aws::root();
    let mut printed = std::process::Command::new(root.join(".venv/bin/python"));
    printed.arg(root.join("tests/strict")).arg("--table").env("PYTHONDONTWRITEBYTECODE", "1");
    let table = String::from_utf8(printed.output()?.stdout)?;
    ensure!(table.lines().count() > 50, "{table}");
    let document = std::fs::read_to_string(root.join("docs/reliability.md"))?;
    ensure!(document.contains(&table), "run `make behaviours`");
    Ok(())
}
