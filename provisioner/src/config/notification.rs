//! `[notification]`

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::check::{Check, Maybe};
use super::key::{Key, key};
use super::rules;

/// The longest key of an object, in bytes (S3 user guide, object keys).
const LONGEST_KEY: usize = 1024;

/// The filter that selects the objects to count.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Notification {
    /// The beginning of their keys.
    pub(crate) prefix: String,
    /// The end of their keys.
    pub(crate) suffix: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    prefix: Maybe<String>,
    suffix: Maybe<String>,
}

pub(super) const KEYS: &[Key] = &[
    key("notification.prefix", "prefix = \"segment-logs/\"", "segment-logs/", "Beginning of the keys to count."),
    key("notification.suffix", "suffix = \".gz\"", ".gz", "End of the keys to count."),
];

impl Raw {
    pub(super) fn check(self, check: &mut Check<'_>) -> Notification {
        if let Some(prefix) = self.prefix.as_ref().filter(|prefix| prefix.get_ref().starts_with('/')) {
            check.mistake(
                prefix.span(),
                "`notification.prefix` matches nothing",
                "keys in S3 do not begin with a slash",
                "remove the first slash: prefix = \"segment-logs/\"",
            );
        }
        let (prefix_span, suffix_span) =
            (self.prefix.as_ref().map(Spanned::span), self.suffix.as_ref().map(Spanned::span));
        let prefix = check.text(self.prefix, "notification.prefix", rules::filter);
        let suffix = check.text(self.suffix, "notification.suffix", rules::filter);
        let both = Notification {
            prefix: prefix.unwrap_or_else(|| "segment-logs/".to_owned()),
            suffix: suffix.unwrap_or_else(|| ".gz".to_owned()),
        };
        if both.prefix.len() + both.suffix.len() > LONGEST_KEY {
            check.mistake(
                suffix_span.or(prefix_span).unwrap_or(0..0),
                "`notification` matches nothing",
                "prefix and suffix together are longer than the longest key",
                format!("keep both within {LONGEST_KEY} bytes"),
            );
        }
        both
    }
}
