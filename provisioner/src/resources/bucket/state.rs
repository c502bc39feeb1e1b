//! The desired and the live state of the bucket, in the form in which they are compared and shown.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_s3::types::{
    ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration, Tag,
};
use serde_json::{Value as Json, json};

use crate::error::Error;

/// The policy statement and the lifecycle rule that are ours.
pub(super) const TLS_SID: &str = "PipelineDenyPlainHttp";
pub(super) const EXPIRE_RULE: &str = "pipeline-expire";

/// A bucket, as declared.
#[derive(Debug, Clone)]
pub(in crate::resources) struct Bucket {
    pub(super) name: String,
    pub(super) arn: String,
    pub(super) account: String,
    pub(super) region: String,
    pub(super) versioning: bool,
    pub(super) expire: Option<Expire>,
    pub(super) require_tls: bool,
    pub(super) tags: BTreeMap<String, String>,
}

/// After how many days objects under a prefix go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expire {
    pub(super) prefix: String,
    pub(super) days: i32,
    pub(super) versions: bool,
}

/// A bucket, as it is.
#[derive(Debug, Default)]
pub(in crate::resources) struct Live {
    pub(super) public_access_block: BTreeSet<String>,
    pub(super) ownership: Option<String>,
    pub(super) encryption: Option<String>,
    pub(super) versioning: bool,
    pub(super) rules: Vec<LifecycleRule>,
    pub(super) policy: Option<Json>,
    pub(super) tags: BTreeMap<String, String>,
}

pub(super) fn aws_tags(tags: &BTreeMap<String, String>) -> Result<Vec<Tag>, Error> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build().map_err(Error::from)).collect()
}

/// The four switches that make public access impossible.
pub(super) fn all_blocked() -> BTreeSet<String> {
    ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"].map(str::to_owned).into()
}

impl Expire {
    pub(super) fn shown(&self) -> Json {
        let mut shown = json!({ "prefix": self.prefix, "days": self.days });
        if self.versions {
            shown["noncurrent_days"] = json!(self.days);
        }
        shown
    }

    pub(super) fn rule(&self) -> Result<LifecycleRule, Error> {
        let mut rule = LifecycleRule::builder()
            .id(EXPIRE_RULE)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(&self.prefix).build())
            .expiration(LifecycleExpiration::builder().days(self.days).build());
        if self.versions {
            let old = NoncurrentVersionExpiration::builder().noncurrent_days(self.days).build();
            rule = rule.noncurrent_version_expiration(old);
        }
        rule.build().map_err(Error::from)
    }
}

/// Our rule in the form of [`Expire::shown`]; a rule that is switched off or carries more is shown as what it is.
pub(super) fn shown_rule(rules: &[LifecycleRule]) -> Option<Json> {
    let rule = rules.iter().find(|rule| rule.id() == Some(EXPIRE_RULE))?;
    let mut shown = json!({
        "prefix": rule.filter().and_then(LifecycleRuleFilter::prefix),
        "days": rule.expiration().and_then(LifecycleExpiration::days),
    });
    if let Some(days) = rule.noncurrent_version_expiration().and_then(NoncurrentVersionExpiration::noncurrent_days) {
        shown["noncurrent_days"] = json!(days);
    }
    if *rule.status() != ExpirationStatus::Enabled {
        shown["status"] = json!(rule.status().as_str());
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
        shown[setting] = json!(true);
    }
    Some(shown)
}
