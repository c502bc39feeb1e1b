//! `[alarms]`: the topic, its subscription, the alarms and the metric filters, on the strict local AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_cloudwatch::types::{Dimension, MetricAlarm, MetricDatum};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};
use tests::local_aws::REGION;
use tests::pipeline::{COUNT_TIMEOUT, Pipeline};
use tests::recount::Counts;
use tests::samples::gzip;

use crate::common::{HOUR, track};
use crate::drift::corrected;
use crate::handler::log_of;
use crate::strict::{assert_in_sync, assert_valid, report, switch};
use crate::strict_kinds::{deployer, succeed};
use crate::{steps, strict_pipeline, verdict};

const ADDRESS: &str = "oncall@example.com";
const EMAIL: &str = "[alarms]\nemail = \"oncall@example.com\"";
/// The ends of the names of the alarms and of the metric filters.
const ALARMS: [&str; 6] = ["failures", "errors", "throttles", "oldest", "skipped", "silence"];
const FILTERS: [&str; 2] = ["lines", "skipped"];

fn topic_arn(pipeline: &Pipeline<'_>, name: &str) -> String {
    format!("arn:aws:sns:{REGION}:{}:{name}", pipeline.account)
}

async fn cloudwatch(pipeline: &Pipeline<'_>) -> Result<aws_sdk_cloudwatch::Client> {
    Ok(aws_sdk_cloudwatch::Client::new(&pipeline.sdk().await?))
}

async fn sns(pipeline: &Pipeline<'_>) -> Result<aws_sdk_sns::Client> {
    Ok(aws_sdk_sns::Client::new(&pipeline.sdk().await?))
}

async fn logs(pipeline: &Pipeline<'_>) -> Result<aws_sdk_cloudwatchlogs::Client> {
    Ok(aws_sdk_cloudwatchlogs::Client::new(&pipeline.sdk().await?))
}

async fn alarms(pipeline: &Pipeline<'_>) -> Result<Vec<MetricAlarm>> {
    Ok(cloudwatch(pipeline).await?.describe_alarms().send().await?.metric_alarms.unwrap_or_default())
}

async fn alarm(pipeline: &Pipeline<'_>, end: &str) -> Result<MetricAlarm> {
    let name = format!("{}-{end}", pipeline.name);
    alarms(pipeline).await?.into_iter().find(|alarm| alarm.alarm_name() == Some(name.as_str())).context("an alarm")
}

/// Puts an alarm on a single metric as it is described.
async fn put(pipeline: &Pipeline<'_>, alarm: MetricAlarm) -> Result<()> {
    let request = cloudwatch(pipeline).await?.put_metric_alarm().set_alarm_name(alarm.alarm_name);
    let request = request.set_alarm_description(alarm.alarm_description).set_actions_enabled(alarm.actions_enabled);
    let request = request.set_alarm_actions(alarm.alarm_actions).set_ok_actions(alarm.ok_actions);
    let request = request.set_namespace(alarm.namespace).set_metric_name(alarm.metric_name);
    let request = request.set_dimensions(alarm.dimensions).set_statistic(alarm.statistic).set_period(alarm.period);
    let request = request.set_evaluation_periods(alarm.evaluation_periods).set_threshold(alarm.threshold);
    let request = request.set_comparison_operator(alarm.comparison_operator);
    request.set_treat_missing_data(alarm.treat_missing_data).send().await?;
    Ok(())
}

/// Returns the steps of a plan that creates or deletes the alarms, by its symbol.
fn all_steps(pipeline: &Pipeline<'_>, symbol: char) -> BTreeSet<String> {
    let name = &pipeline.name;
    let topic = [format!("topic {name}-alarms"), format!("subscription {ADDRESS}")];
    let alarms = ALARMS.iter().map(|end| format!("alarm {name}-{end}"));
    let filters = FILTERS.iter().map(|end| format!("metric filter {name}-{end}"));
    topic.into_iter().chain(alarms).chain(filters).map(|resource| format!("  {symbol} {resource}")).collect()
}

#[tokio::test]
async fn alarms_are_planned_created_and_in_sync() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare(EMAIL)?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    let planned: BTreeSet<String> = steps(&plan).into_iter().map(str::to_owned).collect();
    ensure!(planned.is_superset(&all_steps(&pipeline, '+')), "{plan}");
    pipeline.expect(0, &["apply", "--yes"])?;
    let plan = assert_in_sync(&pipeline)?;
    ensure!(plan.contains(&format!("note: subscription {ADDRESS}: it is not confirmed")), "{plan}");

    let topic = topic_arn(&pipeline, &format!("{}-alarms", pipeline.name));
    let found = alarms(&pipeline).await?;
    ensure!(found.len() == ALARMS.len(), "{found:?}");
    for alarm in &found {
        ensure!(alarm.alarm_actions() == [topic.as_str()] && alarm.ok_actions() == [topic.as_str()], "{alarm:?}");
    }
    ensure!(alarm(&pipeline, "skipped").await?.metrics().len() == 3);
    let fired = &report(&pipeline)?["fired"];
    for behaviour in ["alarms_on_expressions_have_metrics", "addresses_confirm_their_subscription"] {
        ensure!(fired[behaviour].as_u64() > Some(0), "{behaviour}: {fired}");
    }
    assert_valid(&pipeline)?;

    switch(&pipeline, &[], &json!({ "confirmed_addresses": [ADDRESS, "old@example.com"] }))?;
    let plan = assert_in_sync(&pipeline)?;
    ensure!(!plan.contains("note: subscription"), "{plan}");
    sns(&pipeline).await?.subscribe().topic_arn(&topic).protocol("email").endpoint("old@example.com").send().await?;
    let plan = assert_in_sync(&pipeline)?;
    ensure!(plan.contains("old@example.com is subscribed to topic") && plan.contains("aws sns unsubscribe"), "{plan}");
    // Alarms do not count.
    cloudwatch(&pipeline).await?.delete_alarms().alarm_names(format!("{}-silence", pipeline.name)).send().await?;
    pipeline.expect(0, &["status"]).map(drop)
}

#[tokio::test]
async fn alarm_drift_is_shown_and_corrected() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare(EMAIL)?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (name, cloudwatch) = (&pipeline.name, cloudwatch(&pipeline).await?);
    let failures = format!("alarm {name}-failures");
    let mut changed = alarm(&pipeline, "failures").await?;
    changed.threshold = Some(9.0);
    put(&pipeline, changed).await?;
    corrected(&pipeline, &failures, "condition", "condition.threshold  9.0", "-> 0.0")?;
    let mut changed = alarm(&pipeline, "failures").await?;
    changed.ok_actions = None;
    put(&pipeline, changed).await?;
    corrected(&pipeline, &failures, "actions", "actions.ok  []", &format!("-> [\"{}", topic_arn(&pipeline, name)))?;
    let arn = format!("arn:aws:cloudwatch:{REGION}:{}:alarm:{name}-failures", pipeline.account);
    cloudwatch.untag_resource().resource_arn(arn).tag_keys("managed-by").send().await?;
    corrected(&pipeline, &failures, "tags", "tags.managed-by  (not set)", "-> \"provisioner\"")?;

    // Actions are disabled on purpose, and stay so while other settings are corrected.
    let mut changed = alarm(&pipeline, "failures").await?;
    (changed.actions_enabled, changed.threshold) = (Some(false), Some(9.0));
    put(&pipeline, changed).await?;
    corrected(&pipeline, &failures, "condition", "condition.threshold  9.0", "-> 0.0")?;
    ensure!(alarm(&pipeline, "failures").await?.actions_enabled() == Some(false));
    let plan = assert_in_sync(&pipeline)?;
    ensure!(plan.contains(&format!("note: {failures}: its actions are disabled, and stay so")), "{plan}");

    let request = logs(&pipeline).await?.put_metric_filter().log_group_name(format!("/aws/lambda/{name}-handler"));
    let metric = aws_sdk_cloudwatchlogs::types::MetricTransformation::builder().metric_name("lines");
    let metric = metric.metric_namespace(format!("EventPipeline/{name}")).metric_value("1").build()?;
    let request = request.filter_name(format!("{name}-lines")).metric_transformations(metric);
    request.filter_pattern("{ $.message = \"counted\" }").send().await?;
    corrected(&pipeline, &format!("metric filter {name}-lines"), "metric", "metric.value  \"1\"", "-> \"$.lines\"")?;

    let request = sns(&pipeline).await?.set_topic_attributes().attribute_name("Policy");
    let nobody = json!({ "Version": "2012-10-17", "Statement": [] }).to_string();
    let topic = format!("{name}-alarms");
    request.topic_arn(topic_arn(&pipeline, &topic)).attribute_value(nobody).send().await?;
    corrected(&pipeline, &format!("topic {topic}"), "policy", "+", "cloudwatch.amazonaws.com")
}

#[tokio::test]
async fn undeclared_alarms_are_pruned_with_their_filters() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare(EMAIL)?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.declare(&format!("{EMAIL}\nskipped_percent = 0"))?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(verdict(&plan)? == "No changes. 2 resources are orphaned.", "{plan}");
    for kind in ["alarm", "metric filter"] {
        ensure!(plan.contains(&format!("note: {kind} {}-skipped is orphaned", pipeline.name)), "{kind}: {plan}");
    }
    pipeline.declare("")?;
    let pruned = pipeline.expect(0, &["apply", "--yes", "--prune"])?.out;
    // The subscription ends with its topic.
    ensure!(pruned.contains("Done: 0 created, 0 updated, 9 deleted"), "{pruned}");
    ensure!(alarms(&pipeline).await?.is_empty(), "an alarm is left");
    ensure!(sns(&pipeline).await?.list_topics().send().await?.topics().is_empty(), "a topic is left");
    let group = format!("/aws/lambda/{}-handler", pipeline.name);
    let filters = logs(&pipeline).await?.describe_metric_filters().log_group_name(group).send().await?;
    ensure!(filters.metric_filters().is_empty(), "{filters:?}");
    let plan = assert_in_sync(&pipeline)?;
    ensure!(!plan.contains("orphaned"), "{plan}");
    Ok(())
}

#[tokio::test]
async fn printed_policies_suffice_for_alarms() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare(EMAIL)?;
    let deployer = deployer(&pipeline).await?;
    let plan = succeed(&deployer, &["plan"])?;
    ensure!(!plan.contains("the caller lacks"), "{plan}");
    succeed(&deployer, &["apply", "--yes"])?;
    let plan = succeed(&deployer, &["plan"])?;
    ensure!(verdict(&plan)? == "No changes.", "{plan}");
    pipeline.declare(&format!("{EMAIL}\nsilent_hours = 3\n[tags]\nteam = \"data\""))?;
    succeed(&deployer, &["apply", "--yes"])?;
    ensure!(alarm(&pipeline, "silence").await?.evaluation_periods() == Some(3));
    let destroyed = succeed(&deployer, &["destroy", "--yes", "--delete-data"])?;
    let deleted: BTreeSet<String> = steps(&destroyed).into_iter().map(str::to_owned).collect();
    ensure!(deleted.is_superset(&all_steps(&pipeline, '-')), "{destroyed}");
    // The index of tags lists the deleted alarms and topic.
    let applied = succeed(&deployer, &["apply", "--yes"])?;
    ensure!(!applied.contains("orphaned"), "{applied}");
    Ok(())
}

/// Creates a topic with a queue that receives what is published to it. Returns the queue's URL and the topic's ARN.
async fn topic_with_queue(pipeline: &Pipeline<'_>) -> Result<(String, String)> {
    let sdk = pipeline.sdk().await?;
    let (sqs, sns) = (aws_sdk_sqs::Client::new(&sdk), aws_sdk_sns::Client::new(&sdk));
    let topic = sns.create_topic().name("oncall").send().await?.topic_arn.context("a topic")?;
    let queue = format!("arn:aws:sqs:{REGION}:{}:oncall", pipeline.account);
    let policy = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": { "Service": "sns.amazonaws.com" }, "Action": "sqs:SendMessage",
        "Resource": queue, "Condition": { "ArnEquals": { "aws:SourceArn": topic } },
    }]});
    let request = sqs.create_queue().queue_name("oncall");
    let request = request.attributes(QueueAttributeName::Policy, policy.to_string());
    let url = request.send().await?.queue_url.context("a queue")?;
    sns.subscribe().topic_arn(&topic).protocol("sqs").endpoint(queue).send().await?;
    Ok((url, topic))
}

/// The local AWS evaluates the alarms on single metrics when it gets data, and knows no missing data. The other
/// conditions are evaluated by the tests of their definitions.
#[tokio::test]
async fn condition_of_an_alarm_reaches_the_declared_topic() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let (url, topic) = topic_with_queue(&pipeline).await?;
    pipeline.declare(&format!("[alarms]\ntopic = \"{topic}\""))?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(!plan.contains("+ topic") && !plan.contains("+ subscription"), "{plan}");
    pipeline.expect(0, &["apply", "--yes"])?;
    let (name, cloudwatch) = (&pipeline.name, cloudwatch(&pipeline).await?);
    let (failures, notifications) = (format!("{name}-failures"), format!("{name}-notifications"));
    let handler = format!("{name}-handler");
    for (namespace, metric, dimension, of, value) in [
        ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", &failures, 1.0),
        ("AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", &notifications, 3_601.0),
        ("AWS/Lambda", "Errors", "FunctionName", &handler, 1.0),
        ("AWS/Lambda", "Throttles", "FunctionName", &handler, 1.0),
    ] {
        let dimension = Dimension::builder().name(dimension).value(of).build();
        let datum = MetricDatum::builder().metric_name(metric).dimensions(dimension).value(value).build();
        cloudwatch.put_metric_data().namespace(namespace).metric_data(datum).send().await?;
    }
    let expected: BTreeSet<String> = ALARMS[..4].iter().map(|end| format!("{name}-{end}")).collect();
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let (started, mut received) = (Instant::now(), BTreeMap::new());
    while received.len() < expected.len() {
        ensure!(started.elapsed() < COUNT_TIMEOUT, "only {received:?} were received");
        let request = sqs.receive_message().queue_url(&url).max_number_of_messages(10).wait_time_seconds(1);
        for message in request.send().await?.messages.unwrap_or_default() {
            let body: Value = serde_json::from_str(message.body().context("a body")?)?;
            let alarm: Value = serde_json::from_str(body["Message"].as_str().context("a message")?)?;
            ensure!(alarm["NewStateValue"] == "ALARM", "{alarm}");
            let text = |field: &str| alarm[field].as_str().unwrap_or_default().to_owned();
            received.insert(text("AlarmName"), text("AlarmDescription"));
        }
    }
    ensure!(received.keys().cloned().collect::<BTreeSet<_>>() == expected, "{received:?}");
    ensure!(received[&failures].contains("`provisioner replay --dry-run`"), "{received:?}");
    // Such a topic is not of the pipeline.
    pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    let topics = sns(&pipeline).await?.list_topics().send().await?;
    ensure!(topics.topics().iter().any(|left| left.topic_arn() == Some(topic.as_str())), "{topics:?}");
    Ok(())
}

/// Returns the values that a metric filter finds in a log: the fields of the lines that fit its pattern, which is of the
/// form `{ $.field = "text" }`.
fn values(log: &str, pattern: &str, value: &str) -> Result<Vec<f64>> {
    let condition = pattern.strip_prefix("{ $.").and_then(|rest| rest.strip_suffix(" }")).context("a JSON pattern")?;
    let (field, text) = condition.split_once(" = ").context("a condition")?;
    let text: String = serde_json::from_str(text)?;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = lines.filter(|line| line[field] == *text);
    let number = value.strip_prefix("$.").context("a field")?;
    found.map(|line| line[number].as_f64().context("a number")).collect()
}

/// The local AWS makes no metrics of a log.
#[tokio::test]
async fn metric_filters_find_the_lines_of_counted_objects_and_not_those_of_verify() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare(EMAIL)?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let text = format!("{}\n{}\nno message\n", track("Signed Up"), track("Signed Up"));
    pipeline.upload("segment-logs/x/1/a.gz", &gzip(text.as_bytes())).await?;
    pipeline.wait_for_counts(&Counts::from([(("Signed Up".to_owned(), HOUR.to_owned()), 2)])).await?;
    pipeline.expect(0, &["verify"])?;
    let function = format!("{}-handler", pipeline.name);
    let started = Instant::now();
    let log = loop {
        let log = log_of(&pipeline, &function).await?;
        if log.contains("a.gz") && log.contains("counted for a test") {
            break log;
        }
        ensure!(started.elapsed() < COUNT_TIMEOUT, "{log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let request = logs(&pipeline).await?.describe_metric_filters();
    let found = request.log_group_name(format!("/aws/lambda/{function}")).send().await?.metric_filters;
    let mut read = BTreeMap::new();
    for filter in found.context("filters")? {
        let metric = filter.metric_transformations().first().context("a metric")?;
        let pattern = filter.filter_pattern().context("a pattern")?;
        read.insert(metric.metric_name().to_owned(), values(&log, pattern, metric.metric_value())?);
    }
    let expected = [("lines", vec![3.0]), ("skipped", vec![1.0])].map(|(name, of)| (name.to_owned(), of));
    ensure!(read == BTreeMap::from(expected), "{read:?}\n{log}");
    Ok(())
}
