//! The calls that read and change the bucket's settings, one per setting.

use std::collections::BTreeMap;

use aws_sdk_s3::operation::get_bucket_lifecycle_configuration::GetBucketLifecycleConfigurationOutput;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketVersioningStatus, ObjectOwnership, OwnershipControls, OwnershipControlsRule,
    PublicAccessBlockConfiguration, ServerSideEncryption, ServerSideEncryptionByDefault,
    ServerSideEncryptionConfiguration, ServerSideEncryptionRule, Tagging, VersioningConfiguration,
};
use serde_json::{Value as Json, json};

use crate::aws::policy;
use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, retry_while};
use crate::error::Error;
use crate::reconcile::diff::{SettingChange, touches};
use crate::reconcile::resource::StepContext;

use super::state::{Bucket, EXPIRE_RULE, TLS_SID, aws_tags};

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

    pub(super) async fn put_public_access_block(&self, aws: &Aws) -> Result<(), AwsError> {
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

    pub(super) async fn put_ownership(&self, aws: &Aws) -> Result<(), ResourceError> {
        let rule = OwnershipControlsRule::builder().object_ownership(ObjectOwnership::BucketOwnerEnforced);
        let controls = OwnershipControls::builder().rules(rule.build()?).build()?;
        let request = aws.s3.put_bucket_ownership_controls().bucket(&self.name).expected_bucket_owner(&self.account);
        request.ownership_controls(controls).send().await.call("s3:PutBucketOwnershipControls")?;
        Ok(())
    }

    pub(super) async fn put_encryption(&self, aws: &Aws) -> Result<(), ResourceError> {
        let default = ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::Aes256);
        let rule =
            ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(default.build()?).build();
        let configuration = ServerSideEncryptionConfiguration::builder().rules(rule).build()?;
        let request = aws.s3.put_bucket_encryption().bucket(&self.name).expected_bucket_owner(&self.account);
        request
            .server_side_encryption_configuration(configuration)
            .send()
            .await
            .call("s3:PutEncryptionConfiguration")?;
        Ok(())
    }

    pub(super) async fn put_versioning(&self, aws: &Aws) -> Result<(), AwsError> {
        let status = if self.versioning { BucketVersioningStatus::Enabled } else { BucketVersioningStatus::Suspended };
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

    /// Puts the owned rule together with the current unmanaged ones, since a put replaces them all.
    pub(super) async fn put_lifecycle(&self, aws: &Aws) -> Result<(), ResourceError> {
        let current = self.get_lifecycle(aws).await?;
        let sizes = current.as_ref().and_then(|current| current.transition_default_minimum_object_size.clone());
        let mut rules = current.and_then(|current| current.rules).unwrap_or_default();
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
        let doing = || format!("read the policy of bucket {}", self.name);
        Ok(Some(policy::parse(&text).map_err(|_| Error::incomplete_answer(doing(), "JSON document"))?))
    }

    /// Puts the owned statement together with the current unmanaged ones, since a put replaces them all.
    pub(super) async fn put_policy(&self, aws: &Aws) -> Result<(), ResourceError> {
        let current = self.get_policy(aws).await?;
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

    /// Puts the declared tags together with the current unmanaged ones, since a put replaces them all.
    pub(super) async fn put_tags(&self, aws: &Aws) -> Result<(), ResourceError> {
        let mut tags = self.get_tags(aws).await?;
        tags.extend(self.tags.clone());
        let tagging = Tagging::builder().set_tag_set(Some(aws_tags(&tags)?)).build()?;
        let request = aws.s3.put_bucket_tagging().bucket(&self.name).expected_bucket_owner(&self.account);
        request.tagging(tagging).send().await.call("s3:PutBucketTagging")?;
        Ok(())
    }

    /// Applies the changes. Each setting has its own call, and independent ones are put concurrently.
    async fn put_changes(&self, aws: &Aws, changes: &[SettingChange]) -> Result<(), ResourceError> {
        let on = |setting| touches(changes, &[setting]);
        // The tags are put first: they mark the bucket as owned if the run is interrupted.
        if on("tags") {
            self.put_tags(aws).await?;
        }
        tokio::try_join!(
            async { if on("public_access_block") { Ok(self.put_public_access_block(aws).await?) } else { Ok(()) } },
            async { if on("object_ownership") { self.put_ownership(aws).await } else { Ok(()) } },
            async { if on("encryption") { self.put_encryption(aws).await } else { Ok(()) } },
            async { if on("versioning") { Ok(self.put_versioning(aws).await?) } else { Ok(()) } },
            async { if on("lifecycle") { self.put_lifecycle(aws).await } else { Ok(()) } },
        )?;
        // After the public access block, and alone: S3 returns `OperationAborted` for a concurrent put of the policy.
        if on("policy") {
            self.put_policy(aws).await?;
        }
        Ok(())
    }

    /// Applies the changes, and repeats all of them on transient errors: S3 may not know a new bucket everywhere yet
    /// (eventual consistency), and it may abort concurrent changes of settings.
    pub(super) async fn put_changes_with_retry(
        &self,
        step: &StepContext<'_>,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        let is_transient = |error: &AwsError| matches!(error.code(), Some("NoSuchBucket" | "OperationAborted"));
        let waiting = step.wait("S3 to accept the settings of the bucket", 60);
        retry_while(waiting, is_transient, || self.put_changes(step.aws, changes)).await
    }
}
