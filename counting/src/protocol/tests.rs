//! Tests of the protocol against a store with failures, lost responses and random interleaving.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Mutex;

use fastrand::Rng;
use futures_util::future::join_all;

use super::*;

/// The two tables with the semantics of DynamoDB: a put and its additions happen together or not at all.
#[derive(Default)]
struct Memory {
    ledger: BTreeMap<u32, Marker>,
    counts: BTreeMap<(String, String), i64>,
    puts: usize,
}

/// The failure injected into a put: none, before it is applied, or after (the response is lost).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Before,
    After,
}

/// The fault of the n-th put.
type Weather<'a> = dyn Fn(usize) -> Fault + Sync + 'a;

struct Unreliable<'a> {
    memory: Mutex<Memory>,
    weather: Box<Weather<'a>>,
}

thread_local! {
    static RANDOM: RefCell<Rng> = const { RefCell::new(Rng::with_seed(1)) };
}

/// Yields a random number of times, so that other handlers run first.
async fn yield_randomly() {
    let turns = RANDOM.with(|random| random.borrow_mut().usize(0..4));
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

impl<'a> Unreliable<'a> {
    fn new(weather: impl Fn(usize) -> Fault + Sync + 'a) -> Self {
        Self { memory: Mutex::default(), weather: Box::new(weather) }
    }

    fn counts(&self) -> BTreeMap<(String, String), i64> {
        let mut counts = self.memory.lock().expect("unpoisoned").counts.clone();
        counts.retain(|_, count| *count != 0);
        counts
    }

    async fn attempt(&self, totals: &Totals) -> Result<Counted, StoreError> {
        let ledger = Ledger::new(self.markers("o").await?);
        count(self, &ObjectId { name: "o".to_owned(), uploaded_at: None, overflowed: 0 }, totals, ledger).await
    }

    /// Repeats the attempt until it succeeds, as Lambda does.
    async fn retry_until_done(&self, totals: &Totals) {
        for _ in 0..500 {
            if self.attempt(totals).await.is_ok() {
                return;
            }
        }
        panic!("no attempt succeeded");
    }
}

impl Store for Unreliable<'_> {
    async fn markers(&self, _object: &str) -> Result<Vec<Marker>, StoreError> {
        yield_randomly().await;
        Ok(self.memory.lock().expect("unpoisoned").ledger.values().cloned().collect())
    }

    async fn put(&self, _object: &ObjectId, marker: &Marker) -> Result<Put, StoreError> {
        yield_randomly().await;
        let (put, fault) = {
            let mut memory = self.memory.lock().expect("unpoisoned");
            memory.puts += 1;
            let fault = (self.weather)(memory.puts);
            if fault == Fault::Before {
                return Err(StoreError::new("failed before the write"));
            }
            if memory.ledger.contains_key(&marker.chunk) {
                (Put::Exists, fault)
            } else {
                for (event, hour, count) in &marker.pairs {
                    *memory.counts.entry((event.clone(), hour.clone())).or_default() += count;
                }
                memory.ledger.insert(marker.chunk, marker.clone());
                (Put::Written, fault)
            }
        };
        yield_randomly().await;
        if fault == Fault::After { Err(StoreError::new("the response was lost")) } else { Ok(put) }
    }
}

fn totals(pairs: usize, each: i64) -> Totals {
    (0..pairs).map(|n| ((format!("event {n}"), "2015-08-04T12:00:00Z".to_owned()), each + n as i64 % 3)).collect()
}

#[tokio::test]
async fn repeated_attempt_adds_nothing() {
    for pairs in [0, 1, 99, 100, 1000] {
        let store = Unreliable::new(|_| Fault::None);
        let totals = totals(pairs, 1);
        let first = store.attempt(&totals).await.expect("nothing fails");
        // Each pair is two additions: one to its hour and one to its day.
        assert_eq!(first.transactions, pairs.div_ceil(49).max(1));
        for _ in 0..5 {
            assert_eq!(store.attempt(&totals).await.expect("nothing fails").transactions, 0);
        }
        assert_eq!(store.counts(), totals);
    }
}

#[tokio::test]
async fn concurrent_attempts_add_once() {
    for handlers in [2, 5, 50] {
        for seed in 0..20 {
            RANDOM.with(|random| random.borrow_mut().seed(seed));
            let store = Unreliable::new(|_| Fault::None);
            let totals = totals(500, 1);
            join_all((0..handlers).map(|_| store.retry_until_done(&totals))).await;
            assert_eq!(store.counts(), totals, "seed {seed}");
        }
    }
}

#[tokio::test]
async fn attempt_failed_at_any_write_and_repeated_adds_once() {
    let totals = totals(1000, 1);
    for fault in [Fault::Before, Fault::After] {
        for at in 1..=12 {
            let store = Unreliable::new(move |put| if put >= at && put < at + 20 { fault } else { Fault::None });
            store.retry_until_done(&totals).await;
            assert_eq!(store.counts(), totals, "put {at}");
        }
    }
}

#[tokio::test]
async fn version_with_other_totals_adds_only_the_difference() {
    // The old version has other counts and an event of its own, and fails before any one of its writes.
    let (mut old, new) = (totals(700, 2), totals(650, 1));
    old.insert(("only the old one counts this".to_owned(), "2015-08-04T12:00:00Z".to_owned()), 7);
    for at in 1..=8 {
        let store = Unreliable::new(|put| if put >= at && put < at + 8 { Fault::Before } else { Fault::None });
        let done = store.attempt(&old).await.is_ok();
        store.retry_until_done(&new).await;
        // A complete object keeps its counts: no version reads it again.
        assert_eq!(store.counts(), if done { old.clone() } else { new.clone() }, "failed before write {at}");
    }
}

#[tokio::test]
async fn concurrent_versions_with_faults_end_with_the_counts_of_one() {
    for seed in 0..300 {
        RANDOM.with(|random| random.borrow_mut().seed(seed));
        let (old, new) = (totals(450, 2), totals(400, 1));
        let rate = seed % 3;
        let weather = move |put: usize| match (Rng::with_seed(seed * 7919 + put as u64).u64(0..10), rate) {
            (0, 1..) => Fault::Before,
            (1, 2) => Fault::After,
            _ => Fault::None,
        };
        let store = Unreliable::new(weather);
        let handlers = (0..6).map(|n| store.retry_until_done(if n % 2 == 0 { &old } else { &new }));
        join_all(handlers).await;
        let counts = store.counts();
        assert!(counts == old || counts == new, "seed {seed}");
        let ledger = Ledger::new(store.markers("o").await.expect("a ledger"));
        assert!(ledger.is_complete(), "seed {seed}");
        // The ledger and the counts agree.
        let applied: BTreeMap<_, _> = ledger.applied(u32::MAX).into_iter().filter(|(_, count)| *count != 0).collect();
        assert!(counts.iter().all(|((event, hour), count)| applied[&(event.as_str(), hour.as_str())] == *count));
    }
}

#[tokio::test]
async fn attempts_of_alternating_versions_terminate() {
    // Two versions alternate on one object: each attempt terminates, by success or by giving up.
    let (old, new) = (totals(300, 2), totals(300, 1));
    let store = Unreliable::new(|_| Fault::None);
    let results = join_all([store.attempt(&old), store.attempt(&new), store.attempt(&old), store.attempt(&new)]).await;
    assert!(results.iter().any(Result::is_ok));
}
