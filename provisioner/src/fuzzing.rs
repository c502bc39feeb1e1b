//! The functions of the fuzz targets. Each panics if a promise is broken.

use aws_sdk_sqs::types::Message;
use serde_json::Value as Json;

use crate::operations::failure_queue::{Received, State};
use crate::reconcile::saved_plan::SavedPlan;

const BUCKET: &str = "events";

/// Parses a message of the failure queue.
///
/// # Panics
/// An object of another bucket is let through, or the text has control characters.
pub fn queue_record(body: &str) {
    let message = Message::builder().message_id("m").receipt_handle("r").body(body).build();
    let Some(Received { failure, objects, .. }) = Received::of(message, BUCKET) else { return };
    assert_eq!(objects.is_none(), matches!(failure.state, State::Unknown(_)));
    assert!(objects.into_iter().flatten().all(|object| object.bucket == BUCKET));
}

/// Parses a saved plan, and compares it with an empty one.
///
/// # Panics
/// The text of an error has control characters.
pub fn saved_plan(text: &str) {
    let error = match SavedPlan::parse("plan.json", text) {
        Err(error) => error,
        Ok(saved) => match saved.ensure_same(&Json::Null, false) {
            Err(error) => error,
            Ok(()) => return,
        },
    };
    let text = error.to_string();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}
