//! `pipeline.toml` to [`Pipeline`]: read, overlay, check. Nothing here talks to AWS.
//!
//! A file is taken in three steps: the text is parsed into a tree that remembers where each value stands
//! ([`tree`]), the tree is turned into typed declarations ([`raw`]), and these are checked against AWS's rules
//! ([`check`]). Each step collects what it finds wrong and goes on, so that one run reports every mistake.

mod check;
pub mod diagnostic;
mod keys;
mod raw;
mod rules;
mod schema;
mod tree;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

pub use check::{Billing, Bucket, Function, Notification, Pipeline, Statement, Table, Volume};
use diagnostic::{Diagnostic, Invalid};
pub use schema::schema;

use crate::error::Error;

/// The environment that `make local` names for every file: the same pipeline on a local AWS, by the same names. Where a
/// file has nothing to change for it, it is the file as it is. Any other environment must be declared, since a wrong name
/// would otherwise mean production, and has names of its own.
pub const LOCAL: &str = "local";

/// Reads and checks the file, with the overlay of `environment` where one is named.
///
/// # Errors
/// [`Error::Io`] where the file cannot be read, [`Error::Config`] with every mistake in it otherwise.
pub fn load(path: &Path, environment: Option<&str>) -> Result<Pipeline, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
        doing: format!("read {}", path.display()),
        help: "pass the file with --config, or run where pipeline.toml lies".to_owned(),
        source,
    })?;
    let mut pipeline = parse(&path.display().to_string(), &text, environment)?;
    pipeline.directory = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    Ok(pipeline)
}

/// Checks `text`, which is called `name` in messages.
///
/// The environments that are not asked for are checked too: a mistake in one should not wait for its turn.
///
/// # Errors
/// [`Error::Config`] with every mistake.
pub fn parse(name: &str, text: &str, environment: Option<&str>) -> Result<Pipeline, Error> {
    let mut found = Vec::new();
    let mut base = tree::parse(text, &mut found);
    let broken: Vec<Range<usize>> = found.iter().map(|diagnostic| diagnostic.span.clone()).collect();
    let overlays = tree::take_environments(&mut base, &mut found);

    if let Some(wanted) = environment
        && wanted != LOCAL
        && !overlays.contains_key(wanted)
    {
        found.push(unknown_environment(wanted, &overlays));
    }
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
        let raw = raw::read(merged, &mut found);
        let pipeline = check::check(raw, suffix.map(|name| (name, span.clone())), broken.is_empty(), &mut found);
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

    check::shared(&all, &mut found);

    // What could not be parsed is one mistake, not also a wrong value. An environment repeats the base's mistakes.
    let is_echo =
        |d: &Diagnostic| !d.is_syntax && broken.iter().any(|b| d.span.start <= b.end && b.start <= d.span.end);
    found.retain(|diagnostic| !is_echo(diagnostic));
    found.sort_by(|a, b| (a.span.start, a.span.end, &a.message).cmp(&(b.span.start, b.span.end, &b.message)));
    found.dedup();
    match chosen {
        Some(pipeline) if found.is_empty() => Ok(pipeline),
        _ => Err(Error::Config(Box::new(Invalid { path: name.to_owned(), text: text.to_owned(), found }))),
    }
}

fn unknown_environment(wanted: &str, overlays: &BTreeMap<String, tree::Tree<'_>>) -> Diagnostic {
    let known: Vec<&str> = overlays.keys().map(String::as_str).collect();
    let help = if known.is_empty() {
        format!("declare it, for example: [environments.{wanted}] bucket.name = \"...\"")
    } else {
        format!("the environments declared here are: {}", known.join(", "))
    };
    Diagnostic::new(0..0, format!("there is no environment `{wanted}`"), "", help)
}

#[cfg(test)]
mod tests;
