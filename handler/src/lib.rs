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
use counting::rollup::{Rollup, RollupError};
use serde_json::Value;
use tracing::{error, info, warn};

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
) -> Result<(), Error> {
    let notified = notification::objects(payload)?;
    let mut errors = Vec::new();
    for object in &notified {
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

async fn count_object(
    object: &NotifiedObject,
    settings: &Settings,
    objects: &impl Objects,
    store: &impl Store,
) -> Result<(), Error> {
    let started = Instant::now();
    let name = format!("{}/{}", object.bucket, object.key);
    let read_error = |error: StoreError| Error::Read { object: name.clone(), why: error.to_string() };
    let count_error = |error: StoreError| Error::Count { object: name.clone(), why: error.to_string() };
    let rollup_error = |error: RollupError| match error {
        RollupError::Damaged(error) => Error::Inflate { object: name.clone(), why: error.to_string() },
        RollupError::Format(_) | RollupError::NoMessages(_) => {
            Error::NotMessages { object: name.clone(), why: error.to_string() }
        }
        RollupError::TooManyPairs => Error::TooManyPairs { object: name.clone(), why: error.to_string() },
    };

    let Some(opened) = objects.open(object).await.map_err(read_error)? else {
        // `verify` removes its objects, and S3 may notify of them late or again.
        if object.key.contains(names::verify::FOLDER) {
            info!(bucket = object.bucket, key = object.key, "{}", log_message::REMOVED);
            return Ok(());
        }
        return Err(Error::Gone { object: name });
    };
    let ObjectStream { identity, uploaded_at, mut body } = opened;
    let id = ObjectId { name: names::ledger::object_key(&object.bucket, &object.key, &identity), uploaded_at };
    let ledger = Ledger::new(store.markers(&id.name).await.map_err(count_error)?);
    if ledger.is_complete() {
        info!(bucket = object.bucket, key = object.key, "{}", log_message::COUNTED_BEFORE);
        return Ok(());
    }

    // The whole file is read before anything is written, so a truncated file adds no counts.
    let mut rollup = Rollup::new(&settings.count);
    while let Some(bytes) = body.next().await.map_err(read_error)? {
        rollup.push(&bytes).map_err(rollup_error)?;
    }
    let (totals, stats) = rollup.finish().map_err(rollup_error)?;
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
        bytes = stats.bytes,
        transactions,
        milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "{}",
        log_message::COUNTED
    );
    if let Some(summary) = stats.skip_summary() {
        warn!(error = "LinesSkipped", why = format!("object {name}: {summary}"), "{}", log_message::SKIPPED);
    }
    Ok(())
}
