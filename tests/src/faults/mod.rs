//! Faults, each injected where a real one would be, and what came of them: the tests run a part of these, `make faults`
//! all.

pub mod calls;
pub mod handler;
pub mod killed;
pub mod proxy;
pub mod weather;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::local_aws::LocalAws;
use crate::pipeline::Pipeline;

/// How much is tried: one of so many, spread evenly, from one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// One of so many.
    pub step: usize,
    /// The first one.
    pub first: usize,
}

impl Scale {
    /// Everything.
    pub const ALL: Self = Self { step: 1, first: 0 };

    /// One of `step`.
    #[must_use]
    pub fn sample(step: usize) -> Self {
        Self { step, first: 0 }
    }

    /// Those of `0..most` that are tried.
    pub fn of(self, most: usize) -> impl Iterator<Item = usize> {
        (self.first..most).step_by(self.step.max(1))
    }
}

/// What came of a promise.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Runs of the program.
    pub runs: usize,
    /// Faults that were injected.
    pub faults: usize,
    /// What was lost, counted twice, left half made or needed a hand: a line each.
    pub lost: Vec<String>,
}

impl Outcome {
    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.runs += other.runs;
        self.faults += other.faults;
        self.lost.extend(other.lost);
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} runs, {} faults, {} lost", self.runs, self.faults, self.lost.len())
    }
}

/// Pipelines in accounts that nothing else on the server uses: the numbers from a million on are for faults.
pub fn pipeline(aws: &LocalAws) -> Result<Pipeline<'_>> {
    static NEXT: AtomicU32 = AtomicU32::new(1_000_000);
    Pipeline::new(aws, NEXT.fetch_add(1, Ordering::Relaxed))
}
