//! A consumer that alerts: once the count of an event in an hour reaches its threshold, it publishes to an SNS topic.
//!
//! `THRESHOLDS` is a JSON object such as `{"Order Completed": 100}`, `TOPIC_ARN` the topic, and `TABLE` a DynamoDB table
//! with the partition key `id` (S). The table has two kinds of item:
//!
//! - the batches that were added, by their ids, so that a batch that is delivered again adds nothing;
//! - the counts of the events with a threshold, by event and hour, with `told` once the alert was published.
//!
//! An alert is published at least once, and practically once: a crash between the call to SNS and the mark in the table
//! publishes it again, and so do two invocations that reach the threshold at the same moment. Its `id` is then the same.
//! To publish it at most once instead, set the mark first, on the condition that there is none.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use handler::aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use handler::aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem, Update};
use handler::aws_sdk_dynamodb::{self, error::SdkError};
use handler::counting::consumer::{Batch, Counted};
use handler::runtime::{self, Error};
use serde_json::json;

/// The time for which the table keeps a batch if its time to live is enabled for `expires_at`; streams keep it for a day.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

struct Alert {
    dynamodb: aws_sdk_dynamodb::Client,
    sns: aws_sdk_sns::Client,
    table: String,
    topic: String,
    thresholds: BTreeMap<String, i64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let alert = Alert {
        dynamodb: runtime::dynamodb()?,
        sns: aws_sdk_sns::Client::from_conf(handler::config!(aws_sdk_sns, "SNS").build()),
        table: runtime::required("TABLE")?,
        topic: runtime::required("TOPIC_ARN")?,
        thresholds: serde_json::from_str(&runtime::required("THRESHOLDS")?)?,
    };
    runtime::consume(|batch| alert.consume(batch)).await
}

impl Alert {
    async fn consume(&self, mut batch: Batch) -> Result<(), Error> {
        batch.counted.retain(|counted| counted.count != 0 && self.thresholds.contains_key(&counted.event));
        if batch.counted.is_empty() {
            return Ok(());
        }
        self.add(&batch).await?;
        for counted in &batch.counted {
            self.tell(counted).await?;
        }
        Ok(())
    }

    /// Adds the batch's counts in one transaction with the batch's id, unless that is there. A transaction has room for
    /// every batch: 100 actions, of which the counter's own needs as many.
    async fn add(&self, batch: &Batch) -> Result<(), Error> {
        let expires_at = SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_add(KEPT).as_secs();
        let put = Put::builder().table_name(&self.table).condition_expression("attribute_not_exists(id)");
        let put =
            put.item("id", text(&batch.id)).item("expires_at", AttributeValue::N(expires_at.to_string())).build()?;
        let mut request = self.dynamodb.transact_write_items();
        request = request.transact_items(TransactWriteItem::builder().put(put).build());
        for counted in &batch.counted {
            let update = Update::builder().table_name(&self.table).key("id", text(&id(counted)));
            let update = update.update_expression("ADD #count :count").expression_attribute_names("#count", "count");
            let update = update.expression_attribute_values(":count", AttributeValue::N(counted.count.to_string()));
            request = request.transact_items(TransactWriteItem::builder().update(update.build()?).build());
        }
        match request.send().await {
            Err(error) if is_added(&error) => {}
            result => drop(result?),
        }
        Ok(())
    }

    /// Publishes the alert of an event and hour if its count is at the threshold and it was not published.
    async fn tell(&self, counted: &Counted) -> Result<(), Error> {
        let Some(threshold) = self.thresholds.get(&counted.event) else { return Ok(()) };
        let id = id(counted);
        let request = self.dynamodb.get_item().table_name(&self.table).key("id", text(&id)).consistent_read(true);
        let item = request.send().await?.item.unwrap_or_default();
        let count =
            item.get("count").and_then(|count| count.as_n().ok()).map_or(Ok(0), |count| count.parse::<i64>())?;
        if count < *threshold || item.contains_key("told") {
            return Ok(());
        }
        let Counted { event, hour, .. } = counted;
        let message = json!({ "id": id, "event": event, "hour": hour, "count": count, "threshold": threshold });
        self.sns.publish().topic_arn(&self.topic).message(message.to_string()).send().await?;
        let mark = self.dynamodb.update_item().table_name(&self.table).key("id", text(&id));
        mark.update_expression("SET told = :true")
            .expression_attribute_values(":true", AttributeValue::Bool(true))
            .send()
            .await?;
        Ok(())
    }
}

/// Returns the id of the item that counts an event in an hour.
fn id(counted: &Counted) -> String {
    format!("{}#{}", counted.event, counted.hour)
}

/// Returns whether a transaction failed because an earlier delivery of the batch has made it.
fn is_added(error: &SdkError<TransactWriteItemsError>) -> bool {
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() else {
        return false;
    };
    cancelled.cancellation_reasons().iter().any(|reason| reason.code() == Some("ConditionalCheckFailed"))
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}
