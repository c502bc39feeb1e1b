//! `provisioner init`

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;

use super::args::{DEFAULT_CONFIG, Global, listen};
use super::written;
use crate::aws::configured_region;
use crate::config::{Field, NewFile, Refused, display_name};
use crate::error::Error;
use crate::output::Output;
use crate::output::prompt::ask;
use crate::shutdown::Shutdown;
use crate::text::printable;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the pipeline, from which all other names derive
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Region [default: that of the environment or profile, or us-east-1]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Name of the bucket, global on AWS [default: NAME]
    #[arg(long, value_name = "BUCKET")]
    bucket: Option<String>,
    /// Beginning of the keys to count [default: segment-logs/]
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Id of Segment's workspace, for the role with which it writes
    #[arg(long, value_name = "ID")]
    workspace_id: Option<String>,
    /// Expected events per month, for cost estimates
    #[arg(long, value_name = "N")]
    events_per_month: Option<String>,
    /// Replace the file, and the schema beside it, if they exist
    #[arg(long)]
    force: bool,
    /// Do not ask; use the defaults of options that are not passed
    #[arg(long)]
    yes: bool,
}

impl Args {
    fn answer(&self, field: Field) -> Option<&str> {
        match field {
            Field::Name => &self.name,
            Field::Region => &self.region,
            Field::Bucket => &self.bucket,
            Field::Prefix => &self.prefix,
            Field::WorkspaceId => &self.workspace_id,
            Field::EventsPerMonth => &self.events_per_month,
        }
        .as_deref()
    }
}

/// Returns the option that sets a field, and the question for it.
fn question(field: Field) -> (&'static str, &'static str) {
    match field {
        Field::Name => ("--name", "Name of the pipeline"),
        Field::Region => ("--region", "AWS region"),
        Field::Bucket => ("--bucket", "Name of the bucket, global on AWS"),
        Field::Prefix => ("--prefix", "Folder of Segment's files in the bucket"),
        Field::WorkspaceId => ("--workspace-id", "Id of Segment's workspace, to let it write (optional)"),
        Field::EventsPerMonth => ("--events-per-month", "Expected events per month, for cost estimates (optional)"),
    }
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let path = global.config();
    if path.as_os_str() == "-" {
        return Err(Error::usage("standard input cannot be written", "pass the name of a file with --config"));
    }
    // Before the first question.
    if !args.force && path.symlink_metadata().is_ok() {
        return Err(exists(&path));
    }
    let asks = !args.yes && io::stdin().is_terminal();
    if !asks && args.name.is_none() {
        let help = "pass --name NAME, or run the command on a terminal, where it asks";
        return Err(Error::usage("the pipeline has no name", help));
    }
    let shutdown = listen()?;
    let mut file = NewFile::default();
    if let Some(region) = configured_region().await {
        file = file.with(Field::Region, &region).unwrap_or(file);
    }
    for field in Field::ALL {
        let proposal = file.proposal(field).to_owned();
        file = match args.answer(field) {
            Some(answer) => file.with(field, answer).map_err(|refused| unusable(field, answer, refused))?,
            None if asks => asked(&file, field, &proposal, output, &shutdown).await?,
            None if proposal.is_empty() => file,
            None => file.with(field, &proposal).map_err(|refused| unusable_default(field, &proposal, refused))?,
        };
    }
    written::write(&path, &file.text(), args.force).map_err(|(path, source)| unwritable(&path, &source))?;
    output.print(&text(&path))?;
    Ok(ExitCode::SUCCESS)
}

fn exists(path: &Path) -> Error {
    let help = "pass --force to replace it, or the name of another file with --config";
    Error::usage(format!("{} exists", printable(&display_name(path))), help)
}

fn unusable(field: Field, answer: &str, Refused { why, help }: Refused) -> Error {
    let (option, _) = question(field);
    Error::usage(format!("{option} {} cannot be used: {}", answer.escape_debug(), printable(&why)), help)
}

/// Returns the error of a default that follows from another answer.
fn unusable_default(field: Field, default: &str, Refused { why, .. }: Refused) -> Error {
    let (option, _) = question(field);
    let help = format!("pass {option} with another value");
    Error::usage(
        format!("the default {} of {option} cannot be used: {}", default.escape_debug(), printable(&why)),
        help,
    )
}

/// Asks for a field until the answer is valid. An empty answer stands for the proposal.
async fn asked(
    file: &NewFile,
    field: Field,
    proposal: &str,
    output: &Output,
    shutdown: &Shutdown,
) -> Result<NewFile, Error> {
    let (_, question) = question(field);
    let hint = if proposal.is_empty() { String::new() } else { format!(" [{proposal}]") };
    loop {
        let answer = ask(output, &format!("{question}{hint}: "), shutdown).await?;
        let answer = if answer.is_empty() { proposal } else { answer.as_str() };
        if answer.is_empty() && field.is_optional() {
            return Ok(file.clone());
        }
        match file.with(field, answer) {
            Ok(file) => return Ok(file),
            Err(Refused { why, help }) => output.progress(&format!("  {}: {help}", printable(&why))),
        }
    }
}

/// Returns the error of a file that cannot be written.
fn unwritable(path: &Path, source: &io::Error) -> Error {
    if source.kind() == io::ErrorKind::AlreadyExists {
        return exists(path);
    }
    let help = "pass a file in a folder that exists and is writable with --config";
    Error::io(format_args!("write {}", printable(&display_name(path))), help, source)
}

/// Formats the next steps.
fn text(path: &Path) -> String {
    let name = display_name(path);
    let quoted = shlex::try_quote(&name).map_or_else(|_| name.clone(), |quoted| quoted.into_owned());
    let option = if name == DEFAULT_CONFIG { String::new() } else { format!(" --config {}", printable(&quoted)) };
    let mut out = format!("Wrote {}. The next steps, signed in as for the AWS CLI:\n\n", printable(&name));
    for (command, purpose) in [
        ("plan", "show the changes"),
        ("apply", "make them"),
        ("outputs", "print the values for Segment's form, and all names and ARNs"),
    ] {
        out.push_str(&format!("    provisioner{option} {command:<8} # {purpose}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_steps_name_a_file_that_is_not_the_default() {
        assert!(text(Path::new("pipeline.toml")).contains("    provisioner plan     # show"));
        assert!(text(Path::new("my file.toml")).contains("    provisioner --config 'my file.toml' apply"));
    }
}
