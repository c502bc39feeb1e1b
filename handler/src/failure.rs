//! Why an invocation failed: each kind has a name of its own, which Lambda shows and counts as the error's type.

use lambda_runtime::Diagnostic;

/// A failed invocation. Lambda runs it again, and hands it to the failure destination in the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What came is no notification of S3's.
    #[error("the event is not a notification of S3's: {why}")]
    Notification {
        /// What is wrong with it.
        why: String,
    },
    /// The object could not be read.
    #[error("failed to read object {object}: {why}")]
    Read {
        /// The object's bucket and key.
        object: String,
        /// What S3 answered.
        why: String,
    },
    /// The object's gzip stream is damaged or cut short.
    #[error("failed to inflate object {object}: {why}")]
    Inflate {
        /// The object's bucket and key.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// The object has more different pairs than fit into memory.
    #[error("failed to count object {object}: {why}")]
    TooManyPairs {
        /// The object's bucket and key.
        object: String,
        /// Which limit it breaks.
        why: String,
    },
    /// The counts could not be written.
    #[error("failed to count object {object}: {why}")]
    Count {
        /// The object's bucket and key.
        object: String,
        /// What DynamoDB answered.
        why: String,
    },
    /// Some objects of a notification failed; the others are counted.
    #[error("{} of {all} objects failed: {}", .failures.len(), join(.failures))]
    Several {
        /// How many objects the notification named.
        all: usize,
        /// What failed.
        failures: Vec<Failure>,
    },
}

fn join(failures: &[Failure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Failure {
    /// The error's type, as Lambda shows it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Notification { .. } => "NotificationUnknown",
            Self::Read { .. } => "ObjectUnreadable",
            Self::Inflate { .. } => "ObjectDamaged",
            Self::TooManyPairs { .. } => "TooManyPairs",
            Self::Count { .. } => "CountsUnwritable",
            Self::Several { .. } => "SeveralObjectsFailed",
        }
    }
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        Self { error_type: failure.name().to_owned(), error_message: failure.to_string() }
    }
}
