//! The counting protocol: it adds the totals of each content exactly once, for any number of concurrent handlers and
//! attempts, even if they are killed at any point.
//!
//! The totals of one or several contents are written as a [`Plan`], which never changes. One transaction *claims* all of
//! its contents for the plan, each on the condition that nobody has claimed it. A plan without claims adds nothing. The
//! plan is cut into *chunks*; a chunk is one transaction too: a *marker*, put on the condition that there is none, and
//! the additions to the counts. A chunk is therefore added together with its marker or not at all, and never twice.
//!
//! ```text
//! content a ─┐                       ┌─ chunk 0: marker + additions
//! content b ─┼─ claims ─→ plan (bytes) ─ chunk 1: marker + additions
//! content c ─┘                       └─ ...
//! ```
//!
//! The rules, each of which a test shows to be needed:
//!
//! - A handler that meets a claim finishes its plan from the plan's bytes, and never from its own totals. Handlers with
//!   other versions of the parser therefore add the same: the totals of the first one that claims.
//! - All contents of a plan are claimed together or none. Otherwise two plans could add the same content.
//! - An object is recorded as counted after its content is claimed and the plans are finished, also if there is nothing to
//!   add. Otherwise another version of the parser could claim the content of a recorded object, which nobody finishes.
//! - A content is taken back by replacing its claim, never by deleting it: a late handler meets the replacement.
//!
//! Counting again with another parser is a further *generation* of claims: it adds the difference between today's totals
//! and the shares that the earlier generations have added for this content.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::plan::{self, Pair, Plan, Share};
use crate::record::Record;
use crate::rollup::Totals;

/// The number of chunks of one plan that are written concurrently, and of other calls.
const AT_ONCE: usize = 8;
/// Rounds of reading the claims and claiming before the attempt fails and is repeated later. Each further round means
/// that another handler has claimed one of the same contents, so more than a few indicate a fault.
const ROUNDS: usize = 20;
/// The most objects that are counted together. DynamoDB allows 100 actions in a transaction (API reference,
/// TransactWriteItems), and each content has one claim.
pub const MOST_OBJECTS: usize = 100;

/// An object to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The totals of its content.
    pub totals: Totals,
    /// The paths of the fields by whose values the totals are divided. A recount leaves other breakdowns as they are.
    pub by: Vec<String>,
    /// Its record. [`count`] adds the plan and the object that it duplicates.
    pub record: Record,
}

/// The claim of a content for a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The content's name, see [`crate::names::ledger::content`].
    pub content: String,
    /// 0, and one more for each recount.
    pub generation: u32,
    /// The plan's name; empty if the content was taken back.
    pub plan: String,
    /// The number of the plan's chunks.
    pub chunks: u32,
    /// The object that was read, by its name in the ledger.
    pub object: String,
    /// Whether the claim may expire at any moment. The plan was finished long ago, and its markers may expire next.
    pub has_expired: bool,
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

/// The outcome of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Everything was written.
    Written,
    /// A condition was not met; nothing was written.
    Exists,
}

/// The ledger, as far as the protocol reads it.
pub trait Ledger: Sync {
    /// The error of a failed call.
    type Error: From<StoreError> + Send;

    /// Reads all claims of a content, in the order of their generations.
    fn claims(&self, content: &str) -> impl Future<Output = Result<Vec<Claim>, Self::Error>> + Send;

    /// Reads the bytes of a plan; empty if there are none.
    fn plan(&self, plan: &str) -> impl Future<Output = Result<Vec<u8>, Self::Error>> + Send;

    /// Reads the numbers of the chunks of a plan that have a marker.
    fn chunks(&self, plan: &str) -> impl Future<Output = Result<BTreeSet<u32>, Self::Error>> + Send;
}

/// The tables, as [`count`] writes them.
pub trait Store: Ledger<Error = StoreError> {
    /// Reads the record of an object, if it is counted.
    fn recorded(&self, object: &str) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// Writes the bytes of a plan. Writing them again changes nothing.
    fn put_plan(&self, plan: &str, bytes: &[u8]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes all claims in one transaction, unless one of them exists.
    fn claim(&self, claims: &[Claim]) -> impl Future<Output = Result<Put, StoreError>> + Send;

    /// Writes the marker of a chunk and makes the [`additions`](plan::additions) of its pairs in one transaction, unless the
    /// marker exists.
    fn add(&self, plan: &str, chunk: u32, pairs: &[Pair]) -> impl Future<Output = Result<Put, StoreError>> + Send;

    /// Records an object as counted.
    fn record(&self, record: &Record) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The tables, as [`take_back`] writes them.
pub trait Undo: Ledger {
    /// Writes an empty claim in place of `claim`, in one transaction, if that one is still there. If `is_added`, the
    /// transaction subtracts the pairs; otherwise it puts the marker of chunk 0 on the condition that there is none.
    fn replace(
        &self,
        claim: &Claim,
        is_added: bool,
        pairs: &[Pair],
    ) -> impl Future<Output = Result<Put, Self::Error>> + Send;

    /// Writes an empty first claim, unless there is one.
    fn claim_nothing(&self, content: &str, object: &str) -> impl Future<Output = Result<Put, Self::Error>> + Send;
}

/// The statistics of one call of [`count`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Transactions written.
    pub transactions: usize,
    /// Objects whose content was counted with another object, in this call or earlier, each with that object.
    pub duplicates: BTreeMap<String, String>,
}

/// Returns the error of a ledger in which a claim lacks its plan.
fn broken(claim: &Claim, why: impl fmt::Display) -> StoreError {
    let Claim { content, generation, plan, .. } = claim;
    StoreError::new(format!("the ledger is broken: claim {generation} of {content} is for plan {plan}, and {why}"))
}

async fn read_plan<L: Ledger>(ledger: &L, claim: &Claim) -> Result<Plan, L::Error> {
    let bytes = ledger.plan(&claim.plan).await?;
    if bytes.is_empty() {
        return Err(broken(claim, "it does not exist").into());
    }
    Ok(Plan::decode(&claim.plan, &bytes).map_err(|error| broken(claim, error))?)
}

/// Counts objects, at most [`MOST_OBJECTS`], and records them. An object whose content is counted adds nothing; but with
/// `recounts`, the difference from its totals. Idempotent.
///
/// # Errors
/// An error of the store. Whatever was written stays, and the next attempt continues after it, in any company.
pub async fn count(store: &impl Store, objects: &[Object], recounts: bool) -> Result<Counted, StoreError> {
    let mut counted = Counted::default();
    let contents: BTreeMap<&str, &Object> =
        objects.iter().rev().map(|object| (object.record.content.as_str(), object)).collect();
    for _ in 0..ROUNDS {
        let claims: Vec<Vec<Claim>> =
            stream::iter(contents.keys()).map(|content| store.claims(content)).buffered(AT_ONCE).try_collect().await?;
        let mut finished = BTreeSet::new();
        for claim in claims.iter().flatten() {
            if !(claim.plan.is_empty() || claim.has_expired) && finished.insert(&claim.plan) {
                finish(store, claim, &mut counted).await?;
            }
        }
        let mut shares = Vec::new();
        for (object, claims) in contents.values().zip(&claims) {
            if claims.is_empty() || recounts && !is_taken_back(claims) {
                let share = share(store, object, claims).await?;
                // A content without pairs is claimed too: another version may find some.
                shares.extend(Some(share).filter(|share| claims.is_empty() || !share.pairs.is_empty()));
            }
        }
        let new = match shares.is_empty() {
            true => Vec::new(),
            false => match claim(store, shares, &contents, &mut counted).await? {
                Some(new) => new,
                // Another handler has claimed one of them.
                None => continue,
            },
        };
        let claims = claims.into_iter().flatten().chain(new);
        record(store, objects, claims, &mut counted).await?;
        return Ok(counted);
    }
    Err(StoreError::new("too many other handlers are counting the same objects"))
}

fn is_taken_back(claims: &[Claim]) -> bool {
    claims.iter().any(|claim| claim.plan.is_empty())
}

/// Returns what is still to be added for an object's content.
async fn share(store: &impl Store, object: &Object, claims: &[Claim]) -> Result<Share, StoreError> {
    let mut before = Vec::new();
    for (generation, claim) in (0..).zip(claims) {
        if claim.generation != generation {
            return Err(broken(claim, format_args!("claim {generation} does not exist")));
        }
        let plan = read_plan(store, claim).await?;
        let own = |share: &Share| share.content == claim.content && share.generation == claim.generation;
        let share = plan.shares.into_iter().find(own);
        before.extend(share.ok_or_else(|| broken(claim, "the plan has no share of it"))?.pairs);
    }
    let generation = claims.last().map_or(0, |claim| claim.generation.saturating_add(1));
    for (_, _, amount) in &mut before {
        amount.by.retain(|path, _| object.by.contains(path));
    }
    Ok(Share::new(object.record.content.clone(), generation, &object.totals, &before))
}

/// Writes the plan of these shares, claims their contents, and adds the chunks. Returns the claims, or `None` if another
/// handler has claimed one of the contents.
async fn claim(
    store: &impl Store,
    shares: Vec<Share>,
    contents: &BTreeMap<&str, &Object>,
    counted: &mut Counted,
) -> Result<Option<Vec<Claim>>, StoreError> {
    let plan = Plan::new(shares);
    let bytes = plan.encode().map_err(|error| StoreError::new(format!("failed to write a plan: {error}")))?;
    let name = plan::name(&bytes);
    let chunks = plan.chunks();
    let claim = |share: &Share| Claim {
        content: share.content.clone(),
        generation: share.generation,
        plan: name.clone(),
        chunks: u32::try_from(chunks.len()).unwrap_or(u32::MAX),
        object: contents.get(share.content.as_str()).map(|object| object.record.object.clone()).unwrap_or_default(),
        has_expired: false,
    };
    let claims: Vec<Claim> = plan.shares.iter().map(claim).collect();
    store.put_plan(&name, &bytes).await?;
    if store.claim(&claims).await? == Put::Exists {
        return Ok(None);
    }
    counted.transactions += 1;
    add(store, &name, &chunks, &BTreeSet::new(), counted).await?;
    Ok(Some(claims))
}

/// Adds the chunks of a claimed plan that are missing.
async fn finish(store: &impl Store, claim: &Claim, counted: &mut Counted) -> Result<(), StoreError> {
    let present = store.chunks(&claim.plan).await?;
    if (0..claim.chunks).all(|chunk| present.contains(&chunk)) {
        return Ok(());
    }
    let plan = read_plan(store, claim).await?;
    add(store, &claim.plan, &plan.chunks(), &present, counted).await
}

/// Adds chunks that have no marker concurrently.
async fn add(
    store: &impl Store,
    plan: &str,
    chunks: &[Vec<Pair>],
    present: &BTreeSet<u32>,
    counted: &mut Counted,
) -> Result<(), StoreError> {
    let missing = (0..).zip(chunks).filter(|(chunk, _)| !present.contains(chunk));
    let mut failed = None;
    let mut results =
        stream::iter(missing).map(|(chunk, pairs)| store.add(plan, chunk, pairs)).buffer_unordered(AT_ONCE);
    while let Some(result) = results.next().await {
        match result {
            Ok(Put::Written) => counted.transactions += 1,
            Ok(Put::Exists) => {}
            // The other chunks still finish: each is added with its own marker or not at all.
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Records the objects, whose contents have these claims.
async fn record(
    store: &impl Store,
    objects: &[Object],
    claims: impl Iterator<Item = Claim>,
    counted: &mut Counted,
) -> Result<(), StoreError> {
    // The first claim names the object whose content was added; the last one names the latest plan.
    let mut of_content: BTreeMap<String, (String, String)> = BTreeMap::new();
    for claim in claims {
        of_content.entry(claim.content).or_insert((claim.object, String::new())).1 = claim.plan;
    }
    let recorded = objects.iter().map(|object| {
        let mut record = object.record.clone();
        if let Some((first, plan)) = of_content.get(&record.content) {
            record.plan = Some(plan.clone()).filter(|plan| !plan.is_empty());
            record.duplicate_of = (*first != record.object).then(|| first.clone());
        }
        record
    });
    let records: Vec<Record> = recorded.collect();
    let duplicate = |record: &Record| Some((record.object.clone(), record.duplicate_of.clone()?));
    counted.duplicates = records.iter().filter_map(duplicate).collect();
    stream::iter(&records).map(|record| store.record(record)).buffer_unordered(AT_ONCE).try_collect().await
}

/// Takes back what was counted of a test object, whose content no other object has, so that no handler counts it later
/// either. Idempotent.
///
/// # Errors
/// An error of the store; an object whose plan has several shares or chunks is no test object.
pub async fn take_back<U: Undo>(store: &U, content: &str, object: &str) -> Result<(), U::Error> {
    for _ in 0..ROUNDS {
        let claims = store.claims(content).await?;
        let done = match claims.last() {
            None => store.claim_nothing(content, object).await?,
            Some(claim) if claim.plan.is_empty() => return Ok(()),
            Some(claim) => {
                let chunks = store.chunks(&claim.plan).await?;
                let plan = read_plan(store, claim).await?;
                match (claims.as_slice(), plan.shares.as_slice(), claim.chunks) {
                    ([_], [share], 1) => store.replace(claim, chunks.contains(&0), &share.pairs).await?,
                    _ => return Err(broken(claim, "that is not the plan of a test object").into()),
                }
            }
        };
        if done == Put::Written {
            return Ok(());
        }
    }
    Err(StoreError::new("too many other handlers are counting the same object").into())
}

#[cfg(test)]
mod burst;
#[cfg(test)]
mod tests;
