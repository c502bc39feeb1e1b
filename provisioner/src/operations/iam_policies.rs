//! The least-privilege IAM policies for a planner, a deployer, a verifier, a reader and an operator.

use std::collections::{BTreeMap, BTreeSet};

use counting::names::{counts, ledger};
use serde_json::{Value as Json, json};

use super::permissions::{Needed, add};
use crate::aws::{log_group_name, policy, role_path};
use crate::config::{LOCAL, declared_key};
use crate::reconcile::resource::{Condition, IamActions};
use crate::resources::discover::DISCOVERY_ACTIONS;
use crate::resources::{self, Context};

fn statement(sid: &str, actions: &[&str], resources: &[String]) -> Json {
    json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources })
}

/// Limits a statement to buckets of the pipeline's account: another account could own a bucket of this name one day.
fn owned(context: &Context<'_>, mut statement: Json) -> Json {
    statement["Condition"] = json!({ "StringEquals": { "aws:ResourceAccount": context.account.id } });
    statement
}

/// Actions that MiniStack, the local AWS, evaluates without their resource; it also omits the paths of roles.
const LOCAL_UNBOUND: [&str; 6] = [
    "dynamodb:GetResourcePolicy",
    "dynamodb:ListTagsOfResource",
    "dynamodb:TagResource",
    "dynamodb:UntagResource",
    "lambda:CreateEventSourceMapping",
    "lambda:CreateFunction",
];

/// The scope of a policy for deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Only the actions that read the declared resources.
    Check,
    /// Only the actions that read.
    Plan,
    /// All actions.
    Apply,
}

/// Returns the least-privilege policy to plan this pipeline: it changes nothing.
pub(crate) fn planner_policy(context: &Context<'_>) -> Json {
    policy_of(deployment(context, Scope::Plan))
}

/// Returns the least-privilege policy to plan, apply, verify and destroy this pipeline.
pub(crate) fn deployer_policy(context: &Context<'_>) -> Json {
    let mut statements = deployment(context, Scope::Apply);
    statements.extend(verification(context));
    policy_of(statements)
}

/// Returns the least-privilege policy to verify this pipeline. It includes the permissions to read the declared resources,
/// which a failed `verify` checks.
pub(crate) fn verifier_policy(context: &Context<'_>) -> Json {
    let mut statements = deployment(context, Scope::Check);
    statements.extend(verification(context));
    policy_of(statements)
}

/// The length of a managed policy, without white space (IAM quotas).
const LONGEST_POLICY: usize = 6_144;

/// The length of the inline policies of a role, without white space (IAM quotas).
const LONGEST_OF_ROLE: usize = 10_240;

/// Returns whether a policy can be the inline policy of a role.
pub(crate) fn fits_role(policy: &Json) -> bool {
    policy.to_string().len() <= LONGEST_OF_ROLE
}

/// Divides a policy into the fewest that each fit into a managed policy, in the order of its statements.
pub(crate) fn parts(policy: &Json) -> Vec<Json> {
    let document = |statements: &[Json]| json!({ "Version": policy["Version"], "Statement": statements });
    let mut parts: Vec<Vec<Json>> = vec![Vec::new()];
    for statement in policy["Statement"].as_array().into_iter().flatten() {
        if let Some(part) = parts.last_mut() {
            part.push(statement.clone());
            if part.len() > 1 && document(part).to_string().len() > LONGEST_POLICY {
                part.pop();
                parts.push(vec![statement.clone()]);
            }
        }
    }
    parts.iter().map(|part| document(part)).collect()
}

/// Returns the policy of these statements: those on the same resources as one, without the actions of each that another
/// allows on all of its resources. It keeps a policy within the length that IAM allows.
fn policy_of(all: Vec<Json>) -> Json {
    let mut statements: Vec<Json> = Vec::new();
    for statement in all {
        let is_like =
            |other: &&mut Json| ["Resource", "Condition"].iter().all(|field| other.get(field) == statement.get(field));
        match statements.iter_mut().find(is_like) {
            Some(like) => {
                let actions = [&like["Action"], &statement["Action"]].map(|actions| actions.as_array().cloned());
                let actions: Vec<Json> = actions.into_iter().flatten().flatten().collect();
                like["Action"] = json!(actions);
            }
            None => statements.push(statement),
        }
    }
    for index in (0..statements.len()).rev() {
        let mut statement = statements.remove(index);
        let others = json!(statements);
        let is_new = |action: &Json| {
            let mut single = statement.clone();
            single["Action"] = json!([action]);
            !policy::widening(&others, &json!([single])).is_empty()
        };
        let actions = statement["Action"].as_array().into_iter().flatten();
        let new: Vec<Json> = actions.filter(|action| is_new(action)).cloned().collect();
        if !new.is_empty() {
            statement["Action"] = json!(new);
            statements.insert(index, statement);
        }
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// Returns the statements to check, to plan, or to plan and apply. Those for the environment `local` are wider for
/// actions that the local AWS cannot restrict to a resource.
fn deployment(context: &Context<'_>, scope: Scope) -> Vec<Json> {
    let is_local = context.pipeline.environment.as_deref() == Some(LOCAL);
    let mut needed = Needed::new();
    if scope != Scope::Check {
        add(&mut needed, "*", None, &DISCOVERY_ACTIONS);
        for (kind, actions) in CALLER_ACTIONS {
            // The local AWS evaluates these actions without their resource.
            let principals = if is_local { "*".to_owned() } else { context.account.every_principal(kind) };
            add(&mut needed, &principals, None, actions);
        }
    }
    for resource in resources::desired(context) {
        for IamActions { resource, condition, read, create, update, delete } in resource.iam_actions() {
            let actions = [read, create, update, delete].into_iter().take(if scope == Scope::Apply { 4 } else { 1 });
            for &action in actions.flatten() {
                // The simulation of the local AWS does not evaluate conditions.
                let condition = condition.as_ref().filter(|_| !is_local);
                add(&mut needed, &resource, condition, &[action]);
                if is_local {
                    let unbound = LOCAL_UNBOUND.contains(&action);
                    let pathless = resource.replacen(&role_path(&context.pipeline.name), "/", 1);
                    add(&mut needed, if unbound { "*" } else { &pathless }, condition, &[action]);
                }
            }
        }
    }
    // Calls that differ in the value of their condition share a statement, and so do resources with the same actions.
    type Call<'a> = (String, BTreeSet<&'a str>, Option<&'a str>);
    type Conditions<'a> = Option<(&'a str, Vec<String>)>;
    let mut values: BTreeMap<Call<'_>, Vec<String>> = BTreeMap::new();
    for ((resource, condition), actions) in needed {
        let (key, value) = condition.map(|Condition { key, value }| (key, value)).unzip();
        values.entry((resource, actions, key)).or_default().extend(value);
    }
    let mut resources: BTreeMap<(BTreeSet<&str>, Conditions<'_>), Vec<String>> = BTreeMap::new();
    for ((resource, actions, key), values) in values {
        resources.entry((actions, key.map(|key| (key, values)))).or_default().push(resource);
    }
    let mut statements = Vec::with_capacity(resources.len());
    for ((actions, conditions), resources) in resources {
        let mut statement = json!({ "Effect": "Allow", "Action": actions, "Resource": resources });
        if let Some((key, values)) = conditions {
            let value = if let [value] = values.as_slice() { json!(value) } else { json!(values) };
            statement["Condition"] = json!({ "StringEquals": { key: value } });
        }
        statements.push(statement);
    }
    statements
}

/// The actions with which a plan checks the permissions of its caller, on the kinds of principals.
const CALLER_ACTIONS: [(&str, &[&str]); 2] = [
    ("user", &["iam:SimulatePrincipalPolicy"]),
    // The ARN of a session omits the role's path, so the role is read first.
    ("role", &["iam:GetRole", "iam:SimulatePrincipalPolicy"]),
];

/// The actions to read objects: HeadObject requires the same ones as GetObject.
const READ_OBJECTS: [&str; 2] = ["s3:GetObject", "s3:GetObjectVersion"];

/// Returns the statements for `verify`.
fn verification(context: &Context<'_>) -> Vec<Json> {
    let (account, pipeline) = (context.account, context.pipeline);
    let ledger = account.table_arn(&pipeline.table.ledger);
    let index = account.index_arn(&pipeline.table.ledger, ledger::BY_COUNTED_HOUR);
    let sums = [&pipeline.table.counts, &pipeline.table.daily].map(|table| account.table_arn(table));
    let bucket = account.s3_arn(&pipeline.bucket.name);
    let probes = format!("{bucket}/{}{}*", pipeline.notification.prefix, counting::names::verify::FOLDER);
    let group = account.log_group_arn(&log_group_name(&pipeline.function.name));
    let mut statements = vec![
        owned(context, statement("ListObjects", &["s3:ListBucketVersions", "s3:ListBucket"], &[bucket])),
        // A bucket that has, or once had, versioning requires deletion by version.
        owned(
            context,
            statement("ProbeObjects", &["s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"], &[probes]),
        ),
        statement(
            "ReadLedger",
            // `verify` takes its own count back. An index has no such actions.
            &["dynamodb:Query", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:DeleteItem"],
            &[ledger, index],
        ),
        statement("Uncount", &["dynamodb:GetItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"], &sums),
        statement("ReadLog", &["logs:FilterLogEvents"], &[group.clone(), format!("{group}:*")]),
    ];
    if let Some(key) = declared_key(pipeline.bucket.kms_key.as_deref()) {
        statements.push(statement("UseKeyOfObjects", &["kms:Decrypt", "kms:GenerateDataKey"], &[key.to_owned()]));
    }
    statements.extend(decrypt_items(context));
    statements
}

/// Returns the statement to decrypt items: DynamoDB uses the key of a table with the permissions of its caller.
fn decrypt_items(context: &Context<'_>) -> Option<Json> {
    let key = context.pipeline.table.kms_key.clone()?;
    Some(statement("DecryptItems", &["kms:Decrypt"], &[key]))
}

/// Returns the policy for `query`, `events`, `top` and `dashboard`.
pub(crate) fn reader_policy(context: &Context<'_>) -> Json {
    let counts = context.account.table_arn(&context.pipeline.table.counts);
    let index = context.account.index_arn(&context.pipeline.table.counts, counts::BY_HOUR);
    let daily = context.account.table_arn(&context.pipeline.table.daily);
    let records = context.account.index_arn(&context.pipeline.table.ledger, ledger::BY_COUNTED_HOUR);
    let mut tables = vec![counts, index, daily.clone()];
    if !context.pipeline.rollup.by.is_empty() {
        tables.push(context.account.table_arn(&context.pipeline.table.breakdowns));
    }
    let mut statements = vec![
        statement("ReadCounts", &["dynamodb:Query"], &tables),
        statement("ReadNames", &["dynamodb:Scan"], &[daily]),
        // The dashboard shows the objects with skipped lines.
        statement("ReadRecords", &["dynamodb:Query"], &[records]),
    ];
    statements.extend(decrypt_items(context));
    policy_of(statements)
}

/// Returns the statement to pause and to resume: to change the function's event source mapping, which `status` lists.
fn pausing(context: &Context<'_>) -> Json {
    let account = context.account;
    let mut statement = statement("PauseCounting", &["lambda:UpdateEventSourceMapping"], &[account.mapping_arn("*")]);
    // The simulation of the local AWS does not evaluate conditions.
    if context.pipeline.environment.as_deref() != Some(LOCAL) {
        let function = account.function_arn(&context.pipeline.function.name);
        statement["Condition"] = json!({ "StringEquals": { "lambda:FunctionArn": function } });
    }
    statement
}

/// Returns the policy for `status`, `logs`, `backfill`, `replay`, `pause`, `resume` and `verify`. It includes the permissions to read the declared
/// resources, which `status` and a failed `verify` check.
pub(crate) fn operator_policy(context: &Context<'_>) -> Json {
    let (account, pipeline) = (context.account, context.pipeline);
    let function = account.function_arn(&pipeline.function.name);
    // Messages may be of files below an earlier prefix.
    let objects = format!("{}/*", account.s3_arn(&pipeline.bucket.name));
    let queue = account.queue_arn(&pipeline.function.failure_queue);
    let mut statements = deployment(context, Scope::Check);
    statements.extend(verification(context));
    statements.extend([
        owned(context, statement("KnowObjects", &READ_OBJECTS, &[objects])),
        statement("RunFunction", &["lambda:InvokeFunction"], &[function]),
        statement(
            "SendNotifications",
            // The local AWS knows the call by its own name.
            match pipeline.environment.as_deref() {
                Some(LOCAL) => &["sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:SendMessageBatch"],
                _ => &["sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:SendMessage"],
            },
            &[account.queue_arn(&pipeline.notification.queue)],
        ),
        // CloudWatch has no resource-level permissions for metrics.
        statement("ReadMetrics", &["cloudwatch:GetMetricStatistics"], &["*".to_owned()]),
        pausing(context),
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
    ]);
    let keys = [&pipeline.function.failure_queue_kms_key, &pipeline.function.kms_key];
    let keys: Vec<String> = keys.into_iter().flatten().cloned().collect();
    if !keys.is_empty() {
        statements.push(statement("DecryptFailures", &["kms:Decrypt"], &keys));
    }
    let groups = pipeline.consumers.iter().map(|consumer| account.log_group_arn(&log_group_name(&consumer.name)));
    let groups: Vec<String> = groups.flat_map(|group| [format!("{group}:*"), group]).collect();
    if !groups.is_empty() {
        statements.push(statement("ReadLogsOfConsumers", &["logs:FilterLogEvents"], &groups));
    }
    policy_of(statements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{FILES, in_context};

    /// Actions without resource-level permissions (service authorization reference).
    const UNBOUND: [&str; 7] = [
        "application-autoscaling:DescribeScalableTargets",
        "iam:ListRoles",
        "kinesis:ListStreams",
        "lambda:GetAccountSettings",
        "lambda:ListEventSourceMappings",
        "logs:DescribeLogGroups",
        "tag:GetResources",
    ];

    #[test]
    fn policy_of_several_parts_may_fit_a_role() {
        let consumers =
            |n: usize| (0..n).map(|n| format!("[[consumer]]\nname = \"consumer-{n}\"\n")).collect::<String>();
        let of = |file: &str| {
            let policy = in_context(file, deployer_policy);
            (parts(&policy).len() > 1, fits_role(&policy))
        };
        let alarms = "[alarms]\nemail = \"oncall@example.com\"\n[stream]\n";
        assert_eq!(of(""), (false, true));
        assert_eq!(of(&format!("{alarms}{}", consumers(1))), (true, true));
        assert_eq!(of(&format!("{alarms}{}", consumers(30))), (true, false));
    }

    #[test]
    fn policy_fits_into_a_managed_policy_or_each_of_its_parts_does() {
        let many: String = (0..9).map(|n| format!("[[consumer]]\nname = \"consumer-{n}\"\n")).collect();
        for file in FILES.into_iter().chain([many.as_str()]) {
            for policy in [planner_policy, deployer_policy, verifier_policy, reader_policy, operator_policy] {
                let policy = in_context(file, policy);
                let parts = parts(&policy);
                let is_extended = ["[[consumer]]", "[stream]", "[alarms]"].iter().any(|section| file.contains(section));
                assert!(parts.len() == 1 || is_extended, "{}", policy.to_string().len());
                assert!(parts.iter().all(|part| part.to_string().len() <= LONGEST_POLICY));
                let statements: Vec<&Json> =
                    parts.iter().flat_map(|part| part["Statement"].as_array().expect("statements")).collect();
                assert_eq!(json!(statements), policy["Statement"]);
            }
        }
    }

    #[test]
    fn planner_may_change_nothing() {
        for file in FILES {
            let policy = in_context(file, planner_policy);
            let actions =
                policy["Statement"].as_array().expect("statements").iter().flat_map(|s| s["Action"].as_array());
            for action in actions.flatten().filter_map(Json::as_str) {
                let verb = action.split(':').nth(1).unwrap_or_default();
                let reads = ["Get", "List", "Describe", "Simulate", "Decrypt"];
                assert!(reads.iter().any(|read| verb.starts_with(read)), "{action}");
            }
        }
    }

    #[test]
    fn deployer_policy_is_limited_to_the_pipelines_resources() {
        for file in FILES {
            let policy = in_context(file, deployer_policy);
            for statement in policy["Statement"].as_array().expect("statements") {
                let actions: Vec<&str> =
                    statement["Action"].as_array().expect("actions").iter().filter_map(Json::as_str).collect();
                assert!(!actions.iter().any(|action| action.contains('*')), "{actions:?}");
                for resource in statement["Resource"].as_array().expect("resources").iter().filter_map(Json::as_str) {
                    match resource {
                        // Read-only actions that AWS cannot restrict to a resource.
                        "*" => assert!(actions.iter().all(|action| UNBOUND.contains(action)), "{actions:?}"),
                        // To check the permissions of the caller.
                        arn if arn.ends_with(":user/*") || arn.ends_with(":role/*") => {
                            let checks = ["iam:GetRole", "iam:SimulatePrincipalPolicy"];
                            assert!(actions.iter().all(|action| checks.contains(action)), "{actions:?} on {arn}");
                        }
                        // To prove that a resource is absent.
                        arn if arn.ends_with(":table/*") => assert_eq!(actions, ["dynamodb:DescribeTable"]),
                        arn if arn.ends_with(":function:*") => assert_eq!(actions, ["lambda:ListTags"]),
                        arn if arn.starts_with("arn:aws:sqs") && arn.ends_with(":*") => {
                            assert_eq!(actions, ["sqs:GetQueueUrl"]);
                        }
                        // CloudWatch authorizes the list of alarms on all of them.
                        arn if arn.ends_with(":alarm:*") => assert_eq!(actions, ["cloudwatch:DescribeAlarms"]),
                        arn if arn.ends_with(":s3:::*") => assert_eq!(actions, ["s3:GetBucketTagging"]),
                        // Lambda chooses the id of a mapping; the condition names the function.
                        arn if arn.ends_with(":event-source-mapping:*") => {
                            let condition = &statement["Condition"]["StringEquals"]["lambda:FunctionArn"];
                            assert!(!condition.is_null() && !condition.to_string().contains('*'), "{statement}");
                        }
                        // A role that does not exist has no path, and can only be read.
                        arn if arn.contains(":role/events-") => {
                            let reads = |action: &&str| action.starts_with("iam:Get") || action.starts_with("iam:List");
                            assert!(actions.iter().all(reads), "{actions:?} on {arn}");
                        }
                        // DynamoDB makes its role for streams with the permission of the caller.
                        arn if arn.contains(":role/aws-service-role/") => {
                            assert_eq!(actions, ["iam:CreateServiceLinkedRole"]);
                        }
                        arn if arn.contains(":iam:") => assert!(arn.contains(":role/pipeline/events/events-"), "{arn}"),
                        arn => assert!(arn.contains("events"), "{arn}"),
                    }
                }
            }
        }
    }

    #[test]
    fn operator_may_read_the_log_of_every_function() {
        in_context("[[consumer]]\nname = \"alert\"", |context| {
            let policy = operator_policy(context);
            for function in context.pipeline.functions() {
                let group = context.account.log_group_arn(&log_group_name(&function.name));
                let streams = format!("{group}:*");
                let read =
                    json!([{ "Effect": "Allow", "Action": "logs:FilterLogEvents", "Resource": [group, streams] }]);
                assert_eq!(policy::widening(&policy, &read), Vec::<String>::new(), "{}", function.name);
            }
        });
    }

    #[test]
    fn reader_may_query_the_breakdowns_that_are_declared() {
        let may = |file: &str| {
            in_context(file, |context| {
                let table = context.account.table_arn(&context.pipeline.table.breakdowns);
                let query = json!([{ "Effect": "Allow", "Action": "dynamodb:Query", "Resource": table }]);
                policy::widening(&reader_policy(context), &query).is_empty()
            })
        };
        assert!(may("[rollup]\nby = [\"properties.plan\"]") && !may(""));
    }

    #[test]
    fn deployer_may_read_absent_roles_and_pass_the_role_to_lambda_only() {
        let policy = in_context("", deployer_policy);
        let statements = policy["Statement"].as_array().expect("statements");
        let of = |action: &str| -> Vec<&Json> {
            let has =
                |statement: &&Json| statement["Action"].as_array().is_some_and(|all| all.iter().any(|a| a == action));
            statements.iter().filter(has).collect()
        };
        let role = |path: &str| format!("arn:aws:iam::123456789012:role{path}events-function");
        for path in ["/", "/pipeline/events/"] {
            let read = json!([{ "Effect": "Allow", "Action": "iam:GetRole", "Resource": role(path) }]);
            assert_eq!(policy::widening(&policy, &read), Vec::<String>::new(), "{path}");
        }
        let pass = of("iam:PassRole");
        assert_eq!(pass.len(), 1);
        assert_eq!(pass[0]["Resource"], json!([role("/pipeline/events/")]));
        assert_eq!(pass[0]["Condition"]["StringEquals"]["iam:PassedToService"], "lambda.amazonaws.com");
    }
}
