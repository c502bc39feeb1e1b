//! The status of a deployment: the function, recent counts, and recent failures.

use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, Statistic};
use counting::record::RecordItem;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde::Serialize;

use super::checks::{Check, Passes};
use super::failed;
use super::function_log::LogLine;
use crate::aws::{Call, Session, absent_on};
use crate::config::{Function, Via};
use crate::counts::{Records, Skipped, skips};
use crate::error::Error;
use crate::resources::function::REVISION_TAG;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// The seconds for which SQS's metrics are read: it sends one a minute, some minutes late (SQS developer guide,
/// CloudWatch metrics).
const METRIC_SECONDS: i64 = 900;
const METRIC_PERIOD: i32 = 60;

/// The status of a deployment. A part is `None` if it could not be read.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Status {
    /// The pipeline's name.
    pub(crate) pipeline: String,
    pub(crate) region: String,
    pub(crate) account: String,
    /// The time of the status, RFC 3339.
    pub(crate) at: String,
    /// The function; also `None` if it does not exist, which is then among the findings.
    pub(crate) function: Option<Deployed>,
    /// Objects counted in the last hour.
    pub(crate) last_hour: Option<Counted>,
    /// Objects counted in the last 24 hours.
    pub(crate) last_day: Option<Counted>,
    /// The objects of the last 24 hours with lines that should be counted but are not, latest first.
    pub(crate) skips: Option<Vec<Skipped>>,
    /// The approximate number of notifications in the queue, waiting or being counted; `None` without a queue.
    pub(crate) waiting: Option<u64>,
    /// The age in seconds of the oldest of them; `None` if there is none, or if CloudWatch does not know it yet.
    pub(crate) oldest_waiting_seconds: Option<u64>,
    /// The approximate number of messages in the failure queue.
    pub(crate) failures: Option<u64>,
    /// The queue's name.
    pub(crate) failure_queue: String,
    /// The failed batches of each consumer.
    pub(crate) consumers: Option<Vec<ConsumerFailures>>,
    /// The last errors in the function's log of the last 24 hours, latest first.
    pub(crate) errors: Option<Vec<LogLine>>,
    /// True if nothing keeps the pipeline from counting, and nothing waits to be counted again.
    pub(crate) is_working: bool,
    /// The checks that failed, and those that could not be made.
    pub(crate) findings: Vec<Check>,
}

/// The batches that a consumer could not be told.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ConsumerFailures {
    /// The function's name.
    pub(crate) function: String,
    /// The approximate number of messages in its failure queue, each the place of a batch in its stream.
    pub(crate) failures: u64,
    /// The queue's name.
    pub(crate) failure_queue: String,
}

/// The live state of the function.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Deployed {
    pub(crate) name: String,
    /// `Active`, `Pending`, `Inactive` or `Failed`.
    pub(crate) state: String,
    /// Base64 of its code's SHA-256.
    pub(crate) code_sha256: String,
    /// The git revision of the code, if known.
    pub(crate) revision: Option<String>,
    /// The time of its last change, in Lambda's format.
    pub(crate) changed: String,
}

/// The number of counted objects, and the delays from upload to count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counted {
    /// All objects, duplicates included.
    pub(crate) objects: usize,
    /// Objects that were not counted, as others have the same content.
    pub(crate) duplicates: usize,
    /// The median delay in seconds.
    pub(crate) median_seconds: Option<i64>,
    /// The longest delay in seconds.
    pub(crate) longest_seconds: Option<i64>,
}

impl Counted {
    /// Summarises the objects that were counted at or after `since`.
    fn since(records: &[RecordItem], since: i64) -> Self {
        let recent: Vec<&RecordItem> = records.iter().filter(|item| seconds(item) >= since).collect();
        // The clocks of S3 and Lambda may differ slightly.
        let lag = |item: &&RecordItem| item.record.uploaded_at.map(|uploaded| (seconds(item) - uploaded).max(0));
        let mut lags: Vec<i64> = recent.iter().filter_map(lag).collect();
        lags.sort_unstable();
        Self {
            objects: recent.len(),
            duplicates: recent.iter().filter(|item| item.record.duplicate_of.is_some()).count(),
            median_seconds: lags.get(lags.len() / 2).copied(),
            longest_seconds: lags.last().copied(),
        }
    }
}

/// Returns the time at which an object was recorded, in epoch seconds.
pub(super) fn seconds(item: &RecordItem) -> i64 {
    i64::try_from(item.written_at).unwrap_or(i64::MAX)
}

/// Collects what is known of the parts of a status.
struct Parts<'a> {
    findings: &'a mut Vec<Check>,
    unread: &'a mut Vec<Error>,
}

impl Parts<'_> {
    /// Returns the value of a part. A part that could not be read is unknown: neither good nor bad.
    fn part<T>(&mut self, name: &str, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.findings.push(Check::new(name, Passes::Unknown, error.summary()));
                self.unread.push(error);
                None
            }
        }
    }
}

impl Session<'_> {
    /// Reads all parts concurrently. Returns the errors of the parts that could not be read.
    pub(crate) async fn status(&self) -> (Status, Vec<Error>) {
        let now = Timestamp::now().as_second();
        let records = Records::new(&self.aws, self.pipeline);
        let (checked, function, entries, waiting, failures, consumers, errors) = tokio::join!(
            self.check_resources(),
            self.deployed(),
            records.between(now - DAY, now),
            self.notifications_waiting(),
            self.failures_waiting(),
            self.failures_of_consumers(),
            self.last_errors()
        );
        let (checks, mut unread) = checked;
        let mut findings: Vec<Check> = checks.into_iter().filter(|check| check.result != Passes::Ok).collect();
        let queue = self.pipeline.function.failure_queue.clone();
        let mut known = Parts { findings: &mut findings, unread: &mut unread };
        let function = known.part("function", function).flatten();
        let entries = known.part("counted objects", entries);
        let waiting = known.part("notifications", waiting).flatten();
        let oldest_waiting_seconds = waiting.and_then(|(_, oldest)| oldest);
        let waiting = waiting.map(|(messages, _)| messages);
        let failures = known.part("failures", failures);
        let consumers = known.part("consumers", consumers);
        let errors = known.part("errors", errors);
        if let Some(waiting) = failures.filter(|waiting| *waiting > 0) {
            let finding = format!("{waiting} in queue {queue}: `provisioner replay --dry-run` shows them");
            findings.push(Check::new("failures", Passes::Failed, finding));
        }
        for consumer in consumers.iter().flatten().filter(|consumer| consumer.failures > 0) {
            let ConsumerFailures { function, failures, failure_queue } = consumer;
            let finding = format!(
                "{failures} in queue {failure_queue}, each the place of a batch in the stream, which has it for a day: \
                 `provisioner logs --failures --consumer NAME` shows why"
            );
            findings.push(Check::new(format!("consumer {function}"), Passes::Failed, finding));
        }
        if errors.as_ref().is_some_and(|errors| !errors.is_empty()) {
            findings.push(Check::new("errors", Passes::Failed, "in the function's log of the last day"));
        }
        let counted = |since| entries.as_ref().map(|entries| Counted::since(entries, since));
        let status = Status {
            pipeline: self.pipeline.name.clone(),
            region: self.account.region.clone(),
            account: self.account.id.clone(),
            at: super::timestamp(now),
            function,
            last_hour: counted(now - HOUR),
            last_day: counted(now - DAY),
            skips: entries.as_deref().map(skips),
            waiting,
            oldest_waiting_seconds,
            failures,
            failure_queue: queue,
            consumers,
            errors,
            is_working: findings.is_empty(),
            findings,
        };
        (status, unread)
    }

    /// Returns the number of notifications in the queue, if there is one, and the age of the oldest.
    async fn notifications_waiting(&self) -> Result<Option<(u64, Option<u64>)>, Error> {
        let notification = &self.pipeline.notification;
        if notification.via == Via::Function {
            return Ok(None);
        }
        let queue = &notification.queue;
        let (messages, age) = tokio::try_join!(self.messages_in(queue), self.age_of_oldest(queue))?;
        Ok(Some((messages, age.filter(|_| messages > 0))))
    }

    /// Returns the number of messages in the failure queue of each consumer.
    async fn failures_of_consumers(&self) -> Result<Vec<ConsumerFailures>, Error> {
        let failures = async |consumer: &Function| {
            let (function, failure_queue) = (consumer.name.clone(), consumer.failure_queue.clone());
            Ok(ConsumerFailures { failures: self.messages_in(&failure_queue).await?, function, failure_queue })
        };
        try_join_all(self.pipeline.consumers.iter().map(failures)).await
    }

    /// Returns the age in seconds of the oldest message in a queue, as CloudWatch knew it last. SQS itself does not tell.
    async fn age_of_oldest(&self, queue: &str) -> Result<Option<u64>, Error> {
        let now = Timestamp::now().as_second();
        let dimension = Dimension::builder().name("QueueName").value(queue).build();
        let request = self
            .aws
            .cloudwatch
            .get_metric_statistics()
            .namespace("AWS/SQS")
            .metric_name("ApproximateAgeOfOldestMessage")
            .dimensions(dimension)
            .start_time(DateTime::from_secs(now - METRIC_SECONDS))
            .end_time(DateTime::from_secs(now + i64::from(METRIC_PERIOD)))
            .period(METRIC_PERIOD)
            .statistics(Statistic::Maximum);
        let answer = request.send().await.call("cloudwatch:GetMetricStatistics");
        let mut points =
            answer.map_err(failed(format!("read the metrics of queue {queue}")))?.datapoints.unwrap_or_default();
        points.sort_by_key(|point| point.timestamp.map(|time| time.secs()));
        let age = points.last().and_then(|point| point.maximum);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the conversion saturates")]
        Ok(age.map(|seconds| seconds as u64))
    }

    async fn deployed(&self) -> Result<Option<Deployed>, Error> {
        let name = &self.pipeline.function.name;
        let answer = self.aws.lambda.get_function().function_name(name).send().await.call("lambda:GetFunction");
        let answer =
            absent_on(answer, &["ResourceNotFoundException"]).map_err(failed(format!("read function {name}")))?;
        let Some(answer) = answer else { return Ok(None) };
        let missing = || Error::incomplete_answer(format!("read function {name}"), "configuration");
        let configuration = answer.configuration.ok_or_else(missing)?;
        Ok(Some(Deployed {
            name: name.clone(),
            state: configuration.state.map(|state| state.as_str().to_owned()).unwrap_or_default(),
            code_sha256: configuration.code_sha256.unwrap_or_default(),
            revision: answer.tags.unwrap_or_default().remove(REVISION_TAG),
            changed: configuration.last_modified.unwrap_or_default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use counting::record::Record;

    use super::*;

    fn item(object: &str, written_at: u64, record: Record) -> RecordItem {
        RecordItem::new(Record { object: object.to_owned(), ..record }, written_at, None)
    }

    fn uploaded(at: i64) -> Record {
        Record { uploaded_at: Some(at), ..Record::default() }
    }

    #[test]
    fn recent_objects_are_counted_with_their_lags() {
        let duplicate = Record { duplicate_of: Some("a".to_owned()), ..uploaded(92) };
        let records = [
            item("a", 100, uploaded(98)),
            item("b", 101, uploaded(102)),
            item("c", 103, duplicate),
            item("d", 104, Record::default()),
            item("old", 10, uploaded(0)),
        ];
        let counted = Counted { objects: 4, duplicates: 1, median_seconds: Some(2), longest_seconds: Some(11) };
        assert_eq!(Counted::since(&records, 100), counted);
        assert_eq!(Counted::since(&records, 200), Counted::default());
    }
}
