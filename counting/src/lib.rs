//! Exactly-once counting of events: the code that the Lambda function and the provisioner share.
//!
//! ```text
//! notification -> objects -> bytes -> rollup (line, hour) -> totals -> protocol (plan, record) -> Store
//! ```
//!
//! The crate has no runtime and no clients: the function implements [`protocol::Store`] over DynamoDB, and the tests
//! implement it over a store with injected faults.

pub mod amount;
pub mod consumer;
mod fields;
pub mod hour;
pub mod line;
pub mod names;
pub mod notification;
pub mod plan;
pub mod protocol;
pub mod record;
pub mod rollup;
pub mod stats;
mod values;
