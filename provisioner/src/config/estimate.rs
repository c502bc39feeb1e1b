//! `[estimate]`

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::check::{Check, Maybe};
use super::key::{Key, example, key};

/// The largest volume accepted: a thousand times that of the largest senders, so a larger number is a typing error.
const MOST: i64 = 1_000_000_000_000;
/// The default number of files per month: Segment's destination writes at least once an hour.
const HOURS_A_MONTH: u64 = 730;

/// The expected volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Volume {
    /// Events per month.
    pub(crate) events_per_month: u64,
    /// Files per month.
    pub(crate) files_per_month: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    events_per_month: Maybe<i64>,
    files_per_month: Maybe<i64>,
}

pub(super) const KEYS: &[Key] = &[
    key(
        "estimate.events_per_month",
        "events_per_month = 10000000",
        "",
        "Expected events per month, for cost estimates.",
    )
    .range(1, MOST, "a month"),
    key("estimate.files_per_month", "files_per_month = 730", "730", "Expected files per month, for cost estimates.")
        .range(1, MOST, "a month"),
];

impl Raw {
    pub(super) fn check(self, check: &mut Check<'_>) -> Option<Volume> {
        let files_span = self.files_per_month.as_ref().map(Spanned::span);
        let events = volume(check, self.events_per_month, "estimate.events_per_month");
        let files = volume(check, self.files_per_month, "estimate.files_per_month");
        if let (None, Some(span)) = (events, files_span) {
            let help = format!("below [estimate], {}", example(KEYS, "estimate.events_per_month"));
            check.mistake(span, "`estimate.events_per_month` is missing", "", help);
        }
        Some(Volume { events_per_month: events?, files_per_month: files.unwrap_or(HOURS_A_MONTH) })
    }
}

fn volume(check: &mut Check<'_>, value: Maybe<i64>, key: &str) -> Option<u64> {
    check.large_number(value, key).and_then(|n| u64::try_from(n).ok())
}
