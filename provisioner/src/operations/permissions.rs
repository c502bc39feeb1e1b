//! The IAM permissions that a plan requires, and those that the caller lacks.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, PolicyEvaluationDecisionType};
use futures_util::stream::{self, StreamExt};

use crate::aws::{Account, Aws, AwsError, Call, resource_in};
use crate::reconcile::plan::{Action, Plan, PlannedResource};
use crate::reconcile::resource::{Address, Condition, IamActions};

/// The maximum number of concurrent simulations; IAM allows only a few per second.
const AT_ONCE: usize = 4;

/// The actions on each ARN, under each condition.
pub(super) type Needed = BTreeMap<(String, Option<Condition>), BTreeSet<&'static str>>;

pub(super) fn add(needed: &mut Needed, resource: &str, condition: Option<&Condition>, actions: &[&'static str]) {
    if !actions.is_empty() {
        needed.entry((resource.to_owned(), condition.cloned())).or_default().extend(actions);
    }
}

/// Returns the actions that a step requires on each ARN.
fn needed_by(item: &PlannedResource) -> Needed {
    let mut needed = Needed::new();
    for IamActions { resource, condition, create, update, delete, .. } in item.observed.iam_actions() {
        let actions = match item.action {
            // Includes the settings that the creating call cannot set.
            Action::Create => create,
            Action::Update => update,
            Action::Delete => delete,
            Action::NoOp | Action::Conflict => &[],
        };
        add(&mut needed, &resource, condition.as_ref(), actions);
    }
    needed
}

/// Returns one line for each resource on which the caller lacks actions, or one line with the reason why the actions
/// were not checked.
pub(crate) async fn missing(aws: &Aws, account: &Account, plan: &Plan) -> Vec<String> {
    let steps: Vec<(&PlannedResource, Needed)> = plan.items.iter().map(|item| (item, needed_by(item))).collect();
    let simulations: Vec<_> =
        steps.iter().flat_map(|(item, needed)| needed.iter().map(|(key, actions)| (*item, key, actions))).collect();
    if simulations.is_empty() {
        return Vec::new();
    }
    let unchecked =
        |error: &AwsError| vec![format!("the permissions of the caller were not checked: {}", error.short())];
    let principal = match principal(aws, account).await {
        Ok(Some(principal)) => principal,
        // The root user of the account is allowed everything.
        Ok(None) => return Vec::new(),
        Err(error) => return unchecked(&error),
    };
    let answers = stream::iter(&simulations)
        .map(|(_, (resource, condition), actions)| denied(aws, &principal, resource, condition.as_ref(), actions))
        .buffered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    // If a resource has two ARNs, permission on one is enough.
    let mut missing: BTreeMap<&Address, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for ((item, _, actions), answer) in simulations.iter().zip(answers) {
        let denied = match answer {
            Ok(denied) => denied,
            Err(error) => return unchecked(&error),
        };
        let (not_allowed, allowed) = missing.entry(item.address()).or_default();
        allowed.extend(actions.iter().filter(|action| !denied.contains(**action)).map(|action| (*action).to_owned()));
        not_allowed.extend(denied);
    }
    let lines = missing.into_iter().filter_map(|(address, (not_allowed, allowed))| {
        let lacking: Vec<&str> = not_allowed.difference(&allowed).map(String::as_str).collect();
        (!lacking.is_empty()).then(|| format!("the caller lacks permissions for {address}: {}", lacking.join(", ")))
    });
    lines.collect()
}

/// Returns the actions that the principal's policies deny or do not allow, regardless of the context of a call.
async fn denied(
    aws: &Aws,
    principal: &str,
    resource: &str,
    condition: Option<&Condition>,
    actions: &BTreeSet<&'static str>,
) -> Result<BTreeSet<String>, AwsError> {
    let entry = |condition: &Condition| {
        ContextEntry::builder()
            .context_key_name(condition.key)
            .context_key_type(ContextKeyTypeEnum::String)
            .context_key_values(&condition.value)
            .build()
    };
    let request = aws.iam.simulate_principal_policy().policy_source_arn(principal).resource_arns(resource);
    let request = request.set_action_names(Some(actions.iter().map(|&action| action.to_owned()).collect()));
    let request = request.set_context_entries(condition.map(|condition| vec![entry(condition)]));
    let answer = request.send().await.call("iam:SimulatePrincipalPolicy")?;
    let denied = answer.evaluation_results.unwrap_or_default().into_iter().filter(|result| {
        // A condition on a context key that only a real call has leaves the decision open.
        result.eval_decision != PolicyEvaluationDecisionType::Allowed && result.missing_context_values().is_empty()
    });
    Ok(denied.map(|result| result.eval_action_name).collect())
}

/// Returns the principal to simulate: the user, or the role of a session; `None` for the account's root user.
async fn principal(aws: &Aws, account: &Account) -> Result<Option<String>, AwsError> {
    let caller = &account.caller;
    if caller.ends_with(":root") {
        return Ok(None);
    }
    // The ARN of a session omits the role's path.
    let Some(role) = resource_in(caller, "sts").and_then(|session| session.split('/').nth(1)) else {
        return Ok(Some(caller.clone()));
    };
    let answer = aws.iam.get_role().role_name(role).send().await.call("iam:GetRole")?;
    Ok(Some(answer.role.map_or_else(|| caller.clone(), |role| role.arn)))
}
