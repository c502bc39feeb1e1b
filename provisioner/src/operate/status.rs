//! What is deployed, what it has counted lately, and what is wrong, on one screen.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue;
use contract::ledger;
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value as Json;

use super::{Operator, failed};
use crate::aws::{AwsError, Call, absent_on};
use crate::error::Error;
use crate::resources::{REVISION_TAG, log_group_name};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Calls at the same time.
const AT_ONCE: usize = 16;
/// Errors that are shown.
const ERRORS: usize = 5;
/// Lines that are read for them.
const LINES: i32 = 1_000;
/// What lines of failures have in them: the function's own, and Lambda's where the function ran out of time or memory, or did
/// not start.
const FAILURE_WORDS: [&str; 4] = ["ERROR", "\"Task timed out\"", "\"Runtime exited\"", "\"Runtime.ExitError\""];

/// One screen.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The pipeline's name.
    pub pipeline: String,
    /// Its region.
    pub region: String,
    /// Its account.
    pub account: String,
    /// When this was, RFC 3339.
    pub at: String,
    /// What is deployed; nothing where there is no function.
    pub function: Option<Deployed>,
    /// Objects counted in the last hour; this and what follows, where it could be found out.
    pub last_hour: Option<Counted>,
    /// Objects counted in the last 24 hours.
    pub last_day: Option<Counted>,
    /// Messages in the failure queue, roughly, as SQS counts them.
    pub failures: Option<u64>,
    /// The queue's name.
    pub failure_queue: String,
    /// The last errors in the function's log of the last 24 hours, the latest first.
    pub errors: Option<Vec<Line>>,
}

fn known<T>(result: Result<T, Error>, unknown: &mut Vec<Error>) -> Option<T> {
    result.map_err(|error| unknown.push(error)).ok()
}

/// The function, as it is.
#[derive(Debug, Clone, Serialize)]
pub struct Deployed {
    /// Its name.
    pub name: String,
    /// `Active`, `Pending`, `Inactive` or `Failed`.
    pub state: String,
    /// Base64 of its code's SHA-256.
    pub code_sha256: String,
    /// The git revision that the code was deployed from, where it is known.
    pub revision: Option<String>,
    /// When it was last changed, as Lambda writes it.
    pub changed: String,
}

/// Objects, and how long after their upload they were counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// How many.
    pub objects: usize,
    /// Seconds from upload to count: half of them were faster.
    pub median_seconds: Option<i64>,
    /// Seconds from upload to count of the slowest.
    pub longest_seconds: Option<i64>,
}

/// A line of the function's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When, RFC 3339.
    pub at: String,
    /// What it says.
    pub message: String,
}

/// An entry of the ledger's index: when an object was counted, and when it was uploaded.
struct Entry {
    object: String,
    written_at: i64,
    uploaded_at: Option<i64>,
}

impl Counted {
    /// Of those that were counted from `since` on, each object once.
    fn since(entries: &[Entry], since: i64) -> Self {
        let mut lags: HashMap<&str, Option<i64>> = HashMap::new();
        for entry in entries.iter().filter(|entry| entry.written_at >= since) {
            // Clocks of S3 and Lambda may differ by a little.
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

/// What a line of the log says, without what is around it; and of an invocation, one line: the function and Lambda's runtime
/// both tell of a failure, and the function says why.
fn told_once(lines: Vec<Line>) -> Vec<Line> {
    let mut told: Vec<(Option<String>, bool, Line)> = Vec::new();
    for Line { at, message } in lines {
        let line: Json = serde_json::from_str(&message).unwrap_or_default();
        let text = |name: &str| line[name].as_str();
        let (says_why, message) = match (text("error"), text("why"), text("message")) {
            (Some(error), Some(why), _) => (true, format!("{error}: {why}")),
            (_, _, Some(message)) => (false, message.to_owned()),
            _ => (false, message.trim().to_owned()),
        };
        let request = line["span"]["requestId"].as_str().map(str::to_owned);
        let known = told.iter_mut().find(|(other, ..)| request.is_some() && *other == request);
        let new = (request, says_why, Line { at, message });
        match known {
            Some(known) if says_why && !known.1 => *known = new,
            Some(known) if !says_why || known.2 == new.2 => {}
            _ => told.push(new),
        }
    }
    let mut lines: Vec<Line> = told.into_iter().map(|(_, _, line)| line).collect();
    lines.dedup();
    lines
}

impl Operator<'_> {
    /// Looks at everything, at once. What could not be looked at is none of what is shown, but of the errors.
    pub async fn status(&self) -> (Status, Vec<Error>) {
        let now = Timestamp::now().as_second();
        let (function, entries, failures, errors) = tokio::join!(
            self.deployed(),
            self.counted_since(now - DAY, now),
            self.failures_waiting(),
            self.last_errors()
        );
        let mut unknown = Vec::new();
        let (function, entries) = (known(function, &mut unknown), known(entries, &mut unknown));
        let (failures, errors) = (known(failures, &mut unknown), known(errors, &mut unknown));
        let counted = |since| entries.as_ref().map(|entries| Counted::since(entries, since));
        let status = Status {
            pipeline: self.pipeline.name.clone(),
            region: self.place.region.clone(),
            account: self.place.account.clone(),
            at: super::timestamp(now),
            function: function.flatten(),
            last_hour: counted(now - HOUR),
            last_day: counted(now - DAY),
            failures,
            failure_queue: self.pipeline.function.failure_queue.clone(),
            errors,
        };
        (status, unknown)
    }

    async fn deployed(&self) -> Result<Option<Deployed>, Error> {
        let name = &self.pipeline.function.name;
        let answer = self.aws.lambda.get_function().function_name(name).send().await.call("lambda:GetFunction");
        let answer =
            absent_on(answer, &["ResourceNotFoundException"]).map_err(failed(format!("read function {name}")))?;
        let Some(answer) = answer else { return Ok(None) };
        let missing = || Error::Answer { doing: format!("read function {name}"), missing: "configuration" };
        let configuration = answer.configuration.ok_or_else(missing)?;
        Ok(Some(Deployed {
            name: name.clone(),
            state: configuration.state.map(|state| state.as_str().to_owned()).unwrap_or_default(),
            code_sha256: configuration.code_sha256.unwrap_or_default(),
            revision: answer.tags.unwrap_or_default().remove(REVISION_TAG),
            changed: configuration.last_modified.unwrap_or_default(),
        }))
    }

    /// What the ledger says was counted between two times, in epoch seconds.
    async fn counted_since(&self, since: i64, now: i64) -> Result<Vec<Entry>, Error> {
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
                .expression_attribute_values(":hour", AttributeValue::S(handler::time::written(hour)))
                .expression_attribute_values(":since", number(since));
            let items: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
            items.call("dynamodb:Query").map_err(|error| match error.says("ValidationException", "index") {
                true => Error::Refused {
                    what: format!("table {table} has no index {}, or is still making it", ledger::BY_COUNTED_HOUR),
                    help: "`provisioner apply` adds it; DynamoDB then takes a while to fill it".to_owned(),
                },
                false => failed(format!("read table {table} by its index"))(error),
            })
        };
        let items: Vec<Vec<HashMap<String, AttributeValue>>> =
            stream::iter(since / HOUR..=now / HOUR).map(of_hour).buffer_unordered(AT_ONCE).try_collect().await?;
        let entry = |item: &HashMap<String, AttributeValue>| {
            let number = |name: &str| item.get(name)?.as_n().ok()?.parse::<i64>().ok();
            Some(Entry {
                object: item.get(ledger::OBJECT)?.as_s().ok()?.clone(),
                written_at: number(ledger::WRITTEN_AT)?,
                uploaded_at: number(ledger::UPLOADED_AT),
            })
        };
        let entries = items.iter().flatten().map(entry).collect::<Option<Vec<Entry>>>();
        entries.ok_or_else(|| Error::Answer { doing: format!("read table {table} by its index"), missing: "marker" })
    }

    /// Messages in the failure queue, those included that somebody is looking at.
    ///
    /// # Errors
    /// What SQS answered.
    pub async fn failures_waiting(&self) -> Result<u64, Error> {
        use aws_sdk_sqs::types::QueueAttributeName as Name;

        let url = self.queue_url().await?;
        let names = [Name::ApproximateNumberOfMessages, Name::ApproximateNumberOfMessagesNotVisible];
        let request = self.aws.sqs.get_queue_attributes().queue_url(url).set_attribute_names(Some(names.to_vec()));
        let answer = request.send().await.call("sqs:GetQueueAttributes");
        let doing = format!("read queue {}", self.pipeline.function.failure_queue);
        let attributes = answer.map_err(failed(doing))?.attributes.unwrap_or_default();
        Ok(names.iter().filter_map(|name| attributes.get(name)?.parse::<u64>().ok()).sum())
    }

    async fn last_errors(&self) -> Result<Vec<Line>, Error> {
        let name = log_group_name(&self.pipeline.function.name);
        let mut lines = Vec::new();
        // The log is read from its oldest line on. Where much fails, the last hour has enough of it.
        for span in [HOUR, DAY] {
            let since = SystemTime::now() - Duration::from_secs(span.unsigned_abs());
            let answers = try_join_all(FAILURE_WORDS.map(|word| self.log(Some(word), since, LINES))).await;
            // A function that has never run may have no log yet.
            let answers = absent_on(answers, &["ResourceNotFoundException"]);
            lines = answers.map_err(failed(format!("read log {name}")))?.unwrap_or_default().concat();
            lines.sort_by(|a: &Line, b| b.at.cmp(&a.at).then_with(|| a.message.cmp(&b.message)));
            lines = told_once(lines);
            lines.truncate(ERRORS);
            if lines.len() == ERRORS {
                break;
            }
        }
        Ok(lines)
    }

    /// The last lines of the function's log since then, at most `most` of them; only those that have `word` in them.
    pub(super) async fn log(&self, word: Option<&str>, since: SystemTime, most: i32) -> Result<Vec<Line>, AwsError> {
        let most = usize::try_from(most).unwrap_or_default();
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let request = self
            .aws
            .logs
            .filter_log_events()
            .log_group_name(log_group_name(&self.pipeline.function.name))
            .start_time(i64::try_from(since).unwrap_or(i64::MAX))
            .set_filter_pattern(word.map(str::to_owned));
        let mut pages = request.into_paginator().send();
        let mut lines = std::collections::VecDeque::new();
        // The oldest come first, and a page may be empty while there are more.
        while let Some(page) = pages.next().await {
            for event in page.call("logs:FilterLogEvents")?.events.unwrap_or_default() {
                if lines.len() == most {
                    lines.pop_front();
                }
                let at = super::timestamp(event.timestamp.unwrap_or_default().div_euclid(1000));
                lines.push_back(Line { at, message: event.message.unwrap_or_default() });
            }
        }
        Ok(lines.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_once_and_says_why() {
        let line = |message: &str| Line { at: "2015-08-04T12:00:00Z".to_owned(), message: message.to_owned() };
        let lines = vec![
            line(r#"{"level":"ERROR","message":"Diagnostic { .. }","span":{"requestId":"1"}}"#),
            line(
                r#"{"level":"ERROR","message":"not counted","error":"ObjectDamaged","why":"cut","span":{"requestId":"1"}}"#,
            ),
            line(r#"{"level":"ERROR","message":"Diagnostic { other }","span":{"requestId":"2"}}"#),
            line("2015-08-04T12:00:00Z 3 Task timed out after 60.00 seconds\n"),
        ];
        let said: Vec<String> = told_once(lines).into_iter().map(|line| line.message).collect();
        let timed_out = "2015-08-04T12:00:00Z 3 Task timed out after 60.00 seconds";
        assert_eq!(said, ["ObjectDamaged: cut", "Diagnostic { other }", timed_out]);
    }

    #[test]
    fn each_object_counts_once_with_its_longest_lag() {
        let entry =
            |object: &str, written_at, uploaded_at| Entry { object: object.to_owned(), written_at, uploaded_at };
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
