//! The kinds of resources: one file or folder a kind, and one line a kind in the registry [`KINDS`].

mod bucket;
pub(crate) mod cost;
pub(crate) mod discover;
pub(crate) mod function;
mod log_group;
mod notification;
mod permission;
mod queue;
mod role;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;

use function::artifact::Artifact;

use crate::aws::Account;
use crate::config::Pipeline;
use crate::reconcile::resource::{Declared, Resource, declare};

/// Everything on which the desired state depends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The checked file.
    pub(crate) pipeline: &'a Pipeline,
    /// Account and region.
    pub(crate) account: &'a Account,
    /// The function's code; absent if the command does not need it, as in destroy.
    pub(crate) artifact: Option<&'a Arc<Artifact>>,
}

/// A kind of resource: its desired state follows from the file.
pub(crate) trait Kind: Resource {
    /// Returns the resources of this kind that the file declares.
    fn desired(context: &Context<'_>) -> Vec<Self>;

    /// Returns the name of the resource of this kind at `arn`, or of the one that belongs to the resource at `arn`.
    /// Together with [`Kind::with_name`] it finds orphaned resources.
    fn name_from_arn(_arn: &str) -> Option<String> {
        None
    }

    /// Returns the desired state as it would be under another name.
    fn with_name(_context: &Context<'_>, _name: &str) -> Option<Self> {
        None
    }
}

type Resources = Vec<Arc<dyn Declared>>;

struct RegisteredKind {
    desired: fn(&Context<'_>) -> Resources,
    at_arns: fn(&Context<'_>, &[String]) -> Resources,
}

const fn kind<K: Kind>() -> RegisteredKind {
    RegisteredKind { desired: desired_of::<K>, at_arns: at_arns_of::<K> }
}

fn desired_of<K: Kind>(context: &Context<'_>) -> Resources {
    K::desired(context).into_iter().map(declare).collect()
}

fn at_arns_of<K: Kind>(context: &Context<'_>, arns: &[String]) -> Resources {
    let names: BTreeSet<String> = arns.iter().filter_map(|arn| K::name_from_arn(arn)).collect();
    names.iter().filter_map(|name| K::with_name(context, name)).map(declare).collect()
}

/// Every kind, in the order of plans.
const KINDS: [RegisteredKind; 8] = [
    kind::<bucket::Bucket>(),
    kind::<table::Table>(),
    kind::<role::Role>(),
    kind::<log_group::LogGroup>(),
    kind::<queue::Queue>(),
    kind::<function::Function>(),
    kind::<permission::Permission>(),
    kind::<notification::Notification>(),
];

/// Returns every resource that the file declares.
pub(crate) fn desired(context: &Context<'_>) -> Resources {
    KINDS.iter().flat_map(|kind| (kind.desired)(context)).collect()
}

/// Returns every resource at one of these ARNs, or that belongs to the resource at one.
fn at_arns(context: &Context<'_>, arns: &[String]) -> Resources {
    KINDS.iter().flat_map(|kind| (kind.at_arns)(context, arns)).collect()
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
pub(crate) mod tests;
