//! What happens while a plan is applied. `apply` emits these; the reporters print them.

use std::time::Duration;

use crate::error::Error;
use crate::reconcile::plan::Action;
use crate::reconcile::resource::Address;

/// One thing that happened to one resource.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// The step has begun.
    Started,
    /// The step waits for something.
    Waiting {
        /// Reads on after "waiting for".
        what: &'a str,
        /// For how long so far.
        elapsed: Duration,
    },
    /// The step has many parts, and some are done.
    Progress {
        /// Parts that are done.
        done: u64,
        /// Parts that are known of so far.
        total: u64,
    },
    /// The step is done.
    Done {
        /// How long it took.
        took: Duration,
    },
    /// The step failed.
    Failed {
        /// Why.
        error: &'a Error,
    },
    /// The step was not tried.
    Skipped {
        /// What failed before it; nothing where a signal stopped everything.
        because: Option<&'a Address>,
    },
}

/// Where events go.
pub(crate) trait Reporter: Send + Sync {
    /// Takes one event of one step.
    fn event(&self, address: &Address, action: Action, event: &Event<'_>);
}
