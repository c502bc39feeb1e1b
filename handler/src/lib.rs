//! Counts the events of Segment's files per event and hour into DynamoDB, exactly once per object however often it is
//! told of it.
//!
//! [`handle`] reads each object of a notification as a stream ([`rollup`]) and writes its totals ([`count`]) through the
//! two traits of [`store`].

pub mod count;
pub mod failure;
pub mod line;
pub mod notification;
pub mod rollup;
pub mod settings;
pub mod store;
pub mod time;

use std::time::Instant;

use serde_json::Value;
use tracing::{error, info};

use count::{Counted, Ledger};
use failure::Failure;
use notification::Object;
use rollup::{Broken, Rollup};
use settings::Settings;
use store::{Body, Objects, Opened, Store, Subject};

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
) -> Result<(), Failure> {
    let named = notification::objects(payload)?;
    let mut failures = Vec::new();
    for object in &named {
        if let Err(failure) = one(object, settings, objects, store).await {
            error!(
                bucket = object.bucket,
                key = object.key,
                error = failure.name(),
                why = failure.to_string(),
                "not counted"
            );
            failures.push(failure);
        }
    }
    match failures.len() {
        0 => Ok(()),
        1 if named.len() == 1 => Err(failures.remove(0)),
        _ => Err(Failure::Several { all: named.len(), failures }),
    }
}

async fn one(object: &Object, settings: &Settings, objects: &impl Objects, store: &impl Store) -> Result<(), Failure> {
    let started = Instant::now();
    let name = format!("{}/{}", object.bucket, object.key);
    let unreadable = |error: store::Failed| Failure::Read { object: name.clone(), why: error.to_string() };
    let uncounted = |error: store::Failed| Failure::Count { object: name.clone(), why: error.to_string() };
    let broken = |error: Broken| match error {
        Broken::Gzip(error) => Failure::Inflate { object: name.clone(), why: error.to_string() },
        Broken::TooManyPairs => Failure::TooManyPairs { object: name.clone(), why: error.to_string() },
    };

    let Opened { identity, uploaded_at, mut body } = objects.open(object).await.map_err(unreadable)?;
    let subject = Subject { name: contract::ledger::object_key(&object.bucket, &object.key, &identity), uploaded_at };
    let ledger = Ledger::new(store.markers(&subject.name).await.map_err(uncounted)?);
    if ledger.is_complete() {
        info!(bucket = object.bucket, key = object.key, "counted before");
        return Ok(());
    }

    // All of it is read before anything is written: of a file that is cut short, nothing is counted.
    let mut rollup = Rollup::new(&settings.count);
    while let Some(bytes) = body.next().await.map_err(unreadable)? {
        rollup.push(&bytes).map_err(broken)?;
    }
    let (totals, seen) = rollup.finish().map_err(broken)?;
    let Counted { transactions } = count::count(store, &subject, &totals, ledger).await.map_err(uncounted)?;

    info!(
        bucket = object.bucket,
        key = object.key,
        events = seen.events,
        pairs = totals.len(),
        lines = seen.lines,
        skipped = seen.skipped(),
        skipped_by_reason = seen.reasons(),
        first_skipped = seen.examples(),
        bytes = seen.bytes,
        transactions,
        milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "counted"
    );
    Ok(())
}
