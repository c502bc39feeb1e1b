//! JSON for programs: a plan as one document, an apply as a stream of events, one object a line.

use std::io::Write as _;

use schemars::JsonSchema;
use serde::Serialize;

use crate::document::Document;
use crate::error::Error;
use crate::event::{Event, Reporter};
use crate::kind::Address;
use crate::operate::verify::Verified;
use crate::plan::Action;

/// A plan as one document.
///
/// # Errors
/// None that a plan can bring about; whatever serde says.
pub fn plan(document: &Document) -> Result<String, Error> {
    Ok(serde_json::to_string_pretty(document).map_err(Error::Json)? + "\n")
}

/// One line of the stream. The first is the plan, the last is `finished`, or `verified`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Line<'a> {
    /// What will be done.
    Plan {
        /// All of it.
        plan: &'a Document,
    },
    /// A step has begun.
    Started(Of<'a>),
    /// A step waits for something.
    Waiting {
        /// Which.
        #[serde(flatten)]
        of: Of<'a>,
        /// For what.
        what: &'a str,
        /// For how long so far.
        seconds: f64,
    },
    /// A step of many parts has done some.
    Progress {
        /// Which.
        #[serde(flatten)]
        of: Of<'a>,
        /// Parts that are done.
        done: u64,
        /// Parts that are known of.
        total: u64,
    },
    /// A step is done.
    Done {
        /// Which.
        #[serde(flatten)]
        of: Of<'a>,
        /// How long it took.
        seconds: f64,
    },
    /// A step failed.
    Failed {
        /// Which.
        #[serde(flatten)]
        of: Of<'a>,
        /// Why, and what to do.
        error: String,
    },
    /// A step was not tried.
    Skipped {
        /// Which.
        #[serde(flatten)]
        of: Of<'a>,
        /// The kind of what failed before it; null where a signal stopped everything.
        because_kind: Option<&'a str>,
        /// Its name.
        because_name: Option<&'a str>,
    },
    /// The end.
    Finished {
        /// Steps that are done.
        done: usize,
        /// Steps that failed.
        failed: usize,
        /// Steps that were not tried.
        skipped: usize,
        /// The signal that stopped it, where one did.
        signal: Option<String>,
        /// How long all of it took.
        seconds: f64,
    },
    /// The proof that the pipeline counts; behind the end, where it was asked for.
    Verified(&'a Verified),
}

/// Which step.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Of<'a> {
    /// The resource's kind.
    pub kind: &'a str,
    /// Its name on AWS.
    pub name: &'a str,
    /// What happens to it.
    pub action: Action,
}

/// Prints a line of the stream. That nobody reads it any more stops nothing that is under way.
pub fn print(line: &Line<'_>) {
    if let Ok(text) = serde_json::to_string(line) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

/// Prints the events of an apply.
#[derive(Debug, Default)]
pub struct Stream;

impl Reporter for Stream {
    fn event(&self, address: &Address, action: Action, event: &Event<'_>) {
        let of = Of { kind: address.kind, name: &address.name, action };
        print(&match event {
            Event::Started => Line::Started(of),
            Event::Waiting { what, elapsed } => Line::Waiting { of, what, seconds: elapsed.as_secs_f64() },
            Event::Progress { done, total } => Line::Progress { of, done: *done, total: *total },
            Event::Done { took } => Line::Done { of, seconds: took.as_secs_f64() },
            Event::Failed { error } => Line::Failed { of, error: error.to_string() },
            Event::Skipped { because } => Line::Skipped {
                of,
                because_kind: because.map(|because| because.kind),
                because_name: because.map(|because| because.name.as_str()),
            },
        });
    }
}
