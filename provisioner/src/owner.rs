//! How a resource says whose it is, since no state file does.

use std::collections::BTreeMap;

/// Tag whose value is the name of the pipeline that owns the resource.
pub const PIPELINE_TAG: &str = "pipeline";
/// Tag that says what made the resource.
pub const MANAGED_BY_TAG: &str = "managed-by";
/// Its value.
pub const MANAGED_BY: &str = "provisioner";

/// The IAM path of a pipeline's roles.
#[must_use]
pub fn role_path(pipeline: &str) -> String {
    format!("/pipeline/{pipeline}/")
}

/// Whose a resource is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// This pipeline's.
    Ours,
    /// Nobody's who says so: made by hand, or by another tool.
    Nobody,
    /// Another pipeline's, of this name.
    Another(String),
}

/// Whose a resource with the tags `live` is, for a pipeline that declares the tags `desired`.
#[must_use]
pub fn by_tags(live: &BTreeMap<String, String>, desired: &BTreeMap<String, String>) -> Owner {
    match live.get(PIPELINE_TAG) {
        None => Owner::Nobody,
        ours if ours == desired.get(PIPELINE_TAG) => Owner::Ours,
        Some(other) => Owner::Another(other.clone()),
    }
}
