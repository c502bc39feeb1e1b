//! The counts as a consumer is told them: the records of the ledger table's stream, as Lambda delivers them from the
//! stream itself or from the Kinesis stream to which DynamoDB copies it.
//!
//! Each transaction of the counter that adds something is told as one [`Batch`], at least once. Its counts are changes, and
//! negative if something is taken back: by a recount, or by `provisioner verify`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::amount::{Amount, Sum};
use crate::names::ledger;
use crate::plan::{Added, Pair};

/// The additions of one transaction. Each event and hour occurs at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The transaction's name, which no other has. A batch that is delivered again has the same.
    pub id: String,
    /// The additions.
    pub counted: Vec<Counted>,
}

/// The addition for an event in an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The [`Batch::id`] of its batch.
    pub object: String,
    /// The event's name.
    pub event: String,
    /// The UTC hour, such as `2015-08-04T12:00:00Z`.
    pub hour: String,
    /// The number of messages.
    pub count: i64,
    /// The sums of `rollup.sum`, by the path of the field.
    pub sums: BTreeMap<String, Sum>,
    /// The breakdowns of `rollup.by`, by the path of the field and by its value.
    pub by: BTreeMap<String, BTreeMap<String, Amount>>,
}

/// A batch with its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The record's sequence number, as an answer with `batchItemFailures` names it.
    pub sequence_number: String,
    /// The batch.
    pub batch: Batch,
}

/// The error for a payload that has no batches, or damaged ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsumerError {
    /// The payload is of another event source.
    #[error("the event is neither of a DynamoDB stream nor of a Kinesis stream")]
    Unknown,
    /// A record is not as the counter writes it.
    #[error("failed to read record {sequence_number}: {why}")]
    Damaged {
        /// The record's sequence number, as an answer with `batchItemFailures` names it.
        sequence_number: String,
        /// The reason.
        why: String,
    },
}

/// Returns all batches of a payload in its order.
///
/// # Errors
/// [`ConsumerError`] if the payload is of another event source or one of its records is damaged.
pub fn decode(payload: &Value) -> Result<Vec<Delivery>, ConsumerError> {
    deliveries(payload)?.collect()
}

/// Returns the batches of a payload one by one, so that those before a damaged record can be consumed.
///
/// # Errors
/// [`ConsumerError::Unknown`]
pub fn deliveries(
    payload: &Value,
) -> Result<impl Iterator<Item = Result<Delivery, ConsumerError>> + '_, ConsumerError> {
    let records = payload["Records"].as_array().ok_or(ConsumerError::Unknown)?;
    if !records.iter().all(|record| record["eventSource"] == DYNAMODB || record["eventSource"] == KINESIS) {
        return Err(ConsumerError::Unknown);
    }
    Ok(records.iter().filter_map(|record| delivery(record).transpose()))
}

/// The event sources, as Lambda names them.
const DYNAMODB: &str = "aws:dynamodb";
const KINESIS: &str = "aws:kinesis";

/// Returns the batch of a record; `None` for an item that adds nothing, and for one that was deleted.
fn delivery(record: &Value) -> Result<Option<Delivery>, ConsumerError> {
    let is_kinesis = record["eventSource"] == KINESIS;
    let number = match is_kinesis {
        true => &record["kinesis"]["sequenceNumber"],
        false => &record["dynamodb"]["SequenceNumber"],
    };
    let sequence_number = number.as_str().unwrap_or_default().to_owned();
    let batch = if is_kinesis {
        data(&record["kinesis"]["data"]).and_then(|record| batch(&record["dynamodb"]["NewImage"]))
    } else {
        batch(&record["dynamodb"]["NewImage"])
    };
    match batch {
        Ok(batch) => Ok(batch.map(|batch| Delivery { sequence_number, batch })),
        Err(why) => Err(ConsumerError::Damaged { sequence_number, why }),
    }
}

/// Returns the stream record in the data of a Kinesis record.
fn data(data: &Value) -> Result<Value, String> {
    let text = data.as_str().ok_or("it has no data")?;
    let bytes = STANDARD.decode(text).map_err(|error| format!("its data are not base64: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("its data are not JSON: {error}"))
}

/// Returns the batch of an item in DynamoDB's JSON.
fn batch(image: &Value) -> Result<Option<Batch>, String> {
    let added = &image[ledger::ADDED];
    if added.is_null() {
        return Ok(None);
    }
    let added = match (added["S"].as_str(), added["B"].as_str()) {
        (Some(text), _) => Added::Text(text.to_owned()),
        (None, Some(bytes)) => {
            Added::Bytes(STANDARD.decode(bytes).map_err(|error| format!("what was added is not base64: {error}"))?)
        }
        (None, None) => return Err("what was added is neither text nor bytes".to_owned()),
    };
    let pairs = added.pairs().map_err(|error| format!("what was added: {error}"))?;
    let object = image[ledger::OBJECT]["S"].as_str().ok_or("it has no name")?;
    let chunk = image[ledger::CHUNK]["N"].as_str().ok_or("it has no number")?;
    let id = format!("{object}/{chunk}");
    let counted = |(event, hour, amount): Pair| Counted {
        object: id.clone(),
        event,
        hour,
        count: amount.count,
        sums: amount.sums,
        by: amount.by,
    };
    let counted = pairs.into_iter().map(counted).collect();
    Ok(Some(Batch { id, counted }))
}

#[cfg(test)]
mod tests {
    use bigdecimal::BigDecimal;
    use serde_json::json;

    use super::*;

    const HOUR: &str = "2015-08-04T12:00:00Z";

    /// Returns a marker's item in DynamoDB's JSON.
    fn marker(chunk: u32, added: &str) -> Value {
        json!({
            "object": { "S": "plan:abc" }, "chunk": { "N": chunk.to_string() }, "written_at": { "N": "1438689600" },
            "added": { "S": added },
        })
    }

    fn from_dynamodb(sequence_number: &str, event: &str, image: &Value) -> Value {
        let record = json!({ "SequenceNumber": sequence_number, "StreamViewType": "NEW_IMAGE", "NewImage": image });
        json!({ "eventID": "1", "eventSource": "aws:dynamodb", "eventName": event, "dynamodb": record })
    }

    fn from_kinesis(sequence_number: &str, data: &str) -> Value {
        let record = json!({ "sequenceNumber": sequence_number, "partitionKey": "p", "data": STANDARD.encode(data) });
        json!({ "eventID": "shard:1", "eventSource": "aws:kinesis", "kinesis": record })
    }

    fn copied(event: &str, image: &Value) -> String {
        json!({ "eventName": event, "tableName": "ledger", "dynamodb": { "NewImage": image } }).to_string()
    }

    fn records(records: &[Value]) -> Value {
        json!({ "Records": records })
    }

    fn plain(event: &str, count: i64) -> String {
        json!([[event, HOUR, { "count": count }]]).to_string()
    }

    #[test]
    fn marker_is_told_alike_by_both_streams() {
        let image = marker(2, &plain("Order Completed", 3));
        let counted = Counted {
            object: "plan:abc/2".to_owned(),
            event: "Order Completed".to_owned(),
            hour: HOUR.to_owned(),
            count: 3,
            sums: BTreeMap::new(),
            by: BTreeMap::new(),
        };
        let batch = Batch { id: "plan:abc/2".to_owned(), counted: vec![counted] };
        let expected = vec![Delivery { sequence_number: "7".to_owned(), batch }];
        assert_eq!(decode(&records(&[from_dynamodb("7", "INSERT", &image)])), Ok(expected.clone()));
        assert_eq!(decode(&records(&[from_kinesis("7", &copied("INSERT", &image))])), Ok(expected));
    }

    #[test]
    fn long_batch_is_told_in_bytes() {
        let pairs: Vec<Pair> =
            (0..90).map(|n| (format!("{n}{}", "\u{1}".repeat(1_000)), HOUR.to_owned(), 1.into())).collect();
        let Added::Bytes(bytes) = Added::new(&pairs).expect("pairs") else { panic!("it is a text") };
        let mut image = marker(0, "");
        image["added"] = json!({ "B": STANDARD.encode(bytes) });
        let deliveries = decode(&records(&[from_dynamodb("7", "INSERT", &image)])).expect("one batch");
        assert_eq!(deliveries[0].batch.counted.len(), 90);
    }

    #[test]
    fn counts_sums_and_breakdowns_may_be_negative() {
        let sums = json!({ "properties.revenue": { "values": -1, "sum": "-19.990" } });
        let by = json!({ "properties.plan": { "pro": { "count": -2 }, "(none)": { "count": 1 } } });
        let added = json!([["Order Completed", HOUR, { "count": -1, "sums": sums, "by": by }]]).to_string();
        let payload = records(&[from_dynamodb("7", "MODIFY", &marker(0, &added))]);
        let deliveries = decode(&payload).expect("one batch");
        let counted = &deliveries[0].batch.counted[0];
        assert_eq!(counted.count, -1);
        let revenue = &counted.sums["properties.revenue"];
        let expected: BigDecimal = "-19.99".parse().expect("a number");
        assert_eq!((revenue.values, &revenue.sum), (-1, &expected));
        let plans = &counted.by["properties.plan"];
        assert_eq!((plans["pro"].count, plans["(none)"].count), (-2, 1));
    }

    #[test]
    fn items_that_add_nothing_are_left_out() {
        let claim = json!({ "object": { "S": "content:abc" }, "chunk": { "N": "0" }, "plan": { "S": "abc" } });
        let removed = json!({
            "eventSource": "aws:dynamodb", "eventName": "REMOVE",
            "dynamodb": { "SequenceNumber": "2", "OldImage": marker(0, &plain("a", 1)) },
        });
        let copy_of_removed = json!({ "eventName": "REMOVE", "dynamodb": { "OldImage": marker(0, &plain("a", 1)) } });
        let payload = records(&[
            from_dynamodb("1", "INSERT", &claim),
            removed,
            from_kinesis("3", &copied("INSERT", &claim)),
            from_kinesis("4", &copy_of_removed.to_string()),
        ]);
        assert_eq!(decode(&payload), Ok(Vec::new()));
    }

    #[test]
    fn damaged_record_is_named_after_the_batches_before_it() {
        let good = from_dynamodb("1", "INSERT", &marker(0, &plain("a", 1)));
        let damaged = [
            from_dynamodb("2", "INSERT", &marker(1, "[[\"a\"]]")),
            from_dynamodb("2", "INSERT", &json!({ "added": { "S": "[]" } })),
            from_dynamodb("2", "INSERT", &json!({ "added": { "N": "1" } })),
            from_kinesis("2", "no JSON"),
            json!({ "eventSource": "aws:kinesis", "kinesis": { "sequenceNumber": "2", "data": "!" } }),
        ];
        for damaged in damaged {
            let payload = records(&[good.clone(), damaged]);
            let error = decode(&payload).expect_err("a damaged record");
            assert!(error.to_string().contains("failed to read record 2: "), "{error}");
            let results: Vec<_> = deliveries(&payload).expect("a stream's payload").collect();
            assert!(results.len() == 2 && results[0].is_ok(), "{results:?}");
        }
    }

    #[test]
    fn payload_of_another_source_is_an_error() {
        let other = records(&[json!({ "eventSource": "aws:sqs", "body": "" })]);
        for payload in [other, json!({}), json!(null), json!("text")] {
            assert_eq!(decode(&payload), Err(ConsumerError::Unknown));
        }
    }
}
