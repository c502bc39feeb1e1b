//! The event source mapping: Lambda takes batches of notifications from the queue and invokes the function with them.
//!
//! Lambda names a mapping by a random id. The pipeline's is found by its queue.

use aws_sdk_lambda::operation::create_event_source_mapping::builders::CreateEventSourceMappingFluentBuilder;
use aws_sdk_lambda::operation::list_event_source_mappings::builders::ListEventSourceMappingsFluentBuilder;
use aws_sdk_lambda::operation::update_event_source_mapping::builders::UpdateEventSourceMappingFluentBuilder;
use aws_sdk_lambda::types::{EventSourceMappingConfiguration, FunctionResponseType, ScalingConfig};

use super::function::{self, Function, ROLE_DEADLINE, is_busy};
use super::queue::Queue;
use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, resource_in, retry_while};
use crate::config::Via;
use crate::error::Error;
use crate::reconcile::diff::{Diff, SettingChange};
use crate::reconcile::ownership::Ownership;
use crate::reconcile::protection::Refusal;
use crate::reconcile::resource::{Address, Condition, IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

/// The time limit in seconds for a mapping to become changeable again. Lambda creates and deletes it within a minute.
pub(crate) const CHANGE_DEADLINE: u64 = 120;
/// The state of a mapping that was disabled: the pipeline is paused.
const DISABLED: [&str; 2] = ["Disabled", "Disabling"];

/// The desired state of the mapping.
#[derive(Debug, Clone)]
pub(super) struct EventSourceMapping {
    /// The queue's name.
    name: String,
    queue_arn: String,
    function: String,
    function_arn: String,
    /// The ARN pattern of every mapping.
    every_mapping: String,
    max_concurrency: i32,
    batch_size: i32,
    batch_seconds: i32,
    depends_on: Vec<Address>,
}

/// The live state of the mapping.
#[derive(Debug, Default)]
pub(super) struct Live {
    id: String,
    state: String,
    function_arn: Option<String>,
    max_concurrency: Option<i32>,
    batch_size: Option<i32>,
    batch_seconds: Option<i32>,
    /// Whether the function says which messages of a batch failed.
    reports_failures: bool,
    /// The other functions that take messages from the queue.
    others: Vec<String>,
}

impl EventSourceMapping {
    fn scaling(&self) -> ScalingConfig {
        ScalingConfig::builder().maximum_concurrency(self.max_concurrency).build()
    }

    fn is_own(&self, mapping: &EventSourceMappingConfiguration) -> bool {
        mapping.function_arn.as_deref() == Some(&self.function_arn)
    }
}

/// Returns whether a mapping in this state is disabled.
pub(super) fn is_paused(state: &str) -> bool {
    DISABLED.contains(&state)
}

/// Returns whether the role's policy has not reached Lambda yet: Lambda checks that the role may read the source.
fn is_role_unready(error: &AwsError) -> bool {
    error.says("InvalidParameterValueException", "execution role does not have permissions")
        || error.says("InvalidParameterValueException", "Cannot access stream")
}

/// Returns whether a mapping is being created, changed or deleted.
pub(crate) fn is_changing(error: &AwsError) -> bool {
    is_busy(error) || error.code() == Some("ResourceInUseException")
}

/// Returns the id of the pipeline's mapping; `None` if it has none.
///
/// # Errors
/// An error of Lambda.
pub(crate) async fn id(aws: &Aws, context: &Context<'_>) -> Result<Option<String>, ResourceError> {
    match EventSourceMapping::desired(context).first() {
        Some(mapping) => Ok(mapping.read(aws).await?.map(|live| live.id)),
        None => Ok(None),
    }
}

/// Returns the actions on mappings of a function, of which a change needs `update`.
pub(super) fn mapping_actions(
    every_mapping: &str,
    function_arn: &str,
    update: &'static [&'static str],
) -> Vec<IamActions> {
    let mappings = IamActions {
        resource: every_mapping.to_owned(),
        create: &["lambda:CreateEventSourceMapping"],
        update,
        delete: &["lambda:DeleteEventSourceMapping"],
        condition: Some(Condition { key: "lambda:FunctionArn", value: function_arn.to_owned() }),
        ..IamActions::default()
    };
    // Lambda offers neither a resource nor a condition for the list (service authorization reference).
    let list: &[&str] = &["lambda:ListEventSourceMappings"];
    vec![mappings, IamActions { resource: "*".to_owned(), read: list, ..IamActions::default() }]
}

/// Lists the mappings of a request, without those that are being deleted.
pub(super) async fn list_mappings(
    request: ListEventSourceMappingsFluentBuilder,
) -> Result<Vec<EventSourceMappingConfiguration>, AwsError> {
    let mut pages = request.into_paginator().items().send();
    let mut mappings = Vec::new();
    while let Some(mapping) = pages.next().await {
        let mapping = absent_on(mapping.call("lambda:ListEventSourceMappings"), &["ResourceNotFoundException"])?;
        let Some(mapping) = mapping else { break };
        mappings.extend(Some(mapping).filter(|mapping| mapping.state.as_deref() != Some("Deleting")));
    }
    Ok(mappings)
}

/// Creates a mapping as soon as the role may read its source.
pub(super) async fn create_mapping(
    step: &StepContext<'_>,
    request: CreateEventSourceMappingFluentBuilder,
) -> Result<(), ResourceError> {
    let waiting = step.wait("the role to be allowed to read the source", ROLE_DEADLINE);
    let is_early = |error: &AwsError| is_role_unready(error) || error.code() == Some("ResourceInUseException");
    let created = retry_while(waiting, is_early, || async {
        request.clone().send().await.call("lambda:CreateEventSourceMapping")
    })
    .await;
    match created {
        Err(ResourceError::Call(error)) if error.code() == Some("ResourceConflictException") => {
            Err(ResourceError::AlreadyExists)
        }
        other => other.map(drop),
    }
}

/// Changes a mapping as soon as it is ready.
pub(super) async fn update_mapping(
    step: &StepContext<'_>,
    request: UpdateEventSourceMappingFluentBuilder,
) -> Result<(), ResourceError> {
    retry_while(step.wait("the mapping to accept a change", CHANGE_DEADLINE), is_changing, || async {
        request.clone().send().await.call("lambda:UpdateEventSourceMapping")
    })
    .await
    .map(drop)
}

/// Deletes the mapping with this id.
pub(super) async fn delete_mapping(step: &StepContext<'_>, id: &str) -> Result<(), ResourceError> {
    retry_while(step.wait("the mapping to become deletable", CHANGE_DEADLINE), is_changing, || async {
        let answer = step.aws.lambda.delete_event_source_mapping().uuid(id).send().await;
        absent_on(answer.call("lambda:DeleteEventSourceMapping"), &["ResourceNotFoundException"])
    })
    .await
    .map(drop)
}

impl Kind for EventSourceMapping {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let notification = &context.pipeline.notification;
        let mapping = Self::with_name(context, &notification.queue).filter(|_| notification.via == Via::Queue);
        mapping.into_iter().collect()
    }

    /// Returns the queue's name: a mapping accompanies its queue.
    fn name_from_arn(arn: &str) -> Option<String> {
        resource_in(arn, "sqs").map(str::to_owned)
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let (account, pipeline) = (context.account, context.pipeline);
        // From a queue of failures the pipeline takes nothing.
        if pipeline.functions().into_iter().any(|function| function.failure_queue == name) {
            return None;
        }
        let function = &pipeline.function.name;
        let mut depends_on = vec![Address::of::<Queue>(name)];
        depends_on.extend(function::table_addresses(context));
        Some(Self {
            name: name.to_owned(),
            queue_arn: account.queue_arn(name),
            function: function.clone(),
            function_arn: account.function_arn(function),
            every_mapping: account.mapping_arn("*"),
            max_concurrency: pipeline.notification.max_concurrency,
            batch_size: pipeline.notification.batch_size,
            batch_seconds: pipeline.notification.batch_seconds,
            depends_on,
        })
    }
}

impl Resource for EventSourceMapping {
    const NAME: &'static str = "event source mapping";
    const ESSENTIAL: Option<&'static [&'static str]> = Some(&["function", "reports_failures"]);
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    /// Returns the queue's ARN: the mapping's own has an id that is not known beforehand.
    fn arn(&self) -> String {
        self.queue_arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        mapping_actions(&self.every_mapping, &self.function_arn, &["lambda:UpdateEventSourceMapping"])
    }

    /// Returns `Owned`: it is of the pipeline's queue.
    fn ownership(&self, _live: &Live) -> Ownership {
        Ownership::Owned
    }

    fn depends_on(&self) -> Vec<Address> {
        self.depends_on.clone()
    }

    fn after(&self) -> Vec<Address> {
        vec![Address::of::<Function>(&self.function)]
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let request = aws.lambda.list_event_source_mappings().event_source_arn(&self.queue_arn);
        let mut mappings = list_mappings(request).await?;
        // After a change of the function's name, the mapping is still for the earlier function.
        let own = mappings.iter().position(|mapping| self.is_own(mapping)).unwrap_or(0);
        if mappings.is_empty() {
            return Ok(None);
        }
        let mapping = mappings.swap_remove(own);
        let others = mappings.into_iter().filter_map(|mapping| mapping.function_arn);
        let others = others.filter(|function| *function != self.function_arn).collect();
        let missing = || Error::incomplete_answer(format!("read the event source mapping of {}", self.name), "UUID");
        let types = mapping.function_response_types.unwrap_or_default();
        Ok(Some(Live {
            id: mapping.uuid.ok_or_else(missing)?,
            state: mapping.state.unwrap_or_default(),
            function_arn: mapping.function_arn,
            max_concurrency: mapping.scaling_config.and_then(|scaling| scaling.maximum_concurrency),
            batch_size: mapping.batch_size,
            batch_seconds: mapping.maximum_batching_window_in_seconds,
            reports_failures: types.contains(&FunctionResponseType::ReportBatchItemFailures),
            others,
        }))
    }

    fn problems(&self, live: &Live) -> Vec<Refusal> {
        let mut problems = Vec::new();
        if is_paused(&live.state) {
            problems.push(Refusal::new(
                format!("is paused: notifications wait in queue {}", self.name),
                "run `provisioner resume` to count again; SQS keeps them for 14 days",
            ));
        }
        if !live.others.is_empty() {
            problems.push(Refusal::new(
                format!("shares the queue with {}, which take notifications from it", live.others.join(", ")),
                "delete their event source mappings (aws lambda delete-event-source-mapping --uuid ID)",
            ));
        }
        problems
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        Diff::new()
            .compare("function", live.and_then(|l| l.function_arn.as_ref()), &self.function_arn)
            .compare("max_concurrency", live.and_then(|l| l.max_concurrency), self.max_concurrency)
            .compare("batch_size", live.and_then(|l| l.batch_size), self.batch_size)
            .compare("batch_seconds", live.and_then(|l| l.batch_seconds), self.batch_seconds)
            .compare("reports_failures", live.map(|l| l.reports_failures), true)
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let request = step
            .aws
            .lambda
            .create_event_source_mapping()
            .event_source_arn(&self.queue_arn)
            .function_name(&self.function)
            .scaling_config(self.scaling())
            .batch_size(self.batch_size)
            .maximum_batching_window_in_seconds(self.batch_seconds)
            .function_response_types(FunctionResponseType::ReportBatchItemFailures);
        create_mapping(step, request).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        _changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        let request = step
            .aws
            .lambda
            .update_event_source_mapping()
            .uuid(&live.id)
            .function_name(&self.function)
            .scaling_config(self.scaling())
            .batch_size(self.batch_size)
            .maximum_batching_window_in_seconds(self.batch_seconds)
            .function_response_types(FunctionResponseType::ReportBatchItemFailures);
        update_mapping(step, request).await
    }

    async fn delete(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        delete_mapping(step, &live.id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{assert_in_sync, declared, in_context};

    fn live_of(spec: &EventSourceMapping) -> Live {
        Live {
            id: "id".to_owned(),
            state: "Enabled".to_owned(),
            function_arn: Some(spec.function_arn.clone()),
            max_concurrency: Some(spec.max_concurrency),
            batch_size: Some(spec.batch_size),
            batch_seconds: Some(spec.batch_seconds),
            reports_failures: true,
            others: Vec::new(),
        }
    }

    #[test]
    fn mapping_as_created_is_in_sync() {
        assert_in_sync::<EventSourceMapping>(live_of);
    }

    #[test]
    fn pause_and_another_consumer_are_problems_and_no_drift() {
        let spec = declared::<EventSourceMapping>("").remove(0);
        let paused = Live { state: "Disabled".to_owned(), others: vec!["other".to_owned()], ..live_of(&spec) };
        assert_eq!((spec.diff(Some(&paused)).len(), spec.problems(&paused).len()), (0, 2));
        assert!(spec.problems(&live_of(&spec)).is_empty());
    }

    #[test]
    fn queue_of_failures_has_no_mapping() {
        let of = |name: &str| in_context("", |context| EventSourceMapping::with_name(context, name).is_some());
        assert_eq!((of("events-failures"), of("events-old")), (false, true));
    }

    #[test]
    fn pipeline_without_a_queue_has_no_mapping() {
        assert!(declared::<EventSourceMapping>("[notification]\nvia = \"function\"").is_empty());
    }
}
