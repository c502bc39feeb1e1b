//! `[bucket]`

use serde::{Deserialize, Serialize};

use super::check::{Check, Maybe};
use super::key::{Key, key};
use super::rules;

/// The bucket to which Segment writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bucket {
    /// The bucket's name, global on AWS.
    pub(crate) name: String,
    /// True if S3 keeps old versions of objects.
    pub(crate) versioning: bool,
    /// Days after which S3 deletes the objects below the notification's prefix.
    pub(crate) expire_days: Option<i32>,
    /// True if the bucket's policy denies plain HTTP.
    pub(crate) require_tls: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    name: Maybe<String>,
    versioning: Option<bool>,
    expire_days: Maybe<i64>,
    require_tls: Option<bool>,
}

pub(super) const KEYS: &[Key] = &[
    key("bucket.name", "name = \"acme-segment-events\"", "pipeline.name", "Name of the bucket, global on AWS."),
    key("bucket.versioning", "versioning = false", "false", "Keep old versions of objects."),
    key("bucket.expire_days", "expire_days = 90", "", "Days after which S3 deletes the objects below the prefix."),
    key("bucket.require_tls", "require_tls = true", "true", "Deny plain HTTP in the bucket's policy."),
];

impl Raw {
    /// Returns whether the file names the bucket.
    pub(super) fn is_named(&self) -> bool {
        self.name.is_some()
    }

    pub(super) fn check(self, check: &mut Check<'_>, base: &str) -> Bucket {
        Bucket {
            name: check.text(self.name, "bucket.name", rules::bucket_name).unwrap_or_else(|| base.to_owned()),
            versioning: self.versioning.unwrap_or(false),
            expire_days: check.number(self.expire_days, "bucket.expire_days", 1, 36_500, "days"),
            require_tls: self.require_tls.unwrap_or(true),
        }
    }
}
