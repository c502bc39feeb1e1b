//! The Lambda function: code, configuration, how failed events are run again, and how many run at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_lambda::operation::get_function_configuration::GetFunctionConfigurationOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{
    Architecture, DestinationConfig, Environment, FunctionCode, LastUpdateStatus, OnFailure, OnSuccess, Runtime, State,
};
use counting::names::env;

pub(crate) mod artifact;

use super::{log_group, queue, role, table};
use crate::aws::ResourceError;
use crate::aws::{Answer, Aws, AwsError, Call, absent_on, log_group_name, resource_in, retry_while, wait_until};
use crate::error::{Error, ErrorKind};
use crate::reconcile::diff::{Code, Diff, SettingChange, touches};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::resource::{Address, IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};
use artifact::{Artifact, ENTRY};

/// A marker must outlive its object. S3 expires objects at the midnight after their last day and then takes its time.
const LEDGER_MARGIN_DAYS: i32 = 7;
/// A new role is usually assumable within ten seconds.
const ROLE_DEADLINE: u64 = 90;
/// Lambda unpacks and starts a new version within seconds.
const UPDATE_DEADLINE: u64 = 180;
/// What Lambda does where nothing was said: PutFunctionEventInvokeConfig, API reference.
const DEFAULT_RETRIES: i32 = 2;
const DEFAULT_EVENT_AGE: i32 = 21_600;
const DESCRIPTION: &str = "Counts the events of Segment's files per event and hour";
/// Tag with the git revision that the code was deployed from. It is written with the code and not compared: the same
/// code may be built from many revisions.
pub(crate) const REVISION_TAG: &str = "revision";
/// In place of the values of environment variables that are not ours: they may be secrets.
const HIDDEN: &str = "(hidden)";

/// A function, as declared.
#[derive(Debug, Clone)]
pub(super) struct Function {
    name: String,
    arn: String,
    role_arn: String,
    needs: Vec<Address>,
    artifact: Option<Arc<Artifact>>,
    architecture: Architecture,
    memory_mb: i32,
    timeout_seconds: i32,
    environment: BTreeMap<String, String>,
    retries: i32,
    max_event_age_seconds: i32,
    failure_queue_arn: String,
    max_concurrency: Option<i32>,
    tags: BTreeMap<String, String>,
}

/// A function, as it is.
#[derive(Debug, Default)]
pub(super) struct Live {
    role_arn: String,
    description: String,
    handler: String,
    code: Code,
    /// Why Lambda could not make the last change, where it could not.
    failure: Option<String>,
    /// Changes with each change of code or configuration.
    revision_id: Option<String>,
    architecture: Option<String>,
    runtime: Option<String>,
    memory_mb: Option<i32>,
    timeout_seconds: Option<i32>,
    environment: BTreeMap<String, String>,
    retries: i32,
    max_event_age_seconds: i32,
    failure_queue_arn: Option<String>,
    success_destination: Option<String>,
    max_concurrency: Option<i32>,
    tags: BTreeMap<String, String>,
}

/// What became of the last change, where Lambda could not make it. One that is under way is none of a plan's business.
fn failure(state: Option<&State>, update: Option<&LastUpdateStatus>, reason: Option<&str>) -> Option<String> {
    let failed = state == Some(&State::Failed) || update == Some(&LastUpdateStatus::Failed);
    failed.then(|| format!("Failed: {}", reason.unwrap_or("Lambda gives no reason")))
}

/// Settings that go through UpdateFunctionConfiguration.
const CONFIGURATION: [&str; 7] =
    ["role", "description", "runtime", "handler", "memory_mb", "timeout_seconds", "environment"];

/// Settings that go through UpdateFunctionCode.
const CODE: [&str; 2] = ["code", "architecture"];

/// Lambda checks that it may assume the role, and a new role is not known everywhere yet. Only these texts tell this
/// from a request that is wrong.
fn role_is_new(error: &AwsError) -> bool {
    ["cannot be assumed by Lambda", "execution role does not have permissions", "KMS key is invalid for CreateGrant"]
        .iter()
        .any(|text| error.says("InvalidParameterValueException", text))
}

/// Something else is changing the function; it passes.
pub(super) fn is_busy(error: &AwsError) -> bool {
    matches!(error.code(), Some("ResourceConflictException" | "PreconditionFailedException"))
}

impl Function {
    fn environment(&self) -> Environment {
        // An empty map clears what is there; leaving it out would keep it.
        Environment::builder().set_variables(Some(self.environment.clone().into_iter().collect())).build()
    }

    /// The code to upload; declared without it only for destroy, which uploads nothing.
    fn code(&self) -> Result<&Artifact, Error> {
        self.artifact
            .as_deref()
            .ok_or_else(|| Error::usage("the handler's binary was not loaded", "build it with `make handler`"))
    }

    /// The tags with which code goes up: a revision that is declared by hand stays so.
    fn tags_with_revision(&self) -> BTreeMap<String, String> {
        let mut tags = self.tags.clone();
        let revision = self.artifact.as_ref().and_then(|artifact| artifact.code.revision.clone());
        tags.entry(REVISION_TAG.to_owned()).or_insert_with(|| revision.unwrap_or_else(|| "unknown".to_owned()));
        tags
    }

    async fn configuration(&self, aws: &Aws) -> Result<GetFunctionConfigurationOutput, AwsError> {
        let request = aws.lambda.get_function_configuration().function_name(&self.name);
        request.send().await.call("lambda:GetFunctionConfiguration")
    }

    /// Waits until Lambda is at no change, whatever came of the last one: the next may mend it.
    async fn idle(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let waiting = step.wait(format!("function {} to take a change", self.name), UPDATE_DEADLINE);
        wait_until(waiting, || async {
            let now = self.configuration(step.aws).await?;
            let busy =
                now.state == Some(State::Pending) || now.last_update_status == Some(LastUpdateStatus::InProgress);
            Ok((!busy).then_some(()))
        })
        .await
    }

    /// Waits until Lambda has put our change into place.
    async fn settled(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let waiting = step.wait(format!("function {} to be ready", self.name), UPDATE_DEADLINE);
        wait_until(waiting, || async {
            let now = self.configuration(step.aws).await?;
            if now.last_update_status == Some(LastUpdateStatus::Failed) || now.state == Some(State::Failed) {
                let reason = now.last_update_status_reason.or(now.state_reason).unwrap_or_default();
                return Err(Error::new(
                    ErrorKind::Aws,
                    format!("failed to update function {}: {reason}", self.name),
                    "fix the cause and run the command again",
                )
                .into());
            }
            // Inactive is ready too: Lambda puts functions that were not used for weeks to sleep.
            let ready = matches!(now.state, Some(State::Active | State::Inactive))
                && now.last_update_status == Some(LastUpdateStatus::Successful);
            Ok(ready.then_some(()))
        })
        .await
    }

    /// The function, where `settings` of it still differ as planned; nothing where they are as declared by now. What has
    /// become of them otherwise is somebody else's work, and not to be undone without having been shown.
    async fn still(
        &self,
        aws: &Aws,
        planned: &[SettingChange],
        settings: &[&str],
    ) -> Result<Option<Live>, ResourceError> {
        let moved = |how: &str| {
            Error::conflict(
                format!("function {} {how} concurrently by another process", self.name),
                "wait for the other process to finish, then run the command again",
            )
        };
        let now = self.read(aws).await?.ok_or_else(|| moved("was deleted"))?;
        let of = |changes: &[SettingChange]| -> Vec<SettingChange> {
            changes.iter().filter(|change| settings.contains(&change.setting)).cloned().collect()
        };
        let differs = of(&self.diff(Some(&now)));
        if differs.is_empty() {
            return Ok(None);
        }
        if differs != of(planned) {
            return Err(moved("was changed").into());
        }
        Ok(Some(now))
    }

    async fn put_configuration(&self, step: &StepContext<'_>, planned: &[SettingChange]) -> Result<(), ResourceError> {
        let passes = |error: &AwsError| role_is_new(error) || is_busy(error);
        retry_while(step.wait("the function to take its configuration", ROLE_DEADLINE), passes, || async {
            let Some(now) = self.still(step.aws, planned, &CONFIGURATION).await? else { return Ok(()) };
            let request = step.aws.lambda.update_function_configuration().function_name(&self.name);
            let request = request
                .set_revision_id(now.revision_id)
                .role(&self.role_arn)
                .description(DESCRIPTION)
                .runtime(Runtime::Providedal2023)
                .handler(ENTRY)
                .memory_size(self.memory_mb)
                .timeout(self.timeout_seconds)
                .environment(self.environment());
            request.send().await.call("lambda:UpdateFunctionConfiguration").map(drop).map_err(ResourceError::from)
        })
        .await?;
        self.settled(step).await
    }

    /// One UpdateFunctionCode, on condition that the function is at `revision_id`, where one is given.
    async fn upload(&self, aws: &Aws, zip: Blob, revision_id: Option<String>) -> Result<(), AwsError> {
        let request = aws.lambda.update_function_code().function_name(&self.name).set_revision_id(revision_id);
        let request = request.zip_file(zip).architectures(self.architecture.clone());
        request.send().await.call("lambda:UpdateFunctionCode").map(drop)
    }

    async fn put_code(&self, step: &StepContext<'_>, planned: &[SettingChange]) -> Result<(), ResourceError> {
        let zip = Blob::new(self.code()?.zip.clone());
        retry_while(step.wait("the function to take its code", UPDATE_DEADLINE), is_busy, || async {
            let Some(now) = self.still(step.aws, planned, &CODE).await? else { return Ok(()) };
            Ok::<_, ResourceError>(self.upload(step.aws, zip.clone(), now.revision_id).await?)
        })
        .await?;
        self.settled(step).await
    }

    async fn put_event_invoke(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        let failures = OnFailure::builder().destination(&self.failure_queue_arn).build();
        // The put removes what it does not name, and where successes go is not ours to say.
        let successes = live.success_destination.as_ref().map(|arn| OnSuccess::builder().destination(arn).build());
        let destination = DestinationConfig::builder().on_failure(failures).set_on_success(successes).build();
        // Lambda checks that the queue is there and that the role may send to it, and neither is known everywhere at
        // once. Only these texts tell this from a request that is wrong.
        let passes = |error: &AwsError| {
            let unknown = ["destination ARN", "does not have permissions", "do not have permissions"];
            is_busy(error) || unknown.iter().any(|text| error.says("InvalidParameterValueException", text))
        };
        retry_while(step.wait("the role to be allowed to send to the queue", ROLE_DEADLINE), passes, || async {
            let request = step.aws.lambda.put_function_event_invoke_config().function_name(&self.name);
            let request = request
                .maximum_retry_attempts(self.retries)
                .maximum_event_age_in_seconds(self.max_event_age_seconds)
                .destination_config(destination.clone());
            request.send().await.call("lambda:PutFunctionEventInvokeConfig")
        })
        .await?;
        Ok(())
    }

    async fn put_concurrency(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let lambda = &step.aws.lambda;
        retry_while(step.wait("the function to take its concurrency", UPDATE_DEADLINE), is_busy, || async {
            match self.max_concurrency {
                Some(most) => {
                    let request = lambda.put_function_concurrency().function_name(&self.name);
                    let request = request.reserved_concurrent_executions(most);
                    request.send().await.call("lambda:PutFunctionConcurrency").map(drop)
                }
                None => {
                    let request = lambda.delete_function_concurrency().function_name(&self.name);
                    request.send().await.call("lambda:DeleteFunctionConcurrency").map(drop)
                }
            }
        })
        .await
    }
}

impl Kind for Function {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let (pipeline, declared) = (context.pipeline, &context.pipeline.function);
        let mut environment = BTreeMap::from([
            (env::COUNTS_TABLE.to_owned(), pipeline.table.counts.clone()),
            (env::LEDGER_TABLE.to_owned(), pipeline.table.ledger.clone()),
            (env::COUNT_TYPES.to_owned(), pipeline.count.join(",")),
        ]);
        if let Some(days) = pipeline.bucket.expire_days {
            // With versions, an object lives so many days as the current one and as many again as an old one.
            let lives = if pipeline.bucket.versioning { days.saturating_mul(2) } else { days };
            environment.insert(env::LEDGER_TTL_DAYS.to_owned(), lives.saturating_add(LEDGER_MARGIN_DAYS).to_string());
        }
        vec![Self {
            name: declared.name.clone(),
            arn: context.account.function_arn(&declared.name),
            role_arn: context.account.role_arn(&pipeline.name, &pipeline.role_name),
            needs: vec![
                Address::of::<role::Role>(&pipeline.role_name),
                Address::of::<log_group::LogGroup>(log_group_name(&declared.name)),
                Address::of::<queue::Queue>(&declared.failure_queue),
            ],
            artifact: context.artifact.cloned(),
            architecture: Architecture::from(declared.architecture.as_str()),
            memory_mb: declared.memory_mb,
            timeout_seconds: declared.timeout_seconds,
            environment,
            retries: declared.retries,
            max_event_age_seconds: declared.max_event_age_seconds,
            failure_queue_arn: context.account.queue_arn(&declared.failure_queue),
            max_concurrency: declared.max_concurrency,
            tags: pipeline.tags.clone(),
        }]
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        let name = resource_in(arn, "lambda")?.strip_prefix("function:")?;
        (!name.contains(':')).then(|| name.to_owned())
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let like = Self::desired(context).into_iter().next()?;
        let group = Address::of::<log_group::LogGroup>(log_group_name(name));
        let mut needs = like.needs;
        needs.retain(|need| need.kind != group.kind);
        needs.push(group);
        Some(Self { name: name.to_owned(), arn: context.account.function_arn(name), needs, ..like })
    }
}

impl Resource for Function {
    const NAME: &'static str = "function";
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn arn(&self) -> String {
        self.arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        vec![
            IamActions {
                resource: self.arn.clone(),
                // GetFunction leaves the tags out where the second is missing (Lambda API reference).
                read: &["lambda:GetFunction", "lambda:ListTags", "lambda:GetFunctionEventInvokeConfig"],
                create: &[
                    "lambda:CreateFunction",
                    "lambda:TagResource",
                    "lambda:GetFunctionConfiguration",
                    "lambda:PutFunctionEventInvokeConfig",
                    "lambda:PutFunctionConcurrency",
                ],
                update: &[
                    "lambda:TagResource",
                    "lambda:GetFunctionConfiguration",
                    "lambda:UpdateFunctionConfiguration",
                    "lambda:UpdateFunctionCode",
                    "lambda:PutFunctionEventInvokeConfig",
                    "lambda:PutFunctionConcurrency",
                    "lambda:DeleteFunctionConcurrency",
                ],
                delete: &["lambda:DeleteFunction"],
            },
            IamActions {
                resource: self.role_arn.clone(),
                create: &["iam:PassRole"],
                update: &["iam:PassRole"],
                ..IamActions::default()
            },
        ]
    }

    fn ownership(&self, live: &Live) -> Ownership {
        ownership::by_tags(&live.tags, &self.tags)
    }

    fn depends_on(&self) -> Vec<Address> {
        self.needs.clone()
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let gone = ["ResourceNotFoundException"];
        let (function, invoke) = tokio::try_join!(
            async {
                let answer = aws.lambda.get_function().function_name(&self.name).send().await;
                absent_on(answer.call("lambda:GetFunction"), &gone)
            },
            async {
                let answer = aws.lambda.get_function_event_invoke_config().function_name(&self.name).send().await;
                absent_on(answer.call("lambda:GetFunctionEventInvokeConfig"), &gone)
            },
        )?;
        let Some(function) = function else {
            return Ok(None);
        };
        // Without its tags, it would look like nobody's.
        if let Some(error) = function.tags_error {
            let answer =
                Answer::Service { status: 403, code: error.error_code, message: error.message, request_id: None };
            return Err(AwsError { call: "lambda:ListTags", answer }.into());
        }
        let configuration = function
            .configuration
            .ok_or_else(|| Error::incomplete_answer(format!("read function {}", self.name), "configuration"))?;
        let destinations = invoke.as_ref().and_then(|invoke| invoke.destination_config.clone());
        Ok(Some(Live {
            role_arn: configuration.role.unwrap_or_default(),
            description: configuration.description.unwrap_or_default(),
            handler: configuration.handler.unwrap_or_default(),
            code: Code {
                sha256: configuration.code_sha256.unwrap_or_default(),
                bytes: u64::try_from(configuration.code_size).unwrap_or_default(),
                revision: function.tags.as_ref().and_then(|tags| tags.get(REVISION_TAG)).cloned(),
            },
            failure: failure(
                configuration.state.as_ref(),
                configuration.last_update_status.as_ref(),
                configuration.last_update_status_reason.as_deref().or(configuration.state_reason.as_deref()),
            ),
            revision_id: configuration.revision_id,
            architecture: configuration.architectures.unwrap_or_default().first().map(|a| a.as_str().to_owned()),
            runtime: configuration.runtime.map(|runtime| runtime.as_str().to_owned()),
            memory_mb: configuration.memory_size,
            timeout_seconds: configuration.timeout,
            environment: configuration.environment.and_then(|e| e.variables).unwrap_or_default().into_iter().collect(),
            retries: invoke.as_ref().and_then(|i| i.maximum_retry_attempts).unwrap_or(DEFAULT_RETRIES),
            max_event_age_seconds: invoke
                .as_ref()
                .and_then(|i| i.maximum_event_age_in_seconds)
                .unwrap_or(DEFAULT_EVENT_AGE),
            failure_queue_arn: destinations
                .as_ref()
                .and_then(|destinations| destinations.on_failure.as_ref())
                .and_then(|failure| failure.destination.clone()),
            success_destination: destinations
                .and_then(|destinations| destinations.on_success)
                .and_then(|success| success.destination),
            max_concurrency: function.concurrency.and_then(|c| c.reserved_concurrent_executions),
            tags: function.tags.unwrap_or_default().into_iter().collect(),
        }))
    }

    fn diff(&self, live: Option<&Live>) -> Vec<SettingChange> {
        let code = self.artifact.as_ref().map(|artifact| &artifact.code);
        let environment = live.map(|live| {
            let shown = |(name, value): (&String, &String)| {
                let value = if env::ALL.contains(&name.as_str()) { value.as_str() } else { HIDDEN };
                (name.clone(), value.to_owned())
            };
            live.environment.iter().map(shown).collect::<BTreeMap<_, _>>()
        });
        Diff::new()
            .compare("code", live.filter(|_| code.is_some()).map(|l| &l.code), code)
            .compare("state", live.and_then(|l| l.failure.as_ref()), None::<&str>)
            .compare("description", live.map(|l| &l.description), DESCRIPTION)
            .compare("handler", live.map(|l| &l.handler), ENTRY)
            .compare("runtime", live.and_then(|l| l.runtime.as_ref()), Runtime::Providedal2023.as_str())
            .compare("architecture", live.and_then(|l| l.architecture.as_ref()), self.architecture.as_str())
            .compare("memory_mb", live.and_then(|l| l.memory_mb), self.memory_mb)
            .compare("timeout_seconds", live.and_then(|l| l.timeout_seconds), self.timeout_seconds)
            .compare("role", live.map(|l| &l.role_arn), &self.role_arn)
            .compare("environment", environment.as_ref(), &self.environment)
            .compare("retries", live.map(|l| l.retries), self.retries)
            .compare("max_event_age_seconds", live.map(|l| l.max_event_age_seconds), self.max_event_age_seconds)
            .compare("failure_queue", live.and_then(|l| l.failure_queue_arn.as_ref()), &self.failure_queue_arn)
            .compare("max_concurrency", live.and_then(|l| l.max_concurrency), self.max_concurrency)
            .tags(live.map(|l| &l.tags), &self.tags)
            .changes()
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let code = FunctionCode::builder().zip_file(Blob::new(self.code()?.zip.clone())).build();
        let request = step
            .aws
            .lambda
            .create_function()
            .function_name(&self.name)
            .description(DESCRIPTION)
            .role(&self.role_arn)
            .runtime(Runtime::Providedal2023)
            .handler(ENTRY)
            .architectures(self.architecture.clone())
            .memory_size(self.memory_mb)
            .timeout(self.timeout_seconds)
            .environment(self.environment())
            .code(code)
            .set_tags(Some(self.tags_with_revision().into_iter().collect()));
        let created = retry_while(step.wait("the role to become assumable", ROLE_DEADLINE), role_is_new, || async {
            request.clone().send().await.call("lambda:CreateFunction")
        })
        .await;
        match created {
            Err(ResourceError::Call(error)) if error.code() == Some("ResourceConflictException") => {
                return Err(ResourceError::AlreadyExists);
            }
            other => other?,
        };
        self.settled(step).await?;
        self.put_event_invoke(step, &Live::default()).await?;
        if self.max_concurrency.is_some() {
            self.put_concurrency(step).await?;
        }
        Ok(())
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        let uploads = touches(changes, &["code"]);
        if uploads {
            // The tags say which revision the code is of, so they wait for the same condition.
            self.still(step.aws, changes, &CODE).await?;
        }
        if uploads || touches(changes, &["tags"]) {
            let request = step.aws.lambda.tag_resource().resource(&self.arn);
            let tags = if uploads { self.tags_with_revision() } else { self.tags.clone() }.into_iter().collect();
            let request = request.set_tags(Some(tags));
            retry_while(step.wait("the function to take its tags", UPDATE_DEADLINE), is_busy, || async {
                request.clone().send().await.call("lambda:TagResource")
            })
            .await?;
        }
        // A made-but-not-ready function takes no change. Configuration before code: new code may need a new variable.
        if touches(changes, &CONFIGURATION) {
            self.idle(step).await?;
            self.put_configuration(step, changes).await?;
        }
        if touches(changes, &CODE) {
            self.idle(step).await?;
            self.put_code(step, changes).await?;
        }
        if touches(changes, &["state"]) && !uploads {
            // The change that failed is made anew.
            self.idle(step).await?;
            self.upload(step.aws, Blob::new(self.code()?.zip.clone()), None).await?;
            self.settled(step).await?;
        }
        if touches(changes, &["retries", "max_event_age_seconds", "failure_queue"]) {
            self.put_event_invoke(step, live).await?;
        }
        if touches(changes, &["max_concurrency"]) {
            self.put_concurrency(step).await?;
        }
        Ok(())
    }

    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        let waiting = step.wait("the function to be free for deletion", UPDATE_DEADLINE);
        retry_while(waiting, is_busy, || async {
            let answer = step.aws.lambda.delete_function().function_name(&self.name).send().await;
            absent_on(answer.call("lambda:DeleteFunction"), &["ResourceNotFoundException"])
        })
        .await?;
        Ok(())
    }
}

/// The tables that the function writes to, for those who start sending it work.
pub(super) fn tables(context: &Context<'_>) -> [Address; 2] {
    let declared = &context.pipeline.table;
    [Address::of::<table::Table>(&declared.counts), Address::of::<table::Table>(&declared.ledger)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::diff::Value;
    use crate::resources::tests::{assert_in_sync, declared};

    fn live_of(spec: &Function) -> Live {
        Live {
            role_arn: spec.role_arn.clone(),
            description: DESCRIPTION.to_owned(),
            handler: ENTRY.to_owned(),
            code: spec.artifact.as_ref().map(|a| a.code.clone()).unwrap_or_default(),
            failure: None,
            revision_id: None,
            success_destination: None,
            architecture: Some(spec.architecture.as_str().to_owned()),
            runtime: Some("provided.al2023".to_owned()),
            memory_mb: Some(spec.memory_mb),
            timeout_seconds: Some(spec.timeout_seconds),
            environment: spec.environment.clone(),
            retries: spec.retries,
            max_event_age_seconds: spec.max_event_age_seconds,
            failure_queue_arn: Some(spec.failure_queue_arn.clone()),
            max_concurrency: spec.max_concurrency,
            tags: spec.tags.clone(),
        }
    }

    #[test]
    fn nothing_differs_from_what_was_made() {
        assert_in_sync::<Function>(live_of);
    }

    #[test]
    fn markers_outlive_the_objects_that_they_mark() {
        let days = |file: &str| declared::<Function>(file).remove(0).environment.get(env::LEDGER_TTL_DAYS).cloned();
        assert_eq!(days(""), None);
        assert_eq!(days("[bucket]\nexpire_days = 90").as_deref(), Some("97"));
        assert_eq!(days("[bucket]\nexpire_days = 90\nversioning = true").as_deref(), Some("187"));
    }

    #[test]
    fn one_setting_is_one_change() {
        let spec = declared::<Function>("").remove(0);
        let changes = spec.diff(Some(&Live { memory_mb: Some(128), ..live_of(&spec) }));
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].setting, &changes[0].live), ("memory_mb", &Value::Number(128)));
    }

    #[test]
    fn a_change_that_lambda_could_not_make_is_a_difference() {
        let spec = declared::<Function>("").remove(0);
        let live =
            |state, update| Live { failure: failure(Some(&state), Some(&update), Some("no space")), ..live_of(&spec) };
        let settings = |live: &Live| spec.diff(Some(live)).iter().map(|change| change.setting).collect::<Vec<_>>();
        assert_eq!(settings(&live(State::Active, LastUpdateStatus::Failed)), ["state"]);
        assert_eq!(settings(&live(State::Failed, LastUpdateStatus::Successful)), ["state"]);
        assert_eq!(settings(&live(State::Pending, LastUpdateStatus::InProgress)), [""; 0]);
    }

    #[test]
    fn the_same_code_of_another_revision_is_no_change() {
        let spec = declared::<Function>("").remove(0);
        let mut live = live_of(&spec);
        live.code.revision = Some("other".to_owned());
        live.tags.insert(REVISION_TAG.to_owned(), "other".to_owned());
        assert_eq!(spec.diff(Some(&live)), []);
    }

    #[test]
    fn values_of_variables_that_are_not_ours_are_not_shown() {
        let spec = declared::<Function>("").remove(0);
        let mut live = live_of(&spec);
        live.environment.insert("DB_PASSWORD".to_owned(), "hunter2".to_owned());
        let changes = spec.diff(Some(&live));
        let shown = format!("{changes:?}");
        assert!(shown.contains("DB_PASSWORD") && !shown.contains("hunter2"), "{shown}");
    }
}
