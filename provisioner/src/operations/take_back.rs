//! Takes back what was counted of a test object, in the ledger and the tables of the pipeline.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::builders::PutBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Put as PutItem, TransactWriteItem, Update};
use counting::names::{counts, ledger};
use counting::plan::{Added, Addition, Item, Pair, additions, negated};
use counting::protocol::{Claim, Ledger, Put, StoreError, Undo};
use counting::record::ClaimItem;
use jiff::Timestamp;

use super::failed;
use super::ledger::Attributes;
use crate::aws::{AwsError, Call, ResourceError, Session, Wait, absent_on, retry_while};
use crate::error::{Error, ErrorKind};

/// The time for which a write is repeated that conflicts with a transaction.
const CONFLICT_LIMIT: Duration = Duration::from_secs(30);
/// The error code of a transaction that was not applied; its message lists the reasons.
const CANCELLED: &str = "TransactionCanceledException";
/// The description of the removal of a count, for errors.
const UNCOUNT: &str = "take back the counts of";

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let help = "restore the table from a recovery point, or report this defect of the pipeline";
        Self::new(ErrorKind::Aws, format!("failed to read the ledger: {error}"), help)
    }
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: impl Into<i64>) -> AttributeValue {
    AttributeValue::N(value.into().to_string())
}

/// Returns the key of an item of the ledger.
fn ledger_key(name: &str, chunk: u32) -> Attributes {
    HashMap::from([(ledger::OBJECT.to_owned(), text(name)), (ledger::CHUNK.to_owned(), number(chunk))])
}

/// Returns the key of an item of the counts table.
pub(super) fn hour_key(event: &str, hour: &str) -> Attributes {
    HashMap::from([(counts::EVENT.to_owned(), text(event)), (counts::HOUR.to_owned(), text(hour))])
}

impl Session<'_> {
    fn query_ledger(&self, name: &str) -> QueryFluentBuilder {
        self.aws
            .dynamodb
            .query()
            .table_name(&self.pipeline.table.ledger)
            .consistent_read(true)
            .key_condition_expression("#object = :object")
            .expression_attribute_names("#object", ledger::OBJECT)
            .expression_attribute_values(":object", text(name))
    }

    async fn ledger_items(&self, query: QueryFluentBuilder) -> Result<Vec<Attributes>, Error> {
        let items: Result<Vec<_>, _> = query.into_paginator().items().send().collect().await;
        items.call("dynamodb:Query").map_err(failed(format!("read table {}", self.pipeline.table.ledger)))
    }

    /// Returns the request for the items of a plan's name: of its chunks, or of its parts.
    fn query_plan(&self, plan: &str, numbers: &str) -> QueryFluentBuilder {
        self.query_ledger(&ledger::plan(plan))
            .key_condition_expression(format!("#object = :object AND #chunk {numbers} :zero"))
            .expression_attribute_names("#chunk", ledger::CHUNK)
            .expression_attribute_values(":zero", number(0))
    }

    /// Returns the name of the table of an item, and its key.
    fn table_and_key(&self, item: &Item) -> (&str, Attributes) {
        let table = match item {
            Item::Hour { .. } => &self.pipeline.table.counts,
            Item::Day { .. } => &self.pipeline.table.daily,
            Item::Value { .. } => &self.pipeline.table.breakdowns,
        };
        (table, item.keys().map(|(name, key)| (name.to_owned(), text(key))).into())
    }

    /// Returns the action that puts an item in the ledger, on a condition.
    fn put_if(&self, item: Attributes, condition: &str) -> PutBuilder {
        let put = PutItem::builder().table_name(&self.pipeline.table.ledger).set_item(Some(item));
        put.condition_expression(condition)
    }

    /// Applies a transaction with conditions.
    async fn transact(&self, actions: Vec<TransactWriteItem>, content: &str) -> Result<Put, Error> {
        let token = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let written = self.settled(|| async {
            let request = self.aws.dynamodb.transact_write_items().set_transact_items(Some(actions.clone()));
            request.client_request_token(&token).send().await.call("dynamodb:TransactWriteItems")
        });
        match written.await {
            Ok(_) => Ok(Put::Written),
            Err(ResourceError::Call(error)) if error.says(CANCELLED, "ConditionalCheckFailed") => Ok(Put::Exists),
            Err(error) => Err(error.on(UNCOUNT, &content)),
        }
    }

    /// Repeats a write while another transaction holds one of its items. The SDK does not.
    async fn settled<T, F>(&self, write: impl FnMut() -> F + Send) -> Result<T, ResourceError>
    where
        F: Future<Output = Result<T, AwsError>> + Send,
    {
        let what = "another transaction to end".to_owned();
        let waiting = Wait { what, deadline: CONFLICT_LIMIT, on_wait: &|_, _| {} };
        let is_conflict = |error: &AwsError| {
            matches!(error.code(), Some("TransactionConflictException" | "TransactionInProgressException"))
                || error.says(CANCELLED, "TransactionConflict") && !error.says(CANCELLED, "ConditionalCheckFailed")
        };
        retry_while(waiting, is_conflict, write).await
    }

    /// Deletes a count that is zero. Another run may have counted an object in the meantime.
    async fn delete_zero(&self, table: &str, key: &Attributes) -> Result<(), ResourceError> {
        self.settled(|| async {
            let request = self
                .aws
                .dynamodb
                .delete_item()
                .table_name(table)
                .set_key(Some(key.clone()))
                .condition_expression("#count = :zero")
                .expression_attribute_names("#count", counts::COUNT)
                .expression_attribute_values(":zero", number(0));
            absent_on(request.send().await.call("dynamodb:DeleteItem"), &["ConditionalCheckFailedException"])
        })
        .await
        .map(|_| ())
    }

    /// Removes the record of an object.
    pub(super) async fn forget(&self, object: &str) -> Result<(), Error> {
        let request = self.aws.dynamodb.delete_item().table_name(&self.pipeline.table.ledger);
        let answer = request.set_key(Some(ledger_key(object, 0))).send().await.call("dynamodb:DeleteItem");
        answer.map(|_| ()).map_err(failed(format!("delete the record of {object}")))
    }

    /// Returns the item of a claim, which expires when the claims of the function do.
    fn claim_item(&self, claim: &Claim) -> Result<Attributes, Error> {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        let ttl = self.pipeline.bucket.ledger_ttl_days().map(|days| u64::from(days) * 24 * 60 * 60);
        serde_dynamo::to_item(ClaimItem::new(claim, now, ttl)).map_err(|error| Error::internal("write a claim", error))
    }
}

impl Ledger for Session<'_> {
    type Error = Error;

    async fn claims(&self, content: &str) -> Result<Vec<Claim>, Error> {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        let claim = |item| serde_dynamo::from_item::<_, ClaimItem>(item).map(|item| item.into_claim(now));
        let claims = self.ledger_items(self.query_ledger(content)).await?.into_iter().map(claim);
        let reading = format!("read table {}", self.pipeline.table.ledger);
        claims.collect::<Result<_, _>>().map_err(|_| Error::incomplete_answer(reading, "claim"))
    }

    async fn plan(&self, plan: &str) -> Result<Vec<u8>, Error> {
        // The parts have the numbers -1, -2 and so on.
        let parts = self.ledger_items(self.query_plan(plan, "<").scan_index_forward(false)).await?;
        let bytes = |mut part: Attributes| match part.remove(ledger::PART) {
            Some(AttributeValue::B(bytes)) => Ok(bytes.into_inner()),
            _ => Err(Error::incomplete_answer(format!("read plan {plan}"), "bytes")),
        };
        Ok(parts.into_iter().map(bytes).collect::<Result<Vec<_>, _>>()?.concat())
    }

    async fn chunks(&self, plan: &str) -> Result<BTreeSet<u32>, Error> {
        let markers = self.ledger_items(self.query_plan(plan, ">=")).await?;
        let chunk = |marker: Attributes| marker.get(ledger::CHUNK)?.as_n().ok()?.parse().ok();
        let chunks = markers.into_iter().map(chunk).collect::<Option<BTreeSet<u32>>>();
        chunks.ok_or_else(|| Error::incomplete_answer(format!("read plan {plan}"), "marker"))
    }
}

impl Undo for Session<'_> {
    async fn replace(&self, claim: &Claim, is_added: bool, pairs: &[Pair]) -> Result<Put, Error> {
        let mut empty = self.claim_item(&Claim { plan: String::new(), chunks: 0, ..claim.clone() })?;
        let negated = negated(pairs);
        if is_added {
            // The readers of the ledger's stream were told of it.
            let added = Added::new(&negated).map_err(|error| Error::internal("write a claim", error))?;
            empty.insert(
                ledger::ADDED.to_owned(),
                match added {
                    Added::Text(json) => AttributeValue::S(json),
                    Added::Bytes(bytes) => AttributeValue::B(Blob::new(bytes)),
                },
            );
        }
        let subtractions = additions(&negated);
        let put = self.put_if(empty, "#plan = :plan");
        let put = put.expression_attribute_names("#plan", ledger::PLAN);
        let put = put.expression_attribute_values(":plan", text(&claim.plan));
        let mut actions = vec![TransactWriteItem::builder().put(put.build()?).build()];
        if is_added {
            for Addition { item, amount } in &subtractions {
                let (table, key) = self.table_and_key(item);
                // A test object has no sums.
                let update = Update::builder()
                    .table_name(table)
                    .set_key(Some(key))
                    .update_expression("ADD #count :count")
                    .expression_attribute_names("#count", counts::COUNT)
                    .expression_attribute_values(":count", number(amount.count));
                actions.push(TransactWriteItem::builder().update(update.build()?).build());
            }
        } else {
            let put = self.put_if(ledger_key(&ledger::plan(&claim.plan), 0), "attribute_not_exists(#object)");
            let put = put.expression_attribute_names("#object", ledger::OBJECT);
            actions.push(TransactWriteItem::builder().put(put.build()?).build());
        }
        let put = self.transact(actions, &claim.object).await?;
        if put == Put::Written && is_added {
            for addition in &subtractions {
                let (table, key) = self.table_and_key(&addition.item);
                self.delete_zero(table, &key).await.map_err(|error| error.on(UNCOUNT, &claim.object))?;
            }
        }
        Ok(put)
    }

    async fn claim_nothing(&self, content: &str, object: &str) -> Result<Put, Error> {
        let claim = Claim {
            content: content.to_owned(),
            generation: 0,
            plan: String::new(),
            chunks: 0,
            object: object.to_owned(),
            has_expired: false,
        };
        let put = self.put_if(self.claim_item(&claim)?, "attribute_not_exists(#object)");
        let put = put.expression_attribute_names("#object", ledger::OBJECT).build()?;
        self.transact(vec![TransactWriteItem::builder().put(put).build()], object).await
    }
}
