//! The Lambda functions: code, configuration, retries, and concurrency.

pub(crate) mod artifact;
mod calls;
mod configuration;
mod state;

use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{FunctionCode, LastUpdateStatus, PackageType, State};

use super::{log_group, queue, role, table};
use crate::aws::{Answer, Aws, AwsError, Call, ResourceError, absent_on, function_name, log_group_name, retry_while};
use crate::config;
use crate::config::{Source, Via, dropped_tags};
use crate::error::Error;
use crate::reconcile::diff::{Code, Diff, SettingChange, touches};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::protection::Refusal;
use crate::reconcile::resource::{Address, Condition, IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};
pub(crate) use calls::REVISION_TAG;
use calls::{CODE, UPDATE_DEADLINE, is_role_propagating};
pub(super) use calls::{ROLE_DEADLINE, is_busy};
use configuration::{CONFIGURATION, Configuration};
pub(super) use state::Function;
use state::Live;

/// Lambda's defaults (PutFunctionEventInvokeConfig, API reference).
const DEFAULT_RETRIES: i32 = 2;
const DEFAULT_EVENT_AGE: i32 = 21_600;

/// Returns the failure of the last change, if it failed. A change in flight is not drift.
fn failure(state: Option<&State>, update: Option<&LastUpdateStatus>, reason: Option<&str>) -> Option<String> {
    let failed = state == Some(&State::Failed) || update == Some(&LastUpdateStatus::Failed);
    failed.then(|| format!("Failed: {}", reason.unwrap_or("no reason given")))
}

impl Kind for Function {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let pipeline = context.pipeline;
        let source = |declared: &config::Function| {
            let has_queue = pipeline.notification.via == Via::Queue && declared.source == Source::Notifications;
            has_queue.then(|| Address::of::<queue::Queue>(&pipeline.notification.queue))
        };
        let function = |declared: &config::Function| Self {
            name: declared.name.clone(),
            arn: context.account.function_arn(&declared.name),
            every_function: context.account.function_arn("*"),
            depends_on: vec![
                Address::of::<role::Role>(&declared.role.name),
                Address::of::<queue::Queue>(&declared.failure_queue),
            ],
            log_group: Address::of::<log_group::LogGroup>(log_group_name(&declared.name)),
            source: source(declared),
            artifacts: context.artifacts.cloned().unwrap_or_default(),
            configuration: Configuration::desired(context, declared),
            // Of direct invocations. The queue repeats those of its batches.
            retries: declared.retries.min(config::INVOKE_RETRIES),
            max_event_age_seconds: declared.max_event_age_seconds,
            failure_queue_arn: context.account.queue_arn(&declared.failure_queue),
            max_concurrency: declared.max_concurrency,
            tags: pipeline.tags.clone(),
        };
        pipeline.functions().into_iter().map(function).collect()
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        function_name(arn)
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let like = Self::desired(context).into_iter().next()?;
        // An orphaned function is the counter under an earlier name, or a consumer, whose role has its name.
        let depends_on = vec![Address::of::<role::Role>(name), Address::of::<queue::Queue>(format!("{name}-failures"))];
        let log_group = Address::of::<log_group::LogGroup>(log_group_name(name));
        Some(Self { name: name.to_owned(), arn: context.account.function_arn(name), depends_on, log_group, ..like })
    }
}

impl Resource for Function {
    const NAME: &'static str = "function";
    const ESSENTIAL: Option<&'static [&'static str]> =
        Some(&["handler", "runtime", "architecture", "role", "environment", "failure_queue"]);
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn arn(&self) -> String {
        self.arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        let mut actions = vec![
            IamActions {
                resource: self.arn.clone(),
                // GetFunction omits the tags without lambda:ListTags (Lambda API reference).
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
                    "lambda:UntagResource",
                    "lambda:GetFunctionConfiguration",
                    "lambda:UpdateFunctionConfiguration",
                    "lambda:UpdateFunctionCode",
                    "lambda:PutFunctionEventInvokeConfig",
                    "lambda:PutFunctionConcurrency",
                    "lambda:DeleteFunctionConcurrency",
                ],
                delete: &["lambda:DeleteFunction"],
                condition: None,
            },
            // Only to Lambda: a deployer must not hand the role to another service.
            IamActions {
                resource: self.configuration.role_arn.clone(),
                create: &["iam:PassRole"],
                update: &["iam:PassRole"],
                condition: Some(Condition { key: "iam:PassedToService", value: "lambda.amazonaws.com".to_owned() }),
                ..IamActions::default()
            },
        ];
        // Proves that a function that was deleted or renamed is absent.
        let read: &[&str] = &["lambda:ListTags"];
        actions.push(IamActions { resource: self.every_function.clone(), read, ..IamActions::default() });
        if self.max_concurrency.is_some() {
            let read: &[&str] = &["lambda:GetAccountSettings"];
            actions.push(IamActions { resource: "*".to_owned(), read, ..IamActions::default() });
        }
        // Lambda creates its grant on the key, and encrypts and decrypts the variables, as the caller (Lambda developer
        // guide, environment variables).
        actions.extend(self.configuration.kms_key.clone().map(|resource| IamActions {
            resource,
            read: &["kms:Decrypt"],
            create: &["kms:CreateGrant", "kms:Encrypt"],
            update: &["kms:CreateGrant", "kms:Encrypt"],
            ..IamActions::default()
        }));
        actions
    }

    fn ownership(&self, live: &Live) -> Ownership {
        ownership::by_tags(&live.tags, &self.tags)
    }

    /// Returns whether it has the pipeline's role, which Lambda gives only to functions of callers that may pass it.
    fn proves_apply(&self, live: &Live) -> bool {
        live.configuration.role_arn == self.configuration.role_arn
    }

    fn depends_on(&self) -> Vec<Address> {
        self.depends_on.clone()
    }

    /// Returns the log group, which Lambda would create itself at the first invocation.
    fn after(&self) -> Vec<Address> {
        vec![self.log_group.clone()]
    }

    /// Returns the queue of notifications, which must hide its messages for at least the function's timeout.
    fn changes_after(&self) -> Vec<Address> {
        self.source.clone().into_iter().collect()
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let absent = ["ResourceNotFoundException"];
        let (function, invoke) = tokio::try_join!(
            async {
                let answer = aws.lambda.get_function().function_name(&self.name).send().await;
                absent_on(answer.call("lambda:GetFunction"), &absent)
            },
            async {
                let answer = aws.lambda.get_function_event_invoke_config().function_name(&self.name).send().await;
                absent_on(answer.call("lambda:GetFunctionEventInvokeConfig"), &absent)
            },
        )?;
        let Some(function) = function else {
            let limits = if self.max_concurrency.is_some() { self.limits(aws).await? } else { None };
            return Ok(limits.map(|limits| Live { is_absent: true, limits: Some(limits), ..Live::default() }));
        };
        // Without its tags, the function would be considered unmanaged.
        if let Some(error) = function.tags_error {
            let answer = Answer::Service {
                status: 403,
                code: error.error_code,
                message: error.message,
                request_id: None,
                bucket_region: None,
            };
            return Err(AwsError { call: "lambda:ListTags", answer }.into());
        }
        let configuration = function
            .configuration
            .ok_or_else(|| Error::incomplete_answer(format!("read function {}", self.name), "configuration"))?;
        // Without permission to decrypt the variables, GetFunction omits them.
        if let Some(error) = configuration.environment.as_ref().and_then(|environment| environment.error.as_ref()) {
            let why = format!("{} {}", error.error_code().unwrap_or_default(), error.message().unwrap_or_default());
            let message = format!("failed to read the environment variables of function {}: {why}", self.name);
            return Err(Error::conflict(message, "allow the caller kms:Decrypt on the function's KMS key").into());
        }
        let max_concurrency = function.concurrency.and_then(|c| c.reserved_concurrent_executions);
        let reserves = self.max_concurrency.is_some() && self.max_concurrency != max_concurrency;
        let destinations = invoke.as_ref().and_then(|invoke| invoke.destination_config.clone());
        Ok(Some(Live {
            is_absent: false,
            limits: if reserves { self.limits(aws).await? } else { None },
            is_image: configuration.package_type == Some(PackageType::Image),
            configuration: Configuration::live(&configuration),
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
            max_concurrency,
            tags: function.tags.unwrap_or_default().into_iter().collect(),
        }))
    }

    fn exists(live: &Live) -> bool {
        !live.is_absent
    }

    async fn is_absent(&self, aws: &Aws) -> Result<bool, ResourceError> {
        let answer = aws.lambda.list_tags().resource(&self.arn).send().await.call("lambda:ListTags");
        Ok(matches!(absent_on(answer, &["ResourceNotFoundException"]), Ok(None)))
    }

    fn refusal(&self, live: &Live) -> Option<Refusal> {
        live.is_image.then(|| {
            Refusal::new(
                "has the package type Image, and Lambda cannot change it to Zip",
                "choose another function.name, or delete the function",
            )
        })
    }

    fn problems(&self, live: &Live) -> Vec<Refusal> {
        let problem = self.unreservable(live).map(|(wanted, most)| {
            Refusal::new(
                format!(
                    "cannot reserve max_concurrency = {wanted}: the account's limit of concurrent executions leaves {most}"
                ),
                "ask AWS for a higher limit (Service Quotas, Lambda, concurrent executions), lower \
                 function.max_concurrency, or remove it",
            )
        });
        problem.into_iter().collect()
    }

    fn notes(&self, live: &Live) -> Vec<String> {
        let names = self.configuration.unmanaged_variables(&live.configuration);
        let note = || format!("unmanaged environment variables are kept: {}", names.join(", "));
        let role = self.configuration.unmanaged_role(&live.configuration);
        let role = role.map(|role| {
            format!("its role {role} is unmanaged: the pipeline's own takes its place, and it is left as it is")
        });
        (!names.is_empty()).then(note).into_iter().chain(role).collect()
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        let code = self.artifact().map(|artifact| &artifact.code);
        let diff = Diff::new().compare("code", live.filter(|_| code.is_some()).map(|l| &l.code), code).compare(
            "state",
            live.and_then(|l| l.failure.as_ref()),
            None::<&str>,
        );
        self.configuration
            .compare(diff, live.map(|l| &l.configuration))
            .compare("retries", live.map(|l| l.retries), self.retries)
            .compare("max_event_age_seconds", live.map(|l| l.max_event_age_seconds), self.max_event_age_seconds)
            .compare("failure_queue", live.and_then(|l| l.failure_queue_arn.as_ref()), &self.failure_queue_arn)
            .compare(
                "max_concurrency",
                live.and_then(|l| l.max_concurrency),
                // A reservation that is not possible is a problem, not a change.
                match live.and_then(|live| self.unreservable(live).and(Some(live))) {
                    Some(live) => live.max_concurrency,
                    None => self.max_concurrency,
                },
            )
            .tags(live.map(|l| &l.tags), &self.tags, &[REVISION_TAG])
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let code = FunctionCode::builder().zip_file(Blob::new(self.code()?.zip.clone())).build();
        let request = self.configuration.create(step.aws.lambda.create_function().function_name(&self.name));
        let request = request.code(code).set_tags(Some(self.tags_with_revision().into_iter().collect()));
        let waiting = step.wait("the role to become assumable", ROLE_DEADLINE);
        let created = retry_while(waiting, is_role_propagating, || async {
            request.clone().send().await.call("lambda:CreateFunction")
        })
        .await;
        match created {
            Err(ResourceError::Call(error)) if error.code() == Some("ResourceConflictException") => {
                return Err(ResourceError::AlreadyExists);
            }
            other => other?,
        };
        self.wait_until_ready(step).await?;
        // Those that come after it only name the function. No notification arrives before the end of this step.
        (step.on_exists)();
        let live = Live::default();
        tokio::try_join!(self.put_event_invoke(step, &live), async {
            if self.max_concurrency.is_some() { self.put_concurrency(step).await } else { Ok(()) }
        })?;
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
            // The tags name the revision of the code, so they are written under the same condition.
            self.recheck_drift(step.aws, changes, &CODE).await?;
        }
        let dropped = dropped_tags(&live.tags, &self.tags);
        if touches(changes, &["tags"]) && !dropped.is_empty() {
            let request = step.aws.lambda.untag_resource().resource(&self.arn).set_tag_keys(Some(dropped));
            retry_while(step.wait("the function to accept its tags", UPDATE_DEADLINE), is_busy, || async {
                request.clone().send().await.call("lambda:UntagResource")
            })
            .await?;
        }
        if uploads || touches(changes, &["tags"]) {
            let request = step.aws.lambda.tag_resource().resource(&self.arn);
            let tags = if uploads { self.tags_with_revision() } else { self.tags.clone() }.into_iter().collect();
            let request = request.set_tags(Some(tags));
            retry_while(step.wait("the function to accept its tags", UPDATE_DEADLINE), is_busy, || async {
                request.clone().send().await.call("lambda:TagResource")
            })
            .await?;
        }
        // A function that is not ready yet accepts no change. The configuration is updated before the code, because new
        // code may need a new variable.
        if touches(changes, &CONFIGURATION) {
            self.wait_until_idle(step).await?;
            self.put_configuration(step, changes).await?;
        }
        if touches(changes, &CODE) {
            self.wait_until_idle(step).await?;
            self.put_code(step, changes).await?;
        }
        if touches(changes, &["state"]) && !uploads {
            // Repeats the failed change.
            self.wait_until_idle(step).await?;
            self.upload(step.aws, Blob::new(self.code()?.zip.clone()), None).await?;
            self.wait_until_ready(step).await?;
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
        let waiting = step.wait("the function to become deletable", UPDATE_DEADLINE);
        retry_while(waiting, is_busy, || async {
            let answer = step.aws.lambda.delete_function().function_name(&self.name).send().await;
            absent_on(answer.call("lambda:DeleteFunction"), &["ResourceNotFoundException"])
        })
        .await?;
        Ok(())
    }
}

impl Function {
    /// Returns the declared reservation and the largest possible one, if the account's limits forbid the declared one.
    fn unreservable(&self, live: &Live) -> Option<(i32, i32)> {
        let most = live.limits?.reservable(live.max_concurrency.unwrap_or(0));
        self.max_concurrency.filter(|wanted| *wanted > most).map(|wanted| (wanted, most))
    }
}

/// Returns the addresses of the tables that the function writes to, for resources that cause invocations.
pub(super) fn table_addresses(context: &Context<'_>) -> Vec<Address> {
    table::Table::desired(context).iter().map(|table| Address::of::<table::Table>(table.name())).collect()
}

#[cfg(test)]
mod tests {
    use counting::names::env;

    use super::state::Limits;
    use super::*;
    use crate::reconcile::diff::Value;
    use crate::resources::tests::{assert_in_sync, declared};

    fn live_of(spec: &Function) -> Live {
        Live {
            is_absent: false,
            limits: None,
            is_image: false,
            configuration: spec.configuration.clone(),
            code: spec.artifact().map(|artifact| artifact.code.clone()).unwrap_or_default(),
            failure: None,
            revision_id: None,
            success_destination: None,
            retries: spec.retries,
            max_event_age_seconds: spec.max_event_age_seconds,
            failure_queue_arn: Some(spec.failure_queue_arn.clone()),
            max_concurrency: spec.max_concurrency,
            tags: spec.tags.clone(),
        }
    }

    #[test]
    fn function_as_created_is_in_sync() {
        assert_in_sync::<Function>(live_of);
    }

    #[test]
    fn marker_lifetime_exceeds_object_lifetime() {
        let days = |file: &str| {
            declared::<Function>(file).remove(0).configuration.environment.get(env::LEDGER_TTL_DAYS).cloned()
        };
        assert_eq!(days(""), None);
        assert_eq!(days("[bucket]\nexpire_days = 90").as_deref(), Some("215"));
        assert_eq!(days("[bucket]\nexpire_days = 90\nversioning = true").as_deref(), Some("215"));
    }

    #[test]
    fn drift_of_one_setting_is_one_change() {
        let spec = declared::<Function>("").remove(0);
        let mut live = live_of(&spec);
        live.configuration.memory_mb = Some(128);
        let changes = spec.diff(Some(&live));
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].setting, &changes[0].live), ("memory_mb", &Value::Number(128)));
    }

    #[test]
    fn failed_change_of_the_function_is_drift() {
        let spec = declared::<Function>("").remove(0);
        let live =
            |state, update| Live { failure: failure(Some(&state), Some(&update), Some("no space")), ..live_of(&spec) };
        let settings = |live: &Live| spec.diff(Some(live)).iter().map(|change| change.setting).collect::<Vec<_>>();
        assert_eq!(settings(&live(State::Active, LastUpdateStatus::Failed)), ["state"]);
        assert_eq!(settings(&live(State::Failed, LastUpdateStatus::Successful)), ["state"]);
        assert_eq!(settings(&live(State::Pending, LastUpdateStatus::InProgress)), [""; 0]);
    }

    #[test]
    fn same_code_from_another_revision_is_in_sync() {
        let spec = declared::<Function>("").remove(0);
        let mut live = live_of(&spec);
        live.code.revision = Some("other".to_owned());
        live.tags.insert(REVISION_TAG.to_owned(), "other".to_owned());
        assert_eq!(spec.diff(Some(&live)), []);
    }

    #[test]
    fn unmanaged_variables_are_kept_and_noted_without_their_values() {
        let spec = declared::<Function>("[function]\nenvironment = { STAGE = \"production\" }").remove(0);
        let mut live = live_of(&spec);
        live.configuration.environment.insert("DB_PASSWORD".to_owned(), "hunter2".to_owned());
        assert_eq!(spec.diff(Some(&live)), []);
        let notes = spec.notes(&live).join("");
        assert!(notes.contains("DB_PASSWORD") && !notes.contains("hunter2"), "{notes}");
        live.configuration.environment.remove("STAGE");
        live.configuration.environment.insert(env::LEDGER_TTL_DAYS.to_owned(), "7".to_owned());
        assert_eq!(spec.diff(Some(&live)).len(), 1);
    }

    #[test]
    fn role_of_another_tool_is_replaced_and_noted() {
        let spec = declared::<Function>("").remove(0);
        let with = |arn: &str| {
            let mut live = live_of(&spec);
            live.configuration.role_arn = arn.to_owned();
            (spec.diff(Some(&live)).len(), spec.notes(&live).join(""))
        };
        let (changes, notes) = with("arn:aws:iam::123456789012:role/counter");
        assert!(changes == 1 && notes.contains("role/counter is unmanaged"), "{notes}");
        assert_eq!(with("arn:aws:iam::123456789012:role/pipeline/events/earlier"), (1, String::new()));
        assert_eq!(with(&spec.configuration.role_arn), (0, String::new()));
        assert_eq!(spec.notes(&Live { is_absent: true, ..Live::default() }), [""; 0]);
    }

    #[test]
    fn impossible_reservation_is_a_problem_and_no_change() {
        let spec = declared::<Function>("[function]\nmax_concurrency = 10").remove(0);
        let of = |all: i32, unreserved: i32, reserved: Option<i32>| {
            let limits = Some(Limits { all, unreserved });
            let live = Live { limits, max_concurrency: reserved, ..live_of(&spec) };
            (spec.diff(Some(&live)).len(), spec.problems(&live).len())
        };
        assert_eq!(of(10, 10, None), (0, 1));
        assert_eq!(of(1_000, 109, None), (0, 1));
        assert_eq!(of(1_000, 110, None), (1, 0));
        assert_eq!(of(1_000, 105, Some(5)), (1, 0));
        assert_eq!(of(1_000, 104, Some(5)), (0, 1));
    }

    #[test]
    fn function_with_50_tags_of_others_is_refused() {
        let spec = declared::<Function>("").remove(0);
        let mut live = live_of(&spec);
        live.tags.insert(REVISION_TAG.to_owned(), "r".to_owned());
        let mut conflict = |more: usize| {
            live.tags.extend((0..more).map(|n| (format!("tag{n}"), String::new())));
            spec.compare(Some(&live)).into_parts().2
        };
        assert_eq!(conflict(47), None);
        assert!(conflict(48).is_some_and(|refusal| refusal.why.contains("48 unmanaged tags")));
    }
}
