//! `[role]` and `[[role.statement]]`, and the roles of functions

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::check::{Check, Maybe};
use super::key::{Key, example, key};
use super::rules;

/// A statement of a function's role, in addition to its own.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Statement {
    /// IAM actions, never empty.
    pub(crate) actions: Vec<String>,
    /// ARNs or `*`, never empty.
    pub(crate) resources: Vec<String>,
}

/// The role of a function.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Role {
    /// The role's name.
    pub(crate) name: String,
    /// Statements of the role in addition to its own.
    pub(crate) statements: Vec<Statement>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    name: Maybe<String>,
    permissions_boundary: Maybe<String>,
    statement: Vec<Spanned<RawStatement>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStatement {
    actions: Vec<Spanned<String>>,
    resources: Vec<Spanned<String>>,
}

pub(super) const KEYS: &[Key] = &[
    key("role.name", "name = \"segment-events-function\"", "NAME-function", "Name of the function's role.")
        .text(rules::ROLE_NAME),
    key(
        "role.permissions_boundary",
        "permissions_boundary = \"arn:aws:iam::123456789012:policy/boundary\"",
        "",
        "ARN of the policy that bounds the permissions of the pipeline's roles.",
    )
    .form(rules::POLICY_FORM)
    .text(rules::POLICY_ARN),
    key("role.statement.actions", "actions = [\"s3:GetObject\"]", "", "IAM actions that the role allows in addition.")
        .text(rules::ACTION)
        .entries(1, usize::MAX)
        .required(),
    key(
        "role.statement.resources",
        "resources = [\"arn:aws:s3:::acme-lookup/*\"]",
        "",
        "ARNs on which the role allows these actions.",
    )
    .text(rules::RESOURCE)
    .entries(1, usize::MAX)
    .required(),
];

impl Raw {
    /// Checks the section. Returns the counter's role, and the ARN of the policy that bounds the permissions of every role.
    pub(super) fn check(self, check: &mut Check<'_>, base: &str, has_segment_role: bool) -> (Role, Option<String>) {
        let given = self.name.clone();
        let name = check.text(self.name, "role.name").unwrap_or_else(|| format!("{base}-function"));
        if has_segment_role && name == format!("{base}-segment") {
            check.duplicate(given.as_ref(), "role.name", "the name of the role that Segment assumes");
        }
        let boundary = check.text(self.permissions_boundary, "role.permissions_boundary");
        (Role { name, statements: check_statements(check, "role.statement", KEYS, self.statement) }, boundary)
    }
}

/// Checks the statements of the section at `path`, which has these keys.
pub(super) fn check_statements(
    check: &mut Check<'_>,
    path: &str,
    keys: &[Key],
    statements: Vec<Spanned<RawStatement>>,
) -> Vec<Statement> {
    statements.into_iter().filter_map(|statement| check_statement(check, path, keys, statement)).collect()
}

fn check_statement(check: &mut Check<'_>, path: &str, keys: &[Key], raw: Spanned<RawStatement>) -> Option<Statement> {
    let span = raw.span();
    let raw = raw.into_inner();
    let (actions, resources) = (format!("{path}.actions"), format!("{path}.resources"));
    for (key, list) in [(&actions, &raw.actions), (&resources, &raw.resources)] {
        if list.is_empty() {
            check.mistake(span.clone(), format!("`{key}` is missing or empty"), "", example(keys, key));
        }
    }
    for action in &raw.actions {
        check.rule(action.span(), &actions, rules::ACTION.check(action.get_ref()));
    }
    for arn in &raw.resources {
        check.rule(arn.span(), &resources, rules::RESOURCE.check(arn.get_ref()));
    }
    let plain = |list: Vec<Spanned<String>>| list.into_iter().map(Spanned::into_inner).collect::<Vec<_>>();
    let statement = Statement { actions: plain(raw.actions), resources: plain(raw.resources) };
    (!statement.actions.is_empty() && !statement.resources.is_empty()).then_some(statement)
}
