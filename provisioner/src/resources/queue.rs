//! The failure queue. Lambda sends a notification to it if the function could not count the object and the last retry
//! has failed.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_sqs::types::QueueAttributeName;

use super::openings;
use crate::aws::{Aws, AwsError, Call, Openings, ResourceError, absent_on, policy, resource_in, retry_while};
use crate::config::dropped_tags;
use crate::error::Error;
use crate::reconcile::diff::{Diff, SettingChange, touches};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::protection::Refusal;
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
    /// The ARN pattern of every queue.
    every_queue: String,
    /// The ARN of the KMS key that encrypts the messages.
    kms_key: Option<String>,
    tags: BTreeMap<String, String>,
}

/// The live state of a queue.
#[derive(Debug, Default)]
pub(super) struct Live {
    url: String,
    retention_seconds: Option<i64>,
    encryption: Option<String>,
    /// The approximate number of messages, visible and in flight.
    messages: u64,
    openings: Openings,
    tags: BTreeMap<String, String>,
}

/// The encryption with a key of SQS.
const SQS_KEYS: &str = "SSE-SQS";

impl Queue {
    fn attributes(&self) -> HashMap<QueueAttributeName, String> {
        let encryption = match &self.kms_key {
            Some(key) => (QueueAttributeName::KmsMasterKeyId, key.clone()),
            None => (QueueAttributeName::SqsManagedSseEnabled, "true".to_owned()),
        };
        HashMap::from([(QueueAttributeName::MessageRetentionPeriod, RETENTION_SECONDS.to_string()), encryption])
    }

    /// Returns the KMS key of the live queue, if it is not the declared one.
    fn undeclared_key<'a>(&self, live: &'a Live) -> Option<&'a str> {
        let key = live.encryption.as_deref().filter(|key| *key != SQS_KEYS)?;
        self.kms_key.is_none().then_some(key)
    }
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
        let kms_key = context.pipeline.function.failure_queue_kms_key.clone();
        Some(Self { name: name.to_owned(), arn, every_queue: context.account.queue_arn("*"), kms_key, tags })
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
        let proves_absence: &[&str] = &["sqs:GetQueueUrl"];
        let every_queue =
            IamActions { resource: self.every_queue.clone(), read: proves_absence, ..IamActions::default() };
        let queue = IamActions {
            resource: self.arn.clone(),
            read: &["sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:ListQueueTags"],
            create: &["sqs:CreateQueue", "sqs:TagQueue"],
            update: &["sqs:TagQueue", "sqs:UntagQueue", "sqs:SetQueueAttributes"],
            delete: &["sqs:DeleteQueue"],
            condition: None,
        };
        vec![queue, every_queue]
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
            encryption: attribute(QueueAttributeName::KmsMasterKeyId)
                .filter(|key| !key.is_empty())
                .map(str::to_owned)
                .or((attribute(QueueAttributeName::SqsManagedSseEnabled) == Some("true")).then(|| SQS_KEYS.to_owned())),
            openings: match attribute(QueueAttributeName::Policy).filter(|text| !text.is_empty()) {
                Some(text) => {
                    let document = policy::parse(text, || format!("read the policy of queue {}", self.name))?;
                    Openings::of(&document, policy::account_of(&self.arn).unwrap_or_default())
                }
                None => Openings::default(),
            },
            tags: tags.tags.unwrap_or_default().into_iter().collect(),
            url,
        }))
    }

    fn refusal(&self, live: &Live) -> Option<Refusal> {
        let command = "aws sqs set-queue-attributes --attributes Policy= --queue-url";
        openings::refusal(&live.openings, format!("remove them from its policy, or all of it: {command} {}", live.url))
    }

    fn notes(&self, live: &Live) -> Vec<String> {
        openings::notes(&live.openings)
    }

    fn problems(&self, live: &Live) -> Vec<Refusal> {
        // SQS refuses messages of senders without permissions on the key, and Lambda then drops the failure.
        let key = self.undeclared_key(live).filter(|key| !key.ends_with("alias/aws/sqs"));
        let problem = key.map(|key| {
            Refusal::new(
                format!(
                    "is encrypted with the KMS key {key}, which the function's role may not use: failures are lost"
                ),
                "declare its ARN as function.failure_queue_kms_key, which adds the permissions",
            )
        });
        problem.into_iter().collect()
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        let desired = self.kms_key.as_deref().unwrap_or(SQS_KEYS);
        let diff = Diff::new().compare("retention_seconds", live.and_then(|l| l.retention_seconds), RETENTION_SECONDS);
        let diff = match live.and_then(|live| self.undeclared_key(live)) {
            Some(key) => diff.keep(format!("encryption is {key}, which protects more than {SQS_KEYS}, and is kept")),
            None => diff.compare("encryption", live.and_then(|l| l.encryption.as_ref()), desired),
        };
        diff.tags(live.map(|l| &l.tags), &self.tags, &[])
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let request = step
            .aws
            .sqs
            .create_queue()
            .queue_name(&self.name)
            .set_attributes(Some(self.attributes()))
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
            let dropped = dropped_tags(&live.tags, &self.tags);
            if !dropped.is_empty() {
                let request = step.aws.sqs.untag_queue().queue_url(&live.url).set_tag_keys(Some(dropped));
                request.send().await.call("sqs:UntagQueue")?;
            }
            let tags = self.tags.clone().into_iter().collect();
            let request = step.aws.sqs.tag_queue().queue_url(&live.url).set_tags(Some(tags));
            request.send().await.call("sqs:TagQueue")?;
        }
        if touches(changes, &["retention_seconds", "encryption"]) {
            // Only the drift: the queue keeps a stronger encryption.
            let mut attributes = self.attributes();
            attributes.retain(|name, _| match name {
                QueueAttributeName::MessageRetentionPeriod => touches(changes, &["retention_seconds"]),
                _ => touches(changes, &["encryption"]),
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
    use crate::resources::tests::{assert_in_sync, declared};

    #[test]
    fn queue_as_created_is_in_sync() {
        assert_in_sync::<Queue>(|spec| Live {
            retention_seconds: Some(RETENTION_SECONDS),
            encryption: Some(spec.kms_key.clone().unwrap_or_else(|| SQS_KEYS.to_owned())),
            tags: spec.tags.clone(),
            ..Live::default()
        });
    }

    #[test]
    fn undeclared_key_of_the_account_is_kept_and_a_problem() {
        let of = |file: &str, key: &str| {
            let spec = declared::<Queue>(file).remove(0);
            let retention_seconds = Some(RETENTION_SECONDS);
            let live = Live {
                retention_seconds,
                encryption: Some(key.to_owned()),
                tags: spec.tags.clone(),
                ..Live::default()
            };
            (spec.diff(Some(&live)).len(), spec.problems(&live).len())
        };
        let key = "arn:aws:kms:eu-central-1:123456789012:key/q";
        assert_eq!(of("", key), (0, 1));
        assert_eq!(of("", "alias/aws/sqs"), (0, 0));
        let declares = format!("[function]\nfailure_queue_kms_key = \"{key}\"");
        assert_eq!(of(&declares, key), (0, 0));
        assert_eq!(of(&declares, "alias/aws/sqs"), (1, 0));
    }
}
