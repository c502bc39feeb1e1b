//! The queues: of notifications, from which the function takes batches, and of failures. A notification moves to the
//! failure queue if the function could not count the object and the last retry has failed.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value as Json, json};

use super::openings;
use crate::aws::{Aws, AwsError, Call, Openings, ResourceError, absent_on, policy, resource_in, retry_while};
use crate::config::{Via, dropped_tags};
use crate::error::Error;
use crate::reconcile::diff::{Diff, SettingChange, touches};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::protection::Refusal;
use crate::reconcile::resource::{Address, IamActions, Resource, StepContext};
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
    /// Set for the queue of notifications.
    source: Option<Source>,
    tags: BTreeMap<String, String>,
}

/// What the queue of notifications has besides.
#[derive(Debug, Clone)]
struct Source {
    /// Seconds for which a message is hidden while the function counts its objects.
    visibility_seconds: i64,
    /// The failure queue, and the number of deliveries after which a message moves there.
    redrive: Json,
    /// The statement that lets S3 send, from this bucket in this account only.
    statement: Json,
    failure_queue: Address,
}

/// The function's timeouts that a message is hidden, as Lambda asks (developer guide, using Lambda with SQS).
const TIMEOUTS_HIDDEN: i64 = 6;
/// The ID of the statement for S3.
const STATEMENT: &str = "S3Notifications";

/// The live state of a queue.
#[derive(Debug, Default)]
pub(super) struct Live {
    url: String,
    retention_seconds: Option<i64>,
    encryption: Option<String>,
    /// The approximate number of messages, visible and in flight.
    messages: u64,
    visibility_seconds: Option<i64>,
    redrive: Option<Json>,
    /// The statement for S3, and those of others.
    statement: Option<Json>,
    others: Vec<Json>,
    openings: Openings,
    tags: BTreeMap<String, String>,
}

/// Parses a redrive policy. SQS returns the count as it was put, as a number or a text.
fn redrive(text: &str) -> Option<Json> {
    let mut policy: Json = serde_json::from_str(text).ok()?;
    if let Some(count) = policy["maxReceiveCount"].as_str().and_then(|count| count.parse::<i64>().ok()) {
        policy["maxReceiveCount"] = json!(count);
    }
    Some(policy)
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

    /// Returns the attributes of the queue of notifications, with the statements of others in its policy.
    fn source_attributes(&self, others: &[Json]) -> Vec<(QueueAttributeName, String)> {
        let Some(source) = &self.source else { return Vec::new() };
        let mut statement = source.statement.clone();
        statement["Sid"] = json!(STATEMENT);
        let statements: Vec<Json> = others.iter().cloned().chain([statement]).collect();
        vec![
            (QueueAttributeName::VisibilityTimeout, source.visibility_seconds.to_string()),
            (QueueAttributeName::RedrivePolicy, source.redrive.to_string()),
            (QueueAttributeName::Policy, json!({ "Version": "2012-10-17", "Statement": statements }).to_string()),
        ]
    }

    /// Returns the KMS key of the live queue, if it is not the declared one.
    fn undeclared_key<'a>(&self, live: &'a Live) -> Option<&'a str> {
        let key = live.encryption.as_deref().filter(|key| *key != SQS_KEYS)?;
        self.kms_key.is_none().then_some(key)
    }
}

impl Kind for Queue {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let (account, pipeline) = (context.account, context.pipeline);
        let failures = &pipeline.function.failure_queue;
        let functions = pipeline.functions().into_iter();
        let mut queues: Vec<Self> =
            functions.filter_map(|function| Self::with_name(context, &function.failure_queue)).collect();
        if pipeline.notification.via == Via::Queue
            && let Some(plain) = Self::with_name(context, &pipeline.notification.queue)
        {
            let source = Source {
                visibility_seconds: i64::from(pipeline.function.timeout_seconds) * TIMEOUTS_HIDDEN,
                redrive: json!({
                    "deadLetterTargetArn": account.queue_arn(failures),
                    "maxReceiveCount": pipeline.function.retries.saturating_add(1),
                }),
                statement: policy::canonical_statement(&json!({
                    "Effect": "Allow",
                    "Principal": { "Service": "s3.amazonaws.com" },
                    "Action": "sqs:SendMessage",
                    "Resource": plain.arn,
                    "Condition": {
                        "ArnEquals": { "aws:SourceArn": account.s3_arn(&pipeline.bucket.name) },
                        "StringEquals": { "aws:SourceAccount": account.id },
                    },
                })),
                failure_queue: Address::of::<Self>(failures),
            };
            // S3 could not use a key of the account without a statement in the key's policy. Its notifications have
            // names of objects only.
            queues.push(Self { source: Some(source), kms_key: None, ..plain });
        }
        queues
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        resource_in(arn, "sqs").map(str::to_owned)
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let (arn, tags) = (context.account.queue_arn(name), context.pipeline.tags.clone());
        let kms_key = context.pipeline.function.failure_queue_kms_key.clone();
        let every_queue = context.account.queue_arn("*");
        Some(Self { name: name.to_owned(), arn, every_queue, kms_key, source: None, tags })
    }
}

impl Resource for Queue {
    const NAME: &'static str = "queue";
    const ESSENTIAL: Option<&'static [&'static str]> = Some(&["redrive", "policy"]);
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

    fn depends_on(&self) -> Vec<Address> {
        self.source.iter().map(|source| source.failure_queue.clone()).collect()
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
        let statements = match attribute(QueueAttributeName::Policy).filter(|text| !text.is_empty()) {
            Some(text) => {
                policy::statements(&policy::parse(text, || format!("read the policy of queue {}", self.name))?)
            }
            None => Vec::new(),
        };
        let is_own = |statement: &Json| self.source.is_some() && policy::sid(statement) == STATEMENT;
        let (own, others): (Vec<Json>, Vec<Json>) = statements.into_iter().partition(is_own);
        let account = policy::account_of(&self.arn).unwrap_or_default();
        Ok(Some(Live {
            visibility_seconds: attribute(QueueAttributeName::VisibilityTimeout).and_then(|n| n.parse().ok()),
            redrive: attribute(QueueAttributeName::RedrivePolicy).and_then(redrive),
            statement: own.first().map(|own| policy::without_sid(&policy::canonical_statement(own))),
            openings: Openings::of(&Json::Array(others.clone()), account),
            others,
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
            if self.source.is_some() {
                return Refusal::new(
                    format!("is encrypted with the KMS key {key}, which S3 may not use: notifications are lost"),
                    format!(
                        "use a key of SQS: aws sqs set-queue-attributes --attributes \
                         '{{\"KmsMasterKeyId\": \"\", \"SqsManagedSseEnabled\": \"true\"}}' --queue-url {}",
                        live.url
                    ),
                );
            }
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
        let diff = match &self.source {
            Some(source) => diff
                .compare("visibility_seconds", live.and_then(|l| l.visibility_seconds), source.visibility_seconds)
                .compare("redrive", live.and_then(|l| l.redrive.as_ref()), &source.redrive)
                .policy("policy", live.and_then(|l| l.statement.as_ref()), Some(&source.statement)),
            None => diff,
        };
        diff.tags(live.map(|l| &l.tags), &self.tags, &[])
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let request = step
            .aws
            .sqs
            .create_queue()
            .queue_name(&self.name)
            .set_attributes(Some(self.attributes().into_iter().chain(self.source_attributes(&[])).collect()))
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
        // Only the drift: the queue keeps a stronger encryption.
        let mut attributes = self.attributes();
        attributes.extend(self.source_attributes(&live.others));
        attributes.retain(|name, _| {
            let setting = match name {
                QueueAttributeName::MessageRetentionPeriod => "retention_seconds",
                QueueAttributeName::VisibilityTimeout => "visibility_seconds",
                QueueAttributeName::RedrivePolicy => "redrive",
                QueueAttributeName::Policy => "policy",
                _ => "encryption",
            };
            touches(changes, &[setting])
        });
        if !attributes.is_empty() {
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
            visibility_seconds: spec.source.as_ref().map(|source| source.visibility_seconds),
            redrive: spec.source.as_ref().map(|source| source.redrive.clone()),
            statement: spec.source.as_ref().map(|source| source.statement.clone()),
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
