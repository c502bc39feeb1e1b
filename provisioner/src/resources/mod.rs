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

use crate::kind::{Resource, Scope, declare};

/// Every resource that the file declares, in the order in which plans show them.
#[must_use]
pub fn declared(scope: &Scope<'_>) -> Vec<Arc<dyn Resource>> {
    [
        declare::<bucket::Bucket>(scope),
        declare::<table::Table>(scope),
        declare::<role::Role>(scope),
        declare::<log_group::LogGroup>(scope),
        declare::<queue::Queue>(scope),
        declare::<function::Function>(scope),
        declare::<permission::Permission>(scope),
        declare::<notification::Notification>(scope),
    ]
    .concat()
}

#[cfg(test)]
mod tests;
