//! What differs in one resource: the one value that text, JSON and Markdown render.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

/// One setting's value, in the form in which it is compared and shown.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Value {
    /// Not set.
    Unset,
    /// A flag.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
    /// Texts whose order means nothing.
    Set(BTreeSet<String>),
    /// Names and texts.
    Map(BTreeMap<String, String>),
    /// Code.
    Code(Code),
    /// A JSON document; policies come in [`crate::aws::policy`]'s canonical form.
    Document(Json),
}

/// Code, as it is compared and shown.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(crate) struct Code {
    /// Base64 of the SHA-256 of the archive.
    pub(crate) sha256: String,
    /// The size of the archive, in bytes.
    pub(crate) bytes: u64,
    /// The git revision from which it was built.
    pub(crate) revision: Option<String>,
}

/// The same bytes are the same code, whatever revision they were built from.
impl PartialEq for Code {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }
}

impl From<&Code> for Value {
    fn from(code: &Code) -> Self {
        Self::Code(code.clone())
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}
impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Number(value.into())
    }
}
impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Number(value)
    }
}
impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}
impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}
impl From<&BTreeSet<String>> for Value {
    fn from(value: &BTreeSet<String>) -> Self {
        Self::Set(value.clone())
    }
}
impl From<&BTreeMap<String, String>> for Value {
    fn from(value: &BTreeMap<String, String>) -> Self {
        Self::Map(value.clone())
    }
}
impl From<&Json> for Value {
    fn from(value: &Json) -> Self {
        Self::Document(value.clone())
    }
}
impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Unset, Into::into)
    }
}

/// One setting that is not as declared.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct SettingChange {
    /// The setting's name, stable across versions.
    pub(crate) setting: &'static str,
    /// As it is on AWS.
    pub(crate) live: Value,
    /// As declared.
    pub(crate) desired: Value,
}

/// Collects the settings that differ.
#[derive(Debug, Default)]
pub(crate) struct Diff(Vec<SettingChange>);

impl Diff {
    /// Nothing compared yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Compares one setting.
    pub(crate) fn compare(mut self, setting: &'static str, live: impl Into<Value>, desired: impl Into<Value>) -> Self {
        let (live, desired) = (live.into(), desired.into());
        if live != desired {
            self.0.push(SettingChange { setting, live, desired });
        }
        self
    }

    /// Compares tags: those that are not declared are somebody else's and do not count.
    pub(crate) fn tags(self, live: Option<&BTreeMap<String, String>>, desired: &BTreeMap<String, String>) -> Self {
        let ours: Option<BTreeMap<String, String>> = live.map(|live| {
            live.iter().filter(|(key, _)| desired.contains_key(*key)).map(|(k, v)| (k.clone(), v.clone())).collect()
        });
        self.compare("tags", ours.as_ref(), desired)
    }

    /// What differs, in the order compared.
    pub(crate) fn changes(self) -> Vec<SettingChange> {
        self.0
    }
}

/// Whether one of `settings` is among the changes.
pub(crate) fn touches(changes: &[SettingChange], settings: &[&str]) -> bool {
    changes.iter().any(|change| settings.contains(&change.setting))
}
