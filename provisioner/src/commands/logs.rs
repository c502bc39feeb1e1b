//! `provisioner logs`

use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::args::{Global, listen, unless_stopped};
use crate::aws::Aws;
use crate::config::{Function, Pipeline};
use crate::counts::moment::since;
use crate::error::Error;
use crate::operations::function_log::is_failure;
use crate::operations::log_reading::{LogEntry, LogReading};
use crate::output::{Output, TextOrJson};
use crate::text::printable;

/// The pause between two readings of a log that is followed.
const POLL: Duration = Duration::from_secs(2);
/// The fields of a line that are shown before the others, or that only programs need.
const NOT_LISTED: [&str; 9] =
    ["level", "message", "timestamp", "time", "bucket", "target", "span", "spans", "threadId"];
/// The beginnings of Lambda's own lines that tell nothing of what was counted.
const ROUTINE: [&str; 3] = ["START RequestId:", "END RequestId:", "INIT_START "];
/// The parts of Lambda's report on an invocation that are shown.
const REPORTED: [&str; 5] = ["Duration:", "Init Duration:", "Max Memory Used:", "Status:", "Error Type:"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print new lines as they arrive, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Print the log of this consumer [default: the function that counts]
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Start: a span up to now, such as 90m or 2d, or a time
    #[arg(long, value_name = "SPAN|TIME", default_value = "1h")]
    since: String,
    /// Print only warnings and errors
    #[arg(long)]
    failures: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: TextOrJson,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let function = function(&pipeline, args.consumer.as_deref())?;
    let since = since("--since", &args.since)?;
    let shutdown = listen()?;
    let aws = Aws::connect(&pipeline).await?;
    let mut reading = LogReading::new(&aws, &function.name, since);
    let mut printed = false;
    let mut print = |entries: &[LogEntry]| -> Result<(), Error> {
        let shown = entries.iter().filter(|entry| !args.failures || is_failure(&entry.message));
        let lines = shown.filter_map(|entry| match args.format {
            TextOrJson::Text => text(entry).map(Ok),
            TextOrJson::Json => Some(json(entry)),
        });
        let lines = lines.collect::<Result<String, Error>>()?;
        if lines.is_empty() {
            return Ok(());
        }
        printed = true;
        output.print(&lines)
    };
    if args.follow {
        // A signal is the way to end it, and no failure.
        shutdown.or_shutdown(follow(&mut reading, &mut print)).await.unwrap_or(Ok(()))?;
        return Ok(ExitCode::SUCCESS);
    }
    unless_stopped(&shutdown, reading.read(&mut print)).await?;
    if !printed {
        let what = if args.failures { "warnings or errors" } else { "lines" };
        output.notes(&[format!("the log of {} has no {what} since {since:.0}; --since sets the start", function.name)]);
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the log on and on.
async fn follow(
    reading: &mut LogReading,
    print: &mut impl FnMut(&[LogEntry]) -> Result<(), Error>,
) -> Result<(), Error> {
    loop {
        reading.read(print).await?;
        tokio::time::sleep(POLL).await;
    }
}

/// Returns the function whose log is asked for.
fn function<'p>(pipeline: &'p Pipeline, consumer: Option<&str>) -> Result<&'p Function, Error> {
    let Some(name) = consumer else { return Ok(&pipeline.function) };
    let base = format!("{}-", pipeline.name);
    let wanted = format!("{base}{name}");
    pipeline.consumers.iter().find(|consumer| consumer.name == wanted).ok_or_else(|| {
        let known = pipeline.consumers.iter().filter_map(|consumer| consumer.name.strip_prefix(base.as_str()));
        let help = match known.collect::<Vec<_>>().as_slice() {
            [] => "leave out --consumer: pipeline.toml declares no [[consumer]]".to_owned(),
            known => format!("choose one that pipeline.toml declares: {}", known.join(", ")),
        };
        Error::usage(format!("--consumer {} cannot be used: there is none of this name", name.escape_debug()), help)
    })
}

fn at(entry: &LogEntry) -> String {
    Timestamp::from_millisecond(entry.millis).map(|at| format!("{at:.3}")).unwrap_or_default()
}

/// A line of the log for programs.
#[derive(Debug, Serialize)]
struct Line<'a> {
    at: String,
    /// The line as it was logged.
    text: &'a str,
    /// The same, if it is a JSON object.
    fields: Option<Map<String, Json>>,
}

fn json(entry: &LogEntry) -> Result<String, Error> {
    let text = entry.message.trim_end();
    let line = Line { at: at(entry), text, fields: serde_json::from_str(text).ok() };
    Ok(serde_json::to_string(&line).map_err(Error::json)? + "\n")
}

/// Formats an entry for people, or returns `None` for one that is routine.
fn text(entry: &LogEntry) -> Option<String> {
    let message = entry.message.trim();
    let (level, line) = match serde_json::from_str::<Map<String, Json>>(message) {
        Ok(fields) => {
            let of = |name: &str| printable(fields.get(name).and_then(Json::as_str).unwrap_or_default());
            (of("level"), format!("{}{}", of("message"), listed(&fields)))
        }
        Err(_) => (String::new(), of_lambda(message)?),
    };
    Some(format!("{} {level:<5} {line}\n", at(entry)))
}

/// Lists the fields that say something, each with its name.
fn listed(fields: &Map<String, Json>) -> String {
    let mut out = String::new();
    for (name, value) in fields.iter().filter(|(name, _)| !NOT_LISTED.contains(&name.as_str())) {
        let shown = match value {
            Json::Null => continue,
            Json::String(text) if text.is_empty() => continue,
            Json::Number(number) if number.as_f64() == Some(0.0) => continue,
            Json::String(text) if !text.contains(|c: char| c.is_whitespace() || c == '"') => text.clone(),
            other => other.to_string(),
        };
        out.push_str(&format!(" {}={}", printable(name), printable(&shown)));
    }
    out
}

/// Formats a line that is not a JSON object: Lambda's, or a consumer's.
fn of_lambda(message: &str) -> Option<String> {
    if message.is_empty() || ROUTINE.iter().any(|routine| message.starts_with(routine)) {
        return None;
    }
    if !message.starts_with("REPORT RequestId:") {
        return Some(printable(message));
    }
    let parts = message.split(['\t', '\n']).map(str::trim);
    let parts = parts.filter(|part| REPORTED.iter().any(|reported| part.starts_with(reported)));
    Some(printable(&format!("invocation ended: {}", parts.collect::<Vec<_>>().join(", "))))
}

#[cfg(test)]
mod tests {
    use aws_sdk_cloudwatchlogs::types::FilteredLogEvent;

    use super::*;
    use crate::config;

    fn entry(message: &str) -> LogEntry {
        FilteredLogEvent::builder().timestamp(1_438_689_600_123).message(message).build().into()
    }

    #[test]
    fn json_line_is_shown_with_the_fields_that_say_something() {
        let counted = r#"{"level":"INFO","message":"counted","bucket":"acme","key":"segment-logs/x/1/a.gz","events":250,
            "skipped":0,"other_types":"","first_skipped":null,"span":{"requestId":"1"}}"#;
        let expected = "2015-08-04T12:00:00.123Z INFO  counted key=segment-logs/x/1/a.gz events=250\n";
        assert_eq!(text(&entry(counted)).as_deref(), Some(expected));
        let failed =
            r#"{"level":"ERROR","message":"not counted","key":"a b","error":"Inflate","why":"cut \"x\" \u001b[31m"}"#;
        let expected =
            "2015-08-04T12:00:00.123Z ERROR not counted key=\"a b\" error=Inflate why=\"cut \\\"x\\\" \\u001b[31m\"\n";
        assert_eq!(text(&entry(failed)).as_deref(), Some(expected));
    }

    #[test]
    fn lines_of_lambda_are_shortened_or_left_out() {
        let shown =
            |message: &str| text(&entry(message)).map(|line| line["2015-08-04T12:00:00.123Z ".len()..].to_owned());
        assert_eq!(shown("START RequestId: 1 Version: $LATEST\n"), None);
        assert_eq!(shown("END RequestId: 1\n"), None);
        assert_eq!(shown("INIT_START Runtime Version: provided:al2023.v1"), None);
        let report = "REPORT RequestId: 1\tDuration: 85.20 ms\tBilled Duration: 120 ms\tMemory Size: 256 MB\t\
                      Max Memory Used: 31 MB\tInit Duration: 34.10 ms\t\nXRAY TraceId: 1-2\n";
        let expected = "      invocation ended: Duration: 85.20 ms, Max Memory Used: 31 MB, Init Duration: 34.10 ms\n";
        assert_eq!(shown(report).as_deref(), Some(expected));
        let timed_out = "2015-08-04T12:00:00Z 1 Task timed out after 60.00 seconds\n\n";
        let expected = "      2015-08-04T12:00:00Z 1 Task timed out after 60.00 seconds\n";
        assert_eq!(shown(timed_out).as_deref(), Some(expected));
    }

    #[test]
    fn control_characters_of_the_log_do_not_reach_the_terminal() {
        for message in ["a\u{1b}[31mb\rc", "{\"level\":\"\\u001b\",\"message\":\"\\u009b\",\"\\u0007\":\"\\u001b\"}"] {
            let line = text(&entry(message)).expect("a line");
            assert!(!line.trim_end_matches('\n').chars().any(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn line_for_programs_has_the_text_and_its_fields() {
        let line = |message: &str| serde_json::from_str::<Json>(&json(&entry(message)).expect("JSON")).expect("JSON");
        let counted = line("{\"message\":\"counted\",\"events\":2}\n");
        assert_eq!(counted["at"], "2015-08-04T12:00:00.123Z");
        assert_eq!(counted["text"], "{\"message\":\"counted\",\"events\":2}");
        assert_eq!(counted["fields"]["events"], 2);
        let end = line("END RequestId: 1\n");
        assert_eq!((&end["text"], &end["fields"]), (&Json::from("END RequestId: 1"), &Json::Null));
    }

    #[test]
    fn consumer_is_chosen_by_the_name_in_the_file() {
        let text = "[pipeline]\nname = \"events\"\nregion = \"us-east-1\"\n[[consumer]]\nname = \"alert\"\n";
        let pipeline = config::parse("pipeline.toml", text, None).expect("a pipeline");
        let of = |consumer: Option<&str>| function(&pipeline, consumer).map(|function| function.name.clone());
        assert_eq!(of(None).expect("the counter"), "events-handler");
        assert_eq!(of(Some("alert")).expect("the consumer"), "events-alert");
        assert!(of(Some("other")).expect_err("a refusal").to_string().contains("declares: alert"));
    }
}
