//! The alarms: CloudWatch tells the topic when files are not counted, or not as they should be.
//!
//! Somebody who disables an alarm's actions does so on purpose, for example during a repair: it is no drift, and an
//! update keeps it.

mod definition;

use std::collections::BTreeMap;

use aws_sdk_cloudwatch::types::{ComparisonOperator, Metric, MetricAlarm, Statistic, Tag};
use definition::{Definition, definitions, measured, queried};
pub(super) use definition::{LINES, SKIPPED, metrics_of, namespace};
use serde_json::{Value as Json, json};

use super::topic::{self, Topic};
use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, resource_in, retry_while};
use crate::config::{Receiver, dropped_tags};
use crate::reconcile::diff::{Diff, SettingChange, touches};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::resource::{Address, IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

/// The time limit in seconds. CloudWatch accepts three changes of alarms a second (user guide, service quotas).
const CHANGE_DEADLINE: u64 = 60;
/// The error codes of CloudWatch for an alarm that does not exist (API model).
const NOT_FOUND: [&str; 2] = ["ResourceNotFound", "ResourceNotFoundException"];

/// The desired state of an alarm.
#[derive(Debug, Clone)]
pub(super) struct Alarm {
    name: String,
    arn: String,
    /// The ARN patterns of every alarm, and of every alarm of the pipeline.
    every_alarm: String,
    own_alarms: String,
    definition: Definition,
    /// The ARN of the topic that receives it.
    receiver: String,
    depends_on: Vec<Address>,
    tags: BTreeMap<String, String>,
}

/// The live state of an alarm.
#[derive(Debug, Default)]
pub(super) struct Live {
    metric: Json,
    condition: Json,
    actions: Json,
    description: String,
    /// True if somebody has disabled the actions.
    is_muted: bool,
    tags: BTreeMap<String, String>,
}

impl Live {
    fn new(alarm: &MetricAlarm, tags: BTreeMap<String, String>) -> Self {
        let metric = match alarm.metrics() {
            [] => {
                let metric = Metric::builder()
                    .set_namespace(alarm.namespace.clone())
                    .set_metric_name(alarm.metric_name.clone())
                    .set_dimensions(alarm.dimensions.clone())
                    .build();
                let statistic = alarm.statistic().map(Statistic::as_str).or(alarm.extended_statistic());
                measured(&metric, statistic, alarm.period(), alarm.unit())
            }
            queries => queried(queries),
        };
        Self {
            metric,
            condition: json!({
                "comparison": alarm.comparison_operator().map(ComparisonOperator::as_str),
                "threshold": alarm.threshold(),
                "periods": alarm.evaluation_periods(),
                "breaching_periods": alarm.datapoints_to_alarm().or(alarm.evaluation_periods()),
                "missing": alarm.treat_missing_data().unwrap_or("missing"),
            }),
            actions: actions(alarm.alarm_actions(), alarm.ok_actions(), alarm.insufficient_data_actions()),
            description: alarm.alarm_description().unwrap_or_default().to_owned(),
            is_muted: alarm.actions_enabled() == Some(false),
            tags,
        }
    }
}

/// Returns the form of an alarm's actions, which have no order.
fn actions(alarm: &[String], ok: &[String], insufficient_data: &[String]) -> Json {
    let sorted = |actions: &[String]| {
        let mut actions = actions.to_vec();
        actions.sort_unstable();
        actions
    };
    json!({ "alarm": sorted(alarm), "ok": sorted(ok), "insufficient_data": sorted(insufficient_data) })
}

/// Returns whether CloudWatch refuses a call for their number, or since another change of the tags is in flight.
fn is_busy(error: &AwsError) -> bool {
    matches!(error.code(), Some("Throttling" | "ThrottlingException" | "ConcurrentModificationException"))
}

impl Alarm {
    fn actions(&self) -> Json {
        let receiver = std::slice::from_ref(&self.receiver);
        actions(receiver, receiver, &[])
    }

    fn tags(&self) -> Vec<Tag> {
        self.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
    }

    /// Puts the alarm, and the tags of a new one: CloudWatch ignores them for an existing one.
    async fn put(&self, step: &StepContext<'_>, is_muted: bool, tags: Option<Vec<Tag>>) -> Result<(), ResourceError> {
        let Definition { description, series, whole, period_seconds, periods, threshold, missing, .. } =
            &self.definition;
        let request = step
            .aws
            .cloudwatch
            .put_metric_alarm()
            .alarm_name(&self.name)
            .alarm_description(description)
            .actions_enabled(!is_muted)
            .alarm_actions(&self.receiver)
            .ok_actions(&self.receiver)
            .comparison_operator(self.definition.comparison())
            .threshold(*threshold)
            .evaluation_periods(*periods)
            .treat_missing_data(*missing)
            .set_tags(tags);
        let request = match whole {
            Some(_) => request.set_metrics(Some(self.definition.queries())),
            None => {
                let metric = series.metric();
                let request = request.set_namespace(metric.namespace).set_metric_name(metric.metric_name);
                let request = request.set_dimensions(metric.dimensions).period(*period_seconds);
                request.statistic(Statistic::from(series.statistic))
            }
        };
        retry_while(step.wait("CloudWatch to accept the alarm", CHANGE_DEADLINE), is_busy, || async {
            request.clone().send().await.call("cloudwatch:PutMetricAlarm")
        })
        .await?;
        Ok(())
    }

    async fn put_tags(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        let dropped = dropped_tags(&live.tags, &self.tags);
        if !dropped.is_empty() {
            let request = step.aws.cloudwatch.untag_resource().resource_arn(&self.arn).set_tag_keys(Some(dropped));
            retry_while(step.wait("the alarm to accept a change", CHANGE_DEADLINE), is_busy, || async {
                request.clone().send().await.call("cloudwatch:UntagResource")
            })
            .await?;
        }
        let request = step.aws.cloudwatch.tag_resource().resource_arn(&self.arn).set_tags(Some(self.tags()));
        retry_while(step.wait("the alarm to accept a change", CHANGE_DEADLINE), is_busy, || async {
            request.clone().send().await.call("cloudwatch:TagResource")
        })
        .await?;
        Ok(())
    }
}

impl Kind for Alarm {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let all = definitions(context).into_iter();
        all.filter_map(|(name, definition)| Some(Self { definition, ..Self::with_name(context, &name)? })).collect()
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        resource_in(arn, "cloudwatch")?.strip_prefix("alarm:").map(str::to_owned)
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let Context { pipeline, account, .. } = *context;
        let topic = topic::name_of(pipeline);
        // An orphaned alarm is only deleted, so its receiver and definition do not matter.
        let receiver = pipeline.alarms.as_ref().map(|alarms| &alarms.receiver);
        let (receiver, depends_on) = match receiver {
            Some(Receiver::Topic(arn)) => (arn.clone(), Vec::new()),
            Some(Receiver::Email(_)) | None => (account.topic_arn(&topic), vec![Address::of::<Topic>(&topic)]),
        };
        Some(Self {
            name: name.to_owned(),
            arn: account.alarm_arn(name),
            every_alarm: account.alarm_arn("*"),
            own_alarms: account.alarm_arn(&format!("{}-*", pipeline.name)),
            definition: Definition::default(),
            receiver,
            depends_on,
            tags: pipeline.tags.clone(),
        })
    }
}

impl Resource for Alarm {
    const NAME: &'static str = "alarm";
    const ESSENTIAL: Option<&'static [&'static str]> = None;
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn arn(&self) -> String {
        self.arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        // CloudWatch authorizes the list of alarms on all of them, also of alarms by name (aws-terminator#63).
        let alarms = IamActions {
            resource: self.every_alarm.clone(),
            read: &["cloudwatch:DescribeAlarms"],
            ..IamActions::default()
        };
        let own = IamActions {
            resource: self.own_alarms.clone(),
            read: &["cloudwatch:ListTagsForResource"],
            create: &["cloudwatch:PutMetricAlarm", "cloudwatch:TagResource"],
            update: &["cloudwatch:PutMetricAlarm", "cloudwatch:TagResource", "cloudwatch:UntagResource"],
            delete: &["cloudwatch:DeleteAlarms"],
            condition: None,
        };
        vec![alarms, own]
    }

    fn depends_on(&self) -> Vec<Address> {
        self.depends_on.clone()
    }

    fn ownership(&self, live: &Live) -> Ownership {
        ownership::by_tags(&live.tags, &self.tags)
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let answer = aws.cloudwatch.describe_alarms().alarm_names(&self.name).send().await;
        let alarms = answer.call("cloudwatch:DescribeAlarms")?.metric_alarms.unwrap_or_default();
        let found = alarms.into_iter().find(|alarm| alarm.alarm_name.as_ref() == Some(&self.name));
        let Some(alarm) = found else { return Ok(None) };
        let tags = aws.cloudwatch.list_tags_for_resource().resource_arn(&self.arn).send().await;
        let tags = absent_on(tags.call("cloudwatch:ListTagsForResource"), &NOT_FOUND)?;
        let Some(tags) = tags else { return Ok(None) };
        let tags = tags.tags.unwrap_or_default().into_iter();
        let tags = tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect();
        Ok(Some(Live::new(&alarm, tags)))
    }

    fn notes(&self, live: &Live) -> Vec<String> {
        let muted = || {
            let name = &self.name;
            format!(
                "its actions are disabled, and stay so; to enable them: aws cloudwatch enable-alarm-actions \
                 --alarm-names {name}"
            )
        };
        live.is_muted.then(muted).into_iter().collect()
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        Diff::new()
            .compare("metric", live.map(|live| &live.metric), &self.definition.metric())
            .compare("condition", live.map(|live| &live.condition), &self.definition.condition())
            .compare("actions", live.map(|live| &live.actions), &self.actions())
            .compare("description", live.map(|live| &live.description), &self.definition.description)
            .tags(live.map(|live| &live.tags), &self.tags, &[])
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        self.put(step, false, Some(self.tags())).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        if touches(changes, &["tags"]) {
            self.put_tags(step, live).await?;
        }
        if touches(changes, &["metric", "condition", "actions", "description"]) {
            self.put(step, live.is_muted, None).await?;
        }
        Ok(())
    }

    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        retry_while(step.wait("CloudWatch to delete the alarm", CHANGE_DEADLINE), is_busy, || async {
            let answer = step.aws.cloudwatch.delete_alarms().alarm_names(&self.name).send().await;
            absent_on(answer.call("cloudwatch:DeleteAlarms"), &NOT_FOUND)
        })
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{assert_in_sync, declared};

    const EMAIL: &str = "[alarms]\nemail = \"oncall@example.com\"";

    /// Returns an alarm as CloudWatch describes it after it was put.
    fn described(spec: &Alarm) -> MetricAlarm {
        let definition = &spec.definition;
        let alarm = MetricAlarm::builder()
            .alarm_name(&spec.name)
            .alarm_description(&definition.description)
            .actions_enabled(true)
            .alarm_actions(&spec.receiver)
            .ok_actions(&spec.receiver)
            .comparison_operator(definition.comparison())
            .threshold(definition.threshold)
            .evaluation_periods(definition.periods)
            .treat_missing_data(definition.missing);
        match definition.whole {
            Some(_) => alarm.set_metrics(Some(definition.queries())).build(),
            None => {
                let metric = definition.series.metric();
                let alarm = alarm.set_namespace(metric.namespace).set_metric_name(metric.metric_name);
                let alarm = alarm.set_dimensions(metric.dimensions).period(definition.period_seconds);
                alarm.statistic(Statistic::from(definition.series.statistic)).build()
            }
        }
    }

    #[test]
    fn alarm_as_created_is_in_sync() {
        assert_in_sync::<Alarm>(|spec| Live::new(&described(spec), spec.tags.clone()));
    }

    #[test]
    fn changed_condition_is_drift() {
        let spec = declared::<Alarm>(EMAIL).remove(0);
        let changed = |change: &dyn Fn(&mut MetricAlarm)| {
            let mut alarm = described(&spec);
            change(&mut alarm);
            let live = Live::new(&alarm, spec.tags.clone());
            spec.diff(Some(&live)).into_iter().map(|change| change.setting).collect::<Vec<_>>()
        };
        assert_eq!(changed(&|alarm| alarm.threshold = Some(9.0)), ["condition"]);
        assert_eq!(changed(&|alarm| alarm.datapoints_to_alarm = Some(2)), ["condition"]);
        assert_eq!(changed(&|alarm| alarm.treat_missing_data = None), ["condition"]);
        assert_eq!(changed(&|alarm| alarm.period = Some(60)), ["metric"]);
        assert_eq!(changed(&|alarm| alarm.ok_actions = None), ["actions"]);
        assert_eq!(changed(&|alarm| alarm.alarm_description = None), ["description"]);
    }

    #[test]
    fn muted_alarm_is_noted_and_stays_muted() {
        let spec = declared::<Alarm>(EMAIL).remove(0);
        let mut alarm = described(&spec);
        alarm.actions_enabled = Some(false);
        let live = Live::new(&alarm, spec.tags.clone());
        assert!(spec.diff(Some(&live)).is_empty() && live.is_muted);
        assert!(spec.notes(&live).concat().contains("enable-alarm-actions --alarm-names events-failures"));
    }

    #[test]
    fn receiver_is_the_topic_of_the_pipeline_or_the_declared_one() {
        let receiver = |file: &str| declared::<Alarm>(file).remove(0).receiver;
        assert_eq!(receiver(EMAIL), "arn:aws:sns:eu-central-1:123456789012:events-alarms");
        let topic = "arn:aws:sns:eu-central-1:123456789012:oncall";
        assert_eq!(receiver(&format!("[alarms]\ntopic = \"{topic}\"")), topic);
        assert!(declared::<Alarm>("").is_empty());
    }

    #[test]
    fn alarm_in_sync_has_the_name_in_its_arn() {
        let arn = "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:events-failures";
        assert_eq!(Alarm::name_from_arn(arn).as_deref(), Some("events-failures"));
        assert_eq!(Alarm::name_from_arn("arn:aws:cloudwatch::123456789012:dashboard/events"), None);
    }
}
