//! The names of events that earlier commands printed, for completions: a completion has no time to ask AWS.
//!
//! They are in a file of the user's cache folder that only the user can read, one a line, the latest first.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::args::variable;
use crate::config::Pipeline;
use crate::private_file;

/// The most names that are kept.
const MOST: usize = 1_000;

fn file(pipeline: &Pipeline) -> Option<PathBuf> {
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))?;
    Some(cache.join("provisioner").join(format!("{}.{}.events", pipeline.name, pipeline.region)))
}

/// Returns the names of the pipeline's events.
pub(super) fn known(pipeline: &Pipeline) -> Vec<String> {
    let text = file(pipeline).and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Keeps names for completions. Failures are ignored: no result of a command depends on them.
pub(super) fn remember<'n>(pipeline: &Pipeline, names: impl Iterator<Item = &'n str>) {
    let before = known(pipeline);
    let after = merged(names, &before);
    if let Some(file) = file(pipeline).filter(|_| after != before) {
        let _ = file.parent().map(std::fs::create_dir_all);
        let _ = private_file::write(&file, after.iter().map(|name| format!("{name}\n")).collect::<String>().as_bytes());
    }
}

/// Puts names before those that were known.
fn merged<'n>(names: impl Iterator<Item = &'n str>, before: &[String]) -> Vec<String> {
    let (mut after, mut seen): (Vec<String>, _) = (names.map(str::to_owned).collect(), BTreeSet::new());
    after.extend_from_slice(before);
    after.retain(|name| !name.contains(char::is_control) && seen.insert(name.clone()));
    after.truncate(MOST);
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_names_come_first_and_once() {
        let before = ["Signed Up".to_owned(), "Order Completed".to_owned()];
        let after = merged(["Order Completed", "two\nlines", "Page"].into_iter(), &before);
        assert_eq!(after, ["Order Completed", "Page", "Signed Up"]);
        let many: Vec<String> = (0..2 * MOST).map(|n| n.to_string()).collect();
        assert_eq!(merged(many.iter().map(String::as_str), &before).len(), MOST);
    }
}
