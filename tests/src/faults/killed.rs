//! The program is ended (SIGKILL) right before and right after each of its calls; then it is run again.

use anyhow::{Context, Result};

use super::proxy::{Proxy, Side};
use super::{Outcome, Scale, pipeline};
use crate::local_aws::LocalAws;
use crate::pipeline::Pipeline;

/// What the program was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// An apply from nothing.
    Create,
    /// An apply of many changes.
    Update,
    /// A destroy of everything.
    Destroy,
}

/// What is declared first, and what then: between them every setting differs.
const FIRST: &str = "[bucket]\nversioning = true\nexpire_days = 30\n[function]\nmax_concurrency = 3\n\
                     [segment]\nworkspace_id = \"abc123\"";
const THEN: &str = "[bucket]\nexpire_days = 60\n[tags]\nteam = \"data\"\n[table]\nbilling = { read = 5, write = 5 }\n\
                    [function]\nmemory_mb = 512\nretries = 1\nlog_retention_days = 7\n[notification]\nprefix = \"other/\"\n\
                    [segment]\nworkspace_id = \"other\"\n\
                    [[role.statement]]\nactions = [\"s3:GetObject\"]\nresources = [\"arn:aws:s3:::acme/*\"]";

impl Doing {
    /// Brings the pipeline to where the program starts from.
    fn prepare(self, pipeline: &Pipeline<'_>) -> Result<()> {
        pipeline.declare(FIRST)?;
        if self != Self::Create {
            pipeline.expect(0, &["apply", "--yes"])?;
        }
        if self == Self::Update {
            pipeline.declare(THEN)?;
        }
        Ok(())
    }

    fn command(self) -> &'static [&'static str] {
        match self {
            Self::Create | Self::Update => &["apply", "--yes"],
            Self::Destroy => &["destroy", "--yes", "--delete-data"],
        }
    }

    /// What a plan must say after the second run.
    fn end(self) -> &'static str {
        match self {
            Self::Create | Self::Update => "No changes.",
            Self::Destroy => "Plan: 10 to create, 0 to update, 0 to delete.",
        }
    }
}

/// Ends the program at calls of `scale`, on both sides of each, and runs it again.
///
/// # Errors
/// The local AWS or the program cannot be run. What does not converge is no error, but lost.
pub fn at_each_call(aws: &LocalAws, doing: Doing, scale: Scale) -> Result<Outcome> {
    let proxy = Proxy::start(&aws.endpoint())?;
    let undisturbed = pipeline(aws)?;
    doing.prepare(&undisturbed)?;
    let (calls, _) = proxy.run(undisturbed.command(doing.command())?, None)?;
    anyhow::ensure!(calls > 20, "{doing:?} made {calls} calls through the proxy");

    let mut outcome = Outcome::default();
    // One is used again where nothing is left of it.
    let mut current = pipeline(aws)?;
    for call in scale.of(calls) {
        for side in [Side::Before, Side::After] {
            if doing != Doing::Destroy {
                current = pipeline(aws)?;
            }
            doing.prepare(&current)?;
            let (_, killed) = proxy.run(current.command(doing.command())?, Some((call + 1, side)))?;
            outcome.runs += 2;
            outcome.faults += usize::from(killed);
            let at = format!("{doing:?} ended {side:?} call {} of {calls}", call + 1);
            let again = current.run(doing.command())?;
            if again.code != Some(0) {
                outcome.lost.push(format!("{at}: the next run failed\n{}\n{}", again.out, again.err));
                current = pipeline(aws)?;
                continue;
            }
            let plan = current.run(&["plan"])?;
            let verdict = plan.out.lines().next_back().context("a plan says nothing")?;
            if verdict != doing.end() {
                outcome.lost.push(format!("{at}: the plan then says\n{}\n{}", plan.out, plan.err));
            }
            // Functions that are not there any more take no memory on the server.
            if doing != Doing::Destroy {
                current.run(&["destroy", "--yes", "--delete-data"])?;
            }
        }
    }
    Ok(outcome)
}
