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

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use futures_util::stream::{self, StreamExt};
use sha2::{Digest, Sha256};

use crate::rollup::Totals;
use crate::store::{Failed, Put, Store, Subject};

/// DynamoDB takes 100 actions in a transaction; one is the marker.
pub const PAIRS_PER_CHUNK: usize = 99;
/// Chunks of one object that are written at the same time.
const AT_ONCE: usize = 8;
/// How often the state is read again before the invocation fails and Lambda tries later. Each time somebody else has
/// made progress on the same object, so more than a few mean that something is wrong.
const ROUNDS: usize = 20;
/// The run of a marker that seals.
const SEAL: &str = "seal";

/// One marker: a chunk that was applied, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The chunk's number.
    pub chunk: u32,
    /// What the chunk was cut from, or [`SEAL`].
    pub run: String,
    /// The number of the run's first chunk.
    pub first: u32,
    /// The number after the run's last chunk.
    pub end: u32,
    /// What is added: event, hour, count.
    pub pairs: Vec<(String, String, i64)>,
}

impl Marker {
    /// Whether it is its run's last, without which its object is not counted.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.chunk.saturating_add(1) == self.end && self.run != SEAL
    }
}

/// What the ledger says of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    markers: BTreeMap<u32, Marker>,
}

/// How far an object is.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Nothing is open; the next run begins here. Complete where the last range was not sealed.
    Closed { next: u32, complete: bool },
    /// A run has begun.
    Open { run: String, first: u32, end: u32, missing: Vec<u32> },
}

impl Ledger {
    /// Of these markers.
    #[must_use]
    pub fn new(markers: Vec<Marker>) -> Self {
        Self { markers: markers.into_iter().map(|marker| (marker.chunk, marker)).collect() }
    }

    /// Whether there is nothing left to do.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.state(), State::Closed { complete: true, .. })
    }

    /// Walks the ranges, one after the other.
    fn state(&self) -> State {
        let (mut next, mut complete) = (0, false);
        // A range begins with its first chunk, which is written before the others.
        while let Some(leader) = self.markers.get(&next) {
            let (first, end) = (next, leader.end.max(next + 1));
            let missing: Vec<u32> = (first..end).filter(|chunk| !self.markers.contains_key(chunk)).collect();
            if !missing.is_empty() {
                return State::Open { run: leader.run.clone(), first, end, missing };
            }
            complete = !self.is_sealed(first..end);
            next = end;
        }
        State::Closed { next, complete }
    }

    fn is_sealed(&self, range: Range<u32>) -> bool {
        self.markers.range(range).any(|(_, marker)| marker.run == SEAL)
    }

    /// What was applied before chunk `end`.
    fn applied(&self, end: u32) -> BTreeMap<(&str, &str), i64> {
        let mut applied = BTreeMap::new();
        for marker in self.markers.range(..end).map(|(_, marker)| marker) {
            for (event, hour, count) in &marker.pairs {
                *applied.entry((event.as_str(), hour.as_str())).or_default() += count;
            }
        }
        applied
    }

    /// The run that brings what was applied before `first` to `totals`.
    fn run(&self, totals: &Totals, first: u32) -> Vec<Marker> {
        let applied = self.applied(first);
        let keys: BTreeSet<(&str, &str)> =
            totals.keys().map(|(event, hour)| (event.as_str(), hour.as_str())).chain(applied.keys().copied()).collect();
        let mut pairs = Vec::new();
        let mut digest = Sha256::new();
        digest.update(first.to_be_bytes());
        // How they are cut belongs to what is cut.
        digest.update(PAIRS_PER_CHUNK.to_be_bytes());
        for (event, hour) in keys {
            let wanted = totals.get(&(event.to_owned(), hour.to_owned())).copied().unwrap_or(0);
            let missing = wanted - applied.get(&(event, hour)).copied().unwrap_or(0);
            if missing == 0 {
                continue;
            }
            // Lengths first, so that no two lists of pairs give the same bytes.
            digest.update((event.len() as u64).to_be_bytes());
            digest.update(event);
            digest.update(hour);
            digest.update(missing.to_be_bytes());
            pairs.push((event.to_owned(), hour.to_owned(), missing));
        }
        let run: String = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        // A run without pairs has one chunk too: its marker says that the object is done.
        let chunks: Vec<&[(String, String, i64)]> =
            if pairs.is_empty() { vec![&[]] } else { pairs.chunks(PAIRS_PER_CHUNK).collect() };
        let end = first.saturating_add(u32::try_from(chunks.len()).unwrap_or(u32::MAX));
        (first..end)
            .zip(chunks)
            .map(|(chunk, pairs)| Marker { chunk, run: run.clone(), first, end, pairs: pairs.to_vec() })
            .collect()
    }
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
pub async fn count(store: &impl Store, object: &Subject, totals: &Totals, ledger: Ledger) -> Result<Counted, Failed> {
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
    Err(Failed::new("too many others are counting the same object"))
}

/// Writes chunks, several at a time. Says whether all of them were written by us: then their run is complete.
async fn write(
    store: &impl Store,
    object: &Subject,
    chunks: Vec<Marker>,
    counted: &mut Counted,
) -> Result<bool, Failed> {
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
