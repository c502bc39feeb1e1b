//! From bytes to totals: streaming, in bounded memory for any input.
//!
//! A file is gzip or zstd (also one in the other, of one member or several) or plain text; its first bytes decide.
//! Usually each line is one message; [`crate::values`] finds the messages of other texts. A text that is not a message to
//! count is skipped, and the skips are counted by reason.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{self, Write};
use std::mem;
use std::sync::Arc;

use flate2::write::MultiGzDecoder;
use sha2::{Digest, Sha256};
use zstd::stream::raw::{DParameter, Operation};

use crate::amount::Amount;
use crate::fields::{EventValues, Fields, SUM_BYTES, Sums, VALUE_BYTES};
use crate::hour;
use crate::line::{self, Field, LONGEST_LINE, Malformed, Message, Stops, Text};
use crate::stats::{HourSource, Skip, Stats, TIMES};
use crate::values::{Sink, Values};

/// The amount of each (event, hour) pair, sorted.
pub type Totals = BTreeMap<(String, String), Amount>;

/// The longest name that is counted unchanged: DynamoDB's limit for a sort key, which the name is in the index by hour.
pub const LONGEST_NAME: usize = 1024;
/// The bytes that are kept of a longer name; a digest of the whole name follows them.
const KEPT_OF_LONGER: usize = 1000;
/// The most memory that an object's pairs may use: their names, and [`PAIR_BYTES`] each. About 46,000 pairs with names
/// of 40 bytes fit. An object written by Segment has hundreds; one with more than this uses IDs as names. Once it is
/// spent, messages of further pairs are counted as [`OVERFLOW`]. About three copies of the totals are held until they
/// are written, and all of it stays below 64 MiB.
pub const MOST_PAIR_BYTES: usize = 6 * 1024 * 1024;
/// The name under which the messages of a file are counted whose pairs exceed [`MOST_PAIR_BYTES`]. It depends on the
/// file's content alone, so every attempt to count a file counts the same.
pub const OVERFLOW: &str = "(other events)";
/// The most hours of [`OVERFLOW`] in a file; the messages of further ones are counted in the first.
const OVERFLOW_HOURS: usize = 1_000;
/// A generous estimate of the memory that a pair uses in the maps, without its name.
const PAIR_BYTES: usize = 96;
/// The first two bytes of every gzip member (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The first four bytes of every zstd frame (RFC 8878).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The largest window of a zstd frame, as the power of two of its bytes: 8 MiB, which RFC 8878 asks of every decoder.
const ZSTD_WINDOW: u32 = 23;
/// The bytes that are inflated at a time.
const BLOCK: usize = 128 * 1024;
/// The most layers of compression: an upload with `Content-Encoding: gzip` may add one to the file's own.
const MOST_LAYERS: u32 = 2;
/// The first bytes of files that are not read, and the names of their formats.
const UNREADABLE: [(&[u8], &str); 5] = [
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
];
/// The longest of these.
const FIRST_BYTES: usize = 6;
/// The UTF-8 byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The limits of a message's hour, relative to the time at which Segment received the message. Its sender chooses the
/// first and not the second. A message beyond a limit is counted in the hour of `receivedAt`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most days by which the hour may be earlier; `None` for any number.
    pub max_age_days: Option<u32>,
    /// The most hours by which the hour may be later; `None` for any number.
    pub max_ahead_hours: Option<u32>,
}

/// A function from a message to the name of the event under which it is counted; `None` if it is not counted. It is asked
/// for the messages of the counted types. It must always return the same for a message.
#[derive(Clone)]
pub struct Namer(Arc<Name>);

type Name = dyn Fn(&serde_json::Value) -> Option<String> + Send + Sync;

impl Namer {
    /// Creates a namer of this function.
    #[must_use]
    pub fn new(name: impl Fn(&serde_json::Value) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(name))
    }
}

impl fmt::Debug for Namer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Namer")
    }
}

/// The rules of a rollup.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The types of the messages that are counted.
    pub types: BTreeSet<String>,
    /// The limits of their hours.
    pub limits: Limits,
    /// The paths of the fields that are summed.
    pub sums: Vec<String>,
    /// The paths of the fields by whose values messages are counted as well.
    pub by: Vec<String>,
    /// The most values of each of these fields for an event of a file; messages with further ones are counted as
    /// [`crate::names::breakdowns::OTHER`].
    pub by_limit: usize,
    /// The names of events; `None` for those of the messages.
    pub namer: Option<Namer>,
}

/// The reason why a file has no totals.
#[derive(Debug, thiserror::Error)]
pub enum RollupError {
    /// The compressed stream is damaged or cut short.
    #[error("{0}")]
    Damaged(#[from] io::Error),
    /// The file has a format that is not read.
    #[error("it is {0}, and not text, gzip or zstd")]
    Format(&'static str),
    /// The file has text, and nothing in it is a message.
    #[error("it has no messages: none of its {0} lines is a JSON object")]
    NoMessages(u64),
}

/// Returns an estimate of the memory that these totals use, as [`MOST_PAIR_BYTES`] limits it.
#[must_use]
pub fn pair_bytes(totals: &Totals) -> usize {
    let fields = |amount: &Amount| amount.sums.len() * SUM_BYTES;
    let value = |(_, value, amount): (&str, &str, &Amount)| VALUE_BYTES + value.len() + fields(amount);
    let pair = |((event, _), amount): (&(String, String), &Amount)| {
        PAIR_BYTES + event.len() + fields(amount) + amount.values().map(value).sum::<usize>()
    };
    totals.iter().map(pair).sum()
}

/// The running rollup of one file, fed with its bytes in order.
pub struct Rollup(Layer);

impl Rollup {
    /// Creates a rollup by these rules.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        Self(Layer { depth: 0, input: Input::Unknown(Vec::new(), Lines::new(rules)) })
    }

    /// Processes the next bytes.
    ///
    /// # Errors
    /// [`RollupError`]; the rollup accepts no more bytes after it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), RollupError> {
        self.0.write_all(bytes)?;
        self.0.lines().check()
    }

    /// Returns the totals after the last bytes.
    ///
    /// # Errors
    /// [`RollupError`] if the gzip stream ends early, its checksum is wrong, or the file is not text of messages.
    pub fn finish(self) -> Result<(Totals, Stats), RollupError> {
        let mut lines = self.0.finish()?;
        lines.finish();
        lines.check()?;
        let Messages { tally, mut stats } = lines.messages;
        stats.overflowed = tally.overflowed;
        stats.fields_skipped = tally.fields.skipped();
        stats.values_limited = tally.fields.limited();
        stats.digest = lines.digest.finalize().to_hex().to_string();
        let is_none = |skip: &Skip| matches!(skip, Skip::NotJson | Skip::NotAnObject | Skip::TooLong);
        let none: u64 = stats.skips.iter().filter(|(skip, _)| is_none(skip)).map(|(_, count)| count).sum();
        if none > 0 && none == stats.lines {
            return Err(RollupError::NoMessages(none));
        }
        Ok((tally.totals(), stats))
    }
}

/// A file, or the content of a compressed file.
struct Layer {
    /// The number of compressed layers around it.
    depth: u32,
    input: Input,
}

enum Input {
    /// Too few bytes to tell gzip from plain text.
    Unknown(Vec<u8>, Lines),
    Gzip(Box<MultiGzDecoder<Layer>>),
    Zstd(Box<ZstdDecoder>),
    Plain(Lines),
}

/// A decoder of zstd frames, one after the other.
struct ZstdDecoder {
    decoder: zstd::stream::raw::Decoder<'static>,
    /// True at the end of a frame.
    is_between: bool,
    block: Vec<u8>,
    inner: Layer,
}

impl ZstdDecoder {
    fn new(inner: Layer) -> io::Result<Self> {
        let mut decoder = zstd::stream::raw::Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))?;
        Ok(Self { decoder, is_between: false, block: vec![0; BLOCK], inner })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        loop {
            if self.is_between {
                if rest.is_empty() {
                    return Ok(());
                }
                self.decoder.reinit()?;
                self.is_between = false;
            }
            let status = self.decoder.run_on_buffers(rest, &mut self.block)?;
            self.inner.write_all(self.block.get(..status.bytes_written).unwrap_or_default())?;
            rest = rest.get(status.bytes_read..).unwrap_or_default();
            self.is_between = status.remaining == 0;
            // A full block may not be the last one.
            if rest.is_empty() && !self.is_between && status.bytes_written < self.block.len() {
                return Ok(());
            }
        }
    }

    fn finish(self) -> io::Result<Lines> {
        if !self.is_between {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete zstd frame"));
        }
        self.inner.finish()
    }
}

impl Layer {
    fn lines(&self) -> &Lines {
        match &self.input {
            Input::Unknown(_, lines) | Input::Plain(lines) => lines,
            Input::Gzip(decoder) => decoder.get_ref().lines(),
            Input::Zstd(decoder) => decoder.inner.lines(),
        }
    }

    /// Chooses the input by the first bytes, and processes them.
    fn begin(&mut self, first: &[u8], mut lines: Lines) -> io::Result<()> {
        lines.format = UNREADABLE.iter().find(|(mark, _)| first.starts_with(mark)).map(|(_, name)| *name);
        // JSON text begins with a character of ASCII, and in UTF-16 one of its bytes is zero.
        if first.iter().take(2).any(|byte| *byte == 0) {
            lines.format = Some("UTF-16 or binary");
        }
        let is_compressed = self.depth < MOST_LAYERS && (first.starts_with(&GZIP) || first.starts_with(&ZSTD));
        self.input = if is_compressed {
            let inner = Self { depth: self.depth + 1, input: Input::Unknown(Vec::new(), lines) };
            if first.starts_with(&GZIP) {
                Input::Gzip(Box::new(MultiGzDecoder::new(inner)))
            } else {
                Input::Zstd(Box::new(ZstdDecoder::new(inner)?))
            }
        } else {
            Input::Plain(lines)
        };
        self.write_all(first)
    }

    fn finish(mut self) -> io::Result<Lines> {
        if let Input::Unknown(first, lines) = &mut self.input {
            let (first, lines) = (mem::take(first), mem::take(lines));
            self.begin(&first, lines)?;
        }
        match self.input {
            Input::Unknown(_, lines) | Input::Plain(lines) => Ok(lines),
            Input::Gzip(decoder) => decoder.finish()?.finish(),
            Input::Zstd(decoder) => decoder.finish(),
        }
    }
}

impl Write for Layer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.input {
            Input::Gzip(decoder) => decoder.write_all(bytes)?,
            Input::Zstd(decoder) => decoder.write_all(bytes)?,
            // Past a limit, bytes are discarded, so that the data still in the decoder uses no more memory.
            Input::Plain(lines) => {
                if lines.check().is_ok() {
                    lines.take(bytes);
                }
            }
            Input::Unknown(first, lines) => {
                first.extend_from_slice(bytes);
                if first.len() >= FIRST_BYTES {
                    let (first, lines) = (mem::take(first), mem::take(lines));
                    self.begin(&first, lines)?;
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The splitter of the inflated bytes into lines.
#[derive(Default)]
struct Lines {
    messages: Messages,
    values: Values,
    /// The number of lines so far, blank ones included.
    number: u64,
    /// The beginning of a line whose end has not been read yet.
    partial: Vec<u8>,
    /// Set if the current line is too long to be kept; `values` reads it part by part.
    is_long: bool,
    /// The format of the file, if it is not text.
    format: Option<&'static str>,
    digest: blake3::Hasher,
}

impl Lines {
    fn new(rules: &Rules) -> Self {
        let tally = Tally {
            types: rules.types.iter().cloned().collect(),
            limits: rules.limits,
            fields: Fields::new(&rules.sums, &rules.by, rules.by_limit),
            namer: rules.namer.clone(),
            ..Tally::default()
        };
        Self { messages: Messages { tally, ..Messages::default() }, ..Self::default() }
    }

    /// Returns the reason why the file is not counted, if there is one already.
    fn check(&self) -> Result<(), RollupError> {
        match self.format {
            Some(format) => Err(RollupError::Format(format)),
            None => Ok(()),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.messages.stats.bytes += bytes.len() as u64;
        self.digest.update(bytes);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = bytes.get(start..end).unwrap_or_default();
            if self.partial.is_empty() && !self.is_long {
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
        if !self.is_long && self.partial.len() + part.len() <= LONGEST_LINE {
            self.partial.extend_from_slice(part);
            return;
        }
        if !self.is_long {
            self.is_long = true;
            let mut partial = mem::take(&mut self.partial);
            self.number += 1;
            partial.extend_from_slice(part);
            let line = self.without_mark(&partial);
            self.values.read(line, self.number, &mut self.messages);
            partial.clear();
            self.partial = partial;
            return;
        }
        self.values.read(part, self.number, &mut self.messages);
    }

    fn end(&mut self) {
        if mem::take(&mut self.is_long) {
            self.values.end_line(&mut self.messages);
            return;
        }
        let mut line = mem::take(&mut self.partial);
        self.line(&line);
        line.clear();
        self.partial = line;
    }

    /// Reads a line of at most [`LONGEST_LINE`] bytes, or one that is in memory anyway.
    fn line(&mut self, line: &[u8]) {
        self.number += 1;
        let line = self.without_mark(line);
        if !self.values.is_open() && line.len() <= LONGEST_LINE {
            // JSON whitespace; usually just the carriage return of CRLF.
            if line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
                return;
            }
            if self.messages.value(line, self.number).is_ok() {
                return;
            }
        }
        self.values.read(line, self.number, &mut self.messages);
        self.values.end_line(&mut self.messages);
    }

    /// Returns the line without the byte order mark of the first line.
    fn without_mark<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        if self.number == 1 { line.strip_prefix(BOM).unwrap_or(line) } else { line }
    }

    fn finish(&mut self) {
        if !self.partial.is_empty() || self.is_long {
            self.end();
        }
        self.values.finish(self.number, &mut self.messages);
    }
}

/// The messages read so far.
#[derive(Default)]
struct Messages {
    tally: Tally,
    stats: Stats,
}

impl Sink for Messages {
    fn value(&mut self, text: &[u8], number: u64) -> Result<(), Malformed> {
        match self.tally.count(text) {
            Ok(source) => self.stats.add_event(source),
            Err(Uncounted::Malformed(malformed)) => return Err(malformed),
            Err(Uncounted::Skip(skip)) => self.skip(skip, number),
            Err(Uncounted::OtherType(kind)) => {
                self.stats.add_skip(Skip::OtherType, number);
                self.stats.add_other_type(&kind);
            }
        }
        Ok(())
    }

    fn skip(&mut self, skip: Skip, number: u64) {
        self.stats.add_skip(skip, number);
    }
}

/// The reason why a text was not counted.
enum Uncounted<'a> {
    /// It is not a message.
    Malformed(Malformed),
    /// It is a message that cannot be counted.
    Skip(Skip),
    /// It is a message of this type.
    OtherType(Cow<'a, [u8]>),
}

impl From<Malformed> for Uncounted<'_> {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Skip> for Uncounted<'_> {
    fn from(skip: Skip) -> Self {
        Self::Skip(skip)
    }
}

/// The counts of the lines read so far.
#[derive(Default)]
struct Tally {
    types: Vec<String>,
    limits: Limits,
    stops: Stops,
    fields: Fields,
    namer: Option<Namer>,
    counts: HashMap<Box<str>, HashMap<i64, i64>>,
    /// The sums of the pairs that have any.
    sums: HashMap<Box<str>, HashMap<i64, Sums>>,
    /// The breakdowns of each event.
    values: HashMap<Box<str>, EventValues>,
    /// The estimated memory of the counts.
    bytes: usize,
    /// The messages of pairs beyond [`MOST_PAIR_BYTES`], by hour, and their number.
    overflow: HashMap<i64, (i64, Sums)>,
    overflowed: u64,
    /// The first hour of `overflow`.
    first_overflow: i64,
}

impl Tally {
    /// Counts a message, and returns how its hour was found.
    fn count<'a>(&mut self, line: &'a [u8]) -> Result<HourSource, Uncounted<'a>> {
        let (message, found) = line::scan(line, self.fields.paths(), &mut self.stops)?;
        let kind = text(message.kind)?.ok_or(Skip::NoType)?.bytes().ok_or(Skip::NotJson)?;
        // Some sources write the types with capitals.
        let Some(counted) = self.types.iter().find(|counted| counted.as_bytes().eq_ignore_ascii_case(&kind)) else {
            return Err(Uncounted::OtherType(kind));
        };
        let name = match &self.namer {
            Some(Namer(name)) => {
                let message = serde_json::from_slice(line).map_err(|_| Skip::NotJson)?;
                Cow::Owned(name(&message).ok_or(Skip::Unnamed)?)
            }
            // Only track messages have an event name; the others are counted under their type.
            None if counted == "track" => text(message.event)?.ok_or(Skip::NoEvent)?.decode().ok_or(Skip::NotJson)?,
            None => Cow::Owned(counted.clone()),
        };
        if name.is_empty() {
            return Err(Skip::EmptyName.into());
        }
        let (source, hour) = hour_of(&message, self.limits)?;
        let name = name_in_table(&name);
        let overflow = self.add(&name, hour);
        if !found.is_empty() {
            self.divide(&name, hour, overflow, &found);
        }
        Ok(source)
    }

    /// Adds the fields of a message, which is counted in the hour of [`OVERFLOW`] if there is one.
    fn divide(&mut self, name: &str, hour: i64, overflow: Option<i64>, found: &[Field<'_>]) {
        let numbers = self.fields.numbers(found);
        if let Some(hour) = overflow {
            self.overflow.entry(hour).or_default().1.add(&numbers);
            return;
        }
        if !numbers.is_empty() {
            let hours = match self.sums.get_mut(name) {
                Some(hours) => hours,
                None => self.sums.entry(name.into()).or_default(),
            };
            hours.entry(hour).or_default().add(&numbers);
        }
        let values = match self.values.get_mut(name) {
            Some(values) => values,
            None => self.values.entry(name.into()).or_default(),
        };
        let left = MOST_PAIR_BYTES.saturating_sub(self.bytes);
        self.bytes += self.fields.divide(values, hour, found, &numbers, left);
    }

    /// Counts a message. Returns the hour in which it is counted as [`OVERFLOW`], if its pair does not fit.
    fn add(&mut self, name: &str, hour: i64) -> Option<i64> {
        if let Some(count) = self.counts.get_mut(name).and_then(|hours| hours.get_mut(&hour)) {
            *count += 1;
            return None;
        }
        let bytes = PAIR_BYTES + name.len() + self.fields.bytes_of_pair();
        if self.bytes + bytes > MOST_PAIR_BYTES {
            return Some(self.overflow(hour));
        }
        self.bytes += bytes;
        match self.counts.get_mut(name) {
            Some(hours) => hours.insert(hour, 1),
            None => self.counts.entry(name.into()).or_default().insert(hour, 1),
        };
        None
    }

    /// Counts a message whose pair does not fit, and returns the hour.
    fn overflow(&mut self, hour: i64) -> i64 {
        self.overflowed += 1;
        if self.overflow.is_empty() {
            self.first_overflow = hour;
        }
        let is_known = self.overflow.len() < OVERFLOW_HOURS || self.overflow.contains_key(&hour);
        let hour = if is_known { hour } else { self.first_overflow };
        self.overflow.entry(hour).or_default().0 += 1;
        hour
    }

    fn totals(self) -> Totals {
        let mut totals = Totals::new();
        for (name, hours) in self.counts {
            for (hour, count) in hours {
                totals.entry((name.to_string(), hour::format(hour))).or_default().count += count;
            }
        }
        for (name, hours) in self.sums {
            for (hour, sums) in hours {
                let amount = totals.entry((name.to_string(), hour::format(hour))).or_default();
                self.fields.add_sums(amount, &sums);
            }
        }
        for (name, values) in self.values {
            for (hour, path, value, amount) in self.fields.amounts(values) {
                let all = totals.entry((name.to_string(), hour::format(hour))).or_default();
                *all.value_mut(path, &value) += &amount;
            }
        }
        for (hour, (count, sums)) in self.overflow {
            let mut amount = Amount::from(count);
            self.fields.add_sums(&mut amount, &sums);
            // An event may have the reserved name.
            let all = totals.entry((OVERFLOW.to_owned(), hour::format(hour))).or_default();
            self.fields.add_other(all, &amount);
            *all += &amount;
        }
        totals
    }
}

/// Returns the hour of a message, and how it was found.
fn hour_of(message: &Message<'_>, limits: Limits) -> Result<(HourSource, i64), Skip> {
    let fields = [message.timestamp, message.received_at, message.sent_at, message.original_timestamp];
    let mut skip = Skip::NoTime;
    for (name, field) in TIMES.into_iter().zip(fields) {
        match field {
            Field::Missing | Field::Null => continue,
            Field::Text(text) => {
                if let Some(hour) = text.bytes().and_then(hour::parse) {
                    return Ok(match received_instead(message, hour, limits) {
                        Some(received) => (HourSource::Limit, received),
                        None => (HourSource::Field(name), hour),
                    });
                }
            }
            Field::Number(_) | Field::Boolean(_) | Field::Other | Field::Twice => {}
        }
        skip = Skip::BadTime;
    }
    Err(skip)
}

/// Returns the hour in which Segment received a message, if the message's own hour is beyond the limits.
fn received_instead(message: &Message<'_>, hour: i64, limits: Limits) -> Option<i64> {
    if limits == Limits::default() {
        return None;
    }
    let Field::Text(received) = message.received_at else { return None };
    let received = received.bytes().and_then(hour::parse)?;
    let is_within = |limit: Option<u32>, hours: i64| limit.is_none_or(|limit| hours <= i64::from(limit));
    let allowed = is_within(limits.max_ahead_hours, hour - received)
        && is_within(limits.max_age_days.map(|days| days.saturating_mul(24)), received - hour);
    (!allowed).then_some(received)
}

fn text(field: Field<'_>) -> Result<Option<Text<'_>>, Skip> {
    match field {
        Field::Missing | Field::Null => Ok(None),
        Field::Text(text) => Ok(Some(text)),
        Field::Number(_) | Field::Boolean(_) | Field::Other => Err(Skip::WrongType),
        Field::Twice => Err(Skip::DuplicateKey),
    }
}

/// Returns the name under which an event is counted. One of more than [`LONGEST_NAME`] bytes is reduced to its beginning
/// and 16 hexadecimal digits of its SHA-256, so that names with the same beginning stay distinct.
#[must_use]
pub fn name_in_table(name: &str) -> Cow<'_, str> {
    shortened(Cow::Borrowed(name), LONGEST_NAME, KEPT_OF_LONGER)
}

/// Returns a text of more than `longest` bytes reduced to its beginning and 16 hexadecimal digits of its SHA-256.
pub(crate) fn shortened(text: Cow<'_, str>, longest: usize, kept: usize) -> Cow<'_, str> {
    if text.len() <= longest {
        return text;
    }
    let beginning = text.get(..text.floor_char_boundary(kept)).unwrap_or_default();
    let digest: String = Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Cow::Owned(format!("{beginning}…{digest}"))
}

#[cfg(test)]
mod tests;
