//! The longest chains of calls. Each call that needs the answer of another takes a whole round trip.

use anyhow::{Result, bail, ensure};
use tests::pipeline::Pipeline;
use tests::rounds::Rounds;

use crate::{aws, pipeline};

/// The identity of the caller, a read, and a read that needs the answer of another.
const PLAN: usize = 3;
/// ARCHITECTURE.md lists the calls.
const FIRST_APPLY: usize = 10;

/// Runs a command that succeeds, and returns its rounds of calls.
fn rounds(proxy: &Rounds, pipeline: &Pipeline<'_>, args: &[&str]) -> Result<Vec<Vec<String>>> {
    let (run, rounds) = proxy.run(pipeline.command(args)?)?;
    ensure!(run.code == Some(0), "{args:?}: {}\n{}", run.out, run.err);
    ensure!(rounds.first().is_some_and(|first| *first == ["GetCallerIdentity"]), "{rounds:#?}");
    Ok(rounds)
}

/// Checks the number of rounds of up to three runs. On a busy machine a call may come too late for its round.
fn assert_at_most(most: usize, run: impl Fn() -> Result<Vec<Vec<String>>>) -> Result<()> {
    let mut last = Vec::new();
    for _ in 0..3 {
        last = run()?;
        if last.len() <= most {
            return Ok(());
        }
    }
    bail!("{} rounds instead of {most}:\n{last:#?}", last.len())
}

#[test]
fn chain_of_a_first_apply_is_as_short_as_aws_allows() -> Result<()> {
    let proxy = Rounds::start(&aws()?.endpoint())?;
    assert_at_most(FIRST_APPLY, || rounds(&proxy, &pipeline()?, &["apply", "--yes"]))
}

#[test]
fn plan_without_changes_is_the_identity_and_two_rounds_of_reads() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[segment]\nworkspace_id = \"abc123\"\n[bucket]\nversioning = true\nexpire_days = 30")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let proxy = Rounds::start(&aws()?.endpoint())?;
    assert_at_most(PLAN, || rounds(&proxy, &pipeline, &["plan"]))
}
