//! The topic of the alarms: an SNS topic to which only CloudWatch alarms of the pipeline may publish.

use std::collections::BTreeMap;

use aws_sdk_sns::types::Tag;
use serde_json::{Value as Json, json};

use super::openings;
use crate::aws::{Aws, AwsError, Call, Openings, ResourceError, absent_on, policy, resource_in, retry_while};
use crate::config::{Pipeline, Receiver, dropped_tags};
use crate::reconcile::diff::{Diff, SettingChange, touches};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::protection::Refusal;
use crate::reconcile::resource::{IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

/// The time limit in seconds for a change of tags that another one delays.
const TAGS_DEADLINE: u64 = 60;
/// The error codes of SNS for a topic that does not exist, by the name of their shape or of their code (SNS API model).
pub(super) const NOT_FOUND: [&str; 4] =
    ["NotFound", "NotFoundException", "ResourceNotFound", "ResourceNotFoundException"];
/// The ID of the statement for CloudWatch.
const STATEMENT: &str = "CloudWatchAlarms";
const POLICY: &str = "Policy";

/// The desired state of the topic.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    name: String,
    arn: String,
    /// The statement that lets alarms publish.
    statement: Json,
    tags: BTreeMap<String, String>,
}

/// The live state of the topic.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// The statement for CloudWatch, and those of others.
    statement: Option<Json>,
    others: Vec<Json>,
    openings: Openings,
    /// The KMS key, if the messages are encrypted.
    key: Option<String>,
    tags: BTreeMap<String, String>,
}

/// Returns the name of the topic that is created for an address.
pub(super) fn name_of(pipeline: &Pipeline) -> String {
    format!("{}-alarms", pipeline.name)
}

/// Reads the tags of a topic, or `None` if it is absent.
pub(super) async fn tags_of(aws: &Aws, arn: &str) -> Result<Option<BTreeMap<String, String>>, AwsError> {
    let answer = aws.sns.list_tags_for_resource().resource_arn(arn).send().await;
    let answer = absent_on(answer.call("sns:ListTagsForResource"), &NOT_FOUND)?;
    let map = |tags: Vec<Tag>| tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    Ok(answer.map(|answer| map(answer.tags.unwrap_or_default())))
}

/// Returns whether another change of the topic's tags is in flight.
fn is_busy(error: &AwsError) -> bool {
    matches!(error.code(), Some("ConcurrentAccess" | "ConcurrentAccessException"))
}

impl Topic {
    fn document(&self, others: &[Json]) -> String {
        let mut statement = self.statement.clone();
        statement["Sid"] = json!(STATEMENT);
        let statements: Vec<Json> = others.iter().cloned().chain([statement]).collect();
        json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
    }

    fn tags(&self) -> Result<Vec<Tag>, ResourceError> {
        let tags: Result<Vec<Tag>, _> =
            self.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        Ok(tags?)
    }

    async fn put_tags(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        let dropped = dropped_tags(&live.tags, &self.tags);
        if !dropped.is_empty() {
            let request = step.aws.sns.untag_resource().resource_arn(&self.arn).set_tag_keys(Some(dropped));
            retry_while(step.wait("the topic to accept a change", TAGS_DEADLINE), is_busy, || async {
                request.clone().send().await.call("sns:UntagResource")
            })
            .await?;
        }
        let request = step.aws.sns.tag_resource().resource_arn(&self.arn).set_tags(Some(self.tags()?));
        retry_while(step.wait("the topic to accept a change", TAGS_DEADLINE), is_busy, || async {
            request.clone().send().await.call("sns:TagResource")
        })
        .await?;
        Ok(())
    }
}

impl Kind for Topic {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let alarms = context.pipeline.alarms.iter();
        let with_address = alarms.filter(|alarms| matches!(alarms.receiver, Receiver::Email(_)));
        with_address.filter_map(|_| Self::with_name(context, &name_of(context.pipeline))).collect()
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        let name = resource_in(arn, "sns")?;
        // The ARN of a subscription goes on after the name.
        (!name.contains(':')).then(|| name.to_owned())
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let Context { pipeline, account, .. } = context;
        let arn = account.topic_arn(name);
        // SNS developer guide, access control cases: CloudWatch alarms of an account.
        let statement = policy::canonical_statement(&json!({
            "Effect": "Allow",
            "Principal": { "Service": "cloudwatch.amazonaws.com" },
            "Action": "sns:Publish",
            "Resource": arn,
            "Condition": {
                "ArnLike": { "aws:SourceArn": account.alarm_arn(&format!("{}-*", pipeline.name)) },
                "StringEquals": { "aws:SourceAccount": account.id },
            },
        }));
        Some(Self { name: name.to_owned(), arn, statement, tags: pipeline.tags.clone() })
    }
}

impl Resource for Topic {
    const NAME: &'static str = "topic";
    const ESSENTIAL: Option<&'static [&'static str]> = None;
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
            read: &["sns:GetTopicAttributes", "sns:ListTagsForResource"],
            create: &["sns:CreateTopic", "sns:TagResource"],
            update: &["sns:SetTopicAttributes", "sns:TagResource", "sns:UntagResource"],
            delete: &["sns:DeleteTopic"],
            condition: None,
        }]
    }

    fn ownership(&self, live: &Live) -> Ownership {
        ownership::by_tags(&live.tags, &self.tags)
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let answer = aws.sns.get_topic_attributes().topic_arn(&self.arn).send().await;
        let Some(answer) = absent_on(answer.call("sns:GetTopicAttributes"), &NOT_FOUND)? else { return Ok(None) };
        let Some(tags) = tags_of(aws, &self.arn).await? else { return Ok(None) };
        let attributes = answer.attributes.unwrap_or_default();
        let attribute = |name: &str| attributes.get(name).map(String::as_str).filter(|text| !text.is_empty());
        let statements = match attribute(POLICY) {
            Some(text) => {
                policy::statements(&policy::parse(text, || format!("read the policy of topic {}", self.name))?)
            }
            None => Vec::new(),
        };
        let (own, others): (Vec<Json>, Vec<Json>) =
            statements.into_iter().partition(|statement| policy::sid(statement) == STATEMENT);
        let account = policy::account_of(&self.arn).unwrap_or_default();
        Ok(Some(Live {
            statement: own.first().map(|own| policy::without_sid(&policy::canonical_statement(own))),
            openings: Openings::of(&Json::Array(others.clone()), account),
            others,
            key: attribute("KmsMasterKeyId").map(str::to_owned),
            tags,
        }))
    }

    fn refusal(&self, live: &Live) -> Option<Refusal> {
        let command = "aws sns set-topic-attributes --attribute-name Policy --topic-arn";
        let policy = self.document(&[]);
        let help = format!("remove them from its policy: {command} {} --attribute-value '{policy}'", self.arn);
        openings::refusal(&live.openings, help)
    }

    fn notes(&self, live: &Live) -> Vec<String> {
        let encrypted = live.key.as_ref().map(|key| {
            format!(
                "it is encrypted with the KMS key {key}: alarms arrive only if the key's policy lets CloudWatch use it"
            )
        });
        openings::notes(&live.openings).into_iter().chain(encrypted).collect()
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        Diff::new().policy("policy", live.and_then(|live| live.statement.as_ref()), Some(&self.statement)).tags(
            live.map(|live| &live.tags),
            &self.tags,
            &[],
        )
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let request = step.aws.sns.create_topic().name(&self.name).attributes(POLICY, self.document(&[]));
        match request.set_tags(Some(self.tags()?)).send().await.call("sns:CreateTopic") {
            // It has other tags or attributes (SNS API reference, CreateTopic).
            Err(error) if error.code().is_some_and(|code| code.starts_with("InvalidParameter")) => {
                match tags_of(step.aws, &self.arn).await? {
                    Some(_) => Err(ResourceError::AlreadyExists),
                    None => Err(error.into()),
                }
            }
            result => result.map(drop).map_err(ResourceError::from),
        }
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        if touches(changes, &["tags"]) {
            self.put_tags(step, live).await?;
        }
        if touches(changes, &["policy"]) {
            let request = step.aws.sns.set_topic_attributes().topic_arn(&self.arn).attribute_name(POLICY);
            let answer = request.attribute_value(self.document(&live.others)).send().await;
            answer.call("sns:SetTopicAttributes")?;
        }
        Ok(())
    }

    /// Deletes the topic, and with it its subscriptions.
    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        let answer = step.aws.sns.delete_topic().topic_arn(&self.arn).send().await;
        absent_on(answer.call("sns:DeleteTopic"), &NOT_FOUND)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{assert_in_sync, declared};

    const EMAIL: &str = "[alarms]\nemail = \"oncall@example.com\"";

    #[test]
    fn topic_as_created_is_in_sync() {
        assert_in_sync::<Topic>(|spec| Live {
            statement: Some(spec.statement.clone()),
            tags: spec.tags.clone(),
            ..Live::default()
        });
    }

    #[test]
    fn topic_is_created_for_an_address_only() {
        assert!(declared::<Topic>("").is_empty());
        assert!(declared::<Topic>("[alarms]\ntopic = \"arn:aws:sns:eu-central-1:123456789012:oncall\"").is_empty());
        assert_eq!(declared::<Topic>(EMAIL).remove(0).name, "events-alarms");
    }

    #[test]
    fn alarms_of_the_pipeline_alone_may_publish() {
        let topic = declared::<Topic>(EMAIL).remove(0);
        let condition = &topic.statement["Condition"];
        let alarms = "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:events-*";
        assert_eq!(condition["ArnLike"]["aws:SourceArn"], json!([alarms]));
        assert_eq!(condition["StringEquals"]["aws:SourceAccount"], json!(["123456789012"]));
        let openings = Openings::of(&json!([topic.statement]), "123456789012");
        assert!(openings.outside.is_empty() && openings.inside.len() == 1, "{openings:?}");
    }

    #[test]
    fn name_is_taken_from_the_arn_of_a_topic_only() {
        let name = |arn: &str| Topic::name_from_arn(&format!("arn:aws:{arn}"));
        assert_eq!(name("sns:eu-central-1:123456789012:events-alarms").as_deref(), Some("events-alarms"));
        assert_eq!(name("sns:eu-central-1:123456789012:events-alarms:0123"), None);
        assert_eq!(name("sqs:eu-central-1:123456789012:events-alarms"), None);
    }
}
