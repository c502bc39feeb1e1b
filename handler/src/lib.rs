//! Counts the events of Segment's files per event and hour in DynamoDB, exactly once per content, even if the same
//! object is notified repeatedly.
//!
//! [`handle`] reads each object of a notification as a stream ([`s3`]), rolls it up, and writes the totals of a
//! [`group`] of objects with the counting protocol ([`counting::protocol`]) to DynamoDB ([`dynamodb`]). [`runtime`] runs it
//! as a Lambda function, also with names of one's own, and runs consumers of the counts: `docs/extending.md`.

// The futures of the SDK's calls are nested deeply.
#![recursion_limit = "256"]

pub mod dynamodb;
pub mod error;
pub mod group;
pub mod runtime;
pub mod s3;
pub mod settings;
pub mod sqs;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use counting::names::{self, log_message};
use counting::notification::{self, Message, NotifiedObject};
use counting::protocol::Store;
use serde_json::{Value, json};
use tracing::error;

use dynamodb::Attempts;
use error::Error;
use group::Counter;
use s3::Objects;
use settings::Settings;
use sqs::PutBack;

// An extension needs no other dependencies for these.
pub use {aws_sdk_dynamodb, counting, lambda_runtime};

/// The time before the end of the invocation from which no object is opened any more: enough to write what was read. It
/// is at most a quarter of the invocation's time.
const RESERVE: Duration = Duration::from_secs(5);
const MOST_OF_TIME: u32 = 4;

/// The objects that were not counted, each with its error.
type Failures = BTreeMap<NotifiedObject, Error>;

/// Counts every object of an event within the time left: of a notification, or of the notifications in a batch of messages from the queue. A
/// failed object does not prevent the others from being counted. Returns Lambda's response: for a batch, the messages
/// that Lambda must deliver again.
///
/// # Errors
/// Only without a queue: the error of the only object, or all errors together. Counted objects stay counted, and are not
/// counted again when Lambda retries the notification.
pub async fn handle(
    payload: Value,
    left: Option<Duration>,
    settings: &Settings,
    objects: &impl Objects,
    store: &(impl Store + Attempts),
    queue: &impl PutBack,
) -> Result<Value, Error> {
    let (is_batch, messages) = notification::messages(payload)?;
    let opens_until = left.and_then(|left| Instant::now().checked_add(left - RESERVE.min(left / MOST_OF_TIME)));
    let counter = Counter { settings, objects, store, opens_until };
    let failures = count(&messages, is_batch, &counter).await;
    for (object, failed) in &failures {
        log(failed, Some(object));
    }
    if !is_batch {
        let all = messages.iter().filter_map(|message| message.objects.as_ref().ok()).flatten().count();
        let mut errors: Vec<Error> = failures.into_values().collect();
        return match errors.len() {
            0 => Ok(Value::Null),
            1 if all == 1 => Err(errors.remove(0)),
            _ => Err(Error::Several { all, errors }),
        };
    }
    let mut failed = Vec::new();
    for message in &messages {
        let is_done = match &message.objects {
            Ok(objects) => {
                let errors: Vec<&Error> = objects.iter().filter_map(|object| failures.get(object)).collect();
                let is_early = |error: &&Error| matches!(error, Error::OutOfTime { .. });
                // A new message has all of its deliveries before it. In each batch at least one object is read, so this
                // ends.
                errors.is_empty() || errors.iter().all(is_early) && queue.put_back(message).await.is_ok()
            }
            Err(unknown) => {
                log(&unknown.clone().into(), None);
                false
            }
        };
        if !is_done {
            failed.push(json!({ "itemIdentifier": message.id }));
        }
    }
    Ok(json!({ "batchItemFailures": failed }))
}

fn log(failed: &Error, object: Option<&NotifiedObject>) {
    error!(
        bucket = object.map(|object| object.bucket.as_str()),
        key = object.map(|object| object.key.as_str()),
        error = failed.name(),
        why = failed.to_string(),
        "{}",
        log_message::NOT_COUNTED
    );
}

/// Counts the objects in groups. Those of repeated messages come last and alone: one of them may have ended the process,
/// by memory or time, and must not keep the others from being counted again.
async fn count<O: Objects, S: Store + Attempts>(
    messages: &[Message],
    is_batch: bool,
    counter: &Counter<'_, O, S>,
) -> Failures {
    let mut failures = Failures::new();
    // A repeated notification without a queue does not say so; if it has one object, there are no others.
    let mut groups: BTreeMap<(bool, Option<&str>), Vec<&NotifiedObject>> = BTreeMap::new();
    for message in messages {
        for object in message.objects.iter().flatten() {
            let is_alone = if is_batch { message.is_repeated } else { message.objects.iter().flatten().count() > 1 };
            let group = groups.entry((is_alone, message.recount.as_deref())).or_default();
            if !group.contains(&object) {
                group.push(object);
            }
        }
    }
    for ((is_alone, recount), objects) in groups {
        if !is_alone {
            failures.extend(counter.count(objects, recount).await);
            continue;
        }
        for object in unfinished_last(objects, counter.store).await {
            counter.store.begin(&attempt(object)).await;
            failures.extend(counter.count(vec![object], recount).await);
        }
    }
    failures
}

fn attempt(object: &NotifiedObject) -> String {
    names::ledger::attempt(&object.bucket, &object.key, object.version.as_deref())
}

/// Orders objects: those come last that an earlier attempt began, and of these the one that it began last, as that one
/// ended it.
async fn unfinished_last<'a>(objects: Vec<&'a NotifiedObject>, attempts: &impl Attempts) -> Vec<&'a NotifiedObject> {
    let mut order = Vec::with_capacity(objects.len());
    for object in objects {
        order.push((attempts.begun_at(&attempt(object)).await, object));
    }
    order.sort_by_key(|(begun_at, _)| *begun_at);
    order.into_iter().map(|(_, object)| object).collect()
}
