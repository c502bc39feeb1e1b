//! The output of `apply --format json`: a stream of events, one JSON object per line.

use schemars::JsonSchema;
use serde::Serialize;

use super::Output;
use crate::operations::verify::Verified;
use crate::reconcile::document::PlanDocument;
use crate::reconcile::plan::Action;
use crate::reconcile::progress::{Event, Reporter};
use crate::reconcile::resource::Address;

/// One line of the stream. The first one is `plan`, the last one `finished` or `verified`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Line<'a> {
    /// The plan that will be applied.
    Plan {
        /// The plan document.
        plan: &'a PlanDocument,
    },
    /// A step has started.
    Started(StepRef<'a>),
    /// A step waits for a condition.
    Waiting {
        /// The step.
        #[serde(flatten)]
        step: StepRef<'a>,
        /// The condition; continues "waiting for".
        what: &'a str,
        /// The time waited so far, in seconds.
        seconds: f64,
    },
    /// A step that consists of many parts has completed some of them.
    Progress {
        /// The step.
        #[serde(flatten)]
        step: StepRef<'a>,
        /// Completed parts.
        done: u64,
        /// Parts known so far.
        total: u64,
    },
    /// A step is done.
    Done {
        /// The step.
        #[serde(flatten)]
        step: StepRef<'a>,
        /// The duration of the step, in seconds.
        seconds: f64,
    },
    /// A step failed.
    Failed {
        /// The step.
        #[serde(flatten)]
        step: StepRef<'a>,
        /// The error with its help text.
        error: String,
    },
    /// A step was skipped.
    Skipped {
        /// The step.
        #[serde(flatten)]
        step: StepRef<'a>,
        /// The kind of the resource whose step failed before; null if a signal stopped the apply.
        because_kind: Option<&'a str>,
        /// The name of that resource; null if a signal stopped the apply.
        because_name: Option<&'a str>,
    },
    /// The end of the apply.
    Finished {
        /// The number of completed steps.
        done: usize,
        /// The number of failed steps.
        failed: usize,
        /// The number of skipped steps.
        skipped: usize,
        /// The signal that stopped the apply, if any.
        signal: Option<String>,
        /// The duration of the apply, in seconds.
        seconds: f64,
    },
    /// The result of `verify`, after the end of the apply, if it was requested.
    Verified(&'a Verified),
}

/// A step: an action on a resource.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StepRef<'a> {
    /// The resource's kind.
    pub(crate) kind: &'a str,
    /// Its name on AWS.
    pub(crate) name: &'a str,
    /// The action.
    pub(crate) action: Action,
}

/// Prints a line of the stream. Errors are ignored, so that a closed pipe does not stop an apply.
pub(crate) fn print(output: &Output, line: &Line<'_>) {
    let _ = output.print_json(line);
}

/// A reporter that prints the events of an apply as JSON.
#[derive(Debug)]
pub(crate) struct JsonReporter<'a> {
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
