//! Walks a plan: what is independent runs at the same time, what depends on a failure is skipped, the rest goes on.
//! The only caller of create, update and delete.

use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::aws::Aws;
use crate::error::Error;
use crate::event::{Event, Reporter};
use crate::graph::{Graph, Node};
use crate::kind::Step;
use crate::plan::{Action, Item, Plan};

/// What came of the steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Steps that are done.
    pub done: usize,
    /// Steps that failed.
    pub failed: usize,
    /// Steps that waited for one that failed.
    pub skipped: usize,
}

impl Outcome {
    /// Whether everything was done.
    ///
    /// # Errors
    /// [`Error::Incomplete`] where it was not.
    pub fn complete(self) -> Result<(), Error> {
        let Self { done, failed, skipped } = self;
        if failed + skipped > 0 {
            return Err(Error::Incomplete { failed, skipped, steps: done + failed + skipped });
        }
        Ok(())
    }
}

/// Does what the plan says, no more and no less.
/// The reporter is told of each step as it happens.
pub async fn apply(aws: &Aws, plan: &Plan, reporter: &dyn Reporter) -> Outcome {
    let steps: Vec<&Item> = plan.items.iter().filter(|item| item.action != Action::Nothing).collect();
    let nodes: Vec<Node<'_, _>> = steps
        .iter()
        .map(|item| Node { id: item.address(), needs: &item.needs, deletes: item.action == Action::Delete })
        .collect();
    let mut graph = Graph::new(&nodes);
    let mut outcome = Outcome::default();

    let mut running: FuturesUnordered<_> = graph.ready().into_iter().map(|i| run(aws, steps[i], i, reporter)).collect();
    while let Some((i, succeeded)) = running.next().await {
        if succeeded {
            outcome.done += 1;
            running.extend(graph.done(i).into_iter().map(|next| run(aws, steps[next], next, reporter)));
            continue;
        }
        outcome.failed += 1;
        for lost in graph.failed(i) {
            outcome.skipped += 1;
            let because = steps[i].address();
            reporter.event(steps[lost].address(), steps[lost].action, &Event::Skipped { because });
        }
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
