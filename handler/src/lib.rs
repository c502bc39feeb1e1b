//! Counts the events of Segment's files per event and hour in DynamoDB, exactly once per object, even if the same
//! object is notified repeatedly.
//!
//! [`handle`] reads each object of a notification as a stream ([`s3`]), rolls it up, and writes its totals with the
//! counting protocol ([`counting::protocol`]) to DynamoDB ([`dynamodb`]).

pub mod dynamodb;
pub mod error;
pub mod s3;
pub mod settings;

use std::time::Instant;

use counting::ledger::Ledger;
use counting::names::{self, log_message};
use counting::notification::{self, NotifiedObject};
use counting::protocol::{self, Counted, ObjectId, Store, StoreError};
use counting::rollup::{self, Limits, Rollup, RollupError};
use serde_json::Value;
use tracing::{error, info, warn};

use dynamodb::Attempts;
use error::Error;
use s3::{Body, ObjectStream, Objects};
use settings::Settings;

/// Counts every object of one notification. A failed object does not prevent the others from being counted.
///
/// # Errors
/// The error of the only object, or all errors together. Counted objects stay counted, and are not counted again when
/// Lambda retries the notification.
pub async fn handle(
    payload: Value,
    settings: &Settings,
    objects: &impl Objects,
    store: &impl Store,
    attempts: &impl Attempts,
) -> Result<(), Error> {
    let notified = notification::objects(payload)?;
    let mut errors = Vec::new();
    let is_alone = notified.len() < 2;
    let notified = if is_alone { notified } else { unfinished_last(notified, attempts).await };
    for object in &notified {
        if !is_alone {
            attempts.begin(&attempt(object)).await;
        }
        if let Err(failed) = count_object(object, settings, objects, store).await {
            error!(
                bucket = object.bucket,
                key = object.key,
                error = failed.name(),
                why = failed.to_string(),
                "{}",
                log_message::NOT_COUNTED
            );
            errors.push(failed);
        }
    }
    match errors.len() {
        0 => Ok(()),
        1 if notified.len() == 1 => Err(errors.remove(0)),
        _ => Err(Error::Several { all: notified.len(), errors }),
    }
}

fn attempt(object: &NotifiedObject) -> String {
    names::ledger::attempt(&object.bucket, &object.key, object.version.as_deref())
}

/// Orders the objects of a notification: those come last that an earlier attempt began. One of them may have ended the
/// process, by memory or time, and must not keep the others from being counted when Lambda retries.
async fn unfinished_last(objects: Vec<NotifiedObject>, attempts: &impl Attempts) -> Vec<NotifiedObject> {
    let (mut order, mut begun) = (Vec::with_capacity(objects.len()), Vec::new());
    for object in objects {
        let has_begun = attempts.has_begun(&attempt(&object)).await;
        if has_begun { begun.push(object) } else { order.push(object) }
    }
    order.append(&mut begun);
    order
}

async fn count_object(
    object: &NotifiedObject,
    settings: &Settings,
    objects: &impl Objects,
    store: &impl Store,
) -> Result<(), Error> {
    let started = Instant::now();
    let name = format!("{}/{}", object.bucket, object.key);
    let is_test = object.key.contains(names::verify::FOLDER);
    let read_error = |error: StoreError| Error::Read { object: name.clone(), why: error.to_string() };
    let count_error = |error: StoreError| Error::Count { object: name.clone(), why: error.to_string() };
    let rollup_error = |error: RollupError| match error {
        RollupError::Damaged(error) => Error::Inflate { object: name.clone(), why: error.to_string() },
        RollupError::Format(_) | RollupError::NoMessages(_) => {
            Error::NotMessages { object: name.clone(), why: error.to_string() }
        }
    };

    if object.bucket != settings.bucket {
        return Err(Error::OtherBucket { object: name, bucket: settings.bucket.clone() });
    }
    let Some(opened) = objects.open(object).await.map_err(read_error)? else {
        // `verify` removes its objects, and S3 may notify of them late or again.
        if is_test {
            info!(bucket = object.bucket, key = object.key, "{}", log_message::REMOVED);
            return Ok(());
        }
        return Err(Error::Gone { object: name });
    };
    let ObjectStream { identity, uploaded_at, mut body } = opened;
    let ledger_name = names::ledger::object_key(&object.bucket, &object.key, &identity);
    let ledger = Ledger::new(store.markers(&ledger_name).await.map_err(count_error)?);
    if ledger.is_complete() {
        info!(bucket = object.bucket, key = object.key, "{}", log_message::COUNTED_BEFORE);
        return Ok(());
    }

    // The whole file is read before anything is written, so a truncated file adds no counts.
    // The event of `verify` has an hour of its own.
    let limits = if is_test { Limits::default() } else { settings.limits };
    let mut totals = Rollup::new(&settings.count, limits);
    while let Some(bytes) = body.next().await.map_err(read_error)? {
        totals.push(&bytes).map_err(rollup_error)?;
    }
    let (totals, stats) = totals.finish().map_err(rollup_error)?;
    let id = ObjectId { name: ledger_name, uploaded_at, overflowed: stats.overflowed };
    let Counted { transactions } = protocol::count(store, &id, &totals, ledger).await.map_err(count_error)?;

    info!(
        bucket = object.bucket,
        key = object.key,
        events = stats.events,
        pairs = totals.len(),
        lines = stats.lines,
        skipped = stats.skipped(),
        skipped_by_reason = stats.reasons(),
        first_skipped = stats.examples(),
        other_types = stats.types(),
        other_times = stats.other_times(),
        beyond_limits = stats.beyond_limits,
        overflowed = stats.overflowed,
        bytes = stats.bytes,
        transactions,
        milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "{}",
        log_message::COUNTED
    );
    if stats.overflowed > 0 {
        let why = format!("object {name}: {} messages are counted as `{}`", stats.overflowed, rollup::OVERFLOW);
        warn!(error = "PairsOverflowed", why, "{}", log_message::OVERFLOWED);
    }
    if let Some(summary) = stats.skip_summary() {
        warn!(error = "LinesSkipped", why = format!("object {name}: {summary}"), "{}", log_message::SKIPPED);
    }
    Ok(())
}
