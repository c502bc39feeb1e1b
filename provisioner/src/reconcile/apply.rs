//! Executes a plan: independent steps run concurrently, steps that depend on a failed one are skipped, all others
//! continue. The only caller of create, update and delete.

use std::collections::BTreeSet;
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::aws::Aws;
use crate::error::{Error, ErrorKind};
use crate::reconcile::graph::{Graph, Node};
use crate::reconcile::plan::{Action, Plan, PlannedResource};
use crate::reconcile::progress::{Event, Reporter};
use crate::reconcile::resource::StepContext;
use crate::shutdown::{Shutdown, Signal};

/// The number of steps by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Steps that succeeded.
    pub(crate) done: usize,
    /// Steps that failed.
    pub(crate) failed: usize,
    /// Steps that did not start: they depend on a failed one, or a signal arrived first.
    pub(crate) skipped: usize,
    /// The signal, if one arrived before the end.
    pub(crate) stopped: Option<Signal>,
}

impl Outcome {
    /// Returns an error unless every step succeeded.
    ///
    /// # Errors
    /// [`ErrorKind::Incomplete`] or [`ErrorKind::Interrupted`].
    pub(crate) fn complete(self) -> Result<(), Error> {
        const HELP: &str = "fix the cause and run the command again; completed steps are not repeated";
        let Self { done, failed, skipped, stopped } = self;
        let steps = done + failed + skipped;
        if let Some(signal) = stopped.filter(|_| done < steps) {
            let failures = if failed == 0 { String::new() } else { format!(", {failed} failed") };
            return Err(Error::interrupted(
                signal.exit_code(),
                format!("{signal}: stopped after {done} of {steps} steps{failures}"),
                "run the command again to continue; completed steps are not repeated",
            ));
        }
        if failed + skipped > 0 {
            let message = format!("{failed} of {steps} steps failed, {skipped} were skipped");
            return Err(Error::new(ErrorKind::Incomplete, message, HELP));
        }
        Ok(())
    }
}

/// Executes exactly the steps of the plan.
///
/// Every event of a step is passed to the reporter. After a signal no further step starts; running steps finish.
pub(crate) async fn apply(aws: &Aws, plan: &Plan, reporter: &dyn Reporter, shutdown: &Shutdown) -> Outcome {
    let steps: Vec<&PlannedResource> = plan.items.iter().filter(|item| item.action != Action::NoOp).collect();
    let nodes: Vec<Node<'_, _>> = steps
        .iter()
        .map(|item| {
            let deletes = item.action == Action::Delete;
            Node { id: item.address(), depends_on: &item.depends_on, after: &item.after, deletes }
        })
        .collect();
    let mut graph = Graph::new(&nodes);
    let mut outcome = Outcome::default();

    let mut not_started: BTreeSet<usize> = (0..steps.len()).collect();
    let (exists, mut existing) = unbounded_channel();
    let mut running = FuturesUnordered::new();
    let mut ready = graph.ready();
    loop {
        for i in ready.drain(..).filter(|_| shutdown.requested().is_none()) {
            not_started.remove(&i);
            running.push(run(aws, steps[i], i, reporter, &exists));
        }
        let ended = tokio::select! {
            Some(i) = existing.recv() => {
                ready = graph.exists(i);
                continue;
            }
            ended = running.next() => ended,
        };
        let Some((i, succeeded)) = ended else { break };
        if succeeded {
            outcome.done += 1;
            ready = graph.done(i);
            continue;
        }
        outcome.failed += 1;
        for skipped in graph.failed(i) {
            // Another failure may have skipped it already.
            if !not_started.remove(&skipped) {
                continue;
            }
            outcome.skipped += 1;
            let because = Some(steps[i].address());
            reporter.event(steps[skipped].address(), steps[skipped].action, &Event::Skipped { because });
        }
    }
    outcome.stopped = shutdown.requested();
    // A signal arrived before these steps could start.
    for i in not_started {
        outcome.skipped += 1;
        reporter.event(steps[i].address(), steps[i].action, &Event::Skipped { because: None });
    }
    outcome
}

async fn run(
    aws: &Aws,
    item: &PlannedResource,
    index: usize,
    reporter: &dyn Reporter,
    exists: &UnboundedSender<usize>,
) -> (usize, bool) {
    let (address, action) = (item.address(), item.action);
    let started = Instant::now();
    reporter.event(address, action, &Event::Started);
    let on_wait = |what: &str, elapsed| reporter.event(address, action, &Event::Waiting { what, elapsed });
    let on_progress = |done, total| reporter.event(address, action, &Event::Progress { done, total });
    let on_exists = || {
        let _ = exists.send(index);
    };
    let step = StepContext { aws, address, on_wait: &on_wait, on_progress: &on_progress, on_exists: &on_exists };
    let result = match action {
        Action::NoOp | Action::Conflict => Ok(()),
        Action::Create | Action::Update => item.observed.create_or_update(&step).await,
        Action::Delete => item.observed.delete(&step).await,
    };
    match &result {
        Ok(()) => reporter.event(address, action, &Event::Done { took: started.elapsed() }),
        Err(error) => reporter.event(address, action, &Event::Failed { error }),
    }
    (index, result.is_ok())
}
