//! Makes each call fail once in each possible way, and makes random calls fail.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::weather::Weather;
use super::{Outcome, Sampling, pipeline};
use crate::local_aws::LocalAws;
use crate::pipeline::{CommandOutput, KINDS, Pipeline, RESOURCES};

/// Returns the ways in which a call can fail. An error without a code is one of those that AWS's model has for the
/// call.
#[must_use]
pub fn ways(service: &str) -> Vec<(&'static str, Value)> {
    let throttle = match service {
        "s3" => json!({ "code": "SlowDown", "status": 503 }),
        "iam" => json!({ "code": "Throttling", "status": 400 }),
        "lambda" => json!({ "code": "TooManyRequestsException", "status": 429 }),
        _ => json!({ "code": "ThrottlingException", "status": 400 }),
    };
    vec![
        ("throttle", json!({ "error": throttle })),
        ("500", json!({ "error": { "code": "InternalError", "status": 500 } })),
        ("503", json!({ "error": { "code": "ServiceUnavailable", "status": 503 } })),
        ("403", json!({ "error": { "code": "AccessDenied", "status": 403 } })),
        ("an error of the call's own", json!({ "error": {} })),
        ("a reset connection", json!({ "reset": true })),
        ("a truncated body", json!({ "response": { "truncate_frac": 0.5 } })),
        ("a lost answer", json!({ "response": { "abort_bytes": 0 } })),
        ("a slow answer", json!({ "latency": 800 })),
        ("a time-out", json!({ "timeout_ms": 300 })),
    ]
}

const INITIAL: &str = "[bucket]\nversioning = true\nexpire_days = 30\n[function]\nmax_concurrency = 3";
const CHANGED: &str = "[bucket]\nexpire_days = 60\n[tags]\nteam = \"data\"\n\
                       [table]\nbilling = { read = 5, write = 5 }\n\
                       [function]\nmemory_mb = 512\nretries = 1\nlog_retention_days = 7\n\
                       [notification]\nprefix = \"other/\"";

/// The life of a pipeline: created, changed, deleted.
const PHASES: [(&str, &[&str]); 3] =
    [(INITIAL, &["apply", "--yes"]), (CHANGED, &["apply", "--yes"]), (CHANGED, &["destroy", "--yes", "--delete-data"])];

fn run_through(weather: &Weather, pipeline: &Pipeline<'_>, args: &[&str]) -> Result<CommandOutput> {
    let output = weather.route(pipeline.command(args)?).output().context("failed to run the provisioner")?;
    Ok(CommandOutput::of(&output))
}

/// Returns every service and operation that the provisioner calls, with the phase.
fn calls(aws: &LocalAws, weather: &Weather) -> Result<Vec<(usize, String, String)>> {
    let pipeline = pipeline(aws)?;
    let mut calls: Vec<(usize, String, String)> = Vec::new();
    for (phase, (declared, command)) in PHASES.into_iter().enumerate() {
        pipeline.declare(declared)?;
        weather.add(&pipeline.account, &[json!({ "latency": 0 })])?;
        let run = run_through(weather, &pipeline, command)?;
        ensure!(run.code == Some(0), "{command:?} failed behind the proxy: {}", run.err);
        let operations = weather.operations(&pipeline.account)?;
        for (service, operation) in operations {
            let reads = ["Get", "List", "Describe", "Head"].iter().any(|verb| operation.starts_with(verb));
            // A read is the same in every phase but the first, in which little exists.
            let earlier = calls.iter_mut().find(|(_, s, o)| reads && *s == service && *o == operation);
            match earlier {
                Some((at, ..)) if *at == 0 => *at = phase,
                Some(_) => {}
                None => calls.push((phase, service, operation)),
            }
        }
        weather.clear(&pipeline.account)?;
    }
    Ok(calls)
}

/// Makes each call fail once in each way, one at a time. The program must succeed nevertheless, or fail with an error
/// that names the failed call and its answer; the next run must complete the work.
///
/// # Errors
/// The local AWS, the proxy or the program cannot be run. A run that does not converge is reported as lost, not
/// as an error.
pub fn fail_each_call_once(aws: &LocalAws, weather: &Weather, sampling: Sampling) -> Result<Outcome> {
    let calls = calls(aws, weather)?;
    ensure!(calls.len() > 60, "only {} calls were made", calls.len());
    let cases: Vec<(usize, &str, &str, &str, Value)> = calls
        .iter()
        .flat_map(|(phase, service, operation)| {
            let ways = ways(service).into_iter();
            ways.map(move |(way, fault)| (*phase, service.as_str(), operation.as_str(), way, fault))
        })
        .collect();
    let mut outcome = Outcome::default();
    for case in sampling.indices(cases.len()) {
        let (faulty, service, operation, way, fault) = &cases[case];
        let pipeline = pipeline(aws)?;
        let at = format!("{way} of {service}:{operation} in phase {faulty}");
        for (phase, (declared, command)) in PHASES.into_iter().enumerate() {
            pipeline.declare(declared)?;
            if phase != *faulty {
                pipeline.expect(0, command)?;
                continue;
            }
            let mut rule = fault.clone();
            rule["service"] = json!(service);
            rule["operation"] = json!(operation);
            rule["times"] = json!(1);
            weather.add(&pipeline.account, &[rule])?;
            let run = run_through(weather, &pipeline, command)?;
            let fired = weather.clear(&pipeline.account)?;
            outcome.faults += fired;
            outcome.runs += 1;
            if fired == 0 {
                outcome.lost.push(format!("{at}: the fault was never injected"));
            }
            outcome.lost.extend(error_flaw(&run).map(|why| format!("{at}: {why}\n{}", run.err)));
            let again = pipeline.run(command)?;
            outcome.runs += 1;
            let plan = pipeline.run(&["plan"])?;
            let converged = match phase {
                2 => plan.out.contains(&format!("Plan: {RESOURCES} to create, 0 to update, 0 to delete.")),
                _ => plan.out.ends_with("No changes.\n"),
            };
            if again.code != Some(0) || !converged {
                outcome.lost.push(format!("{at}: the next run left\n{}\n{}\n{}", again.err, plan.out, plan.err));
            }
            break;
        }
        // Deleted functions use no memory on the server.
        pipeline.run(&["destroy", "--yes", "--delete-data"])?;
    }
    Ok(outcome)
}

/// Returns the flaw of a failed run's errors, if any: each error must name the resource, AWS's answer, and a remedy.
fn error_flaw(run: &CommandOutput) -> Option<&'static str> {
    let answers = [
        " answered ",
        "could not be sent",
        "got no answer",
        "failed: ",
        "waiting for",
        "during this run",
        "concurrently",
    ];
    match run.code {
        Some(0) => return None,
        Some(1) if run.err.contains("panicked") => return Some("a panic"),
        Some(1) => {}
        _ => return Some("an exit code other than 0 and 1"),
    }
    let lines: Vec<&str> = run.err.lines().collect();
    let begins = |line: &&str| line.contains("error: ");
    let starts: Vec<usize> = (0..lines.len()).filter(|i| begins(&lines[*i])).collect();
    // The last error of an apply is the summary.
    let errors = starts.iter().filter(|i| !lines[**i].contains(" steps failed"));
    let mut seen = 0;
    for &start in errors {
        seen += 1;
        let end = starts.iter().copied().find(|next| *next > start).unwrap_or(lines.len());
        let block = lines[start..end].join("\n");
        // The first call concerns no resource yet.
        let named = KINDS.iter().any(|kind| block.contains(&format!("{kind} "))) || block.contains("which AWS account");
        if !named {
            return Some("an error names no resource");
        }
        if !answers.iter().any(|answer| block.contains(answer)) && !block.contains("belongs to another account") {
            return Some("an error does not contain the answer");
        }
        if !block.contains("help: ") {
            return Some("an error has no remedy");
        }
    }
    (seen == 0).then_some("no error gives a cause")
}

/// Runs an apply per seed while a fifth of all calls fail or are slow. Returns the outcome, and the number of seeds for
/// which one run was enough.
///
/// # Errors
/// As [`fail_each_call_once`].
pub fn fail_at_random(aws: &LocalAws, seeds: impl IntoIterator<Item = u64>) -> Result<(Outcome, usize)> {
    /// Runs are independent, so more of them would mean that a call always fails.
    const MAX_RUNS: usize = 5;
    let mut outcome = Outcome::default();
    let mut first = 0;
    for seed in seeds {
        let weather = Weather::start(&aws.endpoint(), seed)?;
        let pipeline = pipeline(aws)?;
        pipeline.declare(INITIAL)?;
        // Rules are tried in order, each on the calls that passed the ones before; together they hit a fifth.
        weather.add(
            &pipeline.account,
            &[
                json!({ "probability": 0.07, "error": { "code": "ServiceUnavailable", "status": 503 } }),
                json!({ "probability": 0.04, "reset": true }),
                json!({ "probability": 0.05, "response": { "abort_bytes": 0 } }),
                json!({ "probability": 0.06, "latency": { "min": 50, "max": 400 } }),
            ],
        )?;
        let mut runs = 0;
        let converged = loop {
            let run = run_through(&weather, &pipeline, &["apply", "--yes"])?;
            runs += 1;
            if run.code == Some(0) || runs == MAX_RUNS {
                break run.code == Some(0);
            }
        };
        outcome.runs += runs;
        outcome.faults += weather.clear(&pipeline.account)?;
        first += usize::from(converged && runs == 1);
        let plan = pipeline.run(&["plan"])?;
        if !converged || !plan.out.ends_with("No changes.\n") {
            outcome.lost.push(format!("seed {seed}: after {runs} runs\n{}\n{}", plan.out, plan.err));
        }
        pipeline.run(&["destroy", "--yes", "--delete-data"])?;
    }
    Ok((outcome, first))
}
