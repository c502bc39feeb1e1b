//! A marker as an item of the ledger table, for any client that serializes with serde.

use serde::{Deserialize, Serialize};

use crate::hour;
use crate::ledger::Marker;
use crate::protocol::ObjectId;

/// An item of the ledger table; its fields are the attributes of [`crate::names::ledger`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    object: String,
    chunk: u32,
    run: String,
    first: u32,
    end: u32,
    /// Absent if the query projected only the other attributes.
    pairs: Option<Vec<(String, String, i64)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counted_hour: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uploaded_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overflowed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

impl Item {
    /// Creates the item of a marker that is written at `now` (epoch seconds) and expires after `ttl_seconds`, if given.
    #[must_use]
    pub fn new(object: &ObjectId, marker: &Marker, now: u64, ttl_seconds: Option<u64>) -> Self {
        let is_last = marker.is_last();
        Self {
            object: object.name.clone(),
            chunk: marker.chunk,
            run: marker.run.clone(),
            first: marker.first,
            end: marker.end,
            pairs: Some(marker.pairs.clone()),
            written_at: Some(now),
            counted_hour: is_last.then(|| hour::format(i64::try_from(now / 3600).unwrap_or(i64::MAX))),
            uploaded_at: object.uploaded_at.filter(|_| is_last),
            overflowed: (is_last && object.overflowed > 0).then_some(object.overflowed),
            expires_at: ttl_seconds.map(|ttl| now.saturating_add(ttl)),
        }
    }

    /// Returns the object's name in the ledger.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Returns the marker, or `None` if the item has no pairs.
    #[must_use]
    pub fn into_marker(self) -> Option<Marker> {
        let Self { chunk, run, first, end, pairs, .. } = self;
        Some(Marker { chunk, run, first, end, pairs: pairs? })
    }

    /// Returns the marker without its pairs: enough to decide whether the object is complete.
    #[must_use]
    pub fn into_marker_without_pairs(self) -> Marker {
        let Self { chunk, run, first, end, .. } = self;
        Marker { chunk, run, first, end, pairs: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::names::ledger;

    #[test]
    fn item_of_a_last_marker_has_every_ledger_attribute() {
        let object = ObjectId { name: "bucket/key#etag".to_owned(), uploaded_at: Some(1), overflowed: 2 };
        let marker = Marker { chunk: 0, run: "run".to_owned(), first: 0, end: 1, pairs: Vec::new() };
        let item = serde_json::to_value(Item::new(&object, &marker, 7200, Some(60))).expect("JSON");
        let names: BTreeSet<&str> = item.as_object().expect("an object").keys().map(String::as_str).collect();
        let expected = [
            ledger::OBJECT,
            ledger::CHUNK,
            ledger::RUN,
            ledger::FIRST,
            ledger::END,
            ledger::PAIRS,
            ledger::WRITTEN_AT,
            ledger::COUNTED_HOUR,
            ledger::UPLOADED_AT,
            ledger::OVERFLOWED,
            ledger::EXPIRES_AT,
        ];
        assert_eq!(names, expected.into());
        assert_eq!(item[ledger::COUNTED_HOUR], "1970-01-01T02:00:00Z");
        assert_eq!(
            (&item[ledger::EXPIRES_AT], &item[ledger::PAIRS]),
            (&Value::from(7260), &Value::from(Vec::<u8>::new()))
        );
    }
}
