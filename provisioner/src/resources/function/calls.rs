//! The calls that change the function, each with its wait.

use std::collections::BTreeMap;

use aws_sdk_lambda::operation::get_function_configuration::GetFunctionConfigurationOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{DestinationConfig, LastUpdateStatus, OnFailure, OnSuccess, State};

use super::artifact::Artifact;
use super::configuration::CONFIGURATION;
use super::state::{Function, Live};
use crate::aws::{Aws, AwsError, Call, ResourceError, retry_while, wait_until};
use crate::error::{Error, ErrorKind};
use crate::reconcile::diff::SettingChange;
use crate::reconcile::resource::{Resource as _, StepContext};

/// A new role is usually assumable within ten seconds.
pub(super) const ROLE_DEADLINE: u64 = 90;
/// Lambda unpacks and starts a new version within seconds.
pub(super) const UPDATE_DEADLINE: u64 = 180;
/// Tag with the git revision that the code was deployed from. It is written with the code and not compared: the same
/// code may be built from many revisions.
pub(crate) const REVISION_TAG: &str = "revision";

/// Settings that go through UpdateFunctionCode.
pub(super) const CODE: [&str; 2] = ["code", "architecture"];

/// Lambda checks that it may assume the role, and a new role is not known everywhere yet. Only these texts tell this
/// from a request that is wrong.
pub(super) fn role_is_new(error: &AwsError) -> bool {
    ["cannot be assumed by Lambda", "execution role does not have permissions", "KMS key is invalid for CreateGrant"]
        .iter()
        .any(|text| error.says("InvalidParameterValueException", text))
}

/// Something else is changing the function; it passes.
pub(in crate::resources) fn is_busy(error: &AwsError) -> bool {
    matches!(error.code(), Some("ResourceConflictException" | "PreconditionFailedException"))
}

impl Function {
    /// The code to upload; declared without it only for destroy, which uploads nothing.
    pub(super) fn code(&self) -> Result<&Artifact, Error> {
        self.artifact
            .as_deref()
            .ok_or_else(|| Error::usage("the handler's binary was not loaded", "build it with `make handler`"))
    }

    /// The tags with which code goes up: a revision that is declared by hand stays so.
    pub(super) fn tags_with_revision(&self) -> BTreeMap<String, String> {
        let mut tags = self.tags.clone();
        let revision = self.artifact.as_ref().and_then(|artifact| artifact.code.revision.clone());
        tags.entry(REVISION_TAG.to_owned()).or_insert_with(|| revision.unwrap_or_else(|| "unknown".to_owned()));
        tags
    }

    pub(super) async fn configuration(&self, aws: &Aws) -> Result<GetFunctionConfigurationOutput, AwsError> {
        let request = aws.lambda.get_function_configuration().function_name(&self.name);
        request.send().await.call("lambda:GetFunctionConfiguration")
    }

    /// Waits until Lambda is at no change, whatever came of the last one: the next may mend it.
    pub(super) async fn idle(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
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
    pub(super) async fn settled(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
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
    pub(super) async fn still(
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

    pub(super) async fn put_configuration(
        &self,
        step: &StepContext<'_>,
        planned: &[SettingChange],
    ) -> Result<(), ResourceError> {
        let passes = |error: &AwsError| role_is_new(error) || is_busy(error);
        retry_while(step.wait("the function to take its configuration", ROLE_DEADLINE), passes, || async {
            let Some(now) = self.still(step.aws, planned, &CONFIGURATION).await? else { return Ok(()) };
            let request = step.aws.lambda.update_function_configuration().function_name(&self.name);
            let request = self.configuration.update(request).set_revision_id(now.revision_id);
            request.send().await.call("lambda:UpdateFunctionConfiguration").map(drop).map_err(ResourceError::from)
        })
        .await?;
        self.settled(step).await
    }

    /// One UpdateFunctionCode, on condition that the function is at `revision_id`, where one is given.
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
        retry_while(step.wait("the function to take its code", UPDATE_DEADLINE), is_busy, || async {
            let Some(now) = self.still(step.aws, planned, &CODE).await? else { return Ok(()) };
            Ok::<_, ResourceError>(self.upload(step.aws, zip.clone(), now.revision_id).await?)
        })
        .await?;
        self.settled(step).await
    }

    pub(super) async fn put_event_invoke(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
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

    pub(super) async fn put_concurrency(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
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
