//! The calls that read and change the bucket's settings, one per setting.

use std::collections::BTreeMap;

use aws_sdk_s3::operation::get_bucket_lifecycle_configuration::GetBucketLifecycleConfigurationOutput;
use aws_sdk_s3::types::{
    BucketAbacStatus, BucketLifecycleConfiguration, BucketVersioningStatus, ObjectOwnership, OwnershipControls,
    OwnershipControlsRule, PublicAccessBlockConfiguration, ServerSideEncryption, ServerSideEncryptionByDefault,
    ServerSideEncryptionConfiguration, ServerSideEncryptionRule, Tagging, VersioningConfiguration,
};
use aws_sdk_s3control::types::Tag as ControlTag;
use aws_smithy_types::error::operation::BuildError;
use serde_json::{Value as Json, json};

use crate::aws::policy;
use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, retry_while};
use crate::config::{declared_key, dropped_tags};
use crate::reconcile::diff::{SettingChange, touches};
use crate::reconcile::resource::StepContext;

use super::state::{Bucket, EXPIRE_RULE, Live, TLS_SID, aws_tags, is_kms, with_filters};

impl Bucket {
    pub(super) fn tls_statement(&self) -> Json {
        policy::canonical_statement(&json!({
            "Sid": TLS_SID,
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [self.arn, format!("{}/*", self.arn)],
            "Condition": { "Bool": { "aws:SecureTransport": "false" } },
        }))
    }

    async fn put_public_access_block(&self, aws: &Aws) -> Result<(), AwsError> {
        let block = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .block_public_policy(true)
            .ignore_public_acls(true)
            .restrict_public_buckets(true)
            .build();
        let request = aws.s3.put_public_access_block().bucket(&self.name).expected_bucket_owner(&self.account);
        request.public_access_block_configuration(block).send().await.call("s3:PutBucketPublicAccessBlock")?;
        Ok(())
    }

    async fn put_ownership(&self, aws: &Aws) -> Result<(), ResourceError> {
        let rule = OwnershipControlsRule::builder().object_ownership(ObjectOwnership::BucketOwnerEnforced);
        let controls = OwnershipControls::builder().rules(rule.build()?).build()?;
        let request = aws.s3.put_bucket_ownership_controls().bucket(&self.name).expected_bucket_owner(&self.account);
        request.ownership_controls(controls).send().await.call("s3:PutBucketOwnershipControls")?;
        Ok(())
    }

    /// Replaces the default encryption, and keeps the other members of its rule, which a put replaces too.
    async fn put_encryption(&self, aws: &Aws, live: &Live) -> Result<(), ResourceError> {
        let current = live.encryption.as_ref();
        let mut default = ServerSideEncryptionByDefault::builder();
        let mut bucket_key = current.and_then(ServerSideEncryptionRule::bucket_key_enabled);
        default = match declared_key(self.kms_key.as_deref()) {
            None => default.sse_algorithm(ServerSideEncryption::Aes256),
            Some(key) => {
                // With a bucket key, S3 asks KMS once for many objects.
                bucket_key = bucket_key.or(Some(true));
                let algorithm = current.filter(|rule| is_kms(rule)).and_then(|rule| {
                    rule.apply_server_side_encryption_by_default().map(|default| default.sse_algorithm().clone())
                });
                default.sse_algorithm(algorithm.unwrap_or(ServerSideEncryption::AwsKms)).kms_master_key_id(key)
            }
        };
        let rule = ServerSideEncryptionRule::builder()
            .apply_server_side_encryption_by_default(default.build()?)
            .set_bucket_key_enabled(bucket_key)
            .set_blocked_encryption_types(current.and_then(|rule| rule.blocked_encryption_types().cloned()))
            .build();
        let configuration = ServerSideEncryptionConfiguration::builder().rules(rule).build()?;
        let request = aws.s3.put_bucket_encryption().bucket(&self.name).expected_bucket_owner(&self.account);
        request
            .server_side_encryption_configuration(configuration)
            .send()
            .await
            .call("s3:PutEncryptionConfiguration")?;
        Ok(())
    }

    async fn put_versioning(&self, aws: &Aws) -> Result<(), AwsError> {
        let status =
            if self.versioning.value { BucketVersioningStatus::Enabled } else { BucketVersioningStatus::Suspended };
        let request = aws.s3.put_bucket_versioning().bucket(&self.name).expected_bucket_owner(&self.account);
        request
            .versioning_configuration(VersioningConfiguration::builder().status(status).build())
            .send()
            .await
            .call("s3:PutBucketVersioning")?;
        Ok(())
    }

    pub(super) async fn get_lifecycle(
        &self,
        aws: &Aws,
    ) -> Result<Option<GetBucketLifecycleConfigurationOutput>, AwsError> {
        let request = aws.s3.get_bucket_lifecycle_configuration().bucket(&self.name);
        let answer = request.expected_bucket_owner(&self.account).send().await.call("s3:GetLifecycleConfiguration");
        absent_on(answer, &["NoSuchLifecycleConfiguration"])
    }

    /// Puts the owned rule together with the current unmanaged ones, since a put replaces them all. There are none to
    /// read if the bucket `has_none`.
    async fn put_lifecycle(&self, aws: &Aws, has_none: bool) -> Result<(), ResourceError> {
        let current = if has_none { None } else { self.get_lifecycle(aws).await? };
        let sizes = current.as_ref().and_then(|current| current.transition_default_minimum_object_size.clone());
        let mut rules = with_filters(current.and_then(|current| current.rules).unwrap_or_default());
        rules.retain(|rule| rule.id() != Some(EXPIRE_RULE));
        if let Some(expire) = &self.expire {
            rules.push(expire.rule()?);
        }
        if rules.is_empty() {
            let request = aws.s3.delete_bucket_lifecycle().bucket(&self.name).expected_bucket_owner(&self.account);
            request.send().await.call("s3:PutLifecycleConfiguration")?;
            return Ok(());
        }
        let configuration = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build()?;
        let request =
            aws.s3.put_bucket_lifecycle_configuration().bucket(&self.name).expected_bucket_owner(&self.account);
        let request = request.set_transition_default_minimum_object_size(sizes);
        request.lifecycle_configuration(configuration).send().await.call("s3:PutLifecycleConfiguration")?;
        Ok(())
    }

    pub(super) async fn get_policy(&self, aws: &Aws) -> Result<Option<Json>, ResourceError> {
        let request = aws.s3.get_bucket_policy().bucket(&self.name).expected_bucket_owner(&self.account);
        let answer = absent_on(request.send().await.call("s3:GetBucketPolicy"), &["NoSuchBucketPolicy"])?;
        let Some(text) = answer.and_then(|answer| answer.policy) else { return Ok(None) };
        Ok(Some(policy::parse(&text, || format!("read the policy of bucket {}", self.name))?))
    }

    /// Puts the owned statement together with the current unmanaged ones, since a put replaces them all. There are none
    /// to read if the bucket `has_none`.
    async fn put_policy(&self, aws: &Aws, has_none: bool) -> Result<(), ResourceError> {
        let current = if has_none { None } else { self.get_policy(aws).await? };
        let mut statements = current.as_ref().map(policy::statements).unwrap_or_default();
        statements.retain(|statement| policy::sid(statement) != TLS_SID);
        if self.require_tls {
            statements.push(self.tls_statement());
        }
        if statements.is_empty() {
            let request = aws.s3.delete_bucket_policy().bucket(&self.name).expected_bucket_owner(&self.account);
            request.send().await.call("s3:DeleteBucketPolicy")?;
            return Ok(());
        }
        let mut document = current.unwrap_or_else(|| json!({ "Version": "2012-10-17" }));
        document["Statement"] = Json::Array(statements);
        let request = aws.s3.put_bucket_policy().bucket(&self.name).expected_bucket_owner(&self.account);
        request.policy(document.to_string()).send().await.call("s3:PutBucketPolicy")?;
        Ok(())
    }

    pub(super) async fn get_tags(&self, aws: &Aws) -> Result<BTreeMap<String, String>, AwsError> {
        let request = aws.s3.get_bucket_tagging().bucket(&self.name).expected_bucket_owner(&self.account);
        let answer = absent_on(request.send().await.call("s3:GetBucketTagging"), &["NoSuchTagSet"])?;
        let tags = answer.map(|answer| answer.tag_set).unwrap_or_default();
        Ok(tags.into_iter().map(|tag| (tag.key, tag.value)).collect())
    }

    /// Puts the declared tags together with the current unmanaged ones, since a put replaces them all. A bucket with
    /// attribute-based access control is tagged by another call (S3 API reference, PutBucketTagging).
    async fn put_tags(&self, aws: &Aws) -> Result<(), ResourceError> {
        let mut tags = self.get_tags(aws).await?;
        let dropped = dropped_tags(&tags, &self.tags);
        if self.has_abac(aws).await? {
            if !dropped.is_empty() {
                let request = aws.s3control.untag_resource().account_id(&self.account).resource_arn(&self.arn);
                request.set_tag_keys(Some(dropped)).send().await.call("s3:UntagResource")?;
            }
            let tag = |(key, value): (&String, &String)| ControlTag::builder().key(key).value(value).build();
            let tags: Result<Vec<ControlTag>, BuildError> = self.tags.iter().map(tag).collect();
            let request = aws.s3control.tag_resource().account_id(&self.account).resource_arn(&self.arn);
            request.set_tags(Some(tags?)).send().await.call("s3:TagResource")?;
            return Ok(());
        }
        tags.retain(|key, _| !dropped.contains(key));
        tags.extend(self.tags.clone());
        let tagging = Tagging::builder().set_tag_set(Some(aws_tags(&tags)?)).build()?;
        let request = aws.s3.put_bucket_tagging().bucket(&self.name).expected_bucket_owner(&self.account);
        request.tagging(tagging).send().await.call("s3:PutBucketTagging")?;
        Ok(())
    }

    async fn has_abac(&self, aws: &Aws) -> Result<bool, AwsError> {
        let request = aws.s3.get_bucket_abac().bucket(&self.name).expected_bucket_owner(&self.account);
        let answer = request.send().await.call("s3:GetBucketAbac");
        // Not every partition, and no older server of the same protocol, has this call. Some servers ignore the unknown
        // parameter and answer with a listing.
        let unknown = ["NotImplemented", "MethodNotAllowed", "UnsupportedOperation", "InvalidRequest"];
        let answer = match answer {
            Err(error) if error.status() == Some(200) => return Ok(false),
            answer => absent_on(answer, &unknown)?,
        };
        let status = answer.and_then(|answer| answer.abac_status);
        Ok(status.and_then(|status| status.status) == Some(BucketAbacStatus::Enabled))
    }

    pub(super) async fn get_grantees(&self, aws: &Aws) -> Result<Vec<String>, AwsError> {
        let request = aws.s3.get_bucket_acl().bucket(&self.name).expected_bucket_owner(&self.account);
        let acl = request.send().await.call("s3:GetBucketAcl")?;
        let owner = acl.owner.and_then(|owner| owner.id);
        let grantees = acl.grants.unwrap_or_default().into_iter().filter_map(|grant| grant.grantee);
        let others = grantees.filter(|grantee| grantee.id.is_none() || grantee.id != owner);
        Ok(others.filter_map(|g| g.uri.or(g.email_address).or(g.display_name).or(g.id)).collect())
    }

    /// Applies one change. A new bucket was read a moment ago.
    async fn put_change(&self, aws: &Aws, live: &Live, is_new: bool, setting: &str) -> Result<(), ResourceError> {
        match setting {
            "tags" => self.put_tags(aws).await,
            "public_access_block" => Ok(self.put_public_access_block(aws).await?),
            "object_ownership" => self.put_ownership(aws).await,
            "encryption" => self.put_encryption(aws, live).await,
            "versioning" => Ok(self.put_versioning(aws).await?),
            "lifecycle" => self.put_lifecycle(aws, is_new && live.rules.is_empty()).await,
            _ => self.put_policy(aws, is_new && live.policy.is_none()).await,
        }
    }

    /// Applies the changes one after the other, since S3 aborts concurrent changes of a bucket. The tags are put first:
    /// they mark the bucket as owned if the run is interrupted. The policy is put last, after the public access block.
    pub(super) async fn put_changes(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        changes: &[SettingChange],
        is_new: bool,
    ) -> Result<(), ResourceError> {
        for setting in SETTINGS.into_iter().filter(|setting| touches(changes, &[setting])) {
            let waiting = step.wait("S3 to accept the settings of the bucket", SETTLE_DEADLINE);
            retry_while(waiting, is_settling, || self.put_change(step.aws, live, is_new, setting)).await?;
        }
        Ok(())
    }
}

/// The settings, in the order in which they are put.
const SETTINGS: [&str; 7] =
    ["tags", "public_access_block", "object_ownership", "encryption", "versioning", "lifecycle", "policy"];
/// The time limit in seconds. S3 knows a new bucket everywhere, and accepts another change of it, within seconds.
pub(super) const SETTLE_DEADLINE: u64 = 60;

/// Returns whether S3 does not know a new bucket everywhere yet (eventual consistency), or aborted a call because of
/// another change of the bucket.
pub(super) fn is_settling(error: &AwsError) -> bool {
    matches!(error.code(), Some("NoSuchBucket" | "OperationAborted"))
}
