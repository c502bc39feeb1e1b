//! S3 and DynamoDB behind two traits, so that the protocol above them can be tested against a store that fails at will.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, Put as PutItem, TransactWriteItem, Update};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use contract::{counts, ledger};

use crate::count::Marker;
use crate::notification::Object;
use crate::settings::Settings;
use crate::time;

/// What S3 or DynamoDB answered, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed(String);

impl Failed {
    /// A failure in one's own words.
    #[must_use]
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    fn of<E, R>(call: &str, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
        R: fmt::Debug + 'static,
    {
        let meta = error.as_service_error().map(ProvideErrorMetadata::meta);
        match meta.and_then(|meta| meta.code().map(|code| (code, meta.message().unwrap_or_default()))) {
            Some((code, message)) => Self(format!("{call} answered {code}: {message}")),
            None => Self(format!("{call} failed: {}", chain(error))),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Failed {}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// An object whose bytes are being read.
pub struct Opened<B> {
    /// What identifies its content: its version, or its ETag.
    pub identity: String,
    /// When S3 got it, in epoch seconds, where S3 says.
    pub uploaded_at: Option<i64>,
    /// Its bytes.
    pub body: B,
}

/// An object that is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What the ledger calls it, see [`ledger::object_key`].
    pub name: String,
    /// When S3 got it, in epoch seconds, where S3 said.
    pub uploaded_at: Option<i64>,
}

/// Where objects are read from.
pub trait Objects: Sync {
    /// A stream of an object's bytes.
    type Body: Body;

    /// Opens an object.
    fn open(&self, object: &Object) -> impl Future<Output = Result<Opened<Self::Body>, Failed>> + Send;
}

/// An object's bytes, as they come.
pub trait Body: Send {
    /// The next bytes, or none at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Failed>> + Send;
}

/// Whether a marker was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was, and its pairs were added with it.
    Written,
    /// It was there already, and nothing was added.
    Exists,
}

/// Where counts are written to.
pub trait Store: Sync {
    /// All markers of an object.
    fn markers(&self, object: &str) -> impl Future<Output = Result<Vec<Marker>, Failed>> + Send;

    /// Puts a marker and adds its pairs in one transaction, unless the marker is there.
    fn put(&self, object: &Subject, marker: &Marker) -> impl Future<Output = Result<Put, Failed>> + Send;
}

/// Amazon S3.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: aws_sdk_s3::Client,
}

impl Bucket {
    /// Reads with this client.
    #[must_use]
    pub fn new(client: aws_sdk_s3::Client) -> Self {
        Self { client }
    }
}

impl Objects for Bucket {
    type Body = ByteStream;

    async fn open(&self, object: &Object) -> Result<Opened<ByteStream>, Failed> {
        let request = self.client.get_object().bucket(&object.bucket).key(&object.key);
        let request = request.set_version_id(object.version.clone());
        let answer = request.send().await.map_err(|error| Failed::of("s3:GetObject", &error))?;
        // The ETag of what is read, not of what the notification told: between the two, the object may have been
        // replaced. The content that is there now is what can be counted, and its own notification finds it done.
        let identity = ledger::identity(object.version.as_deref(), answer.e_tag.as_deref())
            .ok_or_else(|| Failed::new("S3's answer has neither version nor ETag"))?;
        Ok(Opened { identity, uploaded_at: answer.last_modified.map(|time| time.secs()), body: answer.body })
    }
}

impl Body for ByteStream {
    async fn next(&mut self) -> Result<Option<Bytes>, Failed> {
        ByteStream::next(self)
            .await
            .transpose()
            .map_err(|error| Failed::new(format!("reading broke off: {}", chain(&error))))
    }
}

/// DynamoDB.
#[derive(Debug, Clone)]
pub struct Tables {
    client: aws_sdk_dynamodb::Client,
    counts: String,
    ledger: String,
    ttl: Option<Duration>,
}

impl Tables {
    /// Writes with this client.
    #[must_use]
    pub fn new(client: aws_sdk_dynamodb::Client, settings: &Settings) -> Self {
        Self {
            client,
            counts: settings.counts_table.clone(),
            ledger: settings.ledger_table.clone(),
            ttl: settings.ledger_ttl_days.map(|days| Duration::from_secs(u64::from(days) * 24 * 60 * 60)),
        }
    }

    fn transaction(&self, object: &Subject, marker: &Marker) -> Result<Vec<TransactWriteItem>, Failed> {
        let unbuilt = |error: aws_sdk_dynamodb::error::BuildError| Failed::new(error.to_string());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let pair = |(event, hour, count): &(String, String, i64)| {
            AttributeValue::L(vec![text(event), text(hour), number(count)])
        };
        let mut put = PutItem::builder()
            .table_name(&self.ledger)
            .item(ledger::OBJECT, text(&object.name))
            .item(ledger::CHUNK, number(marker.chunk))
            .item(ledger::RUN, text(&marker.run))
            .item(ledger::FIRST, number(marker.first))
            .item(ledger::END, number(marker.end))
            .item(ledger::PAIRS, AttributeValue::L(marker.pairs.iter().map(pair).collect()))
            .item(ledger::WRITTEN_AT, number(now.as_secs()))
            .condition_expression("attribute_not_exists(#object)")
            .expression_attribute_names("#object", ledger::OBJECT);
        if marker.is_last() {
            let hour = i64::try_from(now.as_secs() / 3600).unwrap_or(i64::MAX);
            put = put.item(ledger::COUNTED_HOUR, text(&time::written(hour)));
            if let Some(uploaded_at) = object.uploaded_at {
                put = put.item(ledger::UPLOADED_AT, number(uploaded_at));
            }
        }
        if let Some(ttl) = self.ttl {
            put = put.item(ledger::EXPIRES_AT, number((now + ttl).as_secs()));
        }
        let mut items = vec![TransactWriteItem::builder().put(put.build().map_err(unbuilt)?).build()];
        for (event, hour, count) in &marker.pairs {
            let update = Update::builder()
                .table_name(&self.counts)
                .key(counts::EVENT, text(event))
                .key(counts::HOUR, text(hour))
                .update_expression("ADD #count :count")
                .expression_attribute_names("#count", counts::COUNT)
                .expression_attribute_values(":count", number(count))
                .build()
                .map_err(unbuilt)?;
            items.push(TransactWriteItem::builder().update(update).build());
        }
        Ok(items)
    }
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: impl fmt::Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// Pauses between attempts at a transaction: full jitter up to a doubling ceiling, so that those who met at a hot pair
/// do not meet there again.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// With these pauses some 20 seconds; then Lambda tries later.
const ATTEMPTS: u32 = 25;

/// Why a transaction did not happen.
enum Cancelled {
    /// The marker is there.
    Exists,
    /// Others were at the same items, or too many were; it passes.
    Busy(Failed),
    /// It does not pass.
    Failed(Failed),
}

fn cancelled<R: fmt::Debug + 'static>(error: &SdkError<TransactWriteItemsError, R>) -> Cancelled {
    let failed = Failed::of("dynamodb:TransactWriteItems", error);
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
    // The reasons come in the order of the request, so the marker's is the first.
    let mut codes = cancel.cancellation_reasons().iter().map(|reason| reason.code().unwrap_or("None"));
    if codes.clone().next() == Some("ConditionalCheckFailed") {
        return Cancelled::Exists;
    }
    let passes =
        |code| matches!(code, "None" | "TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded");
    if codes.clone().any(|code| code != "None") && codes.all(passes) {
        Cancelled::Busy(failed)
    } else {
        Cancelled::Failed(failed)
    }
}

impl Store for Tables {
    async fn markers(&self, object: &str) -> Result<Vec<Marker>, Failed> {
        let request = self
            .client
            .query()
            .table_name(&self.ledger)
            .consistent_read(true)
            .key_condition_expression("#object = :object")
            .expression_attribute_names("#object", ledger::OBJECT)
            .expression_attribute_values(":object", text(object));
        let items: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        let items = items.map_err(|error| Failed::of("dynamodb:Query", &error))?;
        items
            .iter()
            .map(|item| marker(item).ok_or_else(|| Failed::new("the ledger holds an item that is no marker")))
            .collect()
    }

    async fn put(&self, object: &Subject, marker: &Marker) -> Result<Put, Failed> {
        let items = self.transaction(object, marker)?;
        let mut ceiling = FIRST_PAUSE;
        let mut last = Failed::new("not tried");
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

/// The marker that an item of the ledger is; nothing where it is none.
#[must_use]
pub fn marker(item: &HashMap<String, AttributeValue>) -> Option<Marker> {
    let number = |name: &str| item.get(name)?.as_n().ok()?.parse::<u32>().ok();
    let pair = |value: &AttributeValue| {
        let [event, hour, count] = value.as_l().ok()?.as_slice() else {
            return None;
        };
        Some((event.as_s().ok()?.clone(), hour.as_s().ok()?.clone(), count.as_n().ok()?.parse().ok()?))
    };
    Some(Marker {
        chunk: number(ledger::CHUNK)?,
        run: item.get(ledger::RUN)?.as_s().ok()?.clone(),
        first: number(ledger::FIRST)?,
        end: number(ledger::END)?,
        pairs: item.get(ledger::PAIRS)?.as_l().ok()?.iter().map(pair).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests;
