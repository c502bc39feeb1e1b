//! `provisioner replay`

use std::collections::HashSet;
use std::process::ExitCode;

use super::args::{Global, listen};
use crate::aws::Session;
use crate::error::{Error, ErrorKind};
use crate::operations::failure_queue::{Failure, State};
use crate::operations::replay::ReplayMode;
use crate::output::prompt::{PURGE, confirm};
use crate::output::{Output, TextOrJson};
use crate::text::{counted, grouped, printable};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show the messages without changing anything
    #[arg(long)]
    dry_run: bool,
    /// Show the messages, ask for confirmation, and delete them uncounted
    #[arg(long, conflicts_with = "dry_run")]
    purge: bool,
    /// With --purge: do not ask for confirmation
    #[arg(long, requires = "purge")]
    yes: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: TextOrJson,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let session = Session::connect(&pipeline).await?;
    let shutdown = listen()?;
    let mut on_message = |failure: &Failure| match args.format {
        TextOrJson::Text => output.print(&failure_text(failure)),
        TextOrJson::Json => Ok(()),
    };
    let mode = if args.dry_run || args.purge { ReplayMode::Inspect } else { ReplayMode::Run };
    let mut found = session.replay(mode, &shutdown, &mut on_message).await?;
    if args.purge && !found.is_empty() {
        if !args.yes {
            if args.format == TextOrJson::Json {
                output.print_json(&found)?;
            }
            confirm(output, PURGE, &shutdown).await?;
        }
        // Deletes only the messages that were shown, not those that have arrived since.
        let shown: HashSet<String> = found.iter().map(|failure| failure.message.clone()).collect();
        found = session.replay(ReplayMode::Delete(&shown), &shutdown, &mut |_| Ok(())).await?;
        found.retain(|failure| shown.contains(&failure.message));
    }
    let hidden = if found.is_empty() { session.failures_waiting().await? } else { 0 };
    output.show(args.format, &found, || summary(&found, hidden))?;
    let kept = found.iter().filter(|failure| !failure.state.is_counted()).count();
    if mode == ReplayMode::Run && kept > 0 {
        return Err(Error::new(
            ErrorKind::Incomplete,
            format!("{kept} of {} messages remain in the failure queue", found.len()),
            "fix the cause and run the command again, or delete the messages with --purge",
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Formats one message and its outcome.
fn failure_text(failure: &Failure) -> String {
    let Failure { message, objects, error, when, attempts, state } = failure;
    let mut out = match objects.as_slice() {
        [] => format!("message {}\n", printable(message)),
        some => some.iter().map(|key| printable(key) + "\n").collect(),
    };
    let error = if error.is_empty() { "the reason is in the function's log" } else { error };
    out.push_str(&format!("    {}\n", printable(error)));
    if !when.is_empty() {
        let after = match attempts {
            0 => String::new(),
            n => format!(" after {}", counted(*n, "attempt")),
        };
        out.push_str(&format!("    failed {}{after}\n", printable(when)));
    }
    out + &format!("    {}\n", printable(&state.to_string()))
}

/// Formats the outcome of all messages; `hidden` is the number of messages in flight if the queue returned none.
fn summary(failures: &[Failure], hidden: u64) -> String {
    let count = |is: fn(&State) -> bool| failures.iter().filter(|failure| is(&failure.state)).count() as u64;
    if failures.is_empty() && hidden > 0 {
        return format!(
            "The failure queue returned no messages but holds {hidden} in flight (another run is processing them, or was \
             killed). They become visible within 15 minutes.\n"
        );
    }
    if failures.is_empty() {
        return "The failure queue is empty.\n".to_owned();
    }
    let number = |n: u64| grouped(i64::try_from(n).unwrap_or(i64::MAX));
    let done = count(State::is_counted);
    let deleted = count(|state| *state == State::Deleted);
    let mut out = format!("{}: {} counted", counted(failures.len() as u64, "message"), number(done));
    if deleted > 0 {
        out.push_str(&format!(", {} deleted uncounted", number(deleted)));
    }
    out + &format!(", {} not counted.\n", number(failures.len() as u64 - done - deleted))
}
