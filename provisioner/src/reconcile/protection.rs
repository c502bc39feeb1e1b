//! Conflicts, problems, and the rule for settings that protect: encryption, versioning, public access, deletion
//! protection, recovery, retention, and policies.
//!
//! # The rule
//! - A change that lowers protection is marked in every format of the plan ([`super::diff::SettingChange::weakens`]).
//! - A live value that is stronger than a default is kept, and noted. It is lowered only if pipeline.toml sets the key.
//! - A policy lowers protection if it allows what no statement allowed before, compared with wildcards
//!   ([`crate::aws::policy::widening`]); so does a removed denial.

use serde::Serialize;

/// A protecting setting of a resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Protection {
    /// The setting's name in plans.
    pub(crate) setting: &'static str,
    /// Its key in pipeline.toml.
    pub(crate) key: &'static str,
    /// The consequence of a lower value: `the table can be deleted`.
    pub(crate) loss: &'static str,
}

/// The reason why a resource cannot be reconciled, or does not work, and a way to resolve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Refusal {
    /// The conflict; continues the resource's address: `exists and is unmanaged`.
    pub(crate) why: String,
    /// The help text.
    pub(crate) help: String,
}

impl Refusal {
    pub(crate) fn new(why: impl Into<String>, help: impl Into<String>) -> Self {
        Self { why: why.into(), help: help.into() }
    }
}
