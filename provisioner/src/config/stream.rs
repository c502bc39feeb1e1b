//! `[stream]`

use serde::{Deserialize, Serialize};

use super::check::{Check, Maybe};
use super::key::{Key, key};
use super::rules;
use super::setting::Setting;

/// The hours for which a new stream keeps records.
const DEFAULT_HOURS: i32 = 24;

/// The stream to which DynamoDB copies every change of the ledger.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Stream {
    /// The stream's name.
    pub(crate) name: String,
    /// Hours for which Kinesis keeps the records.
    pub(crate) retention_hours: Setting<i32>,
    /// The ARN of the KMS key that encrypts the records; without one, Kinesis's own key.
    pub(crate) kms_key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    name: Maybe<String>,
    retention_hours: Maybe<i64>,
    kms_key: Maybe<String>,
}

/// The bounds of the retention are Kinesis's (API reference, DecreaseStreamRetentionPeriod and
/// IncreaseStreamRetentionPeriod).
pub(super) const KEYS: &[Key] = &[
    key(
        "stream.name",
        "name = \"segment-events-stream\"",
        "NAME-stream",
        "Name of the stream of the ledger's changes; the section creates it.",
    )
    .text(rules::STREAM_NAME),
    key("stream.retention_hours", "retention_hours = 24", "24", "Hours for which Kinesis keeps the records.")
        .range(24, 8_760, "hours"),
    key(
        "stream.kms_key",
        "kms_key = \"arn:aws:kms:us-east-1:123456789012:key/EXAMPLE\"",
        "Kinesis's key",
        "ARN of the KMS key with which Kinesis encrypts the records.",
    )
    .form(rules::KMS_KEY_FORM),
];

impl Raw {
    pub(super) fn check(self, check: &mut Check<'_>, base: &str, region: Option<&str>) -> Stream {
        let hours = check.number(self.retention_hours, "stream.retention_hours");
        Stream {
            name: check.text(self.name, "stream.name").unwrap_or_else(|| format!("{base}-stream")),
            retention_hours: Setting::new(hours, DEFAULT_HOURS),
            kms_key: check.text_by(self.kms_key, "stream.kms_key", |arn| rules::kms_key(arn, region)),
        }
    }
}
