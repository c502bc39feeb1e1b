//! The openings of a resource: the principals that its policy lets in besides those of the pipeline.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::policy::{EVERYONE, Permission, account_of, permissions, texts_of};

/// The principals that a policy lets in, each with the actions that it allows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Openings {
    /// Those of the account, and services on its behalf.
    pub(crate) inside: BTreeMap<String, BTreeSet<String>>,
    /// Everyone, other accounts, and services on behalf of any account.
    pub(crate) outside: BTreeMap<String, BTreeSet<String>>,
}

impl Openings {
    /// Returns the openings of a resource's policy, seen by this account.
    pub(crate) fn of(policy: &Json, account: &str) -> Self {
        let mut openings = Self::default();
        for permission in permissions(policy).into_iter().filter(|permission| !permission.denies) {
            let is_inside = is_inside(&permission, account);
            let Some(principal) = principal(permission.principal, permission.inverted.get("NotPrincipal")) else {
                continue;
            };
            let side = if is_inside { &mut openings.inside } else { &mut openings.outside };
            side.entry(principal).or_default().insert(permission.shown);
        }
        openings
    }

    /// Adds the openings of another policy.
    pub(crate) fn extend(&mut self, other: Self) {
        for (mine, theirs) in [(&mut self.inside, other.inside), (&mut self.outside, other.outside)] {
            for (principal, actions) in theirs {
                mine.entry(principal).or_default().extend(actions);
            }
        }
    }
}

/// Returns the text of a principal: `AWS:*`, or everyone except some. `None` if the statement is not about principals.
fn principal(named: Option<String>, excepted: Option<&Json>) -> Option<String> {
    match (named, excepted) {
        (Some(name), _) => Some(name),
        (None, Some(excepted)) => Some(format!("everyone except {excepted}")),
        (None, None) => None,
    }
}

fn is_inside(permission: &Permission, account: &str) -> bool {
    let Some(principal) = &permission.principal else { return false };
    let limits = limits(&permission.condition);
    let is_limited = limits.iter().any(|values| values.iter().all(|value| account_of(value) == Some(account)));
    // The ARN of a bucket names no account, and limits a service to one bucket all the same. Only services make calls on
    // behalf of a bucket, so everyone is limited to them: many policies for notifications are written so.
    if principal == EVERYONE || principal == "AWS:*" || principal.starts_with("Service:") {
        return is_limited || limits.iter().any(|values| values.iter().all(|arn| is_bucket(arn)));
    }
    principal.strip_prefix("AWS:").is_some_and(|name| account_of(name) == Some(account))
}

/// Returns whether the text is the ARN of a bucket, without wildcards.
fn is_bucket(arn: &str) -> bool {
    arn.split(':').nth(2) == Some("s3") && !arn.contains(['*', '?'])
}

/// The context keys that name the account, or a resource or principal of it, on whose behalf a call is made (IAM user
/// guide, global condition keys).
const LIMITING_KEYS: [&str; 5] =
    ["aws:sourceaccount", "aws:sourceowner", "aws:sourcearn", "aws:principalaccount", "aws:principalarn"];

/// Returns the values to which a condition limits each of the [`LIMITING_KEYS`]. An operator that negates, or that is met
/// by a call without the key, limits nothing.
fn limits(condition: &Json) -> Vec<Vec<String>> {
    let operators = condition.as_object().into_iter().flatten();
    let limiting = operators.filter(|(operator, _)| {
        ["String", "Arn"].iter().any(|kind| operator.starts_with(kind))
            && !["Not", "IfExists"].iter().any(|kind| operator.contains(kind))
    });
    let keys = limiting.filter_map(|(_, keys)| keys.as_object()).flatten();
    keys.filter(|(key, _)| LIMITING_KEYS.contains(&key.to_ascii_lowercase().as_str()))
        .map(|(_, values)| texts_of(values))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ACCOUNT: &str = "123456789012";

    fn sides(principal: &Json, condition: &Json) -> (usize, usize) {
        let policy = json!({ "Statement": { "Effect": "Allow", "Principal": principal, "Action": "a:Do",
            "Condition": condition } });
        let openings = Openings::of(&policy, ACCOUNT);
        (openings.inside.len(), openings.outside.len())
    }

    #[test]
    fn principal_of_the_account_is_inside() {
        let service = || json!({ "Service": "events.amazonaws.com" });
        for (principal, condition) in [
            (json!({ "AWS": ACCOUNT }), json!({})),
            (json!({ "AWS": "arn:aws:iam::123456789012:role/x" }), json!({})),
            (json!("*"), json!({ "StringEquals": { "aws:PrincipalAccount": ACCOUNT } })),
            (
                json!({ "AWS": "*" }),
                json!({ "ArnEquals": { "aws:SourceArn": "arn:aws:sns:us-east-1:123456789012:t" } }),
            ),
            (service(), json!({ "StringEquals": { "AWS:SourceAccount": [ACCOUNT] } })),
            (service(), json!({ "ArnLike": { "aws:sourceArn": "arn:aws:events:us-east-1:123456789012:rule/*" } })),
            (service(), json!({ "ArnLike": { "aws:SourceArn": "arn:aws:s3:::bucket" } })),
            (json!("*"), json!({ "ArnEquals": { "aws:SourceArn": "arn:aws:s3:::bucket" } })),
        ] {
            assert_eq!(sides(&principal, &condition), (1, 0), "{principal} {condition}");
        }
    }

    #[test]
    fn everyone_and_other_accounts_are_outside() {
        let service = || json!({ "Service": "s3.amazonaws.com" });
        let other = "arn:aws:sns:us-east-1:210987654321:t";
        for (principal, condition) in [
            (json!("*"), json!({})),
            (json!({ "AWS": "*" }), json!({ "StringEquals": { "lambda:FunctionUrlAuthType": "NONE" } })),
            (json!({ "AWS": "*" }), json!({ "StringEquals": { "aws:SourceAccount": [ACCOUNT, "210987654321"] } })),
            (json!({ "AWS": "*" }), json!({ "StringNotEquals": { "aws:SourceAccount": ACCOUNT } })),
            (json!({ "AWS": "*" }), json!({ "StringEqualsIfExists": { "aws:SourceAccount": ACCOUNT } })),
            (json!({ "AWS": "*" }), json!({ "ForAllValues:StringEquals": { "aws:SourceAccount": ACCOUNT } })),
            (json!({ "AWS": "*" }), json!({ "ArnLike": { "aws:SourceArn": other } })),
            (json!({ "AWS": "*" }), json!({ "IpAddress": { "aws:SourceIp": "192.0.2.0/24" } })),
            (json!({ "AWS": "210987654321" }), json!({})),
            (json!({ "AWS": "arn:aws:iam::210987654321:root" }), json!({})),
            (json!({ "AWS": "AIDAEXAMPLE" }), json!({})),
            (json!({ "Federated": "example.com" }), json!({})),
            (service(), json!({})),
            (service(), json!({ "ArnLike": { "aws:SourceArn": "arn:aws:s3:::*" } })),
            (json!("*"), json!({ "ArnLike": { "aws:SourceArn": "arn:aws:s3:::*" } })),
        ] {
            assert_eq!(sides(&principal, &condition), (0, 1), "{principal} {condition}");
        }
        let inverted =
            json!({ "Statement": { "Effect": "Allow", "NotPrincipal": { "AWS": ACCOUNT }, "Action": "a:Do" } });
        assert_eq!(Openings::of(&inverted, ACCOUNT).outside.len(), 1);
        let denial = json!({ "Statement": { "Effect": "Deny", "Principal": "*", "Action": "a:Do" } });
        assert_eq!(Openings::of(&denial, ACCOUNT), Openings::default());
    }
}
