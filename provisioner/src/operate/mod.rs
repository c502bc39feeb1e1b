//! Commands that work on a pipeline that is there: on what lies in its bucket, its failure queue and its ledger.

pub mod backfill;
mod ledger;
pub mod objects;
pub mod replay;
pub mod rights;
pub mod status;
pub mod verify;

use std::future::Future;
use std::time::Duration;

use aws_sdk_lambda::config::timeout::TimeoutConfig;
use aws_sdk_lambda::operation::invoke::InvokeOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use serde_json::Value as Json;

use crate::aws::{Aws, AwsError, Call, Place};
use crate::config::Pipeline;
use crate::error::Error;
use crate::signal::{Signal, Stop};

/// What a synchronous invocation may take beyond the function's own limit: a cold start, and the way there and back.
const INVOCATION_MARGIN: Duration = Duration::from_secs(30);

/// The pipeline that is worked on, and where.
#[derive(Debug, Clone)]
pub struct Operator<'a> {
    /// The clients.
    pub aws: Aws,
    /// Account and region.
    pub place: Place,
    /// The declaration.
    pub pipeline: &'a Pipeline,
}

impl<'a> Operator<'a> {
    /// Connects, and refuses an account that is not the pipeline's.
    ///
    /// # Errors
    /// As [`Aws::connect`] and [`Aws::whereabouts`].
    pub async fn connect(pipeline: &'a Pipeline) -> Result<Self, Error> {
        let aws = Aws::connect(pipeline).await?;
        let place = aws.whereabouts(pipeline).await?;
        Ok(Self { aws, place, pipeline })
    }

    /// Runs the function with a notification: at once and to its end, or when Lambda gets to it.
    async fn invoke(&self, notification: &Json, how: InvocationType) -> Result<InvokeOutput, AwsError> {
        let limit = Duration::from_secs(u64::try_from(self.pipeline.function.timeout_seconds).unwrap_or_default());
        let request = self.aws.lambda.invoke().function_name(&self.pipeline.function.name);
        let request = request.payload(Blob::new(notification.to_string()));
        if how == InvocationType::Event {
            return request.invocation_type(how).send().await.call("lambda:InvokeFunction");
        }
        // The answer comes when the function has ended. That an attempt is repeated counts nothing twice.
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(limit + INVOCATION_MARGIN)
            .operation_timeout((limit + INVOCATION_MARGIN) * 2)
            .build();
        let patient = aws_sdk_lambda::config::Config::builder().timeout_config(timeouts);
        request.invocation_type(how).customize().config_override(patient).send().await.call("lambda:InvokeFunction")
    }
}

/// Says what was being done when a call failed, and what to do where the thing that it is about is not there.
fn failed(doing: impl Into<String>) -> impl FnOnce(AwsError) -> Error {
    let doing = doing.into();
    move |error| match error.code() {
        Some(
            code @ ("NoSuchBucket"
            | "ResourceNotFoundException"
            | "QueueDoesNotExist"
            | "AWS.SimpleQueueService.NonExistentQueue"),
        ) => Error::Refused {
            what: format!("failed to {doing}: it is not there ({} answered {code})", error.call),
            help: "run `provisioner apply` first, or check --config, --env and the credentials".to_owned(),
        },
        _ => Error::Aws { doing, source: Box::new(error) },
    }
}

/// Waits for `work`, unless a signal comes first.
async fn unless_stopped<T>(stop: &Stop, work: impl Future<Output = T>) -> Result<T, Signal> {
    tokio::select! {
        done = work => Ok(done),
        signal = stop.wait() => Err(signal),
    }
}

/// The form in which people and programs write times: RFC 3339 in UTC, to the second.
fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}
