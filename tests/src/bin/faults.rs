//! `make faults`: injects every fault and writes a table of the outcomes.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use tests::faults::killed::{self, Operation};
use tests::faults::weather::Weather;
use tests::faults::{Outcome, Sampling, calls, handler};
use tests::local_aws::{LocalAws, Scheme};

/// Injects every fault, prints the outcome of each kind, and writes a table into the document
#[derive(Parser)]
struct Args {
    /// Document; the text between its two marks is replaced
    document: PathBuf,
    /// Inject only one of this many faults
    #[arg(long, default_value_t = 1)]
    one_of: usize,
}

/// The marks around the table.
const MARKS: (&str, &str) = ("<!-- figures of `make faults` -->\n", "<!-- end of figures -->");
/// The number of parallel workers; each needs about one core.
const AT_ONCE: usize = 2;

#[expect(clippy::print_stdout, reason = "this is the program's output")]
fn say(text: &str) {
    println!("{text}");
}

fn main() -> Result<()> {
    let args = Args::parse();
    let started = Instant::now();
    let mut rows = Vec::new();
    let mut row = |promise: &str, test: &str, outcome: Outcome, remark: String| {
        say(&format!("{promise}: {outcome}, after {:.0} s", started.elapsed().as_secs_f64()));
        for lost in &outcome.lost {
            say(lost);
        }
        rows.push((promise.to_owned(), test.to_owned(), outcome, remark));
    };

    for (operation, promise, test) in [
        (
            Operation::Create,
            "after a kill at any call of a first apply, the next run completes it",
            "apply_killed_at_any_call_…",
        ),
        (
            Operation::Update,
            "after a kill at any call of an update, the next run completes it",
            "update_killed_at_any_call_…",
        ),
        (
            Operation::Destroy,
            "after a kill at any call of a destroy, the next run completes it",
            "destroy_killed_at_any_call_…",
        ),
    ] {
        let outcome = parts(args.one_of, |aws, sampling| killed::kill_at_each_call(aws, operation, sampling))?;
        row(promise, test, outcome, String::new());
    }
    let once = parts(args.one_of, |aws, sampling| {
        let weather = Weather::start(&aws.endpoint(), 1)?;
        calls::fail_each_call_once(aws, &weather, sampling)
    })?;
    row(
        "a single failure of any call, in each of ten ways, leaves no damage",
        "call_failing_once_…",
        once,
        String::new(),
    );

    let aws = LocalAws::start(Scheme::Http)?;
    let (outcome, first) = calls::fail_at_random(&aws, 1..=20)?;
    row(
        "apply reaches the desired state while a fifth of all calls fail or are slow",
        "apply_under_random_faults_…",
        outcome,
        format!("{first} of 20 needed one run"),
    );
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    let outcome = runtime.block_on(handler::fail_at_random(200, 1))?;
    let promise = "200 objects are counted once or queued while a fifth of the function's calls fail";
    row(promise, "function_under_random_faults_…", outcome, String::new());

    let share = match args.one_of {
        1 => String::new(),
        n => {
            format!("One in {n} calls was tried (`target/debug/faults docs/reliability.md --one-of {n}`).\n\n")
        }
    };
    let mut table = share
        + "| guarantee | test (`faults::`) | runs | faults | lost | |\n| --- | --- | ---: | ---: | ---: | --- |\n";
    for (promise, test, outcome, remark) in &rows {
        let (runs, faults, lost) = (outcome.runs, outcome.faults, outcome.lost.len());
        writeln!(table, "| {promise} | `{test}` | {runs} | {faults} | {lost} | {remark} |")?;
    }
    say(&table);
    let text = std::fs::read_to_string(&args.document).context("failed to read the document")?;
    let (before, rest) = text.split_once(MARKS.0).context("the document has no mark for the figures")?;
    let (_, after) = rest.split_once(MARKS.1).context("the document has no mark for the figures' end")?;
    let text = format!("{before}{}\n{table}\n{}{after}", MARKS.0, MARKS.1);
    std::fs::write(&args.document, text).context("failed to write the document")?;
    let lost: usize = rows.iter().map(|(_, _, outcome, _)| outcome.lost.len()).sum();
    ensure!(lost == 0, "{lost} were lost");
    Ok(())
}

/// Splits the cases among parallel workers, each with its own local AWS.
fn parts(one_of: usize, work: impl Fn(&LocalAws, Sampling) -> Result<Outcome> + Sync) -> Result<Outcome> {
    thread::scope(|scope| {
        let parts: Vec<_> = (0..AT_ONCE)
            .map(|part| {
                let work = &work;
                scope.spawn(move || {
                    let aws = LocalAws::start(Scheme::Http)?;
                    work(&aws, Sampling { step: one_of * AT_ONCE, first: part * one_of })
                })
            })
            .collect();
        let mut outcome = Outcome::default();
        for part in parts {
            outcome = outcome.merge(part.join().map_err(|_| anyhow!("a part panicked"))??);
        }
        Ok(outcome)
    })
}
