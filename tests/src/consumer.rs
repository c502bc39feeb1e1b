//! A consumer that records what it is told: `examples/alert` with thresholds that nothing reaches.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use serde_json::json;

use crate::local_aws::{REGION, root};
use crate::pipeline::Pipeline;
use crate::recount::Counts;

/// The table to which the consumer writes.
const TOLD: &str = "told";

/// Returns the path of an example's binary, as `make examples` builds it.
#[must_use]
pub fn artifact(example: &str) -> String {
    root().join("target/lambda").join(example).join("bootstrap").display().to_string()
}

/// Returns the declaration of the consumer, which records these events; `more` are further keys.
#[must_use]
pub fn section(pipeline: &Pipeline<'_>, events: &[&str], more: &str) -> String {
    let thresholds: BTreeMap<&str, i64> = events.iter().map(|event| (*event, i64::MAX)).collect();
    let (account, artifact, thresholds) = (&pipeline.account, artifact("alert"), json!(thresholds));
    format!(
        "[[consumer]]
        name = \"alert\"
        artifact = \"{artifact}\"
        environment = {{ TABLE = \"{TOLD}\", TOPIC_ARN = \"arn:aws:sns:{REGION}:{account}:none\", THRESHOLDS = '{thresholds}' }}
        {more}
        [[consumer.statement]]
        actions = [\"dynamodb:GetItem\", \"dynamodb:PutItem\", \"dynamodb:UpdateItem\"]
        resources = [\"arn:aws:dynamodb:{REGION}:{account}:table/{TOLD}\"]"
    )
}

/// Creates a table with a partition key of this name.
///
/// # Errors
/// DynamoDB returns an error.
pub async fn create_table(pipeline: &Pipeline<'_>, table: &str, key: &str) -> Result<()> {
    let client = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    let attribute =
        AttributeDefinition::builder().attribute_name(key).attribute_type(ScalarAttributeType::S).build()?;
    let key = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build()?;
    let request = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    request.attribute_definitions(attribute).key_schema(key).send().await?;
    Ok(())
}

/// Creates the table to which the consumer writes.
///
/// # Errors
/// DynamoDB returns an error.
pub async fn create_told(pipeline: &Pipeline<'_>) -> Result<()> {
    create_table(pipeline, TOLD, "id").await
}

/// Returns the counts that the consumer was told, without those that are zero.
///
/// # Errors
/// DynamoDB returns an error.
pub async fn told(pipeline: &Pipeline<'_>) -> Result<Counts> {
    let client = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    let pages = client.scan().table_name(TOLD).consistent_read(true).into_paginator().items().send();
    let items: Vec<_> = pages.collect::<Result<_, _>>().await.context("failed to read what the consumer was told")?;
    let mut counts = Counts::new();
    for item in items {
        let Some(count) = item.get("count").and_then(|count| count.as_n().ok()) else { continue };
        let id = item.get("id").and_then(|id| id.as_s().ok()).context("an id")?;
        let (event, hour) = id.rsplit_once('#').context("an event and an hour")?;
        let count: i64 = count.parse()?;
        if count != 0 {
            counts.insert((event.to_owned(), hour.to_owned()), count.try_into().context("a negative count")?);
        }
    }
    Ok(counts)
}
