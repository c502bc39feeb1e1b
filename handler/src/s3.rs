//! Objects as streams of bytes: the traits that the function reads through, and their implementation over S3.

use std::future::Future;

use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use counting::names::ledger;
use counting::notification::NotifiedObject;
use counting::protocol::StoreError;

use crate::error::{error_chain, sdk_error};

/// An open object.
pub struct ObjectStream<B> {
    /// The identity of its content: its version ID or its ETag.
    pub identity: String,
    /// The time at which S3 received it, in epoch seconds, if S3 returned one.
    pub uploaded_at: Option<i64>,
    /// Its bytes.
    pub body: B,
}

/// A source of objects.
pub trait Objects: Sync {
    /// The stream of an object's bytes.
    type Body: Body;

    /// Opens an object; returns `None` if it no longer exists.
    fn open(
        &self,
        object: &NotifiedObject,
    ) -> impl Future<Output = Result<Option<ObjectStream<Self::Body>>, StoreError>> + Send;
}

/// A stream of an object's bytes.
pub trait Body: Send {
    /// Returns the next bytes, or `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send;
}

/// Amazon S3.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: aws_sdk_s3::Client,
}

impl Bucket {
    /// Creates a source that uses this client.
    #[must_use]
    pub fn new(client: aws_sdk_s3::Client) -> Self {
        Self { client }
    }
}

impl Objects for Bucket {
    type Body = ByteStream;

    async fn open(&self, object: &NotifiedObject) -> Result<Option<ObjectStream<ByteStream>>, StoreError> {
        let request = self.client.get_object().bucket(&object.bucket).key(&object.key);
        let request = request.set_version_id(object.version.clone());
        let answer = match request.send().await {
            // S3 answers so only to a role that may list the bucket; to others, it denies access.
            Err(error) if matches!(error.code(), Some("NoSuchKey" | "NoSuchVersion")) => return Ok(None),
            answer => answer.map_err(|error| sdk_error("s3:GetObject", &error))?,
        };
        // The ETag of the content that is read, not that of the notification: the object may have been replaced in
        // between. Only the present content can be counted, and its own notification then finds it complete.
        let identity = ledger::identity(object.version.as_deref(), answer.e_tag.as_deref())
            .ok_or_else(|| StoreError::new("the response of S3 has neither version ID nor ETag"))?;
        Ok(Some(ObjectStream {
            identity,
            uploaded_at: answer.last_modified.map(|time| time.secs()),
            body: answer.body,
        }))
    }
}

impl Body for ByteStream {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        ByteStream::next(self)
            .await
            .transpose()
            .map_err(|error| StoreError::new(format!("failed to read the body: {}", error_chain(&error))))
    }
}
