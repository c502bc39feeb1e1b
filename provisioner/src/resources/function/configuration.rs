//! The configuration of the function. A new setting needs only a field here and a key of `[function]`.

use std::collections::BTreeMap;

use aws_sdk_lambda::operation::create_function::builders::CreateFunctionFluentBuilder;
use aws_sdk_lambda::operation::update_function_configuration::builders::UpdateFunctionConfigurationFluentBuilder;
use aws_sdk_lambda::types::{Architecture, Environment, FunctionConfiguration, Runtime};
use counting::names::env;

use super::artifact::ENTRY;
use crate::config::{Function, Source};
use crate::reconcile::diff::Diff;
use crate::resources::Context;

const COUNTS: &str = "Counts the events of Segment's files per event and hour";
const CONSUMES: &str = "Is told which events were counted";

/// The settings that UpdateFunctionConfiguration changes. The architecture is changed with the code.
pub(super) const CONFIGURATION: [&str; 8] =
    ["role", "description", "runtime", "handler", "memory_mb", "timeout_seconds", "environment", "kms_key"];

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
    pub(super) kms_key: Option<String>,
}

impl Configuration {
    pub(super) fn desired(context: &Context<'_>, declared: &Function) -> Self {
        let is_counter = declared.source == Source::Notifications;
        Self {
            description: if is_counter { COUNTS } else { CONSUMES }.to_owned(),
            handler: ENTRY.to_owned(),
            runtime: Some(Runtime::Providedal2023.as_str().to_owned()),
            architecture: Some(declared.architecture.clone()),
            memory_mb: Some(declared.memory_mb),
            timeout_seconds: Some(declared.timeout_seconds),
            role_arn: context.account.role_arn(&context.pipeline.name, &declared.role.name),
            environment: if is_counter { counter_environment(context) } else { declared.environment.clone() },
            kms_key: declared.kms_key.clone(),
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
            kms_key: live.kms_key_arn().filter(|key| !key.is_empty()).map(str::to_owned),
        }
    }

    /// Compares the settings, in the order of plans.
    pub(super) fn compare(&self, diff: Diff, live: Option<&Self>) -> Diff {
        let diff = diff
            .compare("description", live.map(|l| &l.description), &self.description)
            .compare("handler", live.map(|l| &l.handler), &self.handler)
            .compare("runtime", live.and_then(|l| l.runtime.as_ref()), self.runtime.as_ref())
            .compare("architecture", live.and_then(|l| l.architecture.as_ref()), self.architecture.as_ref())
            .compare("memory_mb", live.and_then(|l| l.memory_mb), self.memory_mb)
            .compare("timeout_seconds", live.and_then(|l| l.timeout_seconds), self.timeout_seconds)
            .compare("role", live.map(|l| &l.role_arn), &self.role_arn)
            .compare("environment", live.map(|live| self.managed_variables(live)).as_ref(), &self.environment);
        match (live.and_then(|l| l.kms_key.as_ref()), &self.kms_key) {
            (Some(key), None) => diff.keep(format!("kms_key {key} is kept")),
            (live, desired) => diff.compare("kms_key", live, desired.as_ref()),
        }
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
            .environment(self.environment(None))
            .set_kms_key_arn(self.kms_key.clone())
    }

    /// Adds the settings to a request that updates the configuration `live`.
    pub(super) fn update(
        &self,
        request: UpdateFunctionConfigurationFluentBuilder,
        live: &Self,
    ) -> UpdateFunctionConfigurationFluentBuilder {
        request
            .description(&self.description)
            .handler(&self.handler)
            .runtime(Runtime::Providedal2023)
            .set_memory_size(self.memory_mb)
            .set_timeout(self.timeout_seconds)
            .role(&self.role_arn)
            .environment(self.environment(Some(live)))
            .set_kms_key_arn(self.kms_key.clone())
    }

    pub(super) fn architecture(&self) -> Architecture {
        Architecture::from(self.architecture.as_deref().unwrap_or_default())
    }

    /// Returns the variables to set. A request replaces all of them, so it includes the unmanaged ones.
    fn environment(&self, live: Option<&Self>) -> Environment {
        let mut variables = self.environment.clone();
        for name in live.map(|live| self.unmanaged_variables(live)).unwrap_or_default() {
            variables.extend(
                live.and_then(|live| live.environment.get_key_value(name)).map(|(k, v)| (k.clone(), v.clone())),
            );
        }
        Environment::builder().set_variables(Some(variables.into_iter().collect())).build()
    }

    fn is_managed(&self, name: &str) -> bool {
        env::ALL.contains(&name) || self.environment.contains_key(name)
    }

    fn managed_variables(&self, live: &Self) -> BTreeMap<String, String> {
        let managed = live.environment.iter().filter(|(name, _)| self.is_managed(name));
        managed.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Returns the live role if it is not under the path of the pipeline's roles.
    pub(super) fn unmanaged_role<'a>(&self, live: &'a Self) -> Option<&'a str> {
        let path = self.role_arn.rsplit_once('/').map(|(path, _)| format!("{path}/"))?;
        Some(live.role_arn.as_str()).filter(|role| !role.is_empty() && !role.starts_with(&path))
    }

    /// Returns the names of the variables that others have set, such as agents and extensions. Their values may be
    /// secrets, and are never shown.
    pub(super) fn unmanaged_variables<'a>(&self, live: &'a Self) -> Vec<&'a str> {
        live.environment.keys().map(String::as_str).filter(|name| !self.is_managed(name)).collect()
    }
}

fn counter_environment(context: &Context<'_>) -> BTreeMap<String, String> {
    let pipeline = context.pipeline;
    let mut environment = pipeline.function.environment.clone();
    environment.extend([
        (env::COUNTS_TABLE.to_owned(), pipeline.table.counts.clone()),
        (env::DAILY_TABLE.to_owned(), pipeline.table.daily.clone()),
        (env::LEDGER_TABLE.to_owned(), pipeline.table.ledger.clone()),
        (env::BUCKET.to_owned(), pipeline.bucket.name.clone()),
        (env::BUCKET_OWNER.to_owned(), context.account.id.clone()),
        (env::COUNT_TYPES.to_owned(), pipeline.rollup.count.join(",")),
    ]);
    let limits = pipeline.rollup.rules().limits;
    let limits = [(env::MAX_AGE_DAYS, limits.max_age_days), (env::MAX_AHEAD_HOURS, limits.max_ahead_hours)];
    environment
        .extend(limits.into_iter().filter_map(|(name, limit)| limit.map(|limit| (name.to_owned(), limit.to_string()))));
    if let Some(days) = pipeline.bucket.ledger_ttl_days() {
        environment.insert(env::LEDGER_TTL_DAYS.to_owned(), days.to_string());
    }
    if !pipeline.rollup.sum.is_empty() {
        environment.insert(env::SUM.to_owned(), serde_json::json!(pipeline.rollup.sum).to_string());
    }
    if !pipeline.rollup.by.is_empty() {
        environment.extend([
            (env::BY.to_owned(), serde_json::json!(pipeline.rollup.by).to_string()),
            (env::BY_LIMIT.to_owned(), pipeline.rollup.by_limit.to_string()),
            (env::BREAKDOWNS_TABLE.to_owned(), pipeline.table.breakdowns.clone()),
        ]);
    }
    if pipeline.has_outbox() {
        environment.insert(env::OUTBOX.to_owned(), env::OUTBOX_ON.to_owned());
    }
    if pipeline.rollup.counts_duplicates {
        environment.insert(env::DUPLICATES.to_owned(), env::DUPLICATES_COUNT.to_owned());
    }
    environment
}
