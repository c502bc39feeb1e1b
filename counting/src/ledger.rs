//! The ledger of one object: its markers, the state they describe, and the next run.
//!
//! The [protocol](crate::protocol) explains chunks, runs and seals.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::names::daily::day_of;
use crate::rollup::Totals;

/// Additions in a chunk. DynamoDB allows 100 actions in a transaction (API reference, TransactWriteItems); one of them is
/// the marker.
pub const ADDITIONS_PER_CHUNK: usize = 99;
/// The run name of a marker that seals a chunk number.
pub(crate) const SEAL: &str = "seal";

/// A marker: a chunk that was applied, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The chunk's number.
    pub chunk: u32,
    /// The run that the chunk belongs to, or [`SEAL`].
    pub run: String,
    /// The number of the run's first chunk.
    pub first: u32,
    /// The number after the run's last chunk.
    pub end: u32,
    /// The additions, sorted. Those to the daily table follow from them, see [`days`].
    pub pairs: Vec<Pair>,
}

impl Marker {
    /// Returns whether the chunk is the last of its run. An object is complete only if its last chunk is applied.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.chunk.saturating_add(1) == self.end && self.run != SEAL
    }
}

/// A pair that a chunk adds to the counts: event, hour, count.
pub type Pair = (String, String, i64);

/// Returns the additions to the daily table that belong to sorted pairs: day, event, count.
pub fn days(pairs: &[Pair]) -> impl Iterator<Item = (&str, &str, i64)> {
    by_day(pairs).filter_map(|pairs| {
        let (event, hour, _) = pairs.first()?;
        let count = pairs.iter().fold(0, |sum: i64, (_, _, count)| sum.saturating_add(*count));
        Some((day_of(hour), event.as_str(), count))
    })
}

/// Divides sorted pairs by event and day.
fn by_day(pairs: &[Pair]) -> impl Iterator<Item = &[Pair]> {
    pairs.chunk_by(|a, b| a.0 == b.0 && day_of(&a.1) == day_of(&b.1))
}

/// Cuts sorted pairs into chunks of at most [`ADDITIONS_PER_CHUNK`] additions to both tables. The hours of a day, at most
/// 24, stay together: no two chunks, which are written concurrently, then add to the same item.
fn cut(pairs: &[Pair]) -> Vec<&[Pair]> {
    let (mut chunks, mut start, mut end, mut additions) = (Vec::new(), 0, 0, 0);
    for day in by_day(pairs) {
        if additions + day.len() + 1 > ADDITIONS_PER_CHUNK {
            chunks.extend(pairs.get(start..end));
            (start, additions) = (end, 0);
        }
        additions += day.len() + 1;
        end += day.len();
    }
    chunks.extend(pairs.get(start..end));
    chunks
}

/// The markers of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    markers: BTreeMap<u32, Marker>,
}

/// The progress of an object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No range is open; the next run begins at `next`. Complete if the last range was not sealed.
    Closed { next: u32, complete: bool },
    /// A run has begun, and markers are missing.
    Open { run: String, first: u32, end: u32, missing: Vec<u32> },
}

impl Ledger {
    /// Creates the ledger from its markers.
    #[must_use]
    pub fn new(markers: Vec<Marker>) -> Self {
        Self { markers: markers.into_iter().map(|marker| (marker.chunk, marker)).collect() }
    }

    /// Returns whether the object is fully counted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.state(), State::Closed { complete: true, .. })
    }

    /// Derives the state by walking the ranges in order.
    pub(crate) fn state(&self) -> State {
        let (mut next, mut complete) = (0, false);
        // The first chunk of a range is written before the others, so its marker determines the range.
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

    pub(crate) fn is_sealed(&self, range: Range<u32>) -> bool {
        self.markers.range(range).any(|(_, marker)| marker.run == SEAL)
    }

    /// Returns the counts applied before chunk `end`.
    pub(crate) fn applied(&self, end: u32) -> BTreeMap<(&str, &str), i64> {
        let mut applied = BTreeMap::new();
        for marker in self.markers.range(..end).map(|(_, marker)| marker) {
            for (event, hour, count) in &marker.pairs {
                *applied.entry((event.as_str(), hour.as_str())).or_default() += count;
            }
        }
        applied
    }

    /// Returns the run that starts at chunk `first` and adds the difference between `totals` and the counts applied
    /// before that chunk.
    pub(crate) fn run(&self, totals: &Totals, first: u32) -> Vec<Marker> {
        let applied = self.applied(first);
        let keys: BTreeSet<(&str, &str)> =
            totals.keys().map(|(event, hour)| (event.as_str(), hour.as_str())).chain(applied.keys().copied()).collect();
        let mut pairs = Vec::new();
        let mut digest = Sha256::new();
        digest.update(first.to_be_bytes());
        // The chunk size is part of the run's identity: runs with other chunk boundaries must not share a name.
        digest.update(ADDITIONS_PER_CHUNK.to_be_bytes());
        for (event, hour) in keys {
            let wanted = totals.get(&(event.to_owned(), hour.to_owned())).copied().unwrap_or(0);
            let missing = wanted - applied.get(&(event, hour)).copied().unwrap_or(0);
            if missing == 0 {
                continue;
            }
            // The length is hashed first, so that no two lists of pairs produce the same bytes.
            digest.update((event.len() as u64).to_be_bytes());
            digest.update(event);
            digest.update(hour);
            digest.update(missing.to_be_bytes());
            pairs.push((event.to_owned(), hour.to_owned(), missing));
        }
        let run: String = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        // A run without pairs has one chunk too: its marker records that the object is counted.
        let chunks = cut(&pairs);
        let end = first.saturating_add(u32::try_from(chunks.len()).unwrap_or(u32::MAX));
        (first..end)
            .zip(chunks)
            .map(|(chunk, pairs)| Marker { chunk, run: run.clone(), first, end, pairs: pairs.to_vec() })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(event: usize, day: u32, hour: u32) -> Pair {
        (format!("event {event:03}"), format!("2015-08-{day:02}T{hour:02}:00:00Z"), 1)
    }

    #[test]
    fn chunk_has_few_enough_additions_and_divides_no_day() {
        for hours in [1, 2, 7, 23, 24] {
            let mut pairs: Vec<Pair> = Vec::new();
            for (event, day) in (0..40).flat_map(|event| (1..4).map(move |day| (event, day))) {
                pairs.extend((0..hours).map(|hour| pair(event, day, hour)));
            }
            let chunks = cut(&pairs);
            assert_eq!(chunks.concat(), pairs);
            let mut keys = BTreeSet::new();
            for chunk in chunks {
                assert!(chunk.len() + days(chunk).count() <= ADDITIONS_PER_CHUNK);
                for (day, event, count) in days(chunk) {
                    assert_eq!(count, i64::from(hours));
                    assert!(keys.insert((day.to_owned(), event.to_owned())), "{day} of {event} is divided");
                }
            }
            assert_eq!(keys.len(), 120);
        }
    }
}
