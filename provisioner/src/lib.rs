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
pub mod console;
pub mod cost;
pub mod counts;
pub mod dashboard;
pub mod document;
pub mod error;
pub mod event;
pub mod graph;
pub mod kind;
pub mod live;
pub mod operate;
pub mod owner;
pub mod plan;
pub mod policy;
pub mod report;
pub mod resources;
pub mod rights;
pub mod rollup;
pub mod saved;
pub mod signal;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::{CommandFactory as _, Parser as _};

use apply::Outcome;
use artifact::Artifact;
use aws::{Aws, Place};
use cli::{Cli, Command, EventFormat, PlanFormat, PolicyOf, SchemaOf};
use config::Pipeline;
use console::{confirm, confirm_unless, print, show};
use cost::Estimate;
use counts::Reader;
use counts::period::Period;
use dashboard::{Dashboard, View};
use document::Document;
use error::Error;
use event::Reporter;
use kind::Scope;
use operate::replay::{Failure, What};
use operate::{Operator, backfill};
use plan::{Action, Allowed, Plan};
use saved::Saved;
use signal::Stop;

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
            let reads = matches!(
                cli.command,
                Command::Query { .. }
                    | Command::Events { .. }
                    | Command::Top { .. }
                    | Command::Rollup { .. }
                    | Command::Status { .. }
            );
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
        Command::Plan { detailed_exitcode, out: file, allow, format } => {
            let pipeline = load()?;
            let allowed = Allowed { adopt: allow.adopt, prune: allow.prune };
            let (_, plan, document) = plan(&pipeline, allowed).await?;
            let text = match format {
                PlanFormat::Text => report::human::plan(&document),
                PlanFormat::Json => report::json::plan(&document)?,
                PlanFormat::Markdown => report::markdown::plan(&document),
            };
            print(out, &text)?;
            refused(&document)?;
            if let Some(file) = file {
                Saved::new(&pipeline, allowed, &document)?.write(file)?;
            }
            Ok(if *detailed_exitcode && !plan.is_empty() { CHANGES } else { 0 })
        }
        Command::Apply { plan: file, yes, verify, allow, format } => {
            let pipeline = load()?;
            let saved = file.as_deref().map(Saved::read).transpose()?;
            let allowed = Allowed { adopt: allow.adopt, prune: allow.prune };
            let allowed = saved.as_ref().map_or(allowed, Saved::allowed);
            let (aws, plan, document) = plan(&pipeline, allowed).await?;
            if let Some(saved) = &saved {
                saved.check(&pipeline, &document)?;
            }
            let code = carry_out(&aws, &plan, &document, *yes, *format, out).await?;
            if *verify {
                let operator = Operator::connect(&pipeline).await?;
                verified(&operator, cli::VERIFY_SECONDS, *format, out).await?;
            }
            Ok(code)
        }
        Command::Destroy { yes, delete_data, format } => {
            let pipeline = load()?;
            let aws = Aws::connect(&pipeline).await?;
            let place = aws.whereabouts(&pipeline).await?;
            let scope = Scope { pipeline: &pipeline, place: &place, artifact: None };
            let (found, unfound) = live::find(&aws, &scope).await?;
            let mut plan = Plan::destroy(found, *delete_data);
            plan.notes.extend(unfound);
            let document = Document::new(&pipeline, &place, &plan);
            carry_out(&aws, &plan, &document, *yes, *format, out).await
        }
        Command::Policy { to } => {
            let pipeline = load()?;
            let aws = Aws::connect(&pipeline).await?;
            // Where the file says whose account it is, nobody needs to be asked.
            let place = match Place::declared(&pipeline) {
                Some(place) => place,
                None => aws.whereabouts(&pipeline).await?,
            };
            let scope = Scope { pipeline: &pipeline, place: &place, artifact: None };
            let policy = match to {
                PolicyOf::Deployer => rights::deployer_policy(&scope, aws.endpoint.is_some()),
                PolicyOf::Reader => operate::rights::reader_policy(&scope),
                PolicyOf::Operator => operate::rights::operator_policy(&scope),
            };
            print(out, &format!("{policy:#}\n"))?;
            Ok(0)
        }
        Command::Schema { of } => {
            let schema = match of {
                SchemaOf::Pipeline => config::schema(),
                SchemaOf::Plan => schemars::schema_for!(Document),
                SchemaOf::Events => schemars::schema_for!(report::json::Line<'_>),
            };
            print(out, &format!("{:#}\n", schema.as_value()))?;
            Ok(0)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "provisioner", &mut script);
            print(out, &String::from_utf8_lossy(&script))?;
            Ok(0)
        }
        Command::Status { format } => {
            let pipeline = load()?;
            let (status, mut unknown) = Operator::connect(&pipeline).await?.status().await;
            show(out, *format, &status, || report::operate::status(&status))?;
            match unknown.len() {
                0 => Ok(0),
                1 => Err(unknown.remove(0)),
                _ => Err(Error::Several(unknown)),
            }
        }
        Command::Verify { timeout, format } => {
            let pipeline = load()?;
            let operator = Operator::connect(&pipeline).await?;
            verified(&operator, *timeout, *format, out).await?;
            Ok(0)
        }
        Command::Backfill { prefix, from, to, tz, start_after, rate, dry_run, no_wait, format } => {
            let pipeline = load()?;
            let moment = |flag: &str, text: &Option<String>| {
                text.as_deref().map(|text| counts::period::moment(flag, text, tz.as_deref())).transpose()
            };
            let options = backfill::Options {
                prefix: prefix.clone().unwrap_or_else(|| pipeline.notification.prefix.clone()),
                from: moment("--from", from)?,
                to: moment("--to", to)?,
                after: start_after.clone(),
                rate: *rate,
                dry_run: *dry_run,
                wait: !no_wait,
            };
            if !options.prefix.starts_with(&pipeline.notification.prefix) {
                return Err(Error::Refused {
                    what: format!("--prefix {} is not what the pipeline counts", options.prefix.escape_debug()),
                    help: format!("let it begin with notification.prefix: {}", pipeline.notification.prefix),
                });
            }
            if let (Some(from), Some(to)) = (options.from, options.to)
                && from >= to
            {
                return Err(Error::Refused {
                    what: format!("the time from {from} until before {to} is none"),
                    help: "let --from be earlier than --to".to_owned(),
                });
            }
            let operator = Operator::connect(&pipeline).await?;
            let stop = Stop::listen()?;
            let bar = report::progress::Bar::for_stderr("objects done:");
            let (tally, result) = backfill::backfill(&operator, &options, &bar, &stop).await;
            show(out, *format, &tally, || report::operate::backfill(&tally, &options))?;
            result.map(|()| 0)
        }
        Command::Replay { dry_run, purge, yes, format } => {
            let pipeline = load()?;
            let operator = Operator::connect(&pipeline).await?;
            let stop = Stop::listen()?;
            let mut tell = |failure: &Failure| match format {
                EventFormat::Text => print(out, &report::operate::failure(failure)),
                EventFormat::Json => Ok(()),
            };
            let what = if *dry_run || *purge { What::Look } else { What::Run };
            let mut found = operator.replay(what, &stop, &mut tell).await?;
            if *purge && !found.is_empty() {
                if !yes {
                    if *format == EventFormat::Json {
                        show(out, *format, &found, String::new)?;
                    }
                    confirm_unless(&stop).await?;
                }
                // Those that were shown, and none that has come since.
                let shown = found.iter().map(|failure| failure.message.clone()).collect();
                found = operator.replay(What::Delete(&shown), &stop, &mut |_| Ok(())).await?;
                found.retain(|failure| shown.contains(&failure.message));
            }
            let hidden = if found.is_empty() { operator.failures_waiting().await? } else { 0 };
            show(out, *format, &found, || report::operate::replay(&found, hidden))?;
            let kept = found.iter().filter(|failure| !failure.state.is_counted()).count();
            if what == What::Run && kept > 0 {
                return Err(Error::Refused {
                    what: format!("{kept} of {} messages stay in the failure queue", found.len()),
                    help: "mend the cause and run the command again, or delete them with --purge".to_owned(),
                });
            }
            Ok(0)
        }
        Command::Query { events, period, compare, consistent, format } => {
            let (pipeline, period) = (load()?, Period::of(period)?);
            let before = compare.then(|| period.before()).transpose()?;
            let aws = Aws::connect(&pipeline).await?;
            let reader = Reader { aws: &aws, table: &pipeline.table.counts, is_consistent: *consistent };
            let series = reader.series(events, &period, before.as_ref()).await?;
            print(out, &report::counts::series(&series, &period, *format))?;
            Ok(0)
        }
        Command::Dashboard { listen, hosts, out: file, events, period, compare } => {
            let pipeline = load()?;
            let dashboard = Dashboard::new(Aws::connect(&pipeline).await?, &pipeline);
            let view = View::asked(events, period, *compare);
            view.period()?;
            if let Some(file) = file {
                dashboard.write(&view, file).await?;
                print(out, &format!("{} is written.\n", file.display()))?;
                return Ok(0);
            }
            let stop = Stop::listen()?;
            let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
            let settings = dashboard::Settings { listen: *listen, hosts };
            let ready = |at: SocketAddr| print(out, &report::human::listening(at, &view.query()));
            dashboard.serve(settings, stop, ready).await?;
            Ok(0)
        }
        Command::Events { format } => {
            let pipeline = load()?;
            let aws = Aws::connect(&pipeline).await?;
            let reader = Reader { aws: &aws, table: &pipeline.table.counts, is_consistent: false };
            print(out, &report::counts::events(&reader.events().await?, *format))?;
            Ok(0)
        }
        Command::Top { period, limit, format } => {
            let (pipeline, period) = (load()?, Period::of(period)?);
            let before = period.before()?;
            let aws = Aws::connect(&pipeline).await?;
            let reader = Reader { aws: &aws, table: &pipeline.table.counts, is_consistent: false };
            let top = reader.top(&period, &before, *limit).await?;
            print(out, &report::counts::top(&top, &period, *format))?;
            Ok(0)
        }
    }
}

/// What differs between the declaration and AWS.
async fn plan(pipeline: &Pipeline, allowed: Allowed) -> Result<(Aws, Plan, Document), Error> {
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
    let (found, unfound) = live::find(&aws, &scope).await?;
    let mut plan = Plan::converge(found, allowed);
    plan.notes.extend(unfound);
    plan.notes.extend(rights::missing(&aws, &place, &plan).await);
    if pipeline.bucket.require_tls && aws.endpoint.as_ref().is_some_and(|url| url.starts_with("http://")) {
        plan.notes.push(
            "the endpoint speaks plain HTTP, which the bucket's policy denies, to the function too: \
             set bucket.require_tls = false (or --env local) for a local AWS"
                .to_owned(),
        );
    }
    plan.estimate = Estimate::new(pipeline, &plan);
    let document = Document::new(pipeline, &place, &plan);
    Ok((aws, plan, document))
}

/// Proves that the pipeline counts, and says so.
async fn verified(
    operator: &Operator<'_>,
    seconds: u64,
    format: EventFormat,
    out: &mut (dyn Write + Send),
) -> Result<(), Error> {
    let stop = Stop::listen()?;
    let verified = operator.verify(Duration::from_secs(seconds), &stop).await?;
    match format {
        EventFormat::Text => print(out, &report::operate::verified(&verified))?,
        EventFormat::Json => report::json::print(&report::json::Line::Verified(&verified)),
    }
    Ok(())
}

/// Fails where something is in the way of the plan.
fn refused(document: &Document) -> Result<(), Error> {
    if document.counts.refuse == 0 {
        return Ok(());
    }
    let entries = document.resources.iter().filter(|entry| entry.action == Action::Refuse);
    let refused = entries.map(|entry| Error::Refused {
        what: format!("{} {} {}", entry.kind, entry.name, entry.reason.as_deref().unwrap_or_default()),
        help: entry.help.clone().unwrap_or_default(),
    });
    Err(Error::Several(refused.collect()))
}

/// Shows the plan, asks, and does exactly that plan.
async fn carry_out(
    aws: &Aws,
    plan: &Plan,
    document: &Document,
    yes: bool,
    format: EventFormat,
    out: &mut (dyn Write + Send),
) -> Result<u8, Error> {
    match format {
        EventFormat::Text => print(out, &report::human::plan(document))?,
        EventFormat::Json => report::json::print(&report::json::Line::Plan { plan: document }),
    }
    refused(document)?;
    let started = Instant::now();
    let outcome = if plan.is_empty() {
        Outcome::default()
    } else {
        if !yes {
            confirm()?;
        }
        let reporter: Box<dyn Reporter> = match format {
            EventFormat::Text => report::progress::for_stderr(),
            EventFormat::Json => Box::new(report::json::Stream),
        };
        // Until here a signal ends the process, which has changed nothing.
        let stop = Stop::listen()?;
        apply::apply(aws, plan, reporter.as_ref(), &stop).await
    };
    let took = started.elapsed();
    if format == EventFormat::Json {
        let Outcome { done, failed, skipped, stopped } = outcome;
        let signal = stopped.map(|signal| signal.to_string());
        let seconds = took.as_secs_f64();
        report::json::print(&report::json::Line::Finished { done, failed, skipped, signal, seconds });
    }
    outcome.complete()?;
    if format == EventFormat::Text && !plan.is_empty() {
        print(out, &report::human::summary(document.counts, took))?;
    }
    Ok(0)
}
