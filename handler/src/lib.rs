//! Counts the events of Segment's files per event and hour into DynamoDB, exactly once per object, however often
//! it is notified.
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
use tracing::{error, info};

use error::Error;
use s3::{Body, ObjectStream, Objects};
use settings::Settings;

/// Counts every object of one notification. A bad object does not keep the others from being counted.
///
/// # Errors
/// The failure of an object, or all of them. Whatever was counted stays counted, and is not counted again when Lambda
/// runs the notification once more.
pub async fn handle(
    payload: Value,
    settings: &Settings,
    objects: &impl Objects,
    store: &impl Store,
) -> Result<(), Error> {
    let named = notification::objects(payload)?;
    let mut errors = Vec::new();
    for object in &named {
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
        1 if named.len() == 1 => Err(errors.remove(0)),
        _ => Err(Error::Several { all: named.len(), errors }),
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
    let unreadable = |error: StoreError| Error::Read { object: name.clone(), why: error.to_string() };
    let uncounted = |error: StoreError| Error::Count { object: name.clone(), why: error.to_string() };
    let broken = |error: RollupError| match error {
        RollupError::Gzip(error) => Error::Inflate { object: name.clone(), why: error.to_string() },
        RollupError::TooManyPairs => Error::TooManyPairs { object: name.clone(), why: error.to_string() },
    };

    let ObjectStream { identity, uploaded_at, mut body } = objects.open(object).await.map_err(unreadable)?;
    let id = ObjectId { name: names::ledger::object_key(&object.bucket, &object.key, &identity), uploaded_at };
    let ledger = Ledger::new(store.markers(&id.name).await.map_err(uncounted)?);
    if ledger.is_complete() {
        info!(bucket = object.bucket, key = object.key, "{}", log_message::COUNTED_BEFORE);
        return Ok(());
    }

    // All of it is read before anything is written: of a file that is cut short, nothing is counted.
    let mut rollup = Rollup::new(&settings.count);
    while let Some(bytes) = body.next().await.map_err(unreadable)? {
        rollup.push(&bytes).map_err(broken)?;
    }
    let (totals, stats) = rollup.finish().map_err(broken)?;
    let Counted { transactions } = protocol::count(store, &id, &totals, ledger).await.map_err(uncounted)?;

    info!(
        bucket = object.bucket,
        key = object.key,
        events = stats.events,
        pairs = totals.len(),
        lines = stats.lines,
        skipped = stats.skipped(),
        skipped_by_reason = stats.reasons(),
        first_skipped = stats.examples(),
        bytes = stats.bytes,
        transactions,
        milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "{}",
        log_message::COUNTED
    );
    Ok(())
}
