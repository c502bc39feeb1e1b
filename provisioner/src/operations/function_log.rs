//! The function's log.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::Value as Json;

use super::failed;
use crate::aws::{AwsError, Call, Session, absent_on, log_group_name};
use crate::error::Error;

const HOUR: Duration = Duration::from_secs(60 * 60);
/// The maximum number of errors returned.
const ERRORS: usize = 5;
/// The maximum number of log lines read per filter pattern.
const LINES: i32 = 1_000;
/// Filter patterns for failures: the function's own lines, its warnings of skipped lines, and the lines of Lambda if the
/// function ran out of time or memory, or did not start.
const FAILURE_PATTERNS: [&str; 5] =
    ["ERROR", "WARN", "\"Task timed out\"", "\"Runtime exited\"", "\"Runtime.ExitError\""];

/// A line of the function's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LogLine {
    /// The time, RFC 3339.
    pub(crate) at: String,
    /// The text.
    pub(crate) message: String,
}

/// Returns whether a line of the log is a warning or an error, of the function or of Lambda.
pub(crate) fn is_failure(message: &str) -> bool {
    let line: Json = serde_json::from_str(message).unwrap_or_default();
    match line["level"].as_str() {
        Some(level) => !["TRACE", "DEBUG", "INFO"].iter().any(|routine| routine.eq_ignore_ascii_case(level)),
        None => FAILURE_PATTERNS.iter().any(|pattern| message.contains(pattern.trim_matches('"'))),
    }
}

/// Reduces lines to their messages, and each invocation to one line: both the function and Lambda's runtime log a
/// failure, but only the function's line has the cause.
fn one_line_per_invocation(lines: Vec<LogLine>) -> Vec<LogLine> {
    let mut kept: Vec<(Option<String>, bool, LogLine)> = Vec::new();
    for LogLine { at, message } in lines {
        let line: Json = serde_json::from_str(&message).unwrap_or_default();
        let text = |name: &str| line[name].as_str();
        let (has_cause, message) = match (text("error"), text("why"), text("message")) {
            (Some(error), Some(why), _) => (true, format!("{error}: {why}")),
            (_, _, Some(message)) => (false, message.to_owned()),
            _ => (false, message.trim().to_owned()),
        };
        let request = line["span"]["requestId"].as_str().map(str::to_owned);
        let known = kept.iter_mut().find(|(other, ..)| request.is_some() && *other == request);
        let new = (request, has_cause, LogLine { at, message });
        match known {
            Some(known) if has_cause && !known.1 => *known = new,
            Some(known) if !has_cause || known.2 == new.2 => {}
            _ => kept.push(new),
        }
    }
    let mut lines: Vec<LogLine> = kept.into_iter().map(|(_, _, line)| line).collect();
    lines.dedup();
    lines
}

impl Session<'_> {
    pub(super) async fn last_errors(&self) -> Result<Vec<LogLine>, Error> {
        let name = log_group_name(&self.pipeline.function.name);
        let mut lines = Vec::new();
        // CloudWatch Logs returns the oldest lines first, so the last hour is read first; it may already have enough
        // errors.
        for span in [HOUR, 24 * HOUR] {
            let since = SystemTime::now() - span;
            let answers = try_join_all(FAILURE_PATTERNS.map(|pattern| self.log(Some(pattern), since, LINES))).await;
            // A function that has never run may have no log yet.
            let answers = absent_on(answers, &["ResourceNotFoundException"]);
            lines = answers.map_err(failed(format!("read log {name}")))?.unwrap_or_default().concat();
            lines.sort_by(|a: &LogLine, b| b.at.cmp(&a.at).then_with(|| a.message.cmp(&b.message)));
            lines = one_line_per_invocation(lines);
            lines.truncate(ERRORS);
            if lines.len() == ERRORS {
                break;
            }
        }
        Ok(lines)
    }

    /// Returns the last `limit` lines of the function's log since `since` that match the filter pattern.
    pub(super) async fn log(
        &self,
        pattern: Option<&str>,
        since: SystemTime,
        limit: i32,
    ) -> Result<Vec<LogLine>, AwsError> {
        let limit = usize::try_from(limit).unwrap_or_default();
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let request = self
            .aws
            .logs
            .filter_log_events()
            .log_group_name(log_group_name(&self.pipeline.function.name))
            .start_time(i64::try_from(since).unwrap_or(i64::MAX))
            .set_filter_pattern(pattern.map(str::to_owned));
        let mut pages = request.into_paginator().send();
        let mut lines = VecDeque::new();
        // The oldest lines arrive first, and a page may be empty although more pages follow.
        while let Some(page) = pages.next().await {
            for event in page.call("logs:FilterLogEvents")?.events.unwrap_or_default() {
                if lines.len() == limit {
                    lines.pop_front();
                }
                let at = super::timestamp(event.timestamp.unwrap_or_default().div_euclid(1000));
                lines.push_back(LogLine { at, message: event.message.unwrap_or_default() });
            }
        }
        Ok(lines.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_known_by_their_level_or_by_the_texts_of_lambda() {
        for message in [
            r#"{"level":"ERROR","message":"not counted"}"#,
            r#"{"level":"WARN","message":"lines skipped"}"#,
            "2015-08-04T12:00:00Z 3 Task timed out after 60.00 seconds",
            "RequestId: 3 Error: Runtime exited with error: signal: killed",
        ] {
            assert!(is_failure(message), "{message}");
        }
        for message in [r#"{"level":"INFO","message":"counted","key":"ERROR.gz"}"#, "END RequestId: 3", "", "12"] {
            assert!(!is_failure(message), "{message}");
        }
    }

    #[test]
    fn failures_are_reduced_to_one_line_per_invocation_with_the_cause() {
        let line = |message: &str| LogLine { at: "2015-08-04T12:00:00Z".to_owned(), message: message.to_owned() };
        let lines = vec![
            line(r#"{"level":"ERROR","message":"Diagnostic { .. }","span":{"requestId":"1"}}"#),
            line(
                r#"{"level":"ERROR","message":"not counted","error":"ObjectDamaged","why":"cut","span":{"requestId":"1"}}"#,
            ),
            line(r#"{"level":"ERROR","message":"Diagnostic { other }","span":{"requestId":"2"}}"#),
            line("2015-08-04T12:00:00Z 3 Task timed out after 60.00 seconds\n"),
        ];
        let messages: Vec<String> = one_line_per_invocation(lines).into_iter().map(|line| line.message).collect();
        let timed_out = "2015-08-04T12:00:00Z 3 Task timed out after 60.00 seconds";
        assert_eq!(messages, ["ObjectDamaged: cut", "Diagnostic { other }", timed_out]);
    }
}
