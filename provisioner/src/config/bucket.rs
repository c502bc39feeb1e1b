//! `[bucket]`

use serde::{Deserialize, Serialize};

use super::check::{Check, Maybe};
use super::key::{Key, key};
use super::rules;
use super::setting::Setting;

/// The value of `bucket.kms_key` for a bucket that is encrypted with S3's own keys instead of a KMS key.
pub(super) const S3_KEYS: &str = "AES256";

/// Returns the ARN of the KMS key that a value of `bucket.kms_key` names.
pub(crate) fn declared_key(value: Option<&str>) -> Option<&str> {
    value.filter(|key| *key != S3_KEYS)
}

/// The bucket to which Segment writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bucket {
    /// The bucket's name, global on AWS.
    pub(crate) name: String,
    /// True if S3 keeps old versions of objects.
    pub(crate) versioning: Setting<bool>,
    /// Days after which S3 deletes the objects below the notification's prefix.
    pub(crate) expire_days: Option<i32>,
    /// True if the bucket's policy denies plain HTTP.
    pub(crate) require_tls: bool,
    /// The ARN of the KMS key of the default encryption, or [`S3_KEYS`]; without a value, any encryption is kept.
    pub(crate) kms_key: Option<String>,
}

/// The ledger's items must outlive the objects: S3 expires them at the midnight after their last day, and deletes them
/// with a delay of some days; and those below an earlier prefix, which S3 does not expire any more, can be counted for
/// another four weeks (`resources/role/earlier_prefix.rs`).
const LEDGER_MARGIN_DAYS: u32 = 7 + 4 * 7;

impl Bucket {
    /// Returns the days after which what the ledger knows of an object may expire, if objects do.
    pub(crate) fn ledger_ttl_days(&self) -> Option<u32> {
        // An object of a bucket with versions is kept for the same time again as a noncurrent version. Somebody may
        // enable versioning, so the ledger of every bucket lasts that long.
        let days = u32::try_from(self.expire_days?).ok()?;
        Some(days.saturating_mul(2).saturating_add(LEDGER_MARGIN_DAYS))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    name: Maybe<String>,
    versioning: Option<bool>,
    expire_days: Maybe<i64>,
    require_tls: Option<bool>,
    kms_key: Maybe<String>,
}

/// The form of [`S3_KEYS`], or of the ARN of a key.
const KEY_FORM: &str = "^(AES256|arn:[^:]*:kms:[^:]*:[0-9]{12}:key/[A-Za-z0-9-]+)$";

pub(super) const KEYS: &[Key] = &[
    key("bucket.name", "name = \"acme-segment-events\"", "pipeline.name", "Name of the bucket, global on AWS.")
        .text(rules::BUCKET_NAME),
    key("bucket.versioning", "versioning = false", "false", "Keep old versions of objects."),
    key("bucket.expire_days", "expire_days = 90", "never", "Days after which S3 deletes the objects below the prefix.")
        .range(1, 36_500, "days"),
    key("bucket.require_tls", "require_tls = true", "true", "Deny plain HTTP in the bucket's policy."),
    key(
        "bucket.kms_key",
        "kms_key = \"arn:aws:kms:us-east-1:123456789012:key/EXAMPLE\"",
        "as the bucket is",
        "ARN of the KMS key with which S3 encrypts new objects, or \"AES256\" for S3's own keys.",
    )
    .form(KEY_FORM),
];

impl Raw {
    /// Returns whether the file names the bucket.
    pub(super) fn is_named(&self) -> bool {
        self.name.is_some()
    }

    pub(super) fn check(self, check: &mut Check<'_>, base: &str, region: Option<&str>) -> Bucket {
        Bucket {
            name: check.text(self.name, "bucket.name").unwrap_or_else(|| base.to_owned()),
            versioning: Setting::new(self.versioning, false),
            expire_days: check.number(self.expire_days, "bucket.expire_days"),
            require_tls: self.require_tls.unwrap_or(true),
            kms_key: check.text_by(self.kms_key, "bucket.kms_key", |arn| match arn {
                S3_KEYS => Ok(()),
                arn => rules::kms_key(arn, region),
            }),
        }
    }
}
