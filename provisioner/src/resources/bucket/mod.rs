//! The bucket that Segment writes to: private, encrypted, TLS only, and tagged with the ownership markers.
//!
//! Settings are read one by one, since S3 has a separate call for each. Unmanaged lifecycle rules, policy statements
//! and tags are left unchanged.

mod calls;
mod emptying;
mod state;

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_s3::types::{BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, Tag};
use serde_json::Value as Json;

use crate::aws::{
    Answer, Aws, AwsError, Call, Openings, ResourceError, Wait, absent_on, is_key, policy, resource_in, retry_while,
    wait_until,
};
use crate::config::declared_key;
use crate::error::Error;
use crate::reconcile::diff::{Diff, SettingChange};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::protection::{Protection, Refusal};
use crate::reconcile::resource::{IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

use calls::SETTLE_DEADLINE;
pub(super) use state::Bucket;
use state::{Expire, Live, TLS_SID, all_blocked, aws_tags, encryption_text, is_kms, kms_key, live_rule_json};

impl Kind for Bucket {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let declared = &context.pipeline.bucket;
        vec![Self {
            name: declared.name.clone(),
            arn: context.account.s3_arn(&declared.name),
            account: context.account.id.clone(),
            region: context.account.region.clone(),
            versioning: declared.versioning,
            kms_key: declared.kms_key.clone(),
            expire: declared
                .expire_days
                .map(|days| Expire { prefix: context.pipeline.notification.prefix.clone(), days }),
            every_bucket: context.account.s3_arn("*"),
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
            (self.versioning.value, &["s3:PutBucketVersioning"]),
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
                    "s3:GetBucketAcl",
                ],
                // s3:TagResource is for CreateBucket with tags and for buckets with attribute-based access control,
                // s3:PutBucketTagging for other buckets.
                create: &[
                    "s3:CreateBucket",
                    "s3:GetBucketAbac",
                    "s3:TagResource",
                    "s3:PutBucketTagging",
                    "s3:PutBucketPublicAccessBlock",
                    "s3:PutBucketOwnershipControls",
                    "s3:PutEncryptionConfiguration",
                ],
                update: &[
                    "s3:GetBucketAbac",
                    "s3:TagResource",
                    "s3:UntagResource",
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
                ..IamActions::default()
            },
            // Proves that a bucket that was deleted or renamed is absent.
            IamActions { resource: self.every_bucket.clone(), read: &["s3:GetBucketTagging"], ..IamActions::default() },
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

    async fn data(&self, aws: &Aws, _live: &Live) -> Result<String, ResourceError> {
        self.content(aws).await
    }

    fn manual_deletion(&self) -> String {
        format!(
            "To delete it, delete all object versions (with Empty in the S3 console), then: aws s3api delete-bucket \
             --bucket {}",
            self.name
        )
    }

    fn refusal(&self, live: &Live) -> Option<Refusal> {
        (!live.grantees.is_empty()).then(|| {
            Refusal::new(
                format!("grants access by its access control list to: {}", live.grantees.join(", ")),
                format!(
                    "replace these grants by a bucket policy, then remove them: aws s3api put-bucket-acl --bucket {} \
                     --acl private",
                    self.name
                ),
            )
        })
    }

    fn problems(&self, live: &Live) -> Vec<Refusal> {
        let key = live.encryption.as_ref().and_then(kms_key).filter(|_| self.kms_key.is_none());
        let problem = key.map(|key| {
            Refusal::new(
                format!("encrypts objects with the KMS key {key}, which the function's role may not use"),
                "declare its ARN as bucket.kms_key, which adds the permissions; or declare bucket.kms_key = \"AES256\"",
            )
        });
        problem.into_iter().collect()
    }

    fn notes(&self, live: &Live) -> Vec<String> {
        let openings = live.policy.as_ref().map(|policy| Openings::of(policy, &self.account)).unwrap_or_default();
        let note = |principal: String| format!("its policy lets in {principal}, which is outside the account");
        openings.outside.into_keys().map(note).collect()
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let (bucket, owner) = (self.name.as_str(), self.account.as_str());
        let s3 = &aws.s3;
        let settings = || async {
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
        // The settings of a new bucket are not known everywhere at once (S3 user guide, data consistency model).
        let what = format!("S3 to know the settings of bucket {bucket}");
        let waiting = Wait { what, deadline: Duration::from_secs(SETTLE_DEADLINE), on_wait: &|_, _| {} };
        let found = wait_until(waiting, || async {
            // All at once; the settings of a bucket that is absent, or not to be used, do not matter.
            let (exists, settings, policy) = tokio::join!(self.head(aws), settings(), self.get_policy(aws));
            if !exists? {
                return Ok(Some(None));
            }
            match settings.and_then(|settings| Ok((settings, policy?))) {
                Err(ResourceError::Call(error)) if error.code() == Some("NoSuchBucket") => Ok(None),
                result => result.map(|found| Some(Some(found))),
            }
        });
        let Some((settings, policy)) = found.await? else { return Ok(None) };
        let (block, ownership, encryption, versioning, lifecycle, tags) = settings;
        let ownership = ownership
            .and_then(|answer| answer.ownership_controls)
            .and_then(|controls| controls.rules.into_iter().next())
            .map(|rule| rule.object_ownership.as_str().to_owned());
        let has_acls = ownership.as_deref() != Some(OWNER_ENFORCED);
        let grantees = if has_acls { self.get_grantees(aws).await? } else { Vec::new() };
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
            .and_then(|configuration| configuration.rules.into_iter().next());
        Ok(Some(Live {
            public_access_block: switches,
            ownership,
            encryption,
            grantees,
            versioning: versioning.status == Some(BucketVersioningStatus::Enabled),
            rules: lifecycle.and_then(|answer| answer.rules).unwrap_or_default(),
            policy,
            tags,
        }))
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        let owned_statement = |live: &Live| {
            let statements: Vec<Json> = live.policy.as_ref().map(policy::statements).unwrap_or_default();
            statements.iter().find(|s| policy::sid(s) == TLS_SID).map(policy::canonical_statement)
        };
        let desired_policy = self.require_tls.then(|| self.tls_statement());
        let live_policy = live.and_then(owned_statement);
        let opens = (live_policy.is_some() && desired_policy.is_none()).then(|| "plain HTTP is accepted".to_owned());
        let diff = Diff::new()
            .compare("public_access_block", live.map(|l| &l.public_access_block), &all_blocked())
            .compare("object_ownership", live.and_then(|l| l.ownership.as_ref()), OWNER_ENFORCED);
        let diff =
            self.compare_encryption(diff, live).protected(VERSIONING, live.map(|l| l.versioning), self.versioning);
        self.compare_lifecycle(diff, live).change("policy", live_policy.as_ref(), desired_policy.as_ref(), opens).tags(
            live.map(|l| &l.tags),
            &self.tags,
            &[],
        )
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        // Tagged at creation, so that after an interrupted run the next one finds the bucket owned.
        let mut created = self.create_bucket(step, Some(aws_tags(&self.tags)?)).await;
        // Some partitions, and older servers of the same protocol, refuse tags in this call.
        let refuses_tags = |error: &AwsError| matches!(error.code(), Some("UnsupportedArgument" | "MalformedXML"));
        if matches!(&created, Err(ResourceError::Call(error)) if refuses_tags(error)) {
            created = self.create_bucket(step, None).await;
        }
        match created {
            Ok(()) => {}
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
        // A new bucket has some settings already, so only the others are put.
        let waiting = step.wait("S3 to know the new bucket", SETTLE_DEADLINE);
        let live = wait_until(waiting, || self.read(step.aws)).await?;
        self.put_changes(step, &live, &self.diff(Some(&live)), true).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        self.put_changes(step, live, changes, false).await
    }

    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        self.empty(step).await?;
        let is_aborted = |error: &AwsError| error.code() == Some("OperationAborted");
        retry_while(step.wait("the bucket to become deletable", SETTLE_DEADLINE), is_aborted, || async {
            let request = step.aws.s3.delete_bucket().bucket(&self.name).expected_bucket_owner(&self.account);
            absent_on(request.send().await.call("s3:DeleteBucket"), &["NoSuchBucket"])
        })
        .await?;
        Ok(())
    }

    /// Returns whether the bucket is absent. This call answers NoSuchBucket even without permission on its settings.
    async fn is_absent(&self, aws: &Aws) -> Result<bool, ResourceError> {
        let request = aws.s3.get_bucket_tagging().bucket(&self.name).expected_bucket_owner(&self.account);
        let answer = absent_on(request.send().await.call("s3:GetBucketTagging"), &["NoSuchBucket"]);
        Ok(matches!(answer, Ok(None)))
    }
}

/// The object ownership that disables access control lists.
const OWNER_ENFORCED: &str = "BucketOwnerEnforced";

const VERSIONING: Protection = Protection {
    setting: "versioning",
    key: "bucket.versioning",
    loss: "overwritten and deleted objects are no longer kept",
};

impl Bucket {
    /// Returns whether the bucket exists.
    ///
    /// # Errors
    /// It is in another region or of another account.
    async fn head(&self, aws: &Aws) -> Result<bool, ResourceError> {
        let bucket = &self.name;
        let head = aws.s3.head_bucket().bucket(bucket).expected_bucket_owner(&self.account).send().await;
        match head.call("s3:ListBucket") {
            Ok(found) => match found.bucket_region().filter(|region| *region != self.region) {
                Some(region) => Err(self.wrong_region(region).into()),
                None => Ok(true),
            },
            // The response to HEAD has no body, so only the status and the headers are available.
            Err(error) if error.status() == Some(404) => Ok(false),
            // S3 answers 301, or 400 if the region of the signature is wrong, and names the bucket's region.
            Err(error) if error.bucket_region().is_some_and(|region| region != self.region) => {
                Err(self.wrong_region(error.bucket_region().unwrap_or_default()).into())
            }
            Err(error) if error.status() == Some(301) => Err(self.wrong_region("another region").into()),
            Err(AwsError { answer: Answer::Service { status: 403, .. }, .. }) => Err(Error::conflict(
                format!("bucket {bucket} belongs to another account, or the caller lacks s3:ListBucket on it"),
                "choose another bucket.name (names are global on AWS), or allow s3:ListBucket",
            )
            .into()),
            Err(error) => Err(error.into()),
        }
    }

    async fn create_bucket(&self, step: &StepContext<'_>, tags: Option<Vec<Tag>>) -> Result<(), ResourceError> {
        // us-east-1 is the only region that S3 does not accept as a location constraint.
        let region = (self.region != "us-east-1").then(|| BucketLocationConstraint::from(self.region.as_str()));
        // S3 refuses a configuration without content.
        let has_content = region.is_some() || tags.is_some();
        let configuration = CreateBucketConfiguration::builder().set_location_constraint(region).set_tags(tags).build();
        let request = step.aws.s3.create_bucket().bucket(&self.name);
        let request = request.set_create_bucket_configuration(has_content.then_some(configuration));
        let is_aborted = |error: &AwsError| error.code() == Some("OperationAborted");
        retry_while(step.wait("S3 to release the name of the bucket", SETTLE_DEADLINE), is_aborted, || async {
            request.clone().send().await.call("s3:CreateBucket")
        })
        .await?;
        Ok(())
    }

    /// Compares the default encryption. KMS protects more than S3's own keys, and is kept unless the file declares
    /// another encryption.
    fn compare_encryption(&self, diff: Diff, live: Option<&Live>) -> Diff {
        let rule = live.and_then(|live| live.encryption.as_ref());
        let shown = rule.and_then(encryption_text);
        let has_kms = rule.is_some_and(is_kms);
        match (declared_key(self.kms_key.as_deref()), rule) {
            (Some(key), Some(rule)) if has_kms && kms_key(rule).is_some_and(|live| is_key(live, key)) => diff,
            (Some(key), _) => diff.compare("encryption", shown, format!("aws:kms {key}")),
            (None, _) if has_kms && self.kms_key.is_none() => {
                let shown = shown.unwrap_or_default();
                diff.keep(format!("encryption is {shown}, which protects more than AES256, and is kept"))
            }
            (None, _) => {
                let loss = has_kms.then(|| "objects are encrypted without a KMS key".to_owned());
                diff.change("encryption", shown, "AES256", loss)
            }
        }
    }

    /// Compares the owned lifecycle rule.
    fn compare_lifecycle(&self, diff: Diff, live: Option<&Live>) -> Diff {
        let rule = live.and_then(|live| live_rule_json(&live.rules));
        let desired = self.expire.as_ref().map(Expire::to_json);
        let days = |rule: &Option<Json>| rule.as_ref().and_then(|rule| rule["days"].as_i64());
        let is_sooner = days(&desired).is_some_and(|new| days(&rule).is_none_or(|old| new < old));
        let loss = (live.is_some() && is_sooner).then(|| "objects are deleted sooner".to_owned());
        diff.change("lifecycle", rule.as_ref(), desired.as_ref(), loss)
    }

    fn wrong_region(&self, region: &str) -> Error {
        Error::conflict(
            format!("bucket {} is in {region}, but pipeline.toml names {}", self.name, self.region),
            "correct pipeline.region, or choose another bucket.name: a bucket cannot be moved",
        )
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{
        ExpirationStatus, LifecycleRule, ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionRule,
    };
    use serde_json::json;

    use super::*;
    use crate::resources::tests::{assert_in_sync, declared};

    fn encrypted(algorithm: ServerSideEncryption, key: Option<&str>) -> ServerSideEncryptionRule {
        let default = ServerSideEncryptionByDefault::builder().sse_algorithm(algorithm);
        let default = default.set_kms_master_key_id(key.map(str::to_owned)).build().expect("a default");
        ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(default).build()
    }

    fn live_of(spec: &Bucket) -> Live {
        let unmanaged = json!({ "Sid": "Unmanaged", "Effect": "Deny" });
        Live {
            public_access_block: all_blocked(),
            ownership: Some("BucketOwnerEnforced".to_owned()),
            encryption: Some(match &spec.kms_key {
                Some(key) => encrypted(ServerSideEncryption::AwsKms, Some(key)),
                None => encrypted(ServerSideEncryption::Aes256, None),
            }),
            grantees: Vec::new(),
            versioning: spec.versioning.value,
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
        let spec = declared::<Bucket>("[bucket]\nexpire_days = 90\nversioning = true").remove(0);
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

    #[test]
    fn stronger_settings_are_kept_unless_the_file_declares_weaker_ones() {
        let stronger = |file: &str| {
            let spec = declared::<Bucket>(file).remove(0);
            let mut live = live_of(&spec);
            live.versioning = true;
            live.encryption = Some(encrypted(ServerSideEncryption::AwsKmsDsse, None));
            spec.compare(Some(&live)).into_parts()
        };
        let (changes, kept, _) = stronger("");
        assert_eq!(changes, []);
        assert_eq!(kept.len(), 2, "{kept:?}");
        let (changes, kept, _) = stronger("[bucket]\nversioning = false\nkms_key = \"AES256\"");
        assert!(kept.is_empty(), "{kept:?}");
        assert!(changes.len() == 2 && changes.iter().all(|change| change.weakens.is_some()), "{changes:?}");
    }

    #[test]
    fn undeclared_key_of_the_account_is_a_problem() {
        let key = "arn:aws:kms:eu-central-1:123456789012:key/k";
        let of = |file: &str, live_key: Option<&str>| {
            let spec = declared::<Bucket>(file).remove(0);
            let encryption = Some(encrypted(ServerSideEncryption::AwsKms, live_key));
            let live = Live { encryption, ..live_of(&spec) };
            (spec.problems(&live).len(), spec.diff(Some(&live)).len())
        };
        assert_eq!(of("", Some(key)), (1, 0));
        assert_eq!(of("", None), (0, 0));
        assert_eq!(of("", Some("alias/aws/s3")), (0, 0));
        let declares = format!("[bucket]\nkms_key = \"{key}\"");
        assert_eq!(of(&declares, Some(key)), (0, 0));
        assert_eq!(of(&declares, Some("k")), (0, 0));
        assert_eq!(of(&declares, None), (0, 1));
    }

    #[test]
    fn old_form_of_a_lifecycle_rule_keeps_its_prefix() {
        #[expect(deprecated, reason = "the old form")]
        let old = LifecycleRule::builder().status(ExpirationStatus::Enabled).prefix("logs/").build().expect("a rule");
        let new = state::with_filters(vec![old]).remove(0);
        assert_eq!(new.filter().and_then(|filter| filter.prefix()), Some("logs/"));
        #[expect(deprecated, reason = "the old form")]
        let prefix = new.prefix();
        assert_eq!(prefix, None);
    }
}
