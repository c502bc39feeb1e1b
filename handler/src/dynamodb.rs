//! The store of the counting protocol over DynamoDB.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Put as PutItem, TransactWriteItem, Update};
use counting::item::Item;
use counting::ledger::{Marker, days};
use counting::names::{counts, daily, ledger};
use counting::protocol::{ObjectId, Put, Store, StoreError};

use crate::error::sdk_error;
use crate::settings::Settings;

/// The counts, daily and ledger tables in DynamoDB.
#[derive(Debug, Clone)]
pub struct Tables {
    client: aws_sdk_dynamodb::Client,
    counts: String,
    daily: String,
    ledger: String,
    ttl_seconds: Option<u64>,
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
            ttl_seconds: settings.ledger_ttl_days.map(|days| u64::from(days) * 24 * 60 * 60),
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

    fn transaction(&self, object: &ObjectId, marker: &Marker) -> Result<Vec<TransactWriteItem>, StoreError> {
        let build_error = |error: aws_sdk_dynamodb::error::BuildError| StoreError::new(error.to_string());
        let item = Item::new(object, marker, now(), self.ttl_seconds);
        let put = PutItem::builder()
            .table_name(&self.ledger)
            .set_item(Some(serde_dynamo::to_item(item).map_err(|error| StoreError::new(error.to_string()))?))
            .condition_expression("attribute_not_exists(#object)")
            .expression_attribute_names("#object", ledger::OBJECT);
        let mut items = vec![TransactWriteItem::builder().put(put.build().map_err(build_error)?).build()];
        let hours = marker.pairs.iter().map(|(event, hour, count)| {
            addition(&self.counts, [(counts::EVENT, event), (counts::HOUR, hour)], counts::COUNT, *count)
        });
        let days = days(&marker.pairs).map(|(day, event, count)| {
            addition(&self.daily, [(daily::DAY, day), (daily::EVENT, event)], daily::COUNT, count)
        });
        for update in hours.chain(days) {
            items.push(TransactWriteItem::builder().update(update.build().map_err(build_error)?).build());
        }
        Ok(items)
    }
}

/// Returns the update that adds a count to an item.
fn addition(table: &str, keys: [(&str, &str); 2], attribute: &str, count: i64) -> UpdateBuilder {
    let update = keys.into_iter().fold(Update::builder(), |update, (name, key)| update.key(name, text(key)));
    update
        .table_name(table)
        .update_expression("ADD #count :count")
        .expression_attribute_names("#count", attribute)
        .expression_attribute_values(":count", number(count))
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

/// Pauses between attempts at a transaction: full jitter below a ceiling that doubles, so that handlers that collided
/// on a hot pair do not collide again.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Attempts at a transaction. With these pauses they take about 20 seconds; then Lambda retries later.
const ATTEMPTS: u32 = 25;

/// The reason why a transaction was not applied.
enum Cancelled {
    /// The marker exists already.
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
    // The reasons are in the order of the request's actions, so the first is that of the marker.
    let mut codes = cancel.cancellation_reasons().iter().map(|reason| reason.code().unwrap_or("None"));
    if codes.clone().next() == Some("ConditionalCheckFailed") {
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
    /// Returns whether an attempt of this name is known to have begun.
    fn has_begun(&self, name: &str) -> impl Future<Output = bool> + Send;

    /// Records that the attempt begins.
    fn begin(&self, name: &str) -> impl Future<Output = ()> + Send;
}

/// The time after which the record of an attempt may expire. A failed notification is retried for at most six hours, but
/// may be replayed later.
const ATTEMPT_SECONDS: u64 = 7 * 24 * 60 * 60;

impl Attempts for Tables {
    async fn has_begun(&self, name: &str) -> bool {
        let request = self.query(name).limit(1).send();
        request.await.is_ok_and(|answer| !answer.items().is_empty())
    }

    async fn begin(&self, name: &str) {
        let request = self.client.put_item().table_name(&self.ledger);
        let request = request.item(ledger::OBJECT, text(name)).item(ledger::CHUNK, number(0));
        let expires_at = now().saturating_add(ATTEMPT_SECONDS);
        // See the trait on errors.
        let _ = request.item(ledger::EXPIRES_AT, number(expires_at)).send().await;
    }
}

impl Store for Tables {
    async fn markers(&self, object: &str) -> Result<Vec<Marker>, StoreError> {
        let items: Result<Vec<_>, _> = self.query(object).into_paginator().items().send().collect().await;
        let items = items.map_err(|error| sdk_error("dynamodb:Query", &error))?;
        let marker = |item| serde_dynamo::from_item::<_, Item>(item).ok()?.into_marker();
        let markers = items.into_iter().map(marker).collect::<Option<Vec<Marker>>>();
        markers.ok_or_else(|| StoreError::new("the ledger holds an item that is not a marker"))
    }

    async fn put(&self, object: &ObjectId, marker: &Marker) -> Result<Put, StoreError> {
        let items = self.transaction(object, marker)?;
        let mut ceiling = FIRST_PAUSE;
        let mut last = StoreError::new("not tried");
        for _ in 0..ATTEMPTS {
            let request = self.client.transact_write_items().set_transact_items(Some(items.clone()));
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

#[cfg(test)]
mod tests;
