//! The subscription of an address to the topic of the alarms.
//!
//! It is a part of the topic, and has its owner. SNS sends alarms to the address once somebody has followed the link in
//! the mail that asks for it. A subscription ends with its topic, so no permission to end one is needed: it would be
//! one on every subscription of the account (service authorization reference, Unsubscribe).

use std::collections::BTreeMap;

use super::topic::{self, NOT_FOUND, Topic, name_of};
use crate::aws::{Aws, Call, ResourceError, absent_on};
use crate::config::Receiver;
use crate::reconcile::diff::{Diff, SettingChange};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::resource::{Address, IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

const EMAIL: &str = "email";
/// The text in place of the ARN of a subscription that nobody has confirmed (SNS API reference,
/// ListSubscriptionsByTopic).
const PENDING: &str = "PendingConfirmation";
/// The same of one that somebody has ended by the link in a mail; it is listed for a while.
const DELETED: &str = "Deleted";

/// The desired state of the subscription.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    address: String,
    topic: String,
    topic_arn: String,
    tags: BTreeMap<String, String>,
}

/// The live state of the topic's subscriptions of addresses.
#[derive(Debug, Default)]
pub(super) struct Live {
    is_subscribed: bool,
    is_pending: bool,
    /// The other addresses, each with the ARN of its subscription, or [`PENDING`].
    others: Vec<(String, String)>,
    /// The tags of the topic.
    tags: BTreeMap<String, String>,
}

impl Kind for Subscription {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let Some(alarms) = &context.pipeline.alarms else { return Vec::new() };
        let Receiver::Email(address) = &alarms.receiver else { return Vec::new() };
        let topic = name_of(context.pipeline);
        vec![Self {
            address: address.clone(),
            topic_arn: context.account.topic_arn(&topic),
            topic,
            tags: context.pipeline.tags.clone(),
        }]
    }
}

impl Resource for Subscription {
    const NAME: &'static str = "subscription";
    const ESSENTIAL: Option<&'static [&'static str]> = None;
    type Live = Live;

    fn name(&self) -> String {
        self.address.clone()
    }

    /// Returns the topic's ARN: that of the subscription is not known before it is confirmed.
    fn arn(&self) -> String {
        self.topic_arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        vec![IamActions {
            resource: self.topic_arn.clone(),
            read: &["sns:ListSubscriptionsByTopic", "sns:ListTagsForResource"],
            create: &["sns:Subscribe"],
            ..IamActions::default()
        }]
    }

    fn depends_on(&self) -> Vec<Address> {
        vec![Address::of::<Topic>(&self.topic)]
    }

    fn ownership(&self, live: &Live) -> Ownership {
        ownership::by_tags(&live.tags, &self.tags)
    }

    fn exists(live: &Live) -> bool {
        live.is_subscribed
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let mut live = Live::default();
        let mut token = None;
        loop {
            let request = aws.sns.list_subscriptions_by_topic().topic_arn(&self.topic_arn).set_next_token(token);
            let page = absent_on(request.send().await.call("sns:ListSubscriptionsByTopic"), &NOT_FOUND)?;
            let Some(page) = page else { return Ok(None) };
            for subscription in page.subscriptions.unwrap_or_default() {
                if subscription.protocol.as_deref() != Some(EMAIL) {
                    continue;
                }
                let (address, arn) =
                    (subscription.endpoint.unwrap_or_default(), subscription.subscription_arn.unwrap_or_default());
                if arn == DELETED {
                    continue;
                }
                if address == self.address {
                    live.is_subscribed = true;
                    live.is_pending = arn == PENDING;
                } else {
                    live.others.push((address, arn));
                }
            }
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                break;
            }
        }
        let Some(tags) = topic::tags_of(aws, &self.topic_arn).await? else { return Ok(None) };
        Ok(Some(Live { tags, ..live }))
    }

    fn notes(&self, live: &Live) -> Vec<String> {
        let own = "it is not confirmed, and receives nothing until somebody follows the link in the mail from AWS";
        let own = live.is_pending.then(|| own.to_owned());
        let other = |(address, arn): &(String, String)| match arn.as_str() {
            PENDING => format!("topic {} also asks {address} for a confirmation; without one, this ends", self.topic),
            arn => format!(
                "{address} is subscribed to topic {} too, which is unmanaged and kept; to end it: aws sns unsubscribe \
                 --subscription-arn {arn}",
                self.topic
            ),
        };
        own.into_iter().chain(live.others.iter().map(other)).collect()
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        Diff::new().compare("topic", live.map(|_| &self.topic), &self.topic)
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let request = step.aws.sns.subscribe().topic_arn(&self.topic_arn).protocol(EMAIL).endpoint(&self.address);
        request.send().await.call("sns:Subscribe")?;
        Ok(())
    }

    /// Does nothing: an address is subscribed or not.
    async fn update(
        &self,
        _step: &StepContext<'_>,
        _live: &Live,
        _changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        Ok(())
    }

    /// Does nothing: the deletion of the topic, which follows, ends the subscription.
    async fn delete(&self, _step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{assert_in_sync, declared};

    #[test]
    fn subscription_as_created_is_in_sync() {
        assert_in_sync::<Subscription>(|spec| Live {
            is_subscribed: true,
            is_pending: true,
            tags: spec.tags.clone(),
            ..Live::default()
        });
    }

    #[test]
    fn unconfirmed_and_foreign_subscriptions_are_noted() {
        let spec = declared::<Subscription>("[alarms]\nemail = \"oncall@example.com\"").remove(0);
        let other = |arn: &str| vec![("old@example.com".to_owned(), arn.to_owned())];
        let notes = |is_pending, others| {
            spec.notes(&Live { is_subscribed: true, is_pending, others, ..Live::default() }).join("; ")
        };
        assert_eq!(notes(false, Vec::new()), "");
        assert!(notes(true, Vec::new()).contains("it is not confirmed"));
        assert!(notes(false, other("arn:old")).ends_with("aws sns unsubscribe --subscription-arn arn:old"));
        assert!(notes(false, other(PENDING)).contains("also asks old@example.com"));
    }
}
