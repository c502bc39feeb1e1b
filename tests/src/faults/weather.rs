//! microburst in front of the local AWS: AWS-shaped faults by rule.
//!
//! It changes the `Host` of requests, which only the account-id keys of the local AWS survive; every rule is bound to one
//! account by its key, so that one proxy serves many tests.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::local_aws::root;

/// It is up within a second or two; a busy machine gets more.
const START: Duration = Duration::from_secs(60);

/// A running fault proxy. Dropping it stops it.
pub struct Weather {
    child: Child,
    port: u16,
}

/// A port that nobody uses now.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr().context("no free port")?.port())
}

impl Weather {
    /// Starts one on a free port. The same seed makes the same weather.
    ///
    /// # Errors
    /// It is not installed, or does not come up.
    pub fn start(upstream: &str, seed: u64) -> Result<Self> {
        // The port is free now; should somebody take it before the proxy does, the next try takes another.
        let mut last = Self::start_at(free_port()?, upstream, seed);
        for _ in 0..2 {
            if last.is_ok() {
                break;
            }
            last = Self::start_at(free_port()?, upstream, seed);
        }
        last
    }

    /// Starts one on this port.
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
        while started.elapsed() < START {
            let healthy = weather.ask("health").is_ok();
            if weather.child.try_wait().context("failed to look at the fault proxy")?.is_some() {
                bail!("the fault proxy ended");
            }
            if healthy {
                return Ok(weather);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the fault proxy did not start")
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn ask(&self, what: &str) -> Result<Value> {
        let mut answer = ureq::get(format!("{}/_microburst/{what}", self.endpoint())).call()?;
        Ok(answer.body_mut().read_json()?)
    }

    fn rules(&self, account: &str) -> Result<Vec<Value>> {
        let rules = self.ask("rules")?;
        let key = key(account);
        Ok(rules
            .as_array()
            .into_iter()
            .flatten()
            .filter(|rule| rule["headers"]["authorization"] == key)
            .cloned()
            .collect())
    }

    /// Adds rules for the calls of one account's root, in microburst's own terms.
    ///
    /// # Errors
    /// It does not take them.
    pub fn add(&self, account: &str, rules: &[Value]) -> Result<()> {
        let bound = |rule: &Value| {
            let mut rule = rule.clone();
            rule["headers"] = json!({ "authorization": key(account) });
            rule
        };
        self.add_for_all(&rules.iter().map(bound).collect::<Vec<_>>())
    }

    /// Adds rules for all calls, whoever makes them.
    ///
    /// # Errors
    /// It does not take them.
    pub fn add_for_all(&self, rules: &[Value]) -> Result<()> {
        let request = ureq::patch(format!("{}/_microburst/rules", self.endpoint()));
        request.send_json(rules).context("the fault proxy does not take the rules")?;
        Ok(())
    }

    /// How often rules have fired, all together.
    ///
    /// # Errors
    /// It does not answer.
    pub fn fired(&self) -> Result<usize> {
        let rules = self.ask("rules")?;
        let fired: u64 = rules.as_array().into_iter().flatten().filter_map(|rule| rule["fired_count"].as_u64()).sum();
        Ok(usize::try_from(fired)?)
    }

    /// How often an account's rules have fired.
    ///
    /// # Errors
    /// It does not answer.
    pub fn fired_of(&self, account: &str) -> Result<u64> {
        Ok(self.rules(account)?.iter().filter_map(|rule| rule["fired_count"].as_u64()).sum())
    }

    /// Takes all of an account's rules away, and says how often they fired.
    ///
    /// # Errors
    /// It does not answer.
    pub fn clear(&self, account: &str) -> Result<usize> {
        let rules = self.rules(account)?;
        let fired: u64 = rules.iter().filter_map(|rule| rule["fired_count"].as_u64()).sum();
        let request = ureq::delete(format!("{}/_microburst/rules", self.endpoint())).force_send_body();
        let ours = json!([{ "headers": { "authorization": key(account) } }]);
        request.send_json(&ours).context("the fault proxy keeps the rules")?;
        ensure!(self.rules(account)?.is_empty(), "the fault proxy keeps the rules");
        Ok(usize::try_from(fired)?)
    }

    /// The services and operations that an account's rules have fired at.
    ///
    /// # Errors
    /// It does not answer.
    pub fn operations(&self, account: &str) -> Result<BTreeSet<(String, String)>> {
        let mut operations = BTreeSet::new();
        for rule in self.rules(account)? {
            let fired = self.ask(&format!("fired?limit=1000000&rule_id={}", rule["id"]))?;
            for event in fired.as_array().into_iter().flatten() {
                let text = |key: &str| event[key].as_str().map(str::to_owned);
                operations.extend(text("service").zip(text("operation")));
            }
        }
        Ok(operations)
    }

    /// A command with this proxy as its AWS.
    #[must_use]
    pub fn over(&self, mut command: Command) -> Command {
        command.env("AWS_ENDPOINT_URL", self.endpoint());
        command
    }
}

fn key(account: &str) -> String {
    format!("Credential={account}/")
}

impl Drop for Weather {
    fn drop(&mut self) {
        // The end of its standard input stops it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
