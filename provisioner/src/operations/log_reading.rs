//! The whole log of a function, read page by page, and read on as it grows.

use std::collections::BTreeMap;

use aws_sdk_cloudwatchlogs::types::FilteredLogEvent;
use jiff::Timestamp;

use super::failed;
use crate::aws::{Aws, Call, log_group_name};
use crate::error::Error;

/// The milliseconds before the latest entry from which the log is read on: CloudWatch Logs may return an entry some
/// seconds after later ones of other streams.
const OVERLAP: i64 = 30_000;

/// An entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEntry {
    id: String,
    /// Milliseconds since the Unix epoch.
    pub(crate) millis: i64,
    /// The text, as it was logged.
    pub(crate) message: String,
}

impl From<FilteredLogEvent> for LogEntry {
    fn from(event: FilteredLogEvent) -> Self {
        let (millis, message) = (event.timestamp.unwrap_or_default(), event.message.unwrap_or_default());
        // A local AWS may give no ids.
        let stream = event.log_stream_name.unwrap_or_default();
        let id = event.event_id.unwrap_or_else(|| format!("{stream} {millis} {message}"));
        Self { id, millis, message }
    }
}

/// The end of what was read.
#[derive(Debug, Default)]
struct Position {
    /// The time from which the log is read on, in milliseconds since the Unix epoch.
    from: i64,
    /// The entries since then that were read, by their ids, with their times.
    read: BTreeMap<String, i64>,
}

impl Position {
    /// Adds a page, and returns its entries that were not read before.
    fn add(&mut self, page: impl IntoIterator<Item = LogEntry>) -> Vec<LogEntry> {
        let is_new = |entry: &LogEntry| self.read.insert(entry.id.clone(), entry.millis).is_none();
        let new: Vec<LogEntry> = page.into_iter().filter(is_new).collect();
        if let Some(latest) = self.read.values().max() {
            self.from = self.from.max(latest - OVERLAP);
        }
        let from = self.from;
        self.read.retain(|_, millis| *millis >= from);
        new
    }
}

/// A reading of the log of a function.
#[derive(Debug)]
pub(crate) struct LogReading {
    aws: Aws,
    group: String,
    position: Position,
}

impl LogReading {
    /// Begins with the entries at or after `since`.
    pub(crate) fn new(aws: &Aws, function: &str, since: Timestamp) -> Self {
        let position = Position { from: since.as_millisecond().max(0), ..Position::default() };
        Self { aws: aws.clone(), group: log_group_name(function), position }
    }

    /// Reads all entries that were not read before, and passes on each page, oldest first.
    ///
    /// # Errors
    /// The log group does not exist; an error of CloudWatch Logs; the error of `on_page`.
    pub(crate) async fn read(
        &mut self,
        on_page: &mut impl FnMut(&[LogEntry]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let request = self.aws.logs.filter_log_events().log_group_name(&self.group).start_time(self.position.from);
        let mut pages = request.into_paginator().send();
        // A page may be empty although more pages follow.
        while let Some(page) = pages.next().await {
            let page = page.call("logs:FilterLogEvents").map_err(failed(format!("read log {}", self.group)))?;
            let entries = page.events.unwrap_or_default().into_iter().map(LogEntry::from);
            on_page(&self.position.add(entries))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, millis: i64) -> LogEntry {
        LogEntry { id: id.to_owned(), millis, message: String::new() }
    }

    fn ids(entries: &[LogEntry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.id.as_str()).collect()
    }

    #[test]
    fn entry_that_arrives_late_is_read_once() {
        let mut position = Position { from: 50_000, ..Position::default() };
        assert_eq!(ids(&position.add([entry("a", 60_000), entry("b", 95_000)])), ["a", "b"]);
        assert_eq!(position.from, 65_000);
        // The log is read again from there on.
        let again = position.add([entry("late", 70_000), entry("b", 95_000), entry("c", 96_000)]);
        assert_eq!(ids(&again), ["late", "c"]);
        assert_eq!(ids(&position.add([entry("late", 70_000), entry("b", 95_000), entry("c", 96_000)])), [""; 0]);
    }

    #[test]
    fn only_recent_entries_are_remembered() {
        let mut position = Position::default();
        position.add((0..100).map(|n| entry(&n.to_string(), n * 1_000)));
        assert_eq!((position.from, position.read.len()), (69_000, 31));
        position.add([]);
        assert_eq!(position.from, 69_000);
    }

    #[test]
    fn entry_without_an_id_is_known_by_its_stream_time_and_text() {
        let event = |stream: &str| {
            let event = FilteredLogEvent::builder().log_stream_name(stream).timestamp(1).message("counted");
            LogEntry::from(event.build())
        };
        assert_eq!(event("a"), event("a"));
        assert_ne!(event("a"), event("b"));
    }
}
