//! A key of `pipeline.toml`.

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

/// Returns the help text that shows how to write the key at `path`, one of `keys`.
pub(super) fn example_of(keys: &[Key], path: &str) -> String {
    let example = keys.iter().find(|key| key.path == path).map_or("", |key| key.example);
    format!("write it as `{example}`")
}
