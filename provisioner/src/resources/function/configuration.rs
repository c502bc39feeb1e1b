//! The configuration of the function. A new setting needs only a field here and a key of `[function]`.

use std::collections::BTreeMap;

use aws_sdk_lambda::operation::create_function::builders::CreateFunctionFluentBuilder;
use aws_sdk_lambda::operation::update_function_configuration::builders::UpdateFunctionConfigurationFluentBuilder;
use aws_sdk_lambda::types::{Architecture, Environment, FunctionConfiguration, Runtime};
use counting::names::env;

use super::artifact::ENTRY;
use crate::config::Function;
use crate::reconcile::diff::Diff;
use crate::resources::Context;

/// A marker must outlive its object: S3 expires objects at the midnight after their last day, and deletes them with a
/// delay.
const LEDGER_MARGIN_DAYS: i32 = 7;
const DESCRIPTION: &str = "Counts the events of Segment's files per event and hour";
/// The replacement for the values of unmanaged environment variables, which may be secrets.
const HIDDEN: &str = "(hidden)";

/// The settings that UpdateFunctionConfiguration changes. The architecture is changed with the code.
pub(super) const CONFIGURATION: [&str; 7] =
    ["role", "description", "runtime", "handler", "memory_mb", "timeout_seconds", "environment"];

/// The settings of the function, desired or live.
#[derive(Debug, Clone, Default)]
pub(super) struct Configuration {
    pub(super) description: String,
    pub(super) handler: String,
    pub(super) runtime: Option<String>,
    pub(super) architecture: Option<String>,
    pub(super) memory_mb: Option<i32>,
    pub(super) timeout_seconds: Option<i32>,
    pub(super) role_arn: String,
    pub(super) environment: BTreeMap<String, String>,
}

impl Configuration {
    pub(super) fn desired(context: &Context<'_>, declared: &Function) -> Self {
        let pipeline = context.pipeline;
        Self {
            description: DESCRIPTION.to_owned(),
            handler: ENTRY.to_owned(),
            runtime: Some(Runtime::Providedal2023.as_str().to_owned()),
            architecture: Some(declared.architecture.clone()),
            memory_mb: Some(declared.memory_mb),
            timeout_seconds: Some(declared.timeout_seconds),
            role_arn: context.account.role_arn(&pipeline.name, &pipeline.role_name),
            environment: desired_environment(context),
        }
    }

    pub(super) fn live(live: &FunctionConfiguration) -> Self {
        let variables = live.environment().and_then(|environment| environment.variables().cloned());
        Self {
            description: live.description().unwrap_or_default().to_owned(),
            handler: live.handler().unwrap_or_default().to_owned(),
            runtime: live.runtime().map(|runtime| runtime.as_str().to_owned()),
            architecture: live.architectures().first().map(|architecture| architecture.as_str().to_owned()),
            memory_mb: live.memory_size(),
            timeout_seconds: live.timeout(),
            role_arn: live.role().unwrap_or_default().to_owned(),
            environment: variables.unwrap_or_default().into_iter().collect(),
        }
    }

    /// Compares the settings, in the order of plans.
    pub(super) fn compare(&self, diff: Diff, live: Option<&Self>) -> Diff {
        diff.compare("description", live.map(|l| &l.description), &self.description)
            .compare("handler", live.map(|l| &l.handler), &self.handler)
            .compare("runtime", live.and_then(|l| l.runtime.as_ref()), self.runtime.as_ref())
            .compare("architecture", live.and_then(|l| l.architecture.as_ref()), self.architecture.as_ref())
            .compare("memory_mb", live.and_then(|l| l.memory_mb), self.memory_mb)
            .compare("timeout_seconds", live.and_then(|l| l.timeout_seconds), self.timeout_seconds)
            .compare("role", live.map(|l| &l.role_arn), &self.role_arn)
            .compare("environment", live.map(Self::redacted_environment).as_ref(), &self.environment)
    }

    /// Adds the settings to a request that creates the function.
    pub(super) fn create(&self, request: CreateFunctionFluentBuilder) -> CreateFunctionFluentBuilder {
        request
            .description(&self.description)
            .handler(&self.handler)
            .runtime(Runtime::Providedal2023)
            .architectures(self.architecture())
            .set_memory_size(self.memory_mb)
            .set_timeout(self.timeout_seconds)
            .role(&self.role_arn)
            .environment(self.environment())
    }

    /// Adds the settings to a request that updates the configuration.
    pub(super) fn update(
        &self,
        request: UpdateFunctionConfigurationFluentBuilder,
    ) -> UpdateFunctionConfigurationFluentBuilder {
        request
            .description(&self.description)
            .handler(&self.handler)
            .runtime(Runtime::Providedal2023)
            .set_memory_size(self.memory_mb)
            .set_timeout(self.timeout_seconds)
            .role(&self.role_arn)
            .environment(self.environment())
    }

    pub(super) fn architecture(&self) -> Architecture {
        Architecture::from(self.architecture.as_deref().unwrap_or_default())
    }

    fn environment(&self) -> Environment {
        // An empty map clears the variables; without a map Lambda keeps them.
        Environment::builder().set_variables(Some(self.environment.clone().into_iter().collect())).build()
    }

    fn redacted_environment(&self) -> BTreeMap<String, String> {
        let redact = |(name, value): (&String, &String)| {
            let value = if env::ALL.contains(&name.as_str()) { value.as_str() } else { HIDDEN };
            (name.clone(), value.to_owned())
        };
        self.environment.iter().map(redact).collect()
    }
}

fn desired_environment(context: &Context<'_>) -> BTreeMap<String, String> {
    let pipeline = context.pipeline;
    let mut environment = BTreeMap::from([
        (env::COUNTS_TABLE.to_owned(), pipeline.table.counts.clone()),
        (env::LEDGER_TABLE.to_owned(), pipeline.table.ledger.clone()),
        (env::COUNT_TYPES.to_owned(), pipeline.count.join(",")),
    ]);
    if let Some(days) = pipeline.bucket.expire_days {
        // A versioned object is kept for the same time again as a noncurrent version.
        let lifetime = if pipeline.bucket.versioning { days.saturating_mul(2) } else { days };
        environment.insert(env::LEDGER_TTL_DAYS.to_owned(), lifetime.saturating_add(LEDGER_MARGIN_DAYS).to_string());
    }
    environment
}
