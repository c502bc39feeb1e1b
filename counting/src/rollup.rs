//! Bytes to totals: streaming, and bounded in memory whatever the file holds.
//!
//! A file is gzip (one member or many) or plain text, told apart by its first two bytes. Each line is one message; what
//! is not a message that is counted is skipped, and the reason is counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::mem;

use flate2::write::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::hour;
use crate::line::{self, Field, Malformed, Stops, Text};

/// Event and hour to count, sorted.
pub type Totals = BTreeMap<(String, String), i64>;

/// The longest line that is read. Segment takes messages of at most 32 KB; the rest is room for what it adds.
pub const LONGEST_LINE: usize = 1024 * 1024;
/// The longest name that is counted as it is: DynamoDB's limit for a sort key, which the name is in the index by hour.
pub const LONGEST_NAME: usize = 1024;
/// Of a longer name, so much of its beginning is kept, and a digest of all of it is put behind.
const KEPT_OF_LONGER: usize = 1000;
/// The most memory that an object's pairs may take: their names, and [`PAIR_BYTES`] each. Some 46,000 pairs with names
/// of 40 bytes fit. An object of Segment's has hundreds; one with more than this has ids for names. The totals are held
/// some three times over until they are written, and all of it stays below 64 MiB.
pub const MOST_PAIR_BYTES: usize = 6 * 1024 * 1024;
/// What a pair takes in the maps besides its name, generously.
const PAIR_BYTES: usize = 96;
/// The first two bytes of every gzip member (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";
/// So many of the skipped lines are remembered by number.
const REMEMBERED: usize = 5;

/// Why a line was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// It is not JSON.
    NotJson,
    /// It is JSON, but no object.
    NotAnObject,
    /// `type`, `event`, `timestamp` or `receivedAt` is there twice.
    DuplicateKey,
    /// One of these is there, but is no text.
    WrongType,
    /// It has no `type`.
    NoType,
    /// Its type is one that is not counted.
    OtherType,
    /// A track message without `event`.
    NoEvent,
    /// The event's name is empty, which no key can be.
    EmptyName,
    /// It has neither `timestamp` nor `receivedAt`.
    NoTime,
    /// The time is not RFC 3339.
    BadTime,
    /// It is longer than [`LONGEST_LINE`].
    TooLong,
}

impl Skip {
    /// The reason's name in the log.
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

/// Why a file has no totals.
#[derive(Debug, thiserror::Error)]
pub enum RollupError {
    /// The gzip stream is damaged or cut short.
    #[error("{0}")]
    Gzip(#[from] io::Error),
    /// There are more different pairs than fit.
    #[error("it has more different events and hours than fit into {} MiB", MOST_PAIR_BYTES / 1024 / 1024)]
    TooManyPairs,
}

/// What was seen on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Inflated bytes.
    pub bytes: u64,
    /// Lines that are not blank.
    pub lines: u64,
    /// Lines that were counted.
    pub events: u64,
    /// How many lines were skipped for which reason.
    pub skips: BTreeMap<Skip, u64>,
    /// Number (from 1, blank lines included) and reason of the first lines that should have been counted and were not.
    pub first_skips: Vec<(u64, Skip)>,
}

impl Stats {
    /// Lines that were not counted although they should have been: messages of other types are none of them.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skips.iter().filter(|(skip, _)| **skip != Skip::OtherType).map(|(_, count)| count).sum()
    }

    /// How many lines were left out for which reason: `bad_time=2 other_type=7`.
    #[must_use]
    pub fn reasons(&self) -> String {
        self.skips.iter().map(|(skip, count)| format!("{}={count}", skip.name())).collect::<Vec<_>>().join(" ")
    }

    /// The first skipped lines: `17:bad_time 230:not_json`.
    #[must_use]
    pub fn examples(&self) -> String {
        self.first_skips.iter().map(|(at, skip)| format!("{at}:{}", skip.name())).collect::<Vec<_>>().join(" ")
    }
}

/// Takes a file's bytes as they come.
pub struct Rollup(Input);

enum Input {
    /// Too few bytes to tell.
    Unknown(Vec<u8>, Lines),
    Gzip(Box<MultiGzDecoder<Lines>>),
    Plain(Lines),
}

impl Rollup {
    /// Counts messages of these types.
    #[must_use]
    pub fn new(types: &BTreeSet<String>) -> Self {
        Self(Input::Unknown(Vec::new(), Lines::new(types)))
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`RollupError`], and then nothing more can be taken.
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
            Input::Unknown(begun, lines) => {
                begun.extend_from_slice(bytes);
                if begun.len() < GZIP.len() {
                    return Ok(());
                }
                let (begun, lines) = (mem::take(begun), mem::take(lines));
                self.0 = if begun.starts_with(&GZIP) {
                    Input::Gzip(Box::new(MultiGzDecoder::new(lines)))
                } else {
                    Input::Plain(lines)
                };
                return self.push(&begun);
            }
        };
        if lines.tally.is_full() { Err(RollupError::TooManyPairs) } else { Ok(()) }
    }

    /// The totals, when all bytes were taken.
    ///
    /// # Errors
    /// [`RollupError`]: the gzip stream ends early, or its checksum is wrong.
    pub fn finish(self) -> Result<(Totals, Stats), RollupError> {
        let mut lines = match self.0 {
            Input::Gzip(decoder) => decoder.finish()?,
            Input::Plain(lines) => lines,
            Input::Unknown(begun, mut lines) => {
                lines.take(&begun);
                lines
            }
        };
        if !lines.begun.is_empty() || lines.overlong {
            lines.end();
        }
        if lines.tally.is_full() {
            return Err(RollupError::TooManyPairs);
        }
        Ok((lines.tally.totals(), lines.stats))
    }
}

/// Cuts the inflated bytes into lines.
#[derive(Default)]
struct Lines {
    tally: Tally,
    stats: Stats,
    /// Lines so far, blank ones included.
    number: u64,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// The line is too long, and its rest is thrown away.
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
            if self.begun.is_empty() && !self.overlong {
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
        if self.overlong || self.begun.len() + part.len() > LONGEST_LINE {
            self.overlong = true;
            self.begun.clear();
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    fn end(&mut self) {
        let mut line = mem::take(&mut self.begun);
        if mem::take(&mut self.overlong) {
            self.number += 1;
            self.stats.lines += 1;
            self.skip(Skip::TooLong);
        } else {
            self.line(&line);
        }
        line.clear();
        self.begun = line;
    }

    fn line(&mut self, line: &[u8]) {
        self.number += 1;
        let line = if self.number == 1 { line.strip_prefix(BOM).unwrap_or(line) } else { line };
        if line.len() > LONGEST_LINE {
            self.stats.lines += 1;
            return self.skip(Skip::TooLong);
        }
        // What JSON takes for space; mostly the one carriage return of CRLF, if anything.
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
        // Past the limit nothing is kept, so that what is still in the decoder's hands costs nothing.
        if !self.tally.is_full() {
            self.take(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The counts so far.
#[derive(Default)]
struct Tally {
    types: Vec<String>,
    stops: Stops,
    counts: HashMap<Box<str>, HashMap<i64, i64>>,
    /// Estimated memory of the counts.
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
        // Only track messages carry a name of their own.
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

/// The key under which a name is counted that is too long for one: its beginning, and 16 digits of its SHA-256, so
/// that two names that begin alike stay two.
#[must_use]
pub fn shortened(name: &str) -> String {
    let kept = name.get(..name.floor_char_boundary(KEPT_OF_LONGER)).unwrap_or_default();
    let digest: String = Sha256::digest(name).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{kept}…{digest}")
}

#[cfg(test)]
mod tests;
