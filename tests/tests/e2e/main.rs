//! Tests of the built programs against the local AWS, each test in an account of its own. Each module is named after
//! a command or a guarantee.
//!
//! One server serves all tests of a run. It ends with this process, which holds its standard input open.

use std::sync::{LazyLock, OnceLock};

use anyhow::{Context, Result};
use tests::local_aws::{LocalAws, Scheme};
use tests::pipeline::Pipeline;

mod alarms;
mod apply;
mod archive;
mod backfill;
mod breakdowns;
mod browser;
mod chains;
mod ci;
mod client;
mod coexistence;
mod common;
mod completions;
mod concurrency;
mod consumers;
mod counts;
mod dashboard;
mod delivery;
mod destroy;
mod documents;
mod drift;
mod exactly_once;
mod examples;
mod faults;
mod formats;
mod from_terraform;
mod handler;
mod init;
mod input;
mod least_privilege;
mod memory;
mod openings;
mod ownership;
mod patience;
mod plan;
mod policy;
mod replay;
mod rollup;
mod schema;
mod served;
mod status;
mod stream;
mod strict;
mod strict_kinds;
mod strictness;
mod sums;
mod tls;
mod uploads;
mod validate;
mod verify;

/// Returns the server; the first call starts it.
fn aws() -> Result<&'static LocalAws> {
    static AWS: LazyLock<Result<LocalAws>> = LazyLock::new(|| LocalAws::start(Scheme::Http));
    match &*AWS {
        Ok(aws) => Ok(aws),
        Err(error) => anyhow::bail!("{error:#}"),
    }
}

/// Returns the server behind the layer that is as strict as AWS; the first call starts it.
fn strict_aws() -> Result<&'static LocalAws> {
    static AWS: LazyLock<Result<LocalAws>> = LazyLock::new(LocalAws::start_strict);
    match &*AWS {
        Ok(aws) => Ok(aws),
        Err(error) => anyhow::bail!("{error:#}"),
    }
}

/// Returns a number that no other pipeline of this run has.
fn next_number() -> u32 {
    static NEXT: OnceLock<std::sync::atomic::AtomicU32> = OnceLock::new();
    NEXT.get_or_init(Default::default).fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Declares a pipeline in an account that no other test uses.
fn pipeline() -> Result<Pipeline<'static>> {
    Pipeline::new(aws()?, next_number())
}

/// Declares a pipeline in such an account of the strict local AWS.
fn strict_pipeline() -> Result<Pipeline<'static>> {
    Pipeline::new(strict_aws()?, next_number())
}

/// Returns the lines of a plan that name a resource and its action.
fn steps(plan: &str) -> Vec<&str> {
    plan.lines().filter(|line| ["  + ", "  ~ ", "  - "].iter().any(|symbol| line.starts_with(symbol))).collect()
}

/// Returns the last line of a plan, its summary.
fn verdict(out: &str) -> Result<&str> {
    out.lines()
        .rfind(|line| line.starts_with("Plan: ") || line.starts_with("No changes."))
        .context("a plan's last line")
}
