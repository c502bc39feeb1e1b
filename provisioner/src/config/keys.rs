//! All keys of `pipeline.toml`, for messages, the JSON Schema and editors.

use super::key::Key;
use super::{bucket, estimate, function, notification, pipeline, role, rollup, segment, table};

/// Returns every key, section by section.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    let sections: [&[Key]; 9] = [
        pipeline::KEYS,
        bucket::KEYS,
        notification::KEYS,
        role::KEYS,
        table::KEYS,
        function::KEYS,
        rollup::KEYS,
        estimate::KEYS,
        segment::KEYS,
    ];
    sections.into_iter().flatten()
}

/// Returns the help text that shows how to write the key at `path`, or the section of that name.
pub(super) fn example(path: &str) -> String {
    if let Some(key) = all().find(|key| key.path == path) {
        return format!("write it as `{}`", key.example);
    }
    match path {
        "role.statement" => {
            "write [[role.statement]] and below it actions = [\"...\"] and resources = [\"...\"]".to_owned()
        }
        _ if path.starts_with("tags.") => "write a string: team = \"analytics\"".to_owned(),
        _ => format!("write it as a section: [{path}]"),
    }
}

/// Returns the help text for an unknown key at `path`: its nearest known sibling, or all of its siblings.
pub(super) fn suggestion(path: &str) -> String {
    let (section, wrong) = path.rsplit_once('.').unwrap_or(("", path));
    let mut siblings: Vec<&str> = all()
        .filter_map(|key| match section {
            "" => key.path.split('.').next(),
            _ => key.path.strip_prefix(section)?.strip_prefix('.')?.split('.').next(),
        })
        .collect();
    if section.is_empty() {
        siblings.push("environments");
    }
    siblings.dedup();
    // 0.8: one or two letters off in a name of this length; a more distant guess misleads.
    let nearest = siblings
        .iter()
        .map(|known| (strsim::jaro_winkler(wrong, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None if section.is_empty() => format!("the sections are: {}", siblings.join(", ")),
        None => format!("the keys of [{section}] are: {}", siblings.join(", ")),
    }
}
