//! The statistics of a file for its log: the messages that were counted, and those that were not.

use std::collections::BTreeMap;

use crate::line::Malformed;

/// The number of skipped lines whose line number is remembered.
const REMEMBERED: usize = 5;
/// The number of other types whose names are remembered, and the bytes of each. Segment has six.
const REMEMBERED_TYPES: usize = 8;
const REMEMBERED_BYTES: usize = 32;

/// The fields with the time of a message: the first one that has an RFC 3339 time decides.
pub const TIMES: [&str; 4] = ["timestamp", "receivedAt", "sentAt", "originalTimestamp"];

/// The way in which the hour of a message was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HourSource {
    /// By one of the [`TIMES`].
    Field(&'static str),
    /// By `receivedAt`, as the message's own hour is beyond the limits.
    Limit,
}

/// The reason why a line was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// It is not JSON.
    NotJson,
    /// It is JSON, but not an object.
    NotAnObject,
    /// `type` or `event` occurs more than once.
    DuplicateKey,
    /// `type` or `event` exists but is not a string.
    WrongType,
    /// It has no `type`.
    NoType,
    /// Its type is not one of the types to count.
    OtherType,
    /// It is a track message without `event`.
    NoEvent,
    /// [`crate::rollup::Namer`] has no name for it. It is not counted on purpose.
    Unnamed,
    /// The event's name is empty, which DynamoDB does not allow in a key.
    EmptyName,
    /// It has none of the [`TIMES`].
    NoTime,
    /// None of its [`TIMES`] is one RFC 3339 time.
    BadTime,
    /// It is longer than [`crate::line::LONGEST_LINE`].
    TooLong,
}

impl Skip {
    /// Returns whether the line should not be counted.
    #[must_use]
    pub fn is_on_purpose(self) -> bool {
        matches!(self, Self::OtherType | Self::Unnamed)
    }

    /// Returns the reason's name in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::DuplicateKey => "duplicate_key",
            Self::WrongType => "wrong_type",
            Self::NoType => "no_type",
            Self::OtherType => "other_type",
            Self::NoEvent => "no_event",
            Self::Unnamed => "unnamed",
            Self::EmptyName => "empty_name",
            Self::NoTime => "no_time",
            Self::BadTime => "bad_time",
            Self::TooLong => "too_long",
        }
    }
}

impl From<Malformed> for Skip {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::NotJson => Self::NotJson,
            Malformed::NotAnObject => Self::NotAnObject,
        }
    }
}

/// The statistics of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Inflated bytes.
    pub bytes: u64,
    /// The BLAKE3 digest of the inflated bytes, in hexadecimal digits: the identity of the content.
    pub digest: String,
    /// Messages, and texts that are none: usually the lines without the blank ones.
    pub lines: u64,
    /// Messages that were counted.
    pub events: u64,
    /// The number of counted messages whose time is not their `timestamp`, by the field that has it.
    pub fallbacks: BTreeMap<&'static str, u64>,
    /// The number of counted messages whose hour is beyond the limits, so that they count in that of `receivedAt`.
    pub beyond_limits: u64,
    /// The number of messages of types that are not counted, by type.
    pub other_types: BTreeMap<String, u64>,
    /// The number of counted messages whose pairs are too many, so that they count as [`crate::rollup::OVERFLOW`].
    pub overflowed: u64,
    /// The number of values of counted messages that are not summed, by field and reason: `properties.revenue:not_a_number`.
    pub fields_skipped: BTreeMap<String, u64>,
    /// The number of counted messages whose value of a field is beyond a limit, so that they count as
    /// [`crate::names::breakdowns::OTHER`] there, by field.
    pub values_limited: BTreeMap<String, u64>,
    /// The number of skipped lines by reason.
    pub skips: BTreeMap<Skip, u64>,
    /// The first lines of [`Stats::skipped`]: line number (from 1, blank lines included) and reason.
    pub first_skips: Vec<(u64, Skip)>,
}

impl Stats {
    /// Returns the number of lines that should have been counted but were not.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skips.iter().filter(|(skip, _)| !skip.is_on_purpose()).map(|(_, count)| count).sum()
    }

    /// Formats the skipped lines, if there are any: `2 of 7 lines skipped (not_json=2); first: 3:not_json 4:not_json`.
    #[must_use]
    pub fn skip_summary(&self) -> Option<String> {
        let (skipped, lines) = (self.skipped(), self.lines);
        let text = || format!("{skipped} of {lines} lines skipped ({}); first: {}", self.reasons(), self.examples());
        (skipped > 0).then(text)
    }

    /// Formats the number of skipped lines by reason: `bad_time=2 other_type=7`.
    #[must_use]
    pub fn reasons(&self) -> String {
        self.skips.iter().map(|(skip, count)| format!("{}={count}", skip.name())).collect::<Vec<_>>().join(" ")
    }

    /// Formats the number of values that are not summed: `properties.revenue:not_a_number=2`.
    #[must_use]
    pub fn fields(&self) -> String {
        self.fields_skipped.iter().map(|(field, count)| format!("{field}={count}")).collect::<Vec<_>>().join(" ")
    }

    /// Formats the number of messages whose value is beyond a limit: `properties.plan=7`.
    #[must_use]
    pub fn limited(&self) -> String {
        self.values_limited.iter().map(|(field, count)| format!("{field}={count}")).collect::<Vec<_>>().join(" ")
    }

    /// Formats the number of messages by the field that has their time: `receivedAt=2`.
    #[must_use]
    pub fn other_times(&self) -> String {
        self.fallbacks.iter().map(|(field, count)| format!("{field}={count}")).collect::<Vec<_>>().join(" ")
    }

    /// Formats the number of messages of other types, by type: `identify=7 page=2`.
    #[must_use]
    pub fn types(&self) -> String {
        let one = |(name, count): (&String, &u64)| format!("{}={count}", name.escape_debug());
        self.other_types.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// Formats the first skipped lines: `17:bad_time 230:not_json`.
    #[must_use]
    pub fn examples(&self) -> String {
        self.first_skips.iter().map(|(at, skip)| format!("{at}:{}", skip.name())).collect::<Vec<_>>().join(" ")
    }

    /// Adds a counted message.
    pub(crate) fn add_event(&mut self, source: HourSource) {
        self.lines += 1;
        self.events += 1;
        match source {
            HourSource::Field(field) if field == TIMES[0] => {}
            HourSource::Field(field) => *self.fallbacks.entry(field).or_default() += 1,
            HourSource::Limit => self.beyond_limits += 1,
        }
    }

    /// Adds a skipped text, in the line with this number.
    pub(crate) fn add_skip(&mut self, skip: Skip, number: u64) {
        self.lines += 1;
        *self.skips.entry(skip).or_default() += 1;
        if !skip.is_on_purpose() && self.first_skips.len() < REMEMBERED {
            self.first_skips.push((number, skip));
        }
    }

    /// Adds the name of another type, whose message is skipped.
    pub(crate) fn add_other_type(&mut self, kind: &[u8]) {
        // The scanner has validated it.
        let kind = std::str::from_utf8(kind).unwrap_or_default();
        let kept = kind.get(..kind.floor_char_boundary(REMEMBERED_BYTES)).unwrap_or_default();
        if let Some(count) = self.other_types.get_mut(kept) {
            *count += 1;
            return;
        }
        let name = if self.other_types.len() < REMEMBERED_TYPES { kept } else { "…" };
        *self.other_types.entry(name.to_owned()).or_default() += 1;
    }
}
