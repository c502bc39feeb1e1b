//! The record of a counted object, as an item of the ledger table for any client that serializes with serde.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::hour;
use crate::protocol::Claim;
use crate::stats::{Skip, Stats};

/// An object that is counted: what it was, and what was counted of it. The fields are the attributes of
/// [`crate::names::ledger`]; absent numbers are zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name in the ledger, see [`crate::names::ledger::object_key`].
    pub object: String,
    /// Its content's name, see [`crate::names::ledger::content`].
    pub content: String,
    /// The name of the plan that added its content last; `None` if the content was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The object with the same content that was counted in its place, by its name in the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<String>,
    /// The name of the recount that counted it last, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recount: Option<String>,
    /// The time at which S3 received it, in epoch seconds, if S3 returned one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded_at: Option<i64>,
    /// Its size in S3 in bytes.
    #[serde(default)]
    pub size: u64,
    /// The number of messages, and of texts that are none.
    #[serde(default)]
    pub lines: u64,
    /// The number of its messages that are counted.
    #[serde(default)]
    pub events: u64,
    /// The number of its lines that should be counted but are not, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<String, u64>,
    /// The first of these lines: line number and reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_skipped: Vec<(u64, String)>,
    /// The number of its values that are not summed, by field and reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields_skipped: BTreeMap<String, u64>,
    /// The number of its messages that are counted as [`crate::rollup::OVERFLOW`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overflowed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Record {
    /// Returns the record with the statistics of the object's content.
    #[must_use]
    pub fn with_stats(mut self, stats: &Stats) -> Self {
        let name = |skip: Skip| skip.name().to_owned();
        let skips = stats.skips.iter().filter(|(skip, _)| !skip.is_on_purpose());
        self.lines = stats.lines;
        self.events = stats.events;
        self.skipped = skips.map(|(skip, count)| (name(*skip), *count)).collect();
        self.first_skipped = stats.first_skips.iter().map(|(line, skip)| (*line, name(*skip))).collect();
        self.overflowed = stats.overflowed;
        self.fields_skipped = stats.fields_skipped.clone();
        self
    }

    /// Returns the number of lines that should be counted but are not.
    #[must_use]
    pub fn skips(&self) -> u64 {
        self.skipped.values().sum()
    }
}

/// A record as an item of the ledger table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordItem {
    /// The record.
    #[serde(flatten)]
    pub record: Record,
    /// [`crate::names::ledger::CHUNK`].
    pub chunk: u32,
    /// The time at which it was written, in epoch seconds.
    pub written_at: u64,
    /// The UTC hour in which it was written, in the format of the counts table.
    pub counted_hour: String,
    /// The time, in epoch seconds, after which DynamoDB may delete it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

impl RecordItem {
    /// Creates the item of a record that is written at `now` (epoch seconds) and expires after `ttl_seconds`, if given.
    #[must_use]
    pub fn new(record: Record, now: u64, ttl_seconds: Option<u64>) -> Self {
        Self {
            record,
            chunk: 0,
            written_at: now,
            counted_hour: hour::format(i64::try_from(now / 3600).unwrap_or(i64::MAX)),
            expires_at: ttl_seconds.map(|ttl| now.saturating_add(ttl)),
        }
    }
}

/// A claim as an item of the ledger table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimItem {
    /// [`crate::names::ledger::content`].
    pub object: String,
    /// The generation.
    pub chunk: u32,
    /// The plan's name; empty if the content was taken back.
    pub plan: String,
    /// The number of the plan's chunks.
    pub chunks: u32,
    /// The object that was read, by its name in the ledger.
    pub claimed_with: String,
    /// The time at which it was written, in epoch seconds.
    pub written_at: u64,
    /// The time, in epoch seconds, after which DynamoDB may delete it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

impl ClaimItem {
    /// Creates the item of a claim that is written at `now` (epoch seconds) and expires after `ttl_seconds`, if given.
    #[must_use]
    pub fn new(claim: &Claim, now: u64, ttl_seconds: Option<u64>) -> Self {
        Self {
            object: claim.content.clone(),
            chunk: claim.generation,
            plan: claim.plan.clone(),
            chunks: claim.chunks,
            claimed_with: claim.object.clone(),
            written_at: now,
            expires_at: ttl_seconds.map(|ttl| now.saturating_add(ttl)),
        }
    }

    /// Returns the claim, as it is read at `now` (epoch seconds).
    #[must_use]
    pub fn into_claim(self, now: u64) -> Claim {
        Claim {
            has_expired: self.expires_at.is_some_and(|at| at <= now),
            content: self.object,
            generation: self.chunk,
            plan: self.plan,
            chunks: self.chunks,
            object: self.claimed_with,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn item_of_a_record_has_the_attributes_of_the_index() {
        let record = Record { object: "bucket/key#etag".to_owned(), uploaded_at: Some(7100), ..Record::default() };
        let item = serde_json::to_value(RecordItem::new(record.clone(), 7200, Some(60))).expect("JSON");
        let expected = json!({
            "object": "bucket/key#etag", "chunk": 0, "content": "", "uploaded_at": 7100, "size": 0, "lines": 0,
            "events": 0, "written_at": 7200, "counted_hour": "1970-01-01T02:00:00Z", "expires_at": 7260,
        });
        assert_eq!(item, expected);
        assert_eq!(serde_json::from_value::<RecordItem>(item).expect("an item").record, record);
    }

    #[test]
    fn claim_is_read_as_written_and_expires() {
        let claim = Claim {
            content: "content:a".to_owned(),
            generation: 1,
            plan: "plan".to_owned(),
            chunks: 3,
            object: "bucket/key#etag".to_owned(),
            has_expired: false,
        };
        let item = ClaimItem::new(&claim, 7200, Some(60));
        assert_eq!(item.clone().into_claim(7259), claim);
        assert!(item.into_claim(7260).has_expired);
    }
}
