//! The complete live state after an apply, as a tool such as Terraform imports it: no setting is undeclared, and no
//! setting is left to AWS's defaults by accident.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_s3::error::ProvideErrorMetadata;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tests::pipeline::Pipeline;

use crate::pipeline;

fn tags<K: Into<String>, V: Into<String>>(tags: impl IntoIterator<Item = (K, V)>) -> BTreeMap<String, String> {
    tags.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

/// Returns the error code with which a service answers for an unset setting, or "set".
fn unset<T, E: ProvideErrorMetadata, R>(result: Result<T, aws_sdk_s3::error::SdkError<E, R>>) -> Value {
    match result {
        Ok(_) => json!("set"),
        Err(error) => json!(error.code()),
    }
}

async fn bucket(pipeline: &Pipeline<'_>) -> Result<Value> {
    let (s3, name) = (pipeline.s3().await?, &pipeline.name);
    let block = s3.get_public_access_block().bucket(name).send().await?.public_access_block_configuration;
    let block = block.context("no public access block")?;
    let ownership = s3.get_bucket_ownership_controls().bucket(name).send().await?.ownership_controls;
    let encryption = s3.get_bucket_encryption().bucket(name).send().await?.server_side_encryption_configuration;
    let rules: Vec<_> = encryption.context("no encryption")?.rules;
    let default = rules.iter().filter_map(|rule| rule.apply_server_side_encryption_by_default.as_ref());
    let versioning = s3.get_bucket_versioning().bucket(name).send().await?;
    let tagging = s3.get_bucket_tagging().bucket(name).send().await?.tag_set;
    let notification = s3.get_bucket_notification_configuration().bucket(name).send().await?;
    let acl = s3.get_bucket_acl().bucket(name).send().await?;
    let grants = acl.grants().iter().map(|grant| grant.permission.as_ref().map(|p| p.as_str().to_owned()));
    Ok(json!({
        "public_access_block": [
            block.block_public_acls, block.block_public_policy, block.ignore_public_acls, block.restrict_public_buckets,
        ],
        "object_ownership": ownership.context("no ownership")?.rules.iter().map(|r| r.object_ownership.as_str().to_owned())
            .collect::<Vec<_>>(),
        "encryption": default.map(|d| (d.sse_algorithm.as_str().to_owned(), d.kms_master_key_id.clone())).collect::<Vec<_>>(),
        "versioning": versioning.status.map(|status| status.as_str().to_owned()),
        "tags": tags(tagging.into_iter().map(|tag| (tag.key, tag.value))),
        "grants": grants.collect::<Vec<_>>(),
        "lifecycle": unset(s3.get_bucket_lifecycle_configuration().bucket(name).send().await),
        "policy": unset(s3.get_bucket_policy().bucket(name).send().await),
        "cors": unset(s3.get_bucket_cors().bucket(name).send().await),
        "website": unset(s3.get_bucket_website().bucket(name).send().await),
        "replication": unset(s3.get_bucket_replication().bucket(name).send().await),
        "object_lock": unset(s3.get_object_lock_configuration().bucket(name).send().await),
        "logging": s3.get_bucket_logging().bucket(name).send().await?.logging_enabled.is_some(),
        "notification": {
            "functions": notification.lambda_function_configurations().len(),
            "topics": notification.topic_configurations().len(),
            "event_bridge": notification.event_bridge_configuration.is_some(),
            "queues": notification.queue_configurations().iter().map(|entry| json!({
                "id": entry.id, "queue": entry.queue_arn,
                "events": entry.events.iter().map(|event| event.as_str().to_owned()).collect::<Vec<_>>(),
                "filter": entry.filter.as_ref().and_then(|f| f.key.as_ref()).map(|key| key.filter_rules().iter().map(|rule| {
                    (rule.name.as_ref().map(|name| name.as_str().to_lowercase()), rule.value.clone())
                }).collect::<BTreeSet<_>>()),
            })).collect::<Vec<_>>(),
        },
    }))
}

async fn table(pipeline: &Pipeline<'_>, name: &str) -> Result<Value> {
    let client = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    let table = client.describe_table().table_name(name).send().await?.table.context("a table")?;
    let ttl = client.describe_time_to_live().table_name(name).send().await?.time_to_live_description;
    let backups = client.describe_continuous_backups().table_name(name).send().await?.continuous_backups_description;
    let recovery = backups.and_then(|b| b.point_in_time_recovery_description);
    let tagged = client.list_tags_of_resource().set_resource_arn(table.table_arn.clone()).send().await?.tags;
    let keys = |schema: &[aws_sdk_dynamodb::types::KeySchemaElement]| {
        schema.iter().map(|key| (key.attribute_name.clone(), key.key_type.as_str().to_owned())).collect::<Vec<_>>()
    };
    Ok(json!({
        "keys": keys(table.key_schema()),
        "attributes": table.attribute_definitions().iter().map(|a| (&a.attribute_name, a.attribute_type.as_str()))
            .collect::<BTreeSet<_>>(),
        "billing": table.billing_mode_summary.as_ref().and_then(|b| b.billing_mode.as_ref()).map(|mode| mode.as_str()),
        "indexes": table.global_secondary_indexes().iter().map(|index| (
            index.index_name.clone(), keys(index.key_schema()),
            index.projection.as_ref().and_then(|p| p.projection_type.as_ref()).map(|p| p.as_str().to_owned()),
        )).collect::<Vec<_>>(),
        "local_indexes": table.local_secondary_indexes().len(),
        "stream": table.stream_specification.is_some(),
        "replicas": table.replicas().len(),
        "deletion_protection": table.deletion_protection_enabled,
        "ttl": ttl.map(|ttl| (ttl.time_to_live_status.map(|s| s.as_str().to_owned()), ttl.attribute_name)),
        "point_in_time_recovery": recovery.and_then(|r| r.point_in_time_recovery_status).map(|s| s.as_str().to_owned()),
        "tags": tags(tagged.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value))),
    }))
}

async fn role(pipeline: &Pipeline<'_>, name: &str) -> Result<Value> {
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let role = iam.get_role().role_name(name).send().await?.role.context("a role")?;
    let trust = role.assume_role_policy_document.context("a trust policy")?;
    let inline = iam.list_role_policies().role_name(name).send().await?.policy_names;
    let attached = iam.list_attached_role_policies().role_name(name).send().await?.attached_policies;
    let tagged = iam.list_role_tags().role_name(name).send().await?.tags;
    Ok(json!({
        "path": role.path,
        "description": role.description,
        "trust": serde_json::from_str::<Value>(&percent_decode_str(&trust).decode_utf8()?)?,
        "inline": inline,
        "attached": attached.unwrap_or_default().len(),
        "boundary": role.permissions_boundary.is_some(),
        "session_seconds": role.max_session_duration,
        "tags": tags(tagged.into_iter().map(|tag| (tag.key, tag.value))),
    }))
}

async fn function(pipeline: &Pipeline<'_>, name: &str) -> Result<Value> {
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = lambda.get_function().function_name(name).send().await?;
    let configuration = function.configuration.context("a configuration")?;
    let invoke = lambda.get_function_event_invoke_config().function_name(name).send().await?;
    let destinations = invoke.destination_config.context("destinations")?;
    let mut tagged = tags(function.tags.unwrap_or_default());
    ensure!(tagged.remove("revision").is_some(), "no revision");
    let ephemeral = configuration.ephemeral_storage.as_ref().map(|storage| storage.size);
    Ok(json!({
        "description": configuration.description,
        "role": configuration.role,
        "runtime": configuration.runtime.as_ref().map(|runtime| runtime.as_str()),
        "handler": configuration.handler,
        "architectures": configuration.architectures().iter().map(|a| a.as_str()).collect::<Vec<_>>(),
        "memory": configuration.memory_size,
        "timeout": configuration.timeout,
        "environment": configuration.environment.as_ref().and_then(|e| e.variables.clone()).map(tags),
        "layers": configuration.layers().len(),
        "vpc": configuration.vpc_config.as_ref().is_some_and(|vpc| !vpc.subnet_ids().is_empty()),
        "dead_letters": configuration.dead_letter_config.as_ref().and_then(|d| d.target_arn.clone()),
        "key": configuration.kms_key_arn.filter(|key| !key.is_empty()),
        "tracing": configuration.tracing_config.as_ref().and_then(|t| t.mode.as_ref()).map(|mode| mode.as_str()),
        "ephemeral_mb": ephemeral,
        "retries": invoke.maximum_retry_attempts,
        "event_age": invoke.maximum_event_age_in_seconds,
        "on_failure": destinations.on_failure.and_then(|d| d.destination),
        "on_success": destinations.on_success.and_then(|d| d.destination),
        "concurrency": function.concurrency.and_then(|c| c.reserved_concurrent_executions),
        "tags": tagged,
    }))
}

async fn queue(pipeline: &Pipeline<'_>, name: &str) -> Result<Value> {
    use aws_sdk_sqs::types::QueueAttributeName as Attribute;

    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(name).send().await?.queue_url;
    let request = sqs.get_queue_attributes().set_queue_url(url.clone()).attribute_names(Attribute::All);
    let attributes = request.send().await?.attributes.unwrap_or_default();
    let attribute = |name: Attribute| attributes.get(&name).cloned();
    let document = |name: Attribute| {
        attribute(name).map(|text| serde_json::from_str::<Value>(&text)).transpose().context("not JSON")
    };
    let tagged = sqs.list_queue_tags().set_queue_url(url).send().await?.tags;
    Ok(json!({
        "retention": attribute(Attribute::MessageRetentionPeriod),
        "encrypted": attribute(Attribute::SqsManagedSseEnabled),
        "key": attribute(Attribute::KmsMasterKeyId),
        "visibility": attribute(Attribute::VisibilityTimeout),
        "delay": attribute(Attribute::DelaySeconds),
        "policy": document(Attribute::Policy)?,
        "redrive": document(Attribute::RedrivePolicy)?,
        "fifo": attribute(Attribute::FifoQueue),
        "tags": tags(tagged.unwrap_or_default()),
    }))
}

async fn mapping(pipeline: &Pipeline<'_>, function: &str) -> Result<Value> {
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let mappings = lambda.list_event_source_mappings().function_name(function).send().await?;
    let [mapping] = mappings.event_source_mappings() else { bail!("{mappings:?}") };
    Ok(json!({
        "source": mapping.event_source_arn,
        "state": mapping.state,
        "batch_size": mapping.batch_size,
        "window": mapping.maximum_batching_window_in_seconds,
        "concurrency": mapping.scaling_config.as_ref().and_then(|scaling| scaling.maximum_concurrency),
        "responses": mapping.function_response_types().iter().map(|kind| kind.as_str()).collect::<Vec<_>>(),
        "filters": mapping.filter_criteria.is_some(),
    }))
}

async fn log_group(pipeline: &Pipeline<'_>) -> Result<Value> {
    let logs = aws_sdk_cloudwatchlogs::Client::new(&pipeline.sdk().await?);
    let name = format!("/aws/lambda/{}-handler", pipeline.name);
    let groups = logs.describe_log_groups().log_group_name_prefix(&name).send().await?.log_groups.unwrap_or_default();
    let arn = format!("arn:aws:logs:us-east-1:{}:log-group:{name}", pipeline.account);
    let tagged = logs.list_tags_for_resource().resource_arn(arn).send().await?.tags;
    Ok(json!({
        "retention": groups.first().and_then(|group| group.retention_in_days),
        "key": groups.first().and_then(|group| group.kms_key_id.clone()),
        "tags": tags(tagged.unwrap_or_default()),
    }))
}

#[tokio::test]
async fn live_state_after_apply_has_no_undeclared_settings() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (name, account) = (&pipeline.name, &pipeline.account);
    let owner_tags = json!({ "managed-by": "provisioner", "pipeline": name });
    let queue_arn = format!("arn:aws:sqs:us-east-1:{account}:{name}-notifications");
    let failures_arn = format!("arn:aws:sqs:us-east-1:{account}:{name}-failures");
    let compare = |what: &str, found: &Value, expected: &Value| -> Result<()> {
        for (key, value) in expected.as_object().context("an object")? {
            ensure!(found[key] == *value, "{what} {key}: {} is not {value}", found[key]);
        }
        ensure!(
            found.as_object().map(serde_json::Map::len) == expected.as_object().map(serde_json::Map::len),
            "{what}"
        );
        Ok(())
    };

    compare(
        "bucket",
        &bucket(&pipeline).await?,
        &json!({
            "public_access_block": [true, true, true, true], "object_ownership": ["BucketOwnerEnforced"],
            "encryption": [["AES256", null]], "versioning": null, "tags": owner_tags, "grants": ["FULL_CONTROL"],
            "lifecycle": "NoSuchLifecycleConfiguration", "policy": "NoSuchBucketPolicy", "cors": "NoSuchCORSConfiguration",
            "website": "NoSuchWebsiteConfiguration", "replication": "ReplicationConfigurationNotFoundError",
            "object_lock": "ObjectLockConfigurationNotFoundError", "logging": false,
            "notification": { "functions": 0, "topics": 0, "event_bridge": false, "queues": [{
                "id": format!("{name}-objects"), "queue": queue_arn, "events": ["s3:ObjectCreated:*"],
                "filter": [["prefix", "segment-logs/"], ["suffix", ".gz"]],
            }]},
        }),
    )?;
    let by_hour = json!([["by-hour", [["hour", "HASH"], ["event", "RANGE"]], "ALL"]]);
    for (table_name, keys, attributes, indexes, ttl) in [
        (
            format!("{name}-counts"),
            json!([["event", "HASH"], ["hour", "RANGE"]]),
            json!([["event", "S"], ["hour", "S"]]),
            by_hour,
            json!(["DISABLED", null]),
        ),
        (
            format!("{name}-daily"),
            json!([["day", "HASH"], ["event", "RANGE"]]),
            json!([["day", "S"], ["event", "S"]]),
            json!([]),
            json!(["DISABLED", null]),
        ),
        (
            format!("{name}-ledger"),
            json!([["object", "HASH"], ["chunk", "RANGE"]]),
            json!([["chunk", "N"], ["counted_hour", "S"], ["object", "S"], ["written_at", "N"]]),
            json!([["by-counted-hour", [["counted_hour", "HASH"], ["written_at", "RANGE"]], "ALL"]]),
            json!(["ENABLED", "expires_at"]),
        ),
    ] {
        compare(
            &table_name,
            &table(&pipeline, &table_name).await?,
            &json!({
                "keys": keys, "attributes": attributes, "billing": "PAY_PER_REQUEST", "indexes": indexes,
                "local_indexes": 0, "stream": false, "replicas": 0, "deletion_protection": true, "ttl": ttl,
                "point_in_time_recovery": "ENABLED", "tags": owner_tags,
            }),
        )?;
    }
    compare(
        "role",
        &role(&pipeline, &format!("{name}-function")).await?,
        &json!({
            "path": format!("/pipeline/{name}/"), "description": "Permissions of the event pipeline's function",
            "trust": { "Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Principal": { "Service": ["lambda.amazonaws.com"] }, "Action": ["sts:AssumeRole"],
            }]},
            "inline": ["handler"], "attached": 0, "boundary": false, "session_seconds": 3600, "tags": owner_tags,
        }),
    )?;
    compare(
        "function",
        &function(&pipeline, &format!("{name}-handler")).await?,
        &json!({
            "description": "Counts the events of Segment's files per event and hour",
            "role": format!("arn:aws:iam::{account}:role/pipeline/{name}/{name}-function"),
            "runtime": "provided.al2023", "handler": "bootstrap", "architectures": ["x86_64"], "memory": 256,
            "timeout": 60, "environment": {
                "BUCKET": name, "BUCKET_OWNER": pipeline.account, "MAX_AGE_DAYS": "90", "MAX_AHEAD_HOURS": "24",
                "COUNTS_TABLE": format!("{name}-counts"), "COUNT_TYPES": "track", "LEDGER_TABLE": format!("{name}-ledger"),
                "DAILY_TABLE": format!("{name}-daily"),
            },
            "layers": 0, "vpc": false, "dead_letters": null, "key": null, "tracing": "PassThrough", "ephemeral_mb": 512,
            "retries": 2, "event_age": 21600, "on_failure": format!("arn:aws:sqs:us-east-1:{account}:{name}-failures"),
            "on_success": null, "concurrency": null, "tags": owner_tags,
        }),
    )?;
    compare(
        "failure queue",
        &queue(&pipeline, &format!("{name}-failures")).await?,
        &json!({
            "retention": "1209600", "encrypted": "true", "key": null, "visibility": "30", "delay": "0", "policy": null,
            "redrive": null, "fifo": null, "tags": owner_tags,
        }),
    )?;
    let statement = json!({
        "Sid": "S3Notifications", "Effect": "Allow", "Principal": { "Service": ["s3.amazonaws.com"] },
        "Action": ["sqs:SendMessage"], "Resource": [queue_arn],
        "Condition": {
            "ArnEquals": { "aws:SourceArn": [format!("arn:aws:s3:::{name}")] },
            "StringEquals": { "aws:SourceAccount": [account] },
        },
    });
    compare(
        "queue of notifications",
        &queue(&pipeline, &format!("{name}-notifications")).await?,
        &json!({
            "retention": "1209600", "encrypted": "true", "key": null, "visibility": "360", "delay": "0",
            "policy": { "Version": "2012-10-17", "Statement": [statement] },
            "redrive": { "deadLetterTargetArn": failures_arn, "maxReceiveCount": 5 },
            "fifo": null, "tags": owner_tags,
        }),
    )?;
    compare(
        "event source mapping",
        &mapping(&pipeline, &format!("{name}-handler")).await?,
        &json!({
            "source": queue_arn, "state": "Enabled", "batch_size": 100, "window": 1, "concurrency": 8,
            "responses": ["ReportBatchItemFailures"], "filters": false,
        }),
    )?;
    compare("log group", &log_group(&pipeline).await?, &json!({ "retention": 30, "key": null, "tags": owner_tags }))?;
    Ok(())
}
