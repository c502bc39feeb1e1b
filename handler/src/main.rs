//! The binary: counts by the names that the messages have.

// The futures of the SDK's calls are nested deeply.
#![recursion_limit = "256"]

/// Runs the function. Lambda gives a process one invocation at a time, so one thread is enough.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), handler::runtime::Error> {
    handler::runtime::run(None).await
}
