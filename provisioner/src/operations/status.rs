//! The status of a deployment: the function, recent counts, and recent failures.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use counting::names::ledger;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Serialize;

use super::checks::{Check, Passes};
use super::failed;
use super::function_log::LogLine;
use crate::aws::{Call, Session, absent_on};
use crate::error::Error;
use crate::resources::function::REVISION_TAG;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// The maximum number of concurrent calls.
const AT_ONCE: usize = 16;

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
    /// The approximate number of messages in the failure queue.
    pub(crate) failures: Option<u64>,
    /// The queue's name.
    pub(crate) failure_queue: String,
    /// The last errors in the function's log of the last 24 hours, latest first.
    pub(crate) errors: Option<Vec<LogLine>>,
    /// True if nothing keeps the pipeline from counting, and nothing waits to be counted again.
    pub(crate) is_working: bool,
    /// The checks that failed, and those that could not be made.
    pub(crate) findings: Vec<Check>,
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
    pub(crate) objects: usize,
    /// The median delay in seconds.
    pub(crate) median_seconds: Option<i64>,
    /// The longest delay in seconds.
    pub(crate) longest_seconds: Option<i64>,
}

/// An entry of the ledger's index, with times in epoch seconds.
pub(super) struct CountedObject {
    /// The object's name in the ledger.
    pub(super) object: String,
    pub(super) written_at: i64,
    uploaded_at: Option<i64>,
}

impl Counted {
    /// Summarises the objects that were counted at or after `since`, each object once.
    fn since(entries: &[CountedObject], since: i64) -> Self {
        let mut lags: HashMap<&str, Option<i64>> = HashMap::new();
        for entry in entries.iter().filter(|entry| entry.written_at >= since) {
            // The clocks of S3 and Lambda may differ slightly.
            let lag = entry.uploaded_at.map(|uploaded| (entry.written_at - uploaded).max(0));
            let known = lags.entry(&entry.object).or_default();
            *known = (*known).max(lag);
        }
        let objects = lags.len();
        let mut lags: Vec<i64> = lags.into_values().flatten().collect();
        lags.sort_unstable();
        Self { objects, median_seconds: lags.get(lags.len() / 2).copied(), longest_seconds: lags.last().copied() }
    }
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
        let (checked, function, entries, failures, errors) = tokio::join!(
            self.check_resources(),
            self.deployed(),
            self.counted_since(now - DAY, now),
            self.failures_waiting(),
            self.last_errors()
        );
        let (checks, mut unread) = checked;
        let mut findings: Vec<Check> = checks.into_iter().filter(|check| check.result != Passes::Ok).collect();
        let queue = self.pipeline.function.failure_queue.clone();
        let mut known = Parts { findings: &mut findings, unread: &mut unread };
        let function = known.part("function", function).flatten();
        let entries = known.part("counted objects", entries);
        let failures = known.part("failures", failures);
        let errors = known.part("errors", errors);
        if let Some(waiting) = failures.filter(|waiting| *waiting > 0) {
            let finding = format!("{waiting} in queue {queue}: `provisioner replay --dry-run` shows them");
            findings.push(Check::new("failures", Passes::Failed, finding));
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
            failures,
            failure_queue: queue,
            errors,
            is_working: findings.is_empty(),
            findings,
        };
        (status, unread)
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

    /// Returns the ledger's entries written between two times, in epoch seconds.
    pub(super) async fn counted_since(&self, since: i64, now: i64) -> Result<Vec<CountedObject>, Error> {
        let table = &self.pipeline.table.ledger;
        let of_hour = |hour: i64| async move {
            let number = |n: i64| AttributeValue::N(n.to_string());
            let request = self
                .aws
                .dynamodb
                .query()
                .table_name(table)
                .index_name(ledger::BY_COUNTED_HOUR)
                .key_condition_expression("#hour = :hour AND #at >= :since")
                .expression_attribute_names("#hour", ledger::COUNTED_HOUR)
                .expression_attribute_names("#at", ledger::WRITTEN_AT)
                .expression_attribute_values(":hour", AttributeValue::S(counting::hour::format(hour)))
                .expression_attribute_values(":since", number(since));
            let items: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
            items.call("dynamodb:Query").map_err(|error| match error.says("ValidationException", "index") {
                true => Error::not_found(
                    format!("table {table} has no index {}, or is still building it", ledger::BY_COUNTED_HOUR),
                    "run `provisioner apply` to add it, and wait until DynamoDB has filled it",
                ),
                false => failed(format!("read table {table} by its index"))(error),
            })
        };
        let items: Vec<Vec<HashMap<String, AttributeValue>>> =
            stream::iter(since / HOUR..=now / HOUR).map(of_hour).buffer_unordered(AT_ONCE).try_collect().await?;
        let entry = |item: &HashMap<String, AttributeValue>| {
            let number = |name: &str| item.get(name)?.as_n().ok()?.parse::<i64>().ok();
            Some(CountedObject {
                object: item.get(ledger::OBJECT)?.as_s().ok()?.clone(),
                written_at: number(ledger::WRITTEN_AT)?,
                uploaded_at: number(ledger::UPLOADED_AT),
            })
        };
        let entries = items.iter().flatten().map(entry).collect::<Option<Vec<CountedObject>>>();
        entries.ok_or_else(|| Error::incomplete_answer(format!("read table {table} by its index"), "marker"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_of_several_chunks_counts_once_with_its_longest_lag() {
        let entry = |object: &str, written_at, uploaded_at| CountedObject {
            object: object.to_owned(),
            written_at,
            uploaded_at,
        };
        let entries = [
            entry("a", 100, Some(98)),
            entry("b", 101, Some(102)),
            entry("c", 102, Some(92)),
            entry("c", 103, Some(92)),
            entry("d", 104, None),
            entry("old", 10, Some(0)),
        ];
        let counted = Counted { objects: 4, median_seconds: Some(2), longest_seconds: Some(11) };
        assert_eq!(Counted::since(&entries, 100), counted);
        assert_eq!(Counted::since(&entries, 200), Counted::default());
    }
}
