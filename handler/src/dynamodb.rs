//! The store of the counting protocol over DynamoDB.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, Put as PutItem, TransactWriteItem, Update};
use counting::names::ledger;
use counting::plan::{Added, Addition, Item, Pair, additions};
use counting::protocol::{Claim, Ledger, Put, Store, StoreError};
use counting::record::{ClaimItem, Record, RecordItem};
use serde::Serialize;

use crate::error::sdk_error;
use crate::settings::Settings;

/// The pipeline's tables in DynamoDB.
#[derive(Debug, Clone)]
pub struct Tables {
    client: aws_sdk_dynamodb::Client,
    counts: String,
    daily: String,
    ledger: String,
    breakdowns: Option<String>,
    /// True if markers say what was added.
    is_outbox: bool,
    ttl_seconds: Option<u64>,
}

/// The attributes of an item.
type Attributes = HashMap<String, AttributeValue>;

fn attributes(item: impl Serialize) -> Result<Attributes, StoreError> {
    serde_dynamo::to_item(item).map_err(|error| StoreError::new(error.to_string()))
}

fn build_error(error: impl fmt::Display) -> StoreError {
    StoreError::new(error.to_string())
}

impl Tables {
    /// Creates a store that uses this client and the tables of the settings.
    #[must_use]
    pub fn new(client: aws_sdk_dynamodb::Client, settings: &Settings) -> Self {
        Self {
            client,
            counts: settings.counts_table.clone(),
            daily: settings.daily_table.clone(),
            ledger: settings.ledger_table.clone(),
            breakdowns: settings.breakdowns_table.clone(),
            is_outbox: settings.is_outbox,
            ttl_seconds: settings.ledger_ttl_days.map(|days| u64::from(days) * DAY_SECONDS),
        }
    }

    /// Returns the request for the items of this name in the ledger.
    fn query(&self, name: &str) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.ledger)
            .consistent_read(true)
            .key_condition_expression("#object = :object")
            .expression_attribute_names("#object", ledger::OBJECT)
            .expression_attribute_values(":object", text(name))
    }

    async fn items(&self, query: QueryFluentBuilder) -> Result<Vec<Attributes>, StoreError> {
        let items: Result<Vec<_>, _> = query.into_paginator().items().send().collect().await;
        items.map_err(|error| sdk_error("dynamodb:Query", &error))
    }

    /// Returns the request for the items of a plan's name: of its chunks, or of its parts.
    fn of_plan(&self, plan: &str, numbers: &str) -> QueryFluentBuilder {
        self.query(&ledger::plan(plan))
            .key_condition_expression(format!("#object = :object AND #chunk {numbers} :zero"))
            .expression_attribute_names("#chunk", ledger::CHUNK)
            .expression_attribute_values(":zero", number(0))
    }

    fn put(&self, item: Attributes) -> PutItemFluentBuilder {
        self.client.put_item().table_name(&self.ledger).set_item(Some(item))
    }

    /// Returns the action that puts an item in the ledger, unless it exists.
    fn put_new(&self, item: Attributes) -> Result<TransactWriteItem, StoreError> {
        let put = PutItem::builder()
            .table_name(&self.ledger)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(#object)")
            .expression_attribute_names("#object", ledger::OBJECT);
        Ok(TransactWriteItem::builder().put(put.build().map_err(build_error)?).build())
    }

    /// Returns an item that belongs to a plan. It outlives the plan's claims.
    fn item_of_plan(&self, plan: &str, chunk: impl fmt::Display) -> Attributes {
        let now = now();
        let mut item = HashMap::from([
            (ledger::OBJECT.to_owned(), text(&ledger::plan(plan))),
            (ledger::CHUNK.to_owned(), number(chunk)),
            (ledger::WRITTEN_AT.to_owned(), number(now)),
        ]);
        let expires_at = self.ttl_seconds.map(|ttl| now.saturating_add(ttl).saturating_add(PLAN_OUTLIVES_CLAIMS));
        item.extend(expires_at.map(|at| (ledger::EXPIRES_AT.to_owned(), number(at))));
        item
    }

    /// Returns the update that adds an amount to an item.
    fn update(&self, Addition { item, amount }: &Addition) -> Result<Update, StoreError> {
        let table = match item {
            Item::Hour { .. } => &self.counts,
            Item::Day { .. } => &self.daily,
            // Of a plan that was claimed before the key was removed.
            Item::Value { breakdown, .. } => self.breakdowns.as_ref().ok_or_else(|| {
                let undeclared = "which pipeline.toml does not declare any more: declare rollup.by again, run `provisioner \
                                  apply`, and remove it when no notification waits";
                StoreError::new(format!("a claimed plan adds to the breakdown {breakdown}, {undeclared}"))
            })?,
        };
        let keys = item.keys().into_iter();
        let mut update =
            keys.fold(Update::builder().table_name(table), |update, (name, key)| update.key(name, text(key)));
        let mut clauses = Vec::new();
        for (n, (attribute, value)) in amount.additions().into_iter().enumerate() {
            let name = if n == 0 { "count".to_owned() } else { format!("sum{n}") };
            clauses.push(format!("#{name} :{name}"));
            update = update.expression_attribute_names(format!("#{name}"), attribute);
            update = update.expression_attribute_values(format!(":{name}"), AttributeValue::N(value));
        }
        update.update_expression(format!("ADD {}", clauses.join(", "))).build().map_err(build_error)
    }

    /// Applies a transaction with conditional puts.
    async fn transact(&self, actions: Vec<TransactWriteItem>) -> Result<Put, StoreError> {
        let mut ceiling = FIRST_PAUSE;
        let mut last = StoreError::new("not tried");
        for _ in 0..ATTEMPTS {
            let request = self.client.transact_write_items().set_transact_items(Some(actions.clone()));
            last = match request.send().await {
                Ok(_) => return Ok(Put::Written),
                Err(error) => match cancelled(&error) {
                    Cancelled::Exists => return Ok(Put::Exists),
                    Cancelled::Busy(failed) => failed,
                    Cancelled::Failed(failed) => return Err(failed),
                },
            };
            tokio::time::sleep(ceiling.mul_f64(fastrand::f64())).await;
            ceiling = (ceiling * 2).min(LONGEST_PAUSE);
        }
        Err(last)
    }
}

/// Returns the time in epoch seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: impl fmt::Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// The seconds by which the parts and markers of a plan outlive its claims. DynamoDB deletes expired items within some
/// days (developer guide, time to live) and in any order: a claim must never be found without its plan.
const PLAN_OUTLIVES_CLAIMS: u64 = 30 * DAY_SECONDS;
/// The bytes of a plan in one item. An item has at most 400 KB (DynamoDB quotas).
const PART_BYTES: usize = 350_000;

/// Pauses between attempts at a transaction: full jitter below a ceiling that doubles, so that handlers that collided
/// on a hot pair do not collide again.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Attempts at a transaction. With these pauses they take about 20 seconds; then Lambda retries later.
const ATTEMPTS: u32 = 25;

/// The reason why a transaction was not applied.
enum Cancelled {
    /// A condition is not met: another handler has written the item. Whatever the other reasons are, what exists must be
    /// read before anything is tried again.
    Exists,
    /// A conflict with another transaction, or throttling; both are transient.
    Busy(StoreError),
    /// A permanent error.
    Failed(StoreError),
}

fn cancelled<R: fmt::Debug + 'static>(error: &SdkError<TransactWriteItemsError, R>) -> Cancelled {
    let failed = sdk_error("dynamodb:TransactWriteItems", error);
    let Some(TransactWriteItemsError::TransactionCanceledException(cancel)) = error.as_service_error() else {
        return match error.code() {
            Some(
                "TransactionInProgressException"
                | "TransactionConflictException"
                | "ThrottlingException"
                | "ProvisionedThroughputExceededException"
                | "RequestLimitExceeded",
            ) => Cancelled::Busy(failed),
            _ => Cancelled::Failed(failed),
        };
    };
    let mut codes = cancel.cancellation_reasons().iter().map(|reason| reason.code().unwrap_or("None"));
    if codes.clone().any(|code| code == "ConditionalCheckFailed") {
        return Cancelled::Exists;
    }
    let is_transient =
        |code| matches!(code, "None" | "TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded");
    if codes.clone().any(|code| code != "None") && codes.all(is_transient) {
        Cancelled::Busy(failed)
    } else {
        Cancelled::Failed(failed)
    }
}

/// A record of the attempts to count the objects of a notification with several. It only decides their order, so its
/// errors are of no consequence.
pub trait Attempts: Sync {
    /// Returns when the last attempt of this name is known to have begun, in epoch milliseconds.
    fn begun_at(&self, name: &str) -> impl Future<Output = Option<u64>> + Send;

    /// Records that the attempt begins.
    fn begin(&self, name: &str) -> impl Future<Output = ()> + Send;
}

/// The time after which the record of an attempt may expire. A failed notification is retried for at most six hours, but
/// may be replayed later.
const ATTEMPT_SECONDS: u64 = 7 * DAY_SECONDS;

impl Attempts for Tables {
    async fn begun_at(&self, name: &str) -> Option<u64> {
        let answer = self.query(name).limit(1).send().await.ok()?;
        answer.items().first()?.get(ledger::BEGUN_AT)?.as_n().ok()?.parse().ok()
    }

    async fn begin(&self, name: &str) {
        let request = self.client.put_item().table_name(&self.ledger);
        let request = request.item(ledger::OBJECT, text(name)).item(ledger::CHUNK, number(0));
        let milliseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let request = request.item(ledger::BEGUN_AT, number(milliseconds));
        let expires_at = now().saturating_add(ATTEMPT_SECONDS);
        // See the trait on errors.
        let _ = request.item(ledger::EXPIRES_AT, number(expires_at)).send().await;
    }
}

impl Ledger for Tables {
    type Error = StoreError;

    async fn claims(&self, content: &str) -> Result<Vec<Claim>, StoreError> {
        let now = now();
        let claim = |item| serde_dynamo::from_item::<_, ClaimItem>(item).map(|item| item.into_claim(now));
        let claims = self.items(self.query(content)).await?.into_iter().map(claim);
        claims.collect::<Result<_, _>>().map_err(|_| StoreError::new(format!("the ledger has no claim in {content}")))
    }

    async fn plan(&self, plan: &str) -> Result<Vec<u8>, StoreError> {
        // The parts have the numbers -1, -2 and so on.
        let parts = self.items(self.of_plan(plan, "<").scan_index_forward(false)).await?;
        let bytes = |mut part: Attributes| match part.remove(ledger::PART) {
            Some(AttributeValue::B(bytes)) => Ok(bytes.into_inner()),
            _ => Err(StoreError::new(format!("a part of plan {plan} has no bytes"))),
        };
        Ok(parts.into_iter().map(bytes).collect::<Result<Vec<_>, _>>()?.concat())
    }

    async fn chunks(&self, plan: &str) -> Result<BTreeSet<u32>, StoreError> {
        let markers = self.items(self.of_plan(plan, ">=")).await?;
        let chunk = |marker: Attributes| marker.get(ledger::CHUNK)?.as_n().ok()?.parse().ok();
        let chunks = markers.into_iter().map(chunk).collect::<Option<BTreeSet<u32>>>();
        chunks.ok_or_else(|| StoreError::new(format!("a marker of plan {plan} has no number")))
    }
}

impl Store for Tables {
    async fn recorded(&self, object: &str) -> Result<Option<Record>, StoreError> {
        let request = self.query(object).limit(1).send().await;
        let items = request.map_err(|error| sdk_error("dynamodb:Query", &error))?.items.unwrap_or_default();
        let record = |item| serde_dynamo::from_item::<_, RecordItem>(item).map(|item| item.record);
        let broken = |error| StoreError::new(format!("the ledger has no record in {object}: {error}"));
        items.into_iter().next().map(record).transpose().map_err(broken)
    }

    async fn put_plan(&self, plan: &str, bytes: &[u8]) -> Result<(), StoreError> {
        for (part, bytes) in (1..).zip(bytes.chunks(PART_BYTES)) {
            let mut item = self.item_of_plan(plan, format_args!("-{part}"));
            item.insert(ledger::PART.to_owned(), AttributeValue::B(Blob::new(bytes)));
            self.put(item).send().await.map_err(|error| sdk_error("dynamodb:PutItem", &error))?;
        }
        Ok(())
    }

    async fn claim(&self, claims: &[Claim]) -> Result<Put, StoreError> {
        let now = now();
        let action = |claim: &Claim| self.put_new(attributes(ClaimItem::new(claim, now, self.ttl_seconds))?);
        self.transact(claims.iter().map(action).collect::<Result<_, _>>()?).await
    }

    async fn add(&self, plan: &str, chunk: u32, pairs: &[Pair]) -> Result<Put, StoreError> {
        let mut marker = self.item_of_plan(plan, chunk);
        if self.is_outbox {
            let added = match Added::new(pairs).map_err(build_error)? {
                Added::Text(json) => AttributeValue::S(json),
                Added::Bytes(bytes) => AttributeValue::B(Blob::new(bytes)),
            };
            marker.insert(ledger::ADDED.to_owned(), added);
        }
        let mut actions = vec![self.put_new(marker)?];
        for addition in additions(pairs) {
            actions.push(TransactWriteItem::builder().update(self.update(&addition)?).build());
        }
        self.transact(actions).await
    }

    async fn record(&self, record: &Record) -> Result<(), StoreError> {
        let item = attributes(RecordItem::new(record.clone(), now(), self.ttl_seconds))?;
        self.put(item).send().await.map(|_| ()).map_err(|error| sdk_error("dynamodb:PutItem", &error))
    }
}

#[cfg(test)]
mod tests;
