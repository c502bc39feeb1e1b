//! IAM and resource policies, compared by meaning.
//!
//! AWS does not return a policy as it was written: the policy may be URL-encoded, have a plain string in place of a
//! list of one, or have its lists and statements in another order. [`canonical`] maps equivalent policies to the same
//! JSON.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value as Json, json};

/// Returns the canonical policy of these statements.
pub(crate) fn document(statements: &[Json]) -> Json {
    canonical(&json!({ "Version": "2012-10-17", "Statement": statements }))
}

/// Parses a policy as IAM returns it (URL-encoded) or as the other services do.
///
/// # Errors
/// The text is not JSON.
pub(crate) fn parse(text: &str) -> Result<Json, serde_json::Error> {
    // A JSON document begins with a brace; an encoded one with %7B.
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text);
    }
    serde_json::from_str(&percent_decode_str(text).decode_utf8_lossy())
}

/// Returns the statements of a policy, also of a policy with a single statement instead of a list.
pub(crate) fn statements(policy: &Json) -> Vec<Json> {
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

/// Returns the grants of `desired` that `live` lacks, as text. The comparison is literal: a grant under another
/// condition, or one that a pattern already covers, counts as new.
pub(crate) fn widening(live: &Json, desired: &Json) -> Vec<String> {
    let granted = grants(live);
    grants(desired).into_iter().filter(|grant| !granted.contains(grant)).collect()
}

fn grants(policy: &Json) -> BTreeSet<String> {
    let texts = |value: Option<&Json>| -> Vec<String> {
        match value {
            None => Vec::new(),
            Some(Json::Object(fields)) => fields.values().flat_map(texts_of).collect(),
            Some(other) => texts_of(other),
        }
    };
    let mut grants = BTreeSet::new();
    for statement in statements(policy).iter().map(canonical_statement) {
        if statement["Effect"] != "Allow" {
            continue;
        }
        let condition = statement.get("Condition").map_or_else(String::new, |condition| format!(" if {condition}"));
        for action in texts(statement.get("Action")) {
            for resource in texts(statement.get("Resource")) {
                grants.insert(format!("{action} on {resource}{condition}"));
            }
            for principal in texts(statement.get("Principal")) {
                grants.insert(format!("{action} by {principal}{condition}"));
            }
        }
    }
    grants
}

fn texts_of(value: &Json) -> Vec<String> {
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

    #[test]
    fn widening_lists_new_grants_only() {
        let live = json!({"Statement": [{"Effect": "Allow", "Action": ["a:Get", "a:Put"], "Resource": "x"}]});
        let desired = json!({"Statement": [{"Effect": "Allow", "Action": "a:Get", "Resource": ["x", "y"]},
            {"Effect": "Deny", "Action": "a:Delete", "Resource": "x"}]});
        assert_eq!(widening(&live, &desired), ["a:Get on y"]);
        assert!(widening(&live, &live).is_empty());
        let trust = |principal: &str| {
            let principal = json!({ "AWS": principal });
            json!({"Statement": {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}})
        };
        assert_eq!(widening(&trust("a"), &trust("*")), ["sts:AssumeRole by *"]);
    }

    #[test]
    fn url_encoded_policy_is_decoded() {
        let policy = parse("%7B%22Version%22%3A%20%222012-10-17%22%7D").expect("an encoded document");
        assert_eq!(policy, json!({"Version": "2012-10-17"}));
    }
}
