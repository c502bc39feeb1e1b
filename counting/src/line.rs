//! A scanner for one message: it validates the whole text, keeps six of its strings and the values at given paths, and
//! does not allocate unless there are paths.
//!
//! Most of a message consists of values that are not needed. The scanner skips them, jumping from one string boundary
//! to the next, but still validates them: it accepts a text if and only if it is JSON (RFC 8259, UTF-8, at most
//! [`DEEPEST`] nested brackets), so skipping changes no counts. As the grammar allows, numbers may have any magnitude,
//! and escapes may name lone surrogates.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use wide::u8x64;

/// The longest line that is read. Segment accepts messages of at most 32 KB; the rest is room for the fields it adds.
pub const LONGEST_LINE: usize = 1024 * 1024;
/// The deepest nesting of brackets: the default limit of serde_json.
const DEEPEST: u32 = 127;

/// The reason why a line is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// It is not JSON.
    NotJson,
    /// It is JSON, but not an object.
    NotAnObject,
}

/// A field of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Field<'a> {
    /// Absent.
    #[default]
    Missing,
    /// Present, but null.
    Null,
    /// A string.
    Text(Text<'a>),
    /// A number, as it is written. Only the values at [`Paths`] are told apart from others.
    Number(&'a [u8]),
    /// True or false; told apart as numbers are.
    Boolean(bool),
    /// Any other value.
    Other,
    /// Present more than once, so its value is ambiguous.
    Twice,
}

/// A JSON string as written between its quotes, with its escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Text<'a> {
    /// Returns the decoded string, with U+FFFD for each lone surrogate. It is always `Some`, because the scanner has
    /// validated it.
    #[must_use]
    pub fn decode(self) -> Option<Cow<'a, str>> {
        if !self.escaped {
            return std::str::from_utf8(self.raw).ok().map(Cow::Borrowed);
        }
        let quoted = |raw: &[u8]| [b"\"", raw, b"\""].concat();
        let decoded = serde_json::from_slice(&quoted(self.raw));
        decoded.or_else(|_| serde_json::from_slice(&quoted(&replace_lone_surrogates(self.raw)))).ok().map(Cow::Owned)
    }

    /// Returns the bytes of the decoded string, without a second check of their encoding.
    #[must_use]
    pub fn bytes(self) -> Option<Cow<'a, [u8]>> {
        if !self.escaped {
            return Some(Cow::Borrowed(self.raw));
        }
        self.decode().map(|decoded| Cow::Owned(decoded.into_owned().into_bytes()))
    }
}

/// Replaces the escapes of lone surrogates, which no string can contain, by the one of U+FFFD.
fn replace_lone_surrogates(raw: &[u8]) -> Vec<u8> {
    let surrogate = |at: usize| {
        let escape = raw.get(at..at + 6)?;
        let digits = std::str::from_utf8(escape.strip_prefix(b"\\u")?).ok()?;
        u32::from_str_radix(digits, 16).ok().filter(|code| (0xd800..=0xdfff).contains(code))
    };
    let mut mended = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        let (length, lone) = match (byte, surrogate(at)) {
            (b'\\', None) => (2, false),
            (_, None) => (1, false),
            (_, Some(0xd800..=0xdbff)) if matches!(surrogate(at + 6), Some(0xdc00..=0xdfff)) => (12, false),
            (_, Some(_)) => (6, true),
        };
        mended.extend_from_slice(if lone { b"\\ufffd" } else { raw.get(at..at + length).unwrap_or_default() });
        at += length;
    }
    mended
}

/// The fields of a message that are needed for counting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// `type`
    pub kind: Field<'a>,
    /// `event`
    pub event: Field<'a>,
    /// `timestamp`
    pub timestamp: Field<'a>,
    /// `receivedAt`
    pub received_at: Field<'a>,
    /// `sentAt`
    pub sent_at: Field<'a>,
    /// `originalTimestamp`
    pub original_timestamp: Field<'a>,
}

/// The fields of [`Message`], which no path can name.
pub const FIELDS: [&str; 6] = ["type", "event", "timestamp", "receivedAt", "sentAt", "originalTimestamp"];

impl<'a> Message<'a> {
    fn field(&mut self, key: &[u8]) -> Option<&mut Field<'a>> {
        match key {
            b"type" => Some(&mut self.kind),
            b"event" => Some(&mut self.event),
            b"timestamp" => Some(&mut self.timestamp),
            b"receivedAt" => Some(&mut self.received_at),
            b"sentAt" => Some(&mut self.sent_at),
            b"originalTimestamp" => Some(&mut self.original_timestamp),
            _ => None,
        }
    }
}

/// The paths of the fields to find in a message, such as `properties.revenue`: a tree of their keys.
#[derive(Debug, Default)]
pub struct Paths {
    root: Node,
    length: usize,
}

#[derive(Debug, Default)]
struct Node {
    key: Vec<u8>,
    /// The number of the path that ends here.
    path: Option<usize>,
    children: Vec<Self>,
}

impl Node {
    #[inline]
    fn child(&self, key: Text<'_>) -> Option<&Self> {
        if self.children.is_empty() {
            return None;
        }
        let key = key.bytes()?;
        self.children.iter().find(|child| child.key == *key)
    }
}

impl Paths {
    /// Creates the tree of these paths: keys, separated by dots.
    pub fn new<'p>(paths: impl IntoIterator<Item = &'p str>) -> Self {
        let mut this = Self::default();
        for path in paths {
            let mut node = &mut this.root;
            for key in path.split('.').map(str::as_bytes) {
                let at = node.children.iter().position(|child| child.key == key).unwrap_or_else(|| {
                    node.children.push(Node { key: key.to_vec(), ..Node::default() });
                    node.children.len() - 1
                });
                let Some(child) = node.children.get_mut(at) else { break };
                node = child;
            }
            node.path.get_or_insert(this.length);
            this.length += 1;
        }
        this
    }
}

/// Scans one line, which is not blank. Returns the message, and the field at each path.
///
/// # Errors
/// [`Malformed`] if the line is not a JSON object.
pub fn scan<'a>(line: &'a [u8], paths: &Paths, stops: &mut Stops) -> Result<(Message<'a>, Vec<Field<'a>>), Malformed> {
    stops.mark(line);
    let found = vec![Field::Missing; paths.length];
    let mut scanner = Scanner { line, stops, at: 0, found };
    let scanned = scanner.message(&paths.root);
    let Ok(text) = simdutf8::basic::from_utf8(line) else { return Err(Malformed::NotJson) };
    match scanned {
        Some(message) => Ok((message, scanner.found)),
        // Malformed lines are rare, so parsing them again to find the reason costs little.
        None if text.trim_start().starts_with('{') || serde_json::from_str::<IgnoredAny>(text).is_err() => {
            Err(Malformed::NotJson)
        }
        None => Err(Malformed::NotAnObject),
    }
}

struct Scanner<'a, 's> {
    line: &'a [u8],
    stops: &'s Stops,
    at: usize,
    /// The field at each path.
    found: Vec<Field<'a>>,
}

/// The bytes that end plain text within a string: one bit for each byte of a line, set for quotes, backslashes and
/// control characters. Reused from line to line to avoid allocations.
#[derive(Debug, Default)]
pub struct Stops(Vec<u64>);

impl Stops {
    /// Marks the stops of a line, 64 bytes at a time in vector registers.
    fn mark(&mut self, line: &[u8]) {
        self.0.clear();
        let (blocks, rest) = line.as_chunks::<64>();
        self.0.extend(blocks.iter().map(|block| stops(*block)));
        // The zero bytes after the end of the line are control characters, and therefore stops.
        let mut last = [0; 64];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.0.push(stops(last));
    }

    /// Returns the first stop at or after a position; if none is left, the line's end or a position beyond it.
    #[inline]
    fn next(&self, at: usize) -> usize {
        let mut block = at / 64;
        let mut bits = self.0.get(block).map_or(1, |bits| bits >> (at % 64) << (at % 64));
        while bits == 0 {
            block += 1;
            bits = self.0.get(block).copied().unwrap_or(1);
        }
        block * 64 + bits.trailing_zeros() as usize
    }
}

#[inline]
fn stops(block: [u8; 64]) -> u64 {
    let bytes = u8x64::new(block);
    let quotes = bytes.simd_eq(u8x64::splat(b'"'));
    let backslashes = bytes.simd_eq(u8x64::splat(b'\\'));
    let controls = bytes.min(u8x64::splat(0x1f)).simd_eq(bytes);
    (quotes | backslashes | controls).to_bitmask()
}

/// The result of a check: `None` if the line is not JSON.
type Checked<T> = Option<T>;

impl<'a> Scanner<'a, '_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Checked<()> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Some(());
        }
        None
    }

    /// Scans the whole line.
    fn message(&mut self, root: &Node) -> Checked<Message<'a>> {
        let mut message = Message::default();
        self.space();
        self.object(|scanner| scanner.member(&mut message, root))?;
        self.space();
        (self.at == self.line.len()).then_some(message)
    }

    /// Scans an object, whose members `member` scans.
    #[inline]
    fn object(&mut self, mut member: impl FnMut(&mut Self) -> Checked<()>) -> Checked<()> {
        self.expect(b'{')?;
        self.space();
        if self.expect(b'}').is_some() {
            return Some(());
        }
        loop {
            member(self)?;
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return None,
            }
            self.space();
        }
        self.at += 1;
        Some(())
    }

    /// Scans one key and its value in the outermost object.
    #[inline]
    fn member(&mut self, message: &mut Message<'a>, root: &Node) -> Checked<()> {
        let key = self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        let field = match key.escaped {
            false => message.field(key.raw),
            true => key.decode().and_then(|key| message.field(key.as_bytes())),
        };
        let Some(field) = field else {
            return match root.child(key) {
                None => self.value(0),
                Some(node) => self.walk(node, 0),
            };
        };
        let found = match self.peek()? {
            b'"' => Field::Text(self.string()?),
            other => {
                self.value(0)?;
                if other == b'n' { Field::Null } else { Field::Other }
            }
        };
        *field = if *field == Field::Missing { found } else { Field::Twice };
        Some(())
    }

    /// Scans a value below which paths lead, or at which one ends. `depth` is the number of brackets around it in the
    /// outermost object, at most the number of keys of the longest path.
    fn walk(&mut self, node: &Node, depth: u32) -> Checked<()> {
        let start = self.at;
        let found = match self.peek()? {
            b'"' => Field::Text(self.string()?),
            b'{' if !node.children.is_empty() => {
                self.members(node, depth)?;
                Field::Other
            }
            first => {
                self.value(depth)?;
                match first {
                    b'n' => Field::Null,
                    b'-' | b'0'..=b'9' => Field::Number(self.line.get(start..self.at)?),
                    b't' | b'f' => Field::Boolean(first == b't'),
                    _ => Field::Other,
                }
            }
        };
        if let Some(field) = node.path.and_then(|path| self.found.get_mut(path)) {
            *field = if *field == Field::Missing { found } else { Field::Twice };
        }
        Some(())
    }

    /// Scans an object below which paths lead.
    fn members(&mut self, node: &Node, depth: u32) -> Checked<()> {
        if depth + 1 >= DEEPEST {
            return None;
        }
        self.object(|scanner| {
            let key = scanner.string()?;
            scanner.space();
            scanner.expect(b':')?;
            scanner.space();
            match node.child(key) {
                None => scanner.value(depth + 1),
                Some(child) => scanner.walk(child, depth + 1),
            }
        })
    }

    /// Scans a string, from its opening quote to after its closing one.
    #[inline]
    fn string(&mut self) -> Checked<Text<'a>> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = self.stops.next(self.at);
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                // A control character is valid only as an escape.
                _ => return None,
            }
        }
        let raw = self.line.get(start..self.at)?;
        self.at += 1;
        Some(Text { raw, escaped })
    }

    /// Scans a backslash and its escape.
    fn escape(&mut self) -> Checked<()> {
        self.at += 1;
        let kind = self.peek()?;
        self.at += 1;
        match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.line.get(self.at..)?.first_chunk::<4>()?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn literal(&mut self, text: &[u8]) -> Checked<()> {
        let rest = self.line.get(self.at..)?;
        self.at += text.len();
        rest.starts_with(text).then_some(())
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Checked<()> {
        let _ = self.expect(b'-');
        let zero = self.peek() == Some(b'0');
        let whole = self.digits();
        if whole == 0 || zero && whole > 1 {
            return None;
        }
        if self.expect(b'.').is_some() && self.digits() == 0 {
            return None;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return None;
            }
        }
        Some(())
    }

    /// Scans any value with `around` brackets around it in the outermost object. Open brackets are kept as bits, so
    /// nesting uses no stack.
    fn value(&mut self, around: u32) -> Checked<()> {
        let mut depth = 0;
        let mut objects: u128 = 0;
        loop {
            match self.peek()? {
                b'"' => drop(self.string()?),
                open @ (b'{' | b'[') => {
                    self.at += 1;
                    depth += 1;
                    if around + depth >= DEEPEST {
                        return None;
                    }
                    let object = open == b'{';
                    objects = objects << 1 | u128::from(object);
                    self.space();
                    // A key or a value follows; an empty pair of brackets is closed below.
                    let close = if object { b'}' } else { b']' };
                    if self.peek()? != close {
                        if object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => self.number()?,
            }
            // A value has ended, or an empty pair of brackets is open: close brackets, or continue after a comma.
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.space();
                let object = objects & 1 == 1;
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        self.space();
                        if object {
                            self.key()?;
                        }
                        break;
                    }
                    b'}' if object => {}
                    b']' if !object => {}
                    _ => return None,
                }
                self.at += 1;
                depth -= 1;
                objects >>= 1;
            }
        }
    }

    /// Scans a key of an inner object, its colon, and the whitespace after it.
    #[inline]
    fn key(&mut self) -> Checked<()> {
        self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Some(())
    }
}
