//! What the caller must be allowed to do, and whether it is.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::types::PolicyEvaluationDecisionType;
use futures_util::stream::{self, StreamExt};
use serde_json::{Value as Json, json};

use crate::aws::{Aws, AwsError, Call, Place, resource_in};
use crate::kind::{Rights, Scope};
use crate::live::FIND_RIGHTS;
use crate::owner;
use crate::plan::{Action, Plan};
use crate::resources;

/// Questions to IAM at the same time. It allows few simulations a second.
const AT_ONCE: usize = 4;

/// ARNs, and the actions on each.
type Needed = BTreeMap<String, BTreeSet<&'static str>>;

fn add(needed: &mut Needed, resource: &str, actions: &[&'static str]) {
    if !actions.is_empty() {
        needed.entry(resource.to_owned()).or_default().extend(actions);
    }
}

/// Actions that MiniStack, the local AWS, evaluates without knowing what they are for; it also leaves out roles' paths.
const LOCAL_UNBOUND: [&str; 3] = ["dynamodb:ListTagsOfResource", "dynamodb:TagResource", "lambda:CreateFunction"];

/// The least that a deployer of this pipeline must be allowed to do: to plan, apply, update and destroy it. For a local
/// AWS it is wider where that cannot bind an action to its resource.
#[must_use]
pub fn deployer_policy(scope: &Scope<'_>, is_local: bool) -> Json {
    let mut needed = Needed::new();
    add(&mut needed, "*", &FIND_RIGHTS);
    for resource in resources::declared(scope) {
        for Rights { resource, read, create, update, delete } in resource.rights() {
            for &action in [read, create, update, delete].into_iter().flatten() {
                add(&mut needed, &resource, &[action]);
                if is_local {
                    let unbound = LOCAL_UNBOUND.contains(&action);
                    let pathless = resource.replacen(&owner::role_path(&scope.pipeline.name), "/", 1);
                    add(&mut needed, if unbound { "*" } else { &pathless }, &[action]);
                }
            }
        }
    }
    // What may be done to several resources of a kind stands once.
    let mut statements: BTreeMap<BTreeSet<&str>, Vec<String>> = BTreeMap::new();
    for (resource, actions) in needed {
        statements.entry(actions).or_default().push(resource);
    }
    let statements: Vec<Json> = statements
        .into_iter()
        .map(|(actions, resources)| json!({ "Effect": "Allow", "Action": actions, "Resource": resources }))
        .collect();
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// What the steps of a plan need.
fn needed_by(plan: &Plan) -> Needed {
    let mut needed = Needed::new();
    for item in &plan.items {
        for Rights { resource, create, update, delete, .. } in item.observed.rights() {
            match item.action {
                // A new resource gets the settings that its kind does not make it with.
                Action::Create => add(&mut needed, &resource, create),
                Action::Update => add(&mut needed, &resource, update),
                Action::Delete => add(&mut needed, &resource, delete),
                Action::Nothing | Action::Refuse => {}
            }
        }
    }
    needed
}

/// What the caller lacks of what the plan needs, or why that could not be found out; a line each.
pub async fn missing(aws: &Aws, place: &Place, plan: &Plan) -> Vec<String> {
    let needed = needed_by(plan);
    if needed.is_empty() {
        return Vec::new();
    }
    let unchecked = |why: String| vec![format!("whether the caller may do all of this was not checked: {why}")];
    let principal = match principal(aws, place).await {
        Ok(Some(principal)) => principal,
        // The account's root may do everything.
        Ok(None) => return Vec::new(),
        Err(error) => return unchecked(error.to_string()),
    };
    let answers = stream::iter(&needed)
        .map(|(resource, actions)| denied(aws, &principal, resource, actions))
        .buffered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let mut missing = Vec::new();
    for answer in answers {
        match answer {
            Ok(denied) => missing.extend(denied),
            Err(error) => return unchecked(error.to_string()),
        }
    }
    missing.into_iter().map(|(action, resource)| format!("the caller may not {action} on {resource}")).collect()
}

async fn denied(
    aws: &Aws,
    principal: &str,
    resource: &str,
    actions: &BTreeSet<&'static str>,
) -> Result<Vec<(String, String)>, AwsError> {
    let request = aws.iam.simulate_principal_policy().policy_source_arn(principal).resource_arns(resource);
    let request = request.set_action_names(Some(actions.iter().map(|&action| action.to_owned()).collect()));
    let answer = request.send().await.call("iam:SimulatePrincipalPolicy")?;
    let denied = answer.evaluation_results.unwrap_or_default().into_iter();
    let denied = denied.filter(|result| result.eval_decision != PolicyEvaluationDecisionType::Allowed);
    Ok(denied.map(|result| (result.eval_action_name, resource.to_owned())).collect())
}

/// Whose policies to ask about: the user, or the role behind a session. Nothing for the account's root.
async fn principal(aws: &Aws, place: &Place) -> Result<Option<String>, AwsError> {
    let caller = &place.caller;
    if caller.ends_with(":root") {
        return Ok(None);
    }
    // A session's ARN leaves the role's path out.
    let Some(role) = resource_in(caller, "sts").and_then(|session| session.split('/').nth(1)) else {
        return Ok(Some(caller.clone()));
    };
    let answer = aws.iam.get_role().role_name(role).send().await.call("iam:GetRole")?;
    Ok(Some(answer.role.map_or_else(|| caller.clone(), |role| role.arn)))
}
