//! `[rollup]`

use std::collections::BTreeSet;

use counting::names::MESSAGE_TYPES;
use serde::Deserialize;
use toml::Spanned;

use super::check::{Check, Maybe};
use super::key::{Key, key};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    count: Maybe<Vec<Spanned<String>>>,
}

pub(super) const KEYS: &[Key] = &[key(
    "rollup.count",
    "count = [\"track\"]",
    "[\"track\"]",
    "Segment message types to count; types other than track are counted under the name of the type.",
)];

impl Raw {
    /// Returns the message types to count, in the order of the file.
    pub(super) fn check(self, check: &mut Check<'_>) -> Vec<String> {
        let Some(count) = self.count else {
            return vec!["track".to_owned()];
        };
        let help = format!("choose from {}", MESSAGE_TYPES.join(", "));
        if count.get_ref().is_empty() {
            check.mistake(count.span(), "`rollup.count` is empty", "nothing would be counted", help.clone());
        }
        let mut seen = BTreeSet::new();
        for kind in count.get_ref() {
            let name = kind.get_ref().as_str();
            if !MESSAGE_TYPES.contains(&name) {
                let message = format!("`{}` is not a Segment message type", name.escape_debug());
                check.mistake(kind.span(), message, "", help.clone());
            } else if !seen.insert(name.to_owned()) {
                check.mistake(kind.span(), format!("`{name}` is listed twice"), "", "list each type once");
            }
        }
        count.into_inner().into_iter().map(Spanned::into_inner).collect()
    }
}
