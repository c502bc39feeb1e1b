//! The drift of one resource, as the value that text, JSON and Markdown render.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

use super::protection::{Protection, Refusal};
use crate::aws::policy;
use crate::config::{Setting, dropped_tags};

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
    /// The protection that the change takes away, if it lowers protection; continues "lowers protection:".
    pub(crate) weakens: Option<String>,
}

/// The number of tags that AWS allows on a resource (AWS tagging guide).
const MOST_TAGS: usize = 50;

/// A collector of the settings that differ. It decides on protecting settings as [`super::protection`] states.
#[derive(Debug, Default)]
pub(crate) struct Diff {
    changes: Vec<SettingChange>,
    kept: Vec<String>,
    conflict: Option<Refusal>,
}

impl Diff {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Compares a setting and records it if it differs.
    pub(crate) fn compare(self, setting: &'static str, live: impl Into<Value>, desired: impl Into<Value>) -> Self {
        self.change(setting, live, desired, None)
    }

    /// Compares a setting; `weakens` is the protection that a change takes away.
    pub(crate) fn change(
        mut self,
        setting: &'static str,
        live: impl Into<Value>,
        desired: impl Into<Value>,
        weakens: Option<String>,
    ) -> Self {
        let (live, desired) = (live.into(), desired.into());
        if live != desired {
            self.changes.push(SettingChange { setting, live, desired, weakens });
        }
        self
    }

    /// Compares a protecting setting, of which the greater value is the stronger.
    pub(crate) fn protected<T: PartialOrd + Copy + Into<Value> + fmt::Display>(
        self,
        protection: Protection,
        live: Option<T>,
        desired: Setting<T>,
    ) -> Self {
        let Protection { setting, key, loss } = protection;
        match live.filter(|live| *live > desired.value) {
            None => self.compare(setting, live, desired.value),
            Some(_) if desired.is_explicit => self.change(setting, live, desired.value, Some(loss.to_owned())),
            Some(live) => {
                let default = desired.value;
                self.keep(format!(
                    "{setting} is {live}, which protects more than the default {default}, and is kept; to lower it, \
                     declare {key} = {default}"
                ))
            }
        }
    }

    /// Compares a policy. A change that allows more than before lowers protection.
    pub(crate) fn policy(self, setting: &'static str, live: Option<&Json>, desired: Option<&Json>) -> Self {
        let weakens = live.map(|live| policy::widening(live, desired.unwrap_or(&Json::Null)));
        let weakens = weakens.filter(|more| !more.is_empty()).map(|more| format!("allows more: {}", more.join("; ")));
        self.change(setting, live, desired, weakens)
    }

    /// Notes a live value that is stronger than the desired one, and is kept.
    pub(crate) fn keep(mut self, note: String) -> Self {
        self.kept.push(note);
        self
    }

    /// Compares the declared tags, and those that were declared before. Other tags of the resource are unmanaged and
    /// kept. `more` are the keys of tags that
    /// are written without being compared.
    pub(crate) fn tags(
        mut self,
        live: Option<&BTreeMap<String, String>>,
        desired: &BTreeMap<String, String>,
        more: &[&str],
    ) -> Self {
        let dropped = live.map(|live| dropped_tags(live, desired)).unwrap_or_default();
        let is_compared = |key: &String| desired.contains_key(key) || dropped.contains(key);
        let is_ours = |key: &&String| is_compared(key) || more.contains(&key.as_str());
        let unmanaged = live.map_or(0, |live| live.keys().filter(|key| !is_ours(key)).count());
        let ours = desired.len() + more.iter().filter(|key| !desired.contains_key(**key)).count();
        if unmanaged + ours > MOST_TAGS {
            self.conflict = Some(Refusal::new(
                format!("has {unmanaged} unmanaged tags, and {ours} more exceed the {MOST_TAGS} that AWS allows"),
                "remove tags from the resource or from [tags] in pipeline.toml",
            ));
        }
        let managed: Option<BTreeMap<String, String>> = live
            .map(|live| live.iter().filter(|(key, _)| is_compared(key)).map(|(k, v)| (k.clone(), v.clone())).collect());
        self.compare("tags", managed.as_ref(), desired)
    }

    /// Returns the settings that differ, in the order of comparison.
    pub(crate) fn changes(self) -> Vec<SettingChange> {
        self.changes
    }

    /// Returns the settings that differ, the notes on what is kept, and the conflict that the comparison found.
    pub(crate) fn into_parts(self) -> (Vec<SettingChange>, Vec<String>, Option<Refusal>) {
        (self.changes, self.kept, self.conflict)
    }
}

/// Returns whether the changes include one of `settings`.
pub(crate) fn touches(changes: &[SettingChange], settings: &[&str]) -> bool {
    changes.iter().any(|change| settings.contains(&change.setting))
}
