//! The layer in front of the local AWS that is as strict as AWS's documentation (`tests/strict/`).

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::local_aws::root;

/// The timeout for the start, which takes half a second, and longer on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running layer. Dropping it stops it.
pub struct Strict {
    child: Child,
    port: u16,
}

impl Strict {
    /// Starts the layer on a port, in front of a server on another port of this machine, which may start later.
    ///
    /// # Errors
    /// The layer is not installed, or does not start.
    pub fn start(port: u16, upstream: u16) -> Result<Self> {
        let python = root().join(".venv/bin/python");
        ensure!(python.is_file(), "the strict layer is not installed: run `make venv`");
        let mut command = Command::new(python);
        command.arg(root().join("tests/strict")).arg(port.to_string()).arg(format!("http://127.0.0.1:{upstream}"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let child = command.stdin(Stdio::piped()).spawn().context("failed to start the strict layer")?;
        let mut strict = Self { child, port };
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            if strict.child.try_wait().context("failed to check the strict layer")?.is_some() {
                bail!("the strict layer ended");
            }
            if ureq::get(format!("{}/_strict/health", strict.endpoint())).call().is_ok() {
                return Ok(strict);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the strict layer did not start")
    }

    /// Returns its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn account(&self, account: &str) -> String {
        format!("{}/_strict/accounts/{account}", self.endpoint())
    }

    /// Replaces the switches of an account: the behaviours that are on and off besides the others, and their settings.
    ///
    /// # Errors
    /// The layer does not know a behaviour.
    pub fn switch(&self, account: &str, on: &[&str], off: &[&str], settings: &Value) -> Result<()> {
        let body = json!({ "on": on, "off": off, "settings": settings });
        ureq::put(self.account(account)).send_json(&body).context("the strict layer refuses the switches")?;
        Ok(())
    }

    /// Returns what happened in an account: `fired` counts the answers of each behaviour, `violations` lists the
    /// requests that break AWS's service models.
    ///
    /// # Errors
    /// The layer does not answer.
    pub fn report(&self, account: &str) -> Result<Value> {
        let mut answer = ureq::get(self.account(account)).call().context("the strict layer does not answer")?;
        answer.body_mut().read_json().context("the report is not JSON")
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        // Closing standard input stops the layer.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
