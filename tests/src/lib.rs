//! What the demo and the end-to-end tests share: a local AWS, a pipeline on it, sample files, and an independent recount.

pub mod faults;
pub mod local_aws;
pub mod pipeline;
pub mod recount;
pub mod samples;
pub mod served;
