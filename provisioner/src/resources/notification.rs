//! Our entry in the bucket's notification configuration.
//!
//! S3 keeps one configuration a bucket, and a put replaces all of it, also what other teams wrote there. So it is read
//! right before each write, ours is merged in by its id, everything else goes back as it came, and it is read again.

use std::collections::BTreeSet;

use aws_sdk_s3::operation::get_bucket_notification_configuration::GetBucketNotificationConfigurationOutput;
use aws_sdk_s3::types::{
    Event, FilterRule, FilterRuleName, LambdaFunctionConfiguration, NotificationConfiguration,
    NotificationConfigurationFilter, S3KeyFilter,
};

use super::bucket::Bucket;
use super::function;
use super::permission::Permission;
use crate::aws::ResourceError;
use crate::aws::{Aws, AwsError, Call, absent_on, retry_while};
use crate::error::{Error, ErrorKind};
use crate::reconcile::diff::{Diff, SettingChange};
use crate::reconcile::ownership::Ownership;
use crate::reconcile::resource::{Address, IamActions, Refusal, Resource, StepContext};
use crate::resources::{Context, Kind};

/// S3 sees a new permission of Lambda's within seconds.
const PERMISSION_DEADLINE: u64 = 60;

/// Our entry, as declared.
#[derive(Debug, Clone)]
pub(super) struct Notification {
    bucket: String,
    bucket_arn: String,
    account: String,
    id: String,
    function_arn: String,
    prefix: String,
    suffix: String,
    needs: Vec<Address>,
}

/// The bucket's configuration, as it is.
#[derive(Debug, Default)]
pub(super) struct Live {
    ours: Option<Entry>,
    /// Somebody else's entry that S3 would not take ours beside: what it is called, and where it leads.
    overlapping: Option<(String, String)>,
}

/// Our entry, as it is.
#[derive(Debug, Default)]
struct Entry {
    function_arn: String,
    events: BTreeSet<String>,
    prefix: Option<String>,
    suffix: Option<String>,
}

/// Somebody else's entry, of whichever kind.
struct Other<'a> {
    id: Option<&'a str>,
    destination: &'a str,
    events: &'a [Event],
    filter: Option<&'a NotificationConfigurationFilter>,
}

/// Every way in which an object can come to be: put, post, copy, multipart upload.
const CREATED: &str = "s3:ObjectCreated:*";

fn rules(filter: Option<&NotificationConfigurationFilter>) -> &[FilterRule] {
    filter.and_then(|filter| filter.key.as_ref()).map(S3KeyFilter::filter_rules).unwrap_or_default()
}

/// S3 gives the names back as `Prefix` or `prefix`.
fn rule(rules: &[FilterRule], name: &str) -> Option<String> {
    let named = |rule: &&FilterRule| rule.name.as_ref().is_some_and(|n| n.as_str().eq_ignore_ascii_case(name));
    rules.iter().find(named).and_then(|rule| rule.value.clone())
}

impl Notification {
    fn entry(&self) -> Result<LambdaFunctionConfiguration, Error> {
        let rule = |name, value: &str| FilterRule::builder().name(name).value(value).build();
        let key = S3KeyFilter::builder()
            .filter_rules(rule(FilterRuleName::Prefix, &self.prefix))
            .filter_rules(rule(FilterRuleName::Suffix, &self.suffix))
            .build();
        LambdaFunctionConfiguration::builder()
            .id(&self.id)
            .lambda_function_arn(&self.function_arn)
            .events(Event::from(CREATED))
            .filter(NotificationConfigurationFilter::builder().key(key).build())
            .build()
            .map_err(Error::from)
    }

    async fn get(&self, aws: &Aws) -> Result<GetBucketNotificationConfigurationOutput, AwsError> {
        let request = aws.s3.get_bucket_notification_configuration().bucket(&self.bucket);
        request.expected_bucket_owner(&self.account).send().await.call("s3:GetBucketNotification")
    }

    fn live(&self, all: &GetBucketNotificationConfigurationOutput) -> Live {
        Live { ours: self.ours(all), overlapping: self.overlapping(all) }
    }

    /// The entries that are not ours, whatever they lead to.
    fn others<'a>(&'a self, all: &'a GetBucketNotificationConfigurationOutput) -> impl Iterator<Item = Other<'a>> {
        let functions = all.lambda_function_configurations().iter();
        let functions = functions.filter(|entry| entry.id.as_ref() != Some(&self.id)).map(|e| Other {
            id: e.id.as_deref(),
            destination: &e.lambda_function_arn,
            events: &e.events,
            filter: e.filter.as_ref(),
        });
        let queues = all.queue_configurations().iter().map(|e| Other {
            id: e.id.as_deref(),
            destination: &e.queue_arn,
            events: &e.events,
            filter: e.filter.as_ref(),
        });
        let topics = all.topic_configurations().iter().map(|e| Other {
            id: e.id.as_deref(),
            destination: &e.topic_arn,
            events: &e.events,
            filter: e.filter.as_ref(),
        });
        functions.chain(queues).chain(topics)
    }

    /// The first entry of somebody else's that S3 would refuse ours beside: both would be told of the same object.
    fn overlapping(&self, all: &GetBucketNotificationConfigurationOutput) -> Option<(String, String)> {
        let overlaps = |other: &Other<'_>| {
            let rules = rules(other.filter);
            let (prefix, suffix) =
                (rule(rules, "prefix").unwrap_or_default(), rule(rules, "suffix").unwrap_or_default());
            other.events.iter().any(|event| event.as_str().starts_with("s3:ObjectCreated:"))
                && (prefix.starts_with(&self.prefix) || self.prefix.starts_with(&prefix))
                && (suffix.ends_with(&self.suffix) || self.suffix.ends_with(&suffix))
        };
        let other = self.others(all).find(overlaps)?;
        Some((other.id.unwrap_or("(no id)").to_owned(), other.destination.to_owned()))
    }

    fn ours(&self, all: &GetBucketNotificationConfigurationOutput) -> Option<Entry> {
        let entries = all.lambda_function_configurations();
        let entry = entries.iter().find(|entry| entry.id.as_ref() == Some(&self.id))?;
        let rules = rules(entry.filter.as_ref());
        Some(Entry {
            function_arn: entry.lambda_function_arn.clone(),
            events: entry.events.iter().map(|event| event.as_str().to_owned()).collect(),
            prefix: rule(rules, "prefix"),
            suffix: rule(rules, "suffix"),
        })
    }

    /// Everything that is there, with `entry` in the place of ours.
    async fn put(
        &self,
        step: &StepContext<'_>,
        entry: Option<LambdaFunctionConfiguration>,
    ) -> Result<(), ResourceError> {
        // S3 asks Lambda whether it may invoke the function. Its answer for a permission that it does not see yet is
        // the one for a destination that is not there, which may be somebody else's; it names no one.
        let unseen = |error: &AwsError| {
            error.says("InvalidArgument", "Unable to validate the following destination configurations")
                || error.code() == Some("OperationAborted")
        };
        // A bucket that is gone has nothing left to take away.
        let gone: &[&str] = if entry.is_none() { &["NoSuchBucket"] } else { &[] };
        let waiting = step.wait("S3 to see the permission to invoke the function", PERMISSION_DEADLINE);
        retry_while(waiting, unseen, || async {
            let Some(now) = absent_on(self.get(step.aws).await, gone)? else { return Ok(()) };
            let mut functions = now.lambda_function_configurations.unwrap_or_default();
            functions.retain(|other| other.id.as_ref() != Some(&self.id));
            functions.extend(entry.clone());
            let all = NotificationConfiguration::builder()
                .set_lambda_function_configurations(Some(functions))
                .set_queue_configurations(now.queue_configurations)
                .set_topic_configurations(now.topic_configurations)
                .set_event_bridge_configuration(now.event_bridge_configuration)
                .build();
            let request = step.aws.s3.put_bucket_notification_configuration().bucket(&self.bucket);
            let request = request.expected_bucket_owner(&self.account).notification_configuration(all);
            // To take ours away, nobody's destination needs to be valid.
            let request = request.skip_destination_validation(entry.is_none());
            absent_on(request.send().await.call("s3:PutBucketNotification"), gone).map(|_| ())
        })
        .await
    }

    /// S3 does not say which destination it could not validate. Where others are there, it may be one of theirs.
    async fn blame(&self, step: &StepContext<'_>, fault: ResourceError) -> ResourceError {
        let ResourceError::Other(error) = fault else { return fault };
        if error.kind() != ErrorKind::Timeout {
            return ResourceError::Other(error);
        }
        let Ok(all) = self.get(step.aws).await else { return ResourceError::Other(error) };
        let others: Vec<&str> = self.others(&all).map(|other| other.destination).collect();
        if others.is_empty() {
            return ResourceError::Other(error);
        }
        Error::conflict(
            format!("{error}\nS3 validates every destination of the bucket; the others are: {}", others.join(", ")),
            "check that each of these exists and allows S3 to send to it, or remove its entry; then run apply again",
        )
        .into()
    }

    /// Puts ours and reads it back: another writer may have replaced it at the same moment.
    async fn put_ours(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let entry = self.entry()?;
        for _ in 0..3 {
            if let Err(fault) = self.put(step, Some(entry.clone())).await {
                return Err(self.blame(step, fault).await);
            }
            let live = self.live(&self.get(step.aws).await?);
            if Self::exists(&live) && self.diff(Some(&live)).is_empty() {
                return Ok(());
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
        let mut needs =
            vec![Address::of::<Bucket>(&pipeline.bucket.name), Address::of::<Permission>(&pipeline.function.name)];
        // Files arrive from the moment that this is there, so everything that counts them must be.
        needs.extend(function::tables(context));
        vec![Self {
            bucket: pipeline.bucket.name.clone(),
            bucket_arn: context.account.s3_arn(&pipeline.bucket.name),
            account: context.account.id.clone(),
            id: format!("{}-objects", pipeline.name),
            function_arn: context.account.function_arn(&pipeline.function.name),
            prefix: pipeline.notification.prefix.clone(),
            suffix: pipeline.notification.suffix.clone(),
            needs,
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
        vec![IamActions { resource: self.bucket_arn.clone(), read, create: put, update: put, delete: put }]
    }

    /// The entry's id is the pipeline's.
    fn ownership(&self, _live: &Live) -> Ownership {
        Ownership::Owned
    }

    fn depends_on(&self) -> Vec<Address> {
        self.needs.clone()
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let all = absent_on(self.get(aws).await, &["NoSuchBucket"])?;
        Ok(all.map(|all| self.live(&all)))
    }

    fn exists(live: &Live) -> bool {
        live.ours.is_some()
    }

    fn refusal(&self, live: &Live) -> Option<Refusal> {
        let (id, destination) = live.overlapping.as_ref()?;
        Some(Refusal::new(
            format!(
                "cannot stand beside the entry `{id}`, which tells {destination} of the same objects: S3 takes one"
            ),
            "take that entry out of the bucket's notifications, or change notification.prefix or .suffix",
        ))
    }

    fn diff(&self, live: Option<&Live>) -> Vec<SettingChange> {
        let live = live.and_then(|live| live.ours.as_ref());
        Diff::new()
            .compare("function", live.map(|l| &l.function_arn), &self.function_arn)
            .compare("events", live.map(|l| &l.events), &BTreeSet::from([CREATED.to_owned()]))
            .compare("prefix", live.and_then(|l| l.prefix.as_ref()), &self.prefix)
            .compare("suffix", live.and_then(|l| l.suffix.as_ref()), &self.suffix)
            .changes()
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        self.put_ours(step).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        _live: &Live,
        _changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        self.put_ours(step).await
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
    fn nothing_differs_from_what_was_made() {
        assert_in_sync::<Notification>(|spec| Live {
            ours: Some(Entry {
                function_arn: spec.function_arn.clone(),
                events: BTreeSet::from([CREATED.to_owned()]),
                prefix: Some(spec.prefix.clone()),
                suffix: Some(spec.suffix.clone()),
            }),
            overlapping: None,
        });
    }

    #[test]
    fn what_s3_would_refuse_is_found_before() {
        let spec = declared::<Notification>("").remove(0);
        let refused = |prefix: &str, suffix: &str, event: Event| {
            let rule = |name, value: &str| FilterRule::builder().name(name).value(value).build();
            let key = S3KeyFilter::builder().filter_rules(rule(FilterRuleName::Prefix, prefix));
            let key = key.filter_rules(rule(FilterRuleName::Suffix, suffix)).build();
            let entry = LambdaFunctionConfiguration::builder()
                .id("theirs")
                .lambda_function_arn("arn:theirs")
                .events(event)
                .filter(NotificationConfigurationFilter::builder().key(key).build())
                .build()
                .expect("an entry");
            let all = GetBucketNotificationConfigurationOutput::builder().lambda_function_configurations(entry).build();
            spec.refusal(&spec.live(&all)).is_some_and(|refusal| refusal.why.contains("arn:theirs"))
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
    fn filter_names_are_read_in_either_case() {
        let spec = declared::<Notification>("").remove(0);
        let mut entry = spec.entry().expect("an entry");
        for (name, rule) in ["Prefix", "Suffix"].into_iter().zip(
            entry.filter.as_mut().and_then(|f| f.key.as_mut()).and_then(|k| k.filter_rules.as_mut()).expect("rules"),
        ) {
            rule.name = Some(FilterRuleName::from(name));
        }
        let all = GetBucketNotificationConfigurationOutput::builder().lambda_function_configurations(entry).build();
        assert_eq!(spec.diff(Some(&spec.live(&all))), []);
    }
}
