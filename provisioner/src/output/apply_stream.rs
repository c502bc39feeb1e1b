//! JSON for programs: a plan as one document, an apply as a stream of events, one object a line.

use schemars::JsonSchema;
use serde::Serialize;

use super::Output;
use crate::operations::verify::Verified;
use crate::reconcile::document::PlanDocument;
use crate::reconcile::plan::Action;
use crate::reconcile::progress::{Event, Reporter};
use crate::reconcile::resource::Address;

/// One line of the stream. The first is the plan, the last is `finished`, or `verified`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Line<'a> {
    /// What will be done.
    Plan {
        /// All of it.
        plan: &'a PlanDocument,
    },
    /// A step has begun.
    Started(StepRef<'a>),
    /// A step waits for something.
    Waiting {
        /// Which.
        #[serde(flatten)]
        step: StepRef<'a>,
        /// For what.
        what: &'a str,
        /// For how long so far.
        seconds: f64,
    },
    /// A step of many parts has done some.
    Progress {
        /// Which.
        #[serde(flatten)]
        step: StepRef<'a>,
        /// Parts that are done.
        done: u64,
        /// Parts that are known of.
        total: u64,
    },
    /// A step is done.
    Done {
        /// Which.
        #[serde(flatten)]
        step: StepRef<'a>,
        /// How long it took.
        seconds: f64,
    },
    /// A step failed.
    Failed {
        /// Which.
        #[serde(flatten)]
        step: StepRef<'a>,
        /// Why, and what to do.
        error: String,
    },
    /// A step was not tried.
    Skipped {
        /// Which.
        #[serde(flatten)]
        step: StepRef<'a>,
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
pub(crate) struct StepRef<'a> {
    /// The resource's kind.
    pub(crate) kind: &'a str,
    /// Its name on AWS.
    pub(crate) name: &'a str,
    /// What happens to it.
    pub(crate) action: Action,
}

/// Prints a line of the stream. A reader that is gone stops nothing that is in flight.
pub(crate) fn print(output: &Output, line: &Line<'_>) {
    let _ = output.print_json(line);
}

/// Prints the events of an apply as JSON.
#[derive(Debug)]
pub(crate) struct JsonReporter<'a> {
    /// The output.
    pub(crate) output: &'a Output,
}

impl Reporter for JsonReporter<'_> {
    fn event(&self, address: &Address, action: Action, event: &Event<'_>) {
        let step = StepRef { kind: address.kind, name: &address.name, action };
        print(
            self.output,
            &match event {
                Event::Started => Line::Started(step),
                Event::Waiting { what, elapsed } => Line::Waiting { step, what, seconds: elapsed.as_secs_f64() },
                Event::Progress { done, total } => Line::Progress { step, done: *done, total: *total },
                Event::Done { took } => Line::Done { step, seconds: took.as_secs_f64() },
                Event::Failed { error } => Line::Failed { step, error: error.to_string() },
                Event::Skipped { because } => Line::Skipped {
                    step,
                    because_kind: because.map(|because| because.kind),
                    because_name: because.map(|because| because.name.as_str()),
                },
            },
        );
    }
}
