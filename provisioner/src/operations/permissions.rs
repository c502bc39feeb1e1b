//! What the caller must be allowed to do, and whether it is.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, PolicyEvaluationDecisionType};
use futures_util::stream::{self, StreamExt};

use crate::aws::{Account, Aws, AwsError, Call, resource_in};
use crate::reconcile::plan::{Action, Plan, PlannedResource};
use crate::reconcile::resource::{Address, IamActions};

/// Questions to IAM at the same time. It allows few simulations a second.
const AT_ONCE: usize = 4;

/// ARNs, and the actions on each.
pub(super) type Needed = BTreeMap<String, BTreeSet<&'static str>>;

pub(super) fn add(needed: &mut Needed, resource: &str, actions: &[&'static str]) {
    if !actions.is_empty() {
        needed.entry(resource.to_owned()).or_default().extend(actions);
    }
}

/// What a step needs: the actions on each ARN.
fn needed_by(item: &PlannedResource) -> Needed {
    let mut needed = Needed::new();
    for IamActions { resource, create, update, delete, .. } in item.observed.iam_actions() {
        match item.action {
            // A new resource gets the settings that its kind does not make it with.
            Action::Create => add(&mut needed, &resource, create),
            Action::Update => add(&mut needed, &resource, update),
            Action::Delete => add(&mut needed, &resource, delete),
            Action::NoOp | Action::Conflict => {}
        }
    }
    needed
}

/// What the caller lacks of what the plan needs, or why that could not be found out; a line a resource.
pub(crate) async fn missing(aws: &Aws, account: &Account, plan: &Plan) -> Vec<String> {
    let steps: Vec<(&PlannedResource, Needed)> = plan.items.iter().map(|item| (item, needed_by(item))).collect();
    let questions: Vec<(&PlannedResource, &String, &BTreeSet<&str>)> = steps
        .iter()
        .flat_map(|(item, needed)| needed.iter().map(|(resource, actions)| (*item, resource, actions)))
        .collect();
    if questions.is_empty() {
        return Vec::new();
    }
    let unchecked =
        |error: &AwsError| vec![format!("whether the caller may do all of this was not checked: {}", error.short())];
    let principal = match principal(aws, account).await {
        Ok(Some(principal)) => principal,
        // The account's root may do everything.
        Ok(None) => return Vec::new(),
        Err(error) => return unchecked(&error),
    };
    let answers = stream::iter(&questions)
        .map(|(_, resource, actions)| denied(aws, &principal, resource, actions))
        .buffered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    // Where a resource has two ARNs, one that is allowed is enough.
    let mut missing: BTreeMap<&Address, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for ((item, _, actions), answer) in questions.iter().zip(answers) {
        let denied = match answer {
            Ok(denied) => denied,
            Err(error) => return unchecked(&error),
        };
        let (no, yes) = missing.entry(item.address()).or_default();
        yes.extend(actions.iter().filter(|action| !denied.contains(**action)).map(|action| (*action).to_owned()));
        no.extend(denied);
    }
    let lines = missing.into_iter().filter_map(|(address, (no, yes))| {
        let no: Vec<&str> = no.difference(&yes).map(String::as_str).collect();
        (!no.is_empty()).then(|| format!("the caller may not do this to {address}: it lacks {}", no.join(", ")))
    });
    lines.collect()
}

/// Those of the actions that the principal's policies do not allow, or deny, whatever the circumstances.
async fn denied(
    aws: &Aws,
    principal: &str,
    resource: &str,
    actions: &BTreeSet<&'static str>,
) -> Result<BTreeSet<String>, AwsError> {
    // What people usually bind `iam:PassRole` to.
    let passed = ContextEntry::builder()
        .context_key_name("iam:PassedToService")
        .context_key_type(ContextKeyTypeEnum::String)
        .context_key_values("lambda.amazonaws.com")
        .build();
    let request = aws.iam.simulate_principal_policy().policy_source_arn(principal).resource_arns(resource);
    let request = request.set_action_names(Some(actions.iter().map(|&action| action.to_owned()).collect()));
    let answer = request.context_entries(passed).send().await.call("iam:SimulatePrincipalPolicy")?;
    let denied = answer.evaluation_results.unwrap_or_default().into_iter().filter(|result| {
        // A condition on what only a real call brings along is no answer.
        result.eval_decision != PolicyEvaluationDecisionType::Allowed && result.missing_context_values().is_empty()
    });
    Ok(denied.map(|result| result.eval_action_name).collect())
}

/// Whose policies to ask about: the user, or the role behind a session. Nothing for the account's root.
async fn principal(aws: &Aws, account: &Account) -> Result<Option<String>, AwsError> {
    let caller = &account.caller;
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
