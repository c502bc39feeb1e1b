//! Checks of the resources that counting needs.

use std::sync::Arc;

use futures_util::future::join_all;
use schemars::JsonSchema;
use serde::Serialize;

use crate::aws::Session;
use crate::error::Error;
use crate::reconcile::resource::{Declared, Observed};
use crate::resources::{self, Context};

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Passes {
    /// It is as counting needs it.
    Ok,
    /// It is not, so counting fails, or has failed.
    Failed,
    /// It could not be read, for example since the caller lacks a permission.
    Unknown,
}

/// The check of one part of the chain from upload to count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Check {
    /// The resource, or another part such as `invocation`.
    pub(crate) subject: String,
    /// The result.
    pub(crate) result: Passes,
    /// The reason, for people.
    pub(crate) finding: String,
}

impl Check {
    pub(crate) fn new(subject: impl Into<String>, result: Passes, finding: impl Into<String>) -> Self {
        Self { subject: subject.into(), result, finding: finding.into() }
    }

    /// Returns the check as a line: `FAILED   bucket acme-events: missing`.
    pub(crate) fn line(&self) -> String {
        let result = match self.result {
            Passes::Ok => "ok     ",
            Passes::Failed => "FAILED ",
            Passes::Unknown => "unknown",
        };
        format!("{result}  {}: {}", self.subject, self.finding)
    }
}

/// Checks the live state of a resource, and that these settings are as desired.
fn check(observed: &dyn Observed, essential: &[&str]) -> (Passes, String) {
    if !observed.exists() {
        return (Passes::Failed, "missing".to_owned());
    }
    let problems: Vec<String> = observed.problems().into_iter().map(|problem| problem.why).collect();
    if !problems.is_empty() {
        return (Passes::Failed, problems.join("; "));
    }
    let changes = observed.changes().iter().map(|change| change.setting);
    let settings: Vec<&str> = changes.filter(|setting| essential.contains(setting)).collect();
    match settings.is_empty() {
        true => (Passes::Ok, "works".to_owned()),
        false => (Passes::Failed, format!("differs from pipeline.toml in {}", settings.join(", "))),
    }
}

impl Session<'_> {
    /// Checks every resource that counting needs, in the order of plans. Returns the errors of those that could not be
    /// read as well.
    pub(super) async fn check_resources(&self) -> (Vec<Check>, Vec<Error>) {
        let context = Context { pipeline: self.pipeline, account: &self.account, artifacts: None };
        let observe = |resource: Arc<dyn Declared>, essential: &'static [&'static str]| async move {
            let subject = resource.address().to_string();
            match resource.observe(&self.aws).await {
                Ok(observed) => {
                    let (result, finding) = check(observed.as_ref(), essential);
                    (Check::new(subject, result, finding), None)
                }
                Err(error) => (Check::new(subject, Passes::Unknown, error.summary()), Some(error)),
            }
        };
        let essential = |resource: Arc<dyn Declared>| resource.essential().map(|settings| observe(resource, settings));
        let checked = join_all(resources::desired(&context).into_iter().filter_map(essential)).await;
        let (checks, errors): (Vec<Check>, Vec<Option<Error>>) = checked.into_iter().unzip();
        (checks, errors.into_iter().flatten().collect())
    }
}
