//! The notification that S3 sends: the objects to count.

use percent_encoding::percent_decode;
use serde::Deserialize;
use serde_json::Value;

/// An object that S3 reports as created.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}
