//! The desired and the live state of the function.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::artifact::Artifact;
use super::configuration::Configuration;
use crate::reconcile::diff::Code;
use crate::reconcile::resource::Address;

/// The desired state of the function.
#[derive(Debug, Clone)]
pub(in crate::resources) struct Function {
    pub(super) name: String,
    pub(super) arn: String,
    pub(super) depends_on: Vec<Address>,
    pub(super) artifact: Option<Arc<Artifact>>,
    pub(super) configuration: Configuration,
    pub(super) retries: i32,
    pub(super) max_event_age_seconds: i32,
    pub(super) failure_queue_arn: String,
    pub(super) max_concurrency: Option<i32>,
    pub(super) tags: BTreeMap<String, String>,
}

/// The live state of the function.
#[derive(Debug, Default)]
pub(in crate::resources) struct Live {
    pub(super) configuration: Configuration,
    pub(super) code: Code,
    /// The reason why the last change failed, if it did.
    pub(super) failure: Option<String>,
    /// Changes with each change of code or configuration.
    pub(super) revision_id: Option<String>,
    pub(super) retries: i32,
    pub(super) max_event_age_seconds: i32,
    pub(super) failure_queue_arn: Option<String>,
    pub(super) success_destination: Option<String>,
    pub(super) max_concurrency: Option<i32>,
    pub(super) tags: BTreeMap<String, String>,
}
