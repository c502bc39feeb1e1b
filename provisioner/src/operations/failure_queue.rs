//! The failure queue: its messages, and the records of failed invocations in them.

use std::fmt;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use counting::notification::{self, NotifiedObject};
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::failed;
use crate::aws::{Call, Session};
use crate::error::Error;

/// The maximum number of messages per call (API reference, ReceiveMessage).
const BATCH: i32 = 10;
/// The wait time of a long poll. A long poll queries all servers of SQS; a short poll may miss messages.
const POLL_SECONDS: i32 = 1;
/// The time at which a message was sent to the queue, in milliseconds since the Unix epoch.
const SENT: MessageSystemAttributeName = MessageSystemAttributeName::SentTimestamp;

/// A failed invocation, as its message describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    /// The message's id.
    pub(crate) message: String,
    /// The keys of the objects in its notification.
    pub(crate) objects: Vec<String>,
    /// The error's type and text, as the function returned them; empty if it is only in the function's log.
    pub(crate) error: String,
    /// The time at which Lambda gave up, RFC 3339.
    pub(crate) when: String,
    /// The number of invocations; 0 if it is not known.
    pub(crate) attempts: u64,
    /// The outcome of this run.
    pub(crate) state: State,
}

/// The outcome of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "status", content = "reason")]
pub(crate) enum State {
    /// Its objects are not counted.
    Waiting,
    /// Its objects were counted before this run.
    CountedBefore,
    /// This run counted its objects.
    Counted,
    /// The invocation failed again, with this error.
    FailedAgain(String),
    /// The object with this key is no longer in the bucket.
    Gone(String),
    /// The outcome is unknown because of this error.
    Unclear(String),
    /// It is not Lambda's record of a failed notification for this bucket, for this reason.
    Unknown(String),
    /// It was deleted, and its objects are not counted.
    Deleted,
}

impl State {
    /// Returns whether the message is done, since all of its objects are counted.
    pub(crate) fn is_counted(&self) -> bool {
        matches!(self, Self::Counted | Self::CountedBefore)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("not counted"),
            Self::CountedBefore => f.write_str("already counted"),
            Self::Counted => f.write_str("counted now"),
            Self::FailedAgain(reason) => write!(f, "failed again: {reason}"),
            Self::Gone(key) => write!(f, "cannot be counted: {key} is no longer in the bucket"),
            Self::Unclear(reason) => write!(f, "unknown: {reason}"),
            Self::Unknown(reason) => write!(f, "ignored: {reason}"),
            Self::Deleted => f.write_str("deleted, not counted"),
        }
    }
}

/// The record that Lambda sends to a failure destination (Lambda developer guide, asynchronous invocation records).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(default)]
    request_context: Context,
    request_payload: Json,
    #[serde(default)]
    response_payload: Json,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    #[serde(default)]
    approximate_invoke_count: u64,
    #[serde(default)]
    condition: String,
}

/// A received and parsed message.
pub(crate) struct Received {
    pub(super) receipt: String,
    pub(crate) failure: Failure,
    /// The objects of the failed notification, or `None` if the message is not Lambda's record.
    pub(crate) objects: Option<Vec<NotifiedObject>>,
    /// The name of the recount that the notification asks for.
    pub(crate) recount: Option<String>,
}

/// Returns the error in a function's response, in one line.
pub(super) fn error_in(payload: &Json) -> Option<String> {
    let text = |name: &str| payload.get(name).and_then(Json::as_str);
    match (text("errorType"), text("errorMessage")) {
        (Some(kind), Some(message)) => Some(format!("{kind}: {message}")),
        (None, Some(message)) => Some(message.to_owned()),
        (Some(kind), None) => Some(kind.to_owned()),
        (None, None) => None,
    }
}

impl Received {
    /// Parses a message; returns `None` if it has no receipt handle.
    pub(crate) fn of(message: Message, bucket: &str) -> Option<Self> {
        let (receipt, body) = (message.receipt_handle?, message.body.unwrap_or_default());
        // The fallback if the record has no timestamp.
        let sent = message.attributes.unwrap_or_default().remove(&SENT);
        let sent = sent.and_then(|millis| millis.parse().ok()).and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let mut failure = Failure {
            message: message.message_id.unwrap_or_default(),
            objects: Vec::new(),
            error: String::new(),
            when: String::new(),
            attempts: 0,
            state: State::Waiting,
        };
        let (mut notified, mut recount) = (None, None);
        let unknown = |reason: String| State::Unknown(reason);
        // A message of the queue of notifications comes as S3 sent it: SQS adds no reason.
        let moved = serde_json::from_str::<Json>(&body).ok().filter(|body| body.get("Records").is_some());
        let record = match moved {
            Some(request_payload) => Ok(Record { request_payload, ..Record::default() }),
            None => serde_json::from_str::<Record>(&body),
        };
        match record {
            Err(error) => failure.state = unknown(format!("not Lambda's record of a failed invocation ({error})")),
            Ok(record) => {
                // A function that timed out or never ran has no response; the record then has only the condition.
                failure.error = error_in(&record.response_payload).unwrap_or(record.request_context.condition);
                failure.attempts = record.request_context.approximate_invoke_count;
                let when = record.timestamp.and_then(|text| text.parse::<Timestamp>().ok()).or(sent);
                failure.when = when.map(|when| super::timestamp(when.as_second())).unwrap_or_default();
                recount = notification::recount(&record.request_payload);
                match notification::objects(record.request_payload) {
                    Ok(objects) => {
                        failure.objects = objects.iter().map(|object| object.key.clone()).collect();
                        if let Some(other) = objects.iter().find(|object| object.bucket != bucket) {
                            failure.state = unknown(format!("the notification is for bucket {}", other.bucket));
                        } else {
                            notified = Some(objects);
                        }
                    }
                    Err(error) => failure.state = unknown(error.to_string()),
                }
            }
        }
        Some(Self { receipt, failure, objects: notified, recount })
    }
}

impl Session<'_> {
    fn queue(&self) -> &str {
        &self.pipeline.function.failure_queue
    }

    /// Returns the URL of the failure queue.
    pub(super) async fn queue_url(&self) -> Result<String, Error> {
        self.url_of(self.queue()).await
    }

    /// Returns the URL of a queue.
    pub(super) async fn url_of(&self, queue: &str) -> Result<String, Error> {
        let doing = || format!("find queue {queue}");
        let answer = self.aws.sqs.get_queue_url().queue_name(queue).send().await;
        let answer = answer.call("sqs:GetQueueUrl").map_err(|error| failed(doing())(error))?;
        answer.queue_url.ok_or_else(|| Error::incomplete_answer(doing(), "URL"))
    }

    /// Returns the number of messages to process concurrently, limited by the function's concurrency.
    pub(super) fn at_once(&self) -> usize {
        let limit = self.pipeline.function.max_concurrency.unwrap_or(BATCH).clamp(1, BATCH);
        usize::try_from(limit).unwrap_or(1)
    }

    pub(super) async fn delete(&self, url: &str, receipt: &str) -> Result<(), Error> {
        let request = self.aws.sqs.delete_message().queue_url(url).receipt_handle(receipt);
        request
            .send()
            .await
            .call("sqs:DeleteMessage")
            .map(drop)
            .map_err(failed(format!("delete a message from queue {}", self.queue())))
    }

    pub(super) async fn receive(&self, url: &str, hidden_seconds: i32) -> Result<Vec<Message>, Error> {
        let request = self.aws.sqs.receive_message().queue_url(url).max_number_of_messages(BATCH);
        let request = request.visibility_timeout(hidden_seconds).wait_time_seconds(POLL_SECONDS);
        let request = request.message_system_attribute_names(SENT);
        let answer = request.send().await.call("sqs:ReceiveMessage");
        Ok(answer.map_err(failed(format!("read queue {}", self.queue())))?.messages.unwrap_or_default())
    }

    /// Returns the approximate number of messages in the failure queue, including those in flight.
    ///
    /// # Errors
    /// An SQS error.
    pub(crate) async fn failures_waiting(&self) -> Result<u64, Error> {
        self.messages_in(self.queue()).await
    }

    /// Returns the approximate number of messages in a queue, including those in flight.
    ///
    /// # Errors
    /// An SQS error.
    pub(super) async fn messages_in(&self, queue: &str) -> Result<u64, Error> {
        use aws_sdk_sqs::types::QueueAttributeName as Name;

        let url = self.url_of(queue).await?;
        let names = [Name::ApproximateNumberOfMessages, Name::ApproximateNumberOfMessagesNotVisible];
        let request = self.aws.sqs.get_queue_attributes().queue_url(url).set_attribute_names(Some(names.to_vec()));
        let answer = request.send().await.call("sqs:GetQueueAttributes");
        let doing = format!("read queue {queue}");
        let attributes = answer.map_err(failed(doing))?.attributes.unwrap_or_default();
        Ok(names.iter().filter_map(|name| attributes.get(name)?.parse::<u64>().ok()).sum())
    }

    /// Makes messages visible again. Errors are ignored, since SQS does the same after the visibility timeout.
    pub(super) async fn make_visible(&self, url: &str, receipts: &[String]) {
        let release = |receipt: &String| {
            let request = self.aws.sqs.change_message_visibility().queue_url(url);
            request.receipt_handle(receipt).visibility_timeout(0).send()
        };
        stream::iter(receipts).map(release).buffer_unordered(self.at_once()).for_each(|_| std::future::ready(())).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn received(body: &str) -> Failure {
        let message = Message::builder().message_id("m").receipt_handle("r").body(body).build();
        Received::of(message, "b").expect("a message").failure
    }

    #[test]
    fn failure_record_is_parsed_with_objects_error_time_and_attempts() {
        let record = |key: &str| json!({ "eventName": "ObjectCreated:Put", "s3": { "bucket": { "name": "b" }, "object": { "key": key } } });
        let body = json!({
            "version": "1.0", "timestamp": "2015-08-04T12:34:56.789Z",
            "requestContext": { "condition": "RetriesExhausted", "approximateInvokeCount": 3 },
            "requestPayload": { "Records": [record("in/red+flower.gz"), record("in/b.gz")] },
            "responseContext": { "statusCode": 200 },
            "responsePayload": { "errorType": "ObjectDamaged", "errorMessage": "cut short" },
        });
        let failure = received(&body.to_string());
        assert_eq!(failure.objects, ["in/red flower.gz", "in/b.gz"]);
        assert_eq!((failure.error.as_str(), failure.attempts), ("ObjectDamaged: cut short", 3));
        assert_eq!((failure.when.as_str(), failure.state), ("2015-08-04T12:34:56Z", State::Waiting));
        // If the record has no timestamp, the queue's is used.
        let mut timeless = body.clone();
        timeless["timestamp"] = json!(null);
        let message = Message::builder().message_id("m").receipt_handle("r").body(timeless.to_string());
        let message = message.attributes(SENT, "1438691696789").build();
        assert_eq!(Received::of(message, "b").expect("a message").failure.when, "2015-08-04T12:34:56Z");
        // A function that timed out or never ran has no response.
        let mut unanswered = body;
        unanswered["responsePayload"] = json!(null);
        assert_eq!(received(&unanswered.to_string()).error, "RetriesExhausted");
    }

    #[test]
    fn notification_moved_by_sqs_has_its_objects() {
        let body = json!({ "Records": [
            { "eventName": "ObjectCreated:Put", "s3": { "bucket": { "name": "b" }, "object": { "key": "in/a.gz" } } },
        ] });
        let failure = received(&body.to_string());
        assert_eq!((failure.objects.as_slice(), failure.state), (&["in/a.gz".to_owned()][..], State::Waiting));
    }

    #[test]
    fn message_without_a_record_for_this_bucket_is_unknown() {
        let foreign = json!({
            "timestamp": "2015-08-04T12:34:56Z",
            "requestPayload": { "Records": [{ "s3": { "bucket": { "name": "other" }, "object": { "key": "k" } } }] },
        });
        let nonsense = json!({ "timestamp": "soon", "requestPayload": { "hello": "world" } });
        for body in ["", "hello", "{}", "[1]", &foreign.to_string(), &nonsense.to_string()] {
            assert!(matches!(received(body).state, State::Unknown(_)), "{body}");
        }
    }
}
