//! The keys of `pipeline.toml`: what each means and accepts, for the checks, the messages, the JSON Schema and the
//! reference.

use super::rules::Text;

/// A key of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// The dotted path: `function.memory_mb`.
    pub(super) path: &'static str,
    /// A line of the file that sets it.
    pub(super) example: &'static str,
    /// The default as TOML, or a description of it; empty if there is none.
    pub(super) default: &'static str,
    /// The meaning, in one sentence.
    pub(super) description: &'static str,
    /// The values of the key, or of each entry of its list.
    pub(super) values: Values,
    /// The form of its texts as a regular expression, for editors; empty if a rule of its texts or words says it.
    pub(super) form: &'static str,
    /// The least and the most entries of its list.
    pub(super) entries: (usize, usize),
    /// True if the entries of its list differ.
    pub(super) is_set: bool,
    /// True if its section must have it.
    pub(super) is_required: bool,
}

/// Values of the type of a key's example.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values {
    /// All of them.
    Any,
    /// Whole numbers.
    Range { least: i64, most: i64, unit: &'static str },
    /// These whole numbers.
    Numbers { allowed: &'static [i64], unit: &'static str },
    /// These words.
    Words(&'static [&'static str]),
    /// Texts that obey a rule.
    Text(Text),
    /// A word, or numbers of capacity units: `{ read = 5, write = 5 }`.
    Capacity { word: &'static str, least: i64, most: i64 },
}

pub(super) const fn key(
    path: &'static str,
    example: &'static str,
    default: &'static str,
    description: &'static str,
) -> Key {
    let entries = (0, usize::MAX);
    let values = Values::Any;
    Key { path, example, default, description, values, form: "", entries, is_set: false, is_required: false }
}

impl Key {
    /// Limits a whole number, with its unit.
    pub(super) const fn range(self, least: i64, most: i64, unit: &'static str) -> Self {
        Self { values: Values::Range { least, most, unit }, ..self }
    }

    /// Limits a whole number to these, with their unit.
    pub(super) const fn numbers(self, allowed: &'static [i64], unit: &'static str) -> Self {
        Self { values: Values::Numbers { allowed, unit }, ..self }
    }

    /// Limits a text, or each entry of a list, to these words.
    pub(super) const fn words(self, words: &'static [&'static str]) -> Self {
        Self { values: Values::Words(words), ..self }
    }

    /// Gives a rule to a text, or to each entry of a list.
    pub(super) const fn text(self, rule: Text) -> Self {
        Self { values: Values::Text(rule), ..self }
    }

    /// Gives the form of a text, or of each entry of a list.
    pub(super) const fn form(self, pattern: &'static str) -> Self {
        Self { form: pattern, ..self }
    }

    /// Accepts a word, or numbers of capacity units.
    pub(super) const fn capacity(self, word: &'static str, least: i64, most: i64) -> Self {
        Self { values: Values::Capacity { word, least, most }, ..self }
    }

    /// Limits the number of entries of a list.
    pub(super) const fn entries(self, least: usize, most: usize) -> Self {
        Self { entries: (least, most), ..self }
    }

    /// Says that the entries of a list differ.
    pub(super) const fn set(self) -> Self {
        Self { is_set: true, ..self }
    }

    /// Says that the section must have the key.
    pub(super) const fn required(self) -> Self {
        Self { is_required: true, ..self }
    }
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
