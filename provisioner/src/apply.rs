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

/// Does what the plan says, no more and no less.
///
/// # Errors
/// [`Error::Incomplete`] where a step failed; the reporter was told of each as it happened.
pub async fn apply(aws: &Aws, plan: &Plan, reporter: &dyn Reporter) -> Result<(), Error> {
    let steps: Vec<&Item> = plan.items.iter().filter(|item| item.action != Action::Nothing).collect();
    let nodes: Vec<Node<'_, _>> = steps
        .iter()
        .map(|item| Node { id: item.address(), needs: item.observed.needs(), deletes: item.action == Action::Delete })
        .collect();
    let mut graph = Graph::new(&nodes);
    let (mut failed, mut skipped) = (0, 0);

    let mut running: FuturesUnordered<_> = graph.ready().into_iter().map(|i| run(aws, steps[i], i, reporter)).collect();
    while let Some((i, succeeded)) = running.next().await {
        if succeeded {
            running.extend(graph.done(i).into_iter().map(|next| run(aws, steps[next], next, reporter)));
            continue;
        }
        failed += 1;
        for lost in graph.failed(i) {
            skipped += 1;
            let because = steps[i].address();
            reporter.event(steps[lost].address(), steps[lost].action, &Event::Skipped { because });
        }
    }
    if failed > 0 {
        return Err(Error::Incomplete { failed, skipped, steps: steps.len() });
    }
    Ok(())
}

async fn run(aws: &Aws, item: &Item, index: usize, reporter: &dyn Reporter) -> (usize, bool) {
    let (address, action) = (item.address(), item.action);
    let started = Instant::now();
    reporter.event(address, action, &Event::Started);
    let tell = |what: &str, elapsed| reporter.event(address, action, &Event::Waiting { what, elapsed });
    let step = Step { aws, address, tell: &tell };
    let result = match action {
        Action::Nothing => Ok(()),
        Action::Create | Action::Update => item.observed.converge(&step).await,
        Action::Delete => item.observed.delete(&step).await,
    };
    match &result {
        Ok(()) => reporter.event(address, action, &Event::Done { took: started.elapsed() }),
        Err(error) => reporter.event(address, action, &Event::Failed { error }),
    }
    (index, result.is_ok())
}
