//! Walks a plan: what is independent runs at the same time, what depends on a failure is skipped, the rest goes on.
//! The only caller of create, update and delete.

use std::collections::BTreeSet;
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::aws::Aws;
use crate::error::Error;
use crate::event::{Event, Reporter};
use crate::graph::{Graph, Node};
use crate::kind::Step;
use crate::plan::{Action, Item, Plan};
use crate::signal::{Signal, Stop};

/// What came of the steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Steps that are done.
    pub done: usize,
    /// Steps that failed.
    pub failed: usize,
    /// Steps that were not begun: they waited for one that failed, or a signal came first.
    pub skipped: usize,
    /// The signal, if one came before the end.
    pub stopped: Option<Signal>,
}

impl Outcome {
    /// Whether everything was done.
    ///
    /// # Errors
    /// [`Error::Incomplete`] where it was not.
    pub fn complete(self) -> Result<(), Error> {
        let Self { done, failed, skipped, stopped } = self;
        let steps = done + failed + skipped;
        if let Some(signal) = stopped.filter(|_| done < steps) {
            return Err(Error::Stopped { signal, done, failed, steps });
        }
        if failed + skipped > 0 {
            return Err(Error::Incomplete { failed, skipped, steps });
        }
        Ok(())
    }
}

/// Does what the plan says, no more and no less.
///
/// The reporter is told of each step as it happens. Once a signal has come, no step begins; those that have begun go on
/// to their end.
pub async fn apply(aws: &Aws, plan: &Plan, reporter: &dyn Reporter, stop: &Stop) -> Outcome {
    let steps: Vec<&Item> = plan.items.iter().filter(|item| item.action != Action::Nothing).collect();
    let nodes: Vec<Node<'_, _>> = steps
        .iter()
        .map(|item| Node { id: item.address(), needs: &item.needs, deletes: item.action == Action::Delete })
        .collect();
    let mut graph = Graph::new(&nodes);
    let mut outcome = Outcome::default();

    // What has not begun when a signal comes does not begin any more.
    let mut left: BTreeSet<usize> = (0..steps.len()).collect();
    let mut running = FuturesUnordered::new();
    let mut ready = graph.ready();
    loop {
        for i in ready.drain(..).filter(|_| stop.asked().is_none()) {
            left.remove(&i);
            running.push(run(aws, steps[i], i, reporter));
        }
        let Some((i, succeeded)) = running.next().await else { break };
        if succeeded {
            outcome.done += 1;
            ready = graph.done(i);
            continue;
        }
        outcome.failed += 1;
        for lost in graph.failed(i) {
            // It may have been lost to another failure already.
            if !left.remove(&lost) {
                continue;
            }
            outcome.skipped += 1;
            let because = Some(steps[i].address());
            reporter.event(steps[lost].address(), steps[lost].action, &Event::Skipped { because });
        }
    }
    outcome.stopped = stop.asked();
    for i in left {
        outcome.skipped += 1;
        reporter.event(steps[i].address(), steps[i].action, &Event::Skipped { because: None });
    }
    outcome
}

async fn run(aws: &Aws, item: &Item, index: usize, reporter: &dyn Reporter) -> (usize, bool) {
    let (address, action) = (item.address(), item.action);
    let started = Instant::now();
    reporter.event(address, action, &Event::Started);
    let tell = |what: &str, elapsed| reporter.event(address, action, &Event::Waiting { what, elapsed });
    let count = |done, total| reporter.event(address, action, &Event::Progress { done, total });
    let step = Step { aws, address, tell: &tell, count: &count };
    let result = match action {
        Action::Nothing | Action::Refuse => Ok(()),
        Action::Create | Action::Update => item.observed.converge(&step).await,
        Action::Delete => item.observed.delete(&step).await,
    };
    match &result {
        Ok(()) => reporter.event(address, action, &Event::Done { took: started.elapsed() }),
        Err(error) => reporter.event(address, action, &Event::Failed { error }),
    }
    (index, result.is_ok())
}
