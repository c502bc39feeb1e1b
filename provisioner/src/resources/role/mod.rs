//! The roles of the functions, and the role that Segment assumes to write into the bucket. Each gets its permissions from
//! one inline policy.

pub(crate) mod earlier_prefix;
mod policies;

use std::collections::BTreeMap;

use aws_sdk_iam::types::Tag;
use jiff::Timestamp;
use policies::{consumer_policy, counter_policy, writer_policy};
use serde_json::{Value as Json, json};

use crate::aws::policy;
use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, resource_in, retry_while, role_path};
use crate::config::{Function, dropped_tags};
use crate::error::Error;
use crate::reconcile::diff::{Diff, SettingChange, touches};
use crate::reconcile::ownership::{self, Ownership};
use crate::reconcile::resource::{Condition, IamActions, Refusal, Resource, StepContext};
use crate::resources::{Context, Kind};

/// The role with which Segment writes into customers' buckets (Segment's AWS S3 destination documentation).
const SEGMENT: &str = "arn:aws:iam::595280932656:role/segment-s3-integration-production-access";

/// The name of the inline policy of a function's role.
pub(crate) const FUNCTION_POLICY: &str = "handler";

/// The actions that read a role.
const READ: &[&str] =
    &["iam:GetRole", "iam:GetRolePolicy", "iam:ListRoleTags", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies"];

/// The desired state of a role.
#[derive(Debug, Clone)]
pub(super) struct Role {
    name: String,
    arn: String,
    /// The ARN of the role while it does not exist.
    pathless_arn: String,
    path: String,
    description: &'static str,
    trust: Json,
    policy_name: &'static str,
    policy: Json,
    /// The ARN of the policy that bounds the permissions.
    boundary: Option<String>,
    tags: BTreeMap<String, String>,
}

/// The live state of a role.
#[derive(Debug, Default)]
pub(super) struct Live {
    path: String,
    trust: Option<Json>,
    policy: Option<Json>,
    boundary: Option<String>,
    description: Option<String>,
    /// Not a declared setting, but UpdateRole resets it if the request omits it.
    session_seconds: Option<i32>,
    tags: BTreeMap<String, String>,
    /// The other policies of the role: the names of inline ones and the ARNs of attached ones.
    unmanaged_policies: Vec<String>,
}

fn parse_policy(text: Option<&str>, doing: impl Fn() -> String) -> Result<Option<Json>, Error> {
    let Some(text) = text else { return Ok(None) };
    Ok(Some(policy::canonical(&policy::parse(text, doing)?)))
}

impl Role {
    /// Returns the desired policy beside the live one.
    fn policy_beside(&self, live: Option<&Json>) -> Json {
        earlier_prefix::keep(&self.policy, live, Timestamp::now())
    }

    async fn put_policy(&self, step: &StepContext<'_>, live: Option<&Json>) -> Result<(), ResourceError> {
        let policy = self.policy_beside(live).to_string();
        retry_while(step.wait("the role to accept its policy", 60), is_propagating, || async {
            let request = step.aws.iam.put_role_policy().role_name(&self.name).policy_name(self.policy_name);
            request.policy_document(&policy).send().await.call("iam:PutRolePolicy")
        })
        .await?;
        Ok(())
    }

    /// Lists the names of the inline policies; empty if the role does not exist.
    async fn inline_policies(&self, aws: &Aws) -> Result<Vec<String>, AwsError> {
        let mut names = Vec::new();
        let mut marker = None;
        loop {
            let answer = aws.iam.list_role_policies().role_name(&self.name).set_marker(marker).send().await;
            let Some(page) = absent_on(answer.call("iam:ListRolePolicies"), &["NoSuchEntity"])? else {
                return Ok(names);
            };
            names.extend(page.policy_names);
            marker = page.marker;
            if marker.is_none() {
                return Ok(names);
            }
        }
    }

    /// Lists the ARNs of the attached policies; empty if the role does not exist.
    async fn attached_policies(&self, aws: &Aws) -> Result<Vec<String>, AwsError> {
        let mut arns = Vec::new();
        let mut marker = None;
        loop {
            let answer = aws.iam.list_attached_role_policies().role_name(&self.name).set_marker(marker).send().await;
            let Some(page) = absent_on(answer.call("iam:ListAttachedRolePolicies"), &["NoSuchEntity"])? else {
                return Ok(arns);
            };
            arns.extend(page.attached_policies.unwrap_or_default().into_iter().filter_map(|policy| policy.policy_arn));
            marker = page.marker;
            if marker.is_none() {
                return Ok(arns);
            }
        }
    }

    /// Returns a tag key in the spelling of the declared tags: to IAM, keys that differ in case are the same key (IAM
    /// user guide, tags: case sensitivity).
    fn spelling(&self, key: String) -> String {
        self.tags.keys().find(|declared| declared.eq_ignore_ascii_case(&key)).cloned().unwrap_or(key)
    }

    fn aws_tags(&self) -> Result<Vec<Tag>, Error> {
        let tag = |(key, value): (&String, &String)| Tag::builder().key(key).value(value).build().map_err(Error::from);
        self.tags.iter().map(tag).collect()
    }
}

/// Returns whether a new principal or policy has not propagated yet (IAM user guide, eventual consistency).
fn is_propagating(error: &AwsError) -> bool {
    error.code() == Some("ConcurrentModification")
        || error.says("MalformedPolicyDocument", "Invalid principal in policy")
}

impl Kind for Role {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let pipeline = context.pipeline;
        let role = |name: String, description, trust, policy_name, policy| Self {
            arn: context.account.role_arn(&pipeline.name, &name),
            pathless_arn: context.account.pathless_role_arn(&name),
            name,
            path: role_path(&pipeline.name),
            description,
            trust,
            policy_name,
            policy,
            boundary: pipeline.permissions_boundary.clone(),
            tags: pipeline.tags.clone(),
        };
        let of_function = |function: &Function, description, policy| {
            let trust = policy::document(&[json!({
                "Effect": "Allow",
                "Principal": { "Service": "lambda.amazonaws.com" },
                "Action": "sts:AssumeRole",
            })]);
            role(function.role.name.clone(), description, trust, FUNCTION_POLICY, policy)
        };
        let counter = &pipeline.function;
        let mut roles =
            vec![of_function(counter, "Permissions of the event pipeline's function", counter_policy(context))];
        roles.extend(pipeline.consumers.iter().map(|consumer| {
            let policy = consumer_policy(context, consumer);
            of_function(consumer, "Permissions of a consumer of the event pipeline", policy)
        }));
        if let Some(workspace) = &pipeline.segment_workspace_id {
            roles.push(role(
                pipeline.segment_role(),
                "Segment assumes this to write event files into the bucket",
                policy::document(&[json!({
                    "Effect": "Allow",
                    "Principal": { "AWS": SEGMENT },
                    "Action": "sts:AssumeRole",
                    "Condition": { "StringEquals": { "sts:ExternalId": workspace } },
                })]),
                "write",
                writer_policy(context),
            ));
        }
        roles
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        let (_, name) = resource_in(arn, "iam")?.strip_prefix("role/")?.rsplit_once('/')?;
        Some(name.to_owned())
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        let like = Self::desired(context).into_iter().next()?;
        Some(Self {
            name: name.to_owned(),
            arn: context.account.role_arn(&context.pipeline.name, name),
            pathless_arn: context.account.pathless_role_arn(name),
            ..like
        })
    }
}

impl Resource for Role {
    const NAME: &'static str = "role";
    const IS_FIRST: bool = true;
    const ESSENTIAL: Option<&'static [&'static str]> = Some(&["trust_policy", "policy", "permissions_boundary"]);
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn arn(&self) -> String {
        self.arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        let bounded = match &self.boundary {
            None => IamActions { resource: self.arn.clone(), create: &["iam:CreateRole"], ..IamActions::default() },
            Some(boundary) => IamActions {
                resource: self.arn.clone(),
                create: &["iam:CreateRole"],
                update: &["iam:PutRolePermissionsBoundary"],
                condition: Some(Condition { key: "iam:PermissionsBoundary", value: boundary.clone() }),
                ..IamActions::default()
            },
        };
        vec![
            IamActions {
                resource: self.arn.clone(),
                read: READ,
                create: &["iam:TagRole", "iam:PutRolePolicy"],
                update: &[
                    "iam:TagRole",
                    "iam:UntagRole",
                    "iam:UpdateRole",
                    "iam:UpdateAssumeRolePolicy",
                    "iam:PutRolePolicy",
                ],
                delete: &["iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:DeleteRole"],
                condition: None,
            },
            bounded,
            IamActions { resource: self.pathless_arn.clone(), read: &["iam:GetRole"], ..IamActions::default() },
        ]
    }

    fn ownership(&self, live: &Live) -> Ownership {
        match ownership::by_tags(&live.tags, &self.tags) {
            // A role's path cannot be changed, so it marks ownership as well as the tag does.
            Ownership::Unmanaged if live.path == self.path => Ownership::Owned,
            owner => owner,
        }
    }

    fn notes(&self, live: &Live) -> Vec<String> {
        let mut notes = Vec::new();
        if !live.unmanaged_policies.is_empty() {
            let policies = live.unmanaged_policies.join(", ");
            notes.push(format!("unmanaged policies extend its permissions: {policies}"));
        }
        for (prefix, end) in earlier_prefix::of(&self.policy_beside(live.policy.as_ref())) {
            notes.push(format!(
                "it may read files below the earlier prefix {prefix} until {end}, as their notifications may be queued; \
                 `provisioner backfill --prefix {prefix}` counts those that had none"
            ));
        }
        notes
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        // Before the others, which IAM refuses for an absent role: it has no path yet.
        let answer = aws.iam.get_role().role_name(&self.name).send().await;
        let Some(answer) = absent_on(answer.call("iam:GetRole"), &["NoSuchEntity"])? else {
            return Ok(None);
        };
        let doing = |what: &str| format!("read the {what} of role {}", self.name);
        let role = answer.role.ok_or_else(|| Error::incomplete_answer(doing("settings"), "role"))?;
        let (policy, tags, inline, attached) = tokio::try_join!(
            async {
                let request = aws.iam.get_role_policy().role_name(&self.name).policy_name(self.policy_name);
                absent_on(request.send().await.call("iam:GetRolePolicy"), &["NoSuchEntity"])
            },
            // GetRole returns tags too, but not always all of them.
            async { aws.iam.list_role_tags().role_name(&self.name).send().await.call("iam:ListRoleTags") },
            self.inline_policies(aws),
            self.attached_policies(aws),
        )?;
        let is_owned = |name: &String| name == self.policy_name;
        Ok(Some(Live {
            trust: parse_policy(role.assume_role_policy_document.as_deref(), || doing("trust policy"))?,
            path: role.path,
            description: role.description,
            session_seconds: role.max_session_duration,
            boundary: role.permissions_boundary.and_then(|boundary| boundary.permissions_boundary_arn),
            unmanaged_policies: inline.into_iter().filter(|name| !is_owned(name)).chain(attached).collect(),
            policy: parse_policy(policy.as_ref().map(|answer| answer.policy_document.as_str()), || doing("policy"))?,
            tags: tags.tags.into_iter().map(|tag| (self.spelling(tag.key), tag.value)).collect(),
        }))
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        let live_policy = live.and_then(|l| l.policy.as_ref());
        let diff = Diff::new()
            .compare("path", live.map(|l| &l.path), &self.path)
            .compare("description", live.and_then(|l| l.description.as_ref()), self.description)
            .policy("trust_policy", live.and_then(|l| l.trust.as_ref()), Some(&self.trust))
            .policy("policy", live_policy, Some(&self.policy_beside(live_policy)));
        let boundary = live.and_then(|l| l.boundary.as_ref());
        let diff = match (boundary, &self.boundary) {
            (Some(boundary), None) => diff.keep(format!("its permissions boundary {boundary} is kept")),
            (boundary, desired) => diff.compare("permissions_boundary", boundary, desired.as_ref()),
        };
        diff.tags(live.map(|l| &l.tags), &self.tags, &[])
    }

    fn refusal(&self, live: &Live) -> Option<Refusal> {
        // A role has no region, but the resources in its policy do.
        let region = |policy: &Json| {
            let resources =
                policy::statements(policy).into_iter().filter(|statement| policy::sid(statement) == "AddCounts");
            let arn =
                resources.map(|statement| statement["Resource"][0].as_str().unwrap_or_default().to_owned()).next();
            arn.and_then(|arn| arn.split(':').nth(3).map(str::to_owned))
        };
        if let (Some(live), Some(desired)) = (live.policy.as_ref().and_then(region), region(&self.policy))
            && live != desired
        {
            return Some(Refusal::new(
                format!(
                    "is owned by this pipeline in {live}, but pipeline.toml names {desired}: a pipeline cannot be moved"
                ),
                "revert pipeline.region, or give the pipeline in the new region another pipeline.name",
            ));
        }
        (live.path != self.path).then(|| {
            let at = self.arn.replacen(&self.path, &live.path, 1);
            Refusal::new(
                format!("exists under the path {} and is unmanaged ({at})", live.path),
                "choose another role.name or pipeline.name: a role cannot change its path, so it cannot be adopted",
            )
        })
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let request = step
            .aws
            .iam
            .create_role()
            .role_name(&self.name)
            .path(&self.path)
            .description(self.description)
            .assume_role_policy_document(self.trust.to_string())
            .set_permissions_boundary(self.boundary.clone())
            .set_tags(Some(self.aws_tags()?));
        let created = retry_while(step.wait("the role's principal to be known", 60), is_propagating, || async {
            request.clone().send().await.call("iam:CreateRole")
        })
        .await;
        match created {
            Err(ResourceError::Call(error)) if error.code() == Some("EntityAlreadyExists") => {
                return Err(ResourceError::AlreadyExists);
            }
            other => other?,
        };
        // It proves that the pipeline is applied, so the other resources may follow.
        (step.on_exists)();
        self.put_policy(step, None).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        let iam = &step.aws.iam;
        if touches(changes, &["tags"]) {
            let dropped = dropped_tags(&live.tags, &self.tags);
            if !dropped.is_empty() {
                let request = iam.untag_role().role_name(&self.name).set_tag_keys(Some(dropped));
                absent_on(request.send().await.call("iam:UntagRole"), &["NoSuchEntity"])?;
            }
            let request = iam.tag_role().role_name(&self.name).set_tags(Some(self.aws_tags()?));
            retry_while(step.wait("the role to accept its tags", 60), is_propagating, || async {
                request.clone().send().await.call("iam:TagRole")
            })
            .await?;
        }
        if let Some(boundary) = self.boundary.as_ref().filter(|_| touches(changes, &["permissions_boundary"])) {
            retry_while(step.wait("the role to accept its permissions boundary", 60), is_propagating, || async {
                let request = iam.put_role_permissions_boundary().role_name(&self.name);
                request.permissions_boundary(boundary).send().await.call("iam:PutRolePermissionsBoundary")
            })
            .await?;
        }
        if touches(changes, &["trust_policy"]) {
            retry_while(step.wait("the role's principal to be known", 60), is_propagating, || async {
                let request = iam.update_assume_role_policy().role_name(&self.name);
                request.policy_document(self.trust.to_string()).send().await.call("iam:UpdateAssumeRolePolicy")
            })
            .await?;
        }
        if touches(changes, &["description"]) {
            let request = iam.update_role().role_name(&self.name).description(self.description);
            let request = request.set_max_session_duration(live.session_seconds);
            request.send().await.call("iam:UpdateRole")?;
        }
        if touches(changes, &["policy"]) {
            self.put_policy(step, live.policy.as_ref()).await?;
        }
        Ok(())
    }

    async fn delete(&self, step: &StepContext<'_>, _live: &Live) -> Result<(), ResourceError> {
        let iam = &step.aws.iam;
        // IAM deletes a role only after all of its policies are deleted, including unmanaged ones.
        for name in self.inline_policies(step.aws).await? {
            let request = iam.delete_role_policy().role_name(&self.name).policy_name(name);
            absent_on(request.send().await.call("iam:DeleteRolePolicy"), &["NoSuchEntity"])?;
        }
        for arn in self.attached_policies(step.aws).await? {
            let request = iam.detach_role_policy().role_name(&self.name).policy_arn(arn);
            absent_on(request.send().await.call("iam:DetachRolePolicy"), &["NoSuchEntity"])?;
        }
        let is_conflict = |error: &AwsError| matches!(error.code(), Some("DeleteConflict" | "ConcurrentModification"));
        retry_while(step.wait("the role to become deletable", 60), is_conflict, || async {
            let answer = iam.delete_role().role_name(&self.name).send().await;
            absent_on(answer.call("iam:DeleteRole"), &["NoSuchEntity"])
        })
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{assert_in_sync, declared};

    fn live_of(spec: &Role) -> Live {
        Live {
            path: spec.path.clone(),
            description: Some(spec.description.to_owned()),
            session_seconds: None,
            boundary: spec.boundary.clone(),
            unmanaged_policies: Vec::new(),
            trust: Some(spec.trust.clone()),
            policy: Some(spec.policy.clone()),
            tags: spec.tags.clone(),
        }
    }

    #[test]
    fn role_as_created_is_in_sync() {
        assert_in_sync::<Role>(live_of);
    }

    #[test]
    fn role_under_another_path_is_refused() {
        let spec = declared::<Role>("").remove(0);
        assert!(spec.refusal(&Live { path: "/".to_owned(), ..live_of(&spec) }).is_some());
    }

    #[test]
    fn trust_of_the_writer_role_requires_segment_and_the_workspace_id() {
        let roles = declared::<Role>("[segment]\nworkspace_id = \"abc123\"");
        let statement = &policy::statements(&roles[1].trust)[0];
        assert_eq!(statement["Principal"]["AWS"], json!([SEGMENT]));
        assert_eq!(statement["Condition"]["StringEquals"]["sts:ExternalId"], json!(["abc123"]));
    }

    #[test]
    fn statements_have_no_wildcard_action_or_resource() {
        for role in declared::<Role>("[segment]\nworkspace_id = \"abc123\"") {
            for statement in policy::statements(&role.policy) {
                let (actions, resources) = (statement["Action"].to_string(), statement["Resource"].to_string());
                assert!(!actions.contains('*'), "{actions}");
                assert!(!resources.contains("\"*\""), "{resources}");
            }
        }
    }
}
