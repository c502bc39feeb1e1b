//! A key of `pipeline.toml`.

/// A key of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// The dotted path: `function.memory_mb`.
    pub(super) path: &'static str,
    /// A line of the file that sets it.
    pub(super) example: &'static str,
    /// The value that an absent key has, or a phrase for it; empty for none.
    pub(super) default: &'static str,
    /// One sentence: what the key sets, and in which unit.
    pub(super) description: &'static str,
}

/// A key in one line.
pub(super) const fn key(
    path: &'static str,
    example: &'static str,
    default: &'static str,
    description: &'static str,
) -> Key {
    Key { path, example, default, description }
}

/// How to write the key at `path`, one of `keys`.
pub(super) fn example_of(keys: &[Key], path: &str) -> String {
    let example = keys.iter().find(|key| key.path == path).map_or("", |key| key.example);
    format!("write it as `{example}`")
}
