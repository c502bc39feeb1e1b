//! From bytes to totals: streaming, in bounded memory for any input.
//!
//! A file is gzip (one member or several) or plain text; its first two bytes decide. Each line is one message. A line
//! that is not a message to count is skipped, and the skips are counted by reason.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::mem;

use flate2::write::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::hour;
use crate::line::{self, Field, Malformed, Stops, Text};

/// The count of each (event, hour) pair, sorted.
pub type Totals = BTreeMap<(String, String), i64>;

/// The longest line that is read. Segment accepts messages of at most 32 KB; the rest is room for the fields it adds.
pub const LONGEST_LINE: usize = 1024 * 1024;
/// The longest name that is counted unchanged: DynamoDB's limit for a sort key, which the name is in the index by hour.
pub const LONGEST_NAME: usize = 1024;
/// The bytes that are kept of a longer name; a digest of the whole name follows them.
const KEPT_OF_LONGER: usize = 1000;
/// The most memory that an object's pairs may use: their names, and [`PAIR_BYTES`] each. About 46,000 pairs with names
/// of 40 bytes fit. An object written by Segment has hundreds; one with more than this uses IDs as names. About three
/// copies of the totals are held until they are written, and all of it stays below 64 MiB.
pub const MOST_PAIR_BYTES: usize = 6 * 1024 * 1024;
/// A generous estimate of the memory that a pair uses in the maps, without its name.
const PAIR_BYTES: usize = 96;
/// The first two bytes of every gzip member (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The UTF-8 byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";
/// The number of skipped lines whose line number is remembered.
const REMEMBERED: usize = 5;

/// The reason why a line was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// It is not JSON.
    NotJson,
    /// It is JSON, but not an object.
    NotAnObject,
    /// `type`, `event`, `timestamp` or `receivedAt` occurs more than once.
    DuplicateKey,
    /// One of these fields exists but is not a string.
    WrongType,
    /// It has no `type`.
    NoType,
    /// Its type is not one of the types to count.
    OtherType,
    /// It is a track message without `event`.
    NoEvent,
    /// The event's name is empty, which DynamoDB does not allow in a key.
    EmptyName,
    /// It has neither `timestamp` nor `receivedAt`.
    NoTime,
    /// The time is not RFC 3339.
    BadTime,
    /// It is longer than [`LONGEST_LINE`].
    TooLong,
}

impl Skip {
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

/// The reason why a file has no totals.
#[derive(Debug, thiserror::Error)]
pub enum RollupError {
    /// The gzip stream is damaged or cut short.
    #[error("{0}")]
    Gzip(#[from] io::Error),
    /// The file has more distinct pairs than fit into memory.
    #[error("it has more different events and hours than fit into {} MiB", MOST_PAIR_BYTES / 1024 / 1024)]
    TooManyPairs,
}

/// The statistics of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Inflated bytes.
    pub bytes: u64,
    /// Lines, without the blank ones.
    pub lines: u64,
    /// Lines that were counted.
    pub events: u64,
    /// The number of skipped lines by reason.
    pub skips: BTreeMap<Skip, u64>,
    /// The first lines of [`Stats::skipped`]: line number (from 1, blank lines included) and reason.
    pub first_skips: Vec<(u64, Skip)>,
}

impl Stats {
    /// Returns the number of lines that should have been counted but were not. Messages of other types are excluded.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skips.iter().filter(|(skip, _)| **skip != Skip::OtherType).map(|(_, count)| count).sum()
    }

    /// Formats the number of skipped lines by reason: `bad_time=2 other_type=7`.
    #[must_use]
    pub fn reasons(&self) -> String {
        self.skips.iter().map(|(skip, count)| format!("{}={count}", skip.name())).collect::<Vec<_>>().join(" ")
    }

    /// Formats the first skipped lines: `17:bad_time 230:not_json`.
    #[must_use]
    pub fn examples(&self) -> String {
        self.first_skips.iter().map(|(at, skip)| format!("{at}:{}", skip.name())).collect::<Vec<_>>().join(" ")
    }
}

/// The running rollup of one file, fed with its bytes in order.
pub struct Rollup(Input);

enum Input {
    /// Too few bytes to tell gzip from plain text.
    Unknown(Vec<u8>, Lines),
    Gzip(Box<MultiGzDecoder<Lines>>),
    Plain(Lines),
}

impl Rollup {
    /// Creates a rollup that counts messages of these types.
    #[must_use]
    pub fn new(types: &BTreeSet<String>) -> Self {
        Self(Input::Unknown(Vec::new(), Lines::new(types)))
    }

    /// Processes the next bytes.
    ///
    /// # Errors
    /// [`RollupError`]; the rollup accepts no more bytes after it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), RollupError> {
        let lines = match &mut self.0 {
            Input::Gzip(decoder) => {
                decoder.write_all(bytes)?;
                decoder.get_ref()
            }
            Input::Plain(lines) => {
                lines.take(bytes);
                lines
            }
            Input::Unknown(partial, lines) => {
                partial.extend_from_slice(bytes);
                if partial.len() < GZIP.len() {
                    return Ok(());
                }
                let (partial, lines) = (mem::take(partial), mem::take(lines));
                self.0 = if partial.starts_with(&GZIP) {
                    Input::Gzip(Box::new(MultiGzDecoder::new(lines)))
                } else {
                    Input::Plain(lines)
                };
                return self.push(&partial);
            }
        };
        if lines.tally.is_full() { Err(RollupError::TooManyPairs) } else { Ok(()) }
    }

    /// Returns the totals after the last bytes.
    ///
    /// # Errors
    /// [`RollupError`] if the gzip stream ends early, its checksum is wrong, or there are too many pairs.
    pub fn finish(self) -> Result<(Totals, Stats), RollupError> {
        let mut lines = match self.0 {
            Input::Gzip(decoder) => decoder.finish()?,
            Input::Plain(lines) => lines,
            Input::Unknown(partial, mut lines) => {
                lines.take(&partial);
                lines
            }
        };
        if !lines.partial.is_empty() || lines.overlong {
            lines.end();
        }
        if lines.tally.is_full() {
            return Err(RollupError::TooManyPairs);
        }
        Ok((lines.tally.totals(), lines.stats))
    }
}

/// The splitter of the inflated bytes into lines.
#[derive(Default)]
struct Lines {
    tally: Tally,
    stats: Stats,
    /// The number of lines so far, blank ones included.
    number: u64,
    /// The beginning of a line whose end has not been read yet.
    partial: Vec<u8>,
    /// Set if the current line is too long; its rest is discarded.
    overlong: bool,
}

impl Lines {
    fn new(types: &BTreeSet<String>) -> Self {
        Self { tally: Tally { types: types.iter().cloned().collect(), ..Tally::default() }, ..Self::default() }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.stats.bytes += bytes.len() as u64;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = bytes.get(start..end).unwrap_or_default();
            if self.partial.is_empty() && !self.overlong {
                self.line(line);
            } else {
                self.begin(line);
                self.end();
            }
            start = end + 1;
        }
        self.begin(bytes.get(start..).unwrap_or_default());
    }

    fn begin(&mut self, part: &[u8]) {
        if self.overlong || self.partial.len() + part.len() > LONGEST_LINE {
            self.overlong = true;
            self.partial.clear();
        } else {
            self.partial.extend_from_slice(part);
        }
    }

    fn end(&mut self) {
        let mut line = mem::take(&mut self.partial);
        if mem::take(&mut self.overlong) {
            self.number += 1;
            self.stats.lines += 1;
            self.skip(Skip::TooLong);
        } else {
            self.line(&line);
        }
        line.clear();
        self.partial = line;
    }

    fn line(&mut self, line: &[u8]) {
        self.number += 1;
        let line = if self.number == 1 { line.strip_prefix(BOM).unwrap_or(line) } else { line };
        if line.len() > LONGEST_LINE {
            self.stats.lines += 1;
            return self.skip(Skip::TooLong);
        }
        // JSON whitespace; usually just the carriage return of CRLF.
        if line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            return;
        }
        self.stats.lines += 1;
        match self.tally.count(line) {
            Ok(()) => self.stats.events += 1,
            Err(skip) => self.skip(skip),
        }
    }

    fn skip(&mut self, skip: Skip) {
        *self.stats.skips.entry(skip).or_default() += 1;
        if skip != Skip::OtherType && self.stats.first_skips.len() < REMEMBERED {
            self.stats.first_skips.push((self.number, skip));
        }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Past the limit, bytes are discarded, so that the data still in the decoder uses no more memory.
        if !self.tally.is_full() {
            self.take(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The counts of the lines read so far.
#[derive(Default)]
struct Tally {
    types: Vec<String>,
    stops: Stops,
    counts: HashMap<Box<str>, HashMap<i64, i64>>,
    /// The estimated memory of the counts.
    bytes: usize,
}

impl Tally {
    fn is_full(&self) -> bool {
        self.bytes > MOST_PAIR_BYTES
    }

    fn count(&mut self, line: &[u8]) -> Result<(), Skip> {
        let message = line::scan(line, &mut self.stops)?;
        let kind = text(message.kind)?.ok_or(Skip::NoType)?;
        let kind = kind.decode().ok_or(Skip::NotJson)?;
        if !self.types.iter().any(|counted| *counted == kind) {
            return Err(Skip::OtherType);
        }
        // Only track messages have an event name; the others are counted under their type.
        let name = if kind == "track" {
            text(message.event)?.ok_or(Skip::NoEvent)?.decode().ok_or(Skip::NotJson)?
        } else {
            kind
        };
        if name.is_empty() {
            return Err(Skip::EmptyName);
        }
        let time = match text(message.timestamp)? {
            Some(time) => time,
            None => text(message.received_at)?.ok_or(Skip::NoTime)?,
        };
        let hour = time.decode().and_then(|time| hour::parse(&time)).ok_or(Skip::BadTime)?;
        if name.len() > LONGEST_NAME {
            self.add(&shortened(&name), hour)
        } else {
            self.add(&name, hour)
        }
        Ok(())
    }

    fn add(&mut self, name: &str, hour: i64) {
        let hours = match self.counts.get_mut(name) {
            Some(hours) => hours,
            None => self.counts.entry(name.into()).or_default(),
        };
        let count = hours.entry(hour).or_default();
        if *count == 0 {
            self.bytes += PAIR_BYTES + name.len();
        }
        *count += 1;
    }

    fn totals(self) -> Totals {
        let mut totals = Totals::new();
        for (name, hours) in self.counts {
            for (hour, count) in hours {
                totals.insert((name.to_string(), hour::format(hour)), count);
            }
        }
        totals
    }
}

fn text(field: Field<'_>) -> Result<Option<Text<'_>>, Skip> {
    match field {
        Field::Missing | Field::Null => Ok(None),
        Field::Text(text) => Ok(Some(text)),
        Field::Other => Err(Skip::WrongType),
        Field::Twice => Err(Skip::DuplicateKey),
    }
}

/// Returns the key for a name that is too long for one: its beginning and 16 hexadecimal digits of its SHA-256, so that
/// names with the same beginning stay distinct.
#[must_use]
pub fn shortened(name: &str) -> String {
    let kept = name.get(..name.floor_char_boundary(KEPT_OF_LONGER)).unwrap_or_default();
    let digest: String = Sha256::digest(name).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{kept}…{digest}")
}

#[cfg(test)]
mod tests;
