//! The calls that change the function, each with the wait for its effect.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_lambda::operation::get_function_configuration::GetFunctionConfigurationOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{DestinationConfig, LastUpdateStatus, OnFailure, OnSuccess, State};

use super::artifact::Artifact;
use super::configuration::CONFIGURATION;
use super::state::{Function, Limits, Live};
use crate::aws::{Aws, AwsError, Call, ResourceError, retry_while, wait_until};
use crate::error::{Error, ErrorKind};
use crate::reconcile::diff::SettingChange;
use crate::reconcile::resource::{Resource as _, StepContext};

/// The time limit in seconds. A new role is usually assumable within ten.
pub(in crate::resources) const ROLE_DEADLINE: u64 = 90;
/// The time limit in seconds. Lambda usually deploys a new version within a few.
pub(super) const UPDATE_DEADLINE: u64 = 180;
/// The tag with the git revision of the deployed code. It is written with the code and not compared, because many
/// revisions may produce the same code.
pub(crate) const REVISION_TAG: &str = "revision";

/// The settings that UpdateFunctionCode changes.
pub(super) const CODE: [&str; 2] = ["code", "architecture"];

/// Returns whether Lambda cannot assume the role yet (eventual consistency of a new role). Only these texts distinguish
/// that from an invalid request.
pub(super) fn is_role_propagating(error: &AwsError) -> bool {
    ["cannot be assumed by Lambda", "execution role does not have permissions", "KMS key is invalid for CreateGrant"]
        .iter()
        .any(|text| error.says("InvalidParameterValueException", text))
}

/// Returns whether another change of the function is in flight, which is transient.
pub(in crate::resources) fn is_busy(error: &AwsError) -> bool {
    matches!(error.code(), Some("ResourceConflictException" | "PreconditionFailedException"))
}

impl Function {
    /// Returns the code, if it is loaded.
    pub(super) fn artifact(&self) -> Option<&Artifact> {
        self.artifacts.of(&self.name)
    }

    /// Returns the code to upload. Only commands that upload nothing, such as destroy, run without it.
    pub(super) fn code(&self) -> Result<&Artifact, Error> {
        self.artifact()
            .ok_or_else(|| Error::usage("the handler's binary was not loaded", "build it with `make handler`"))
    }

    /// Returns the tags that are written with the code. A declared tag for the revision takes precedence.
    pub(super) fn tags_with_revision(&self) -> BTreeMap<String, String> {
        let mut tags = self.tags.clone();
        let revision = self.artifact().and_then(|artifact| artifact.code.revision.clone());
        tags.entry(REVISION_TAG.to_owned()).or_insert_with(|| revision.unwrap_or_else(|| "unknown".to_owned()));
        tags
    }

    pub(super) async fn configuration(&self, aws: &Aws) -> Result<GetFunctionConfigurationOutput, AwsError> {
        let request = aws.lambda.get_function_configuration().function_name(&self.name);
        request.send().await.call("lambda:GetFunctionConfiguration")
    }

    /// Waits until no change is in flight, even if the last one failed: the next one may correct it.
    pub(super) async fn wait_until_idle(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let waiting = step.wait(format!("function {} to accept a change", self.name), UPDATE_DEADLINE);
        wait_until(waiting, || async {
            let live = self.configuration(step.aws).await?;
            let busy =
                live.state == Some(State::Pending) || live.last_update_status == Some(LastUpdateStatus::InProgress);
            Ok((!busy).then_some(()))
        })
        .await
    }

    /// Waits until Lambda has completed the change.
    pub(super) async fn wait_until_ready(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let waiting = step.wait(format!("function {} to be ready", self.name), UPDATE_DEADLINE);
        wait_until(waiting, || async {
            let live = self.configuration(step.aws).await?;
            if live.last_update_status == Some(LastUpdateStatus::Failed) || live.state == Some(State::Failed) {
                let reason = live.last_update_status_reason.or(live.state_reason).unwrap_or_default();
                return Err(Error::new(
                    ErrorKind::Aws,
                    format!("failed to update function {}: {reason}", self.name),
                    "fix the cause and run the command again",
                )
                .into());
            }
            // Inactive is ready too: it is the state of a function that was not invoked for weeks.
            let ready = matches!(live.state, Some(State::Active | State::Inactive))
                && live.last_update_status == Some(LastUpdateStatus::Successful);
            Ok(ready.then_some(()))
        })
        .await
    }

    /// Returns the live state if the drift of `settings` is still as planned, or `None` if they are already in sync.
    /// Any other drift is a conflict: another process made it, and it was not shown in the plan, so it must not be
    /// undone.
    pub(super) async fn recheck_drift(
        &self,
        aws: &Aws,
        planned: &[SettingChange],
        settings: &[&str],
    ) -> Result<Option<Live>, ResourceError> {
        let conflict = |how: &str| {
            Error::conflict(
                format!("function {} {how} concurrently by another process", self.name),
                "wait for the other process to finish, then run the command again",
            )
        };
        let live = self.read(aws).await?.ok_or_else(|| conflict("was deleted"))?;
        let relevant = |changes: &[SettingChange]| -> Vec<SettingChange> {
            changes.iter().filter(|change| settings.contains(&change.setting)).cloned().collect()
        };
        let drift = relevant(&self.diff(Some(&live)));
        if drift.is_empty() {
            return Ok(None);
        }
        if drift != relevant(planned) {
            return Err(conflict("was changed").into());
        }
        Ok(Some(live))
    }

    pub(super) async fn put_configuration(
        &self,
        step: &StepContext<'_>,
        planned: &[SettingChange],
    ) -> Result<(), ResourceError> {
        let is_transient = |error: &AwsError| is_role_propagating(error) || is_busy(error);
        retry_while(step.wait("the function to accept its configuration", ROLE_DEADLINE), is_transient, || async {
            let Some(live) = self.recheck_drift(step.aws, planned, &CONFIGURATION).await? else { return Ok(()) };
            let request = step.aws.lambda.update_function_configuration().function_name(&self.name);
            let request = self.configuration.update(request, &live.configuration).set_revision_id(live.revision_id);
            request.send().await.call("lambda:UpdateFunctionConfiguration").map(drop).map_err(ResourceError::from)
        })
        .await?;
        self.wait_until_ready(step).await
    }

    /// Uploads the code with one UpdateFunctionCode, which fails if the function is not at `revision_id`, if given.
    pub(super) async fn upload(&self, aws: &Aws, zip: Blob, revision_id: Option<String>) -> Result<(), AwsError> {
        let request = aws.lambda.update_function_code().function_name(&self.name).set_revision_id(revision_id);
        let request = request.zip_file(zip).architectures(self.configuration.architecture());
        request.send().await.call("lambda:UpdateFunctionCode").map(drop)
    }

    pub(super) async fn put_code(
        &self,
        step: &StepContext<'_>,
        planned: &[SettingChange],
    ) -> Result<(), ResourceError> {
        let zip = Blob::new(self.code()?.zip.clone());
        retry_while(step.wait("the function to accept its code", UPDATE_DEADLINE), is_busy, || async {
            let Some(live) = self.recheck_drift(step.aws, planned, &CODE).await? else { return Ok(()) };
            Ok::<_, ResourceError>(self.upload(step.aws, zip.clone(), live.revision_id).await?)
        })
        .await?;
        self.wait_until_ready(step).await
    }

    pub(super) async fn put_event_invoke(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        let failures = OnFailure::builder().destination(&self.failure_queue_arn).build();
        // The put removes destinations that it omits, and the destination of successes is unmanaged.
        let successes = live.success_destination.as_ref().map(|arn| OnSuccess::builder().destination(arn).build());
        let destination = DestinationConfig::builder().on_failure(failures).set_on_success(successes).build();
        // Lambda validates that the queue exists and that the role may send to it, and both are eventually consistent.
        // Only these texts distinguish that from an invalid request.
        let is_transient = |error: &AwsError| {
            let unknown = ["destination ARN", "does not have permissions", "do not have permissions"];
            is_busy(error) || unknown.iter().any(|text| error.says("InvalidParameterValueException", text))
        };
        retry_while(step.wait("the role to be allowed to send to the queue", ROLE_DEADLINE), is_transient, || async {
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

    pub(super) async fn put_concurrency(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let lambda = &step.aws.lambda;
        let waiting = step.wait("the function to accept its concurrency", UPDATE_DEADLINE);
        let put = retry_while(waiting, is_busy, || async {
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
        .await;
        match put {
            // The function works without it, and the next plan shows the problem.
            Err(ResourceError::Call(error))
                if error.says("InvalidParameterValueException", "UnreservedConcurrentExecution") =>
            {
                (step.on_wait)("a higher limit of concurrent executions: none are reserved", Duration::ZERO);
                Ok(())
            }
            result => result,
        }
    }

    /// Reads the limits of the account, in concurrent executions.
    pub(super) async fn limits(&self, aws: &Aws) -> Result<Option<Limits>, AwsError> {
        let answer = aws.lambda.get_account_settings().send().await.call("lambda:GetAccountSettings")?;
        let limit = answer.account_limit;
        let unreserved = limit.as_ref().and_then(|limit| limit.unreserved_concurrent_executions);
        Ok(limit
            .map(|limit| limit.concurrent_executions)
            .zip(unreserved)
            .map(|(all, unreserved)| Limits { all, unreserved }))
    }
}
