//! Reads the counts table.

pub mod window;

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use contract::counts::{BY_HOUR, COUNT, EVENT, HOUR};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::aws::{Aws, AwsError, Call};
use crate::error::Error;
use window::Window;

/// Hours that are asked for at the same time.
const AT_ONCE: usize = 16;

/// One event's counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The event's name.
    pub event: String,
    /// The time asked for.
    pub window: Window,
    /// Hour and count, for the hours in which there were any.
    pub hours: BTreeMap<String, u64>,
}

impl Series {
    /// The sum of all hours.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.hours.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// The most frequent events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// The time asked for.
    pub window: Window,
    /// Event and count, the most frequent first, then by name.
    pub events: Vec<(String, u64)>,
    /// How many different events there were.
    pub distinct: usize,
    /// How many events there were in all.
    pub total: u64,
}

type Item = HashMap<String, AttributeValue>;

/// One event by hour.
///
/// # Errors
/// AWS's answer, or that the table is not there.
pub async fn query(aws: &Aws, table: &str, event: &str, window: Window) -> Result<Series, Error> {
    let request = aws
        .dynamodb
        .query()
        .table_name(table)
        .key_condition_expression("#event = :event AND #hour BETWEEN :from AND :last")
        .expression_attribute_names("#event", EVENT)
        .expression_attribute_names("#hour", HOUR)
        .expression_attribute_values(":event", AttributeValue::S(event.to_owned()))
        .expression_attribute_values(":from", AttributeValue::S(window.from()))
        .expression_attribute_values(":last", AttributeValue::S(window.last()));
    let items = request.into_paginator().items().send().collect::<Result<Vec<Item>, _>>().await;
    let items = items.call("dynamodb:Query").map_err(|error| failed(table, error))?;
    let hours = items.iter().map(|item| Ok((text(table, item, HOUR)?, number(table, item)?)));
    Ok(Series { event: event.to_owned(), window, hours: hours.collect::<Result<_, Error>>()? })
}

/// The `limit` most frequent events.
///
/// # Errors
/// AWS's answer, or that the table is not there.
pub async fn top(aws: &Aws, table: &str, window: Window, limit: usize) -> Result<Top, Error> {
    let of_hour = |hour: String| async move {
        let request = aws
            .dynamodb
            .query()
            .table_name(table)
            .index_name(BY_HOUR)
            .key_condition_expression("#hour = :hour")
            .expression_attribute_names("#hour", HOUR)
            .expression_attribute_values(":hour", AttributeValue::S(hour));
        let items = request.into_paginator().items().send().collect::<Result<Vec<Item>, _>>().await;
        items.call("dynamodb:Query").map_err(|error| failed(table, error))
    };
    let sums = stream::iter(window.hours())
        .map(of_hour)
        .buffer_unordered(AT_ONCE)
        .try_fold(HashMap::<String, u64>::new(), |mut sums, items| async move {
            for item in &items {
                let count = number(table, item)?;
                let sum = sums.entry(text(table, item, EVENT)?).or_default();
                *sum = sum.saturating_add(count);
            }
            Ok(sums)
        })
        .await?;
    let (distinct, total) = (sums.len(), sums.values().fold(0_u64, |sum, count| sum.saturating_add(*count)));
    let mut events: Vec<(String, u64)> = sums.into_iter().collect();
    events.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    events.truncate(limit);
    Ok(Top { window, events, distinct, total })
}

fn failed(table: &str, error: AwsError) -> Error {
    if error.code() == Some("ResourceNotFoundException") {
        return Error::Refused {
            what: format!("the counts table {table} is not there, or lacks its index"),
            help: "run `provisioner apply` first, or check --config, --env and the credentials".to_owned(),
        };
    }
    Error::Aws { doing: format!("read table {table}"), source: Box::new(error) }
}

fn text(table: &str, item: &Item, attribute: &'static str) -> Result<String, Error> {
    let found = item.get(attribute).and_then(|value| value.as_s().ok());
    found.cloned().ok_or_else(|| Error::Answer { doing: format!("read table {table}"), missing: attribute })
}

fn number(table: &str, item: &Item) -> Result<u64, Error> {
    let found = item.get(COUNT).and_then(|value| value.as_n().ok()).and_then(|digits| digits.parse().ok());
    found.ok_or_else(|| Error::Answer { doing: format!("read table {table}"), missing: COUNT })
}
