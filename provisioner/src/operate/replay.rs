//! The failure queue: what lies in it, and another try for it.
//!
//! A message is what Lambda says of an invocation that it has given up: the notification, and the last error. The
//! notification is run again, at once and to its end, so that another failure is known here and makes no second message. A
//! message goes only when the ledger says that all of its objects are counted.

use std::collections::HashSet;
use std::fmt;

use aws_sdk_lambda::types::InvocationType;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use contract::ledger;
use futures_util::stream::{self, StreamExt};
use handler::notification;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::ledger::Reading;
use super::objects::Object;
use super::{Operator, failed, unless_stopped};
use crate::aws::{Call, absent_on};
use crate::error::Error;
use crate::signal::{Signal, Stop};

/// SQS gives at most so many messages at a time (API reference, ReceiveMessage).
const BATCH: i32 = 10;
/// How long a message that is run again is hidden from others, in seconds; and one that is merely looked at. What stays is given
/// back at the end, unless the process is killed.
const HIDDEN: i32 = 15 * 60;
const HIDDEN_FOR_A_LOOK: i32 = 60;
/// SQS may hold a message back that is there; a long poll asks all of its servers.
const POLL_SECONDS: i32 = 1;
/// When a message came into the queue, in milliseconds of the Unix epoch.
const SENT: MessageSystemAttributeName = MessageSystemAttributeName::SentTimestamp;
/// So many empty answers mean that the queue is.
const EMPTY: u32 = 2;

/// What a message says of the invocation that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The message's id.
    pub message: String,
    /// The keys of the objects in its notification.
    pub objects: Vec<String>,
    /// The error's type and text, as the function gave it.
    pub error: String,
    /// When Lambda gave it up, RFC 3339.
    pub when: String,
    /// How often it was tried.
    pub attempts: u64,
    /// What became of it now.
    pub state: State,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "why")]
pub enum State {
    /// Its objects are not counted.
    Waiting,
    /// Its objects were counted before this.
    CountedBefore,
    /// Its objects are counted now.
    Counted,
    /// It failed again, for this reason.
    FailedAgain(String),
    /// An object of it is not in the bucket any more.
    Gone(String),
    /// What became of it could not be found out, for this reason.
    Unclear(String),
    /// It is nothing that Lambda says of a failed notification for this bucket.
    Unknown(String),
    /// It was deleted, its objects uncounted.
    Deleted,
}

impl State {
    /// Whether its objects are counted, so that nothing is left to do.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        matches!(self, Self::Counted | Self::CountedBefore)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("not counted"),
            Self::CountedBefore => f.write_str("counted by now"),
            Self::Counted => f.write_str("counted now"),
            Self::FailedAgain(why) => write!(f, "failed again: {why}"),
            Self::Gone(key) => write!(f, "cannot be counted: {key} is not in the bucket any more"),
            Self::Unclear(why) => write!(f, "unclear: {why}"),
            Self::Unknown(why) => write!(f, "left alone: {why}"),
            Self::Deleted => f.write_str("deleted, not counted"),
        }
    }
}

/// What Lambda sends to a failure destination (Lambda developer guide, asynchronous invocation records).
#[derive(Debug, Deserialize)]
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

/// A message of the queue, read.
struct Received {
    receipt: String,
    failure: Failure,
    /// The notification that failed; nothing where the message is none of Lambda's.
    notification: Option<(Json, Vec<notification::Object>)>,
}

/// The error of a function's answer, in a line.
fn error_in(payload: &Json) -> Option<String> {
    let text = |name: &str| payload.get(name).and_then(Json::as_str);
    match (text("errorType"), text("errorMessage")) {
        (Some(kind), Some(message)) => Some(format!("{kind}: {message}")),
        (None, Some(message)) => Some(message.to_owned()),
        (Some(kind), None) => Some(kind.to_owned()),
        (None, None) => None,
    }
}

impl Received {
    fn of(message: Message, bucket: &str) -> Option<Self> {
        let (receipt, body) = (message.receipt_handle?, message.body.unwrap_or_default());
        // Where the record does not say when it failed, the queue says when it came.
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
        let mut notification = None;
        let unknown = |why: String| State::Unknown(why);
        match serde_json::from_str::<Record>(&body) {
            Err(error) => failure.state = unknown(format!("it is not Lambda's record of a failure ({error})")),
            Ok(record) => {
                // Where the function never answered, as when it ran out of time, the condition is all there is.
                failure.error = error_in(&record.response_payload).unwrap_or(record.request_context.condition);
                failure.attempts = record.request_context.approximate_invoke_count;
                let when = record.timestamp.and_then(|text| text.parse::<Timestamp>().ok()).or(sent);
                failure.when = when.map(|when| super::timestamp(when.as_second())).unwrap_or_default();
                match notification::objects(record.request_payload.clone()) {
                    Ok(objects) => {
                        failure.objects = objects.iter().map(|object| object.key.clone()).collect();
                        if let Some(other) = objects.iter().find(|object| object.bucket != bucket) {
                            failure.state = unknown(format!("it is about bucket {}", other.bucket));
                        } else {
                            notification = Some((record.request_payload, objects));
                        }
                    }
                    Err(error) => failure.state = unknown(error.to_string()),
                }
            }
        }
        Some(Self { receipt, failure, notification })
    }
}

/// What is to be done with what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// Nothing.
    Look,
    /// To be run again.
    Run,
    /// To be deleted, if it is among these messages.
    Delete(&'a HashSet<String>),
}

/// What became of a message, and whether it is removed.
type Handled = Result<(Failure, bool), Error>;

/// What was found in the queue.
#[derive(Default)]
struct Found {
    /// The messages, as they are now.
    failures: Vec<Failure>,
    /// What identifies those that are still in the queue to SQS.
    kept: Vec<String>,
}

impl Operator<'_> {
    fn queue(&self) -> &str {
        &self.pipeline.function.failure_queue
    }

    /// The queue's address.
    pub(super) async fn queue_url(&self) -> Result<String, Error> {
        let doing = || format!("find queue {}", self.queue());
        let answer = self.aws.sqs.get_queue_url().queue_name(self.queue()).send().await;
        let answer = answer.call("sqs:GetQueueUrl").map_err(|error| failed(doing())(error))?;
        answer.queue_url.ok_or_else(|| Error::Answer { doing: doing(), missing: "URL" })
    }

    /// The object of a notification as it is in the bucket; nothing where it is not there any more.
    async fn head(&self, told: &notification::Object) -> Result<Option<Object>, Error> {
        let request = self.aws.s3.head_object().bucket(&told.bucket).key(&told.key);
        let request = request.set_version_id(told.version.clone()).expected_bucket_owner(&self.place.account);
        // An answer to HEAD has no body, and so no code but `NotFound`.
        let answer = absent_on(request.send().await.call("s3:GetObject"), &["NotFound", "NoSuchKey", "NoSuchVersion"]);
        let Some(answer) = answer.map_err(failed(format!("look at object {}", told.key)))? else { return Ok(None) };
        // What the function knows it by: the version that was told of, or else the ETag of what is there.
        let identity = ledger::identity(told.version.as_deref(), answer.e_tag.as_deref());
        let identity =
            identity.ok_or_else(|| Error::Answer { doing: format!("look at object {}", told.key), missing: "ETag" })?;
        Ok(Some(Object {
            key: told.key.clone(),
            version: told.version.clone(),
            identity,
            size: answer.content_length.unwrap_or_default(),
            uploaded: Timestamp::UNIX_EPOCH,
        }))
    }

    /// Whether all objects of a notification are counted: `Some(key)` of the first that is gone, where one is.
    async fn all_counted(&self, objects: &[notification::Object]) -> Result<(bool, Option<String>), Error> {
        let mut there = Vec::with_capacity(objects.len());
        let mut gone = None;
        for told in objects {
            match self.head(told).await? {
                Some(object) => there.push(object),
                None => gone = gone.or_else(|| Some(told.key.clone())),
            }
        }
        let counted = self.counted(&there, Reading::UpToNow).await?;
        Ok((gone.is_none() && counted.into_iter().all(|counted| counted), gone))
    }

    /// What becomes of one notification.
    async fn retry(&self, told: &Json, objects: &[notification::Object], what: What<'_>) -> Result<State, Error> {
        let (counted, gone) = self.all_counted(objects).await?;
        if counted {
            return Ok(State::CountedBefore);
        }
        // Where some of several objects are gone, the others can still be counted, but the message stays.
        let hopeless = gone.is_some() && objects.len() == 1;
        if what != What::Run || hopeless {
            return Ok(gone.map_or(State::Waiting, State::Gone));
        }
        let name = &self.pipeline.function.name;
        let answer = self.invoke(told, InvocationType::RequestResponse).await;
        let answer = answer.map_err(failed(format!("run function {name}")))?;
        if answer.function_error.is_some() {
            let payload = answer.payload.map(aws_sdk_lambda::primitives::Blob::into_inner).unwrap_or_default();
            let said = serde_json::from_slice(&payload).ok().and_then(|payload| error_in(&payload));
            return Ok(State::FailedAgain(said.unwrap_or_else(|| "the function gave no reason".to_owned())));
        }
        match self.all_counted(objects).await? {
            (true, _) => Ok(State::Counted),
            (false, Some(gone)) => Ok(State::Gone(gone)),
            (false, None) => {
                Ok(State::FailedAgain("the function ran, but the ledger does not have the object".to_owned()))
            }
        }
    }

    /// Messages that are handled at the same time: no more than the function takes.
    fn at_once(&self) -> usize {
        let most = self.pipeline.function.max_concurrency.unwrap_or(BATCH).clamp(1, BATCH);
        usize::try_from(most).unwrap_or(1)
    }

    async fn delete(&self, url: &str, receipt: &str) -> Result<(), Error> {
        let request = self.aws.sqs.delete_message().queue_url(url).receipt_handle(receipt);
        request
            .send()
            .await
            .call("sqs:DeleteMessage")
            .map(drop)
            .map_err(failed(format!("remove a message from queue {}", self.queue())))
    }

    async fn receive(&self, url: &str, what: What<'_>) -> Result<Vec<Message>, Error> {
        let hidden = if what == What::Look { HIDDEN_FOR_A_LOOK } else { HIDDEN };
        let request = self.aws.sqs.receive_message().queue_url(url).max_number_of_messages(BATCH);
        let request = request.visibility_timeout(hidden).wait_time_seconds(POLL_SECONDS);
        let request = request.message_system_attribute_names(SENT);
        let answer = request.send().await.call("sqs:ReceiveMessage");
        Ok(answer.map_err(failed(format!("read queue {}", self.queue())))?.messages.unwrap_or_default())
    }

    /// Looks at every message of the failure queue, and does with it what is asked. Where messages are run again, counted ones
    /// are removed. `tell` hears of each as soon as it is known. What stays is given back, also where this ends early.
    ///
    /// # Errors
    /// What AWS answered; a signal.
    pub async fn replay(
        &self,
        what: What<'_>,
        stop: &Stop,
        tell: &mut (dyn FnMut(&Failure) -> Result<(), Error> + Send),
    ) -> Result<Vec<Failure>, Error> {
        let url = self.queue_url().await?;
        let mut found = Found::default();
        let result = self.walk(&url, &mut found, what, stop, tell).await;
        self.give_back(&url, &found.kept).await;
        result.map(|()| found.failures)
    }

    async fn walk(
        &self,
        url: &str,
        found: &mut Found,
        what: What<'_>,
        stop: &Stop,
        tell: &mut (dyn FnMut(&Failure) -> Result<(), Error> + Send),
    ) -> Result<(), Error> {
        let (mut seen, mut empty) = (HashSet::new(), 0);
        let stopped = |signal: Signal, done: usize| Error::Interrupted {
            signal,
            what: format!("stopped after {done} messages"),
            help: "what is counted is removed and the rest is in the queue: run the command again".to_owned(),
        };
        while empty < EMPTY {
            let messages = unless_stopped(stop, self.receive(url, what)).await;
            let messages = messages.map_err(|signal| stopped(signal, found.failures.len()))??;
            let bucket = &self.pipeline.bucket.name;
            let fresh: Vec<Received> = messages
                .into_iter()
                .filter_map(|message| Received::of(message, bucket))
                .filter(|received| seen.insert(received.failure.message.clone()))
                .collect();
            empty = if fresh.is_empty() { empty + 1 } else { 0 };
            // What has begun is finished, whatever comes.
            let one = |received: Received| self.handle(url, received, what);
            let done: Vec<(String, Handled)> = stream::iter(fresh).map(one).buffered(self.at_once()).collect().await;
            let mut error = None;
            for (receipt, result) in done {
                match result {
                    Ok((failure, is_removed)) => {
                        if let Err(broken) = tell(&failure) {
                            error = error.or(Some(broken));
                        }
                        found.kept.extend((!is_removed).then_some(receipt));
                        found.failures.push(failure);
                    }
                    Err(failed) => {
                        found.kept.push(receipt);
                        error = error.or(Some(failed));
                    }
                }
            }
            if let Some(error) = error {
                return Err(error);
            }
            if let Some(signal) = stop.asked() {
                return Err(stopped(signal, found.failures.len()));
            }
        }
        Ok(())
    }

    /// Does with one message what is asked; says what became of it, and whether it is removed.
    async fn handle(&self, url: &str, received: Received, what: What<'_>) -> (String, Handled) {
        let Received { receipt, mut failure, notification } = received;
        let result = async {
            if let Some((told, objects)) = &notification {
                // One that cannot be looked at keeps none of the others from being handled, nor itself from being deleted.
                let state = self.retry(told, objects, what).await;
                failure.state = state.unwrap_or_else(|error| {
                    State::Unclear(error.to_string().lines().next().unwrap_or_default().to_owned())
                });
            }
            let is_removed = match what {
                What::Look => false,
                What::Run => failure.state.is_counted(),
                What::Delete(these) => these.contains(&failure.message),
            };
            if is_removed {
                self.delete(url, &receipt).await?;
                if !failure.state.is_counted() {
                    failure.state = State::Deleted;
                }
            }
            Ok((failure, is_removed))
        };
        let result = result.await;
        (receipt, result)
    }

    /// Lets others see what stays in the queue. Where that fails, SQS does it by itself a while later.
    async fn give_back(&self, url: &str, receipts: &[String]) {
        let back = |receipt: &String| {
            let request = self.aws.sqs.change_message_visibility().queue_url(url);
            request.receipt_handle(receipt).visibility_timeout(0).send()
        };
        stream::iter(receipts).map(back).buffer_unordered(self.at_once()).for_each(|_| std::future::ready(())).await;
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
    fn a_message_says_what_failed_when_and_how_often() {
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
        // The record says no time: the queue does.
        let mut timeless = body.clone();
        timeless["timestamp"] = json!(null);
        let message = Message::builder().message_id("m").receipt_handle("r").body(timeless.to_string());
        let message = message.attributes(SENT, "1438691696789").build();
        assert_eq!(Received::of(message, "b").expect("a message").failure.when, "2015-08-04T12:34:56Z");
        // The function ran out of time, or never ran.
        let mut silent = body;
        silent["responsePayload"] = json!(null);
        assert_eq!(received(&silent.to_string()).error, "RetriesExhausted");
    }

    #[test]
    fn anything_else_is_left_alone() {
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
