//! A part of what `make faults` runs: enough to see that each promise is kept.

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use tests::faults::killed::{self, Doing};
use tests::faults::weather::Weather;
use tests::faults::{Outcome, Scale, calls, handler};

use crate::aws;

fn kept(outcome: &Outcome) -> Result<()> {
    ensure!(outcome.faults > 0, "nothing was tried");
    ensure!(outcome.lost.is_empty(), "{outcome}\n{}", outcome.lost.join("\n"));
    Ok(())
}

#[test]
fn an_apply_that_is_killed_goes_on_where_it_was() -> Result<()> {
    kept(&killed::at_each_call(aws()?, Doing::Create, Scale::sample(11))?)
}

#[test]
fn an_update_that_is_killed_goes_on_where_it_was() -> Result<()> {
    kept(&killed::at_each_call(aws()?, Doing::Update, Scale::sample(11))?)
}

#[test]
fn a_destroy_that_is_killed_goes_on_where_it_was() -> Result<()> {
    kept(&killed::at_each_call(aws()?, Doing::Destroy, Scale::sample(11))?)
}

/// The fault proxy, started by the first test that needs it.
pub(crate) fn weather() -> Result<&'static Weather> {
    static WEATHER: LazyLock<Result<Weather>> = LazyLock::new(|| Weather::start(&crate::aws()?.endpoint(), 1));
    WEATHER.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))
}

#[test]
fn a_call_that_fails_once_leaves_nothing_behind() -> Result<()> {
    kept(&calls::each_fails_once(aws()?, weather()?, Scale::sample(83))?)
}

#[test]
fn in_bad_weather_an_apply_converges() -> Result<()> {
    let (outcome, _) = calls::random(aws()?, 1..4)?;
    kept(&outcome)
}

#[tokio::test]
async fn in_bad_weather_the_function_loses_nothing() -> Result<()> {
    kept(&handler::in_bad_weather(60, 1).await?)
}
