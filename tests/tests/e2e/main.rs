//! The built programs against the local AWS, each test in an account of its own.
//!
//! One server serves all tests of a run. It ends with this process: its standard input is ours.

use std::sync::{LazyLock, OnceLock};

use anyhow::{Context, Result};
use tests::local_aws::{LocalAws, Scheme};
use tests::pipeline::Pipeline;

mod answers;
mod browser;
mod counting;
mod dashboard;
mod deployer;
mod drift;
mod exactly_once;
mod faults;
mod formats;
mod lifecycle;
mod memory;
mod mistakes;
mod operate;
mod ownership;
mod patience;
mod rights;
mod rollup;
mod sharing;
mod start;
mod strictness;
mod tls;
mod together;

/// The server, started by the first test that needs it.
fn aws() -> Result<&'static LocalAws> {
    static AWS: LazyLock<Result<LocalAws>> = LazyLock::new(|| LocalAws::start(Scheme::Http));
    match &*AWS {
        Ok(aws) => Ok(aws),
        Err(error) => anyhow::bail!("{error:#}"),
    }
}

/// A pipeline in an account that no other test uses.
fn pipeline() -> Result<Pipeline<'static>> {
    static NEXT: OnceLock<std::sync::atomic::AtomicU32> = OnceLock::new();
    let number = NEXT.get_or_init(Default::default).fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Pipeline::new(aws()?, number)
}

/// The lines of a plan that name a resource and what happens to it.
fn steps(plan: &str) -> Vec<&str> {
    plan.lines().filter(|line| ["  + ", "  ~ ", "  - "].iter().any(|symbol| line.starts_with(symbol))).collect()
}

/// The last line of a plan, which says what it comes to.
fn verdict(out: &str) -> Result<&str> {
    out.lines().rfind(|line| line.starts_with("Plan: ") || *line == "No changes.").context("a plan's last line")
}
