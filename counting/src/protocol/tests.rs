//! Simulations of the protocol: handlers in changing company, killed at any call, over a store that loses requests and
//! answers. Each rule of the protocol is also broken once, to show that the simulation notices it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;

use bigdecimal::BigDecimal;
use fastrand::Rng;
use futures_util::future::join_all;

use super::*;
use crate::amount::{Amount, Sum};
use crate::names::breakdowns;
use crate::names::daily::day_of;
use crate::plan::{Addition, Item, additions};

/// The rule that a store breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    /// The claims of a plan are written one by one.
    ClaimsTogether,
    /// A claim replaces an earlier one.
    ClaimOnce,
    /// A chunk is added although it has a marker.
    MarkerOnce,
    /// A content is taken back by deleting its claim.
    ClaimReplaced,
    /// A content is taken back together with the marker.
    MarkerStays,
    /// A content that is not added yet is taken back without a marker.
    MarkerPut,
}

/// The tables with the semantics of DynamoDB: a transaction happens as a whole or not at all.
#[derive(Default)]
struct Memory {
    claims: BTreeMap<(String, u32), Claim>,
    plans: BTreeMap<String, Vec<u8>>,
    markers: BTreeSet<(String, u32)>,
    counts: Totals,
    days: Totals,
    values: Totals,
    /// The pairs that a reader of the ledger's stream is told, by the item that tells it.
    told: BTreeMap<(String, u32), Vec<Pair>>,
    records: BTreeMap<String, Record>,
}

impl Memory {
    fn add(&mut self, item: (&str, u32), pairs: Vec<Pair>) {
        for Addition { item, amount } in additions(&pairs) {
            let counts = match item {
                Item::Hour { event, hour } => self.counts.entry((event, hour)),
                Item::Day { day, event } => self.days.entry((event, day)),
                Item::Value { breakdown, hour_value } => self.values.entry((breakdown, hour_value)),
            };
            *counts.or_default() += &amount;
        }
        self.told.insert((item.0.to_owned(), item.1), pairs);
    }
}

/// Returns the counts without zeros, which a recount or a test object leaves.
fn without_zeros(counts: &Totals) -> Totals {
    let counts = counts.iter().map(|(key, amount)| (key.clone(), amount.clone().without_zeros()));
    counts.filter(|(_, amount)| !amount.is_zero()).collect()
}

/// Returns the counts without their breakdowns.
fn undivided(counts: &Totals) -> Totals {
    let counts: Totals = counts.iter().map(|(key, amount)| (key.clone(), amount.undivided())).collect();
    without_zeros(&counts)
}

/// Returns the sums of each event and day.
fn by_day(counts: &Totals) -> Totals {
    let mut days = Totals::new();
    for ((event, hour), amount) in counts {
        *days.entry((event.clone(), day_of(hour).to_owned())).or_default() += &amount.undivided();
    }
    without_zeros(&days)
}

/// Returns the items of the breakdowns table.
fn by_value(counts: &Totals) -> Totals {
    let mut items = Totals::new();
    for ((event, hour), amount) in counts {
        for (path, value, amount) in amount.values() {
            let key = (breakdowns::breakdown(path, event), breakdowns::hour_value(hour, value));
            *items.entry(key).or_default() += amount;
        }
    }
    without_zeros(&items)
}

struct Tables {
    memory: Mutex<Memory>,
    broken: Broken,
    /// Of 100 calls, those that fail: half of them before and half of them after they are applied.
    faults: u64,
}

thread_local! {
    static RANDOM: RefCell<Rng> = const { RefCell::new(Rng::with_seed(1)) };
}

fn below(limit: usize) -> usize {
    RANDOM.with(|random| random.borrow_mut().usize(0..limit))
}

/// Yields a random number of times, so that other handlers run first.
async fn others() {
    for _ in 0..below(4) {
        tokio::task::yield_now().await;
    }
}

impl Tables {
    /// Applies a call, which may fail before or after, and during which other handlers run.
    async fn call<T>(&self, apply: impl FnOnce(&mut Memory) -> T + Send) -> Result<T, StoreError> {
        others().await;
        let fault = RANDOM.with(|random| random.borrow_mut().u64(0..200));
        if fault < self.faults {
            return Err(StoreError::new("not applied"));
        }
        let result = apply(&mut self.memory.lock().expect("unpoisoned"));
        others().await;
        if fault < 2 * self.faults { Err(StoreError::new("the answer was lost")) } else { Ok(result) }
    }
}

impl Ledger for Tables {
    type Error = StoreError;

    async fn claims(&self, content: &str) -> Result<Vec<Claim>, StoreError> {
        let of =
            |memory: &mut Memory| memory.claims.values().filter(|claim| claim.content == content).cloned().collect();
        self.call(of).await
    }

    async fn plan(&self, plan: &str) -> Result<Vec<u8>, StoreError> {
        self.call(|memory| memory.plans.get(plan).cloned().unwrap_or_default()).await
    }

    async fn chunks(&self, plan: &str) -> Result<BTreeSet<u32>, StoreError> {
        let of = |memory: &mut Memory| memory.markers.iter().filter(|(of, _)| of == plan).map(|(_, n)| *n).collect();
        self.call(of).await
    }
}

impl Store for Tables {
    async fn recorded(&self, object: &str) -> Result<Option<Record>, StoreError> {
        self.call(|memory| memory.records.get(object).cloned()).await
    }

    async fn put_plan(&self, plan: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.call(|memory| memory.plans.insert(plan.to_owned(), bytes.to_vec())).await.map(|_| ())
    }

    async fn claim(&self, claims: &[Claim]) -> Result<Put, StoreError> {
        let key = |claim: &Claim| (claim.content.clone(), claim.generation);
        if self.broken == Broken::ClaimsTogether {
            let mut put = Put::Exists;
            for claim in claims {
                let insert = |memory: &mut Memory| *memory.claims.entry(key(claim)).or_insert(claim.clone()) == *claim;
                put = if self.call(insert).await? { Put::Written } else { put };
            }
            return Ok(put);
        }
        self.call(|memory| {
            let exists = claims.iter().any(|claim| memory.claims.contains_key(&key(claim)));
            if exists && self.broken != Broken::ClaimOnce {
                return Put::Exists;
            }
            memory.claims.extend(claims.iter().map(|claim| (key(claim), claim.clone())));
            Put::Written
        })
        .await
    }

    async fn add(&self, plan: &str, chunk: u32, pairs: &[Pair]) -> Result<Put, StoreError> {
        self.call(|memory| {
            let is_new = memory.markers.insert((plan.to_owned(), chunk));
            if !is_new && self.broken != Broken::MarkerOnce {
                return Put::Exists;
            }
            memory.add((plan, chunk), pairs.to_vec());
            Put::Written
        })
        .await
    }

    async fn record(&self, record: &Record) -> Result<(), StoreError> {
        self.call(|memory| memory.records.insert(record.object.clone(), record.clone())).await.map(|_| ())
    }
}

impl Undo for Tables {
    async fn replace(&self, claim: &Claim, is_added: bool, pairs: &[Pair]) -> Result<Put, StoreError> {
        self.call(|memory| {
            let key = (claim.content.clone(), claim.generation);
            let marker = (claim.plan.clone(), 0);
            if memory.claims.get(&key) != Some(claim) || !is_added && memory.markers.contains(&marker) {
                return Put::Exists;
            }
            memory.claims.remove(&key);
            if self.broken != Broken::ClaimReplaced {
                memory.claims.insert(key, Claim { plan: String::new(), chunks: 0, ..claim.clone() });
            }
            if is_added {
                memory.add((&claim.content, claim.generation), plan::negated(pairs));
            } else if self.broken != Broken::MarkerPut {
                memory.markers.insert(marker.clone());
            }
            if self.broken == Broken::MarkerStays {
                memory.markers.remove(&marker);
            }
            Put::Written
        })
        .await
    }

    async fn claim_nothing(&self, content: &str, object: &str) -> Result<Put, StoreError> {
        let claim = Claim {
            content: content.to_owned(),
            generation: 0,
            plan: String::new(),
            chunks: 0,
            object: object.to_owned(),
            has_expired: false,
        };
        Store::claim(self, &[claim]).await
    }
}

/// Polls a future until it is ready or the handler is killed.
async fn killed_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        match polled {
            Poll::Ready(result) => return Some(result),
            Poll::Pending => tokio::task::yield_now().await,
        }
    }
    None
}

fn pair(event: usize, hour: usize) -> (String, String) {
    (format!("event {event:03}"), format!("2015-08-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24))
}

/// An amount, of which some have a sum, and some are divided by a field's values.
fn amount(count: i64) -> Amount {
    let sum = Sum { values: count, sum: BigDecimal::from(count) / 100 };
    let has_sum = below(3) == 0;
    let sums = has_sum.then(|| (format!("field {}", below(2)), sum)).into_iter().collect();
    let undivided = Amount { count, sums, ..Amount::default() };
    let mut amount = undivided.clone();
    for _ in 0..below(4).saturating_sub(1) {
        *amount.value_mut("plan", &format!("value {}", below(3))) += &undivided;
    }
    amount
}

/// A content, as two versions of the parser count it.
fn versions(shared: usize) -> [Totals; 2] {
    let pairs = [1, 3, 40, 120][below(4)];
    let old: Totals = (0..pairs).map(|n| (pair(below(shared), n % 50), amount(1 + n as i64 % 3))).collect();
    let mut new = old.clone();
    new.extend((0..below(9)).map(|n| (pair(below(shared), n), amount(5))));
    new.retain(|_, _| below(9) > 0);
    [old, new]
}

fn object(name: usize, content: usize, totals: &Totals) -> Object {
    let record = Record { object: format!("o{name}"), content: format!("c{content}"), ..Record::default() };
    Object { totals: totals.clone(), by: vec!["plan".to_owned()], record }
}

const FAILS: &str = "a call that failed before and after";
/// The object of `verify`, with a content of its own, which is taken back.
const TEST: (&str, &str) = ("test", "content of test");

/// One handler's work: attempts in changing company, most of them killed or failed.
async fn work(store: &Tables, contents: &[[Totals; 2]], objects: &[usize], test: &Totals, recounts: bool) {
    for _ in 0..=below(4) {
        let version = below(2);
        let mut company: Vec<Object> = (0..objects.len())
            .filter(|_| below(2) == 0)
            .map(|name| object(name, objects[name], &contents[objects[name]][version]))
            .collect();
        RANDOM.with(|random| random.borrow_mut().shuffle(&mut company));
        let polls = below(120);
        match below(8) {
            0 => drop(killed_after(polls, take_back(store, TEST.1, TEST.0)).await),
            1 | 2 => {
                let record = Record { object: TEST.0.to_owned(), content: TEST.1.to_owned(), ..Record::default() };
                let alone = [Object { totals: test.clone(), by: Vec::new(), record }];
                drop(killed_after(polls, count(store, &alone, false)).await);
            }
            kind => drop(killed_after(polls, count(store, &company, recounts && kind == 3)).await),
        }
    }
}

/// Runs handlers at random and then until everything is counted. Returns the difference from the right counts.
async fn simulate(seed: u64, broken: Broken) -> Result<(), String> {
    RANDOM.with(|random| random.borrow_mut().seed(seed));
    let (shared, faults) = (1 + below(30), [0, 2, 10][below(3)]);
    let store = Tables { memory: Mutex::default(), broken, faults };
    let contents: Vec<[Totals; 2]> = (0..=below(5)).map(|_| versions(shared)).collect();
    // Some contents are in several objects.
    let objects: Vec<usize> = (0..contents.len() + below(3)).map(|name| name % contents.len()).collect();
    let test: Totals = [(pair(0, 0), 1.into())].into();
    let recounts = below(2) == 0;
    join_all((0..=below(4)).map(|_| work(&store, &contents, &objects, &test, recounts))).await;

    // A recorded object is counted, whatever was killed since.
    {
        let memory = store.memory.lock().expect("unpoisoned");
        for record in memory.records.values() {
            let claim = memory.claims.get(&(record.content.clone(), 0));
            let Some(claim) = claim.filter(|claim| !claim.plan.is_empty()) else { continue };
            if !(0..claim.chunks).all(|chunk| memory.markers.contains(&(claim.plan.clone(), chunk))) {
                return Err(format!("{} is recorded and not counted", record.object));
            }
        }
    }
    // In the end, every object is told until it is counted, and with `recounts`, counted again by the new version.
    let all: Vec<Object> = (0..objects.len()).map(|n| object(n, objects[n], &contents[objects[n]][1])).collect();
    let mut is_done = false;
    for _ in 0..200 {
        is_done = count(&store, &all, recounts).await.is_ok() && take_back(&store, TEST.1, TEST.0).await.is_ok();
        if is_done {
            break;
        }
    }
    if !is_done {
        return Err(FAILS.to_owned());
    }
    let memory = store.memory.lock().expect("unpoisoned");
    let mut expected = Totals::new();
    for (content, [old, new]) in contents.iter().enumerate() {
        // Without a recount, the first claim decides which version's totals count.
        let claim = memory.claims.get(&(format!("c{content}"), 0));
        let plan = claim.and_then(|claim| Plan::decode(&claim.plan, memory.plans.get(&claim.plan)?).ok());
        let share = plan.and_then(|plan| plan.shares.into_iter().find(|share| share.content == format!("c{content}")));
        let added: Totals =
            share.map(|share| share.pairs.into_iter().map(|(e, h, n)| ((e, h), n)).collect()).unwrap_or_default();
        let totals = if recounts || added == *new { new } else { old };
        if !recounts && added != *totals {
            return Err(format!("c{content} is claimed with the totals of no version"));
        }
        for (pair, amount) in totals {
            *expected.entry(pair.clone()).or_default() += amount;
        }
    }
    let counts = without_zeros(&memory.counts);
    if counts != undivided(&expected) {
        return Err(format!("counts are {counts:?}, and not {expected:?}"));
    }
    let values = without_zeros(&memory.values);
    if values != by_value(&expected) {
        return Err(format!("values are {values:?}, and not those of {expected:?}"));
    }
    let mut told = Totals::new();
    for (event, hour, amount) in memory.told.values().flatten() {
        *told.entry((event.clone(), hour.clone())).or_default() += amount;
    }
    if without_zeros(&told) != without_zeros(&expected) {
        return Err(format!("readers of the stream are told {told:?}, and not {expected:?}"));
    }
    let days = without_zeros(&memory.days);
    if days != by_day(&expected) {
        return Err(format!("days are {days:?}, and not those of {expected:?}"));
    }
    if memory.records.len() < objects.len() {
        return Err("an object is not recorded".to_owned());
    }
    Ok(())
}

/// The number of random runs: a few in the usual tests, and as many as the variable says.
fn runs() -> u64 {
    std::env::var("SIMULATIONS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(2_000)
}

#[tokio::test]
async fn counts_are_exact_after_kills_faults_duplicates_recounts_and_other_versions_in_any_company() {
    for seed in 0..runs() {
        if let Err(wrong) = simulate(seed, Broken::Nothing).await {
            panic!("seed {seed}: {wrong}");
        }
    }
}

#[tokio::test]
async fn simulation_notices_each_broken_rule() {
    for broken in [
        Broken::ClaimsTogether,
        Broken::ClaimOnce,
        Broken::MarkerOnce,
        Broken::ClaimReplaced,
        Broken::MarkerStays,
        Broken::MarkerPut,
    ] {
        let mut noticed = false;
        for seed in 0..5_000 {
            noticed = simulate(seed, broken).await.is_err();
            if noticed {
                break;
            }
        }
        assert!(noticed, "{broken:?} is broken and nothing is wrong");
    }
}

fn still(faults: u64) -> Tables {
    Tables { memory: Mutex::default(), broken: Broken::Nothing, faults }
}

fn totals(pairs: usize) -> Totals {
    (0..pairs).map(|n| (pair(n, 0), 1.into())).collect()
}

#[tokio::test]
async fn repeated_attempt_adds_nothing() {
    for pairs in [0, 1, 49, 50, 1000] {
        let store = still(0);
        let objects = [object(0, 0, &totals(pairs))];
        let first = count(&store, &objects, false).await.expect("nothing fails");
        // A claim, and chunks of 49 pairs, each of which is added to its hour and to its day.
        assert_eq!(first.transactions, 1 + pairs.div_ceil(49));
        for recounts in [false, true] {
            assert_eq!(count(&store, &objects, recounts).await.expect("nothing fails"), Counted::default());
        }
        assert_eq!(store.memory.lock().expect("unpoisoned").counts, totals(pairs));
    }
}

#[tokio::test]
async fn group_adds_shared_pairs_once() {
    let store = still(0);
    let objects: Vec<Object> = (0..MOST_OBJECTS).map(|name| object(name, name, &totals(60))).collect();
    let counted = count(&store, &objects, false).await.expect("nothing fails");
    assert_eq!(counted, Counted { transactions: 3, ..Counted::default() });
    let memory = store.memory.lock().expect("unpoisoned");
    assert!(memory.counts.values().all(|amount| *amount == 100.into()));
}

#[tokio::test]
async fn same_content_counts_once_and_its_record_names_the_counted_object() {
    let store = still(0);
    let objects: Vec<Object> = (0..3).map(|name| object(name, 0, &totals(7))).collect();
    for group in [&objects[..2], &objects[2..], &objects[1..]] {
        count(&store, group, false).await.expect("nothing fails");
    }
    let memory = store.memory.lock().expect("unpoisoned");
    assert_eq!(memory.counts, totals(7));
    let duplicates: Vec<Option<&str>> = memory.records.values().map(|record| record.duplicate_of.as_deref()).collect();
    assert_eq!(duplicates, [None, Some("o0"), Some("o0")]);
}

#[tokio::test]
async fn claim_without_its_plan_is_an_error_unless_it_has_expired() {
    for has_expired in [false, true] {
        let store = still(0);
        let objects = [object(0, 0, &totals(7))];
        count(&store, &objects, false).await.expect("nothing fails");
        {
            let mut memory = store.memory.lock().expect("unpoisoned");
            memory.plans.clear();
            memory.markers.clear();
            memory.claims.values_mut().for_each(|claim| claim.has_expired = has_expired);
        }
        let result = count(&store, &objects, false).await;
        assert_eq!(result.is_ok(), has_expired, "{result:?}");
        assert_eq!(store.memory.lock().expect("unpoisoned").counts, totals(7));
    }
}

#[tokio::test]
async fn recount_leaves_the_breakdowns_of_other_fields() {
    let store = still(0);
    let mut divided = totals(3);
    for amount in divided.values_mut() {
        *amount.value_mut("plan", "pro") = 1.into();
    }
    count(&store, &[object(0, 0, &divided)], false).await.expect("nothing fails");
    let undivided = Object { by: Vec::new(), ..object(0, 0, &totals(2)) };
    for _ in 0..2 {
        count(&store, std::slice::from_ref(&undivided), true).await.expect("nothing fails");
        let memory = store.memory.lock().expect("unpoisoned");
        assert_eq!((without_zeros(&memory.counts), &memory.values), (totals(2), &by_value(&divided)));
    }
    // Declared again, they are exact again.
    divided.pop_last();
    count(&store, &[object(0, 0, &divided)], true).await.expect("nothing fails");
    assert_eq!(without_zeros(&store.memory.lock().expect("unpoisoned").values), by_value(&divided));
}

#[tokio::test]
async fn recount_fails_if_an_earlier_claim_is_missing() {
    let store = still(0);
    for pairs in [7, 8] {
        count(&store, &[object(0, 0, &totals(pairs))], true).await.expect("nothing fails");
    }
    {
        let mut memory = store.memory.lock().expect("unpoisoned");
        memory.claims.retain(|_, claim| claim.generation > 0);
    }
    let objects = [object(0, 0, &totals(9))];
    let error = count(&store, &objects, true).await.expect_err("the first share is unknown").to_string();
    assert!(error.contains("the ledger is broken") && error.contains("claim 0 does not exist"), "{error}");
    // It is counted nonetheless, and its record says so.
    assert_eq!(count(&store, &objects, false).await, Ok(Counted::default()));
}

#[tokio::test]
async fn content_without_pairs_is_claimed_so_that_no_other_version_adds_to_a_recorded_object() {
    let store = still(0);
    count(&store, &[object(0, 0, &totals(0))], false).await.expect("nothing fails");
    count(&store, &[object(0, 0, &totals(7))], false).await.expect("nothing fails");
    let memory = store.memory.lock().expect("unpoisoned");
    assert!(memory.counts.is_empty(), "two versions have counted one content");
    assert!(memory.claims.values().all(|claim| !claim.plan.is_empty()) && memory.claims.len() == 1);
}
