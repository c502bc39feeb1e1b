//! The registry: one line per kind.

mod bucket;
mod function;
mod log_group;
mod notification;
mod permission;
mod queue;
mod role;
mod table;

use std::sync::Arc;

pub use function::{REVISION_TAG, log_group_name};

use crate::kind::{Kind, Resource, Scope, declare, found};

type Resources = Vec<Arc<dyn Resource>>;

struct Registered {
    declare: fn(&Scope<'_>) -> Resources,
    found: fn(&Scope<'_>, &[String]) -> Resources,
}

const fn kind<K: Kind>() -> Registered {
    Registered { declare: declare::<K>, found: found::<K> }
}

/// Every kind, in the order in which plans show them.
const KINDS: [Registered; 8] = [
    kind::<bucket::Bucket>(),
    kind::<table::Table>(),
    kind::<role::Role>(),
    kind::<log_group::LogGroup>(),
    kind::<queue::Queue>(),
    kind::<function::Function>(),
    kind::<permission::Permission>(),
    kind::<notification::Notification>(),
];

/// Every resource that the file declares.
#[must_use]
pub fn declared(scope: &Scope<'_>) -> Resources {
    KINDS.iter().flat_map(|kind| (kind.declare)(scope)).collect()
}

/// Every resource that is at one of these ARNs, or belongs to what is there.
#[must_use]
pub fn at(scope: &Scope<'_>, arns: &[String]) -> Resources {
    KINDS.iter().flat_map(|kind| (kind.found)(scope, arns)).collect()
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;
