//! The failure queue. Lambda sends a notification to it if the function could not count the object and the last retry
//! has failed.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_sqs::types::QueueAttributeName;

use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, resource_in, retry_while};
use crate::error::Error;
use crate::reconcile::diff::{Diff, SettingChange, touches};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::resource::{IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

/// The longest retention of SQS, 14 days, which leaves time to notice and replay failures.
const RETENTION_SECONDS: i64 = 1_209_600;
/// The time limit in seconds. SQS creates no queue within 60 seconds of the deletion of one with the same name (SQS API
/// reference, CreateQueue).
const CREATE_DEADLINE: u64 = 75;
/// The error codes of SQS for a queue that does not exist, in its query and in its JSON protocol.
const NOT_FOUND: [&str; 2] = ["AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"];

/// The desired state of a queue.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    name: String,
    arn: String,
    tags: BTreeMap<String, String>,
}

/// The live state of a queue.
#[derive(Debug, Default)]
pub(super) struct Live {
    url: String,
    retention_seconds: Option<i64>,
    encrypted: bool,
    /// The approximate number of messages, visible and in flight.
    messages: u64,
    tags: BTreeMap<String, String>,
}

fn attributes() -> HashMap<QueueAttributeName, String> {
    HashMap::from([
        (QueueAttributeName::MessageRetentionPeriod, RETENTION_SECONDS.to_string()),
        (QueueAttributeName::SqsManagedSseEnabled, "true".to_owned()),
    ])
}

impl Kind for Queue {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        Self::with_name(context, &context.pipeline.function.failure_queue).into_iter().collect()
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        resource_in(arn, "sqs").map(str::to_owned)
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let (arn, tags) = (context.account.queue_arn(name), context.pipeline.tags.clone());
        Some(Self { name: name.to_owned(), arn, tags })
    }
}

impl Resource for Queue {
    const NAME: &'static str = "queue";
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn arn(&self) -> String {
        self.arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        vec![IamActions {
            resource: self.arn.clone(),
            read: &["sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:ListQueueTags"],
            create: &["sqs:CreateQueue", "sqs:TagQueue"],
            update: &["sqs:TagQueue", "sqs:SetQueueAttributes"],
            delete: &["sqs:DeleteQueue"],
        }]
    }

    fn ownership(&self, live: &Live) -> Ownership {
        ownership::by_tags(&live.tags, &self.tags)
    }

    /// Returns whether the queue holds messages, the only record of the objects that were not counted.
    fn holds_data(&self, live: &Live) -> bool {
        live.messages > 0
    }

    fn manual_deletion(&self) -> String {
        format!(
            "To delete it with its messages: aws sqs delete-queue --queue-url $(aws sqs get-queue-url \
                 --queue-name {} --output text)",
            self.name
        )
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let answer = aws.sqs.get_queue_url().queue_name(&self.name).send().await;
        let Some(answer) = absent_on(answer.call("sqs:GetQueueUrl"), &NOT_FOUND)? else { return Ok(None) };
        let missing = || Error::incomplete_answer(format!("read queue {}", self.name), "URL");
        let url = answer.queue_url.ok_or_else(missing)?;
        let (attributes, tags) = tokio::try_join!(
            async {
                let request = aws.sqs.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::All);
                absent_on(request.send().await.call("sqs:GetQueueAttributes"), &NOT_FOUND)
            },
            async {
                let answer = aws.sqs.list_queue_tags().queue_url(&url).send().await;
                absent_on(answer.call("sqs:ListQueueTags"), &NOT_FOUND)
            },
        )?;
        // Deleted between the calls, or SQS still resolves the name of a deleted queue.
        let (Some(attributes), Some(tags)) = (attributes, tags) else { return Ok(None) };
        let attributes = attributes.attributes.unwrap_or_default();
        let attribute = |name| attributes.get(&name).map(String::as_str);
        Ok(Some(Live {
            retention_seconds: attribute(QueueAttributeName::MessageRetentionPeriod).and_then(|n| n.parse().ok()),
            messages: [
                QueueAttributeName::ApproximateNumberOfMessages,
                QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            ]
            .into_iter()
            .filter_map(|name| attribute(name)?.parse::<u64>().ok())
            .sum(),
            encrypted: attribute(QueueAttributeName::SqsManagedSseEnabled) == Some("true")
                || attribute(QueueAttributeName::KmsMasterKeyId).is_some(),
            tags: tags.tags.unwrap_or_default().into_iter().collect(),
            url,
        }))
    }

    fn diff(&self, live: Option<&Live>) -> Vec<SettingChange> {
        Diff::new()
            .compare("retention_seconds", live.and_then(|l| l.retention_seconds), RETENTION_SECONDS)
            .compare("encrypted", live.map(|l| l.encrypted), true)
            .tags(live.map(|l| &l.tags), &self.tags)
            .changes()
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let request = step
            .aws
            .sqs
            .create_queue()
            .queue_name(&self.name)
            .set_attributes(Some(attributes()))
            .set_tags(Some(self.tags.clone().into_iter().collect()));
        let is_recently_deleted = |error: &AwsError| {
            matches!(error.code(), Some("AWS.SimpleQueueService.QueueDeletedRecently" | "QueueDeletedRecently"))
        };
        let waiting = step.wait("SQS to release the name of the deleted queue", CREATE_DEADLINE);
        retry_while(waiting, is_recently_deleted, || async { request.clone().send().await.call("sqs:CreateQueue") })
            .await?;
        Ok(())
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        if touches(changes, &["tags"]) {
            let tags = self.tags.clone().into_iter().collect();
            let request = step.aws.sqs.tag_queue().queue_url(&live.url).set_tags(Some(tags));
            request.send().await.call("sqs:TagQueue")?;
        }
        if touches(changes, &["retention_seconds", "encrypted"]) {
            // Only the drift: a queue that is encrypted with a key of the account is in sync and keeps it.
            let mut attributes = attributes();
            attributes.retain(|name, _| match name {
                QueueAttributeName::SqsManagedSseEnabled => touches(changes, &["encrypted"]),
                _ => touches(changes, &["retention_seconds"]),
            });
            let request = step.aws.sqs.set_queue_attributes().queue_url(&live.url);
            request.set_attributes(Some(attributes)).send().await.call("sqs:SetQueueAttributes")?;
        }
        Ok(())
    }

    async fn delete(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        absent_on(step.aws.sqs.delete_queue().queue_url(&live.url).send().await.call("sqs:DeleteQueue"), &NOT_FOUND)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::assert_in_sync;

    #[test]
    fn queue_as_created_is_in_sync() {
        assert_in_sync::<Queue>(|spec| Live {
            retention_seconds: Some(RETENTION_SECONDS),
            encrypted: true,
            tags: spec.tags.clone(),
            ..Live::default()
        });
    }
}
