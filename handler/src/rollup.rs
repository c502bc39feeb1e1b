//! Bytes to totals: pure, streaming, and bounded in memory by the number of different pairs, not by the file.
//!
//! A file is gzip (one member or many) or plain text, told apart by its first two bytes. Each line is one message; what
//! is not a message that is counted is skipped and the reason is counted.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::mem;

use flate2::write::MultiGzDecoder;
use jiff::Timestamp;
use serde::Deserialize;

/// Event and hour to count, sorted.
pub type Totals = BTreeMap<(String, String), i64>;

/// The longest line that is read. Segment takes messages of at most 32 KB; the rest is room for what it adds.
const LONGEST_LINE: usize = 1024 * 1024;
/// The longest name that is counted: DynamoDB's limit for a sort key, which the name is in the index by hour.
const LONGEST_NAME: usize = 1024;
/// The first two bytes of every gzip member (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Seconds of an hour.
const HOUR: i64 = 3600;

/// Why a line was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// It is not a JSON object, or a field that matters is no text or there twice.
    NotAMessage,
    /// It has no `type`, or a track message has no `event`.
    NoName,
    /// Its type is one that is not counted.
    OtherType,
    /// The event's name is empty or longer than a key can be.
    BadName,
    /// It has no time, or one that is no time.
    BadTime,
    /// It is longer than any message.
    TooLong,
}

impl Skip {
    /// The reason's name in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAMessage => "not_a_message",
            Self::NoName => "no_name",
            Self::OtherType => "other_type",
            Self::BadName => "bad_name",
            Self::BadTime => "bad_time",
            Self::TooLong => "too_long",
        }
    }
}

/// What was seen on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Inflated bytes.
    pub bytes: u64,
    /// Lines that are not blank.
    pub lines: u64,
    /// Lines that were counted.
    pub events: u64,
    skips: BTreeMap<Skip, u64>,
}

impl Seen {
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
    /// The gzip stream is damaged.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Input::Gzip(decoder) => decoder.write_all(bytes),
            Input::Plain(lines) => lines.write_all(bytes),
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
                self.push(&begun)
            }
        }
    }

    /// The totals, when all bytes were taken.
    ///
    /// # Errors
    /// The gzip stream is cut short, or its checksum is wrong.
    pub fn finish(self) -> io::Result<(Totals, Seen)> {
        let lines = match self.0 {
            Input::Gzip(decoder) => decoder.finish()?,
            Input::Plain(lines) => lines,
            Input::Unknown(begun, mut lines) => {
                lines.write_all(&begun)?;
                lines
            }
        };
        Ok(lines.finish())
    }
}

/// Cuts the inflated bytes into lines and counts them.
#[derive(Default)]
struct Lines {
    types: BTreeSet<String>,
    counts: HashMap<String, HashMap<i64, i64>>,
    seen: Seen,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// The line is too long, and its rest is thrown away.
    overlong: bool,
}

/// What is needed of a message.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "receivedAt")]
    received_at: Option<Cow<'a, str>>,
}

impl Lines {
    fn new(types: &BTreeSet<String>) -> Self {
        Self { types: types.clone(), ..Self::default() }
    }

    fn line(&mut self, line: &[u8]) {
        // A byte order mark may stand before the first line.
        let line = if self.seen.lines == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        self.seen.lines += 1;
        match count(line, &self.types, &mut self.counts) {
            Ok(()) => self.seen.events += 1,
            Err(skip) => self.skip(skip),
        }
    }

    fn skip(&mut self, skip: Skip) {
        *self.seen.skips.entry(skip).or_default() += 1;
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
        if mem::take(&mut self.overlong) {
            self.seen.lines += 1;
            self.skip(Skip::TooLong);
            return;
        }
        let line = mem::take(&mut self.begun);
        self.line(&line);
        self.begun = line;
        self.begun.clear();
    }

    fn finish(mut self) -> (Totals, Seen) {
        self.end();
        let mut totals = Totals::new();
        for (event, hours) in self.counts {
            for (hour, count) in hours {
                if let Ok(time) = Timestamp::from_second(hour * HOUR) {
                    totals.insert((event.clone(), time.to_string()), count);
                }
            }
        }
        (totals, self.seen)
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.seen.bytes += bytes.len() as u64;
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
            if self.begun.is_empty() && !self.overlong {
                self.line(&rest[..at]);
            } else {
                self.begin(&rest[..at]);
                self.end();
            }
            rest = &rest[at + 1..];
        }
        self.begin(rest);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn count(line: &[u8], types: &BTreeSet<String>, counts: &mut HashMap<String, HashMap<i64, i64>>) -> Result<(), Skip> {
    let message: Message<'_> = serde_json::from_slice(line).map_err(|_| Skip::NotAMessage)?;
    let kind = message.kind.ok_or(Skip::NoName)?;
    if !types.contains(kind.as_ref()) {
        return Err(Skip::OtherType);
    }
    // Only track messages carry a name of their own.
    let name = if kind == "track" { message.event.ok_or(Skip::NoName)? } else { kind };
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(Skip::BadName);
    }
    let time = message.timestamp.or(message.received_at).ok_or(Skip::BadTime)?;
    let time: Timestamp = time.parse().map_err(|_| Skip::BadTime)?;
    let hour = time.as_second().div_euclid(HOUR);
    let hours = match counts.get_mut(name.as_ref()) {
        Some(hours) => hours,
        None => counts.entry(name.into_owned()).or_default(),
    };
    *hours.entry(hour).or_default() += 1;
    Ok(())
}
