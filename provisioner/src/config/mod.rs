//! `pipeline.toml` to [`Pipeline`]: parse, overlay, check. Makes no AWS calls.
//!
//! The text is parsed into a tree that keeps the position of each value ([`tree`]), an environment is overlaid, the
//! tree is deserialized ([`file`]), and each section checks its part. Every step collects mistakes and continues, so
//! that one run reports all of them. A section is one file: its raw form, its checked form, its checks and its keys.

mod alarms;
mod bucket;
mod check;
mod consumer;
mod diagnostic;
mod estimate;
mod file;
mod function;
mod key;
mod managed_tags;
mod new_file;
mod notification;
mod pipeline;
mod role;
mod rollup;
mod rules;
mod schema;
mod segment;
mod setting;
mod stream;
mod table;
mod tree;

use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

pub(crate) use alarms::Receiver;
pub(crate) use bucket::declared_key;
pub(crate) use estimate::Volume;
pub(crate) use file::Pipeline;
pub(crate) use function::{Function, INVOKE_RETRIES, Source};
pub(crate) use managed_tags::dropped as dropped_tags;
pub(crate) use new_file::{Field, NewFile, Refused};
pub(crate) use notification::Via;
pub(crate) use pipeline::{MANAGED_BY, MANAGED_BY_TAG, PIPELINE_TAG};
pub(crate) use rollup::Rollup;
pub(crate) use rules::partition;
pub(crate) use schema::schema;
pub(crate) use setting::Setting;
pub(crate) use table::Billing;

use diagnostic::{ConfigErrors, Diagnostic};

use crate::error::{Error, ErrorKind};

/// The environment of `make local`: the same pipeline under the same names, on a local AWS. A file need not declare it.
/// Every other environment has its own names and must be declared, since a misspelt name would otherwise select
/// production.
pub(crate) const LOCAL: &str = "local";

/// The file name that means standard input.
const STDIN: &str = "-";

/// Reads and checks the file, overlaid by `environment` if one is given. `-` is standard input.
///
/// # Errors
/// [`ErrorKind::Io`] if the file cannot be read, [`ErrorKind::Config`] with every mistake in it, [`ErrorKind::Usage`]
/// if it declares no such environment.
pub(crate) fn load(path: &Path, environment: Option<&str>, named_by: &str) -> Result<Pipeline, Error> {
    let is_stdin = is_stdin(path);
    let name = display_name(path);
    let text = if is_stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let help = "pass the file with --config, or run the command in the folder of pipeline.toml";
    let text = text.map_err(|source| Error::io(format_args!("read {name}"), help, &source))?;
    let mut pipeline = check_all(&name, &text, environment).map_err(|mistakes| mistakes.into_error(&name, named_by))?;
    if !is_stdin {
        pipeline.directory = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    }
    Ok(pipeline)
}

/// Returns the names of the environments of a file, and [`LOCAL`], as far as the file can be read.
pub(crate) fn environments(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut ignored = Vec::new();
    let mut tree = tree::parse(&text, &mut ignored);
    let mut names: Vec<String> = tree::take_environments(&mut tree, &mut ignored).into_keys().collect();
    if !names.iter().any(|name| name == LOCAL) {
        names.push(LOCAL.to_owned());
    }
    names
}

/// Returns whether the file is the standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// Returns the name of the file for messages.
pub(crate) fn display_name(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// Parses and checks `text`, as [`load`] does with `--env`.
///
/// # Errors
/// Those of [`load`], except for reading a file.
pub(crate) fn parse(name: &str, text: &str, environment: Option<&str>) -> Result<Pipeline, Error> {
    check_all(name, text, environment).map_err(|mistakes| mistakes.into_error(name, "--env"))
}

/// The reasons why a file yields no pipeline.
#[derive(Debug, Default)]
struct Mistakes {
    /// Mistakes in the file.
    file: Option<ConfigErrors>,
    /// The environment that the file does not declare, and those that it declares.
    environment: Option<(String, Vec<String>)>,
}

impl Mistakes {
    fn into_error(self, file: &str, named_by: &str) -> Error {
        let in_file = self.file.map(|errors| Error::new(ErrorKind::Config, errors.to_string(), ""));
        let in_use = self.environment.map(|(wanted, known)| {
            let help = match known.as_slice() {
                [] => format!("declare it in {file}, for example: [environments.{wanted}] bucket.name = \"...\""),
                known => format!("choose one that {file} declares: {}", known.join(", ")),
            };
            let wanted = wanted.escape_debug();
            Error::usage(format!("{named_by} names the environment `{wanted}`, which {file} does not declare"), help)
        });
        let unexplained = || Error::internal(format_args!("read {file}"), "no mistake was recorded");
        Error::all(in_file.into_iter().chain(in_use).collect()).unwrap_or_else(unexplained)
    }
}

/// Checks the file with every environment: a mistake in one is reported before that environment is used.
fn check_all(name: &str, text: &str, environment: Option<&str>) -> Result<Pipeline, Mistakes> {
    let mut found = Vec::new();
    let mut base = tree::parse(text, &mut found);
    let unparsed: Vec<Range<usize>> = found.iter().map(|diagnostic| diagnostic.span.clone()).collect();
    let overlays = tree::take_environments(&mut base, &mut found);

    let mut chosen = None;
    let mut all: Vec<(&str, Range<usize>, Pipeline)> = Vec::new();
    let mut environments: Vec<Option<&str>> = vec![None];
    environments.extend(overlays.keys().map(|name| Some(name.as_str())));
    for candidate in environments {
        let mut merged = base.clone();
        let overlay = candidate.and_then(|name| overlays.get(name));
        if let Some(overlay) = overlay {
            tree::overlay(&mut merged, overlay);
        }
        let span = overlay.map_or(0..0, Spanned::span);
        let own = candidate.filter(|name| *name != LOCAL);
        let suffix = own.filter(|_| !overlay.is_some_and(tree::names_the_pipeline));
        let Some(raw) = file::read(merged, &mut found) else { break };
        let pipeline = file::check(raw, suffix.map(|name| (name, span.clone())), unparsed.is_empty(), &mut found);
        let pipeline = pipeline.map(|pipeline| Pipeline { environment: environment.map(str::to_owned), ..pipeline });
        if let (Some(pipeline), true) = (&pipeline, candidate.is_none() || own.is_some()) {
            all.push((candidate.unwrap_or_default(), span, pipeline.clone()));
        }
        let is_chosen = match environment {
            Some(LOCAL) if !overlays.contains_key(LOCAL) => candidate.is_none(),
            environment => candidate == environment,
        };
        if is_chosen {
            chosen = pipeline;
        }
    }

    file::check_shared_names(&all, &mut found);

    // Unparsable text is one mistake, not also a wrong value. Each environment repeats the mistakes of the base.
    let is_echo =
        |d: &Diagnostic| !d.is_syntax && unparsed.iter().any(|b| d.span.start <= b.end && b.start <= d.span.end);
    found.retain(|diagnostic| !is_echo(diagnostic));
    found.sort_by(|a, b| (a.span.start, a.span.end, &a.message).cmp(&(b.span.start, b.span.end, &b.message)));
    found.dedup();
    let is_unknown = |wanted: &&str| *wanted != LOCAL && !overlays.contains_key(*wanted);
    let unknown = environment.filter(is_unknown);
    match chosen {
        Some(pipeline) if found.is_empty() => Ok(pipeline),
        _ => Err(Mistakes {
            environment: unknown.map(|wanted| (wanted.to_owned(), overlays.keys().cloned().collect())),
            file: (!found.is_empty()).then(|| ConfigErrors { path: name.to_owned(), text: text.to_owned(), found }),
        }),
    }
}

#[cfg(test)]
mod tests;
