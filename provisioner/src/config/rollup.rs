//! `[rollup]`

use std::collections::BTreeSet;

use counting::line::FIELDS;
use counting::names::MESSAGE_TYPES;
use counting::names::breakdowns::SEPARATOR;
use counting::rollup::{Limits, Rules};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::check::{Check, Maybe};
use super::key::{Key, key};

/// The default limits of a message's hour. Apps send what they recorded offline when they are next opened, usually
/// within weeks; Segment corrects the clocks of devices, so no message should be from the future, except for a sender
/// that mistakes a local time for UTC.
const MAX_AGE_DAYS: i32 = 90;
const MAX_AHEAD_HOURS: i32 = 24;

/// The rules of counting.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rollup {
    /// The Segment message types to count, in the order of the file.
    pub(crate) count: Vec<String>,
    /// The most days by which a message's hour may be before Segment received it; 0 for any number.
    pub(crate) max_age_days: i32,
    /// The most hours by which it may be after that; 0 for any number.
    pub(crate) max_ahead_hours: i32,
    /// True if each of several objects with the same content counts; otherwise only the first does.
    pub(crate) counts_duplicates: bool,
    /// The paths of the fields that are summed.
    pub(crate) sum: Vec<String>,
    /// The paths of the fields by whose values messages are counted as well.
    pub(crate) by: Vec<String>,
    /// The most values of each of these fields for an event of an object.
    pub(crate) by_limit: i32,
}

impl Default for Rollup {
    fn default() -> Self {
        Self {
            count: vec!["track".to_owned()],
            max_age_days: MAX_AGE_DAYS,
            max_ahead_hours: MAX_AHEAD_HOURS,
            counts_duplicates: false,
            sum: Vec::new(),
            by: Vec::new(),
            by_limit: VALUES,
        }
    }
}

impl Rollup {
    /// Returns the rules for the function.
    pub(crate) fn rules(&self) -> Rules {
        let limit = |number: i32| u32::try_from(number).ok().filter(|number| *number > 0);
        let limits = Limits { max_age_days: limit(self.max_age_days), max_ahead_hours: limit(self.max_ahead_hours) };
        Rules {
            types: self.count.iter().cloned().collect(),
            limits,
            sums: self.sum.clone(),
            by: self.by.clone(),
            by_limit: usize::try_from(self.by_limit).unwrap_or(usize::MAX),
            namer: None,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    count: Maybe<Vec<Spanned<String>>>,
    max_age_days: Maybe<i64>,
    max_ahead_hours: Maybe<i64>,
    duplicates: Maybe<String>,
    sum: Maybe<Vec<Spanned<String>>>,
    by: Maybe<Vec<Spanned<String>>>,
    by_limit: Maybe<i64>,
}

pub(super) const KEYS: &[Key] = &[
    key(
        "rollup.count",
        "count = [\"track\"]",
        "[\"track\"]",
        "Segment message types to count; types other than track are counted under the name of the type.",
    )
    .set()
    .words(&MESSAGE_TYPES)
    .entries(1, usize::MAX),
    key(
        "rollup.max_age_days",
        "max_age_days = 90",
        "90",
        "Days before `receivedAt` beyond which a message counts in the hour of `receivedAt`; 0 for no limit.",
    )
    .range(0, 36_500, "days"),
    key(
        "rollup.max_ahead_hours",
        "max_ahead_hours = 24",
        "24",
        "Hours after `receivedAt` beyond which a message counts in the hour of `receivedAt`; 0 for no limit.",
    )
    .range(0, 876_000, "hours"),
    key(
        "rollup.duplicates",
        "duplicates = \"once\"",
        "\"once\"",
        "\"once\": objects with the same content count once; \"count\": each counts.",
    )
    .words(&["once", "count"]),
    key(
        "rollup.sum",
        "sum = [\"properties.revenue\"]",
        "",
        "Paths of fields whose numbers are summed for each event and hour.",
    )
    .set()
    .entries(0, MOST_FIELDS),
    key(
        "rollup.by",
        "by = [\"properties.plan\"]",
        "",
        "Paths of fields by whose values the messages of each event and hour are counted and summed as well.",
    )
    .set()
    .entries(0, MOST_FIELDS),
    key(
        "rollup.by_limit",
        "by_limit = 100",
        "100",
        "Values of such a field for an event of an object beyond which messages count as `(other)`.",
    )
    .range(1, MOST_VALUES, "values"),
];

/// The most fields that are summed. Each adds two attributes to an item.
const MOST_FIELDS: usize = 8;
/// The default of `by_limit`, and the most: an object of one event then fills ten transactions for each hour and field.
const VALUES: i32 = 100;
const MOST_VALUES: i64 = 1_000;
/// The most keys of a path, and the most bytes.
const MOST_KEYS: usize = 8;
const LONGEST_PATH: usize = 200;

impl Raw {
    pub(super) fn check(self, check: &mut Check<'_>) -> Rollup {
        let default = Rollup::default();
        let max_age_days = check.number(self.max_age_days, "rollup.max_age_days");
        let max_ahead_hours = check.number(self.max_ahead_hours, "rollup.max_ahead_hours");
        Rollup {
            count: self.count.map_or(default.count, |count| check_types(check, count)),
            max_age_days: max_age_days.unwrap_or(default.max_age_days),
            max_ahead_hours: max_ahead_hours.unwrap_or(default.max_ahead_hours),
            counts_duplicates: check.word(self.duplicates, "rollup.duplicates") == Some("count"),
            sum: self.sum.map_or_else(Vec::new, |paths| check_paths(check, "rollup.sum", paths)),
            by: self.by.map_or_else(Vec::new, |paths| check_paths(check, "rollup.by", paths)),
            by_limit: check.number(self.by_limit, "rollup.by_limit").unwrap_or(VALUES),
        }
    }
}

/// Checks a list of paths of fields.
fn check_paths(check: &mut Check<'_>, key: &str, paths: Spanned<Vec<Spanned<String>>>) -> Vec<String> {
    check.entries(&paths, key);
    let mut seen = BTreeSet::new();
    for path in paths.get_ref() {
        let text = path.get_ref().as_str();
        let keys: Vec<&str> = text.split('.').collect();
        let is_usable = keys.len() <= MOST_KEYS && text.len() <= LONGEST_PATH && keys.iter().all(|key| !key.is_empty());
        if !is_usable || text.contains(SEPARATOR) || text.chars().any(char::is_control) || FIELDS.contains(&text) {
            let message = format!("`{}` is not the path of a field that `{key}` can use", text.escape_debug());
            let help = "write keys with dots between them, such as properties.revenue";
            check.mistake(path.span(), message, "", help);
        } else if !seen.insert(text) {
            check.mistake(path.span(), format!("`{}` is listed twice", text.escape_debug()), "", "list each path once");
        }
    }
    paths.into_inner().into_iter().map(Spanned::into_inner).collect()
}

fn check_types(check: &mut Check<'_>, count: Spanned<Vec<Spanned<String>>>) -> Vec<String> {
    check.entries(&count, "rollup.count");
    let mut seen = BTreeSet::new();
    for kind in count.get_ref() {
        if let Some(name) = check.word(Some(kind.clone()), "rollup.count")
            && !seen.insert(name)
        {
            check.mistake(kind.span(), format!("`{name}` is listed twice"), "", "list each type once");
        }
    }
    count.into_inner().into_iter().map(Spanned::into_inner).collect()
}
