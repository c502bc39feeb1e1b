//! `[segment]`

use serde::Deserialize;

use super::check::{Check, Maybe};
use super::key::{Key, key};
use super::rules;

/// The partition of the role with which Segment writes. IAM refuses a principal of another partition
/// (MalformedPolicyDocument).
const SEGMENT_PARTITION: &str = "aws";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    workspace_id: Maybe<String>,
}

pub(super) const KEYS: &[Key] = &[key(
    "segment.workspace_id",
    "workspace_id = \"abc123XYZ\"",
    "",
    "Id of Segment's workspace; with it, the role that Segment assumes to write to the bucket is created.",
)
.text(rules::WORKSPACE_ID)];

impl Raw {
    /// Returns whether the file asks for the role that Segment assumes.
    pub(super) fn is_declared(&self) -> bool {
        self.workspace_id.is_some()
    }

    /// Returns the id of the workspace, if the file has one.
    pub(super) fn check(self, check: &mut Check<'_>, region: Option<&str>) -> Option<String> {
        let partition = region.map_or(SEGMENT_PARTITION, rules::partition);
        if let Some(id) = self.workspace_id.as_ref().filter(|_| partition != SEGMENT_PARTITION) {
            check.mistake(
                id.span(),
                "`segment.workspace_id` is not possible in this region",
                format!("Segment's role is in the partition `{SEGMENT_PARTITION}`, and the region in `{partition}`"),
                "remove it, and give Segment another way to write to the bucket",
            );
        }
        check.text(self.workspace_id, "segment.workspace_id")
    }
}
