//! Reads the records of the objects that were counted lately, from the ledger table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use counting::names::ledger;
use counting::record::{Record, RecordItem};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use super::AT_ONCE;
use crate::aws::{Aws, Call};
use crate::config::Pipeline;
use crate::error::Error;

const HOUR: i64 = 3600;

/// An object with lines that should be counted but are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Skipped {
    /// Bucket, key and identity.
    pub(crate) object: String,
    /// The number of its messages, and of texts that are none.
    pub(crate) lines: u64,
    /// The number of skipped lines by reason.
    pub(crate) skipped: BTreeMap<String, u64>,
    /// The first skipped lines: line number and reason.
    pub(crate) first_skipped: Vec<(u64, String)>,
    /// The number of values of counted messages that are not summed, by field and reason.
    pub(crate) fields_skipped: BTreeMap<String, u64>,
}

impl Skipped {
    /// Returns the number of skipped lines.
    pub(crate) fn skipped_lines(&self) -> u64 {
        self.skipped.values().sum()
    }

    /// Returns the number of values that are not summed.
    pub(crate) fn skipped_values(&self) -> u64 {
        self.fields_skipped.values().sum()
    }

    /// Formats the reasons: `not_json=2 properties.revenue:not_a_number=1`.
    pub(crate) fn reasons(&self) -> String {
        let all = self.skipped.iter().chain(&self.fields_skipped);
        let reasons: Vec<String> = all.map(|(reason, count)| format!("{reason}={count}")).collect();
        reasons.join(" ")
    }

    /// Formats the first skipped lines: `17:not_json 21:no_time`.
    pub(crate) fn first(&self) -> String {
        let first: Vec<String> = self.first_skipped.iter().map(|(line, reason)| format!("{line}:{reason}")).collect();
        first.join(" ")
    }
}

/// Returns the objects with skips, latest first. A duplicate's skips are those of the counted object.
pub(crate) fn skips(records: &[RecordItem]) -> Vec<Skipped> {
    let has_skips = |record: &Record| record.skips() > 0 || !record.fields_skipped.is_empty();
    let has_skips = |item: &&RecordItem| has_skips(&item.record) && item.record.duplicate_of.is_none();
    let mut items: Vec<&RecordItem> = records.iter().filter(has_skips).collect();
    items.sort_by_key(|item| std::cmp::Reverse(item.written_at));
    let skipped = |record: &Record| Skipped {
        object: record.object.clone(),
        lines: record.lines,
        skipped: record.skipped.clone(),
        first_skipped: record.first_skipped.clone(),
        fields_skipped: record.fields_skipped.clone(),
    };
    items.into_iter().map(|item| skipped(&item.record)).collect()
}

/// A reader of the records of a pipeline.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    dynamodb: Client,
    /// The ledger table's name.
    table: Arc<str>,
}

impl Records {
    /// Creates a reader of a pipeline's ledger.
    pub(crate) fn new(aws: &Aws, pipeline: &Pipeline) -> Self {
        Self { dynamodb: aws.dynamodb.clone(), table: Arc::from(&*pipeline.table.ledger) }
    }

    /// Returns the records that were written between two times, in epoch seconds.
    ///
    /// # Errors
    /// An AWS error; the table does not exist or has no index.
    pub(crate) async fn between(&self, since: i64, now: i64) -> Result<Vec<RecordItem>, Error> {
        self.read(since, now, None).await
    }

    /// Returns the objects with skipped lines that were counted between two times, in epoch seconds, latest first.
    ///
    /// # Errors
    /// See [`Records::between`].
    pub(crate) async fn skips(&self, since: i64, now: i64) -> Result<Vec<Skipped>, Error> {
        Ok(skips(&self.read(since, now, Some("attribute_exists(skipped) OR attribute_exists(fields_skipped)")).await?))
    }

    async fn read(&self, since: i64, now: i64, filter: Option<&str>) -> Result<Vec<RecordItem>, Error> {
        let table = &*self.table;
        let of_hour = |hour: i64| async move {
            let number = |n: i64| AttributeValue::N(n.to_string());
            let request = self
                .dynamodb
                .query()
                .table_name(table)
                .index_name(ledger::BY_COUNTED_HOUR)
                .key_condition_expression("#hour = :hour AND #at >= :since")
                .set_filter_expression(filter.map(str::to_owned))
                .expression_attribute_names("#hour", ledger::COUNTED_HOUR)
                .expression_attribute_names("#at", ledger::WRITTEN_AT)
                .expression_attribute_values(":hour", AttributeValue::S(counting::hour::format(hour)))
                .expression_attribute_values(":since", number(since));
            let items: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
            items.call("dynamodb:Query").map_err(|error| match error.says("ValidationException", "index") {
                true => Error::not_found(
                    format!("table {table} has no index {}, or is still building it", ledger::BY_COUNTED_HOUR),
                    "run `provisioner apply` to add it, and wait until DynamoDB has filled it",
                ),
                false => error.while_doing(format!("read table {table} by its index")),
            })
        };
        let items: Vec<Vec<HashMap<String, AttributeValue>>> =
            stream::iter(since / HOUR..=now / HOUR).map(of_hour).buffer_unordered(AT_ONCE).try_collect().await?;
        let records = items.into_iter().flatten().map(|item| serde_dynamo::from_item(item).ok()).collect::<Option<_>>();
        records.ok_or_else(|| Error::incomplete_answer(format!("read table {table} by its index"), "record"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_with_skips_are_listed_once_and_latest_first() {
        let item = |object: &str, written_at, record: Record| {
            RecordItem::new(Record { object: object.to_owned(), ..record }, written_at, None)
        };
        let skipping = || Record { skipped: [("not_json".to_owned(), 2)].into(), ..Record::default() };
        let duplicate = Record { duplicate_of: Some("a".to_owned()), ..skipping() };
        let records = [
            item("a", 1, skipping()),
            item("b", 2, Record::default()),
            item("c", 3, duplicate),
            item("d", 4, skipping()),
        ];
        assert_eq!(skips(&records).iter().map(|skipped| skipped.object.as_str()).collect::<Vec<_>>(), ["d", "a"]);
    }
}
