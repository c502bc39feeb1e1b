//! `pipeline.toml` to [`Pipeline`]: parse, overlay, check. Makes no AWS calls.
//!
//! The text is parsed into a tree that remembers the position of each value ([`tree`]), an environment is laid over it,
//! the tree is deserialized ([`file`]), and each section checks its part. Every step collects mistakes and goes on, so
//! that one run reports all of them. A section is one file: its raw form, its checked form, its checks and its keys.

mod bucket;
mod check;
mod diagnostic;
mod estimate;
mod file;
mod function;
mod key;
mod keys;
mod notification;
mod pipeline;
mod role;
mod rollup;
mod rules;
mod schema;
mod segment;
mod table;
mod tree;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

pub(crate) use estimate::Volume;
pub(crate) use file::Pipeline;
pub(crate) use pipeline::{MANAGED_BY, MANAGED_BY_TAG, PIPELINE_TAG};
pub(crate) use schema::schema;
pub(crate) use table::Billing;

use diagnostic::{ConfigErrors, Diagnostic};

use crate::error::{Error, ErrorKind};

/// The environment of `make local`: the same pipeline under the same names, on a local AWS. A file need not declare it.
/// Every other environment must be declared, since a misspelt name would otherwise mean production, and has names of its
/// own.
pub(crate) const LOCAL: &str = "local";

/// The file name that stands for standard input.
const STDIN: &str = "-";

/// Reads and checks the file, overlaid by `environment` if one is given. `-` is standard input.
///
/// # Errors
/// [`ErrorKind::Io`] if the file cannot be read, [`ErrorKind::Config`] with every mistake in it, [`ErrorKind::Usage`] if
/// it declares no such environment.
pub(crate) fn load(path: &Path, environment: Option<&str>) -> Result<Pipeline, Error> {
    let is_stdin = path.as_os_str() == STDIN;
    let name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let text = if is_stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let help = "pass the file with --config, or run the command in the folder of pipeline.toml";
    let text = text.map_err(|source| Error::io(format_args!("read {name}"), help, &source))?;
    let mut pipeline = parse(&name, &text, environment)?;
    if !is_stdin {
        pipeline.directory = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    }
    Ok(pipeline)
}

/// Checks `text`, which messages call `name`.
///
/// # Errors
/// [`load`]
pub(crate) fn parse(name: &str, text: &str, environment: Option<&str>) -> Result<Pipeline, Error> {
    check_all(name, text, environment).map_err(|mistakes| match mistakes {
        Mistakes::File(errors) => Error::new(ErrorKind::Config, errors.to_string(), ""),
        Mistakes::Environment(error) => error,
    })
}

/// The reason why a file yields no pipeline.
#[derive(Debug)]
enum Mistakes {
    /// Mistakes in the file.
    File(ConfigErrors),
    /// The file is correct, but does not declare the environment.
    Environment(Error),
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
        let raw = file::read(merged, &mut found);
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

    // Text that cannot be parsed is one mistake, not also a wrong value. An environment repeats the base's mistakes.
    let is_echo =
        |d: &Diagnostic| !d.is_syntax && unparsed.iter().any(|b| d.span.start <= b.end && b.start <= d.span.end);
    found.retain(|diagnostic| !is_echo(diagnostic));
    found.sort_by(|a, b| (a.span.start, a.span.end, &a.message).cmp(&(b.span.start, b.span.end, &b.message)));
    found.dedup();
    match (chosen, environment) {
        (Some(pipeline), _) if found.is_empty() => Ok(pipeline),
        (None, Some(wanted)) if found.is_empty() => {
            Err(Mistakes::Environment(unknown_environment(name, wanted, &overlays)))
        }
        _ => Err(Mistakes::File(ConfigErrors { path: name.to_owned(), text: text.to_owned(), found })),
    }
}

fn unknown_environment(file: &str, wanted: &str, overlays: &BTreeMap<String, tree::Tree<'_>>) -> Error {
    let known: Vec<&str> = overlays.keys().map(String::as_str).collect();
    let help = if known.is_empty() {
        format!("declare it in {file}, for example: [environments.{wanted}] bucket.name = \"...\"")
    } else {
        format!("{file} declares: {}", known.join(", "))
    };
    let wanted = wanted.escape_debug();
    Error::usage(format!("{file} declares no environment `{wanted}`, which --env or PIPELINE_ENV names"), help)
}

#[cfg(test)]
mod tests;
