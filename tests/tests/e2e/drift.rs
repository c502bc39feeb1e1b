//! Drift is shown in the plan, setting by setting, and corrected by apply.

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::{
    BillingMode, PointInTimeRecoverySpecification, ProvisionedThroughput, TimeToLiveSpecification,
};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{Architecture, DestinationConfig, Environment, OnFailure, OnSuccess, Runtime};
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketVersioningStatus, Event, ExpirationStatus, FilterRule, FilterRuleName,
    LambdaFunctionConfiguration, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration,
    NotificationConfiguration, NotificationConfigurationFilter, ObjectOwnership, OwnershipControls,
    OwnershipControlsRule, PublicAccessBlockConfiguration, S3KeyFilter, ServerSideEncryption,
    ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule, Tag, Tagging,
    VersioningConfiguration,
};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::json;
use tests::pipeline::Pipeline;

use crate::{pipeline, steps, verdict};

/// Checks that the plan changes only `setting` of `resource`, from one value to another, and that apply corrects it.
pub(crate) fn corrected(pipeline: &Pipeline<'_>, resource: &str, setting: &str, from: &str, to: &str) -> Result<()> {
    let plan = pipeline.expect(2, &["plan", "--detailed-exitcode"])?;
    ensure!(steps(&plan.out) == [format!("  ~ {resource}")], "{setting}: {}", plan.out);
    ensure!(changed(&plan.out) == [setting], "{setting}: {}", plan.out);
    ensure!(plan.out.contains(from) && plan.out.contains(to), "{setting}: {}", plan.out);
    let applied = pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(applied.out.contains("Done: 0 created, 1 updated, 0 deleted"), "{setting}: {}", applied.out);
    let again = pipeline.expect(0, &["plan"])?;
    ensure!(verdict(&again.out)? == "No changes.", "{setting}: {}", again.out);
    Ok(())
}

/// Returns the settings that a plan of one resource changes.
fn changed(plan: &str) -> Vec<&str> {
    let settings =
        plan.lines().filter_map(|line| line.strip_prefix("      ")).filter(|line| !line.starts_with([' ', '!']));
    let mut settings: Vec<&str> = settings.filter_map(|line| line.split([' ', ':', '.']).next()).collect();
    settings.dedup();
    settings
}

#[tokio::test]
async fn bucket_drift_is_shown_and_corrected() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[bucket]\nexpire_days = 30\nversioning = true\nkms_key = \"AES256\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (s3, name) = (pipeline.s3().await?, &pipeline.name);
    let bucket = format!("bucket {name}");
    let corrected = |setting: &str, from: &str, to: &str| corrected(&pipeline, &bucket, setting, from, to);

    let block = PublicAccessBlockConfiguration::builder().block_public_acls(true).block_public_policy(false).build();
    s3.put_public_access_block().bucket(name).public_access_block_configuration(block).send().await?;
    corrected("public_access_block", "[\"BlockPublicAcls\"]", "\"RestrictPublicBuckets\"")?;
    s3.delete_public_access_block().bucket(name).send().await?;
    corrected("public_access_block", "[]", "\"BlockPublicPolicy\"")?;

    let rule = OwnershipControlsRule::builder().object_ownership(ObjectOwnership::ObjectWriter).build()?;
    let controls = OwnershipControls::builder().rules(rule).build()?;
    s3.put_bucket_ownership_controls().bucket(name).ownership_controls(controls).send().await?;
    corrected("object_ownership", "\"ObjectWriter\"", "\"BucketOwnerEnforced\"")?;

    let default = ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::AwsKms).build()?;
    let rule = ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(default).build();
    let encryption = ServerSideEncryptionConfiguration::builder().rules(rule).build()?;
    s3.put_bucket_encryption().bucket(name).server_side_encryption_configuration(encryption).send().await?;
    corrected("encryption", "\"aws:kms\"", "\"AES256\"")?;

    let suspended = VersioningConfiguration::builder().status(BucketVersioningStatus::Suspended).build();
    s3.put_bucket_versioning().bucket(name).versioning_configuration(suspended).send().await?;
    corrected("versioning", "false", "true")?;

    let rule = |days: i32, status: ExpirationStatus| {
        LifecycleRule::builder()
            .id("pipeline-expire")
            .status(status)
            .filter(LifecycleRuleFilter::builder().prefix("segment-logs/").build())
            .expiration(LifecycleExpiration::builder().days(days).build())
            .noncurrent_version_expiration(NoncurrentVersionExpiration::builder().noncurrent_days(30).build())
            .build()
    };
    for (days, status, from, to) in [
        (3, ExpirationStatus::Enabled, "lifecycle.days  3", "-> 30"),
        (30, ExpirationStatus::Disabled, "lifecycle.status  \"Disabled\"", "-> (not set)"),
    ] {
        let rules = BucketLifecycleConfiguration::builder().rules(rule(days, status)?).build()?;
        s3.put_bucket_lifecycle_configuration().bucket(name).lifecycle_configuration(rules).send().await?;
        corrected("lifecycle", from, to)?;
    }
    s3.delete_bucket_lifecycle().bucket(name).send().await?;
    corrected("lifecycle", "(not set)", "\"days\":30")?;

    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let tagging = Tagging::builder().tag_set(tag("pipeline", name)?).tag_set(tag("unmanaged", "stays")?).build()?;
    s3.put_bucket_tagging().bucket(name).tagging(tagging).send().await?;
    corrected("tags", "tags.managed-by  (not set)", "-> \"provisioner\"")?;
    let tags = s3.get_bucket_tagging().bucket(name).send().await?.tag_set;
    ensure!(tags.contains(&tag("unmanaged", "stays")?), "{tags:?}");
    Ok(())
}

#[tokio::test]
async fn bucket_policy_drift_is_shown_and_corrected() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[bucket]\nrequire_tls = true")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (s3, name) = (pipeline.s3().await?, &pipeline.name);
    let bucket = format!("bucket {name}");

    s3.delete_bucket_policy().bucket(name).send().await?;
    corrected(&pipeline, &bucket, "policy", "+", "aws:SecureTransport")?;
    // The statement exists, but denies less.
    let weak = json!({ "Version": "2012-10-17", "Statement": [{
        "Sid": "PipelineDenyPlainHttp", "Effect": "Deny", "Principal": "*", "Action": "s3:GetObject",
        "Resource": format!("arn:aws:s3:::{name}/*"), "Condition": { "Bool": { "aws:SecureTransport": "false" } },
    }]});
    s3.put_bucket_policy().bucket(name).policy(weak.to_string()).send().await?;
    corrected(&pipeline, &bucket, "policy", "-   \"Action\": \"s3:GetObject\"", "+   \"Action\": \"s3:*\"")?;

    // A change that opens the bucket is pointed out.
    pipeline.declare("")?;
    let plan = pipeline.expect(0, &["plan"])?;
    ensure!(plan.out.contains("policy lowers protection: plain HTTP is accepted"), "{}", plan.out);
    Ok(())
}

#[tokio::test]
async fn table_drift_is_shown_and_corrected() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[table]\nbilling = { read = 5, write = 5 }")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    for name in ["counts", "daily", "ledger"].map(|table| format!("{}-{table}", pipeline.name)) {
        let table = format!("table {name}");
        let corrected = |setting: &str, from: &str, to: &str| corrected(&pipeline, &table, setting, from, to);
        let units = ProvisionedThroughput::builder().read_capacity_units(7).write_capacity_units(5).build()?;
        dynamodb.update_table().table_name(&name).provisioned_throughput(units).send().await?;
        corrected("billing", "billing.read  7", "-> 5")?;
        dynamodb.update_table().table_name(&name).deletion_protection_enabled(false).send().await?;
        corrected("deletion_protection", "false", "true")?;
        let off = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(false).build()?;
        let request = dynamodb.update_continuous_backups().table_name(&name);
        request.point_in_time_recovery_specification(off).send().await?;
        corrected("point_in_time_recovery", "false", "true")?;
        let arn = format!("arn:aws:dynamodb:us-east-1:{}:table/{name}", pipeline.account);
        dynamodb.untag_resource().resource_arn(arn).tag_keys("managed-by").send().await?;
        corrected("tags", "tags.managed-by  (not set)", "-> \"provisioner\"")?;
    }

    let (counts, ledger) = (format!("{}-counts", pipeline.name), format!("{}-ledger", pipeline.name));
    let ttl = |attribute: &str, enabled| {
        let specification = TimeToLiveSpecification::builder().attribute_name(attribute).enabled(enabled).build();
        specification.map(|specification| dynamodb.update_time_to_live().time_to_live_specification(specification))
    };
    ttl("expires_at", false)?.table_name(&ledger).send().await?;
    corrected(&pipeline, &format!("table {ledger}"), "time_to_live", "(not set)", "\"expires_at\"")?;
    ttl("hour", true)?.table_name(&counts).send().await?;
    corrected(&pipeline, &format!("table {counts}"), "time_to_live", "\"hour\"", "(not set)")?;

    let delete = aws_sdk_dynamodb::types::DeleteGlobalSecondaryIndexAction::builder().index_name("by-hour").build()?;
    let update = aws_sdk_dynamodb::types::GlobalSecondaryIndexUpdate::builder().delete(delete).build();
    dynamodb.update_table().table_name(&counts).global_secondary_index_updates(update).send().await?;
    corrected(&pipeline, &format!("table {counts}"), "index", "(not set)", "hour (S)")?;

    let request = dynamodb.update_table().table_name(&counts).billing_mode(BillingMode::PayPerRequest);
    request.send().await?;
    let plan = pipeline.expect(0, &["plan"])?;
    ensure!(plan.out.contains("\"on-demand\" -> {\"read\":5,\"write\":5}"), "{}", plan.out);
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "billing");
    Ok(())
}

#[tokio::test]
async fn role_drift_is_shown_and_corrected() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[segment]\nworkspace_id = \"abc123\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let everything = json!({ "Version": "2012-10-17", "Statement": [{
        "Sid": "Everything", "Effect": "Allow", "Action": "s3:*", "Resource": "*",
    }]});
    let anybody = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": { "AWS": "arn:aws:iam::210987654321:root" },
    }]});
    for (role, policy) in [("function", "handler"), ("segment", "write")] {
        let name = format!("{}-{role}", pipeline.name);
        let corrected =
            |setting: &str, from: &str, to: &str| corrected(&pipeline, &format!("role {name}"), setting, from, to);
        let request = iam.put_role_policy().role_name(&name).policy_name(policy);
        request.policy_document(everything.to_string()).send().await?;
        corrected("policy", "-   \"Sid\": \"Everything\"", "+   \"Sid\": ")?;
        iam.delete_role_policy().role_name(&name).policy_name(policy).send().await?;
        corrected("policy", "+ {", "\"Sid\": ")?;
        iam.update_assume_role_policy().role_name(&name).policy_document(anybody.to_string()).send().await?;
        corrected("trust_policy", "210987654321", "sts:AssumeRole")?;
        iam.update_role().role_name(&name).description("mine").send().await?;
        corrected("description", "\"mine\"", " -> \"")?;
        iam.untag_role().role_name(&name).tag_keys("pipeline").tag_keys("managed-by").send().await?;
        corrected("tags", "tags.managed-by  (not set)", "-> \"provisioner\"")?;
    }

    // Unmanaged policies of the role are kept, but reported, because they grant further permissions.
    let name = format!("{}-function", pipeline.name);
    let request = iam.put_role_policy().role_name(&name).policy_name("more");
    request.policy_document(everything.to_string()).send().await?;
    let created = iam.create_policy().policy_name("unmanaged").policy_document(everything.to_string()).send().await?;
    let arn = created.policy.and_then(|policy| policy.arn).context("the policy's ARN")?;
    iam.attach_role_policy().role_name(&name).policy_arn(&arn).send().await?;
    let plan = pipeline.expect(0, &["plan", "--detailed-exitcode"])?;
    ensure!(plan.out.contains(&format!("note: role {name}")) && plan.out.contains("more"), "{}", plan.out);
    ensure!(plan.out.contains(&arn) && verdict(&plan.out)? == "No changes.", "{}", plan.out);

    // A declared extension of the permissions is reported too.
    pipeline.declare("[[role.statement]]\nactions = [\"s3:GetObject\"]\nresources = [\"arn:aws:s3:::acme/*\"]")?;
    let plan = pipeline.expect(0, &["plan"])?;
    ensure!(
        plan.out.contains("policy lowers protection: allows more: s3:GetObject on arn:aws:s3:::acme/*"),
        "{}",
        plan.out
    );
    Ok(())
}

#[tokio::test]
async fn log_group_and_queue_drift_is_shown_and_corrected() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let sdk = pipeline.sdk().await?;
    let (logs, sqs) = (aws_sdk_cloudwatchlogs::Client::new(&sdk), aws_sdk_sqs::Client::new(&sdk));

    let name = format!("/aws/lambda/{}-handler", pipeline.name);
    let group = format!("log group {name}");
    logs.put_retention_policy().log_group_name(&name).retention_in_days(7).send().await?;
    corrected(&pipeline, &group, "retention_days", "7", "30")?;
    logs.delete_retention_policy().log_group_name(&name).send().await?;
    corrected(&pipeline, &group, "retention_days", "(not set)", "30")?;
    let arn = format!("arn:aws:logs:us-east-1:{}:log-group:{name}", pipeline.account);
    logs.untag_resource().resource_arn(&arn).tag_keys("managed-by").send().await?;
    corrected(&pipeline, &group, "tags", "tags.managed-by  (not set)", "-> \"provisioner\"")?;

    let name = format!("{}-failures", pipeline.name);
    let queue = format!("queue {name}");
    let url = sqs.get_queue_url().queue_name(&name).send().await?.queue_url.context("the queue's URL")?;
    let set = |attribute: QueueAttributeName, value: &str| {
        sqs.set_queue_attributes().queue_url(&url).attributes(attribute, value).send()
    };
    set(QueueAttributeName::MessageRetentionPeriod, "60").await?;
    corrected(&pipeline, &queue, "retention_seconds", "60", "1209600")?;
    set(QueueAttributeName::SqsManagedSseEnabled, "false").await?;
    corrected(&pipeline, &queue, "encryption", "(not set)", "\"SSE-SQS\"")?;
    sqs.untag_queue().queue_url(&url).tag_keys("managed-by").send().await?;
    corrected(&pipeline, &queue, "tags", "tags.managed-by  (not set)", "-> \"provisioner\"")?;
    // The visibility timeout is unmanaged.
    set(QueueAttributeName::VisibilityTimeout, "77").await?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "the visibility timeout is unmanaged");
    Ok(())
}

#[tokio::test]
async fn function_drift_is_shown_and_corrected() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[function]\nmax_concurrency = 5")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let sdk = pipeline.sdk().await?;
    let lambda = aws_sdk_lambda::Client::new(&sdk);
    let name = format!("{}-handler", pipeline.name);
    let corrected =
        |setting: &str, from: &str, to: &str| corrected(&pipeline, &format!("function {name}"), setting, from, to);
    let configure = || lambda.update_function_configuration().function_name(&name);

    configure().memory_size(128).send().await?;
    corrected("memory_mb", "128", "256")?;
    configure().timeout(3).send().await?;
    corrected("timeout_seconds", "3", "60")?;
    configure().description("mine").send().await?;
    corrected("description", "\"mine\"", "\"Counts")?;
    configure().handler("other").send().await?;
    corrected("handler", "\"other\"", "\"bootstrap\"")?;
    configure().runtime(Runtime::Providedal2).send().await?;
    corrected("runtime", "\"provided.al2\"", "\"provided.al2023\"")?;
    let role = format!("arn:aws:iam::{}:role/other", pipeline.account);
    configure().role(&role).send().await?;
    corrected("role", &role, "/pipeline/")?;
    let variables = Environment::builder().variables("DB_PASSWORD", "hunter2").build();
    configure().environment(variables).send().await?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(plan.contains("variables are kept: DB_PASSWORD") && !plan.contains("hunter2"), "{plan}");
    corrected("environment", "environment.COUNTS_TABLE     (not set)", "-counts")?;

    let empty = [b"PK\x05\x06".as_slice(), &[0; 18]].concat();
    let request = lambda.update_function_code().function_name(&name).zip_file(Blob::new(empty));
    request.send().await?;
    corrected("code", " B", " MiB")?;
    // The revision is recorded in a tag.
    let code = lambda.get_function().function_name(&name).send().await?;
    ensure!(code.tags.is_some_and(|tags| tags.contains_key("revision")), "the revision");

    lambda.put_function_concurrency().function_name(&name).reserved_concurrent_executions(9).send().await?;
    corrected("max_concurrency", "9", "5")?;
    lambda.delete_function_concurrency().function_name(&name).send().await?;
    corrected("max_concurrency", "(not set)", "5")?;
    let arn = format!("arn:aws:lambda:us-east-1:{}:function:{name}", pipeline.account);
    lambda.untag_resource().resource(&arn).tag_keys("managed-by").send().await?;
    corrected("tags", "tags.managed-by  (not set)", "-> \"provisioner\"")?;

    // The destination of successes is unmanaged and survives changes next to it.
    let sqs = aws_sdk_sqs::Client::new(&sdk);
    for queue in ["successes", "elsewhere"] {
        sqs.create_queue().queue_name(queue).send().await?;
    }
    let queue = |name: &str| format!("arn:aws:sqs:us-east-1:{}:{name}", pipeline.account);
    let failure_queue = queue(&format!("{}-failures", pipeline.name));
    let invoke = |retries: i32, age: i32, failures: &str| {
        let failures = OnFailure::builder().destination(failures).build();
        let successes = OnSuccess::builder().destination(queue("successes")).build();
        let destinations = DestinationConfig::builder().on_failure(failures).on_success(successes).build();
        let request = lambda.put_function_event_invoke_config().function_name(&name).maximum_retry_attempts(retries);
        request.maximum_event_age_in_seconds(age).destination_config(destinations).send()
    };
    invoke(0, 21_600, &failure_queue).await?;
    corrected("retries", "0", "2")?;
    invoke(2, 60, &failure_queue).await?;
    corrected("max_event_age_seconds", "60", "21600")?;
    invoke(2, 21_600, &queue("elsewhere")).await?;
    corrected("failure_queue", "elsewhere", &failure_queue)?;
    let now = lambda.get_function_event_invoke_config().function_name(&name).send().await?;
    let success = now.destination_config.and_then(|d| d.on_success).and_then(|s| s.destination);
    ensure!(success == Some(queue("successes")), "{success:?}");

    lambda.delete_function_event_invoke_config().function_name(&name).send().await?;
    corrected("failure_queue", "(not set)", &failure_queue)?;
    Ok(())
}

#[tokio::test]
async fn function_architecture_drift_is_shown_and_corrected() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let name = format!("{}-handler", pipeline.name);
    let empty = [b"PK\x05\x06".as_slice(), &[0; 18]].concat();
    let request = lambda.update_function_code().function_name(&name).zip_file(Blob::new(empty));
    request.architectures(Architecture::Arm64).send().await?;
    let plan = pipeline.expect(0, &["plan"])?;
    // Code for another architecture is different code, so both settings differ.
    ensure!(changed(&plan.out) == ["code", "architecture"], "{}", plan.out);
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "architecture");
    Ok(())
}

#[tokio::test]
async fn permission_and_notification_drift_is_shown_and_corrected() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[notification]\nvia = \"function\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (sdk, name) = (pipeline.sdk().await?, &pipeline.name);
    let (lambda, s3) = (aws_sdk_lambda::Client::new(&sdk), pipeline.s3().await?);
    let function = format!("{name}-handler");
    let permission = format!("permission {function}");

    // An owned statement id with wider permissions.
    let add = |sid: String, account: Option<String>| {
        let request = lambda.add_permission().function_name(&function).statement_id(sid).set_source_account(account);
        request.action("lambda:InvokeFunction").principal("s3.amazonaws.com").send()
    };
    add(format!("{name}-s3-wide"), None).await?;
    corrected(&pipeline, &permission, "statement", "-   \"Effect\": \"Allow\"", "\"lambda:InvokeFunction\"")?;
    add("unmanaged".to_owned(), Some(pipeline.account.clone())).await?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "the other statement is unmanaged");
    let policy = lambda.get_policy().function_name(&function).send().await?.policy.context("a policy")?;
    let policy: serde_json::Value = serde_json::from_str(&policy)?;
    let sids: Vec<&str> =
        policy["Statement"].as_array().into_iter().flatten().filter_map(|s| s["Sid"].as_str()).collect();
    ensure!(sids.len() == 2 && sids.contains(&"unmanaged"), "{sids:?}");
    let owned = sids.into_iter().find(|sid| *sid != "unmanaged").context("the owned statement")?;
    lambda.remove_permission().function_name(&function).statement_id(owned).send().await?;
    let plan = pipeline.expect(0, &["plan"])?;
    ensure!(steps(&plan.out) == [format!("  + {permission}")], "{}", plan.out);
    pipeline.expect(0, &["apply", "--yes"])?;

    let notification = format!("notification {name}");
    let put = |function: String, event: Event, prefix: &str, suffix: &str| {
        let rule = |name, value: &str| FilterRule::builder().name(name).value(value).build();
        let key = S3KeyFilter::builder().filter_rules(rule(FilterRuleName::Prefix, prefix));
        let key = key.filter_rules(rule(FilterRuleName::Suffix, suffix)).build();
        let entry = LambdaFunctionConfiguration::builder()
            .id(format!("{name}-objects"))
            .lambda_function_arn(function)
            .events(event)
            .filter(NotificationConfigurationFilter::builder().key(key).build())
            .build();
        entry.map(|entry| {
            let all = NotificationConfiguration::builder().lambda_function_configurations(entry).build();
            s3.put_bucket_notification_configuration().bucket(name).notification_configuration(all).send()
        })
    };
    let arn = |function: &str| format!("arn:aws:lambda:us-east-1:{}:function:{function}", pipeline.account);
    let created = Event::S3ObjectCreated;
    put(arn(&function), created.clone(), "other/", ".gz")?.await?;
    corrected(&pipeline, &notification, "prefix", "\"other/\"", "\"segment-logs/\"")?;
    put(arn(&function), created.clone(), "segment-logs/", ".zip")?.await?;
    corrected(&pipeline, &notification, "suffix", "\".zip\"", "\".gz\"")?;
    put(arn(&function), Event::S3ObjectRemoved, "segment-logs/", ".gz")?.await?;
    corrected(&pipeline, &notification, "events", "s3:ObjectRemoved:*", "s3:ObjectCreated:*")?;
    put(arn("other"), created, "segment-logs/", ".gz")?.await?;
    corrected(&pipeline, &notification, "destination", "function:other", &arn(&function))?;
    Ok(())
}
