//! The counts and the ledger: their readers, and the periods of queries.

mod breakdown;
pub(crate) mod calendar;
pub(crate) mod moment;
pub(crate) mod period;
mod quantity;
mod reader;
mod records;

pub(crate) use breakdown::Breakdown;
pub(crate) use quantity::Quantity;
pub(crate) use reader::{
    AT_ONCE, Measure, Names, Numbers, Progress, RECENT_DAYS, Ranked, Reader, Series, Top, Which, add_event, memory,
    similar,
};
pub(crate) use records::{Records, Skipped, skips};

/// Returns clients that cannot reach AWS, and a pipeline.
#[cfg(test)]
fn example() -> (crate::aws::Aws, crate::config::Pipeline) {
    let config = aws_config::SdkConfig::builder().behavior_version(aws_config::BehaviorVersion::latest()).build();
    let text = "[pipeline]\nname = \"events\"\nregion = \"us-east-1\"\naccount = \"123456789012\"";
    (crate::aws::Aws::new(&config), crate::config::parse("pipeline.toml", text, None).expect("a pipeline"))
}

#[cfg(test)]
impl Reader {
    /// Returns a reader that cannot reach AWS.
    pub(crate) fn example() -> Self {
        let (aws, pipeline) = example();
        Self::new(&aws, &pipeline)
    }
}

#[cfg(test)]
impl Records {
    /// Returns a reader that cannot reach AWS.
    pub(crate) fn example() -> Self {
        let (aws, pipeline) = example();
        Self::new(&aws, &pipeline)
    }
}
