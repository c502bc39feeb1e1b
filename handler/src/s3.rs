//! Objects as streams of bytes: the trait that the function reads through, and its implementation over S3.

use std::future::Future;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use counting::names::ledger;
use counting::notification::NotifiedObject;
use counting::protocol::StoreError;

use crate::error::{error_chain, sdk_error};

/// An object whose bytes are being read.
pub struct ObjectStream<B> {
    /// What identifies its content: its version, or its ETag.
    pub identity: String,
    /// When S3 got it, in epoch seconds, where S3 says.
    pub uploaded_at: Option<i64>,
    /// Its bytes.
    pub body: B,
}

/// Where objects are read from.
pub trait Objects: Sync {
    /// A stream of an object's bytes.
    type Body: Body;

    /// Opens an object.
    fn open(
        &self,
        object: &NotifiedObject,
    ) -> impl Future<Output = Result<ObjectStream<Self::Body>, StoreError>> + Send;
}

/// An object's bytes, as they come.
pub trait Body: Send {
    /// The next bytes, or none at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send;
}

/// Amazon S3.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: aws_sdk_s3::Client,
}

impl Bucket {
    /// Reads with this client.
    #[must_use]
    pub fn new(client: aws_sdk_s3::Client) -> Self {
        Self { client }
    }
}

impl Objects for Bucket {
    type Body = ByteStream;

    async fn open(&self, object: &NotifiedObject) -> Result<ObjectStream<ByteStream>, StoreError> {
        let request = self.client.get_object().bucket(&object.bucket).key(&object.key);
        let request = request.set_version_id(object.version.clone());
        let answer = request.send().await.map_err(|error| sdk_error("s3:GetObject", &error))?;
        // The ETag of what is read, not of what the notification told: between the two, the object may have been
        // replaced. The content that is there now is what can be counted, and its own notification finds it done.
        let identity = ledger::identity(object.version.as_deref(), answer.e_tag.as_deref())
            .ok_or_else(|| StoreError::new("S3's answer has neither version nor ETag"))?;
        Ok(ObjectStream { identity, uploaded_at: answer.last_modified.map(|time| time.secs()), body: answer.body })
    }
}

impl Body for ByteStream {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        ByteStream::next(self)
            .await
            .transpose()
            .map_err(|error| StoreError::new(format!("reading broke off: {}", error_chain(&error))))
    }
}
