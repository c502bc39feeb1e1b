//! Finds the messages of a text that does not have one message on each line: several on a line, arrays, and values over
//! several lines.
//!
//! The splitter only matches brackets and quotes; [`crate::line::scan`] checks each value that it finds. It can be fed
//! in parts of any size. A value that begins on one line and proves to be none is given up, and its further lines are
//! read again one by one, so that a truncated line takes no other line with it.

use std::mem;

use crate::line::{LONGEST_LINE, Malformed};
use crate::stats::Skip;

/// The receiver of the texts that the splitter finds, with the number of the line where each begins.
pub(crate) trait Sink {
    /// Takes a text that may be a message. Returns the reason if it is not a JSON object.
    fn value(&mut self, text: &[u8], number: u64) -> Result<(), Malformed>;
    /// Takes note of a text that is none.
    fn skip(&mut self, skip: Skip, number: u64);
}

/// The state between two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Between values.
    #[default]
    Between,
    /// In an object.
    Object,
    /// In a text that is no object, up to the end of the line or, in an array, of the element.
    Other,
}

/// The splitter.
#[derive(Debug, Default)]
pub(crate) struct Values {
    state: State,
    /// The text of the current value.
    open: Vec<u8>,
    /// The line where it begins.
    began: u64,
    /// The current line.
    line: u64,
    /// True if it has more than one line.
    has_lines: bool,
    /// True if it is too long; its text is not kept.
    too_long: bool,
    /// The open brackets of the current object.
    depth: u32,
    in_string: bool,
    after_backslash: bool,
    /// The open brackets of arrays around the current value.
    arrays: u32,
    /// True if a value must end on its line.
    is_strict: bool,
}

impl Values {
    /// Returns whether a value has begun on an earlier line, and not ended.
    pub(crate) fn is_open(&self) -> bool {
        self.state != State::Between
    }

    /// Reads a part of a line, without its end. `number` is the line's.
    pub(crate) fn read(&mut self, part: &[u8], number: u64, sink: &mut impl Sink) {
        self.line = number;
        let mut rest = part;
        while let Some((&byte, after)) = rest.split_first() {
            match (self.state, byte) {
                (State::Between, b' ' | b'\t' | b'\r' | b'\n') => rest = after,
                (State::Between, b'[') => {
                    self.arrays = self.arrays.saturating_add(1);
                    rest = after;
                }
                (State::Between, b']') if self.arrays > 0 => {
                    self.arrays -= 1;
                    rest = after;
                }
                (State::Between, b',') if self.arrays > 0 => rest = after,
                (State::Between, b'{') => self.begin(State::Object, number),
                (State::Between, _) => self.begin(State::Other, number),
                (State::Object, _) => {
                    let (length, ended) = self.measure(rest);
                    let (text, after) = rest.split_at(length);
                    if self.keep(text, sink) && ended {
                        self.end_object(sink);
                    }
                    rest = after;
                }
                (State::Other, b',' | b']') if self.arrays > 0 => self.end(sink),
                (State::Other, _) => {
                    let length = if self.arrays > 0 {
                        memchr::memchr2(b',', b']', rest).unwrap_or(rest.len())
                    } else {
                        rest.len()
                    };
                    let (text, after) = rest.split_at(length);
                    self.keep(text, sink);
                    rest = after;
                }
            }
        }
    }

    /// Ends a line.
    pub(crate) fn end_line(&mut self, sink: &mut impl Sink) {
        match self.state {
            State::Between => {}
            State::Other => self.end(sink),
            State::Object if self.too_long || self.is_strict => self.end(sink),
            // A string cannot contain the end of a line.
            State::Object if self.in_string => self.give_up(sink),
            State::Object => {
                self.has_lines = true;
                if !self.keep(b"\n", sink) {
                    self.end_line(sink);
                }
            }
        }
    }

    /// Ends the text.
    pub(crate) fn finish(&mut self, number: u64, sink: &mut impl Sink) {
        self.end_line(sink);
        if self.is_open() {
            self.give_up(sink);
        }
        if mem::take(&mut self.arrays) > 0 {
            sink.skip(Skip::NotJson, number);
        }
    }

    fn begin(&mut self, state: State, number: u64) {
        let (open, arrays, is_strict) = (mem::take(&mut self.open), self.arrays, self.is_strict);
        *self = Self { state, open, began: number, line: self.line, arrays, is_strict, ..Self::default() };
        self.open.clear();
    }

    /// Returns the length of the current object in `text`, and whether it ends there.
    fn measure(&mut self, text: &[u8]) -> (usize, bool) {
        for (at, byte) in text.iter().enumerate() {
            match byte {
                _ if mem::take(&mut self.after_backslash) => {}
                b'\\' if self.in_string => self.after_backslash = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                _ => {}
            }
        }
        (text.len(), false)
    }

    /// Keeps a part of the current text. Returns false if the text was given up instead, because it is too long.
    fn keep(&mut self, text: &[u8], sink: &mut impl Sink) -> bool {
        if self.too_long {
            return true;
        }
        if self.open.len() + text.len() <= LONGEST_LINE {
            self.open.extend_from_slice(text);
            return true;
        }
        if !self.has_lines {
            self.too_long = true;
            self.open.clear();
            return true;
        }
        // The lines before this one are given up, and this one is read again as if no value were open.
        let start = memchr::memrchr(b'\n', &self.open).map_or(0, |end| end + 1);
        let mut line = self.open.split_off(start);
        self.open.pop();
        line.extend_from_slice(text);
        let number = self.line;
        self.give_up(sink);
        self.read(&line, number, sink);
        false
    }

    /// Ends the current object, whose last bracket was read.
    fn end_object(&mut self, sink: &mut impl Sink) {
        if !self.has_lines || self.too_long {
            return self.end(sink);
        }
        let open = mem::take(&mut self.open);
        if sink.value(&open, self.began).is_ok() {
            self.open = open;
            self.begin(State::Between, self.began);
        } else {
            self.open = open;
            self.give_up(sink);
        }
    }

    /// Ends the current text.
    fn end(&mut self, sink: &mut impl Sink) {
        if self.too_long {
            sink.skip(Skip::TooLong, self.began);
        } else if let Err(malformed) = sink.value(self.open.trim_ascii(), self.began) {
            sink.skip(malformed.into(), self.began);
        }
        self.begin(State::Between, self.began);
    }

    /// Skips the first line of the current object, and reads its further lines again, each for itself.
    fn give_up(&mut self, sink: &mut impl Sink) {
        let open = mem::take(&mut self.open);
        let began = self.began;
        self.begin(State::Between, began);
        sink.skip(Skip::NotJson, began);
        let mut strict = Self { arrays: self.arrays, is_strict: true, ..Self::default() };
        for (number, line) in (began..).zip(open.split(|byte| *byte == b'\n')).skip(1) {
            strict.read(line, number, sink);
            strict.end_line(sink);
        }
        self.arrays = strict.arrays;
    }
}
