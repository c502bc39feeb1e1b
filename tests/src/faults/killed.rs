//! Kills the program (SIGKILL) right before and right after each of its calls, then runs it again.

use anyhow::{Context, Result};

use super::proxy::{Proxy, Side};
use super::{Outcome, Sampling, pipeline};
use crate::local_aws::LocalAws;
use crate::pipeline::{Pipeline, RESOURCES};

/// The operation during which the program is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A first apply.
    Create,
    /// An apply of many changes.
    Update,
    /// A destroy of all resources.
    Destroy,
}

/// The first declaration, and the one that is applied on top of it. They differ in every setting.
const INITIAL: &str = "[bucket]\nversioning = true\nexpire_days = 30\n[function]\nmax_concurrency = 3\n\
                     [segment]\nworkspace_id = \"abc123\"";
const CHANGED: &str = "[bucket]\nexpire_days = 60\n[tags]\nteam = \"data\"\n\
                    [table]\nbilling = { read = 5, write = 5 }\n\
                    [function]\nmemory_mb = 512\nretries = 1\nlog_retention_days = 7\n\
                    [notification]\nprefix = \"other/\"\n\
                    [segment]\nworkspace_id = \"other\"\n\
                    [[role.statement]]\nactions = [\"s3:GetObject\"]\nresources = [\"arn:aws:s3:::acme/*\"]";

impl Operation {
    /// Brings the pipeline into the state in which the operation starts.
    fn prepare(self, pipeline: &Pipeline<'_>) -> Result<()> {
        pipeline.declare(INITIAL)?;
        if self != Self::Create {
            pipeline.expect(0, &["apply", "--yes"])?;
        }
        if self == Self::Update {
            pipeline.declare(CHANGED)?;
        }
        Ok(())
    }

    fn command(self) -> &'static [&'static str] {
        match self {
            Self::Create | Self::Update => &["apply", "--yes"],
            Self::Destroy => &["destroy", "--yes", "--delete-data"],
        }
    }

    /// Returns the last line of a plan after the second run.
    fn expected_verdict(self) -> String {
        match self {
            Self::Create | Self::Update => "No changes.".to_owned(),
            // Segment's role is an additional resource.
            Self::Destroy => format!("Plan: {} to create, 0 to update, 0 to delete.", RESOURCES + 1),
        }
    }
}

/// Kills the program at the calls of `sampling`, before and after each, and runs it again.
///
/// # Errors
/// The local AWS or the program cannot be run. A run that does not converge is reported as lost, not as an
/// error.
pub fn kill_at_each_call(aws: &LocalAws, operation: Operation, sampling: Sampling) -> Result<Outcome> {
    let proxy = Proxy::start(&aws.endpoint())?;
    let undisturbed = pipeline(aws)?;
    operation.prepare(&undisturbed)?;
    let (calls, _) = proxy.run(undisturbed.command(operation.command())?, None)?;
    anyhow::ensure!(calls > 20, "{operation:?} made {calls} calls through the proxy");

    let mut outcome = Outcome::default();
    // A pipeline is reused after a complete destroy.
    let mut current = pipeline(aws)?;
    for call in sampling.indices(calls) {
        for side in [Side::Before, Side::After] {
            if operation != Operation::Destroy {
                current = pipeline(aws)?;
            }
            operation.prepare(&current)?;
            let (_, killed) = proxy.run(current.command(operation.command())?, Some((call + 1, side)))?;
            outcome.runs += 2;
            outcome.faults += usize::from(killed);
            let at = format!("{operation:?} killed {side:?} call {} of {calls}", call + 1);
            let again = current.run(operation.command())?;
            if again.code != Some(0) {
                outcome.lost.push(format!("{at}: the next run failed\n{}\n{}", again.out, again.err));
                current = pipeline(aws)?;
                continue;
            }
            let plan = current.run(&["plan"])?;
            let verdict = plan.out.lines().next_back().context("an empty plan")?;
            if verdict != operation.expected_verdict() {
                outcome.lost.push(format!("{at}: the next plan is\n{}\n{}", plan.out, plan.err));
            }
            // Deleted functions use no memory on the server.
            if operation != Operation::Destroy {
                current.run(&["destroy", "--yes", "--delete-data"])?;
            }
        }
    }
    Ok(outcome)
}
