//! `provisioner completions`, and the answers to its scripts.
//!
//! A script runs the program at each completion, with the name of the shell in [`VARIABLE`] and the words of the
//! command line after `--`. `clap_complete` finds the argument and its fixed values; this file adds the values of
//! `pipeline.toml` and the events. That engine is not stable yet: only this file uses it, and a script fits the version
//! that printed it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;

use super::args::Global;
use super::event_names;
use crate::config;
use crate::error::Error;
use crate::output::Output;

/// The environment variable that asks for completions.
const VARIABLE: &str = "PROVISIONER_COMPLETE";
const PROGRAM: &str = "provisioner";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shell that runs the script
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<ExitCode, Error> {
    let shells = Shells::builtins();
    let mut script = Vec::new();
    if let Some(shell) = shells.completer(&args.shell.to_string()) {
        let written = shell.write_registration(VARIABLE, PROGRAM, PROGRAM, &program(), &mut script);
        written.map_err(|source| Error::internal("write the script", source))?;
    }
    // Bash escapes the spaces in names of files only; here the same is needed for names of events.
    let script = String::from_utf8_lossy(&script).replace("complete -o nospace", "complete -o filenames -o nospace");
    output.print(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the program as the script calls it: by its name, if it was called so, and otherwise by its path.
fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let path = std::path::absolute(&called).ok().filter(|_| called.components().count() > 1);
    path.map_or_else(|| PROGRAM.to_owned(), |path| path.to_string_lossy().into_owned())
}

/// Prints the completions of a command line if a script asks for them. Returns whether it does.
pub(crate) fn complete(args: &[OsString], program: fn() -> clap::Command, output: &Output) -> bool {
    let words = args.iter().position(|arg| arg == "--").and_then(|at| args.get(at + 1..)).unwrap_or_default();
    let (shells, shell) = (Shells::builtins(), std::env::var(VARIABLE).unwrap_or_default());
    let Some(shell) = shells.completer(&shell).filter(|_| !words.is_empty()) else { return false };
    let mut program = with_values(program(), &Values::read(words));
    let (mut answer, folder) = (Vec::new(), std::env::current_dir().ok());
    // Without an answer the shell completes nothing.
    if shell.write_complete(&mut program, words.to_vec(), folder.as_deref(), &mut answer).is_ok() {
        let _ = output.print(&String::from_utf8_lossy(&answer));
    }
    true
}

/// The values of arguments that depend on the pipeline.
#[derive(Debug, Default)]
struct Values {
    environments: Vec<String>,
    consumers: Vec<String>,
    events: Vec<String>,
    sums: Vec<String>,
    breakdowns: Vec<String>,
}

impl Values {
    /// Reads them for an unfinished command line, without AWS.
    fn read(words: &[OsString]) -> Self {
        let global = Global::unfinished(words);
        if global.is_stdin() {
            return Self::default();
        }
        let environments = config::environments(&global.config());
        let Ok(pipeline) = global.load() else { return Self { environments, ..Self::default() } };
        let prefix = format!("{}-", pipeline.name);
        let consumers = pipeline.consumers.iter().filter_map(|consumer| consumer.name.strip_prefix(&prefix));
        Self {
            environments,
            consumers: consumers.map(str::to_owned).collect(),
            events: event_names::known(&pipeline),
            sums: pipeline.rollup.sum,
            breakdowns: pipeline.rollup.by,
        }
    }

    /// Returns those of an argument, which its name or the name of its value selects.
    fn of(&self, arg: &clap::Arg) -> &[String] {
        let value = arg.get_value_names().and_then(<[_]>::first).map(|name| name.as_str());
        match (arg.get_long(), value) {
            (Some("env"), _) => &self.environments,
            (Some("consumer"), _) => &self.consumers,
            (Some("sum" | "by-sum"), _) => &self.sums,
            (Some("property" | "by-property"), _) => &self.breakdowns,
            (_, Some("EVENT")) => &self.events,
            _ => &[],
        }
    }
}

fn with_values(program: clap::Command, values: &Values) -> clap::Command {
    let add = |arg: clap::Arg| {
        let values: Vec<String> = values.of(&arg).iter().filter(|value| is_harmless(value)).cloned().collect();
        if values.is_empty() {
            return arg;
        }
        arg.add(ArgValueCandidates::new(move || values.iter().map(CompletionCandidate::new).collect()))
    };
    program.mut_args(add).mut_subcommands(|command| command.mut_args(add))
}

/// Returns whether a shell cannot misread a value. Names of events come from whoever sends them, and a shell inserts
/// them into the command line.
fn is_harmless(value: &str) -> bool {
    value.starts_with(char::is_alphanumeric) && value.chars().all(|c| c.is_alphanumeric() || " _-./".contains(c))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn candidates(words: &[&str]) -> Vec<String> {
        let values = Values {
            environments: vec!["staging".to_owned()],
            events: ["Order Completed", "Order$(reboot)", "-rf", "a\nb", "`x`"].map(str::to_owned).into(),
            sums: vec!["properties.revenue".to_owned()],
            ..Values::default()
        };
        let mut program = with_values(super::super::Cli::command(), &values);
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let last = words.len() - 1;
        let found = clap_complete::engine::complete(&mut program, words, last, None).expect("candidates");
        found.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn arguments_are_completed_from_the_file_and_from_earlier_answers() {
        assert_eq!(candidates(&["provisioner", "--env", "st"]), ["staging"]);
        assert_eq!(candidates(&["provisioner", "plan", "--env", ""]), ["staging"]);
        assert_eq!(candidates(&["provisioner", "query", "Ord"]), ["Order Completed"]);
        assert_eq!(candidates(&["provisioner", "top", "--of", ""]), ["Order Completed"]);
        assert_eq!(candidates(&["provisioner", "query", "--sum", "p"]), ["properties.revenue"]);
        assert_eq!(candidates(&["provisioner", "compl"]), ["completions"]);
    }
}
