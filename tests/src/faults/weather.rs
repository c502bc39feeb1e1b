//! microburst in front of the local AWS: AWS-shaped faults by rule.
//!
//! It changes the `Host` of requests, which breaks signatures; only the account-id keys of the local AWS keep working.
//! Every rule is bound to one account by its key, so one proxy serves many tests.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::local_aws::{free_port, root};

/// The timeout for the proxy's start, which takes a second or two, and longer on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running fault proxy. Dropping it stops it.
pub struct Weather {
    child: Child,
    port: u16,
}

impl Weather {
    /// Starts a proxy on a free port. The same seed produces the same faults.
    ///
    /// # Errors
    /// The proxy is not installed, or does not start.
    pub fn start(upstream: &str, seed: u64) -> Result<Self> {
        // Another process can take the free port before the proxy does; each attempt chooses another port.
        let mut last = Self::start_at(free_port()?, upstream, seed);
        for _ in 0..2 {
            if last.is_ok() {
                break;
            }
            last = Self::start_at(free_port()?, upstream, seed);
        }
        last
    }

    /// Starts a proxy on this port.
    ///
    /// # Errors
    /// As [`Weather::start`].
    pub fn start_at(port: u16, upstream: &str, seed: u64) -> Result<Self> {
        let python = root().join(".venv/bin/python");
        ensure!(python.is_file(), "the fault proxy is not installed: run `make venv`");
        let mut command = Command::new(python);
        command.arg(root().join("tests/fault_proxy.py")).args([
            port.to_string(),
            upstream.to_owned(),
            seed.to_string(),
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("failed to start the fault proxy")?;
        let mut weather = Self { child, port };
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            let healthy = weather.get("health").is_ok();
            if weather.child.try_wait().context("failed to check the fault proxy")?.is_some() {
                bail!("the fault proxy ended");
            }
            if healthy {
                return Ok(weather);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the fault proxy did not start")
    }

    /// Returns the proxy's URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut answer = ureq::get(format!("{}/_microburst/{path}", self.endpoint())).call()?;
        Ok(answer.body_mut().read_json()?)
    }

    fn rules(&self, account: &str) -> Result<Vec<Value>> {
        let rules = self.get("rules")?;
        let key = key(account);
        Ok(rules
            .as_array()
            .into_iter()
            .flatten()
            .filter(|rule| rule["headers"]["authorization"] == key)
            .cloned()
            .collect())
    }

    /// Adds rules in microburst's format for the calls of one account's root.
    ///
    /// # Errors
    /// The proxy rejects them.
    pub fn add(&self, account: &str, rules: &[Value]) -> Result<()> {
        let bound = |rule: &Value| {
            let mut rule = rule.clone();
            rule["headers"] = json!({ "authorization": key(account) });
            rule
        };
        self.add_for_all(&rules.iter().map(bound).collect::<Vec<_>>())
    }

    /// Adds rules for all calls of all accounts.
    ///
    /// # Errors
    /// The proxy rejects them.
    pub fn add_for_all(&self, rules: &[Value]) -> Result<()> {
        let request = ureq::patch(format!("{}/_microburst/rules", self.endpoint()));
        request.send_json(rules).context("the fault proxy rejects the rules")?;
        Ok(())
    }

    /// Returns the number of faults that all rules have injected.
    ///
    /// # Errors
    /// The proxy does not answer.
    pub fn fired(&self) -> Result<usize> {
        let rules = self.get("rules")?;
        let fired: u64 = rules.as_array().into_iter().flatten().filter_map(|rule| rule["fired_count"].as_u64()).sum();
        Ok(usize::try_from(fired)?)
    }

    /// Returns the number of faults that an account's rules have injected.
    ///
    /// # Errors
    /// The proxy does not answer.
    pub fn fired_for(&self, account: &str) -> Result<u64> {
        Ok(self.rules(account)?.iter().filter_map(|rule| rule["fired_count"].as_u64()).sum())
    }

    /// Removes all of an account's rules, and returns the number of faults that they have injected.
    ///
    /// # Errors
    /// The proxy does not answer.
    pub fn clear(&self, account: &str) -> Result<usize> {
        let rules = self.rules(account)?;
        let fired: u64 = rules.iter().filter_map(|rule| rule["fired_count"].as_u64()).sum();
        let request = ureq::delete(format!("{}/_microburst/rules", self.endpoint())).force_send_body();
        let of_account = json!([{ "headers": { "authorization": key(account) } }]);
        request.send_json(&of_account).context("the fault proxy keeps the rules")?;
        ensure!(self.rules(account)?.is_empty(), "the fault proxy keeps the rules");
        Ok(usize::try_from(fired)?)
    }

    /// Returns the services and operations at which an account's rules have injected faults.
    ///
    /// # Errors
    /// The proxy does not answer.
    pub fn operations(&self, account: &str) -> Result<BTreeSet<(String, String)>> {
        let mut operations = BTreeSet::new();
        for rule in self.rules(account)? {
            let fired = self.get(&format!("fired?limit=1000000&rule_id={}", rule["id"]))?;
            for event in fired.as_array().into_iter().flatten() {
                let text = |key: &str| event[key].as_str().map(str::to_owned);
                operations.extend(text("service").zip(text("operation")));
            }
        }
        Ok(operations)
    }

    /// Directs a command's calls through this proxy.
    #[must_use]
    pub fn route(&self, mut command: Command) -> Command {
        command.env("AWS_ENDPOINT_URL", self.endpoint());
        command
    }
}

fn key(account: &str) -> String {
    format!("Credential={account}/")
}

impl Drop for Weather {
    fn drop(&mut self) {
        // Closing standard input stops the proxy.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
