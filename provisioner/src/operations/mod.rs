//! Operations on a deployed pipeline: on its bucket, its failure queue and its ledger. They print nothing.

pub(crate) mod adopt;
pub(crate) mod backfill;
pub(crate) mod checks;
pub(crate) mod failure_queue;
pub(crate) mod function_log;
pub(crate) mod iam_policies;
mod ledger;
pub(crate) mod log_reading;
mod objects;
pub(crate) mod outputs;
pub(crate) mod pause;
pub(crate) mod permissions;
pub(crate) mod replay;
pub(crate) mod status;
mod take_back;
pub(crate) mod trust;
pub(crate) mod verify;

use std::time::Duration;

use aws_sdk_lambda::config::timeout::TimeoutConfig;
use aws_sdk_lambda::operation::invoke::InvokeOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use serde_json::Value as Json;

use crate::aws::{AwsError, Call, Session};
use crate::error::Error;

/// The time that a synchronous invocation may take beyond the function's timeout: a cold start and the network.
const INVOCATION_MARGIN: Duration = Duration::from_secs(30);

impl Session<'_> {
    /// Invokes the function with a notification: synchronously, or asynchronously ([`InvocationType::Event`]).
    async fn invoke(&self, notification: &Json, mode: InvocationType) -> Result<InvokeOutput, AwsError> {
        let limit = Duration::from_secs(u64::try_from(self.pipeline.function.timeout_seconds).unwrap_or_default());
        let request = self.aws.lambda.invoke().function_name(&self.pipeline.function.name);
        let request = request.payload(Blob::new(notification.to_string()));
        if mode == InvocationType::Event {
            return request.invocation_type(mode).send().await.call("lambda:InvokeFunction");
        }
        // The response arrives only after the function has ended. A retry is idempotent: it counts nothing twice.
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(limit + INVOCATION_MARGIN)
            .operation_timeout((limit + INVOCATION_MARGIN) * 2)
            .build();
        let patient = aws_sdk_lambda::config::Config::builder().timeout_config(timeouts);
        request.invocation_type(mode).customize().config_override(patient).send().await.call("lambda:InvokeFunction")
    }
}

/// Converts the error of a call; a missing resource gets its own help text. `doing` completes "failed to".
fn failed(doing: impl Into<String>) -> impl FnOnce(AwsError) -> Error {
    let doing = doing.into();
    move |error| match error.code() {
        Some(code) if error.is_missing_index() => Error::not_found(
            format!("failed to {doing}: its index does not exist ({} answered {code})", error.call),
            "run `provisioner apply` first, which adds the index",
        ),
        Some(
            code @ ("NoSuchBucket"
            | "ResourceNotFoundException"
            | "QueueDoesNotExist"
            | "AWS.SimpleQueueService.NonExistentQueue"),
        ) => Error::not_found(
            format!("failed to {doing}: it does not exist ({} answered {code})", error.call),
            "run `provisioner apply` first, or check --config, --env and the credentials",
        ),
        _ => error.while_doing(doing),
    }
}

/// Formats a time in epoch seconds as RFC 3339 in UTC.
fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}
