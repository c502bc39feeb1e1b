//! How a resource says whose it is, since no state file does.

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
