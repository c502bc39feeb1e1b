//! A sample of the faults that `make faults` injects: enough to test each guarantee.

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use tests::faults::killed::{self, Operation};
use tests::faults::weather::Weather;
use tests::faults::{Outcome, Sampling, calls, handler};

use crate::aws;

fn assert_kept(outcome: &Outcome) -> Result<()> {
    ensure!(outcome.faults > 0, "no fault was injected");
    ensure!(outcome.lost.is_empty(), "{outcome}\n{}", outcome.lost.join("\n"));
    Ok(())
}

#[test]
fn apply_killed_at_any_call_is_completed_by_the_next() -> Result<()> {
    assert_kept(&killed::kill_at_each_call(aws()?, Operation::Create, Sampling::one_in(17))?)
}

#[test]
fn update_killed_at_any_call_is_completed_by_the_next() -> Result<()> {
    assert_kept(&killed::kill_at_each_call(aws()?, Operation::Update, Sampling::one_in(17))?)
}

#[test]
fn destroy_killed_at_any_call_is_completed_by_the_next() -> Result<()> {
    assert_kept(&killed::kill_at_each_call(aws()?, Operation::Destroy, Sampling::one_in(17))?)
}

/// Returns the fault proxy; the first call starts it.
pub(crate) fn weather() -> Result<&'static Weather> {
    static WEATHER: LazyLock<Result<Weather>> = LazyLock::new(|| Weather::start(&crate::aws()?.endpoint(), 1));
    WEATHER.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))
}

#[test]
fn call_failing_once_is_recovered_by_the_next_run() -> Result<()> {
    assert_kept(&calls::fail_each_call_once(aws()?, weather()?, Sampling::one_in(127))?)
}

#[test]
fn apply_under_random_faults_converges() -> Result<()> {
    let (outcome, _) = calls::fail_at_random(aws()?, 1..4)?;
    assert_kept(&outcome)
}

#[tokio::test]
async fn function_under_random_faults_counts_or_queues_every_object() -> Result<()> {
    assert_kept(&handler::fail_at_random(60, 1).await?)
}
