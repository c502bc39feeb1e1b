//! The function's log group. Lambda would create one itself, but without a retention, and the role would need a
//! permission for it.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_cloudwatchlogs::types::LogGroup as CloudWatchLogGroup;

use crate::aws::{
    Aws, AwsError, Call, ResourceError, absent_on, function_name, log_group_name, resource_in, retry_while,
};
use crate::config::{self, Setting, dropped_tags};
use crate::reconcile::diff::{Diff, SettingChange, touches};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::protection::Protection;
use crate::reconcile::resource::{IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

/// The age below which Lambda may have recreated a log group. Lambda retries an event for minutes after the deletion of
/// its function's log group.
const RECENT: Duration = Duration::from_secs(15 * 60);

/// The desired state of a log group.
#[derive(Debug, Clone)]
pub(super) struct LogGroup {
    name: String,
    arn: String,
    retention_days: Setting<i32>,
    tags: BTreeMap<String, String>,
}

/// The live state of a log group.
#[derive(Debug, Default)]
pub(super) struct Live {
    retention_days: Option<i32>,
    /// The name of the account's policy that sets the retention instead of the group.
    account_policy: Option<String>,
    /// True if Lambda created it: it is younger than [`RECENT`], without tags, and has a stream of a function.
    is_of_lambda: bool,
    tags: BTreeMap<String, String>,
}

const RETENTION: Protection = Protection {
    setting: "retention_days",
    key: "function.log_retention_days",
    loss: "log entries are deleted sooner",
};

/// Returns the time since a creation time in milliseconds of the Unix epoch.
fn age(millis: i64) -> Duration {
    let created = UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    created.elapsed().unwrap_or_default()
}

/// The time limit in seconds for a change that another one delays.
const SETTLE_DEADLINE: u64 = 60;

/// Returns whether CloudWatch Logs has aborted one of two concurrent changes of a group.
fn is_aborted(error: &AwsError) -> bool {
    error.code() == Some("OperationAbortedException")
}

impl LogGroup {
    /// Returns whether a function has written to the group. The group's size would tell too, but only hours later.
    async fn has_function_stream(&self, aws: &Aws) -> Result<bool, AwsError> {
        let request = aws.logs.describe_log_streams().log_group_name(&self.name).limit(1);
        let answer = absent_on(request.send().await.call("logs:DescribeLogStreams"), &["ResourceNotFoundException"])?;
        let streams = answer.and_then(|answer| answer.log_streams).unwrap_or_default();
        // Lambda names a stream after the date and the version of the function: 2015/08/04/[$LATEST]0123.
        Ok(streams.iter().any(|stream| stream.log_stream_name().is_some_and(|name| name.contains("/[$LATEST]"))))
    }

    /// Finds the group. No call describes a single one, and groups with the same prefix may fill several pages.
    async fn describe(&self, aws: &Aws) -> Result<Option<CloudWatchLogGroup>, AwsError> {
        let mut token = None;
        loop {
            let request = aws.logs.describe_log_groups().log_group_name_prefix(&self.name).set_next_token(token);
            let page = request.send().await.call("logs:DescribeLogGroups")?;
            let groups = page.log_groups.unwrap_or_default();
            let found = groups.into_iter().find(|group| group.log_group_name.as_ref() == Some(&self.name));
            token = page.next_token;
            if found.is_some() || token.is_none() {
                return Ok(found);
            }
        }
    }

    async fn put_retention(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        retry_while(step.wait("the log group to accept a change", SETTLE_DEADLINE), is_aborted, || async {
            let request = step.aws.logs.put_retention_policy().log_group_name(&self.name);
            request.retention_in_days(self.retention_days.value).send().await.call("logs:PutRetentionPolicy")
        })
        .await?;
        Ok(())
    }
}

impl Kind for LogGroup {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let functions = context.pipeline.functions().into_iter();
        let group = |function: &config::Function| {
            let like = Self::with_name(context, &log_group_name(&function.name))?;
            Some(Self { retention_days: function.log_retention_days, ..like })
        };
        functions.filter_map(group).collect()
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        // The log group accompanies its function, so it is found even if the tagging API does not return log groups.
        let group =
            || resource_in(arn, "logs")?.strip_prefix("log-group:").map(|name| name.trim_end_matches(":*").into());
        group().or_else(|| function_name(arn).map(|name| log_group_name(&name)))
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        Some(Self {
            // Without the suffix `:*`, which denotes the streams: the tagging calls accept only the group's ARN.
            arn: context.account.log_group_arn(name),
            name: name.to_owned(),
            retention_days: context.pipeline.function.log_retention_days,
            tags: context.pipeline.tags.clone(),
        })
    }
}

impl Resource for LogGroup {
    const NAME: &'static str = "log group";
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn arn(&self) -> String {
        self.arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        // CloudWatch Logs authorizes calls on a group's ARN with the suffix `:*`, but calls on its tags without it
        // (CloudWatch Logs user guide, resource ARNs). Both denote the same group.
        let group = |resource: String| IamActions {
            resource,
            read: &["logs:ListTagsForResource", "logs:DescribeLogStreams"],
            create: &["logs:CreateLogGroup", "logs:TagResource", "logs:PutRetentionPolicy"],
            update: &["logs:TagResource", "logs:UntagResource", "logs:PutRetentionPolicy"],
            delete: &["logs:DeleteLogGroup"],
            condition: None,
        };
        vec![
            // This call accepts a name prefix, so it does not support resource-level permissions.
            IamActions { resource: "*".to_owned(), read: &["logs:DescribeLogGroups"], ..IamActions::default() },
            group(self.arn.clone()),
            group(format!("{}:*", self.arn)),
        ]
    }

    fn ownership(&self, live: &Live) -> Ownership {
        match ownership::by_tags(&live.tags, &self.tags) {
            // If permitted, an invocation that ends after the deletion of its log group creates the group again,
            // without ownership markers. Such a group holds no older logs.
            Ownership::Unmanaged if live.is_of_lambda => Ownership::Owned,
            owner => owner,
        }
    }

    fn is_made_by_aws(&self, live: &Live) -> bool {
        live.is_of_lambda
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let tags = aws.logs.list_tags_for_resource().resource_arn(&self.arn).send();
        let (found, tags) = tokio::join!(self.describe(aws), tags);
        let Some(found) = found? else { return Ok(None) };
        let tags = absent_on(tags.call("logs:ListTagsForResource"), &["ResourceNotFoundException"])?;
        let tags: BTreeMap<String, String> =
            tags.and_then(|answer| answer.tags).unwrap_or_default().into_iter().collect();
        let is_recent = found.creation_time.is_some_and(|created| age(created) < RECENT);
        Ok(Some(Live {
            retention_days: found.retention_in_days,
            account_policy: found.retention_policy_name,
            is_of_lambda: tags.is_empty() && is_recent && self.has_function_stream(aws).await?,
            tags,
        }))
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        let diff = Diff::new();
        let policy = live.and_then(|live| live.account_policy.as_ref());
        let diff = match (policy, live) {
            // The policy of the account takes precedence over the group's own retention.
            (Some(policy), _) => {
                diff.keep(format!("retention_days is set by the account's log retention policy `{policy}`"))
            }
            (None, Some(Live { retention_days: None, .. })) => {
                let loss = Some("log entries are deleted, which are kept forever now".to_owned());
                diff.change("retention_days", None::<i32>, self.retention_days.value, loss)
            }
            (None, live) => diff.protected(RETENTION, live.and_then(|l| l.retention_days), self.retention_days),
        };
        diff.tags(live.map(|l| &l.tags), &self.tags, &[])
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let request = step.aws.logs.create_log_group().log_group_name(&self.name);
        let request = request.set_tags(Some(self.tags.clone().into_iter().collect()));
        let waiting = step.wait("CloudWatch Logs to accept the new group", SETTLE_DEADLINE);
        let created = retry_while(waiting, is_aborted, || async {
            let created = request.clone().send().await.call("logs:CreateLogGroup");
            absent_on(created, &["ResourceAlreadyExistsException"])
        })
        .await?;
        created.ok_or(ResourceError::AlreadyExists)?;
        (step.on_exists)();
        self.put_retention(step).await
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
                let request = step.aws.logs.untag_resource().resource_arn(&self.arn).set_tag_keys(Some(dropped));
                request.send().await.call("logs:UntagResource")?;
            }
            let request = step.aws.logs.tag_resource().resource_arn(&self.arn);
            let tags = self.tags.clone().into_iter().collect();
            request.set_tags(Some(tags)).send().await.call("logs:TagResource")?;
        }
        if touches(changes, &["retention_days"]) {
            self.put_retention(step).await?;
        }
        Ok(())
    }

    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        let answer = step.aws.logs.delete_log_group().log_group_name(&self.name).send().await;
        absent_on(answer.call("logs:DeleteLogGroup"), &["ResourceNotFoundException"])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{assert_in_sync, declared};

    #[test]
    fn log_group_as_created_is_in_sync() {
        assert_in_sync::<LogGroup>(|spec| Live {
            retention_days: Some(spec.retention_days.value),
            account_policy: None,
            is_of_lambda: true,
            tags: spec.tags.clone(),
        });
    }

    #[test]
    fn unmarked_log_group_is_owned_only_if_lambda_created_it() {
        let spec = declared::<LogGroup>("").remove(0);
        assert_eq!(spec.ownership(&Live { is_of_lambda: true, ..Live::default() }), Ownership::Owned);
        assert_eq!(spec.ownership(&Live::default()), Ownership::Unmanaged);
        let foreign = BTreeMap::from([(crate::config::PIPELINE_TAG.to_owned(), "visits".to_owned())]);
        let live = Live { is_of_lambda: true, tags: foreign, ..Live::default() };
        assert_eq!(spec.ownership(&live), Ownership::OwnedBy("visits".to_owned()));
    }

    #[test]
    fn retention_is_shortened_only_if_declared_and_not_set_by_the_account() {
        let of = |file: &str, days: Option<i32>, account: bool| {
            let spec = declared::<LogGroup>(file).remove(0);
            let account_policy = account.then(|| "company".to_owned());
            let live = Live { retention_days: days, account_policy, tags: spec.tags.clone(), ..Live::default() };
            let (changes, kept, _) = spec.compare(Some(&live)).into_parts();
            (changes.len(), changes.iter().filter(|change| change.weakens.is_some()).count(), kept.len())
        };
        assert_eq!(of("", Some(365), false), (0, 0, 1));
        assert_eq!(of("[function]\nlog_retention_days = 30", Some(365), false), (1, 1, 0));
        assert_eq!(of("", Some(7), false), (1, 0, 0));
        assert_eq!(of("", None, false), (1, 1, 0));
        assert_eq!(of("", Some(7), true), (0, 0, 1));
    }
}
