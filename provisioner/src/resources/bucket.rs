//! The bucket that Segment writes to: private, encrypted, TLS only, and tagged as the pipeline's.
//!
//! Settings are read one by one, since S3 keeps each behind a call of its own. Lifecycle rules, policy statements and
//! tags that are not ours are left as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aws_sdk_s3::operation::get_bucket_lifecycle_configuration::GetBucketLifecycleConfigurationOutput;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, Delete,
    ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration,
    ObjectIdentifier, ObjectOwnership, OwnershipControls, OwnershipControlsRule, PublicAccessBlockConfiguration,
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
    Tag, Tagging, VersioningConfiguration,
};
use futures_util::stream::{self, TryStreamExt};
use serde_json::{Value as Json, json};

use crate::aws::ResourceError;
use crate::aws::policy;
use crate::aws::{Answer, Aws, AwsError, Call, absent_on, resource_in, retry_while};
use crate::error::Error;
use crate::reconcile::diff::{Diff, SettingChange, touches};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::resource::{IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

/// The policy statement and the lifecycle rule that are ours.
const TLS_SID: &str = "PipelineDenyPlainHttp";
const EXPIRE_RULE: &str = "pipeline-expire";

/// Pages of up to a thousand versions that are deleted at the same time.
const DELETES_AT_ONCE: usize = 8;

/// Listings, the last of which finds nothing, unless somebody goes on writing into the bucket.
const PASSES: usize = 10;

/// Where a listing goes on.
#[derive(Debug, Default)]
struct Cursor {
    key: Option<String>,
    version: Option<String>,
}

/// A bucket, as declared.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    name: String,
    arn: String,
    account: String,
    region: String,
    versioning: bool,
    expire: Option<Expire>,
    require_tls: bool,
    tags: BTreeMap<String, String>,
}

/// After how many days objects under a prefix go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Expire {
    prefix: String,
    days: i32,
    versions: bool,
}

/// A bucket, as it is.
#[derive(Debug, Default)]
pub(super) struct Live {
    public_access_block: BTreeSet<String>,
    ownership: Option<String>,
    encryption: Option<String>,
    versioning: bool,
    rules: Vec<LifecycleRule>,
    policy: Option<Json>,
    tags: BTreeMap<String, String>,
}

fn aws_tags(tags: &BTreeMap<String, String>) -> Result<Vec<Tag>, Error> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build().map_err(Error::from)).collect()
}

/// The four switches that make public access impossible.
fn all_blocked() -> BTreeSet<String> {
    ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"].map(str::to_owned).into()
}

impl Expire {
    fn shown(&self) -> Json {
        let mut shown = json!({ "prefix": self.prefix, "days": self.days });
        if self.versions {
            shown["noncurrent_days"] = json!(self.days);
        }
        shown
    }

    fn rule(&self) -> Result<LifecycleRule, Error> {
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
fn shown_rule(rules: &[LifecycleRule]) -> Option<Json> {
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

impl Bucket {
    fn tls_statement(&self) -> Json {
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

    async fn put_encryption(&self, aws: &Aws) -> Result<(), ResourceError> {
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

    async fn put_versioning(&self, aws: &Aws) -> Result<(), AwsError> {
        let status = if self.versioning { BucketVersioningStatus::Enabled } else { BucketVersioningStatus::Suspended };
        let request = aws.s3.put_bucket_versioning().bucket(&self.name).expected_bucket_owner(&self.account);
        request
            .versioning_configuration(VersioningConfiguration::builder().status(status).build())
            .send()
            .await
            .call("s3:PutBucketVersioning")?;
        Ok(())
    }

    async fn get_lifecycle(&self, aws: &Aws) -> Result<Option<GetBucketLifecycleConfigurationOutput>, AwsError> {
        let request = aws.s3.get_bucket_lifecycle_configuration().bucket(&self.name);
        let answer = request.expected_bucket_owner(&self.account).send().await.call("s3:GetLifecycleConfiguration");
        absent_on(answer, &["NoSuchLifecycleConfiguration"])
    }

    /// Ours beside the rules of others, as they are now: a put replaces them all.
    async fn put_lifecycle(&self, aws: &Aws) -> Result<(), ResourceError> {
        let now = self.get_lifecycle(aws).await?;
        let sizes = now.as_ref().and_then(|now| now.transition_default_minimum_object_size.clone());
        let mut rules = now.and_then(|now| now.rules).unwrap_or_default();
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

    async fn get_policy(&self, aws: &Aws) -> Result<Option<Json>, ResourceError> {
        let request = aws.s3.get_bucket_policy().bucket(&self.name).expected_bucket_owner(&self.account);
        let answer = absent_on(request.send().await.call("s3:GetBucketPolicy"), &["NoSuchBucketPolicy"])?;
        let Some(text) = answer.and_then(|answer| answer.policy) else { return Ok(None) };
        let doing = || format!("read the policy of bucket {}", self.name);
        Ok(Some(policy::parse(&text).map_err(|_| Error::incomplete_answer(doing(), "JSON document"))?))
    }

    /// Ours beside the statements of others, as they are now: a put replaces them all.
    async fn put_policy(&self, aws: &Aws) -> Result<(), ResourceError> {
        let now = self.get_policy(aws).await?;
        let mut statements = now.as_ref().map(policy::statements).unwrap_or_default();
        statements.retain(|statement| policy::sid(statement) != TLS_SID);
        if self.require_tls {
            statements.push(self.tls_statement());
        }
        if statements.is_empty() {
            let request = aws.s3.delete_bucket_policy().bucket(&self.name).expected_bucket_owner(&self.account);
            request.send().await.call("s3:DeleteBucketPolicy")?;
            return Ok(());
        }
        let mut document = now.unwrap_or_else(|| json!({ "Version": "2012-10-17" }));
        document["Statement"] = Json::Array(statements);
        let request = aws.s3.put_bucket_policy().bucket(&self.name).expected_bucket_owner(&self.account);
        request.policy(document.to_string()).send().await.call("s3:PutBucketPolicy")?;
        Ok(())
    }

    async fn get_tags(&self, aws: &Aws) -> Result<BTreeMap<String, String>, AwsError> {
        let request = aws.s3.get_bucket_tagging().bucket(&self.name).expected_bucket_owner(&self.account);
        let answer = absent_on(request.send().await.call("s3:GetBucketTagging"), &["NoSuchTagSet"])?;
        let tags = answer.map(|answer| answer.tag_set).unwrap_or_default();
        Ok(tags.into_iter().map(|tag| (tag.key, tag.value)).collect())
    }

    /// Ours beside the tags of others, as they are now: a put replaces them all.
    async fn put_tags(&self, aws: &Aws) -> Result<(), ResourceError> {
        let mut tags = self.get_tags(aws).await?;
        tags.extend(self.tags.clone());
        let tagging = Tagging::builder().set_tag_set(Some(aws_tags(&tags)?)).build()?;
        let request = aws.s3.put_bucket_tagging().bucket(&self.name).expected_bucket_owner(&self.account);
        request.tagging(tagging).send().await.call("s3:PutBucketTagging")?;
        Ok(())
    }

    /// Makes up for the changes; each setting is behind a call of its own, and they do not depend on each other.
    async fn put(&self, aws: &Aws, changes: &[SettingChange]) -> Result<(), ResourceError> {
        let on = |setting| touches(changes, &[setting]);
        // The tags come first: they say whose the bucket is, should this run end half way.
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
        // After the block of public access, and alone: S3 answers `OperationAborted` to a policy put beside it.
        if on("policy") {
            self.put_policy(aws).await?;
        }
        Ok(())
    }

    /// Puts the settings, all of them again while S3 is not of one mind: a new bucket may be unknown to the next machine
    /// that is asked, and two settings put at the same moment may be in each other's way.
    async fn settle(&self, step: &StepContext<'_>, changes: &[SettingChange]) -> Result<(), ResourceError> {
        let passes = |error: &AwsError| matches!(error.code(), Some("NoSuchBucket" | "OperationAborted"));
        let waiting = step.wait("S3 to know the bucket everywhere", 60);
        retry_while(waiting, passes, || self.put(step.aws, changes)).await
    }

    /// Deletes every version of every object: one lists, a page ahead, while others delete. What arrives meanwhile is
    /// found by listing again, until there is nothing.
    async fn empty(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let (found, done) = (AtomicU64::new(0), AtomicU64::new(0));
        for _ in 0..PASSES {
            let before = found.load(Relaxed);
            let pages = stream::try_unfold(Some(Cursor::default()), |cursor| self.page(step.aws, cursor, &found));
            pages
                .try_for_each_concurrent(DELETES_AT_ONCE, |doomed| async {
                    let count = doomed.len();
                    self.delete_objects(step.aws, doomed).await?;
                    let now = done.fetch_add(u64::try_from(count).unwrap_or_default(), Relaxed);
                    (step.on_progress)(now + u64::try_from(count).unwrap_or_default(), found.load(Relaxed));
                    Ok(())
                })
                .await?;
            if found.load(Relaxed) == before {
                break;
            }
        }
        // Where it never ends, S3 says so when the bucket is deleted.
        Ok(())
    }

    /// The versions of a page, and where the next one begins.
    async fn page(
        &self,
        aws: &Aws,
        cursor: Option<Cursor>,
        found: &AtomicU64,
    ) -> Result<Option<(Vec<ObjectIdentifier>, Option<Cursor>)>, ResourceError> {
        let Some(cursor) = cursor else { return Ok(None) };
        let request = aws.s3.list_object_versions().bucket(&self.name).expected_bucket_owner(&self.account);
        let request = request.set_key_marker(cursor.key).set_version_id_marker(cursor.version);
        let Some(page) = absent_on(request.send().await.call("s3:ListBucketVersions"), &["NoSuchBucket"])? else {
            return Ok(None);
        };
        let versions = page.versions().iter().map(|v| (v.key(), v.version_id()));
        let markers = page.delete_markers().iter().map(|m| (m.key(), m.version_id()));
        let doomed: Result<Vec<ObjectIdentifier>, _> = versions
            .chain(markers)
            .filter_map(|(key, version)| key.map(|key| (key, version)))
            .map(|(key, version)| {
                ObjectIdentifier::builder().key(key).set_version_id(version.map(str::to_owned)).build()
            })
            .collect();
        let doomed = doomed?;
        found.fetch_add(u64::try_from(doomed.len()).unwrap_or_default(), Relaxed);
        let more = page.is_truncated == Some(true);
        let next = more.then_some(Cursor { key: page.next_key_marker, version: page.next_version_id_marker });
        Ok(Some((doomed, next)))
    }

    async fn delete_objects(&self, aws: &Aws, doomed: Vec<ObjectIdentifier>) -> Result<(), ResourceError> {
        if doomed.is_empty() {
            return Ok(());
        }
        let delete = Delete::builder().set_objects(Some(doomed)).quiet(true).build()?;
        let request = aws.s3.delete_objects().bucket(&self.name).expected_bucket_owner(&self.account);
        let deleted = request.delete(delete).send().await.call("s3:DeleteObjectVersion")?;
        // A refusal of one object is no failure of the call, and asking again would not end.
        let Some(refused) = deleted.errors().first() else { return Ok(()) };
        Err(Error::conflict(
            format!(
                "failed to delete object {} of bucket {}: {} {}",
                refused.key().unwrap_or_default().escape_debug(),
                self.name,
                refused.code().unwrap_or_default(),
                refused.message().unwrap_or_default(),
            ),
            "lift what protects the object, then run destroy again",
        )
        .into())
    }
}
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
        // A new bucket gets these only where the file asks for them.
        let asked: [(bool, &'static [&'static str]); 3] = [
            (self.versioning, &["s3:PutBucketVersioning"]),
            (self.expire.is_some(), &["s3:PutLifecycleConfiguration"]),
            (self.require_tls, &["s3:PutBucketPolicy"]),
        ];
        let asked = asked.into_iter().filter(|(asked, _)| *asked);
        let more = asked.map(|(_, create)| IamActions { resource: self.arn.clone(), create, ..IamActions::default() });
        let rights = [
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
                // A bucket that is made with tags needs the second, and any later change of them the third.
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
        rights.into_iter().chain(more).collect()
    }

    fn ownership(&self, live: &Live) -> Ownership {
        ownership::by_tags(&live.tags, &self.tags)
    }

    fn manual_deletion(&self) -> String {
        format!(
            "To delete it, empty it of all versions (the S3 console's Empty does), then: aws s3api delete-bucket --bucket {}",
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
                    return Err(self.elsewhere(region).into());
                }
            }
            // The answer to HEAD has no body, so the status is all there is.
            Err(error) if error.status() == Some(404) => return Ok(None),
            Err(error) if error.status() == Some(301) => {
                return Err(self.elsewhere("another region").into());
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
        let ours = |live: &Live| {
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
                live.and_then(|l| shown_rule(&l.rules)).as_ref(),
                self.expire.as_ref().map(Expire::shown).as_ref(),
            )
            .compare("policy", live.and_then(ours).as_ref(), desired_policy.as_ref())
            .tags(live.map(|l| &l.tags), &self.tags)
            .changes()
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        // With its tags from the start, so that a run that ends here leaves a bucket which the next one knows as ours.
        let mut configuration = CreateBucketConfiguration::builder().set_tags(Some(aws_tags(&self.tags)?));
        // us-east-1 is the one region that must not be named.
        if self.region != "us-east-1" {
            configuration = configuration.location_constraint(BucketLocationConstraint::from(self.region.as_str()));
        }
        let request = step.aws.s3.create_bucket().bucket(&self.name);
        let request = request.create_bucket_configuration(configuration.build());
        let aborted = |error: &AwsError| error.code() == Some("OperationAborted");
        let created = retry_while(step.wait("S3 to have finished with that name", 60), aborted, || async {
            request.clone().send().await.call("s3:CreateBucket")
        })
        .await;
        match created {
            Ok(_) => {}
            Err(ResourceError::Call(error)) if error.code() == Some("BucketAlreadyOwnedByYou") => {
                return Err(ResourceError::AlreadyExists);
            }
            Err(ResourceError::Call(error)) if error.code() == Some("BucketAlreadyExists") => {
                return Err(Error::conflict(
                    format!("failed to create bucket {}: another account owns a bucket of this name", self.name),
                    "choose another bucket.name: names are global on AWS",
                )
                .into());
            }
            Err(fault) => return Err(fault),
        }
        self.settle(step, &self.diff(Some(&Live::default()))).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        _live: &Live,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        self.settle(step, changes).await
    }

    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        self.empty(step).await?;
        let request = step.aws.s3.delete_bucket().bucket(&self.name).expected_bucket_owner(&self.account);
        absent_on(request.send().await.call("s3:DeleteBucket"), &["NoSuchBucket"])?;
        Ok(())
    }
}

impl Bucket {
    fn elsewhere(&self, region: &str) -> Error {
        Error::conflict(
            format!("bucket {} is in {region}, but pipeline.toml names {}", self.name, self.region),
            "correct pipeline.region, or choose another bucket.name: a bucket cannot be moved",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::assert_in_sync;

    fn live_of(spec: &Bucket) -> Live {
        let foreign = json!({ "Sid": "SomebodyElses", "Effect": "Deny" });
        Live {
            public_access_block: all_blocked(),
            ownership: Some("BucketOwnerEnforced".to_owned()),
            encryption: Some("AES256".to_owned()),
            versioning: spec.versioning,
            rules: spec.expire.iter().map(|expire| expire.rule().expect("a rule")).collect(),
            policy: spec.require_tls.then(|| json!({ "Statement": [foreign, spec.tls_statement()] })),
            tags: spec.tags.clone(),
        }
    }

    #[test]
    fn nothing_differs_from_what_was_made() {
        assert_in_sync::<Bucket>(live_of);
    }

    #[test]
    fn each_setting_is_watched() {
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
        assert_eq!(changed(|l| drop(l.tags.insert("somebody".to_owned(), "else".to_owned()))), [""; 0]);
    }
}
