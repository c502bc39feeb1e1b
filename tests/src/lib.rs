//! The harness of the demo and the end-to-end tests: a local AWS, a pipeline on it, sample files, faults, and an
//! independent recount.

pub mod consumer;
pub mod faults;
pub mod local_aws;
pub mod pipeline;
pub mod recount;
pub mod rounds;
pub mod samples;
pub mod strict;
