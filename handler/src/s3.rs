//! Objects as streams of bytes: the traits that the function reads through, and their implementation over S3.

use std::future::Future;

use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use counting::names::ledger;
use counting::notification::NotifiedObject;
use counting::protocol::StoreError;

use crate::error::{error_chain, sdk_error};
use crate::settings::Settings;

/// An open object.
pub struct ObjectStream<B> {
    /// The identity of its content: its version ID or its ETag.
    pub identity: String,
    /// The time at which S3 received it, in epoch seconds, if S3 returned one.
    pub uploaded_at: Option<i64>,
    /// Its size in S3 in bytes.
    pub size: u64,
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

/// The pipeline's bucket in Amazon S3.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: aws_sdk_s3::Client,
    name: String,
    owner: String,
}

impl Bucket {
    /// Creates a source of the objects in the bucket of these settings.
    #[must_use]
    pub fn new(client: aws_sdk_s3::Client, settings: &Settings) -> Self {
        Self { client, name: settings.bucket.clone(), owner: settings.bucket_owner.clone() }
    }
}

impl Objects for Bucket {
    type Body = ByteStream;

    async fn open(&self, object: &NotifiedObject) -> Result<Option<ObjectStream<ByteStream>>, StoreError> {
        let request = self.client.get_object().bucket(&self.name).expected_bucket_owner(&self.owner);
        let request = request.key(&object.key).set_version_id(object.version.clone());
        let answer = match request.send().await {
            // S3 answers so only to a role that may list the bucket; to others, it denies access.
            Err(error) if matches!(error.code(), Some("NoSuchKey" | "NoSuchVersion")) => return Ok(None),
            answer => answer.map_err(|error| sdk_error("s3:GetObject", &error))?,
        };
        // The identity of the content that is read, as S3 answers it, and not what the notification says: that may be
        // forged, and lacks the version if versioning was enabled since. The object may also have been replaced in
        // between: only the present content can be counted, and its own notification then finds it complete.
        let identity = ledger::identity(answer.version_id.as_deref(), answer.e_tag.as_deref())
            .ok_or_else(|| StoreError::new("the response of S3 has neither version ID nor ETag"))?;
        Ok(Some(ObjectStream {
            identity,
            uploaded_at: answer.last_modified.map(|time| time.secs()),
            size: answer.content_length.and_then(|size| size.try_into().ok()).unwrap_or_default(),
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
