//! The pipeline's entry in the bucket's notification configuration.
//!
//! S3 keeps one configuration per bucket, and a put replaces all of it, including unmanaged entries. So each write
//! reads the configuration first, merges the owned entry in by its id, leaves the rest unchanged, and reads it again.
//!
//! Another tool may notify the pipeline's own function or queue by an entry of its own. Adopting that entry replaces it in
//! the put that adds the owned one, so that no moment is without a notification.

mod entry;

use std::collections::BTreeSet;

use aws_sdk_s3::operation::get_bucket_notification_configuration::GetBucketNotificationConfigurationOutput;
use aws_sdk_s3::types::{
    Event, FilterRule, FilterRuleName, LambdaFunctionConfiguration, NotificationConfiguration,
    NotificationConfigurationFilter, QueueConfiguration, S3KeyFilter,
};

use super::bucket::Bucket;
use super::event_source_mapping::EventSourceMapping;
use super::function::{self, Function};
use super::permission::Permission;
use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, listing, resource_in, retry_while, wait_until};
use crate::config::Via;
use crate::error::{Error, ErrorKind};
use crate::reconcile::diff::{Diff, SettingChange};
use crate::reconcile::ownership::Ownership;
use crate::reconcile::resource::{Address, IamActions, Refusal, Resource, StepContext};
use crate::resources::{Context, Kind};

pub(crate) use entry::{ConfiguredEntry, entries};
use entry::{Entry, encoded};

/// The time limit in seconds. S3 sees a new permission in Lambda within seconds.
const PERMISSION_DEADLINE: u64 = 60;

/// The time limit in seconds for S3 to return what was put, and the number of puts.
const STALE_DEADLINE: u64 = 15;
const ROUNDS: u32 = 3;

/// The desired state of the entry.
#[derive(Debug, Clone)]
pub(super) struct Notification {
    bucket: String,
    bucket_arn: String,
    account: String,
    id: String,
    via: Via,
    /// The ARN of the queue or the function.
    destination: String,
    /// The ARNs of the function and the queue, of which one is the destination.
    own_function: String,
    own_queue: String,
    prefix: String,
    suffix: String,
    depends_on: Vec<Address>,
}

/// The live state of the bucket's configuration.
#[derive(Debug, Default)]
pub(super) struct Live {
    owned: Option<Entry>,
    /// The unmanaged entries that notify the pipeline's own function or queue of the same objects, if there is no owned
    /// one yet.
    adoptable: Vec<Entry>,
    /// Another unmanaged entry that S3 would not accept next to the owned one: its id and its destination.
    overlapping: Option<(String, String)>,
}

/// The owned entry, as S3 is told it.
#[derive(Debug, Clone)]
enum OwnedEntry {
    Function(LambdaFunctionConfiguration),
    Queue(QueueConfiguration),
}

/// All events of a new object: put, post, copy and multipart upload.
const CREATED: &str = "s3:ObjectCreated:*";

impl Notification {
    fn entry(&self) -> Result<OwnedEntry, Error> {
        let rule = |name, value: &str| FilterRule::builder().name(name).value(value).build();
        let key = S3KeyFilter::builder()
            .filter_rules(rule(FilterRuleName::Prefix, &encoded(&self.prefix)))
            .filter_rules(rule(FilterRuleName::Suffix, &encoded(&self.suffix)))
            .build();
        let filter = NotificationConfigurationFilter::builder().key(key).build();
        Ok(match self.via {
            Via::Function => OwnedEntry::Function(
                LambdaFunctionConfiguration::builder()
                    .id(&self.id)
                    .lambda_function_arn(&self.destination)
                    .events(Event::from(CREATED))
                    .filter(filter)
                    .build()?,
            ),
            Via::Queue => OwnedEntry::Queue(
                QueueConfiguration::builder()
                    .id(&self.id)
                    .queue_arn(&self.destination)
                    .events(Event::from(CREATED))
                    .filter(filter)
                    .build()?,
            ),
        })
    }

    /// Returns whether the entry is the owned one. The pipeline has no entries for topics.
    fn is_owned(&self, id: Option<&str>, destination: &str) -> bool {
        id == Some(self.id.as_str()) && resource_in(destination, "sns").is_none()
    }

    /// Returns whether the ARN is that of the pipeline's own queue, or of its function or one of its versions and aliases.
    fn is_own_destination(&self, arn: &str) -> bool {
        let qualifier = arn.strip_prefix(self.own_function.as_str());
        arn == self.own_queue || qualifier.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    async fn get(&self, aws: &Aws) -> Result<GetBucketNotificationConfigurationOutput, AwsError> {
        let request = aws.s3.get_bucket_notification_configuration().bucket(&self.bucket);
        request.expected_bucket_owner(&self.account).send().await.call("s3:GetBucketNotification")
    }

    fn live(&self, all: &GetBucketNotificationConfigurationOutput) -> Live {
        let (owned, others): (Vec<_>, Vec<_>) =
            entries(all).into_iter().partition(|entry| self.is_owned(entry.id, entry.destination));
        let owned = owned.first().map(ConfiguredEntry::live);
        let is_adoptable = |entry: &ConfiguredEntry<'_>| owned.is_none() && self.is_own_destination(entry.destination);
        let (adoptable, others): (Vec<_>, Vec<_>) =
            others.into_iter().filter(|entry| self.overlaps(entry)).partition(is_adoptable);
        let overlapping = others.first();
        let named =
            |entry: &ConfiguredEntry<'_>| (entry.id.unwrap_or("(no id)").to_owned(), entry.destination.to_owned());
        Live {
            overlapping: overlapping.map(named),
            adoptable: adoptable.iter().map(ConfiguredEntry::live).collect(),
            owned,
        }
    }

    /// Returns whether an entry overlaps the owned one: S3 refuses a configuration with two entries for the same object.
    fn overlaps(&self, other: &ConfiguredEntry<'_>) -> bool {
        let (prefix, suffix) = (other.prefix(), other.suffix());
        other.is_of_new_objects()
            && (prefix.starts_with(&self.prefix) || self.prefix.starts_with(&prefix))
            && (suffix.ends_with(&self.suffix) || self.suffix.ends_with(&suffix))
    }

    /// Puts the current configuration with `entry` in place of the owned entry and of the adopted ones.
    async fn put(
        &self,
        step: &StepContext<'_>,
        entry: Option<OwnedEntry>,
        adopted: &[Entry],
    ) -> Result<(), ResourceError> {
        // S3 validates that it may invoke the function. It returns the same error for a permission that it does not see
        // yet and for a missing destination, which may belong to an unmanaged entry; the error names no destination.
        let is_unseen = |error: &AwsError| {
            error.says("InvalidArgument", "Unable to validate the following destination configurations")
                || error.code() == Some("OperationAborted")
                // A new bucket is not known everywhere yet.
                || entry.is_some() && error.code() == Some("NoSuchBucket")
        };
        // A deleted bucket has no entry left to remove.
        let absent: &[&str] = if entry.is_none() { &["NoSuchBucket"] } else { &[] };
        let is_replaced = |id: Option<&str>, destination: &str| {
            let is_adopted = |other: &Entry| other.id.as_deref() == id && other.destination == destination;
            self.is_owned(id, destination) || adopted.iter().any(is_adopted)
        };
        let waiting = step.wait("S3 to see the permission to notify", PERMISSION_DEADLINE);
        retry_while(waiting, is_unseen, || async {
            let Some(current) = absent_on(self.get(step.aws).await, absent)? else { return Ok(()) };
            let mut functions = current.lambda_function_configurations.unwrap_or_default();
            let mut queues = current.queue_configurations.unwrap_or_default();
            functions.retain(|other| !is_replaced(other.id.as_deref(), &other.lambda_function_arn));
            queues.retain(|other| !is_replaced(other.id.as_deref(), &other.queue_arn));
            match entry.clone() {
                Some(OwnedEntry::Function(entry)) => functions.push(entry),
                Some(OwnedEntry::Queue(entry)) => queues.push(entry),
                None => {}
            }
            let all = NotificationConfiguration::builder()
                .set_lambda_function_configurations(Some(functions))
                .set_queue_configurations(Some(queues))
                .set_topic_configurations(current.topic_configurations)
                .set_event_bridge_configuration(current.event_bridge_configuration)
                .build();
            let request = step.aws.s3.put_bucket_notification_configuration().bucket(&self.bucket);
            let request = request.expected_bucket_owner(&self.account).notification_configuration(all);
            // The removal of the owned entry does not depend on the destinations of the others.
            let request = request.skip_destination_validation(entry.is_none());
            absent_on(request.send().await.call("s3:PutBucketNotification"), absent).map(|_| ())
        })
        .await
    }

    /// Adds the destinations of the unmanaged entries to a timeout: S3 does not name the destination that it could not
    /// validate, so it may be one of those.
    async fn explain_timeout(&self, step: &StepContext<'_>, fault: ResourceError) -> ResourceError {
        let ResourceError::Other(error) = fault else { return fault };
        if error.kind() != ErrorKind::Timeout {
            return ResourceError::Other(error);
        }
        let Ok(all) = self.get(step.aws).await else { return ResourceError::Other(error) };
        let others = entries(&all).into_iter().filter(|entry| !self.is_owned(entry.id, entry.destination));
        let unmanaged: Vec<&str> = others.map(|entry| entry.destination).collect();
        if unmanaged.is_empty() {
            return ResourceError::Other(error);
        }
        Error::conflict(
            format!("{error}\nS3 validates every destination of the bucket; the others are: {}", unmanaged.join(", ")),
            "check that each of these exists and allows S3 to send to it, or remove its entry; then run apply again",
        )
        .into()
    }

    /// Returns whether the configuration has the owned entry as desired. A server that returns filters decoded is in
    /// sync too, right after the entry was put.
    fn is_in_sync(&self, all: &GetBucketNotificationConfigurationOutput) -> bool {
        let mut live = self.live(all);
        if let Some(entry) = &mut live.owned {
            for value in [&mut entry.prefix, &mut entry.suffix] {
                *value = value.take().map(|value| encoded(&listing::decode(&value)));
            }
        }
        live.owned.is_some() && self.diff(Some(&live)).is_empty()
    }

    /// Puts the owned entry and reads it back. For some seconds S3 may return the configuration of before (eventual
    /// consistency); after that, another writer has replaced it.
    async fn put_and_verify(&self, step: &StepContext<'_>, adopted: &[Entry]) -> Result<(), ResourceError> {
        let entry = self.entry()?;
        for _ in 0..ROUNDS {
            if let Err(fault) = self.put(step, Some(entry.clone()), adopted).await {
                return Err(self.explain_timeout(step, fault).await);
            }
            let waiting = step.wait("S3 to return the new notification", STALE_DEADLINE);
            let read_back = wait_until(waiting, || async {
                let all = match self.get(step.aws).await {
                    Err(error) if error.code() == Some("NoSuchBucket") => return Ok(None),
                    result => result?,
                };
                Ok(self.is_in_sync(&all).then_some(()))
            });
            match read_back.await {
                Err(ResourceError::Other(error)) if error.kind() == ErrorKind::Timeout => {}
                result => return result,
            }
        }
        Err(Error::conflict(
            format!("another writer overwrites the notification of bucket {} concurrently", self.bucket),
            "find the other writer (often a tool that owns the whole configuration), then run apply again",
        )
        .into())
    }
}

impl Kind for Notification {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let pipeline = context.pipeline;
        let function = &pipeline.function.name;
        let mut depends_on = vec![
            Address::of::<Bucket>(&pipeline.bucket.name),
            Address::of::<Function>(function),
            Address::of::<Permission>(function),
        ];
        let notification = &pipeline.notification;
        if notification.via == Via::Queue {
            depends_on.push(Address::of::<EventSourceMapping>(&notification.queue));
        }
        // S3 sends notifications as soon as the entry exists, so the tables must exist before it.
        depends_on.extend(function::table_addresses(context));
        let own_queue = context.account.queue_arn(&notification.queue);
        let own_function = context.account.function_arn(&pipeline.function.name);
        vec![Self {
            bucket: pipeline.bucket.name.clone(),
            bucket_arn: context.account.s3_arn(&pipeline.bucket.name),
            account: context.account.id.clone(),
            id: format!("{}-objects", pipeline.name),
            via: notification.via,
            destination: match notification.via {
                Via::Queue => own_queue.clone(),
                Via::Function => own_function.clone(),
            },
            own_function,
            own_queue,
            prefix: pipeline.notification.prefix.clone(),
            suffix: pipeline.notification.suffix.clone(),
            depends_on,
        }]
    }
}

impl Resource for Notification {
    const NAME: &'static str = "notification";
    const ESSENTIAL: Option<&'static [&'static str]> = Some(&["destination", "events", "prefix", "suffix"]);
    type Live = Live;

    fn name(&self) -> String {
        self.bucket.clone()
    }

    fn arn(&self) -> String {
        self.bucket_arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        let put: &[&str] = &["s3:PutBucketNotification"];
        let read: &[&str] = &["s3:GetBucketNotification"];
        let resource = self.bucket_arn.clone();
        vec![IamActions { resource, read, create: put, update: put, delete: put, condition: None }]
    }

    /// Returns `Owned` for an entry with the pipeline's id, which contains the pipeline's name.
    fn ownership(&self, live: &Live) -> Ownership {
        if live.owned.is_some() || live.adoptable.is_empty() { Ownership::Owned } else { Ownership::Unmanaged }
    }

    fn depends_on(&self) -> Vec<Address> {
        self.depends_on.clone()
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let all = absent_on(self.get(aws).await, &["NoSuchBucket"])?;
        Ok(all.map(|all| self.live(&all)))
    }

    fn exists(live: &Live) -> bool {
        live.owned.is_some() || !live.adoptable.is_empty()
    }

    fn refusal(&self, live: &Live) -> Option<Refusal> {
        let (id, destination) = live.overlapping.as_ref()?;
        Some(Refusal::new(
            format!("overlaps the entry `{id}`, which notifies {destination} of the same objects; S3 accepts only one"),
            "remove that entry from the bucket's notifications, or change notification.prefix or .suffix",
        ))
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        let adopted =
            live.map(|live| live.adoptable.iter().filter_map(|entry| entry.id.clone()).collect::<BTreeSet<String>>());
        let adopted = adopted.filter(|ids| !ids.is_empty());
        let live = live.and_then(|live| live.owned.as_ref().or(live.adoptable.first()));
        Diff::new()
            .compare("unmanaged_entries", adopted.as_ref(), None::<&BTreeSet<String>>)
            .compare("destination", live.map(|l| &l.destination), &self.destination)
            .compare("events", live.map(|l| &l.events), &BTreeSet::from([CREATED.to_owned()]))
            .compare("prefix", live.and_then(|l| l.prefix.as_ref()), encoded(&self.prefix))
            .compare("suffix", live.and_then(|l| l.suffix.as_ref()), encoded(&self.suffix))
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        self.put_and_verify(step, &[]).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        _changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        self.put_and_verify(step, &live.adoptable).await
    }

    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        self.put(step, None, &[]).await
    }
}

#[cfg(test)]
mod tests {
    use super::entry::normalized;
    use super::*;
    use crate::resources::tests::{assert_in_sync, declared};

    #[test]
    fn notification_as_created_is_in_sync() {
        assert_in_sync::<Notification>(|spec| Live {
            owned: Some(Entry {
                id: Some(spec.id.clone()),
                destination: spec.destination.clone(),
                events: BTreeSet::from([CREATED.to_owned()]),
                prefix: Some(spec.prefix.clone()),
                suffix: Some(spec.suffix.clone()),
            }),
            ..Live::default()
        });
    }

    #[test]
    fn overlapping_entry_of_another_owner_is_refused() {
        let spec = declared::<Notification>("").remove(0);
        let refused = |prefix: &str, suffix: &str, event: Event| {
            let rule = |name, value: &str| FilterRule::builder().name(name).value(value).build();
            let key = S3KeyFilter::builder().filter_rules(rule(FilterRuleName::Prefix, prefix));
            let key = key.filter_rules(rule(FilterRuleName::Suffix, suffix)).build();
            let entry = LambdaFunctionConfiguration::builder()
                .id("unmanaged")
                .lambda_function_arn("arn:unmanaged")
                .events(event)
                .filter(NotificationConfigurationFilter::builder().key(key).build())
                .build()
                .expect("an entry");
            let all = GetBucketNotificationConfigurationOutput::builder().lambda_function_configurations(entry).build();
            spec.refusal(&spec.live(&all)).is_some_and(|refusal| refusal.why.contains("arn:unmanaged"))
        };
        let put = || Event::S3ObjectCreatedPut;
        assert!(refused("segment-logs/", ".gz", put()));
        assert!(refused("", "", put()));
        assert!(refused("segment-logs/abc/", "", put()));
        assert!(refused("segment", "json.gz", put()));
        assert!(!refused("images/", "", put()));
        assert!(!refused("segment-logs/", ".txt", put()));
        assert!(!refused("segment-logs/", ".gz", Event::S3ObjectRemoved));
    }

    /// Returns the live state of a bucket whose only entries are these, each with its id and its destination.
    fn live_with(spec: &Notification, entries: &[(&str, &str)]) -> Live {
        let entry = |(id, arn): &(&str, &str)| {
            let rule = FilterRule::builder().name(FilterRuleName::Prefix).value(&spec.prefix).build();
            let key = S3KeyFilter::builder().filter_rules(rule).build();
            LambdaFunctionConfiguration::builder()
                .id(*id)
                .lambda_function_arn(*arn)
                .events(Event::from(CREATED))
                .filter(NotificationConfigurationFilter::builder().key(key).build())
                .build()
                .expect("an entry")
        };
        let entries = Some(entries.iter().map(entry).collect());
        let all = GetBucketNotificationConfigurationOutput::builder().set_lambda_function_configurations(entries);
        spec.live(&all.build())
    }

    #[test]
    fn entry_of_another_tool_for_the_own_function_is_adoptable() {
        for via in ["queue", "function"] {
            let spec = declared::<Notification>(&format!("[notification]\nvia = \"{via}\"")).remove(0);
            let function = spec.own_function.as_str();
            for arn in [function.to_owned(), format!("{function}:live")] {
                let live = live_with(&spec, &[("tf-s3-lambda-1", arn.as_str())]);
                assert_eq!((spec.ownership(&live), Notification::exists(&live)), (Ownership::Unmanaged, true));
                assert!(spec.refusal(&live).is_none());
                let settings: Vec<&str> = spec.diff(Some(&live)).iter().map(|change| change.setting).collect();
                assert_eq!(settings.first(), Some(&"unmanaged_entries"), "{settings:?}");
                assert_eq!(settings.contains(&"destination"), via == "queue" || arn != function, "{settings:?}");
            }
        }
    }

    #[test]
    fn entry_for_another_destination_is_not_adoptable() {
        let spec = declared::<Notification>("").remove(0);
        let other = format!("{}-2", spec.own_function);
        let live = live_with(&spec, &[("tf-s3-lambda-1", spec.own_function.as_str()), ("others", other.as_str())]);
        assert!(spec.refusal(&live).is_some_and(|refusal| refusal.why.contains("`others`")));
        let live = live_with(&spec, &[("others", other.as_str())]);
        assert!(!Notification::exists(&live) && spec.refusal(&live).is_some());
    }

    #[test]
    fn entry_beside_the_owned_one_is_a_conflict() {
        let spec = declared::<Notification>("").remove(0);
        let own = spec.own_function.as_str();
        let live = live_with(&spec, &[(spec.id.as_str(), own), ("tf-s3-lambda-1", own)]);
        assert_eq!(spec.ownership(&live), Ownership::Owned);
        assert!(live.adoptable.is_empty() && spec.refusal(&live).is_some());
    }

    #[test]
    fn unencoded_filter_is_drift() {
        let spec = declared::<Notification>("[notification]\nprefix = \"year=2026/\"").remove(0);
        let live = |prefix: &str| Live {
            owned: Some(Entry {
                id: Some(spec.id.clone()),
                destination: spec.destination.clone(),
                events: BTreeSet::from([CREATED.to_owned()]),
                prefix: Some(normalized(prefix.to_owned())),
                suffix: Some(spec.suffix.clone()),
            }),
            ..Live::default()
        };
        assert_eq!(spec.diff(Some(&live("year=2026/"))).len(), 1);
        assert_eq!(spec.diff(Some(&live("year%3D2026/"))), []);
    }

    #[test]
    fn capitalized_filter_names_are_no_drift() {
        let spec = declared::<Notification>("").remove(0);
        let OwnedEntry::Queue(mut entry) = spec.entry().expect("an entry") else { panic!("an entry for a queue") };
        for (name, rule) in ["Prefix", "Suffix"].into_iter().zip(
            entry.filter.as_mut().and_then(|f| f.key.as_mut()).and_then(|k| k.filter_rules.as_mut()).expect("rules"),
        ) {
            rule.name = Some(FilterRuleName::from(name));
        }
        let all = GetBucketNotificationConfigurationOutput::builder().queue_configurations(entry).build();
        assert_eq!(spec.diff(Some(&spec.live(&all))), []);
    }
}
