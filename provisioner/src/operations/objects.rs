//! The objects in the bucket, and the notifications that S3 would have sent for them.

use std::collections::VecDeque;

use aws_sdk_s3::types::{EncodingType, ObjectVersion};
use counting::names::ledger::{self, NULL_VERSION};
use futures_util::stream::{self, Stream};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value as Json, json};

use super::failed;
use crate::aws::{Call, Session, absent_on, listing};
use crate::error::Error;

/// The characters that S3 escapes in the keys of notifications; a space becomes `+`.
const ESCAPE: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*').remove(b'/').remove(b' ');

/// An object, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) key: String,
    /// The version, if a notification would include one.
    pub(crate) version: Option<String>,
    /// The identity of the content in the ledger.
    pub(crate) identity: String,
    /// The size in bytes.
    pub(crate) size: i64,
    pub(crate) uploaded: Timestamp,
    /// True if its storage class has archives: it may have to be restored before it can be read.
    pub(crate) may_be_archived: bool,
}

/// The storage classes whose objects may be in an archive (S3 user guide, storage classes). Those of S3 Glacier Instant
/// Retrieval can be read at any time.
const ARCHIVES: [&str; 3] = ["GLACIER", "DEEP_ARCHIVE", "INTELLIGENT_TIERING"];

impl Object {
    /// Converts an entry of a listing; returns `None` if it lacks a key or an identity.
    fn listed(version: &ObjectVersion, encoding: Option<&EncodingType>) -> Option<Self> {
        let id = version.version_id().unwrap_or(NULL_VERSION);
        // An object uploaded without versioning can be read without a version ID until a later version exists.
        let needs_id = id != NULL_VERSION || version.is_latest() == Some(false);
        let uploaded = version.last_modified().and_then(|time| Timestamp::from_second(time.secs()).ok());
        Some(Self {
            key: listing::decoded(encoding, version.key()?),
            version: needs_id.then(|| id.to_owned()),
            identity: ledger::identity(Some(id), version.e_tag())?,
            size: version.size().unwrap_or_default(),
            uploaded: uploaded.unwrap_or(Timestamp::UNIX_EPOCH),
            may_be_archived: version.storage_class().is_some_and(|class| ARCHIVES.contains(&class.as_str())),
        })
    }
}

/// Returns the notification that S3 would send for these keys and versions.
fn notification<'a>(
    objects: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    bucket: &str,
    bucket_arn: &str,
    region: &str,
) -> Json {
    let record = |(key, version): (&str, Option<&str>)| {
        let key = utf8_percent_encode(key, &ESCAPE).to_string().replace(' ', "+");
        let mut object = json!({ "key": key });
        if let Some(version) = version {
            object["versionId"] = json!(version);
        }
        json!({
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": region,
            "eventName": "ObjectCreated:Put",
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "provisioner",
                "bucket": { "name": bucket, "arn": bucket_arn },
                "object": object,
            },
        })
    };
    json!({ "Records": objects.into_iter().map(record).collect::<Vec<_>>() })
}

/// The start of a page: after this version of this key, or after all versions of the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Cursor {
    key: Option<String>,
    version: Option<String>,
}

impl Cursor {
    /// Returns whether a version was on the previous page. Some stores begin a page with the last version of the
    /// previous one if it was uploaded without versioning.
    fn has_passed(&self, version: &ObjectVersion, encoding: Option<&EncodingType>) -> bool {
        let key = version.key().map(|key| listing::decoded(encoding, key));
        let same_key = self.key.is_some() && self.key == key;
        same_key && (self.version.is_none() || self.version.as_deref() == version.version_id())
    }
}

/// Returns the IAM action that a HEAD of an object needs, with a version or without.
pub(super) fn reading(version: Option<&str>) -> &'static str {
    if version.is_some() { "s3:GetObjectVersion" } else { "s3:GetObject" }
}

impl Session<'_> {
    /// Returns the notification that S3 would send for these keys of the bucket, each with the version that is meant, if
    /// there is one. With the name of a recount, the function counts them again.
    pub(super) fn notification<'a>(
        &self,
        objects: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
        recount: Option<&str>,
    ) -> Json {
        let bucket = &self.pipeline.bucket.name;
        let mut notification = notification(objects, bucket, &self.account.s3_arn(bucket), &self.account.region);
        if let Some(recount) = recount {
            notification[ledger::RECOUNT] = json!(recount);
        }
        notification
    }

    /// Returns whether an object is in an archive and not restored.
    pub(super) async fn is_archived(&self, object: &Object) -> Result<bool, Error> {
        let bucket = &self.pipeline.bucket.name;
        let request = self.aws.s3.head_object().bucket(bucket).key(&object.key).set_version_id(object.version.clone());
        let answer = request.expected_bucket_owner(&self.account.id).send().await;
        let answer =
            absent_on(answer.call(reading(object.version.as_deref())), &["NotFound", "NoSuchKey", "NoSuchVersion"]);
        let answer = answer.map_err(failed(format!("read object {} of bucket {bucket}", object.key)))?;
        // An object that was deleted meanwhile is reported by the function.
        let Some(answer) = answer else { return Ok(false) };
        let is_glacier =
            answer.storage_class().is_some_and(|class| matches!(class.as_str(), "GLACIER" | "DEEP_ARCHIVE"));
        let is_restored = answer.restore().is_some_and(|restore| restore.contains("ongoing-request=\"false\""));
        Ok((is_glacier || answer.archive_status().is_some()) && !is_restored)
    }

    /// Lists all versions of all objects under a prefix page by page in key order; starts after the key `after`, if
    /// given. Holds one page in memory.
    pub(super) fn pages<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<String>,
    ) -> impl Stream<Item = Result<VecDeque<Object>, Error>> + Send + 'a {
        let first = Cursor { key: after, version: None };
        stream::try_unfold(Some(first), move |cursor| async move {
            let Some(cursor) = cursor else { return Ok(None) };
            let bucket = &self.pipeline.bucket.name;
            // Works without versioning too, and distinguishes the versions of a bucket that once had it.
            let request = self.aws.s3.list_object_versions().bucket(bucket).prefix(prefix);
            let request = request.encoding_type(EncodingType::Url).expected_bucket_owner(&self.account.id);
            let request = request.set_key_marker(cursor.key.clone()).set_version_id_marker(cursor.version.clone());
            let page = request.send().await.call("s3:ListBucketVersions");
            let page = page.map_err(failed(format!("list bucket {bucket}")))?;
            let encoding = page.encoding_type();
            let new = page.versions().iter().filter(|version| !cursor.has_passed(version, encoding));
            let objects = new.filter_map(|version| Object::listed(version, encoding)).collect();
            let key = page.next_key_marker().map(|key| listing::decoded(encoding, key));
            let more = page.is_truncated == Some(true) && key.is_some();
            let next = more.then_some(Cursor { key, version: page.next_version_id_marker });
            Ok(Some((objects, next)))
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::primitives::DateTime;
    use proptest::prelude::*;

    use super::*;

    fn version(id: &str, is_latest: bool) -> Object {
        let version = ObjectVersion::builder().key("a b/ä+.gz").e_tag("\"tag\"").version_id(id).is_latest(is_latest);
        let version = version.last_modified(DateTime::from_secs(1_438_689_296)).size(7).build();
        Object::listed(&version, None).expect("an object")
    }

    #[test]
    fn listed_object_has_the_version_and_identity_of_its_notification() {
        let listed = |id: &str, is_latest| (version(id, is_latest).version, version(id, is_latest).identity);
        assert_eq!(listed("null", true), (None, "tag".to_owned()));
        assert_eq!(listed("null", false), (Some("null".to_owned()), "tag".to_owned()));
        assert_eq!(listed("v1", true), (Some("v1".to_owned()), "v1".to_owned()));
    }

    #[test]
    fn page_skips_versions_of_the_previous_page() {
        let version = |key: &str, id: &str| ObjectVersion::builder().key(key).version_id(id).build();
        let cursor = |id: Option<&str>| Cursor { key: Some("b".to_owned()), version: id.map(str::to_owned) };
        assert!(cursor(Some("1")).has_passed(&version("b", "1"), None));
        assert!(!cursor(Some("1")).has_passed(&version("b", "2"), None));
        assert!(cursor(None).has_passed(&version("b", "2"), None));
        assert!(!cursor(Some("1")).has_passed(&version("c", "1"), None));
        assert!(!Cursor::default().has_passed(&version("b", "1"), None));
        assert!(cursor(Some("1")).has_passed(&version("%62", "1"), Some(&EncodingType::Url)));
    }

    proptest! {
        #[test]
        fn notification_of_any_key_is_parsed_back_to_that_key(key in ".{1,40}") {
            let notification = notification([(key.as_str(), Some("v1"))], "b", "arn:aws:s3:::b", "us-east-1");
            let parsed = counting::notification::objects(notification).expect("a notification");
            prop_assert_eq!(&parsed[0].key, &key);
            prop_assert_eq!((parsed[0].bucket.as_str(), parsed[0].version.as_deref()), ("b", Some("v1")));
        }
    }
}
