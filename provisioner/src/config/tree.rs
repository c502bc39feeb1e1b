//! The parsed text as a tree with the position of each value, and the two operations on it before deserialization:
//! overlaying an environment and cutting out a wrong key or value.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;

/// A table with its position.
pub(super) type Tree<'i> = Spanned<DeTable<'i>>;

/// Parses the text. Unparsable parts are reported and omitted.
pub(super) fn parse<'i>(text: &'i str, found: &mut Vec<Diagnostic>) -> Tree<'i> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    found.extend(errors.iter().map(|error| Diagnostic {
        span: error.span().unwrap_or(0..0),
        message: format!("this is not TOML: {}", error.message()),
        label: String::new(),
        help: "write one `key = value` per line, strings in double quotes, sections as [name]".to_owned(),
        is_syntax: true,
    }));
    tree
}

/// Removes `[environments.*]` from the tree and returns them by name.
pub(super) fn take_environments<'i>(tree: &mut Tree<'i>, found: &mut Vec<Diagnostic>) -> BTreeMap<String, Tree<'i>> {
    let mut overlays = BTreeMap::new();
    let Some(all) = tree.get_mut().remove("environments") else {
        return overlays;
    };
    let help = "write [environments.NAME] and below it the keys to change, such as bucket.name = \"...\"";
    let span = all.span();
    let DeValue::Table(all) = all.into_inner() else {
        found.push(Diagnostic::new(span, "`environments` is not a table", "", help));
        return overlays;
    };
    for (name, value) in all {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => {
                overlays.insert(name.get_ref().to_string(), Spanned::new(span, table));
            }
            _ => {
                found.push(Diagnostic::new(span, format!("`environments.{}` is not a table", name.get_ref()), "", help))
            }
        }
    }
    overlays
}

/// Overlays `over` on `base`: tables are merged, all other values are replaced.
pub(super) fn overlay<'i>(base: &mut Tree<'i>, over: &Tree<'i>) {
    overlay_table(base.get_mut(), over.get_ref());
}

fn overlay_table<'i>(base: &mut DeTable<'i>, over: &DeTable<'i>) {
    for (key, value) in over {
        match (base.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut), value.get_ref()) {
            (Some(DeValue::Table(below)), DeValue::Table(above)) => overlay_table(below, above),
            _ => {
                base.remove(key.get_ref().as_ref());
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Returns whether an environment sets `pipeline.name`.
pub(super) fn names_the_pipeline(overlay: &Tree<'_>) -> bool {
    let pipeline = overlay.get_ref().get("pipeline").map(Spanned::get_ref);
    matches!(pipeline, Some(DeValue::Table(pipeline)) if pipeline.contains_key("name"))
}

/// The node that [`cut`] removed.
pub(super) struct Cut {
    /// The dotted path, without the numbers of list entries: `role.statement.actions`.
    pub(super) path: String,
    /// True if the key was wrong, rather than the value.
    pub(super) by_key: bool,
}

/// Removes the key or value at `span` from the tree.
pub(super) fn cut(tree: &mut Tree<'_>, span: &Range<usize>) -> Option<Cut> {
    cut_table(tree.get_mut(), span, "")
}

fn cut_table(table: &mut DeTable<'_>, span: &Range<usize>, path: &str) -> Option<Cut> {
    let join = |key: &str| {
        if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
    };
    let hit = table.iter().find(|(key, value)| key.span() == *span || value.span() == *span);
    if let Some((key, _)) = hit {
        let (name, by_key) = (key.get_ref().to_string(), key.span() == *span);
        table.remove(name.as_str());
        return Some(Cut { path: join(&name), by_key });
    }
    table.iter_mut().find_map(|(key, value)| {
        let path = join(key.get_ref());
        cut_value(value.get_mut(), span, &path)
    })
}

fn cut_value(value: &mut DeValue<'_>, span: &Range<usize>, path: &str) -> Option<Cut> {
    match value {
        DeValue::Table(table) => cut_table(table, span, path),
        DeValue::Array(array) => {
            if let Some(at) = array.iter().position(|entry| entry.span() == *span) {
                *array = array.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, entry)| entry.clone()).collect();
                return Some(Cut { path: path.to_owned(), by_key: false });
            }
            array.iter_mut().find_map(|entry| cut_value(entry.get_mut(), span, path))
        }
        _ => None,
    }
}
