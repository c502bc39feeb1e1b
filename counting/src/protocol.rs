//! The counting protocol: an object's totals are added exactly once, whoever tries, however often, and wherever it is
//! killed.
//!
//! The totals are cut into *chunks* of at most 99 pairs. A chunk is one transaction: a *marker* in the ledger, put on
//! the condition that it is not there yet, and the additions to the counts. So a chunk is applied together with its
//! marker or not at all, and never twice.
//!
//! Which pairs are in which chunk follows from the totals alone, so two handlers that count alike cut alike, and each
//! may write what the other has not. Handlers that count differently (an older and a newer version of the parser) cut
//! differently, and must not mix their chunks. Therefore:
//!
//! - A set of totals with the number of its first chunk is a *run*, named by a digest. Every marker names its run and
//!   the run's range of chunk numbers.
//! - A run's first chunk is written first and alone. Its marker decides whose run the range is.
//! - Whoever finds a range begun by another run *seals* it: for each number that has no marker it puts an empty one, on
//!   the same condition. What the other run had not applied then, it never can. The markers say what it did apply, and
//!   the difference to one's own totals becomes the next run, from the next number on.
//!
//! An object is *complete* when the last range is full and not sealed. From then on nobody reads it again.

use std::fmt;
use std::future::Future;

use futures_util::stream::{self, StreamExt};

use crate::ledger::{Ledger, Marker, SEAL, State};
use crate::rollup::Totals;

/// Chunks of one object that are written at the same time.
const AT_ONCE: usize = 8;
/// Readings of the ledger before the invocation fails and Lambda retries later. Each one means that another handler has
/// made progress on the same object, so more than a few indicate a fault.
const ROUNDS: usize = 20;

/// The object that is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectId {
    /// Its name in the ledger, see [`crate::names::ledger::object_key`].
    pub name: String,
    /// The time of its upload in epoch seconds, if S3 returned one.
    pub uploaded_at: Option<i64>,
}

/// A failed call of the store, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError(String);

impl StoreError {
    /// An error with this text.
    #[must_use]
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// The outcome of [`Store::put`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The marker was written and its pairs were added.
    Written,
    /// The marker existed already; nothing was added.
    Exists,
}

/// The two tables, as the protocol needs them.
pub trait Store: Sync {
    /// Reads all markers of an object.
    fn markers(&self, object: &str) -> impl Future<Output = Result<Vec<Marker>, StoreError>> + Send;

    /// Writes a marker and adds its pairs in one transaction, unless the marker exists.
    fn put(&self, object: &ObjectId, marker: &Marker) -> impl Future<Output = Result<Put, StoreError>> + Send;
}

/// What counting took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Transactions written.
    pub transactions: usize,
}

/// Adds an object's totals, as far as they are not added yet. `ledger` is what the ledger said before.
///
/// # Errors
/// What the store answered. Whatever was added is marked, and the next attempt goes on from there.
pub async fn count(
    store: &impl Store,
    object: &ObjectId,
    totals: &Totals,
    ledger: Ledger,
) -> Result<Counted, StoreError> {
    let mut ledger = ledger;
    let mut counted = Counted::default();
    for _ in 0..ROUNDS {
        let done = match ledger.state() {
            State::Closed { complete: true, .. } => return Ok(counted),
            State::Closed { next, complete: false } => {
                let mut run = ledger.run(totals, next);
                let rest = run.split_off(1);
                write(store, object, run, &mut counted).await? && write(store, object, rest, &mut counted).await?
            }
            State::Open { run, first, end, missing } => {
                let mut ours = ledger.run(totals, first);
                if ours.first().is_some_and(|marker| marker.run == run) {
                    ours.retain(|marker| missing.contains(&marker.chunk));
                    // Where a handler that counts otherwise has begun to seal, what it sealed is still missing.
                    write(store, object, ours, &mut counted).await? && !ledger.is_sealed(first..end)
                } else {
                    let seal = |chunk| Marker { chunk, run: SEAL.to_owned(), first, end, pairs: Vec::new() };
                    write(store, object, missing.into_iter().map(seal).collect(), &mut counted).await?;
                    // What lies in the range now, and what is missing from our totals, must be read again.
                    false
                }
            }
        };
        if done {
            return Ok(counted);
        }
        ledger = Ledger::new(store.markers(&object.name).await?);
    }
    Err(StoreError::new("too many others are counting the same object"))
}

/// Writes chunks, several at a time. Says whether all of them were written by us: then their run is complete.
async fn write(
    store: &impl Store,
    object: &ObjectId,
    chunks: Vec<Marker>,
    counted: &mut Counted,
) -> Result<bool, StoreError> {
    let mut ours = true;
    let mut failed = None;
    let mut results = stream::iter(&chunks).map(|marker| store.put(object, marker)).buffer_unordered(AT_ONCE);
    while let Some(result) = results.next().await {
        match result {
            Ok(Put::Written) => counted.transactions += 1,
            Ok(Put::Exists) => ours = false,
            // The others are finished: each is marked or not on its own.
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(ours), Err)
}

#[cfg(test)]
mod tests;
