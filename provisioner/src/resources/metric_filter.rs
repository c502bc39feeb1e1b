//! The metric filters: CloudWatch Logs makes metrics of the numbers in the counter's log, for the alarms that watch
//! them.
//!
//! A filter has no tags. It is found by its alarm, which is created before it and deleted after it.

use counting::names::log_message;
use serde_json::{Value as Json, json};

use super::alarm::{Alarm, LINES, SKIPPED, namespace};
use super::log_group::LogGroup;
use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, log_group_name, retry_while};
use crate::reconcile::diff::{Diff, SettingChange};
use crate::reconcile::ownership::Ownership;
use crate::reconcile::resource::{Address, IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

/// The time limit in seconds for a change that another one delays.
const SETTLE_DEADLINE: u64 = 60;
const NOT_FOUND: [&str; 1] = ["ResourceNotFoundException"];
/// The metrics, and the end of the name of the alarm by which the filter of each is found. Every pipeline with alarms
/// has the first of these alarms.
const METRICS: [(&str, &str); 2] = [(LINES, "-failures"), (SKIPPED, "-skipped")];

/// The desired state of a metric filter.
#[derive(Debug, Clone)]
pub(super) struct MetricFilter {
    name: String,
    /// The log group of the counter.
    group: String,
    group_arn: String,
    /// The metric, in the form of [`metric_of`].
    metric: Json,
    depends_on: Vec<Address>,
}

/// The live state of a metric filter.
#[derive(Debug, Default)]
pub(super) struct Live {
    pattern: Option<String>,
    metric: Json,
}

/// Returns the pattern of the log's lines on counted objects, other than those of `verify`.
fn pattern() -> String {
    format!("{{ $.message = \"{}\" }}", log_message::COUNTED)
}

/// Returns a metric as it is compared and shown. `value` is the field of a line that has the number.
fn metric_of(namespace: &str, name: &str, value: &str) -> Json {
    json!({ "namespace": namespace, "name": name, "value": value })
}

/// Returns whether CloudWatch Logs has aborted one of two concurrent changes.
fn is_aborted(error: &AwsError) -> bool {
    error.code() == Some("OperationAbortedException")
}

impl MetricFilter {
    async fn put(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let text = |field: &str| self.metric[field].as_str().unwrap_or_default().to_owned();
        let metric = aws_sdk_cloudwatchlogs::types::MetricTransformation::builder()
            .metric_namespace(text("namespace"))
            .metric_name(text("name"))
            .metric_value(text("value"))
            .build()?;
        let request = step.aws.logs.put_metric_filter().log_group_name(&self.group).filter_name(&self.name);
        let request = request.filter_pattern(pattern()).metric_transformations(metric);
        retry_while(step.wait("the log group to accept a change", SETTLE_DEADLINE), is_aborted, || async {
            request.clone().send().await.call("logs:PutMetricFilter")
        })
        .await?;
        Ok(())
    }
}

impl Kind for MetricFilter {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let Some(alarms) = &context.pipeline.alarms else { return Vec::new() };
        let has_skipped = alarms.skipped_percent > 0;
        let is_watched = |metric: &str| has_skipped || metric == LINES && alarms.silent_hours > 0;
        let watched = METRICS.into_iter().map(|(metric, _)| metric).filter(|metric| is_watched(metric));
        watched.filter_map(|metric| Self::with_name(context, &format!("{}-{metric}", context.pipeline.name))).collect()
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        let alarm = Alarm::name_from_arn(arn)?;
        METRICS.iter().find_map(|(metric, end)| Some(format!("{}-{metric}", alarm.strip_suffix(*end)?)))
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let pipeline = context.pipeline;
        let of_pipeline = |metric: &str| format!("{}-{metric}", pipeline.name) == name;
        let (metric, end) = METRICS.into_iter().find(|(metric, _)| of_pipeline(metric))?;
        let group = log_group_name(&pipeline.function.name);
        Some(Self {
            name: name.to_owned(),
            group_arn: context.account.log_group_arn(&group),
            metric: metric_of(&namespace(pipeline), metric, &format!("$.{metric}")),
            depends_on: vec![Address::of::<LogGroup>(&group), Address::of::<Alarm>(format!("{}{end}", pipeline.name))],
            group,
        })
    }
}

impl Resource for MetricFilter {
    const NAME: &'static str = "metric filter";
    const ESSENTIAL: Option<&'static [&'static str]> = None;
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    /// Returns the log group's ARN: the filter is a part of it.
    fn arn(&self) -> String {
        self.group_arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        vec![IamActions {
            // CloudWatch Logs authorizes calls on a group's ARN with this suffix (user guide, resource ARNs).
            resource: format!("{}:*", self.group_arn),
            read: &["logs:DescribeMetricFilters"],
            create: &["logs:PutMetricFilter"],
            update: &["logs:PutMetricFilter"],
            delete: &["logs:DeleteMetricFilter"],
            condition: None,
        }]
    }

    fn depends_on(&self) -> Vec<Address> {
        self.depends_on.clone()
    }

    /// Returns `Owned`: it is of the pipeline's log group, and has the pipeline's name.
    fn ownership(&self, _live: &Live) -> Ownership {
        Ownership::Owned
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let mut token = None;
        loop {
            let request = aws.logs.describe_metric_filters().log_group_name(&self.group);
            let request = request.filter_name_prefix(&self.name).set_next_token(token);
            let page = absent_on(request.send().await.call("logs:DescribeMetricFilters"), &NOT_FOUND)?;
            let Some(page) = page else { return Ok(None) };
            let filters = page.metric_filters.unwrap_or_default();
            if let Some(filter) = filters.into_iter().find(|filter| filter.filter_name.as_ref() == Some(&self.name)) {
                let metrics = filter.metric_transformations.unwrap_or_default();
                let metric = |metric: &aws_sdk_cloudwatchlogs::types::MetricTransformation| {
                    metric_of(&metric.metric_namespace, &metric.metric_name, &metric.metric_value)
                };
                let metric = metrics.first().map(metric).unwrap_or_default();
                return Ok(Some(Live { pattern: filter.filter_pattern, metric }));
            }
            token = page.next_token;
            if token.is_none() {
                return Ok(None);
            }
        }
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        Diff::new().compare("pattern", live.and_then(|live| live.pattern.as_ref()), pattern()).compare(
            "metric",
            live.map(|live| &live.metric),
            &self.metric,
        )
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        self.put(step).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        _live: &Live,
        _changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        self.put(step).await
    }

    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        retry_while(step.wait("the log group to accept a change", SETTLE_DEADLINE), is_aborted, || async {
            let request = step.aws.logs.delete_metric_filter().log_group_name(&self.group).filter_name(&self.name);
            absent_on(request.send().await.call("logs:DeleteMetricFilter"), &NOT_FOUND)
        })
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{assert_in_sync, declared};

    fn names(more: &str) -> Vec<String> {
        let file = format!("[alarms]\nemail = \"oncall@example.com\"\n{more}");
        declared::<MetricFilter>(&file).into_iter().map(|filter| filter.name).collect()
    }

    #[test]
    fn metric_filter_as_created_is_in_sync() {
        assert_in_sync::<MetricFilter>(|spec| Live { pattern: Some(pattern()), metric: spec.metric.clone() });
    }

    #[test]
    fn filters_are_those_that_alarms_watch() {
        assert_eq!(names(""), ["events-lines", "events-skipped"]);
        assert_eq!(names("skipped_percent = 0"), ["events-lines"]);
        assert_eq!(names("silent_hours = 0"), ["events-lines", "events-skipped"]);
        assert!(names("silent_hours = 0\nskipped_percent = 0").is_empty());
    }

    #[test]
    fn orphaned_filter_is_found_by_its_alarm() {
        let name = |alarm: &str| {
            MetricFilter::name_from_arn(&format!("arn:aws:cloudwatch:eu-central-1:123456789012:alarm:{alarm}"))
        };
        assert_eq!(name("events-failures").as_deref(), Some("events-lines"));
        assert_eq!(name("events-skipped").as_deref(), Some("events-skipped"));
        assert_eq!(name("events-errors"), None);
        let found = |name: &str| {
            crate::resources::tests::in_context("", |context| MetricFilter::with_name(context, name).is_some())
        };
        assert!(found("events-lines") && found("events-skipped") && !found("events-alert-lines"));
    }
}
