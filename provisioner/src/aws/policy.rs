//! IAM and resource policies, compared by meaning.
//!
//! AWS does not return a policy as it was written: the policy may be URL-encoded, have a plain string in place of a
//! list of one, or have its lists and statements in another order. [`canonical`] maps equivalent policies to the same
//! JSON.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value as Json, json};

use crate::error::Error;

/// Returns the canonical policy of these statements.
pub(crate) fn document(statements: &[Json]) -> Json {
    canonical(&json!({ "Version": "2012-10-17", "Statement": statements }))
}

/// Parses a policy as IAM returns it (URL-encoded) or as the other services do. `doing` completes "failed to".
///
/// # Errors
/// The text is not JSON.
pub(crate) fn parse(text: &str, doing: impl FnOnce() -> String) -> Result<Json, Error> {
    // A JSON document begins with a brace; an encoded one with %7B.
    let document = if text.trim_start().starts_with('{') {
        serde_json::from_str(text)
    } else {
        serde_json::from_str(&percent_decode_str(text).decode_utf8_lossy())
    };
    document.map_err(|_| Error::incomplete_answer(doing(), "JSON document"))
}

/// Returns the statements of a policy, also of a policy with a single statement instead of a list, and of statements
/// without a policy around them.
pub(crate) fn statements(policy: &Json) -> Vec<Json> {
    if let Json::Array(statements) = policy {
        return statements.clone();
    }
    if policy.get("Effect").is_some() {
        return vec![policy.clone()];
    }
    match policy.get("Statement") {
        Some(Json::Array(statements)) => statements.clone(),
        Some(statement) => vec![statement.clone()],
        None => Vec::new(),
    }
}

/// Returns the statement's id, or an empty string.
pub(crate) fn sid(statement: &Json) -> &str {
    statement.get("Sid").and_then(Json::as_str).unwrap_or_default()
}

/// Returns the statement without its id.
pub(crate) fn without_sid(statement: &Json) -> Json {
    let Json::Object(fields) = statement else { return statement.clone() };
    Json::Object(
        fields.iter().filter(|(key, _)| *key != "Sid").map(|(key, value)| (key.clone(), value.clone())).collect(),
    )
}

/// Returns the policy in a form that compares as text: single values as lists, lists sorted, statements sorted by Sid
/// and then by content, and `true` written as `"true"`.
pub(crate) fn canonical(policy: &Json) -> Json {
    let mut statements: Vec<Json> = statements(policy).iter().map(canonical_statement).collect();
    statements.sort_by_key(|statement| (sid(statement).to_owned(), statement.to_string()));
    let mut out = Map::new();
    if let Some(version) = policy.get("Version") {
        out.insert("Version".to_owned(), version.clone());
    }
    out.insert("Statement".to_owned(), Json::Array(statements));
    Json::Object(out)
}

/// Returns one statement in its [`canonical`] form.
pub(crate) fn canonical_statement(statement: &Json) -> Json {
    let Json::Object(fields) = statement else {
        return statement.clone();
    };
    let fields = fields.iter().map(|(key, value)| {
        let value = match key.as_str() {
            "Sid" | "Effect" => value.clone(),
            "Action" | "NotAction" | "Resource" | "NotResource" => list(value),
            // "*" and {"AWS": "*"} differ for anonymous callers, so a plain string is kept.
            "Principal" | "NotPrincipal" => values(value, &list),
            _ => values(value, &|operator| values(operator, &list)),
        };
        (key.clone(), value)
    });
    let mut fields: Vec<(String, Json)> = fields.collect();
    fields.sort_by_key(|(key, _)| (FIELDS.iter().position(|field| field == key).unwrap_or(FIELDS.len()), key.clone()));
    Json::Object(fields.into_iter().collect())
}

/// The customary order of the members of a statement.
const FIELDS: [&str; 9] =
    ["Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"];

/// Returns what `desired` allows and `live` does not, one text for each permission; also the denials that it drops.
/// Actions, resources, principals and conditions are compared by containment with wildcards, so a narrower policy is
/// never wider. A permission that only several statements together cover counts as new.
pub(crate) fn widening(live: &Json, desired: &Json) -> Vec<String> {
    let (live, desired) = (permissions(live), permissions(desired));
    let allowed = |permission: &&Permission| !live.iter().any(|other| !other.denies && other.covers(permission));
    let denied = |permission: &&Permission| !desired.iter().any(|other| other.denies && other.covers(permission));
    let new = desired.iter().filter(|permission| !permission.denies).filter(allowed);
    let dropped = live.iter().filter(|permission| permission.denies).filter(denied);
    let texts: BTreeSet<String> =
        new.map(Permission::text).chain(dropped.map(|denial| format!("no longer denies {}", denial.text()))).collect();
    texts.into_iter().collect()
}

/// The principal `"*"`, which includes anonymous callers.
pub(super) const EVERYONE: &str = "*";

/// Returns the account of a principal: an id, or an ARN.
pub(crate) fn account_of(principal: &str) -> Option<&str> {
    let is_id = |text: &&str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    Some(principal).filter(is_id).or_else(|| principal.split(':').nth(4)).filter(is_id)
}

/// One action on one resource by one principal.
#[derive(Debug)]
pub(super) struct Permission {
    pub(super) denies: bool,
    /// Kind and name, such as `AWS:123456789012`, in a policy that has principals.
    pub(super) principal: Option<String>,
    /// In lower case: IAM does not distinguish the case of actions.
    action: Option<String>,
    resource: Option<String>,
    /// `NotAction`, `NotResource` and `NotPrincipal`, compared as a whole.
    pub(super) inverted: Map<String, Json>,
    pub(super) condition: Json,
    /// The action as it is written.
    pub(super) shown: String,
}

/// Returns the permissions of a policy: each combination of principal, action and resource in each statement.
pub(super) fn permissions(policy: &Json) -> Vec<Permission> {
    let mut all = Vec::new();
    for statement in statements(policy).iter().map(canonical_statement) {
        let texts = |field: &str| match statement.get(field) {
            None => vec![None],
            Some(value) => texts_of(value).into_iter().map(Some).collect::<Vec<_>>(),
        };
        let principals = match statement.get("Principal") {
            None => vec![None],
            Some(Json::Object(kinds)) => {
                let named = |(kind, names): (&String, &Json)| {
                    texts_of(names).into_iter().map(|name| Some(format!("{kind}:{name}"))).collect::<Vec<_>>()
                };
                kinds.iter().flat_map(named).collect()
            }
            Some(other) => texts_of(other).into_iter().map(Some).collect(),
        };
        let inverted: Map<String, Json> = ["NotAction", "NotResource", "NotPrincipal"]
            .iter()
            .filter_map(|field| Some(((*field).to_owned(), statement.get(*field)?.clone())))
            .collect();
        for principal in &principals {
            for action in texts("Action") {
                for resource in texts("Resource") {
                    all.push(Permission {
                        denies: statement["Effect"] != "Allow",
                        principal: principal.clone(),
                        shown: action.clone().unwrap_or_else(|| "every other action".to_owned()),
                        action: action.as_deref().map(str::to_ascii_lowercase),
                        resource,
                        inverted: inverted.clone(),
                        condition: statement.get("Condition").cloned().unwrap_or_else(|| json!({})),
                    });
                }
            }
        }
    }
    all
}

impl Permission {
    /// Returns whether every call to which `other` applies is one to which this applies.
    fn covers(&self, other: &Self) -> bool {
        let part = |mine: &Option<String>, theirs: &Option<String>| match (mine, theirs) {
            (Some(mine), Some(theirs)) => contains(mine, theirs),
            (None, None) => true,
            _ => false,
        };
        let principal = match (&self.principal, &other.principal) {
            (Some(mine), Some(theirs)) => principal_contains(mine, theirs),
            (mine, theirs) => mine == theirs,
        };
        principal
            && part(&self.action, &other.action)
            && part(&self.resource, &other.resource)
            && self.inverted == other.inverted
            && condition_contains(&self.condition, &other.condition)
    }

    fn text(&self) -> String {
        let mut text = self.shown.clone();
        if let Some(resource) = &self.resource {
            text.push_str(&format!(" on {resource}"));
        }
        if let Some(principal) = &self.principal {
            text.push_str(&format!(" by {}", principal.split_once(':').map_or(principal.as_str(), |(_, name)| name)));
        }
        for (field, values) in &self.inverted {
            text.push_str(&format!(" with {field} {values}"));
        }
        if self.condition != json!({}) {
            text.push_str(&format!(" if {}", self.condition));
        }
        text
    }
}

/// Returns whether the pattern `wide` matches everything that the pattern `narrow` matches. `*` stands for any text and
/// `?` for one character.
fn contains(wide: &str, narrow: &str) -> bool {
    let (wide, narrow): (Vec<char>, Vec<char>) = (wide.chars().collect(), narrow.chars().collect());
    // Row by row: whether the first i characters of `wide` contain the first j of `narrow`.
    let mut row = vec![false; narrow.len() + 1];
    row[0] = true;
    for pattern in wide {
        let mut next = vec![false; narrow.len() + 1];
        for j in 0..=narrow.len() {
            let last = j.checked_sub(1).map(|j| narrow[j]);
            next[j] = match pattern {
                '*' => row[j] || (j > 0 && next[j - 1]),
                // A star may stand for no character or several, so a single one does not contain it.
                '?' => last.is_some_and(|c| c != '*') && row[j - 1],
                c => last == Some(c) && row[j - 1],
            };
        }
        row = next;
    }
    row[narrow.len()]
}

/// Returns whether the principal `wide` includes `narrow`: everyone, or the account of a principal in it.
fn principal_contains(wide: &str, narrow: &str) -> bool {
    let of_account = |name: &str| name.ends_with(":root") || name.len() == 12;
    match (wide.strip_prefix("AWS:"), narrow.strip_prefix("AWS:")) {
        _ if wide == EVERYONE || wide == narrow => true,
        (Some("*"), Some(_)) => true,
        (Some(wide), Some(narrow)) => {
            of_account(wide) && account_of(wide).is_some_and(|id| account_of(narrow) == Some(id))
        }
        _ => false,
    }
}

/// Returns whether every call that meets the condition `narrow` meets `wide`, as far as their operators tell.
fn condition_contains(wide: &Json, narrow: &Json) -> bool {
    let Json::Object(operators) = wide else { return wide == narrow };
    operators.iter().all(|(operator, keys)| {
        let Json::Object(keys) = keys else { return narrow.get(operator) == Some(keys) };
        keys.iter().all(|(key, values)| {
            // IAM does not distinguish the case of context keys.
            let theirs = narrow.get(operator).and_then(Json::as_object).and_then(|keys| {
                keys.iter().find(|(other, _)| other.eq_ignore_ascii_case(key)).map(|(_, values)| texts_of(values))
            });
            let (mine, Some(theirs)) = (texts_of(values), theirs) else { return false };
            if operator.contains("Not") {
                return mine.iter().all(|value| theirs.contains(value));
            }
            let has_patterns = ["StringLike", "ArnLike", "ArnEquals"].iter().any(|kind| operator.contains(kind));
            let is_met = |narrow: &String| {
                mine.iter().any(|wide| if has_patterns { contains(wide, narrow) } else { wide == narrow })
            };
            theirs.iter().all(is_met)
        })
    })
}

pub(super) fn texts_of(value: &Json) -> Vec<String> {
    match value {
        Json::String(text) => vec![text.clone()],
        Json::Array(entries) => entries.iter().flat_map(texts_of).collect(),
        other => vec![other.to_string()],
    }
}

fn values(value: &Json, each: &dyn Fn(&Json) -> Json) -> Json {
    match value {
        Json::Object(fields) => Json::Object(fields.iter().map(|(key, value)| (key.clone(), each(value))).collect()),
        other => other.clone(),
    }
}

fn list(value: &Json) -> Json {
    let text = |value: &Json| match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut texts: Vec<String> = match value {
        Json::Array(entries) => entries.iter().map(text).collect(),
        single => vec![text(single)],
    };
    texts.sort_unstable();
    texts.dedup();
    json!(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_in_another_order_or_without_lists_are_equal() {
        let one = json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Sid": "A", "Action": "s3:GetObject", "Resource": ["b", "a"],
            "Condition": {"Bool": {"aws:SecureTransport": false}}}});
        let other = json!({"Statement": [{
            "Sid": "A", "Resource": ["a", "b", "a"], "Action": ["s3:GetObject"], "Effect": "Allow",
            "Condition": {"Bool": {"aws:SecureTransport": ["false"]}}}], "Version": "2012-10-17"});
        assert_eq!(canonical(&one), canonical(&other));
    }

    #[test]
    fn policies_with_different_actions_differ() {
        let with = |action: &str| canonical(&json!({"Statement": [{"Effect": "Allow", "Action": action}]}));
        assert_ne!(with("s3:GetObject"), with("s3:PutObject"));
    }

    #[test]
    fn everyone_differs_from_every_aws_principal() {
        let with = |principal: Json| canonical(&json!({"Statement": [{"Principal": principal}]}));
        assert_ne!(with(json!("*")), with(json!({"AWS": "*"})));
    }

    fn allow(actions: &[&str], resources: &[&str]) -> Json {
        json!({"Statement": {"Effect": "Allow", "Action": actions, "Resource": resources}})
    }

    #[test]
    fn widening_lists_new_permissions_only() {
        let live = allow(&["a:Get", "a:Put"], &["x"]);
        let desired = json!({"Statement": [{"Effect": "Allow", "Action": "a:Get", "Resource": ["x", "y"]},
            {"Effect": "Deny", "Action": "a:Delete", "Resource": "x"}]});
        assert_eq!(widening(&live, &desired), ["a:Get on y"]);
        assert!(widening(&live, &live).is_empty());
        assert_eq!(widening(&desired, &live), ["a:Put on x", "no longer denies a:Delete on x"]);
    }

    #[test]
    fn narrower_policy_is_not_wider() {
        for (wide, narrow) in [
            (allow(&["s3:*"], &["*"]), allow(&["s3:GetObject"], &["arn:aws:s3:::b/*"])),
            (allow(&["s3:Get*"], &["arn:aws:s3:::b/*"]), allow(&["S3:GetObject*"], &["arn:aws:s3:::b/a/*.gz"])),
            (allow(&["s3:Get?bject"], &["b/*/*"]), allow(&["s3:GetObject"], &["b/x*/y"])),
            (allow(&["s3:Get", "s3:Put"], &["x", "y"]), allow(&["s3:Put"], &["y"])),
        ] {
            assert_eq!(widening(&wide, &narrow), Vec::<String>::new(), "{wide} {narrow}");
            assert_ne!(widening(&narrow, &wide), Vec::<String>::new(), "{wide} {narrow}");
        }
    }

    #[test]
    fn conditions_and_principals_compare_by_containment() {
        let trust = |principal: Json, condition: Json| {
            json!({"Statement": {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal,
                "Condition": condition}})
        };
        let any = || json!({});
        let id = |ids: &[&str]| json!({"StringEquals": {"sts:ExternalId": ids}});
        let account = || json!({"AWS": "arn:aws:iam::123456789012:root"});
        let role = || json!({"AWS": "arn:aws:iam::123456789012:role/x"});
        let other = || json!({"AWS": "arn:aws:iam::210987654321:role/x"});
        let like = |arn: &str| json!({"ArnLike": {"aws:SourceArn": arn}});
        let unlike = |ids: &[&str]| json!({"StringNotEquals": {"aws:PrincipalOrgID": ids}});
        for (wide, narrow) in [
            (trust(account(), any()), trust(role(), any())),
            (trust(account(), any()), trust(account(), id(&["a"]))),
            (trust(account(), id(&["a", "b"])), trust(account(), id(&["a"]))),
            (trust(json!("*"), any()), trust(other(), any())),
            (trust(json!({"AWS": "*"}), any()), trust(other(), any())),
            (trust(account(), like("arn:aws:s3:::*")), trust(account(), like("arn:aws:s3:::b"))),
            (trust(account(), unlike(&["o"])), trust(account(), unlike(&["o", "p"]))),
        ] {
            assert_eq!(widening(&wide, &narrow), Vec::<String>::new(), "{wide} {narrow}");
            assert_ne!(widening(&narrow, &wide), Vec::<String>::new(), "{wide} {narrow}");
        }
        assert_eq!(widening(&trust(role(), any()), &trust(other(), any())).len(), 1);
    }

    #[test]
    fn url_encoded_policy_is_decoded() {
        let policy = parse("%7B%22Version%22%3A%20%222012-10-17%22%7D", String::new).expect("an encoded document");
        assert_eq!(policy, json!({"Version": "2012-10-17"}));
    }
}
