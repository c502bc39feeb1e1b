//! The desired and the live state of the function.

use std::collections::BTreeMap;

use super::artifact::Artifacts;
use super::configuration::Configuration;
use crate::reconcile::diff::Code;
use crate::reconcile::resource::Address;

/// The desired state of the function.
#[derive(Debug, Clone)]
pub(in crate::resources) struct Function {
    pub(super) name: String,
    pub(super) arn: String,
    /// The ARN pattern of every function.
    pub(super) every_function: String,
    pub(super) depends_on: Vec<Address>,
    pub(super) log_group: Address,
    /// The queue from which it takes notifications.
    pub(super) source: Option<Address>,
    /// Empty if the command does not need the code.
    pub(super) artifacts: Artifacts,
    pub(super) configuration: Configuration,
    pub(super) retries: i32,
    pub(super) max_event_age_seconds: i32,
    pub(super) failure_queue_arn: String,
    pub(super) max_concurrency: Option<i32>,
    pub(super) tags: BTreeMap<String, String>,
}

/// The concurrent executions of an account.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Those of all functions together.
    pub(super) all: i32,
    /// Those that are not reserved for one function.
    pub(super) unreserved: i32,
}

impl Limits {
    /// Returns the number of executions that a function may reserve, of which it has reserved `reserved`. Lambda keeps
    /// 100 unreserved, or all of a new account's 10 (Lambda developer guide, reserved concurrency).
    pub(super) fn reservable(self, reserved: i32) -> i32 {
        (self.unreserved + reserved - self.all.min(100)).max(0)
    }
}

/// The live state of the function.
#[derive(Debug, Default)]
pub(in crate::resources) struct Live {
    /// True if there is no function; then only the limits are known.
    pub(super) is_absent: bool,
    /// The limits of the account; read only if a reservation is to be made.
    pub(super) limits: Option<Limits>,
    /// True if the code is a container image.
    pub(super) is_image: bool,
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
