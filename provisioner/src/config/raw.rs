//! The file as serde sees it. Every key may be absent here; the checks of the sections know the required ones.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::diagnostic::Diagnostic;
use super::tree::{self, Tree};
use super::{bucket, estimate, function, keys, notification, pipeline, role, rollup, segment, table};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) pipeline: pipeline::Raw,
    pub(super) tags: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) bucket: bucket::Raw,
    pub(super) notification: notification::Raw,
    pub(super) role: role::Raw,
    pub(super) table: table::Raw,
    pub(super) function: function::Raw,
    pub(super) rollup: rollup::Raw,
    pub(super) segment: segment::Raw,
    pub(super) estimate: estimate::Raw,
}

/// Deserializes the tree. A value that does not fit is reported and cut out, and the rest is tried again, so that the
/// first mistake does not hide the next.
pub(super) fn read(mut tree: Tree<'_>, found: &mut Vec<Diagnostic>) -> Raw {
    loop {
        let error = match Raw::deserialize(toml::Deserializer::from(tree.clone())) {
            Ok(raw) => return raw,
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        // Each round cuts a node out of the tree or returns, so there are at most as many rounds as nodes.
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
