//! Ownership markers; they replace a state file.

use std::collections::BTreeMap;

use crate::config::{MANAGED_BY, MANAGED_BY_TAG, PIPELINE_TAG};

/// The owner of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// This pipeline owns it.
    Owned,
    /// It has no markers: it was created by hand, or by another tool.
    Unmanaged,
    /// The pipeline of this name owns it.
    OwnedBy(String),
}

/// Returns the owner of a resource with the tags `live`, seen by a pipeline with the tags `desired`.
pub(crate) fn by_tags(live: &BTreeMap<String, String>, desired: &BTreeMap<String, String>) -> Ownership {
    match live.get(PIPELINE_TAG) {
        None => Ownership::Unmanaged,
        // Other tools use the tag `pipeline` too. A resource without the second marker may still be owned; one with
        // another tool's marker is not.
        Some(_) if live.get(MANAGED_BY_TAG).is_some_and(|by| by != MANAGED_BY) => Ownership::Unmanaged,
        owner if owner == desired.get(PIPELINE_TAG) => Ownership::Owned,
        Some(other) => Ownership::OwnedBy(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_with_the_marker_of_another_tool_is_unmanaged() {
        let tags = |pipeline: Option<&str>, by: Option<&str>| -> BTreeMap<String, String> {
            let tags = [(PIPELINE_TAG, pipeline), (MANAGED_BY_TAG, by)];
            tags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect()
        };
        let desired = tags(Some("events"), Some(MANAGED_BY));
        let owner = |pipeline, by| by_tags(&tags(pipeline, by), &desired);
        assert_eq!(owner(Some("events"), Some(MANAGED_BY)), Ownership::Owned);
        assert_eq!(owner(Some("events"), None), Ownership::Owned);
        assert_eq!(owner(Some("events"), Some("terraform")), Ownership::Unmanaged);
        assert_eq!(owner(Some("visits"), Some(MANAGED_BY)), Ownership::OwnedBy("visits".to_owned()));
        assert_eq!(owner(Some("visits"), None), Ownership::OwnedBy("visits".to_owned()));
        assert_eq!(owner(Some("visits"), Some("terraform")), Ownership::Unmanaged);
        assert_eq!(owner(None, Some(MANAGED_BY)), Ownership::Unmanaged);
    }
}
