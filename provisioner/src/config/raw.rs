//! The file's shape, as serde sees it. Everything may be missing here; [`super::check`] knows what must not be.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use toml::Spanned;

use super::diagnostic::Diagnostic;
use super::keys;
use super::tree::{self, Tree};

/// A value that may be missing and knows where it stands.
pub(super) type Maybe<T> = Option<Spanned<T>>;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) pipeline: Pipeline,
    pub(super) tags: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) bucket: Bucket,
    pub(super) notification: Notification,
    pub(super) role: Role,
    pub(super) table: Table,
    pub(super) function: Function,
    pub(super) rollup: Rollup,
    pub(super) segment: Segment,
    pub(super) estimate: Estimate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Pipeline {
    pub(super) name: Maybe<String>,
    pub(super) region: Maybe<String>,
    pub(super) account: Maybe<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Bucket {
    pub(super) name: Maybe<String>,
    pub(super) versioning: Option<bool>,
    pub(super) expire_days: Maybe<i64>,
    pub(super) require_tls: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Notification {
    pub(super) prefix: Maybe<String>,
    pub(super) suffix: Maybe<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Role {
    pub(super) name: Maybe<String>,
    pub(super) statement: Vec<Spanned<Statement>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Statement {
    pub(super) actions: Vec<Spanned<String>>,
    pub(super) resources: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Table {
    pub(super) name: Maybe<String>,
    pub(super) ledger_name: Maybe<String>,
    pub(super) billing: Maybe<Billing>,
    pub(super) point_in_time_recovery: Option<bool>,
    pub(super) deletion_protection: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Function {
    pub(super) name: Maybe<String>,
    pub(super) artifact: Option<String>,
    pub(super) memory_mb: Maybe<i64>,
    pub(super) timeout_seconds: Maybe<i64>,
    pub(super) architecture: Maybe<String>,
    pub(super) log_retention_days: Maybe<i64>,
    pub(super) max_concurrency: Maybe<i64>,
    pub(super) retries: Maybe<i64>,
    pub(super) max_event_age_seconds: Maybe<i64>,
    pub(super) failure_queue: Maybe<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rollup {
    pub(super) count: Maybe<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Segment {
    pub(super) workspace_id: Maybe<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Estimate {
    pub(super) events_per_month: Maybe<i64>,
    pub(super) files_per_month: Maybe<i64>,
}

/// `"on-demand"`, or capacity units for each table and for its index.
#[derive(Debug)]
pub(super) enum Billing {
    Named(String),
    Provisioned { read: i64, write: i64 },
}

impl<'de> Deserialize<'de> for Billing {
    // By hand, since serde's untagged enums forget where in the value the mistake stands.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Capacity {
            read: i64,
            write: i64,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Billing;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"on-demand\" or { read = 5, write = 5 }")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Billing, E> {
                Ok(Billing::Named(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Billing, A::Error> {
                let Capacity { read, write } = Capacity::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Billing::Provisioned { read, write })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Gives the tree its types. What does not fit is reported, cut out, and the rest tried again, so that the first
/// mistake does not hide the next.
pub(super) fn read(mut tree: Tree<'_>, found: &mut Vec<Diagnostic>) -> Raw {
    loop {
        let error = match Raw::deserialize(toml::Deserializer::from(tree.clone())) {
            Ok(raw) => return raw,
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        // Each round cuts something out of the tree or ends, so there are at most as many as the tree has nodes.
        match tree::cut(&mut tree, &span) {
            Some(cut) if cut.by_key => {
                let message = format!("`{}` is not a key of pipeline.toml", cut.path);
                found.push(Diagnostic::new(span, message, "", keys::instead_of(&cut.path)));
            }
            Some(cut) => {
                let message = format!("`{}` has a wrong value", cut.path);
                found.push(Diagnostic::new(span, message, error.message(), keys::example(&cut.path)));
            }
            None => {
                found.push(Diagnostic::new(span, error.message(), "", "see the README for every key and its type"));
                return Raw::default();
            }
        }
    }
}
