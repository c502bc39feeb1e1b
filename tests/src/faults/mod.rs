//! Fault injection. Each fault is injected where a real one would occur, and its consequences are checked. The tests
//! run a sample of the faults, `make faults` all of them.

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

/// An evenly spread sample of the cases: every `step`-th, beginning with `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// The distance between two cases.
    pub step: usize,
    /// The index of the first case.
    pub first: usize,
}

impl Sampling {
    /// All cases.
    pub const ALL: Self = Self { step: 1, first: 0 };

    /// Selects one of every `step` cases.
    #[must_use]
    pub fn one_in(step: usize) -> Self {
        Self { step, first: 0 }
    }

    /// Returns the indices of the selected cases, of `count` in all.
    pub fn indices(self, count: usize) -> impl Iterator<Item = usize> {
        (self.first..count).step_by(self.step.max(1))
    }
}

/// The result of testing a guarantee.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The number of runs of the program.
    pub runs: usize,
    /// The number of injected faults.
    pub faults: usize,
    /// One line for each violation: lost, counted twice, left incomplete, or in need of manual repair.
    pub lost: Vec<String>,
}

impl Outcome {
    /// Adds up two outcomes.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
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

/// Declares a pipeline in an account of its own. Account numbers from a million up are reserved for faults.
pub fn pipeline(aws: &LocalAws) -> Result<Pipeline<'_>> {
    static NEXT: AtomicU32 = AtomicU32::new(1_000_000);
    Pipeline::new(aws, NEXT.fetch_add(1, Ordering::Relaxed))
}
