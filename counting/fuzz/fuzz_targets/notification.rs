//! Any payload is a notification or an error, and its objects are found again in a notification of their keys.
#![no_main]

use counting::notification;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|bytes: &[u8]| {
    let Ok(payload) = serde_json::from_slice::<Value>(bytes) else { return };
    let Ok(objects) = notification::objects(payload) else { return };
    let record = |object: &notification::NotifiedObject| {
        // Every byte escaped: the strictest sender.
        let key: String = object.key.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let version = object.version.as_deref();
        json!({ "s3": { "bucket": { "name": object.bucket }, "object": { "key": key, "versionId": version } } })
    };
    let again = json!({ "Records": objects.iter().map(record).collect::<Vec<_>>() });
    assert_eq!(notification::objects(again).expect("a notification"), objects);
});
