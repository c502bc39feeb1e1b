//! The pipeline's entry in the bucket's notification configuration.
//!
//! S3 keeps one configuration per bucket, and a put replaces all of it, including unmanaged entries. So each write
//! reads the configuration first, merges the owned entry in by its id, leaves the rest unchanged, and reads it again.

use std::collections::BTreeSet;

use aws_sdk_s3::operation::get_bucket_notification_configuration::GetBucketNotificationConfigurationOutput;
use aws_sdk_s3::types::{
    Event, FilterRule, FilterRuleName, LambdaFunctionConfiguration, NotificationConfiguration,
    NotificationConfigurationFilter, QueueConfiguration, S3KeyFilter,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::bucket::Bucket;
use super::event_source_mapping::EventSourceMapping;
use super::function;
use super::permission::Permission;
use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, listing, retry_while, wait_until};
use crate::config::Via;
use crate::error::{Error, ErrorKind};
use crate::reconcile::diff::{Diff, SettingChange};
use crate::reconcile::ownership::Ownership;
use crate::reconcile::resource::{Address, IamActions, Refusal, Resource, StepContext};
use crate::resources::{Context, Kind};

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
    prefix: String,
    suffix: String,
    depends_on: Vec<Address>,
}

/// The live state of the bucket's configuration.
#[derive(Debug, Default)]
pub(super) struct Live {
    owned: Option<Entry>,
    /// An unmanaged entry that S3 would not accept next to the owned one: its id and its destination.
    overlapping: Option<(String, String)>,
}

/// The live state of the owned entry.
#[derive(Debug, Default)]
struct Entry {
    destination: String,
    events: BTreeSet<String>,
    prefix: Option<String>,
    suffix: Option<String>,
}

/// The owned entry, as S3 is told it.
#[derive(Debug, Clone)]
enum OwnedEntry {
    Function(LambdaFunctionConfiguration),
    Queue(QueueConfiguration),
}

/// An unmanaged entry, for a function, a queue or a topic.
struct UnmanagedEntry<'a> {
    id: Option<&'a str>,
    destination: &'a str,
    events: &'a [Event],
    filter: Option<&'a NotificationConfigurationFilter>,
}

/// All events of a new object: put, post, copy and multipart upload.
const CREATED: &str = "s3:ObjectCreated:*";

/// The characters that a filter's value may have as they are (S3 user guide, safe characters of object keys; the
/// guide's examples of filters have slashes). S3 expects all others percent-encoded, and a space as `+`: an unencoded
/// value matches no key.
const ENCODED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'/')
    .remove(b' ');

/// Encodes the beginning or the end of a key as a filter's value.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, &ENCODED).to_string().replace(' ', "+")
}

/// Returns a live value in the form of [`encoded`] if it has that meaning, and otherwise as it is.
fn normalized(value: String) -> String {
    let is_encoded = value.chars().all(|c| matches!(c, '%' | '+') || encoded(&c.to_string()).len() == c.len_utf8());
    if is_encoded { encoded(&listing::decode(&value)) } else { value }
}

fn rules(filter: Option<&NotificationConfigurationFilter>) -> &[FilterRule] {
    filter.and_then(|filter| filter.key.as_ref()).map(S3KeyFilter::filter_rules).unwrap_or_default()
}

/// Returns the value of a filter rule. S3 returns the names as `Prefix` or as `prefix`.
fn rule(rules: &[FilterRule], name: &str) -> Option<String> {
    let named = |rule: &&FilterRule| rule.name.as_ref().is_some_and(|n| n.as_str().eq_ignore_ascii_case(name));
    rules.iter().find(named).and_then(|rule| rule.value.clone())
}

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

    fn is_owned(&self, id: Option<&String>) -> bool {
        id == Some(&self.id)
    }

    async fn get(&self, aws: &Aws) -> Result<GetBucketNotificationConfigurationOutput, AwsError> {
        let request = aws.s3.get_bucket_notification_configuration().bucket(&self.bucket);
        request.expected_bucket_owner(&self.account).send().await.call("s3:GetBucketNotification")
    }

    fn live(&self, all: &GetBucketNotificationConfigurationOutput) -> Live {
        Live { owned: self.owned_entry(all), overlapping: self.overlapping(all) }
    }

    /// Returns the unmanaged entries, with destinations of any kind.
    fn unmanaged_entries<'a>(
        &'a self,
        all: &'a GetBucketNotificationConfigurationOutput,
    ) -> impl Iterator<Item = UnmanagedEntry<'a>> {
        let functions = all.lambda_function_configurations().iter();
        let functions = functions.filter(|entry| !self.is_owned(entry.id.as_ref())).map(|e| UnmanagedEntry {
            id: e.id.as_deref(),
            destination: &e.lambda_function_arn,
            events: &e.events,
            filter: e.filter.as_ref(),
        });
        let queues = all.queue_configurations().iter();
        let queues = queues.filter(|entry| !self.is_owned(entry.id.as_ref())).map(|e| UnmanagedEntry {
            id: e.id.as_deref(),
            destination: &e.queue_arn,
            events: &e.events,
            filter: e.filter.as_ref(),
        });
        let topics = all.topic_configurations().iter().map(|e| UnmanagedEntry {
            id: e.id.as_deref(),
            destination: &e.topic_arn,
            events: &e.events,
            filter: e.filter.as_ref(),
        });
        functions.chain(queues).chain(topics)
    }

    /// Returns the first unmanaged entry that overlaps the owned one: S3 refuses a configuration with two entries for
    /// the same object.
    fn overlapping(&self, all: &GetBucketNotificationConfigurationOutput) -> Option<(String, String)> {
        let overlaps = |other: &UnmanagedEntry<'_>| {
            let rules = rules(other.filter);
            let plain = |name| listing::decode(&rule(rules, name).unwrap_or_default());
            let (prefix, suffix) = (plain("prefix"), plain("suffix"));
            other.events.iter().any(|event| event.as_str().starts_with("s3:ObjectCreated:"))
                && (prefix.starts_with(&self.prefix) || self.prefix.starts_with(&prefix))
                && (suffix.ends_with(&self.suffix) || self.suffix.ends_with(&suffix))
        };
        let other = self.unmanaged_entries(all).find(overlaps)?;
        Some((other.id.unwrap_or("(no id)").to_owned(), other.destination.to_owned()))
    }

    fn owned_entry(&self, all: &GetBucketNotificationConfigurationOutput) -> Option<Entry> {
        let functions = all.lambda_function_configurations().iter();
        let functions = functions.map(|e| (e.id.as_ref(), &e.lambda_function_arn, &e.events, e.filter.as_ref()));
        let queues = all.queue_configurations().iter();
        let queues = queues.map(|e| (e.id.as_ref(), &e.queue_arn, &e.events, e.filter.as_ref()));
        let (_, destination, events, filter) = functions.chain(queues).find(|(id, ..)| self.is_owned(*id))?;
        let rules = rules(filter);
        Some(Entry {
            destination: destination.clone(),
            events: events.iter().map(|event| event.as_str().to_owned()).collect(),
            prefix: rule(rules, "prefix").map(normalized),
            suffix: rule(rules, "suffix").map(normalized),
        })
    }

    /// Puts the current configuration with `entry` in place of the owned entry.
    async fn put(&self, step: &StepContext<'_>, entry: Option<OwnedEntry>) -> Result<(), ResourceError> {
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
        let waiting = step.wait("S3 to see the permission to notify", PERMISSION_DEADLINE);
        retry_while(waiting, is_unseen, || async {
            let Some(current) = absent_on(self.get(step.aws).await, absent)? else { return Ok(()) };
            let mut functions = current.lambda_function_configurations.unwrap_or_default();
            let mut queues = current.queue_configurations.unwrap_or_default();
            functions.retain(|other| !self.is_owned(other.id.as_ref()));
            queues.retain(|other| !self.is_owned(other.id.as_ref()));
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
        let unmanaged: Vec<&str> = self.unmanaged_entries(&all).map(|entry| entry.destination).collect();
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
        Self::exists(&live) && self.diff(Some(&live)).is_empty()
    }

    /// Puts the owned entry and reads it back. For some seconds S3 may return the configuration of before (eventual
    /// consistency); after that, another writer has replaced it.
    async fn put_and_verify(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let entry = self.entry()?;
        for _ in 0..ROUNDS {
            if let Err(fault) = self.put(step, Some(entry.clone())).await {
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
        let mut depends_on =
            vec![Address::of::<Bucket>(&pipeline.bucket.name), Address::of::<Permission>(&pipeline.function.name)];
        let notification = &pipeline.notification;
        if notification.via == Via::Queue {
            depends_on.push(Address::of::<EventSourceMapping>(&notification.queue));
        }
        // S3 sends notifications as soon as the entry exists, so the tables must exist before it.
        depends_on.extend(function::table_addresses(context));
        vec![Self {
            bucket: pipeline.bucket.name.clone(),
            bucket_arn: context.account.s3_arn(&pipeline.bucket.name),
            account: context.account.id.clone(),
            id: format!("{}-objects", pipeline.name),
            via: notification.via,
            destination: match notification.via {
                Via::Queue => context.account.queue_arn(&notification.queue),
                Via::Function => context.account.function_arn(&pipeline.function.name),
            },
            prefix: pipeline.notification.prefix.clone(),
            suffix: pipeline.notification.suffix.clone(),
            depends_on,
        }]
    }
}

impl Resource for Notification {
    const NAME: &'static str = "notification";
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

    /// Returns `Owned`: the entry is found by its id, which contains the pipeline's name.
    fn ownership(&self, _live: &Live) -> Ownership {
        Ownership::Owned
    }

    fn depends_on(&self) -> Vec<Address> {
        self.depends_on.clone()
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let all = absent_on(self.get(aws).await, &["NoSuchBucket"])?;
        Ok(all.map(|all| self.live(&all)))
    }

    fn exists(live: &Live) -> bool {
        live.owned.is_some()
    }

    fn refusal(&self, live: &Live) -> Option<Refusal> {
        let (id, destination) = live.overlapping.as_ref()?;
        Some(Refusal::new(
            format!("overlaps the entry `{id}`, which notifies {destination} of the same objects; S3 accepts only one"),
            "remove that entry from the bucket's notifications, or change notification.prefix or .suffix",
        ))
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        let live = live.and_then(|live| live.owned.as_ref());
        Diff::new()
            .compare("destination", live.map(|l| &l.destination), &self.destination)
            .compare("events", live.map(|l| &l.events), &BTreeSet::from([CREATED.to_owned()]))
            .compare("prefix", live.and_then(|l| l.prefix.as_ref()), encoded(&self.prefix))
            .compare("suffix", live.and_then(|l| l.suffix.as_ref()), encoded(&self.suffix))
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        self.put_and_verify(step).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        _live: &Live,
        _changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        self.put_and_verify(step).await
    }

    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        self.put(step, None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{assert_in_sync, declared};

    #[test]
    fn notification_as_created_is_in_sync() {
        assert_in_sync::<Notification>(|spec| Live {
            owned: Some(Entry {
                destination: spec.destination.clone(),
                events: BTreeSet::from([CREATED.to_owned()]),
                prefix: Some(spec.prefix.clone()),
                suffix: Some(spec.suffix.clone()),
            }),
            overlapping: None,
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

    #[test]
    fn filter_values_are_encoded_as_s3_expects() {
        for (plain, value) in [
            ("segment-logs/", "segment-logs/"),
            ("year=2026/", "year%3D2026/"),
            ("a b+c", "a+b%2Bc"),
            ("(a)_!*'.gz", "(a)_!*'.gz"),
            ("\u{e4}%", "%C3%A4%25"),
        ] {
            assert_eq!(encoded(plain), value);
            assert_eq!(listing::decode(&encoded(plain)), plain);
            assert_eq!(normalized(value.to_owned()), value);
        }
        assert_eq!(normalized("year%3d2026%2F".to_owned()), "year%3D2026/");
        assert_eq!(normalized("a%20b".to_owned()), "a+b");
    }

    #[test]
    fn unencoded_filter_is_drift() {
        let spec = declared::<Notification>("[notification]\nprefix = \"year=2026/\"").remove(0);
        let live = |prefix: &str| Live {
            owned: Some(Entry {
                destination: spec.destination.clone(),
                events: BTreeSet::from([CREATED.to_owned()]),
                prefix: Some(normalized(prefix.to_owned())),
                suffix: Some(spec.suffix.clone()),
            }),
            overlapping: None,
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
