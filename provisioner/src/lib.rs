//! Plans and applies an event pipeline on AWS from one `pipeline.toml`, without a state file, and reads its counts.
//!
//! ```text
//! pipeline.toml -> config::Pipeline -> resources -> live (read in parallel) -> plan (pure) -> report | apply
//! ```

pub mod apply;
pub mod artifact;
pub mod aws;
pub mod change;
pub mod cli;
pub mod config;
pub mod counts;
pub mod error;
pub mod event;
pub mod graph;
pub mod kind;
pub mod live;
pub mod owner;
pub mod plan;
pub mod policy;
pub mod report;
pub mod resources;
pub mod rollup;

use std::ffi::OsString;
use std::io::{self, Write};
use std::time::Instant;

use clap::Parser;

use artifact::Artifact;
use aws::{Aws, Place};
use cli::{Cli, Command};
use config::Pipeline;
use error::Error;
use kind::Scope;
use plan::Plan;

/// What `plan --detailed-exitcode` exits with where there are changes.
const CHANGES: u8 = 2;

/// The whole program: parses `args`, runs, prints the error if there is one, and returns the exit code.
pub async fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Asking for help is no error, and all others exit with 1: 2 says that there are changes.
            let _ = error.print();
            return u8::from(error.use_stderr());
        }
    };
    let mut out = anstream::AutoStream::auto(io::stdout());
    match run(&cli, &mut out).await {
        Ok(code) => code,
        // Nobody reads on, as with `| head`. Of a plan that nobody saw, nothing may be said or done.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            let reads = matches!(cli.command, Command::Query { .. } | Command::Top { .. } | Command::Rollup { .. });
            u8::from(!reads)
        }
        Err(error) => {
            let _ = writeln!(anstream::stderr(), "{}", report::human::error(&error));
            error.exit_code()
        }
    }
}

/// Runs one command; its result goes to `out`, its progress to stderr.
///
/// # Errors
/// Whatever went wrong, once, in words for the person.
pub async fn run(cli: &Cli, out: &mut (dyn Write + Send)) -> Result<u8, Error> {
    let load = || config::load(&cli.config, cli.environment.as_deref());
    match &cli.command {
        Command::Rollup { files, count, format } => {
            let types = rollup::types(count, &cli.config, cli.environment.as_deref())?;
            let (totals, result) = rollup::files(files, &types);
            print(out, &report::counts::rollup(&totals, *format))?;
            result.map(|()| 0)
        }
        Command::Validate => {
            load()?;
            print(out, &format!("{} is valid.\n", cli.config.display()))?;
            Ok(0)
        }
        Command::Plan { detailed_exitcode } => {
            let pipeline = load()?;
            let (_, place, plan) = plan(&pipeline).await?;
            print(out, &report::human::plan(&pipeline, &place, &plan))?;
            Ok(if *detailed_exitcode && !plan.is_empty() { CHANGES } else { 0 })
        }
        Command::Apply { yes } => {
            let pipeline = load()?;
            let (aws, place, plan) = plan(&pipeline).await?;
            carry_out(&aws, &pipeline, &place, &plan, *yes, out).await
        }
        Command::Destroy { yes, delete_data } => {
            let pipeline = load()?;
            let aws = Aws::connect(&pipeline).await?;
            let place = aws.whereabouts(&pipeline).await?;
            let declared = resources::declared(&Scope { pipeline: &pipeline, place: &place, artifact: None });
            let plan = Plan::destroy(live::read(&aws, &declared).await?, *delete_data);
            carry_out(&aws, &pipeline, &place, &plan, *yes, out).await
        }
        Command::Query { event, window, format } => {
            let (pipeline, window) = (load()?, counts::window::of(window)?);
            let aws = Aws::connect(&pipeline).await?;
            let series = counts::query(&aws, &pipeline.table.counts, event, window).await?;
            print(out, &report::counts::series(&series, *format))?;
            Ok(0)
        }
        Command::Top { window, limit, format } => {
            let (pipeline, window) = (load()?, counts::window::of(window)?);
            let aws = Aws::connect(&pipeline).await?;
            let top = counts::top(&aws, &pipeline.table.counts, window, *limit).await?;
            print(out, &report::counts::top(&top, *format))?;
            Ok(0)
        }
    }
}

/// What differs between the declaration and AWS.
async fn plan(pipeline: &Pipeline) -> Result<(Aws, Place, Plan), Error> {
    // Zipping takes as long as the first calls, so both run at once; no call changes anything.
    let loading = {
        let pipeline = pipeline.clone();
        tokio::task::spawn_blocking(move || Artifact::load(&pipeline))
    };
    let connected = async {
        let aws = Aws::connect(pipeline).await?;
        let place = aws.whereabouts(pipeline).await?;
        Ok::<_, Error>((aws, place))
    };
    let (artifact, connected) = tokio::join!(loading, connected);
    let (aws, place) = connected?;
    let artifact = artifact.map_err(|error| Error::Artifact {
        what: format!("the handler's binary could not be zipped: {error}"),
        help: "run the command again".to_owned(),
    })??;
    let scope = Scope { pipeline, place: &place, artifact: Some(&artifact) };
    let mut plan = Plan::converge(live::read(&aws, &resources::declared(&scope)).await?)?;
    if pipeline.bucket.require_tls && aws.endpoint.as_ref().is_some_and(|url| url.starts_with("http://")) {
        plan.notes.push(
            "the endpoint speaks plain HTTP, which the bucket's policy denies, to the function too: \
             set bucket.require_tls = false (or --env local) for a local AWS"
                .to_owned(),
        );
    }
    Ok((aws, place, plan))
}

/// Shows the plan, asks, and does exactly that plan.
async fn carry_out(
    aws: &Aws,
    pipeline: &Pipeline,
    place: &Place,
    plan: &Plan,
    yes: bool,
    out: &mut (dyn Write + Send),
) -> Result<u8, Error> {
    print(out, &report::human::plan(pipeline, place, plan))?;
    if plan.is_empty() {
        return Ok(0);
    }
    if !yes {
        confirm()?;
    }
    let started = Instant::now();
    let progress = report::progress::for_stderr();
    let result = apply::apply(aws, plan, progress.as_ref()).await;
    drop(progress);
    result?;
    print(out, &report::human::summary(plan, started.elapsed()))?;
    Ok(0)
}

/// Asks on stderr and reads the answer from stdin.
fn confirm() -> Result<(), Error> {
    let failed = |source| Error::Io { doing: "ask".to_owned(), help: "pass --yes".to_owned(), source };
    let mut err = anstream::stderr();
    write!(err, "\nDo this? Only `yes` does it: ").and_then(|()| err.flush()).map_err(failed)?;
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer).map_err(failed)?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    if read == 0 {
        let _ = writeln!(err);
    }
    Err(Error::Refused {
        what: "nothing was done: the answer was not `yes`".to_owned(),
        help: "answer `yes`, or pass --yes (with make: YES=1)".to_owned(),
    })
}

fn print(out: &mut (dyn Write + Send), text: &str) -> Result<(), Error> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|source| Error::Io {
        doing: "write to stdout".to_owned(),
        help: "check where the output goes".to_owned(),
        source,
    })
}
