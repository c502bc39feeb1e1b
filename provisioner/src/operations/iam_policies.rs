//! The least-privilege IAM policies for a deployer, a reader and an operator.

use std::collections::{BTreeMap, BTreeSet};

use counting::names::{counts, ledger};
use serde_json::{Value as Json, json};

use super::permissions::{Needed, add};
use crate::aws::{log_group_name, policy, role_path};
use crate::reconcile::resource::IamActions;
use crate::resources::discover::DISCOVERY_ACTIONS;
use crate::resources::{self, Context};

fn statement(sid: &str, actions: &[&str], resources: &[String]) -> Json {
    json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources })
}

const PASS_ROLE: &str = "iam:PassRole";

/// Actions that MiniStack, the local AWS, evaluates without their resource; it also omits the paths of roles.
const LOCAL_UNBOUND: [&str; 3] = ["dynamodb:ListTagsOfResource", "dynamodb:TagResource", "lambda:CreateFunction"];

/// Returns the least-privilege policy to plan, apply and destroy this pipeline. The policy for a local AWS is wider for
/// actions that the local AWS cannot restrict to a resource.
pub(crate) fn deployer_policy(context: &Context<'_>, is_local: bool) -> Json {
    let mut needed = Needed::new();
    add(&mut needed, "*", &DISCOVERY_ACTIONS);
    for resource in resources::desired(context) {
        for IamActions { resource, read, create, update, delete } in resource.iam_actions() {
            for &action in [read, create, update, delete].into_iter().flatten() {
                add(&mut needed, &resource, &[action]);
                if is_local {
                    let unbound = LOCAL_UNBOUND.contains(&action);
                    let pathless = resource.replacen(&role_path(&context.pipeline.name), "/", 1);
                    add(&mut needed, if unbound { "*" } else { &pathless }, &[action]);
                }
            }
        }
    }
    // Resources with the same actions share a statement.
    let mut statements: BTreeMap<BTreeSet<&str>, Vec<String>> = BTreeMap::new();
    let mut passed = Vec::new();
    for (resource, mut actions) in needed {
        // Only to Lambda; a deployer must not hand the role to another service.
        if actions.remove(PASS_ROLE) {
            passed.push(resource.clone());
        }
        if !actions.is_empty() {
            statements.entry(actions).or_default().push(resource);
        }
    }
    let mut statements: Vec<Json> = statements
        .into_iter()
        .map(|(actions, resources)| json!({ "Effect": "Allow", "Action": actions, "Resource": resources }))
        .collect();
    let mut pass = json!({ "Effect": "Allow", "Action": [PASS_ROLE], "Resource": passed });
    // The simulation of the local AWS does not evaluate the condition.
    if !is_local {
        pass["Condition"] = json!({ "StringEquals": { "iam:PassedToService": "lambda.amazonaws.com" } });
    }
    statements.push(pass);
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// Returns the policy for `query`, `events`, `top` and `dashboard`.
pub(crate) fn reader_policy(context: &Context<'_>) -> Json {
    let counts = context.account.table_arn(&context.pipeline.table.counts);
    let index = context.account.index_arn(&context.pipeline.table.counts, counts::BY_HOUR);
    policy::document(&[
        statement("ReadCounts", &["dynamodb:Query"], &[counts.clone(), index]),
        statement("ReadNames", &["dynamodb:Scan"], &[counts]),
    ])
}

/// Returns the policy for `status`, `backfill`, `replay` and `verify`. It does not cover the diagnosis of a failed
/// `verify`, which needs the permissions to plan.
pub(crate) fn operator_policy(context: &Context<'_>) -> Json {
    let (account, pipeline) = (context.account, context.pipeline);
    let (counts, ledger) = (account.table_arn(&pipeline.table.counts), account.table_arn(&pipeline.table.ledger));
    let function = account.function_arn(&pipeline.function.name);
    let group = account.log_group_arn(&log_group_name(&pipeline.function.name));
    let bucket = account.s3_arn(&pipeline.bucket.name);
    let objects = format!("{bucket}/{}*", pipeline.notification.prefix);
    let probes = format!("{bucket}/{}{}*", pipeline.notification.prefix, counting::names::verify::FOLDER);
    let queue = account.queue_arn(&pipeline.function.failure_queue);
    let mut read = vec!["s3:GetObject"];
    if pipeline.bucket.versioning {
        read.push("s3:GetObjectVersion");
    }
    policy::document(&[
        statement("SeeObjects", &["s3:ListBucketVersions", "s3:ListBucket"], &[bucket]),
        // HeadObject requires s3:GetObject.
        statement("KnowObjects", &read, &[objects]),
        // A bucket that has, or once had, versioning requires deletion by version.
        statement("ProbeObjects", &["s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"], &[probes]),
        statement(
            "ReadLedger",
            &["dynamodb:Query", "dynamodb:BatchGetItem"],
            &[ledger.clone(), account.index_arn(&pipeline.table.ledger, ledger::BY_COUNTED_HOUR)],
        ),
        // `verify` removes its own count.
        statement("Unmark", &["dynamodb:DeleteItem"], &[ledger]),
        statement("Uncount", &["dynamodb:GetItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"], &[counts]),
        statement("RunFunction", &["lambda:InvokeFunction", "lambda:GetFunction", "lambda:ListTags"], &[function]),
        statement("ReadLog", &["logs:FilterLogEvents"], &[group.clone(), format!("{group}:*")]),
        statement(
            "HandleFailures",
            &[
                "sqs:GetQueueUrl",
                "sqs:GetQueueAttributes",
                "sqs:ReceiveMessage",
                "sqs:DeleteMessage",
                "sqs:ChangeMessageVisibility",
            ],
            &[queue],
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{FILES, in_context};

    #[test]
    fn deployer_policy_is_limited_to_the_pipelines_resources() {
        for file in FILES {
            let policy = in_context(file, |context| deployer_policy(context, false));
            for statement in policy["Statement"].as_array().expect("statements") {
                let actions: Vec<&str> =
                    statement["Action"].as_array().expect("actions").iter().filter_map(Json::as_str).collect();
                assert!(!actions.iter().any(|action| action.contains('*')), "{actions:?}");
                for resource in statement["Resource"].as_array().expect("resources").iter().filter_map(Json::as_str) {
                    match resource {
                        // Read-only actions that AWS cannot restrict to a resource.
                        "*" => assert_eq!(actions, ["iam:ListRoles", "logs:DescribeLogGroups", "tag:GetResources"]),
                        // A role that does not exist has no path, and can only be read.
                        arn if arn.contains(":role/events-") => {
                            let reads = |action: &&str| action.starts_with("iam:Get") || action.starts_with("iam:List");
                            assert!(actions.iter().all(reads), "{actions:?} on {arn}");
                        }
                        arn if arn.contains(":iam:") => assert!(arn.contains(":role/pipeline/events/events-"), "{arn}"),
                        arn => assert!(arn.contains("events"), "{arn}"),
                    }
                }
            }
        }
    }

    #[test]
    fn deployer_may_read_absent_roles_and_pass_the_role_to_lambda_only() {
        let policy = in_context("", |context| deployer_policy(context, false));
        let statements = policy["Statement"].as_array().expect("statements");
        let of = |action: &str| -> Vec<&Json> {
            let has =
                |statement: &&Json| statement["Action"].as_array().is_some_and(|all| all.iter().any(|a| a == action));
            statements.iter().filter(has).collect()
        };
        let role = |path: &str| format!("arn:aws:iam::123456789012:role{path}events-function");
        let read: BTreeSet<&str> = of("iam:GetRole")
            .iter()
            .flat_map(|s| s["Resource"].as_array())
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        assert!(read.contains(role("/").as_str()) && read.contains(role("/pipeline/events/").as_str()), "{read:?}");
        let pass = of(PASS_ROLE);
        assert_eq!(pass.len(), 1);
        assert_eq!(pass[0]["Resource"], json!([role("/pipeline/events/")]));
        assert_eq!(pass[0]["Condition"]["StringEquals"]["iam:PassedToService"], "lambda.amazonaws.com");
    }
}
