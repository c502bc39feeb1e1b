//! A burst of objects with the same pairs, over a store whose transactions conflict as DynamoDB's do: two that meet on an
//! item both fail. Time is the number of turns of the scheduler.

use std::cell::RefCell;
use std::sync::Mutex;

use fastrand::Rng;
use futures_util::future::join_all;

use super::*;
use crate::plan::{Addition, Item, additions};

/// The turns that a transaction takes, about one for each millisecond.
const TURNS: usize = 15;
/// The first pause before a cancelled transaction is repeated, and the longest.
const PAUSE: usize = 20;
const LONGEST: usize = 2_000;
/// The attempts at a transaction.
const ATTEMPTS: usize = 25;

/// The write units of commit 1f68cd5 for an object of 60 pairs: 2 for each count in its transaction, 1 for its entry in
/// the index by hour, 8 for the marker of 4 KB, and 1 for the marker's entry in its index.
const BEFORE: usize = 60 * 3 + 8 + 1;

#[derive(Default)]
struct Memory {
    claims: BTreeMap<(String, u32), Claim>,
    plans: BTreeMap<String, Vec<u8>>,
    markers: BTreeSet<(String, u32)>,
    counts: Totals,
    records: BTreeMap<String, Record>,
    /// The items of the transactions that are running, each with the transaction's number.
    held: BTreeMap<String, usize>,
    /// The running transactions that met another.
    lost: BTreeSet<usize>,
    next: usize,
    units: usize,
    conflicts: usize,
}

#[derive(Default)]
struct Conflicting {
    memory: Mutex<Memory>,
}

thread_local! {
    static RANDOM: RefCell<Rng> = const { RefCell::new(Rng::with_seed(1)) };
}

async fn wait(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

impl Conflicting {
    fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        work(&mut self.memory.lock().expect("unpoisoned"))
    }

    /// Runs a transaction on items until it meets no other.
    async fn transact(
        &self,
        items: &[String],
        apply: impl Fn(&mut Memory) -> Put + Send + Sync,
    ) -> Result<Put, StoreError> {
        let mut ceiling = PAUSE;
        for _ in 0..ATTEMPTS {
            let number = self.with(|memory| {
                memory.next += 1;
                let number = memory.next;
                for item in items {
                    if let Some(other) = memory.held.insert(item.clone(), number) {
                        memory.lost.extend([other, number]);
                    }
                }
                number
            });
            wait(TURNS).await;
            let done = self.with(|memory| {
                memory.held.retain(|_, holder| *holder != number);
                if memory.lost.remove(&number) {
                    memory.conflicts += 1;
                    return None;
                }
                Some(apply(memory))
            });
            if let Some(put) = done {
                return Ok(put);
            }
            wait(RANDOM.with(|random| random.borrow_mut().usize(0..ceiling))).await;
            ceiling = (ceiling * 2).min(LONGEST);
        }
        Err(StoreError::new("TransactionConflict"))
    }
}

impl Ledger for Conflicting {
    type Error = StoreError;

    async fn claims(&self, content: &str) -> Result<Vec<Claim>, StoreError> {
        Ok(self.with(|memory| memory.claims.values().filter(|claim| claim.content == content).cloned().collect()))
    }

    async fn plan(&self, plan: &str) -> Result<Vec<u8>, StoreError> {
        Ok(self.with(|memory| memory.plans.get(plan).cloned().unwrap_or_default()))
    }

    async fn chunks(&self, plan: &str) -> Result<BTreeSet<u32>, StoreError> {
        Ok(self.with(|memory| memory.markers.iter().filter(|(of, _)| of == plan).map(|(_, n)| *n).collect()))
    }
}

impl Store for Conflicting {
    async fn recorded(&self, object: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.with(|memory| memory.records.get(object).cloned()))
    }

    async fn put_plan(&self, plan: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.with(|memory| {
            memory.units += bytes.len().div_ceil(1024);
            memory.plans.insert(plan.to_owned(), bytes.to_vec());
        });
        Ok(())
    }

    async fn claim(&self, claims: &[Claim]) -> Result<Put, StoreError> {
        let items: Vec<String> = claims.iter().map(|claim| claim.content.clone()).collect();
        self.transact(&items, |memory| {
            let key = |claim: &Claim| (claim.content.clone(), claim.generation);
            if claims.iter().any(|claim| memory.claims.contains_key(&key(claim))) {
                return Put::Exists;
            }
            memory.units += 2 * claims.len();
            memory.claims.extend(claims.iter().map(|claim| (key(claim), claim.clone())));
            Put::Written
        })
        .await
    }

    async fn add(&self, plan: &str, chunk: u32, pairs: &[Pair]) -> Result<Put, StoreError> {
        let additions = additions(pairs);
        let mut items: Vec<String> = additions.iter().map(|addition| format!("{:?}", addition.item)).collect();
        items.push(format!("{plan} {chunk}"));
        self.transact(&items, |memory| {
            if !memory.markers.insert((plan.to_owned(), chunk)) {
                return Put::Exists;
            }
            // Each addition and the marker, in a transaction, and the index by hour.
            memory.units += 2 * items.len();
            for Addition { item, amount } in &additions {
                if let Item::Hour { event, hour } = item {
                    memory.units += 1;
                    *memory.counts.entry((event.clone(), hour.clone())).or_default() += amount;
                }
            }
            Put::Written
        })
        .await
    }

    async fn record(&self, record: &Record) -> Result<(), StoreError> {
        self.with(|memory| {
            memory.units += 2;
            memory.records.insert(record.object.clone(), record.clone());
        });
        Ok(())
    }
}

fn objects() -> Vec<Object> {
    let totals: Totals =
        (0..60).map(|n| ((format!("event {n}"), format!("2015-08-04T{:02}:00:00Z", n % 3)), 1.into())).collect();
    let record = |n: usize| Record { object: format!("o{n}"), content: format!("c{n}"), ..Record::default() };
    (0..200).map(|n| Object { totals: totals.clone(), by: Vec::new(), record: record(n) }).collect()
}

#[tokio::test]
async fn burst_of_shared_pairs_is_exact_without_failures_at_a_quarter_of_the_write_units() {
    for (workers, batch) in [(8, 100), (8, 25), (4, 50), (8, 10)] {
        let store = Conflicting::default();
        let queue: Mutex<Vec<Vec<Object>>> = Mutex::new(objects().chunks(batch).map(<[Object]>::to_vec).collect());
        let work = async || {
            loop {
                let Some(batch) = queue.lock().expect("unpoisoned").pop() else { return };
                count(&store, &batch, false).await.expect("nothing fails");
            }
        };
        join_all((0..workers).map(|_| work())).await;
        let memory = store.memory.lock().expect("unpoisoned");
        assert_eq!(memory.counts.len(), 60);
        assert!(memory.counts.values().all(|amount| *amount == 200.into()), "batches of {batch}");
        let each = memory.units / 200;
        assert!(4 * each <= BEFORE, "{each} write units per object in batches of {batch}");
    }
}
