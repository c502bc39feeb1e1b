//! The command line: one file per subcommand, with its arguments, its `run` and its text.

mod adopt;
mod apply;
mod args;
mod backfill;
mod completions;
mod dashboard;
mod destroy;
mod event_names;
mod events;
mod init;
mod logs;
mod outputs;
mod pause;
mod plan;
mod policy;
mod query;
mod replay;
mod rollup;
mod schema;
mod status;
mod top;
mod validate;
mod verify;
mod written;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::error::Error;
use crate::operations::pause::Counting;
use crate::output::Output;
use args::Global;

/// Reconciles an event pipeline on AWS with one pipeline.toml, without a state file
#[derive(Debug, Parser)]
#[command(name = "provisioner", version = env!("PROVISIONER_VERSION"), max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    pub(crate) fn parse_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(args)
    }
}

/// The subcommands, in the order of `--help`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a new pipeline.toml; asks for its values on a terminal
    Init(init::Args),
    /// Check pipeline.toml; makes no AWS calls
    Validate(validate::Args),
    /// Write the pipeline.toml of what another tool made
    Adopt(adopt::Args),
    /// Show the changes that apply would make
    Plan(plan::Args),
    /// Show the plan, ask for confirmation, and apply it
    Apply(apply::Args),
    /// Delete the resources that the pipeline owns (data only with --delete-data)
    Destroy(destroy::Args),
    /// Print names, ARNs and links, and the values for Segment's form
    Outputs(outputs::Args),
    /// Show the deployment, recent counts and recent failures
    Status(status::Args),
    /// Print the log of the function, or of a consumer
    Logs(logs::Args),
    /// Test the deployment end to end with one object
    Verify(verify::Args),
    /// Count objects that are already in the bucket
    Backfill(backfill::Args),
    /// Reprocess the messages in the failure queue
    Replay(replay::Args),
    /// Let notifications wait in the queue, uncounted
    Pause(pause::Args),
    /// Count the notifications that wait, and all later ones
    Resume(pause::Args),
    /// Print event counts over time
    Query(query::Args),
    /// List the most frequent events, compared with the previous period
    Top(top::Args),
    /// List the names of the events
    Events(events::Args),
    /// Count local files without AWS
    Rollup(rollup::Args),
    /// Serve a dashboard of the counts, or export it as one HTML file
    Dashboard(dashboard::Args),
    /// Print a least-privilege IAM policy
    Policy(policy::Args),
    /// Print a JSON Schema
    Schema(schema::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

impl Command {
    /// Returns whether a closed pipe is success: the reader has seen enough, and nothing is left to do.
    pub(crate) fn is_read_only(&self) -> bool {
        match self {
            Self::Validate(_)
            | Self::Adopt(_)
            | Self::Outputs(_)
            | Self::Status(_)
            | Self::Logs(_)
            | Self::Query(_)
            | Self::Top(_)
            | Self::Events(_)
            | Self::Rollup(_)
            | Self::Policy(_)
            | Self::Schema(_)
            | Self::Completions(_) => true,
            // An unseen plan must not count as reviewed.
            Self::Plan(_)
            | Self::Apply(_)
            | Self::Destroy(_)
            | Self::Verify(_)
            | Self::Backfill(_)
            | Self::Replay(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Init(_)
            | Self::Dashboard(_) => false,
        }
    }
}

/// Answers the script of a shell, if that asks for completions. Returns whether it does.
pub(crate) fn complete(args: &[OsString], output: &Output) -> bool {
    completions::complete(args, Cli::command, output)
}

/// Runs a command. Writes its result to stdout and its progress to stderr.
///
/// # Errors
/// The failure of the command, as the user sees it.
pub(crate) async fn run(cli: &Cli, output: &Output) -> Result<ExitCode, Error> {
    let global = &cli.global;
    match &cli.command {
        Command::Init(args) => init::run(args, global, output).await,
        Command::Validate(args) => validate::run(args, global, output),
        Command::Adopt(args) => adopt::run(args, output).await,
        Command::Plan(args) => plan::run(args, global, output).await,
        Command::Apply(args) => apply::run(args, global, output).await,
        Command::Destroy(args) => destroy::run(args, global, output).await,
        Command::Outputs(args) => outputs::run(args, global, output).await,
        Command::Status(args) => status::run(args, global, output).await,
        Command::Logs(args) => logs::run(args, global, output).await,
        Command::Verify(args) => verify::run(args, global, output).await,
        Command::Backfill(args) => backfill::run(args, global, output).await,
        Command::Replay(args) => replay::run(args, global, output).await,
        Command::Pause(_) => pause::run(Counting::Paused, global, output).await,
        Command::Resume(_) => pause::run(Counting::Running, global, output).await,
        Command::Query(args) => query::run(args, global, output).await,
        Command::Top(args) => top::run(args, global, output).await,
        Command::Events(args) => events::run(args, global, output).await,
        Command::Rollup(args) => rollup::run(args, global, output),
        Command::Dashboard(args) => dashboard::run(args, global, output).await,
        Command::Policy(args) => policy::run(args, global, output).await,
        Command::Schema(args) => schema::run(args, output),
        Command::Completions(args) => completions::run(args, output),
    }
}

#[cfg(test)]
mod generated;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_of_every_command_is_one_short_line() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            // The length excludes the parenthesis of destroy, a warning that must stay in the help.
            let about = about.split(" (").next().unwrap_or_default();
            assert!(!about.is_empty() && about.len() < 70, "{}: {about}", command.get_name());
        }
    }
}
