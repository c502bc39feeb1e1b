//! A part of what `make faults` runs: enough to see that each promise is kept.

use anyhow::{Result, ensure};
use tests::faults::killed::{self, Doing};
use tests::faults::{Outcome, Scale};

use crate::aws;

fn kept(outcome: &Outcome) -> Result<()> {
    ensure!(outcome.faults > 0, "nothing was tried");
    ensure!(outcome.lost.is_empty(), "{outcome}\n{}", outcome.lost.join("\n"));
    Ok(())
}

#[test]
fn an_apply_that_is_killed_goes_on_where_it_was() -> Result<()> {
    kept(&killed::at_each_call(aws()?, Doing::Create, Scale::Sample(11))?)
}

#[test]
fn an_update_that_is_killed_goes_on_where_it_was() -> Result<()> {
    kept(&killed::at_each_call(aws()?, Doing::Update, Scale::Sample(11))?)
}

#[test]
fn a_destroy_that_is_killed_goes_on_where_it_was() -> Result<()> {
    kept(&killed::at_each_call(aws()?, Doing::Destroy, Scale::Sample(11))?)
}
