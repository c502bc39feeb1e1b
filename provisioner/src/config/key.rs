//! The keys of `pipeline.toml`, for messages, the JSON Schema and editors.

/// A key of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// The dotted path: `function.memory_mb`.
    pub(super) path: &'static str,
    /// A line of the file that sets it.
    pub(super) example: &'static str,
    /// The default value, or a description of it; empty if there is none.
    pub(super) default: &'static str,
    /// The meaning and the unit, in one sentence.
    pub(super) description: &'static str,
}

pub(super) const fn key(
    path: &'static str,
    example: &'static str,
    default: &'static str,
    description: &'static str,
) -> Key {
    Key { path, example, default, description }
}

/// The sections that may occur several times.
pub(super) const LISTS: [&str; 3] = ["role.statement", "consumer", "consumer.statement"];

/// Returns the help text that shows how to write the key at `path`, or the section of that name.
pub(super) fn example<'k>(keys: impl IntoIterator<Item = &'k Key>, path: &str) -> String {
    let mut above = None;
    for key in keys {
        if key.path == path {
            return format!("write it as `{}`", key.example);
        }
        if key.path.contains('.') && path.strip_prefix(key.path).is_some_and(|rest| rest.starts_with('.')) {
            above = Some(key);
        }
    }
    if let Some(key) = above {
        return format!("write it as in `{}`", key.example);
    }
    match path {
        "consumer" => "write [[consumer]] and below it name = \"...\"".to_owned(),
        list if LISTS.contains(&list) => {
            format!("write [[{list}]] and below it actions = [\"...\"] and resources = [\"...\"]")
        }
        _ if path.starts_with("tags.") => "write a string: team = \"analytics\"".to_owned(),
        _ => format!("write it as a section: [{path}]"),
    }
}

/// Returns the help text for an unknown key at `path`: its nearest known sibling, or all of its siblings.
pub(super) fn suggestion(keys: &[&'static Key], path: &str) -> String {
    let (section, wrong) = path.rsplit_once('.').unwrap_or(("", path));
    let mut siblings: Vec<&str> = keys
        .iter()
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
