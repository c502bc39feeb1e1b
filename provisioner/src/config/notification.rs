//! `[notification]`

use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::check::{Check, Maybe};
use super::key::{Key, key};
use super::rules;
use super::table::Billing;

/// The longest key of an object, in bytes (S3 user guide, object keys).
const LONGEST_KEY: usize = 1024;

/// The way of a notification from S3 to the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Via {
    /// Through a queue, from which the function takes batches.
    Queue,
    /// One invocation for each object.
    Function,
}

impl Via {
    /// Returns its value in the file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Function => "function",
        }
    }

    /// Returns the other way.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Queue => Self::Function,
            Self::Function => Self::Queue,
        }
    }
}

/// The filter that selects the objects to count, and the delivery of their notifications.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Notification {
    /// The beginning of their keys.
    pub(crate) prefix: String,
    /// The end of their keys.
    pub(crate) suffix: String,
    /// The way to the function.
    pub(crate) via: Via,
    /// The name of the queue of notifications.
    pub(crate) queue: String,
    /// The most batches that are counted at the same time.
    pub(crate) max_concurrency: i32,
    /// The most notifications in a batch.
    pub(crate) batch_size: i32,
    /// The seconds for which Lambda waits for a batch to fill.
    pub(crate) batch_seconds: i32,
}

/// The batch size above which Lambda demands a window (API reference, CreateEventSourceMapping).
const LARGEST_WITHOUT_WINDOW: i32 = 10;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    prefix: Maybe<String>,
    suffix: Maybe<String>,
    via: Maybe<String>,
    queue: Maybe<String>,
    max_concurrency: Maybe<i64>,
    batch_size: Maybe<i64>,
    batch_seconds: Maybe<i64>,
}

/// The bounds of numbers are Lambda's (API reference, CreateEventSourceMapping and ScalingConfig).
pub(super) const KEYS: &[Key] = &[
    key("notification.prefix", "prefix = \"segment-logs/\"", "\"segment-logs/\"", "Beginning of the keys to count.")
        .text(rules::FILTER),
    key("notification.suffix", "suffix = \".gz\"", "\".gz\"", "End of the keys to count.").text(rules::FILTER),
    key(
        "notification.via",
        "via = \"queue\"",
        "\"queue\"",
        "\"queue\": the function takes batches from a queue; \"function\": one invocation for each object.",
    )
    .words(&["queue", "function"]),
    key(
        "notification.queue",
        "queue = \"segment-events-notifications\"",
        "NAME-notifications",
        "Name of the queue of notifications.",
    )
    .text(rules::QUEUE_NAME),
    key(
        "notification.max_concurrency",
        "max_concurrency = 8",
        "8, or what table.billing carries",
        "Most batches that are counted at the same time.",
    )
    .range(2, 1_000, "batches"),
    key("notification.batch_size", "batch_size = 100", "100", "Most notifications in a batch.").range(
        1,
        10_000,
        "notifications",
    ),
    key("notification.batch_seconds", "batch_seconds = 1", "1", "Seconds to wait for a batch to fill.")
        .range(0, 300, "seconds"),
];

impl Raw {
    /// Returns the position of the queue's name in the file.
    pub(super) fn queue_span(&self) -> Option<Range<usize>> {
        self.queue.as_ref().map(Spanned::span)
    }

    pub(super) fn check(self, check: &mut Check<'_>, base: &str, billing: Billing) -> Notification {
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
        let prefix = check.text(self.prefix, "notification.prefix");
        let suffix = check.text(self.suffix, "notification.suffix");
        let window_span = self.batch_seconds.as_ref().or(self.batch_size.as_ref()).map(Spanned::span);
        let both = Notification {
            prefix: prefix.unwrap_or_else(|| "segment-logs/".to_owned()),
            suffix: suffix.unwrap_or_else(|| ".gz".to_owned()),
            via: match check.word(self.via, "notification.via") {
                Some("function") => Via::Function,
                _ => Via::Queue,
            },
            queue: check.text(self.queue, "notification.queue").unwrap_or_else(|| format!("{base}-notifications")),
            max_concurrency: check
                .number(self.max_concurrency, "notification.max_concurrency")
                .unwrap_or_else(|| billing.batches_at_once()),
            batch_size: check.number(self.batch_size, "notification.batch_size").unwrap_or(100),
            batch_seconds: check.number(self.batch_seconds, "notification.batch_seconds").unwrap_or(1),
        };
        if both.batch_size > LARGEST_WITHOUT_WINDOW && both.batch_seconds == 0 {
            check.mistake(
                window_span.unwrap_or(0..0),
                "Lambda does not accept this `notification.batch_seconds`",
                format!("batches of more than {LARGEST_WITHOUT_WINDOW} need time to fill"),
                "write batch_seconds = 1 or more",
            );
        }
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
