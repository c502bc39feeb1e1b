//! The desired and the live state of the bucket, in the form in which they are compared and shown.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_s3::types::{
    ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration,
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionRule, Tag,
};
use serde_json::{Value as Json, json};

use crate::config::Setting;
use crate::error::Error;

/// The ids of the owned policy statement and the owned lifecycle rule.
pub(super) const TLS_SID: &str = "PipelineDenyPlainHttp";
pub(super) const EXPIRE_RULE: &str = "pipeline-expire";

/// The desired state of a bucket.
#[derive(Debug, Clone)]
pub(in crate::resources) struct Bucket {
    pub(super) name: String,
    pub(super) arn: String,
    pub(super) account: String,
    pub(super) region: String,
    /// The pattern of all buckets' ARNs.
    pub(super) every_bucket: String,
    pub(super) versioning: Setting<bool>,
    pub(super) kms_key: Option<String>,
    pub(super) expire: Option<Expire>,
    pub(super) require_tls: bool,
    pub(super) tags: BTreeMap<String, String>,
}

/// The number of days after which the objects under a prefix expire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expire {
    pub(super) prefix: String,
    pub(super) days: i32,
}

/// The live state of a bucket.
#[derive(Debug, Default)]
pub(in crate::resources) struct Live {
    pub(super) public_access_block: BTreeSet<String>,
    pub(super) ownership: Option<String>,
    pub(super) encryption: Option<ServerSideEncryptionRule>,
    /// The grantees of the access control list other than the owner. Read only while access control lists are in use.
    pub(super) grantees: Vec<String>,
    pub(super) versioning: bool,
    pub(super) rules: Vec<LifecycleRule>,
    pub(super) policy: Option<Json>,
    pub(super) tags: BTreeMap<String, String>,
}

pub(super) fn aws_tags(tags: &BTreeMap<String, String>) -> Result<Vec<Tag>, Error> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build().map_err(Error::from)).collect()
}

/// Returns the four settings that together block all public access.
pub(super) fn all_blocked() -> BTreeSet<String> {
    ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"].map(str::to_owned).into()
}

impl Expire {
    pub(super) fn to_json(&self) -> Json {
        json!({ "prefix": self.prefix, "days": self.days, "noncurrent_days": self.days })
    }

    pub(super) fn rule(&self) -> Result<LifecycleRule, Error> {
        // Also of buckets without versioning, which somebody may enable.
        let old = NoncurrentVersionExpiration::builder().noncurrent_days(self.days).build();
        LifecycleRule::builder()
            .id(EXPIRE_RULE)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(&self.prefix).build())
            .expiration(LifecycleExpiration::builder().days(self.days).build())
            .noncurrent_version_expiration(old)
            .build()
            .map_err(Error::from)
    }
}

/// Returns the owned live rule in the form of [`Expire::to_json`], with its status if it is disabled, and with a key
/// for each setting that the pipeline does not use.
pub(super) fn live_rule_json(rules: &[LifecycleRule]) -> Option<Json> {
    let rule = rules.iter().find(|rule| rule.id() == Some(EXPIRE_RULE))?;
    // The old form of a rule has its prefix outside the filter.
    #[expect(deprecated, reason = "S3 returns the old form of rules that were put in it")]
    let old_prefix = rule.prefix();
    let mut json = json!({
        "prefix": rule.filter().and_then(LifecycleRuleFilter::prefix).or(old_prefix),
        "days": rule.expiration().and_then(LifecycleExpiration::days),
    });
    if let Some(days) = rule.noncurrent_version_expiration().and_then(NoncurrentVersionExpiration::noncurrent_days) {
        json["noncurrent_days"] = json!(days);
    }
    if *rule.status() != ExpirationStatus::Enabled {
        json["status"] = json!(rule.status().as_str());
    }
    let filter = rule.filter();
    let expiration = rule.expiration();
    let more = [
        ("transitions", !rule.transitions().is_empty()),
        ("noncurrent_transitions", !rule.noncurrent_version_transitions().is_empty()),
        ("abort_incomplete_uploads", rule.abort_incomplete_multipart_upload().is_some()),
        (
            "newer_versions_kept",
            rule.noncurrent_version_expiration().is_some_and(|e| e.newer_noncurrent_versions().is_some()),
        ),
        ("expiration_date", expiration.is_some_and(|e| e.date().is_some())),
        ("expired_markers", expiration.is_some_and(|e| e.expired_object_delete_marker() == Some(true))),
        (
            "more_filters",
            filter.is_some_and(|f| {
                f.tag().is_some()
                    || f.and().is_some()
                    || f.object_size_greater_than().is_some()
                    || f.object_size_less_than().is_some()
            }),
        ),
    ];
    for (setting, _) in more.into_iter().filter(|(_, exists)| *exists) {
        json[setting] = json!(true);
    }
    Some(json)
}

/// Returns the live encryption as it is shown: the algorithm, and the KMS key if there is one.
pub(super) fn encryption_text(rule: &ServerSideEncryptionRule) -> Option<String> {
    let default = rule.apply_server_side_encryption_by_default()?;
    let algorithm = default.sse_algorithm().as_str();
    Some(match kms_key(rule) {
        Some(key) => format!("{algorithm} {key}"),
        None => algorithm.to_owned(),
    })
}

/// Returns whether the default encryption uses KMS.
pub(super) fn is_kms(rule: &ServerSideEncryptionRule) -> bool {
    let algorithm = rule.apply_server_side_encryption_by_default().map(ServerSideEncryptionByDefault::sse_algorithm);
    matches!(algorithm, Some(ServerSideEncryption::AwsKms | ServerSideEncryption::AwsKmsDsse))
}

/// Returns the key of the default encryption, by ARN, id or alias. Without one, S3 uses the key `aws/s3`, which AWS
/// manages and everybody in the account may use through S3.
pub(super) fn kms_key(rule: &ServerSideEncryptionRule) -> Option<&str> {
    let key = rule.apply_server_side_encryption_by_default().and_then(|default| default.kms_master_key_id());
    key.filter(|key| !key.ends_with("alias/aws/s3"))
}

/// Returns the rules in the form with a filter. S3 refuses a configuration of both forms; an old rule's prefix means
/// the same as a filter's.
pub(super) fn with_filters(rules: Vec<LifecycleRule>) -> Vec<LifecycleRule> {
    let converted = |mut rule: LifecycleRule| {
        #[expect(deprecated, reason = "S3 returns the old form of rules that were put in it")]
        if let Some(prefix) = rule.prefix.take()
            && rule.filter.is_none()
        {
            rule.filter = Some(LifecycleRuleFilter::builder().prefix(prefix).build());
        }
        rule
    };
    rules.into_iter().map(converted).collect()
}
