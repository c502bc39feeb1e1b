//! The drift of one resource, as the value that text, JSON and Markdown render.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

/// The value of a setting, as it is compared and shown.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Value {
    /// Not set.
    Unset,
    /// A flag.
    Flag(bool),
    /// An integer.
    Number(i64),
    /// A string.
    Text(String),
    /// Strings without an order.
    Set(BTreeSet<String>),
    /// Strings by name.
    Map(BTreeMap<String, String>),
    /// The code of a function.
    Code(Code),
    /// A JSON document; a policy is in the canonical form of [`crate::aws::policy`].
    Document(Json),
}

/// The code of a function, as it is compared and shown.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(crate) struct Code {
    /// Base64 of the SHA-256 of the archive.
    pub(crate) sha256: String,
    /// The size of the archive, in bytes.
    pub(crate) bytes: u64,
    /// The git revision from which it was built.
    pub(crate) revision: Option<String>,
}

/// Equal archives are equal code, even if built from different revisions.
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

/// A setting that differs from the desired state.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct SettingChange {
    /// The setting's name, stable across versions.
    pub(crate) setting: &'static str,
    /// The value in the live state.
    pub(crate) live: Value,
    /// The value in the desired state.
    pub(crate) desired: Value,
}

/// A collector of the settings that differ.
#[derive(Debug, Default)]
pub(crate) struct Diff(Vec<SettingChange>);

impl Diff {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Compares a setting and records it if it differs.
    pub(crate) fn compare(mut self, setting: &'static str, live: impl Into<Value>, desired: impl Into<Value>) -> Self {
        let (live, desired) = (live.into(), desired.into());
        if live != desired {
            self.0.push(SettingChange { setting, live, desired });
        }
        self
    }

    /// Compares the declared tags. Other tags of the resource are unmanaged and ignored.
    pub(crate) fn tags(self, live: Option<&BTreeMap<String, String>>, desired: &BTreeMap<String, String>) -> Self {
        let managed: Option<BTreeMap<String, String>> = live.map(|live| {
            live.iter().filter(|(key, _)| desired.contains_key(*key)).map(|(k, v)| (k.clone(), v.clone())).collect()
        });
        self.compare("tags", managed.as_ref(), desired)
    }

    /// Returns the settings that differ, in the order of comparison.
    pub(crate) fn changes(self) -> Vec<SettingChange> {
        self.0
    }
}

/// Returns whether the changes include one of `settings`.
pub(crate) fn touches(changes: &[SettingChange], settings: &[&str]) -> bool {
    changes.iter().any(|change| settings.contains(&change.setting))
}
