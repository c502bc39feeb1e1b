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
        // Others use the tag `pipeline` too. Without the second mark it may still be ours, with somebody else's it is not.
        Some(_) if live.get(MANAGED_BY_TAG).is_some_and(|by| by != MANAGED_BY) => Owner::Nobody,
        ours if ours == desired.get(PIPELINE_TAG) => Owner::Ours,
        Some(other) => Owner::Another(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_marks_count() {
        let tags = |pipeline: Option<&str>, by: Option<&str>| -> BTreeMap<String, String> {
            let tags = [(PIPELINE_TAG, pipeline), (MANAGED_BY_TAG, by)];
            tags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect()
        };
        let desired = tags(Some("events"), Some(MANAGED_BY));
        let owner = |pipeline, by| by_tags(&tags(pipeline, by), &desired);
        assert_eq!(owner(Some("events"), Some(MANAGED_BY)), Owner::Ours);
        assert_eq!(owner(Some("events"), None), Owner::Ours);
        assert_eq!(owner(Some("events"), Some("terraform")), Owner::Nobody);
        assert_eq!(owner(Some("visits"), Some(MANAGED_BY)), Owner::Another("visits".to_owned()));
        assert_eq!(owner(Some("visits"), None), Owner::Another("visits".to_owned()));
        assert_eq!(owner(Some("visits"), Some("terraform")), Owner::Nobody);
        assert_eq!(owner(None, Some(MANAGED_BY)), Owner::Nobody);
    }
}
