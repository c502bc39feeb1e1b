//! The errors of an invocation. Each kind has its own name, which Lambda reports as the error's type.

use std::error::Error as StdError;
use std::fmt;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use counting::notification::NotificationError;
use counting::protocol::StoreError;
use lambda_runtime::Diagnostic;

/// A failed invocation. Lambda retries it, and finally sends it to the failure queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The payload is not an S3 notification.
    #[error(transparent)]
    Notification(#[from] NotificationError),
    /// The object is in a bucket that is not the pipeline's.
    #[error("object {object} is not counted: only objects in bucket {bucket} are")]
    OtherBucket {
        /// The object's bucket and key.
        object: String,
        /// The pipeline's bucket.
        bucket: String,
    },
    /// The object could not be read.
    #[error("failed to read object {object}: {why}")]
    Read {
        /// The object's bucket and key.
        object: String,
        /// The error from S3.
        why: String,
    },
    /// The object was deleted before it was counted, or is not visible to the function.
    #[error("object {object} no longer exists")]
    Gone {
        /// The object's bucket and key.
        object: String,
    },
    /// The invocation has too little time left for the object.
    #[error("object {object} is not counted yet: the invocation has too little time left")]
    OutOfTime {
        /// The object's bucket and key.
        object: String,
    },
    /// The object's gzip stream is damaged or cut short.
    #[error("failed to inflate object {object}: {why}")]
    Inflate {
        /// The object's bucket and key.
        object: String,
        /// The error of the decoder.
        why: String,
    },
    /// The object is not text of messages.
    #[error("failed to count object {object}: {why}")]
    NotMessages {
        /// The object's bucket and key.
        object: String,
        /// The format that was found instead.
        why: String,
    },
    /// The counts could not be written.
    #[error("failed to count object {object}: {why}")]
    Count {
        /// The object's bucket and key.
        object: String,
        /// The error from DynamoDB.
        why: String,
    },
    /// Objects of a notification failed; the rest are counted.
    #[error("{} of {all} objects failed: {}", .errors.len(), join(.errors))]
    Several {
        /// The number of objects in the notification.
        all: usize,
        /// The error of each failed object.
        errors: Vec<Error>,
    },
}

fn join(errors: &[Error]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Error {
    /// Returns the error's type, as Lambda reports it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Notification(_) => "NotificationUnknown",
            Self::OtherBucket { .. } => "BucketUnknown",
            Self::Read { .. } => "ObjectUnreadable",
            Self::Gone { .. } => "ObjectGone",
            Self::OutOfTime { .. } => "OutOfTime",
            Self::Inflate { .. } => "ObjectDamaged",
            Self::NotMessages { .. } => "NotMessages",
            Self::Count { .. } => "CountsUnwritable",
            Self::Several { .. } => "SeveralObjectsFailed",
        }
    }
}

impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        Self { error_type: error.name().to_owned(), error_message: error.to_string() }
    }
}

/// Returns an error with the service's response to `call` in one line, or with the causes if there was no response.
pub(crate) fn sdk_error<E, R>(call: &str, error: &SdkError<E, R>) -> StoreError
where
    E: ProvideErrorMetadata + StdError + 'static,
    R: fmt::Debug + 'static,
{
    let meta = error.as_service_error().map(ProvideErrorMetadata::meta);
    match meta.and_then(|meta| meta.code().map(|code| (code, meta.message().unwrap_or_default()))) {
        Some((code, message)) => StoreError::new(format!("{call} answered {code}: {message}")),
        None => StoreError::new(format!("{call} failed: {}", error_chain(error))),
    }
}

/// Formats an error and its causes in one line.
pub(crate) fn error_chain(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
