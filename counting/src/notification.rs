//! The notifications that S3 sends, directly or through the queue: the objects to count.

use percent_encoding::percent_decode;
use serde::Deserialize;
use serde_json::Value;

use crate::names;

/// An object that S3 reports as created.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NotifiedObject {
    /// The bucket's name.
    pub bucket: String,
    /// The object's key, decoded.
    pub key: String,
    /// The object's version ID, if the bucket is versioned.
    pub version: Option<String>,
}

/// The error for a payload that is not an S3 notification, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event is not an S3 notification: {0}")]
pub struct NotificationError(String);

#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventName", default)]
    event_name: String,
    s3: S3,
}

#[derive(Deserialize)]
struct S3 {
    bucket: Bucket,
    object: Key,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Key {
    key: String,
    #[serde(rename = "versionId")]
    version: Option<String>,
}

/// A notification, with what is known of its delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The message's ID in the queue; empty without a queue.
    pub id: String,
    /// The message's text and the ARN of its queue; empty without a queue.
    pub body: String,
    /// See [`Message::body`].
    pub queue_arn: String,
    /// Whether it was delivered before.
    pub is_repeated: bool,
    /// The name of the recount for which its objects are counted again although they are recorded.
    pub recount: Option<String>,
    /// The objects in the notification's order, without duplicates.
    pub objects: Result<Vec<NotifiedObject>, NotificationError>,
}

#[derive(Deserialize)]
struct Batch {
    #[serde(rename = "Records")]
    records: Vec<Delivered>,
}

/// A message as the event source mapping of a queue passes it (Lambda developer guide, using Lambda with SQS).
#[derive(Deserialize)]
struct Delivered {
    #[serde(rename = "messageId")]
    id: String,
    body: String,
    #[serde(rename = "eventSourceARN", default)]
    queue_arn: String,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Deserialize, Default)]
struct Attributes {
    #[serde(rename = "ApproximateReceiveCount", default)]
    receive_count: String,
}

/// Returns whether an event is a batch of messages from a queue, and the notifications in it.
///
/// # Errors
/// [`NotificationError`] if the event is neither a notification nor a batch. A message that is no notification does not
/// fail the others.
pub fn messages(event: Value) -> Result<(bool, Vec<Message>), NotificationError> {
    let is_batch = event["Records"].as_array().is_some_and(|all| all.iter().any(|one| one["eventSource"] == "aws:sqs"));
    if !is_batch {
        let recount = recount(&event);
        let objects = Ok(objects(event)?);
        let (id, body, queue_arn) = (String::new(), String::new(), String::new());
        return Ok((false, vec![Message { id, body, queue_arn, is_repeated: false, recount, objects }]));
    }
    let batch: Batch = serde_json::from_value(event).map_err(|error| NotificationError(error.to_string()))?;
    let message = |delivered: Delivered| {
        let body = serde_json::from_str(&delivered.body).map_err(|error| NotificationError(error.to_string()));
        Message {
            id: delivered.id,
            queue_arn: delivered.queue_arn,
            is_repeated: delivered.attributes.receive_count.parse::<u32>().is_ok_and(|count| count > 1),
            recount: body.as_ref().ok().and_then(recount),
            objects: body.and_then(objects),
            body: delivered.body,
        }
    };
    Ok((true, batch.records.into_iter().map(message).collect()))
}

/// Returns the name of the recount that a notification asks for. S3's own never do.
#[must_use]
pub fn recount(notification: &Value) -> Option<String> {
    notification[names::ledger::RECOUNT].as_str().map(str::to_owned)
}

/// Returns the objects of a notification in its order, without duplicates.
///
/// # Errors
/// [`NotificationError`] if the payload is not an S3 notification.
pub fn objects(payload: Value) -> Result<Vec<NotifiedObject>, NotificationError> {
    // S3 sends a test event when a notification is configured. It names no object.
    if payload.get("Event").and_then(Value::as_str) == Some("s3:TestEvent") {
        return Ok(Vec::new());
    }
    let notification: Notification =
        serde_json::from_value(payload).map_err(|error| NotificationError(error.to_string()))?;
    let mut objects = Vec::with_capacity(notification.records.len());
    for record in notification.records {
        // A removed object cannot be counted. Some senders prefix event names with `s3:`.
        let name = record.event_name.trim_start_matches("s3:");
        if !(name.is_empty() || name.starts_with("ObjectCreated")) {
            continue;
        }
        let object = NotifiedObject {
            bucket: record.s3.bucket.name,
            key: decode(&record.s3.object.key)?,
            version: record.s3.object.version.filter(|version| !version.is_empty()),
        };
        if !objects.contains(&object) {
            objects.push(object);
        }
    }
    Ok(objects)
}

/// Decodes a key. Keys are form-encoded: `+` for a space, percent-encoding for the rest.
fn decode(key: &str) -> Result<String, NotificationError> {
    let spaced: Vec<u8> = key.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    match percent_decode(&spaced).decode_utf8() {
        Ok(key) => Ok(key.into_owned()),
        Err(_) => Err(NotificationError("a key is not UTF-8".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(key: &str) -> Value {
        json!({ "eventName": "ObjectCreated:Put", "s3": { "bucket": { "name": "b" }, "object": { "key": key } } })
    }

    #[test]
    fn object_key_is_form_decoded() {
        let objects = objects(json!({ "Records": [record("in/red+flower%2B%C3%A9.jpg")] })).expect("a notification");
        assert_eq!(objects[0].key, "in/red flower+é.jpg");
    }

    #[test]
    fn repeated_record_is_returned_once() {
        let objects = objects(json!({ "Records": [record("a"), record("b"), record("a")] })).expect("a notification");
        assert_eq!(objects.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn test_event_and_removal_have_no_objects() {
        let test = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b" });
        assert_eq!(objects(test).expect("a test event"), []);
        let mut removed = record("a");
        removed["eventName"] = json!("ObjectRemoved:Delete");
        assert_eq!(objects(json!({ "Records": [removed] })).expect("a notification"), []);
    }

    #[test]
    fn payload_without_the_form_of_a_notification_is_an_error() {
        for payload in [json!(null), json!({}), json!({ "Records": 1 }), json!({ "Records": [{}] }), json!([1])] {
            assert!(objects(payload.clone()).is_err(), "{payload}");
        }
        assert!(objects(json!({ "Records": [record("%FF")] })).is_err());
    }

    #[test]
    fn batch_has_the_notification_of_each_message() {
        let message = |id: &str, received: &str, body: String| {
            json!({
                "messageId": id, "eventSource": "aws:sqs", "body": body,
                "attributes": { "ApproximateReceiveCount": received },
            })
        };
        let again = json!({ "Records": [record("b")], "recount": "today" });
        let (is_batch, messages) = messages(json!({ "Records": [
            message("1", "1", json!({ "Records": [record("a")] }).to_string()),
            message("2", "2", again.to_string()),
            message("3", "1", "hello".to_owned()),
        ] }))
        .expect("a batch");
        assert!(is_batch);
        let of = |message: &Message| {
            (message.id.clone(), message.is_repeated, message.recount.is_some(), message.objects.is_ok())
        };
        let known: Vec<_> = messages.iter().map(of).collect();
        let expected = [("1", false, false, true), ("2", true, true, true), ("3", false, false, false)];
        assert_eq!(known, expected.map(|(id, repeated, recounts, ok)| (id.to_owned(), repeated, recounts, ok)));
    }

    #[test]
    fn event_that_is_no_batch_is_one_notification() {
        let (is_batch, messages) = messages(json!({ "Records": [record("a")] })).expect("a notification");
        assert!(!is_batch && messages[0].recount.is_none() && !messages[0].is_repeated);
        assert_eq!(messages[0].objects.as_ref().map(Vec::len), Ok(1));
        assert!(super::messages(json!({ "Records": [{ "eventSource": "aws:sqs" }] })).is_err());
    }
}
