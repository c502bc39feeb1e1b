//! The counting protocol: it adds an object's totals exactly once, for any number of concurrent handlers and attempts,
//! even if they are killed at any point.
//!
//! The totals are cut into *chunks* of at most 99 additions: one for each pair of event and hour, and one for each pair of
//! event and day. A chunk is one transaction: a *marker*, put in the ledger on the condition that it does not exist yet,
//! and the additions to the counts. A chunk is therefore applied together
//! with its marker or not at all, and never twice.
//!
//! The totals alone determine the pairs of each chunk. Two handlers with the same totals therefore cut the same chunks,
//! and each may write the chunks that the other has not written. Handlers with different totals (an older and a newer
//! version of the parser) cut different chunks, which must not be mixed. Therefore:
//!
//! - A set of totals, with the number of its first chunk, is a *run*, named by a digest. Every marker names its run and
//!   the run's range of chunk numbers.
//! - The first chunk of a run is written first and alone. Its marker assigns the range to that run.
//! - A handler that finds a range begun by another run *seals* it: for each chunk number without a marker it puts an
//!   empty marker, on the same condition. From then on, the other run can no longer apply its missing chunks. The
//!   markers record the chunks that it did apply, and the difference from the handler's own totals becomes the next
//!   run, starting at the next chunk number.
//!
//! An object is *complete* when its last range is full and not sealed. From then on, no handler reads it again.

use std::fmt;
use std::future::Future;

use futures_util::stream::{self, StreamExt};

use crate::ledger::{Ledger, Marker, SEAL, State};
use crate::rollup::Totals;

/// The number of chunks of one object that are written concurrently.
const AT_ONCE: usize = 8;
/// Rounds of writing chunks and reading the ledger before the invocation fails and Lambda retries later. Each further
/// round means that another handler has made progress on the same object, so more than a few indicate a fault.
const ROUNDS: usize = 20;

/// The object that is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectId {
    /// Its name in the ledger; see [`crate::names::ledger::object_key`].
    pub name: String,
    /// The time of its upload in epoch seconds, if S3 returned one.
    pub uploaded_at: Option<i64>,
    /// The number of its messages that are counted as [`crate::rollup::OVERFLOW`], for the ledger.
    pub overflowed: u64,
}

/// The error of a failed call of the store, as one line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError(String);

impl StoreError {
    /// Creates an error with this text.
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

/// The tables, as the protocol needs them.
pub trait Store: Sync {
    /// Reads all markers of an object.
    fn markers(&self, object: &str) -> impl Future<Output = Result<Vec<Marker>, StoreError>> + Send;

    /// Writes a marker and adds its pairs in one transaction, unless the marker exists.
    fn put(&self, object: &ObjectId, marker: &Marker) -> impl Future<Output = Result<Put, StoreError>> + Send;
}

/// The statistics of one call of [`count`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Transactions written.
    pub transactions: usize,
}

/// Adds the part of an object's totals that has not been added yet. `ledger` is the object's ledger, read before the
/// call. Idempotent.
///
/// # Errors
/// An error of the store. Applied chunks have markers, so the next attempt continues after them.
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
                let mut chunks = ledger.run(totals, first);
                if chunks.first().is_some_and(|marker| marker.run == run) {
                    chunks.retain(|marker| missing.contains(&marker.chunk));
                    // If a handler with other totals has begun to seal the range, the sealed chunks are still missing.
                    write(store, object, chunks, &mut counted).await? && !ledger.is_sealed(first..end)
                } else {
                    let seal = |chunk| Marker { chunk, run: SEAL.to_owned(), first, end, pairs: Vec::new() };
                    write(store, object, missing.into_iter().map(seal).collect(), &mut counted).await?;
                    // The ledger must be read again: the other run may have applied more chunks before the seal.
                    false
                }
            }
        };
        if done {
            return Ok(counted);
        }
        ledger = Ledger::new(store.markers(&object.name).await?);
    }
    Err(StoreError::new("too many other handlers are counting the same object"))
}

/// Writes chunks concurrently. Returns whether this call wrote all of them; if so, their run is complete.
async fn write(
    store: &impl Store,
    object: &ObjectId,
    chunks: Vec<Marker>,
    counted: &mut Counted,
) -> Result<bool, StoreError> {
    let mut all_written = true;
    let mut failed = None;
    let mut results = stream::iter(&chunks).map(|marker| store.put(object, marker)).buffer_unordered(AT_ONCE);
    while let Some(result) = results.next().await {
        match result {
            Ok(Put::Written) => counted.transactions += 1,
            Ok(Put::Exists) => all_written = false,
            // The other puts still finish: each chunk is applied with its own marker or not at all.
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(all_written), Err)
}

#[cfg(test)]
mod tests;
