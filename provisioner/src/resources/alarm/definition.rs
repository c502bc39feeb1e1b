//! The definitions of the alarms: their metrics and conditions, and the texts of their mails. Pure.

use aws_sdk_cloudwatch::types::{ComparisonOperator, Dimension, Metric, MetricDataQuery, MetricStat, StandardUnit};
use serde_json::{Map, Value as Json, json};

use crate::aws::Account;
use crate::config::{Function, Pipeline, Via};
use crate::resources::Context;

const FIVE_MINUTES: i32 = 300;
const HOUR: i32 = 3_600;
/// The periods of failed invocations in a row. Retries mend a single one, and what they do not mend goes to the failure
/// queue, which has an alarm of its own.
const PERSISTENT: i32 = 3;

/// The metrics of the counter's log: the lines of each counted object, and those that were skipped.
pub(in crate::resources) const LINES: &str = "lines";
pub(in crate::resources) const SKIPPED: &str = "skipped";
/// The end of the name of the alarm on a share, which watches two metrics.
const SHARE: &str = "-skipped";

/// Returns the namespace of these metrics.
pub(in crate::resources) fn namespace(pipeline: &Pipeline) -> String {
    format!("EventPipeline/{}", pipeline.name)
}

/// Returns the number of metrics that an alarm watches: CloudWatch's prices are for each.
pub(in crate::resources) fn metrics_of(name: &str) -> u64 {
    if name.ends_with(SHARE) { 2 } else { 1 }
}

/// A metric and the statistic of a period.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    namespace: String,
    name: &'static str,
    dimension: Option<(&'static str, String)>,
    pub(super) statistic: &'static str,
}

impl Series {
    /// Returns the series of a metric that SQS has of a queue.
    fn of_queue(queue: &str, name: &'static str) -> Self {
        let dimension = Some(("QueueName", queue.to_owned()));
        Self { namespace: "AWS/SQS".to_owned(), name, dimension, statistic: "Maximum" }
    }

    /// Returns the series of a metric that Lambda has of a function.
    fn of_function(function: &str, name: &'static str) -> Self {
        let dimension = Some(("FunctionName", function.to_owned()));
        Self { namespace: "AWS/Lambda".to_owned(), name, dimension, statistic: "Sum" }
    }

    /// Returns the series of a metric of the counter's log.
    fn of_log(pipeline: &Pipeline, name: &'static str, statistic: &'static str) -> Self {
        Self { namespace: namespace(pipeline), name, dimension: None, statistic }
    }

    pub(super) fn metric(&self) -> Metric {
        let dimension = |(name, value): &(&'static str, String)| Dimension::builder().name(*name).value(value).build();
        let dimensions: Vec<Dimension> = self.dimension.iter().map(dimension).collect();
        Metric::builder().namespace(&self.namespace).metric_name(self.name).set_dimensions(Some(dimensions)).build()
    }

    fn query(&self, id: &str, period_seconds: i32) -> MetricDataQuery {
        let stat = MetricStat::builder().metric(self.metric()).period(period_seconds).stat(self.statistic).build();
        MetricDataQuery::builder().id(id).metric_stat(stat).return_data(false).build()
    }
}

/// The meaning of an alarm, and the condition for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Definition {
    /// The meaning, and the next step, for the reader of the mail.
    pub(super) description: String,
    pub(super) series: Series,
    /// The series of which `series` is a part; the alarm is then on the percents.
    pub(super) whole: Option<Series>,
    pub(super) period_seconds: i32,
    /// The periods in a row.
    pub(super) periods: i32,
    pub(super) threshold: f64,
    /// True if it is an alarm to be below the threshold, and not above it.
    is_below: bool,
    /// The treatment of a period without data (CloudWatch user guide, missing data).
    pub(super) missing: &'static str,
}

impl Definition {
    pub(super) fn comparison(&self) -> ComparisonOperator {
        match self.is_below {
            true => ComparisonOperator::LessThanThreshold,
            false => ComparisonOperator::GreaterThanThreshold,
        }
    }

    /// Returns the queries of an alarm on percents; none for another alarm.
    pub(super) fn queries(&self) -> Vec<MetricDataQuery> {
        let Some(whole) = &self.whole else { return Vec::new() };
        let percents = MetricDataQuery::builder().id("percents").expression("100 * part / whole").label("percents");
        vec![
            percents.return_data(true).build(),
            self.series.query("part", self.period_seconds),
            whole.query("whole", self.period_seconds),
        ]
    }

    /// Returns the metric as it is compared and shown.
    pub(super) fn metric(&self) -> Json {
        match self.whole {
            Some(_) => queried(&self.queries()),
            None => measured(&self.series.metric(), Some(self.series.statistic), Some(self.period_seconds), None),
        }
    }

    /// Returns the condition as it is compared and shown.
    pub(super) fn condition(&self) -> Json {
        json!({
            "comparison": self.comparison().as_str(),
            "threshold": self.threshold,
            "periods": self.periods,
            "breaching_periods": self.periods,
            "missing": self.missing,
        })
    }
}

/// Returns the form of a metric.
pub(super) fn measured(
    metric: &Metric,
    statistic: Option<&str>,
    period: Option<i32>,
    unit: Option<&StandardUnit>,
) -> Json {
    let dimension = |one: &Dimension| (one.name().unwrap_or_default().to_owned(), json!(one.value()));
    let dimensions: Map<String, Json> = metric.dimensions().iter().map(dimension).collect();
    let mut form = json!({
        "namespace": metric.namespace(),
        "name": metric.metric_name(),
        "dimensions": dimensions,
        "statistic": statistic,
        "period_seconds": period,
    });
    if let Some(unit) = unit {
        form["unit"] = json!(unit.as_str());
    }
    form
}

/// Returns the form of the metrics of an expression.
pub(super) fn queried(queries: &[MetricDataQuery]) -> Json {
    let form = |query: &MetricDataQuery| {
        let stat = query.metric_stat().and_then(|stat| Some((stat, stat.metric()?)));
        let mut form = match stat {
            Some((stat, metric)) => measured(metric, stat.stat(), stat.period(), stat.unit()),
            None => json!({ "expression": query.expression() }),
        };
        form["returned"] = json!(query.return_data().unwrap_or(true));
        (query.id().unwrap_or_default().to_owned(), form)
    };
    Json::Object(queries.iter().map(form).collect())
}

/// Adds the address of a page of the console to a text, if there is one.
fn with_page(mut text: String, page: Option<String>) -> String {
    text.extend(page.map(|page| format!(" {page}")));
    text
}

/// Returns the alarms on one function: on what it gave up, on invocations that fail, and on those that Lambda refuses.
fn of_function(account: &Account, function: &Function, is_counter: bool) -> [(&'static str, Definition); 3] {
    let (name, queue) = (&function.name, &function.failure_queue);
    let failures = match is_counter {
        true => format!(
            "Files could not be counted. Their notifications are in the queue {queue} for 14 days. See them with \
             `provisioner replay --dry-run`, correct the cause, then count the files with `provisioner replay`."
        ),
        false => format!(
            "The consumer {name} gave up on batches of its stream. The queue {queue} has their places in the stream for \
             14 days, the stream has their records for a shorter time. The function's log has the cause."
        ),
    };
    let errors = match is_counter {
        true => format!(
            "Invocations of the function {name} have failed for a quarter of an hour: it crashes, or needs more time or \
             memory than it has. `provisioner status` shows the errors in its log. Notifications are repeated, then go \
             to the queue {queue}."
        ),
        false => format!(
            "Invocations of the consumer {name} have failed for a quarter of an hour. Its log has the cause. A part of \
             its stream waits until the batch succeeds, or is given up and goes to the queue {queue}."
        ),
    };
    let throttles = format!(
        "Lambda has refused invocations of the function {name} for a quarter of an hour, since the concurrency of the \
         account, or of the function (function.max_concurrency), is used up. They are repeated, and late. Ask AWS for a \
         higher quota, or raise the limit."
    );
    let persistent = |text: String, metric: &'static str| Definition {
        description: with_page(text, account.function_metrics_page(&function.name)),
        series: Series::of_function(name, metric),
        period_seconds: FIVE_MINUTES,
        periods: PERSISTENT,
        missing: "notBreaching",
        ..Definition::default()
    };
    [
        (
            "failures",
            Definition {
                description: with_page(failures, account.queue_page(queue)),
                series: Series::of_queue(queue, "ApproximateNumberOfMessagesVisible"),
                period_seconds: FIVE_MINUTES,
                periods: 1,
                // SQS sends no metrics of a queue that nobody has used for six hours, even if it holds messages (SQS
                // developer guide, CloudWatch metrics).
                missing: "ignore",
                ..Definition::default()
            },
        ),
        ("errors", persistent(errors, "Errors")),
        ("throttles", persistent(throttles, "Throttles")),
    ]
}

/// Returns the alarm on the age of the oldest notification: in the queue, or in Lambda's own queue of the function.
fn oldest(context: &Context<'_>, minutes: i32) -> Definition {
    let Context { pipeline, account, .. } = *context;
    let (queue, function) = (&pipeline.notification.queue, &pipeline.function.name);
    let minute = f64::from(minutes);
    let (description, series, threshold) = match pipeline.notification.via {
        Via::Queue => {
            let text = format!(
                "The oldest notification in the queue {queue} has waited for more than {minutes} minutes: files are not \
                 counted, or more slowly than they arrive. `provisioner status` shows what waits, and whether the pipeline \
                 is paused; `provisioner resume` ends a pause, and a higher notification.max_concurrency counts faster."
            );
            let series = Series::of_queue(queue, "ApproximateAgeOfOldestMessage");
            (with_page(text, account.queue_page(queue)), series, minute * 60.0)
        }
        Via::Function => {
            let text = format!(
                "Notifications have waited for more than {minutes} minutes for the function {function}: files are not \
                 counted, or more slowly than they arrive. `provisioner status` shows the errors in its log; a higher \
                 function.max_concurrency counts faster."
            );
            // In milliseconds (Lambda developer guide, metrics of asynchronous invocations).
            let series = Series { statistic: "Maximum", ..Series::of_function(function, "AsyncEventAge") };
            (with_page(text, account.function_metrics_page(function)), series, minute * 60_000.0)
        }
    };
    Definition {
        description,
        series,
        period_seconds: FIVE_MINUTES,
        periods: 1,
        threshold,
        missing: "notBreaching",
        ..Definition::default()
    }
}

/// Returns every alarm by its name. All names begin with that of the pipeline, as the topic's policy demands.
pub(super) fn definitions(context: &Context<'_>) -> Vec<(String, Definition)> {
    let Context { pipeline, account, .. } = *context;
    let Some(alarms) = &pipeline.alarms else { return Vec::new() };
    let name = |end: &str| format!("{}-{end}", pipeline.name);
    let mut all = Vec::new();
    for (n, function) in pipeline.functions().into_iter().enumerate() {
        let is_counter = n == 0;
        let prefix = if is_counter { &pipeline.name } else { &function.name };
        let of_function = of_function(account, function, is_counter);
        all.extend(of_function.map(|(end, definition)| (format!("{prefix}-{end}"), definition)));
    }
    if alarms.queue_age_minutes > 0 {
        all.push((name("oldest"), oldest(context, alarms.queue_age_minutes)));
    }
    let function = &pipeline.function;
    if alarms.skipped_percent > 0 {
        let percent = alarms.skipped_percent;
        let text = format!(
            "More than {percent} % of the lines of an hour's files were skipped, since they are no messages or lack a \
             name or time. `provisioner status` shows the files, the reasons and the first of these lines."
        );
        let definition = Definition {
            description: with_page(text, account.function_metrics_page(&function.name)),
            series: Series::of_log(pipeline, SKIPPED, "Sum"),
            whole: Some(Series::of_log(pipeline, LINES, "Sum")),
            period_seconds: HOUR,
            periods: 1,
            threshold: f64::from(percent),
            missing: "notBreaching",
            ..Definition::default()
        };
        all.push((format!("{}{SHARE}", pipeline.name), definition));
    }
    if alarms.silent_hours > 0 {
        let hours = alarms.silent_hours;
        let text = format!(
            "No file was counted for {hours} hours. Segment writes at least once an hour while there are events: check \
             its destination, then `provisioner status` and `provisioner verify`. A new alarm is in this state until the \
             first file is counted."
        );
        let definition = Definition {
            description: with_page(text, account.function_metrics_page(&function.name)),
            series: Series::of_log(pipeline, LINES, "SampleCount"),
            period_seconds: HOUR,
            periods: hours,
            threshold: 1.0,
            is_below: true,
            missing: "breaching",
            ..Definition::default()
        };
        all.push((name("silence"), definition));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{FILES, in_context};

    const EMAIL: &str = "[alarms]\nemail = \"oncall@example.com\"\n";
    const CONSUMER: &str = "[[consumer]]\nname = \"alert\"\n";

    fn of(more: &str) -> Vec<(String, Definition)> {
        in_context(&format!("{EMAIL}{more}"), definitions)
    }

    fn one(more: &str, name: &str) -> Definition {
        of(more).into_iter().find(|(other, _)| other == name).expect("an alarm").1
    }

    /// Returns the state in which CloudWatch sets an alarm for the values of its last periods; `None` for that of before.
    fn is_alarm(definition: &Definition, values: &[Option<f64>]) -> Option<bool> {
        let periods = usize::try_from(definition.periods).expect("a number");
        let last = &values[values.len() - periods..];
        if definition.missing == "ignore" && last.contains(&None) {
            return None;
        }
        let is_breaching = |value: &Option<f64>| match value {
            Some(value) if definition.is_below => *value < definition.threshold,
            Some(value) => *value > definition.threshold,
            None => definition.missing == "breaching",
        };
        Some(last.iter().all(is_breaching))
    }

    #[test]
    fn alarm_is_raised_under_its_condition_only() {
        let hours = |before: usize, after: usize| {
            let silent = |n: usize| vec![None; n];
            [silent(before), vec![Some(1.0)], silent(after)].concat()
        };
        for (name, values, expected) in [
            ("events-failures", vec![Some(0.0)], Some(false)),
            ("events-failures", vec![Some(1.0)], Some(true)),
            ("events-failures", vec![None], None),
            ("events-oldest", vec![Some(3_600.0)], Some(false)),
            ("events-oldest", vec![Some(3_601.0)], Some(true)),
            ("events-oldest", vec![None], Some(false)),
            ("events-errors", vec![Some(1.0), Some(0.0), Some(1.0)], Some(false)),
            ("events-errors", vec![Some(1.0), None, Some(1.0)], Some(false)),
            ("events-errors", vec![Some(1.0), Some(1.0), Some(1.0)], Some(true)),
            ("events-throttles", vec![Some(0.0), Some(9.0), Some(9.0)], Some(false)),
            ("events-throttles", vec![Some(9.0), Some(9.0), Some(9.0)], Some(true)),
            ("events-skipped", vec![Some(5.0)], Some(false)),
            ("events-skipped", vec![Some(5.1)], Some(true)),
            ("events-skipped", vec![None], Some(false)),
            ("events-silence", hours(5, 25), Some(false)),
            ("events-silence", hours(5, 26), Some(true)),
            ("events-silence", vec![None; 26], Some(true)),
        ] {
            assert_eq!(is_alarm(&one("", name), &values), expected, "{name} {values:?}");
        }
    }

    #[test]
    fn metrics_are_those_of_the_pipelines_queues_functions_and_log() {
        let watched = |name: &str| {
            let series = one("", name).series;
            (series.namespace, series.name, series.dimension.map(|(_, value)| value), series.statistic)
        };
        let at = |namespace: &str, name, of: Option<&str>, statistic| {
            (namespace.to_owned(), name, of.map(str::to_owned), statistic)
        };
        let messages = "ApproximateNumberOfMessagesVisible";
        for (name, expected) in [
            ("events-failures", at("AWS/SQS", messages, Some("events-failures"), "Maximum")),
            ("events-oldest", at("AWS/SQS", "ApproximateAgeOfOldestMessage", Some("events-notifications"), "Maximum")),
            ("events-errors", at("AWS/Lambda", "Errors", Some("events-handler"), "Sum")),
            ("events-throttles", at("AWS/Lambda", "Throttles", Some("events-handler"), "Sum")),
            ("events-skipped", at("EventPipeline/events", "skipped", None, "Sum")),
            ("events-silence", at("EventPipeline/events", "lines", None, "SampleCount")),
        ] {
            assert_eq!(watched(name), expected, "{name}");
        }
        let direct = one("[notification]\nvia = \"function\"", "events-oldest");
        assert_eq!((direct.series.name, direct.series.statistic), ("AsyncEventAge", "Maximum"));
        assert!(direct.threshold == 3_600_000.0, "in milliseconds");
        let share = one("", "events-skipped").metric();
        assert_eq!(share["percents"]["expression"], "100 * part / whole");
        assert_eq!((&share["part"]["name"], &share["whole"]["name"]), (&json!("skipped"), &json!("lines")));
    }

    #[test]
    fn limit_of_zero_has_no_alarm() {
        let names = |more: &str| of(more).into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ");
        let function = "events-failures events-errors events-throttles";
        assert_eq!(names(""), format!("{function} events-oldest events-skipped events-silence"));
        assert_eq!(names("silent_hours = 0\nskipped_percent = 0\nqueue_age_minutes = 0"), function);
        let direct = names("[notification]\nvia = \"function\"");
        assert_eq!(direct, format!("{function} events-oldest events-skipped events-silence"));
        let consumer = "events-alert-failures events-alert-errors events-alert-throttles";
        let with_consumer = names(CONSUMER);
        assert_eq!(with_consumer, format!("{function} {consumer} events-oldest events-skipped events-silence"));
        assert_eq!(
            one(CONSUMER, "events-alert-errors").series.dimension,
            Some(("FunctionName", "events-alert".to_owned()))
        );
    }

    #[test]
    fn free_alarms_suffice_for_a_consumer() {
        let metrics = |more: &str| of(more).iter().map(|(name, _)| metrics_of(name)).sum::<u64>();
        assert_eq!((metrics(""), metrics(CONSUMER)), (7, 10));
        for (name, definition) in of(CONSUMER) {
            assert_eq!(metrics_of(&name), 1 + u64::from(definition.whole.is_some()), "{name}");
        }
    }

    #[test]
    fn definitions_keep_the_limits_of_cloudwatch() {
        let most = "silent_hours = 168\nqueue_age_minutes = 20160\n[function]\nname = \"f\"\nfailure_queue = \"q\"";
        for file in FILES.iter().map(|file| (*file).to_owned()).chain([format!("{EMAIL}{most}")]) {
            for (name, definition) in in_context(&file, definitions) {
                // The topic lets only these alarms publish.
                assert!(name.starts_with("events-") && name.len() <= 255, "{name}");
                assert!(definition.description.chars().count() <= 1_024, "{name}");
                let seconds = definition.period_seconds * definition.periods;
                let most = if definition.period_seconds < HOUR { 86_400 } else { 604_800 };
                assert!(seconds <= most && definition.period_seconds % 60 == 0, "{name}");
            }
        }
    }

    #[test]
    fn description_names_the_next_step_and_a_page_of_the_console() {
        let texts: Vec<String> = of("").into_iter().map(|(_, definition)| definition.description).collect();
        for text in &texts {
            assert!(text.contains(" https://eu-central-1.console.aws.amazon.com/"), "{text}");
        }
        assert!(texts[0].contains("`provisioner replay --dry-run`"), "{}", texts[0]);
        let page = "#/queues/https%3A%2F%2Fsqs.eu-central-1.amazonaws.com%2F123456789012%2Fevents-failures";
        assert!(texts[0].ends_with(page), "{}", texts[0]);
        let page = "/lambda/home?region=eu-central-1#/functions/events-handler?tab=monitoring";
        assert!(texts[1].ends_with(page), "{}", texts[1]);
    }
}
