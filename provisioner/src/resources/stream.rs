//! The stream: a Kinesis data stream to which DynamoDB copies every change of the ledger, for readers outside of the
//! pipeline. Its capacity is on demand.

use std::collections::BTreeMap;

use aws_sdk_kinesis::types::{EncryptionType, StreamDescriptionSummary, StreamMode, StreamModeDetails, StreamStatus};

use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, is_key, resource_in, retry_while, wait_until};
use crate::config::{Setting, dropped_tags};
use crate::error::Error;
use crate::reconcile::diff::{Diff, SettingChange, touches};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::protection::Protection;
use crate::reconcile::resource::{IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

/// The time limit in seconds. Kinesis creates, changes and deletes a stream within a minute; a new key may take minutes
/// (API reference, StartStreamEncryption).
const STREAM_DEADLINE: u64 = 300;
const NOT_FOUND: [&str; 1] = ["ResourceNotFoundException"];
/// The mode in which Kinesis sets the number of shards.
const ON_DEMAND: &str = "ON_DEMAND";
/// Kinesis's own KMS key.
const KEY_OF_KINESIS: &str = "alias/aws/kinesis";

const RETENTION: Protection = Protection {
    setting: "retention_hours",
    key: "stream.retention_hours",
    loss: "records of the stream are deleted sooner",
};

/// The desired state of a stream.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    name: String,
    arn: String,
    retention_hours: Setting<i32>,
    /// The ARN of the KMS key that encrypts the records.
    kms_key: Option<String>,
    tags: BTreeMap<String, String>,
}

/// The live state of a stream.
#[derive(Debug, Default)]
pub(super) struct Live {
    mode: Option<String>,
    retention_hours: Option<i32>,
    /// The KMS key, if the records are encrypted.
    key: Option<String>,
    tags: BTreeMap<String, String>,
}

/// Returns whether another change of the stream is in flight.
fn is_busy(error: &AwsError) -> bool {
    error.code() == Some("ResourceInUseException")
}

fn on_demand() -> Result<StreamModeDetails, Error> {
    Ok(StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build()?)
}

impl Stream {
    /// Returns the KMS key that encrypts the records.
    fn key(&self) -> &str {
        self.kms_key.as_deref().unwrap_or(KEY_OF_KINESIS)
    }

    async fn describe(&self, aws: &Aws) -> Result<Option<StreamDescriptionSummary>, AwsError> {
        let answer = aws.kinesis.describe_stream_summary().stream_name(&self.name).send().await;
        let found = absent_on(answer.call("kinesis:DescribeStreamSummary"), &NOT_FOUND)?;
        Ok(found.and_then(|answer| answer.stream_description_summary))
    }

    async fn is_absent_or_deleting(&self, aws: &Aws) -> Result<bool, AwsError> {
        let stream = self.describe(aws).await?;
        Ok(stream.is_none_or(|stream| stream.stream_status == StreamStatus::Deleting))
    }

    /// Reads the tags, or `None` if the stream is absent.
    async fn tags(&self, aws: &Aws) -> Result<Option<BTreeMap<String, String>>, AwsError> {
        let mut tags = BTreeMap::new();
        let mut last = None;
        loop {
            let request = aws.kinesis.list_tags_for_stream().stream_name(&self.name).set_exclusive_start_tag_key(last);
            let page = absent_on(request.send().await.call("kinesis:ListTagsForStream"), &NOT_FOUND)?;
            let Some(page) = page else { return Ok(None) };
            last = page.tags.last().map(|tag| tag.key.clone());
            tags.extend(page.tags.into_iter().map(|tag| (tag.key, tag.value.unwrap_or_default())));
            if !page.has_more_tags || last.is_none() {
                return Ok(Some(tags));
            }
        }
    }

    /// Waits until no change of the stream is in flight. A new stream may not be found yet (eventual consistency).
    async fn wait_until_active(&self, step: &StepContext<'_>, is_new: bool) -> Result<(), ResourceError> {
        let waiting = step.wait(format!("stream {} to become ACTIVE", self.name), STREAM_DEADLINE);
        wait_until(waiting, || async {
            let Some(stream) = self.describe(step.aws).await? else {
                if is_new {
                    return Ok(None);
                }
                return Err(Error::conflict(
                    format!("stream {} was deleted concurrently by another process", self.name),
                    "wait for the other process to finish, then run the command again",
                )
                .into());
            };
            Ok((stream.stream_status == StreamStatus::Active).then_some(()))
        })
        .await
    }

    async fn put_tags(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        let dropped = dropped_tags(&live.tags, &self.tags);
        if !dropped.is_empty() {
            let request = step.aws.kinesis.remove_tags_from_stream().stream_name(&self.name);
            let request = request.set_tag_keys(Some(dropped));
            retry_while(step.wait("the stream to accept a change", STREAM_DEADLINE), is_busy, || async {
                request.clone().send().await.call("kinesis:RemoveTagsFromStream")
            })
            .await?;
        }
        let request = step.aws.kinesis.add_tags_to_stream().stream_name(&self.name);
        let request = request.set_tags(Some(self.tags.clone().into_iter().collect()));
        retry_while(step.wait("the stream to accept a change", STREAM_DEADLINE), is_busy, || async {
            request.clone().send().await.call("kinesis:AddTagsToStream")
        })
        .await?;
        Ok(())
    }

    async fn put_mode(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let request = step.aws.kinesis.update_stream_mode().stream_arn(&self.arn).stream_mode_details(on_demand()?);
        retry_while(step.wait("the stream to accept a change", STREAM_DEADLINE), is_busy, || async {
            request.clone().send().await.call("kinesis:UpdateStreamMode")
        })
        .await?;
        self.wait_until_active(step, false).await
    }

    async fn put_retention(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        let hours = self.retention_hours.value;
        let waiting = step.wait("the stream to accept a change", STREAM_DEADLINE);
        if live.retention_hours.is_some_and(|live| live > hours) {
            let request = step.aws.kinesis.decrease_stream_retention_period().stream_name(&self.name);
            let request = request.retention_period_hours(hours);
            retry_while(waiting, is_busy, || async {
                request.clone().send().await.call("kinesis:DecreaseStreamRetentionPeriod")
            })
            .await?;
        } else {
            let request = step.aws.kinesis.increase_stream_retention_period().stream_name(&self.name);
            let request = request.retention_period_hours(hours);
            retry_while(waiting, is_busy, || async {
                request.clone().send().await.call("kinesis:IncreaseStreamRetentionPeriod")
            })
            .await?;
        }
        self.wait_until_active(step, false).await
    }

    async fn put_encryption(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let request = step.aws.kinesis.start_stream_encryption().stream_name(&self.name);
        let request = request.encryption_type(EncryptionType::Kms).key_id(self.key());
        retry_while(step.wait("the stream to accept a change", STREAM_DEADLINE), is_busy, || async {
            request.clone().send().await.call("kinesis:StartStreamEncryption")
        })
        .await?;
        self.wait_until_active(step, false).await
    }

    /// Applies the changes one after the other: Kinesis accepts one at a time.
    async fn put_changes(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        if touches(changes, &["tags"]) {
            self.put_tags(step, live).await?;
        }
        if touches(changes, &["mode"]) {
            self.put_mode(step).await?;
        }
        if touches(changes, &["retention_hours"]) {
            self.put_retention(step, live).await?;
        }
        if touches(changes, &["encryption"]) {
            self.put_encryption(step).await?;
        }
        Ok(())
    }
}

impl Kind for Stream {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let declared = context.pipeline.stream.iter();
        declared.filter_map(|stream| Self::with_name(context, &stream.name)).collect()
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        let name = resource_in(arn, "kinesis")?.strip_prefix("stream/")?;
        // The ARN of a consumer goes on after the name.
        (!name.contains('/')).then(|| name.to_owned())
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let declared = context.pipeline.stream.as_ref();
        // An orphaned stream is only deleted, so its settings are not compared.
        let orphaned = Setting { value: 0, is_explicit: false };
        Some(Self {
            name: name.to_owned(),
            arn: context.account.stream_arn(name),
            retention_hours: declared.map_or(orphaned, |stream| stream.retention_hours),
            kms_key: declared.and_then(|stream| stream.kms_key.clone()),
            tags: context.pipeline.tags.clone(),
        })
    }
}

impl Resource for Stream {
    const NAME: &'static str = "stream";
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn arn(&self) -> String {
        self.arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        // Proves that a stream that was deleted or renamed is absent. It has no resource-level permissions (service
        // authorization reference).
        let streams = IamActions { resource: "*".to_owned(), read: &["kinesis:ListStreams"], ..IamActions::default() };
        let stream = IamActions {
            resource: self.arn.clone(),
            read: &["kinesis:DescribeStreamSummary", "kinesis:ListTagsForStream"],
            // Tags of a new stream need AddTagsToStream; TagResource would not do (API reference, CreateStream).
            create: &[
                "kinesis:CreateStream",
                "kinesis:AddTagsToStream",
                "kinesis:IncreaseStreamRetentionPeriod",
                "kinesis:StartStreamEncryption",
            ],
            update: &[
                "kinesis:AddTagsToStream",
                "kinesis:RemoveTagsFromStream",
                "kinesis:UpdateStreamMode",
                "kinesis:IncreaseStreamRetentionPeriod",
                "kinesis:DecreaseStreamRetentionPeriod",
                "kinesis:StartStreamEncryption",
            ],
            delete: &["kinesis:DeleteStream"],
            condition: None,
        };
        // Kinesis developer guide, permissions to use user-generated KMS keys: stream administrators.
        let keys: &[&str] = &["kms:DescribeKey"];
        let key = self.kms_key.clone().map(|resource| IamActions {
            resource,
            create: keys,
            update: keys,
            ..IamActions::default()
        });
        [stream, streams].into_iter().chain(key).collect()
    }

    fn ownership(&self, live: &Live) -> Ownership {
        ownership::by_tags(&live.tags, &self.tags)
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let (stream, tags) = tokio::join!(self.describe(aws), self.tags(aws));
        let Some(stream) = stream? else { return Ok(None) };
        // One that is being deleted is still described. It counts as absent; its recreation waits for the deletion.
        if stream.stream_status == StreamStatus::Deleting {
            return Ok(None);
        }
        let Some(tags) = tags? else { return Ok(None) };
        let is_encrypted = stream.encryption_type == Some(EncryptionType::Kms);
        Ok(Some(Live {
            mode: stream.stream_mode_details.map(|details| details.stream_mode.as_str().to_owned()),
            retention_hours: Some(stream.retention_period_hours),
            key: stream.key_id.filter(|_| is_encrypted),
            tags,
        }))
    }

    async fn is_absent(&self, aws: &Aws) -> Result<bool, ResourceError> {
        let mut pages = aws.kinesis.list_streams().into_paginator().send();
        while let Some(page) = pages.next().await {
            if page.call("kinesis:ListStreams")?.stream_names.contains(&self.name) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        let diff = Diff::new().compare("mode", live.and_then(|l| l.mode.as_ref()), ON_DEMAND);
        let diff = diff.protected(RETENTION, live.and_then(|l| l.retention_hours), self.retention_hours);
        let diff = match (live.and_then(|l| l.key.as_ref()), &self.kms_key) {
            (Some(key), None) if key.ends_with(KEY_OF_KINESIS) => diff,
            (Some(key), None) => {
                diff.keep(format!("encryption is {key}, which protects more than {KEY_OF_KINESIS}, and is kept"))
            }
            (Some(live), Some(key)) if is_key(live, key) => diff,
            (live, _) => diff.compare("encryption", live, self.key()),
        };
        diff.tags(live.map(|l| &l.tags), &self.tags, &[])
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let request = step
            .aws
            .kinesis
            .create_stream()
            .stream_name(&self.name)
            .stream_mode_details(on_demand()?)
            .set_tags(Some(self.tags.clone().into_iter().collect()));
        let waiting = step.wait("Kinesis to accept the new stream", STREAM_DEADLINE);
        retry_while(waiting, is_busy, || async {
            match request.clone().send().await.call("kinesis:CreateStream") {
                // The name is in use by a stream that is being deleted, which is transient, or by an existing one.
                Err(error) if is_busy(&error) && !self.is_absent_or_deleting(step.aws).await? => {
                    Err(ResourceError::AlreadyExists)
                }
                result => result.map(drop).map_err(ResourceError::from),
            }
        })
        .await?;
        self.wait_until_active(step, true).await?;
        // The call sets neither retention nor encryption, and servers that imitate Kinesis ignore its tags.
        let waiting = step.wait(format!("stream {} to be found", self.name), STREAM_DEADLINE);
        let live = wait_until(waiting, || async { self.read(step.aws).await }).await?;
        let changes = self.diff(Some(&live));
        self.put_changes(step, &live, &changes).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        self.wait_until_active(step, false).await?;
        self.put_changes(step, live, changes).await
    }

    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        retry_while(step.wait("the stream to become deletable", STREAM_DEADLINE), is_busy, || async {
            let request = step.aws.kinesis.delete_stream().stream_name(&self.name).enforce_consumer_deletion(true);
            absent_on(request.send().await.call("kinesis:DeleteStream"), &NOT_FOUND)
        })
        .await?;
        wait_until(step.wait("the stream to be deleted", STREAM_DEADLINE), || async {
            Ok(self.describe(step.aws).await?.is_none().then_some(()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{assert_in_sync, declared};

    const KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/k";

    fn live_of(spec: &Stream) -> Live {
        Live {
            mode: Some(ON_DEMAND.to_owned()),
            retention_hours: Some(spec.retention_hours.value),
            key: Some(spec.key().to_owned()),
            tags: spec.tags.clone(),
        }
    }

    #[test]
    fn stream_as_created_is_in_sync() {
        assert_in_sync::<Stream>(live_of);
    }

    #[test]
    fn pipeline_without_the_section_has_no_stream() {
        assert!(declared::<Stream>("").is_empty());
        assert_eq!(declared::<Stream>("[stream]").remove(0).name, "events-stream");
    }

    #[test]
    fn retention_is_shortened_only_if_declared() {
        let of = |file: &str, hours: i32| {
            let spec = declared::<Stream>(file).remove(0);
            let live = Live { retention_hours: Some(hours), ..live_of(&spec) };
            let (changes, kept, _) = spec.compare(Some(&live)).into_parts();
            (changes.len(), changes.iter().filter(|change| change.weakens.is_some()).count(), kept.len())
        };
        assert_eq!(of("[stream]", 168), (0, 0, 1));
        assert_eq!(of("[stream]\nretention_hours = 24", 168), (1, 1, 0));
        assert_eq!(of("[stream]\nretention_hours = 168", 24), (1, 0, 0));
    }

    #[test]
    fn undeclared_key_of_the_account_is_kept() {
        let of = |file: &str, key: Option<&str>| {
            let spec = declared::<Stream>(file).remove(0);
            let live = Live { key: key.map(str::to_owned), ..live_of(&spec) };
            let (changes, kept, _) = spec.compare(Some(&live)).into_parts();
            (changes.len(), kept.len())
        };
        assert_eq!(of("[stream]", Some(KEY)), (0, 1));
        assert_eq!(of("[stream]", Some("arn:aws:kms:eu-central-1:123456789012:alias/aws/kinesis")), (0, 0));
        assert_eq!(of("[stream]", None), (1, 0));
        let declares = format!("[stream]\nkms_key = \"{KEY}\"");
        assert_eq!(of(&declares, Some("k")), (0, 0));
        assert_eq!(of(&declares, Some(KEY_OF_KINESIS)), (1, 0));
    }

    #[test]
    fn name_is_taken_from_the_arn_of_a_stream_only() {
        let name = |arn: &str| Stream::name_from_arn(&format!("arn:aws:{arn}"));
        assert_eq!(name("kinesis:eu-central-1:123456789012:stream/changes").as_deref(), Some("changes"));
        assert_eq!(name("kinesis:eu-central-1:123456789012:stream/changes/consumer/reader:1"), None);
        assert_eq!(name("sqs:eu-central-1:123456789012:changes"), None);
    }
}
