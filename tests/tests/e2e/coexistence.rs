//! Unmanaged settings on the pipeline's bucket are preserved.

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, Event, EventBridgeConfiguration, ExpirationStatus, FilterRule, FilterRuleName,
    LambdaFunctionConfiguration, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, NotificationConfiguration,
    NotificationConfigurationFilter, QueueConfiguration, S3KeyFilter, Tag, Tagging,
};

use crate::{pipeline, steps, verdict};

#[tokio::test]
async fn unmanaged_notifications_survive_apply_and_destroy() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let s3 = pipeline.s3().await?;
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    // S3 validates that it may send to the queue.
    let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": { "Service": "s3.amazonaws.com" }, "Action": "sqs:SendMessage", "Resource": "*",
    }]});
    let request = sqs.create_queue().queue_name("others");
    request.attributes(aws_sdk_sqs::types::QueueAttributeName::Policy, policy.to_string()).send().await?;

    let rule = FilterRule::builder().name(FilterRuleName::Prefix).value("images/").build();
    let filter =
        NotificationConfigurationFilter::builder().key(S3KeyFilter::builder().filter_rules(rule).build()).build();
    let queue = QueueConfiguration::builder()
        .id("their-queue")
        .queue_arn(format!("arn:aws:sqs:us-east-1:{}:others", pipeline.account))
        .events(Event::S3ObjectCreatedPut)
        .filter(filter.clone())
        .build()?;
    let function = LambdaFunctionConfiguration::builder()
        .id("their-function")
        .lambda_function_arn(format!("arn:aws:lambda:us-east-1:{}:function:unmanaged", pipeline.account))
        .events(Event::S3ObjectRemovedDelete)
        .filter(filter)
        .build()?;
    let get = async || {
        s3.get_bucket_notification_configuration().bucket(&pipeline.name).send().await.context("failed to read")
    };
    let owned = get().await?.queue_configurations.context("the pipeline's entry")?;
    ensure!(owned.len() == 1, "{owned:?}");
    // Another tool overwrites the whole configuration, without the pipeline's entry.
    s3.put_bucket_notification_configuration()
        .bucket(&pipeline.name)
        .notification_configuration(
            NotificationConfiguration::builder()
                .queue_configurations(queue)
                .lambda_function_configurations(function)
                .event_bridge_configuration(EventBridgeConfiguration::builder().build())
                .build(),
        )
        .send()
        .await?;
    let before = get().await?;

    let plan = pipeline.expect(0, &["plan"])?;
    ensure!(steps(&plan.out) == [format!("  + notification {}", pipeline.name)], "{}", plan.out);
    pipeline.expect(0, &["apply", "--yes"])?;
    let both = get().await?;
    ensure!(both.lambda_function_configurations == before.lambda_function_configurations, "{both:?}");
    ensure!(both.event_bridge_configuration == before.event_bridge_configuration, "{both:?}");
    let queues = both.queue_configurations();
    ensure!(queues.len() == 2 && queues.contains(&owned[0]), "{queues:?}");
    ensure!(queues.contains(&before.queue_configurations()[0]), "{queues:?}");
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not in sync");

    // They also survive an update of the pipeline's entry.
    pipeline.declare("[notification]\nprefix = \"other/\"")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let updated = get().await?;
    ensure!(updated.lambda_function_configurations == before.lambda_function_configurations, "{updated:?}");
    ensure!(updated.event_bridge_configuration == before.event_bridge_configuration, "{updated:?}");
    ensure!(updated.queue_configurations().contains(&before.queue_configurations()[0]), "{updated:?}");

    pipeline.expect(0, &["destroy", "--yes"])?;
    let after = get().await?;
    ensure!(after.queue_configurations == before.queue_configurations, "{after:?}");
    ensure!(after.lambda_function_configurations == before.lambda_function_configurations, "{after:?}");
    ensure!(after.event_bridge_configuration == before.event_bridge_configuration, "{after:?}");
    Ok(())
}

#[tokio::test]
async fn unmanaged_bucket_tags_statements_and_rules_survive_changes() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (s3, bucket) = (pipeline.s3().await?, &pipeline.name);

    // Another team adds a tag, a statement and a lifecycle rule.
    let mut tags = s3.get_bucket_tagging().bucket(bucket).send().await?.tag_set;
    tags.push(Tag::builder().key("cost-centre").value("42").build()?);
    let tagging = Tagging::builder().set_tag_set(Some(tags)).build()?;
    s3.put_bucket_tagging().bucket(bucket).tagging(tagging).send().await?;
    let unmanaged = serde_json::json!({
        "Sid": "Unmanaged", "Effect": "Deny", "Principal": "*", "Action": "s3:DeleteBucket",
        "Resource": format!("arn:aws:s3:::{bucket}"),
    });
    let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [unmanaged] }).to_string();
    s3.put_bucket_policy().bucket(bucket).policy(policy).send().await?;
    let rule = LifecycleRule::builder()
        .id("unmanaged")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("tmp/").build())
        .expiration(LifecycleExpiration::builder().days(1).build())
        .build()?;
    let rules = BucketLifecycleConfiguration::builder().rules(rule).build()?;
    s3.put_bucket_lifecycle_configuration().bucket(bucket).lifecycle_configuration(rules).send().await?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "unmanaged settings are no drift");

    for declared in [
        "[bucket]\nrequire_tls = true\nexpire_days = 30\n[tags]\nteam = \"data\"",
        "[bucket]\nexpire_days = 60\n[tags]\nteam = \"other\"",
        "",
    ] {
        pipeline.declare(declared)?;
        pipeline.expect(0, &["apply", "--yes"])?;
        ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "{declared}");
        let tags = s3.get_bucket_tagging().bucket(bucket).send().await?.tag_set;
        ensure!(tags.iter().any(|tag| tag.key == "cost-centre" && tag.value == "42"), "{declared}: {tags:?}");
        let policy = s3.get_bucket_policy().bucket(bucket).send().await?.policy.unwrap_or_default();
        let policy: serde_json::Value = serde_json::from_str(&policy)?;
        ensure!(policy["Statement"].as_array().is_some_and(|all| all.contains(&unmanaged)), "{declared}: {policy}");
        let rules = s3.get_bucket_lifecycle_configuration().bucket(bucket).send().await?.rules.unwrap_or_default();
        ensure!(rules.iter().any(|rule| rule.id() == Some("unmanaged")), "{declared}: {rules:?}");
        ensure!(rules.len() == if declared.contains("expire") { 2 } else { 1 }, "{declared}: {rules:?}");
    }
    Ok(())
}
