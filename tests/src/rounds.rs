//! A proxy in front of the local AWS that measures the longest chain of calls (`tests/rounds.py`).
//!
//! It holds all calls until the program sends no more, and passes them on together. So a call that needs the answer of
//! another is in a later round, and the number of rounds does not depend on the speed of the machine, unless a call comes
//! too late for its round. Then there are more rounds, never fewer.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::local_aws::{free_port, root};
use crate::pipeline::CommandOutput;

/// The timeout for the proxy's start, which takes half a second, and longer on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The seconds without a call after which a round is passed on.
const QUIET: &str = "0.8";

/// A running proxy, for one program at a time. Dropping it stops it.
pub struct Rounds {
    child: Child,
    port: u16,
}

impl Rounds {
    /// Starts a proxy on a free port.
    ///
    /// # Errors
    /// The proxy is not installed, or does not start.
    pub fn start(upstream: &str) -> Result<Self> {
        let python = root().join(".venv/bin/python");
        ensure!(python.is_file(), "the proxy is not installed: run `make venv`");
        let port = free_port()?;
        let mut command = Command::new(python);
        command.arg(root().join("tests/rounds.py")).args([port.to_string().as_str(), upstream, "--quiet", QUIET]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("failed to start the proxy")?;
        let mut rounds = Self { child, port };
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            if rounds.child.try_wait().context("failed to check the proxy")?.is_some() {
                bail!("the proxy ended");
            }
            if rounds.take().is_ok() {
                return Ok(rounds);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the proxy did not start")
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the rounds since the last time.
    fn take(&self) -> Result<Vec<Vec<String>>> {
        let mut answer = ureq::get(format!("{}/_rounds", self.endpoint())).call().context("no answer of the proxy")?;
        let answer: Value = answer.body_mut().read_json().context("no rounds")?;
        serde_json::from_value(answer["rounds"].clone()).context("no rounds")
    }

    /// Runs a command through this proxy, and returns its output and its rounds of calls.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn run(&self, mut command: Command) -> Result<(CommandOutput, Vec<Vec<String>>)> {
        let output = command.env("AWS_ENDPOINT_URL", self.endpoint()).output().context("failed to run the program")?;
        Ok((CommandOutput::of(&output), self.take()?))
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        // Closing standard input stops the proxy.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
