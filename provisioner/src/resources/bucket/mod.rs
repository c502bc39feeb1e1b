//! The bucket that Segment writes to: private, encrypted, TLS only, and tagged with the ownership markers.
//!
//! Settings are read one by one, since S3 has a separate call for each. Unmanaged lifecycle rules, policy statements
//! and tags are left unchanged.

mod calls;
mod emptying;
mod state;

use std::collections::BTreeSet;

use aws_sdk_s3::types::{BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration};
use serde_json::Value as Json;

use crate::aws::policy;
use crate::aws::{Answer, Aws, AwsError, Call, ResourceError, absent_on, resource_in, retry_while};
use crate::error::Error;
use crate::reconcile::diff::{Diff, SettingChange};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::resource::{IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

pub(super) use state::Bucket;
use state::{Expire, Live, TLS_SID, all_blocked, aws_tags, live_rule_json};

impl Kind for Bucket {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let declared = &context.pipeline.bucket;
        vec![Self {
            name: declared.name.clone(),
            arn: context.account.s3_arn(&declared.name),
            account: context.account.id.clone(),
            region: context.account.region.clone(),
            versioning: declared.versioning,
            expire: declared.expire_days.map(|days| Expire {
                prefix: context.pipeline.notification.prefix.clone(),
                days,
                versions: declared.versioning,
            }),
            require_tls: declared.require_tls,
            tags: context.pipeline.tags.clone(),
        }]
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        resource_in(arn, "s3").filter(|name| !name.contains('/')).map(str::to_owned)
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let like = Self::desired(context).into_iter().next()?;
        Some(Self { name: name.to_owned(), arn: context.account.s3_arn(name), ..like })
    }
}

impl Resource for Bucket {
    const NAME: &'static str = "bucket";
    const HOLDS_DATA: bool = true;
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn arn(&self) -> String {
        self.arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        // Only needed for a new bucket if the file declares the setting.
        let optional: [(bool, &'static [&'static str]); 3] = [
            (self.versioning, &["s3:PutBucketVersioning"]),
            (self.expire.is_some(), &["s3:PutLifecycleConfiguration"]),
            (self.require_tls, &["s3:PutBucketPolicy"]),
        ];
        let asked = optional.into_iter().filter(|(is_declared, _)| *is_declared);
        let more = asked.map(|(_, create)| IamActions { resource: self.arn.clone(), create, ..IamActions::default() });
        let always = [
            IamActions {
                resource: self.arn.clone(),
                read: &[
                    "s3:ListBucket",
                    "s3:GetBucketPublicAccessBlock",
                    "s3:GetBucketOwnershipControls",
                    "s3:GetEncryptionConfiguration",
                    "s3:GetBucketVersioning",
                    "s3:GetLifecycleConfiguration",
                    "s3:GetBucketPolicy",
                    "s3:GetBucketTagging",
                ],
                // s3:TagResource is for CreateBucket with tags, s3:PutBucketTagging for later changes of the tags.
                create: &[
                    "s3:CreateBucket",
                    "s3:TagResource",
                    "s3:PutBucketTagging",
                    "s3:PutBucketPublicAccessBlock",
                    "s3:PutBucketOwnershipControls",
                    "s3:PutEncryptionConfiguration",
                ],
                update: &[
                    "s3:PutBucketTagging",
                    "s3:PutBucketPublicAccessBlock",
                    "s3:PutBucketOwnershipControls",
                    "s3:PutEncryptionConfiguration",
                    "s3:PutBucketVersioning",
                    "s3:PutLifecycleConfiguration",
                    "s3:PutBucketPolicy",
                    "s3:DeleteBucketPolicy",
                ],
                delete: &["s3:ListBucketVersions", "s3:DeleteBucket"],
            },
            IamActions {
                resource: format!("{}/*", self.arn),
                delete: &["s3:DeleteObject", "s3:DeleteObjectVersion"],
                ..IamActions::default()
            },
        ];
        always.into_iter().chain(more).collect()
    }

    fn ownership(&self, live: &Live) -> Ownership {
        ownership::by_tags(&live.tags, &self.tags)
    }

    fn manual_deletion(&self) -> String {
        format!(
            "To delete it, delete all object versions (with Empty in the S3 console), then: aws s3api delete-bucket \
             --bucket {}",
            self.name
        )
    }

    fn notes(&self, live: &Live) -> Vec<String> {
        let denied = live.policy.as_ref().map(policy::statements).unwrap_or_default();
        let opens = !self.require_tls && denied.iter().any(|statement| policy::sid(statement) == TLS_SID);
        let opened = opens.then(|| "the change opens the bucket to plain HTTP".to_owned());
        opened.into_iter().collect()
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let (bucket, owner) = (self.name.as_str(), self.account.as_str());
        let s3 = &aws.s3;
        let head = s3.head_bucket().bucket(bucket).expected_bucket_owner(owner).send().await.call("s3:ListBucket");
        match head {
            Ok(found) => {
                if let Some(region) = found.bucket_region().filter(|region| *region != self.region) {
                    return Err(self.wrong_region(region).into());
                }
            }
            // The response to HEAD has no body, so only the status is available.
            Err(error) if error.status() == Some(404) => return Ok(None),
            Err(error) if error.status() == Some(301) => {
                return Err(self.wrong_region("another region").into());
            }
            Err(AwsError { answer: Answer::Service { status: 403, .. }, .. }) => {
                return Err(Error::conflict(
                    format!("bucket {bucket} belongs to another account, or the caller lacks s3:ListBucket on it"),
                    "choose another bucket.name (names are global on AWS), or allow s3:ListBucket",
                )
                .into());
            }
            Err(error) => return Err(error.into()),
        }
        let settings = async {
            let settings = tokio::try_join!(
                async {
                    let answer = s3.get_public_access_block().bucket(bucket).expected_bucket_owner(owner).send().await;
                    absent_on(answer.call("s3:GetBucketPublicAccessBlock"), &["NoSuchPublicAccessBlockConfiguration"])
                },
                async {
                    let answer =
                        s3.get_bucket_ownership_controls().bucket(bucket).expected_bucket_owner(owner).send().await;
                    absent_on(answer.call("s3:GetBucketOwnershipControls"), &["OwnershipControlsNotFoundError"])
                },
                async {
                    let answer = s3.get_bucket_encryption().bucket(bucket).expected_bucket_owner(owner).send().await;
                    let unset = ["ServerSideEncryptionConfigurationNotFoundError"];
                    absent_on(answer.call("s3:GetEncryptionConfiguration"), &unset)
                },
                async {
                    let answer = s3.get_bucket_versioning().bucket(bucket).expected_bucket_owner(owner).send().await;
                    answer.call("s3:GetBucketVersioning")
                },
                self.get_lifecycle(aws),
                self.get_tags(aws),
            )?;
            Ok::<_, ResourceError>(settings)
        };
        let (settings, policy) = tokio::try_join!(settings, self.get_policy(aws))?;
        let (block, ownership, encryption, versioning, lifecycle, tags) = settings;
        let block = block.and_then(|answer| answer.public_access_block_configuration);
        let switches = block.map_or_else(BTreeSet::new, |block| {
            [
                ("BlockPublicAcls", block.block_public_acls),
                ("BlockPublicPolicy", block.block_public_policy),
                ("IgnorePublicAcls", block.ignore_public_acls),
                ("RestrictPublicBuckets", block.restrict_public_buckets),
            ]
            .into_iter()
            .filter(|(_, on)| *on == Some(true))
            .map(|(name, _)| name.to_owned())
            .collect()
        });
        let encryption = encryption
            .and_then(|answer| answer.server_side_encryption_configuration)
            .and_then(|configuration| configuration.rules.into_iter().next())
            .and_then(|rule| rule.apply_server_side_encryption_by_default)
            .map(|default| default.sse_algorithm.as_str().to_owned());
        Ok(Some(Live {
            public_access_block: switches,
            ownership: ownership
                .and_then(|answer| answer.ownership_controls)
                .and_then(|controls| controls.rules.into_iter().next())
                .map(|rule| rule.object_ownership.as_str().to_owned()),
            encryption,
            versioning: versioning.status == Some(BucketVersioningStatus::Enabled),
            rules: lifecycle.and_then(|answer| answer.rules).unwrap_or_default(),
            policy,
            tags,
        }))
    }

    fn diff(&self, live: Option<&Live>) -> Vec<SettingChange> {
        let owned_statement = |live: &Live| {
            let statements: Vec<Json> = live.policy.as_ref().map(policy::statements).unwrap_or_default();
            statements.iter().find(|s| policy::sid(s) == TLS_SID).map(policy::canonical_statement)
        };
        let desired_policy = self.require_tls.then(|| self.tls_statement());
        Diff::new()
            .compare("public_access_block", live.map(|l| &l.public_access_block), &all_blocked())
            .compare("object_ownership", live.and_then(|l| l.ownership.as_ref()), "BucketOwnerEnforced")
            .compare("encryption", live.and_then(|l| l.encryption.as_ref()), "AES256")
            .compare("versioning", live.map(|l| l.versioning), self.versioning)
            .compare(
                "lifecycle",
                live.and_then(|l| live_rule_json(&l.rules)).as_ref(),
                self.expire.as_ref().map(Expire::to_json).as_ref(),
            )
            .compare("policy", live.and_then(owned_statement).as_ref(), desired_policy.as_ref())
            .tags(live.map(|l| &l.tags), &self.tags)
            .changes()
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        // Tagged at creation, so that after an interrupted run the next one finds the bucket owned.
        let mut configuration = CreateBucketConfiguration::builder().set_tags(Some(aws_tags(&self.tags)?));
        // us-east-1 is the only region that S3 does not accept as a location constraint.
        if self.region != "us-east-1" {
            configuration = configuration.location_constraint(BucketLocationConstraint::from(self.region.as_str()));
        }
        let request = step.aws.s3.create_bucket().bucket(&self.name);
        let request = request.create_bucket_configuration(configuration.build());
        let is_aborted = |error: &AwsError| error.code() == Some("OperationAborted");
        let created = retry_while(step.wait("S3 to release the name of the bucket", 60), is_aborted, || async {
            request.clone().send().await.call("s3:CreateBucket")
        })
        .await;
        match created {
            Ok(_) => {}
            Err(ResourceError::Call(error)) if error.code() == Some("BucketAlreadyOwnedByYou") => {
                return Err(ResourceError::AlreadyExists);
            }
            Err(ResourceError::Call(error)) if error.code() == Some("BucketAlreadyExists") => {
                let why = error.short();
                return Err(Error::conflict(
                    format!("failed to create bucket {}: another account owns a bucket of this name; {why}", self.name),
                    "choose another bucket.name: names are global on AWS",
                )
                .into());
            }
            Err(fault) => return Err(fault),
        }
        self.put_changes_with_retry(step, &self.diff(Some(&Live::default()))).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        _live: &Live,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        self.put_changes_with_retry(step, changes).await
    }

    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        self.empty(step).await?;
        let request = step.aws.s3.delete_bucket().bucket(&self.name).expected_bucket_owner(&self.account);
        absent_on(request.send().await.call("s3:DeleteBucket"), &["NoSuchBucket"])?;
        Ok(())
    }
}

impl Bucket {
    fn wrong_region(&self, region: &str) -> Error {
        Error::conflict(
            format!("bucket {} is in {region}, but pipeline.toml names {}", self.name, self.region),
            "correct pipeline.region, or choose another bucket.name: a bucket cannot be moved",
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::tests::assert_in_sync;

    fn live_of(spec: &Bucket) -> Live {
        let unmanaged = json!({ "Sid": "Unmanaged", "Effect": "Deny" });
        Live {
            public_access_block: all_blocked(),
            ownership: Some("BucketOwnerEnforced".to_owned()),
            encryption: Some("AES256".to_owned()),
            versioning: spec.versioning,
            rules: spec.expire.iter().map(|expire| expire.rule().expect("a rule")).collect(),
            policy: spec.require_tls.then(|| json!({ "Statement": [unmanaged, spec.tls_statement()] })),
            tags: spec.tags.clone(),
        }
    }

    #[test]
    fn bucket_as_created_is_in_sync() {
        assert_in_sync::<Bucket>(live_of);
    }

    #[test]
    fn change_of_each_setting_is_drift() {
        let spec =
            crate::resources::tests::declared::<Bucket>("[bucket]\nexpire_days = 90\nversioning = true").remove(0);
        let changed = |change: fn(&mut Live)| {
            let mut live = live_of(&spec);
            change(&mut live);
            spec.diff(Some(&live)).iter().map(|change| change.setting).collect::<Vec<_>>()
        };
        assert_eq!(changed(|l| drop(l.public_access_block.pop_first())), ["public_access_block"]);
        assert_eq!(changed(|l| l.ownership = Some("ObjectWriter".to_owned())), ["object_ownership"]);
        assert_eq!(changed(|l| l.encryption = None), ["encryption"]);
        assert_eq!(changed(|l| l.versioning = false), ["versioning"]);
        assert_eq!(changed(|l| l.rules.clear()), ["lifecycle"]);
        assert_eq!(changed(|l| l.policy = None), ["policy"]);
        assert_eq!(changed(|l| drop(l.tags.remove("pipeline"))), ["tags"]);
        assert_eq!(changed(|l| drop(l.tags.insert("unmanaged".to_owned(), "tag".to_owned()))), [""; 0]);
    }
}
