//! Each call fails once, in each way in which it can; and all calls fail now and then.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::weather::Weather;
use super::{Outcome, Scale, pipeline};
use crate::local_aws::LocalAws;
use crate::pipeline::{Pipeline, Ran};

/// The ways in which a call fails once. `code` null is one of the errors that AWS's model has for the call.
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

const FIRST: &str = "[bucket]\nversioning = true\nexpire_days = 30\n[function]\nmax_concurrency = 3";
const THEN: &str = "[bucket]\nexpire_days = 60\n[tags]\nteam = \"data\"\n[table]\nbilling = { read = 5, write = 5 }\n\
                    [function]\nmemory_mb = 512\nretries = 1\nlog_retention_days = 7\n[notification]\nprefix = \"other/\"";

/// What a pipeline goes through: made, changed, taken away.
const PHASES: [(&str, &[&str]); 3] =
    [(FIRST, &["apply", "--yes"]), (THEN, &["apply", "--yes"]), (THEN, &["destroy", "--yes", "--delete-data"])];

fn over(weather: &Weather, pipeline: &Pipeline<'_>, args: &[&str]) -> Result<Ran> {
    let output = weather.over(pipeline.command(args)?).output().context("failed to run the provisioner")?;
    Ok(Ran::of(&output))
}

/// Every service and operation that the provisioner calls, by phase.
fn calls(aws: &LocalAws, weather: &Weather) -> Result<Vec<(usize, String, String)>> {
    let pipeline = pipeline(aws)?;
    let mut calls = Vec::new();
    for (phase, (declared, command)) in PHASES.into_iter().enumerate() {
        pipeline.declare(declared)?;
        weather.add(&pipeline.account, &[json!({ "latency": 0 })])?;
        let ran = over(weather, &pipeline, command)?;
        ensure!(ran.code == Some(0), "{command:?} failed behind the proxy: {}", ran.err);
        let operations = weather.operations(&pipeline.account)?;
        for (service, operation) in operations {
            let reads = ["Get", "List", "Describe", "Head"].iter().any(|verb| operation.starts_with(verb));
            // To read is the same in each phase.
            if !reads || !calls.iter().any(|(_, s, o)| *s == service && *o == operation) {
                calls.push((phase, service, operation));
            }
        }
        weather.clear(&pipeline.account)?;
    }
    Ok(calls)
}

/// Makes each call fail once in each way, one at a time: the program succeeds all the same, or fails with an error that
/// says what failed and how; the next run completes the work.
///
/// # Errors
/// The local AWS, the proxy or the program cannot be run. What does not converge is no error, but lost.
pub fn each_fails_once(aws: &LocalAws, weather: &Weather, scale: Scale) -> Result<Outcome> {
    let calls = calls(aws, weather)?;
    ensure!(calls.len() > 60, "only {} calls were seen", calls.len());
    let cases: Vec<(usize, &str, &str, &str, Value)> = calls
        .iter()
        .flat_map(|(phase, service, operation)| {
            let ways = ways(service).into_iter();
            ways.map(move |(way, fault)| (*phase, service.as_str(), operation.as_str(), way, fault))
        })
        .collect();
    let mut outcome = Outcome::default();
    for case in scale.of(cases.len()) {
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
            let ran = over(weather, &pipeline, command)?;
            let fired = weather.clear(&pipeline.account)?;
            outcome.faults += fired;
            outcome.runs += 1;
            if fired == 0 {
                outcome.lost.push(format!("{at}: the fault was never met"));
            }
            outcome.lost.extend(judged(&ran).map(|why| format!("{at}: {why}\n{}", ran.err)));
            let again = pipeline.run(command)?;
            outcome.runs += 1;
            let plan = pipeline.run(&["plan"])?;
            let converged = match phase {
                2 => plan.out.contains("Plan: 9 to create, 0 to update, 0 to delete."),
                _ => plan.out.ends_with("No changes.\n"),
            };
            if again.code != Some(0) || !converged {
                outcome.lost.push(format!("{at}: the next run left\n{}\n{}\n{}", again.err, plan.out, plan.err));
            }
            break;
        }
        // Functions that are not there any more take no memory on the server.
        pipeline.run(&["destroy", "--yes", "--delete-data"])?;
    }
    Ok(outcome)
}

/// What is wrong with how a run ended, if anything is: each error must name the resource, what was answered, and what to
/// do about it.
fn judged(ran: &Ran) -> Option<&'static str> {
    let kinds = ["bucket", "table", "role", "log group", "queue", "function", "permission", "notification"];
    let answers = [
        " answered ",
        "could not be sent",
        "got no answer",
        "failed: ",
        "waiting for",
        "while this ran",
        "at the same time",
    ];
    match ran.code {
        Some(0) => return None,
        Some(1) if ran.err.contains("panicked") => return Some("a panic"),
        Some(1) => {}
        _ => return Some("neither success nor failure"),
    }
    let lines: Vec<&str> = ran.err.lines().collect();
    let begins = |line: &&str| line.contains("error: ");
    let starts: Vec<usize> = (0..lines.len()).filter(|i| begins(&lines[*i])).collect();
    // The last one of an apply sums up.
    let errors = starts.iter().filter(|i| !lines[**i].contains(" steps failed"));
    let mut seen = 0;
    for &start in errors {
        seen += 1;
        let end = starts.iter().copied().find(|next| *next > start).unwrap_or(lines.len());
        let block = lines[start..end].join("\n");
        // The first call is about no resource yet.
        let named = kinds.iter().any(|kind| block.contains(&format!("{kind} "))) || block.contains("which AWS account");
        if !named {
            return Some("an error names no resource");
        }
        if !answers.iter().any(|answer| block.contains(answer)) && !block.contains("belongs to another account") {
            return Some("an error does not say what was answered");
        }
        if !block.contains("help: ") {
            return Some("an error has no remedy");
        }
    }
    (seen == 0).then_some("no error says why")
}

/// Runs of the same command in weather in which a fifth of all calls fail or are slow. Gives what came of them, and in how
/// many the first apply was enough.
///
/// # Errors
/// As [`each_fails_once`].
pub fn random(aws: &LocalAws, seeds: impl IntoIterator<Item = u64>) -> Result<(Outcome, usize)> {
    /// Each needs none of the others, so more would show that one is stuck.
    const MOST: usize = 5;
    let mut outcome = Outcome::default();
    let mut first = 0;
    for seed in seeds {
        let weather = Weather::start(&aws.endpoint(), seed)?;
        let pipeline = pipeline(aws)?;
        pipeline.declare(FIRST)?;
        // Rules are asked in turn, so the shares add up to a fifth of what is left.
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
            let ran = over(&weather, &pipeline, &["apply", "--yes"])?;
            runs += 1;
            if ran.code == Some(0) || runs == MOST {
                break ran.code == Some(0);
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
