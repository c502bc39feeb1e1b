//! Progress events of an apply. `apply` emits them; the reporters print them.

use std::time::Duration;

use crate::error::Error;
use crate::reconcile::plan::Action;
use crate::reconcile::resource::Address;

/// An event of one step.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// The step has started.
    Started,
    /// The step waits for a condition.
    Waiting {
        /// The condition; continues "waiting for".
        what: &'a str,
        /// The time waited so far.
        elapsed: Duration,
    },
    /// The step consists of many parts and has completed some.
    Progress {
        /// Completed parts.
        done: u64,
        /// Parts known so far.
        total: u64,
    },
    /// The step is done.
    Done {
        /// The duration of the step.
        took: Duration,
    },
    /// The step failed.
    Failed {
        /// The cause.
        error: &'a Error,
    },
    /// The step was not started.
    Skipped {
        /// The resource whose step failed, or `None` if a signal stopped the run.
        because: Option<&'a Address>,
    },
}

/// A receiver of progress events.
pub(crate) trait Reporter: Send + Sync {
    /// Handles one event of one step.
    fn event(&self, address: &Address, action: Action, event: &Event<'_>);
}
