//! The statement in the function's resource policy that lets S3 invoke it, restricted to this bucket in this account:
//! another account can create a bucket with the name of a deleted one.
//!
//! Lambda has no call that changes a statement. The pipeline owns the statements whose ids begin with its name; one is
//! in sync if its content is as desired.

use aws_sdk_lambda::types::FunctionUrlAuthType;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::function::{Function, is_busy};
use super::openings;
use crate::aws::{Aws, AwsError, Call, Openings, ResourceError, absent_on, policy, retry_while};
use crate::reconcile::diff::{Diff, SettingChange};
use crate::reconcile::ownership::Ownership;
use crate::reconcile::protection::Refusal;
use crate::reconcile::resource::{Address, IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

/// The policies of versions and aliases that are read at once; Lambda answers 15 calls a second (Lambda quotas).
const POLICIES_AT_ONCE: usize = 16;

/// The desired state of the permission.
#[derive(Debug, Clone)]
pub(super) struct Permission {
    function: String,
    function_arn: String,
    sid_prefix: String,
    statement: Json,
    bucket_arn: String,
    account: String,
}

/// The live state of the function's policies.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// The id and the content (without the id) of each owned statement.
    statements: Vec<(String, Json)>,
    /// The other statements, of the function and of its aliases and versions.
    openings: Openings,
    /// The URLs of the function and its aliases, with which anybody may invoke it, or only principals of IAM.
    public_urls: Vec<String>,
    urls: Vec<String>,
}

impl Permission {
    /// Returns an unused id for new content, so that the new statement can be added before the old one is removed.
    fn sid(&self, live: &Live) -> String {
        let digest = Sha256::digest(self.statement.to_string());
        let content: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let plain = format!("{}{content}", self.sid_prefix);
        let is_used = |sid: &String| live.statements.iter().any(|(used, _)| used == sid);
        let numbered = (2..).map(|n| format!("{plain}-{n}"));
        std::iter::once(plain.clone()).chain(numbered).find(|sid| !is_used(sid)).unwrap_or(plain)
    }

    /// Reads the statements of the function's policy, or of the policy of one of its versions and aliases.
    async fn policy(&self, aws: &Aws, qualifier: Option<String>) -> Result<Vec<Json>, ResourceError> {
        let answer = aws.lambda.get_policy().function_name(&self.function).set_qualifier(qualifier).send().await;
        let answer = absent_on(answer.call("lambda:GetPolicy"), &["ResourceNotFoundException"])?;
        let Some(text) = answer.and_then(|answer| answer.policy) else { return Ok(Vec::new()) };
        let document = policy::parse(&text, || format!("read the policy of function {}", self.function))?;
        Ok(policy::statements(&document))
    }

    /// Lists the URLs of the function and its aliases: those without sign-in, and the others.
    async fn urls(&self, aws: &Aws) -> Result<(Vec<String>, Vec<String>), ResourceError> {
        let mut pages =
            aws.lambda.list_function_url_configs().function_name(&self.function).into_paginator().items().send();
        let (mut public, mut others) = (Vec::new(), Vec::new());
        while let Some(url) = pages.next().await {
            let Some(url) = absent_on(url.call("lambda:ListFunctionUrlConfigs"), &["ResourceNotFoundException"])?
            else {
                break;
            };
            let side = if url.auth_type == FunctionUrlAuthType::None { &mut public } else { &mut others };
            side.push(url.function_url);
        }
        Ok((public, others))
    }

    /// Lists the published versions and the aliases of the function.
    async fn qualifiers(&self, aws: &Aws) -> Result<Vec<String>, ResourceError> {
        let absent = ["ResourceNotFoundException"];
        let (versions, aliases) = tokio::try_join!(
            async {
                let mut pages = aws
                    .lambda
                    .list_versions_by_function()
                    .function_name(&self.function)
                    .into_paginator()
                    .items()
                    .send();
                let mut found = Vec::new();
                while let Some(version) = pages.next().await {
                    let version = absent_on(version.call("lambda:ListVersionsByFunction"), &absent)?;
                    let Some(version) = version else { break };
                    found.extend(version.version.filter(|version| version != "$LATEST"));
                }
                Ok::<_, ResourceError>(found)
            },
            async {
                let mut pages = aws.lambda.list_aliases().function_name(&self.function).into_paginator().items().send();
                let mut found = Vec::new();
                while let Some(alias) = pages.next().await {
                    let Some(alias) = absent_on(alias.call("lambda:ListAliases"), &absent)? else { break };
                    found.extend(alias.name);
                }
                Ok(found)
            },
        )?;
        Ok(versions.into_iter().chain(aliases).collect())
    }

    async fn add(&self, step: &StepContext<'_>, sid: &str) -> Result<(), ResourceError> {
        let request = step
            .aws
            .lambda
            .add_permission()
            .function_name(&self.function)
            .statement_id(sid)
            .action("lambda:InvokeFunction")
            .principal("s3.amazonaws.com")
            .source_arn(&self.bucket_arn)
            .source_account(&self.account);
        // Lambda writes the whole policy at each call and refuses concurrent calls. An existing statement has the same
        // error code as a concurrent change of the function; only the message differs.
        let exists = |error: &AwsError| error.says("ResourceConflictException", "already exists");
        let busy = |error: &AwsError| is_busy(error) && !exists(error);
        let added = retry_while(step.wait("the function's policy to accept a change", 60), busy, || async {
            request.clone().send().await.call("lambda:AddPermission")
        })
        .await;
        match added {
            Ok(_) => Ok(()),
            // Added by a concurrent run, or by an attempt whose response was lost.
            Err(ResourceError::Call(error)) if exists(&error) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    async fn remove(&self, step: &StepContext<'_>, sid: &str) -> Result<(), ResourceError> {
        retry_while(step.wait("the function's policy to accept a change", 60), is_busy, || async {
            let request = step.aws.lambda.remove_permission().function_name(&self.function).statement_id(sid);
            absent_on(request.send().await.call("lambda:RemovePermission"), &["ResourceNotFoundException"])
        })
        .await?;
        Ok(())
    }
}

impl Kind for Permission {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let function = context.pipeline.function.name.clone();
        let bucket_arn = context.account.s3_arn(&context.pipeline.bucket.name);
        let account = context.account.id.clone();
        let function_arn = context.account.function_arn(&function);
        let statement = policy::canonical_statement(&json!({
            "Effect": "Allow",
            "Principal": { "Service": "s3.amazonaws.com" },
            "Action": "lambda:InvokeFunction",
            "Resource": function_arn,
            "Condition": {
                "ArnLike": { "AWS:SourceArn": bucket_arn },
                "StringEquals": { "AWS:SourceAccount": account },
            },
        }));
        let sid_prefix = format!("{}-s3-", context.pipeline.name);
        vec![Self { sid_prefix, function, function_arn, statement, bucket_arn, account }]
    }
}

impl Resource for Permission {
    const NAME: &'static str = "permission";
    const ESSENTIAL: Option<&'static [&'static str]> = Some(&["statement"]);
    type Live = Live;

    fn name(&self) -> String {
        self.function.clone()
    }

    fn arn(&self) -> String {
        self.function_arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        let qualified = format!("{}:*", self.function_arn);
        vec![
            IamActions {
                resource: self.function_arn.clone(),
                read: &[
                    "lambda:GetPolicy",
                    "lambda:ListAliases",
                    "lambda:ListFunctionUrlConfigs",
                    "lambda:ListVersionsByFunction",
                ],
                create: &["lambda:AddPermission"],
                update: &["lambda:AddPermission", "lambda:RemovePermission"],
                delete: &["lambda:RemovePermission"],
                condition: None,
            },
            // Somebody may have made versions and aliases, which have policies of their own.
            IamActions { resource: qualified, read: &["lambda:GetPolicy"], ..IamActions::default() },
        ]
    }

    /// Returns `Owned`: [`Resource::read`] returns only statements whose ids begin with the pipeline's name.
    fn ownership(&self, _live: &Live) -> Ownership {
        Ownership::Owned
    }

    fn after(&self) -> Vec<Address> {
        vec![Address::of::<Function>(&self.function)]
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let (policy, urls, qualifiers) =
            tokio::try_join!(self.policy(aws, None), self.urls(aws), self.qualifiers(aws))?;
        let (owned, others): (Vec<Json>, Vec<Json>) =
            policy.into_iter().partition(|statement| policy::sid(statement).starts_with(&self.sid_prefix));
        let content = |statement: &Json| policy::without_sid(&policy::canonical_statement(statement));
        let mut openings = Openings::of(&Json::Array(others), &self.account);
        let policies = qualifiers.into_iter().map(|qualifier| self.policy(aws, Some(qualifier)));
        let policies: Vec<Vec<Json>> = stream::iter(policies).buffered(POLICIES_AT_ONCE).try_collect().await?;
        for others in policies {
            openings.extend(Openings::of(&Json::Array(others), &self.account));
        }
        let (public_urls, urls) = urls;
        let statements = owned.iter().map(|owned| (policy::sid(owned).to_owned(), content(owned))).collect();
        let live = Live { statements, openings, public_urls, urls };
        let is_empty = live.statements.is_empty() && live.openings == Openings::default();
        Ok((!is_empty || !live.public_urls.is_empty() || !live.urls.is_empty()).then_some(live))
    }

    fn exists(live: &Live) -> bool {
        !live.statements.is_empty()
    }

    fn refusal(&self, live: &Live) -> Option<Refusal> {
        let name = &self.function;
        if !live.public_urls.is_empty() {
            return Some(Refusal::new(
                format!("is open to everybody by a URL without sign-in: {}", live.public_urls.join(", ")),
                format!("delete it: aws lambda delete-function-url-config --function-name {name}"),
            ));
        }
        let command = format!("aws lambda remove-permission --function-name {name} --statement-id ID");
        let help = format!("remove their statements, of which `aws lambda get-policy` shows the ids: {command}");
        openings::refusal(&live.openings, help)
    }

    fn notes(&self, live: &Live) -> Vec<String> {
        let urls = || format!("unmanaged URLs, which ask for a sign-in, invoke the function: {}", live.urls.join(", "));
        openings::notes(&live.openings).into_iter().chain((!live.urls.is_empty()).then(urls)).collect()
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        let shown = live.map(|live| match live.statements.as_slice() {
            [(_, only)] => only.clone(),
            several => Json::Array(several.iter().map(|(_, content)| content.clone()).collect()),
        });
        Diff::new().policy("statement", shown.as_ref(), Some(&self.statement))
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        self.add(step, &self.sid(&Live::default())).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        _changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        // The new statement is added before the old ones are removed: deliveries in between would be lost.
        let mut in_sync = live.statements.iter().filter(|(_, content)| *content == self.statement);
        let keep = in_sync.next().map(|(sid, _)| sid.clone());
        if keep.is_none() {
            self.add(step, &self.sid(live)).await?;
        }
        for (sid, _) in live.statements.iter().filter(|(sid, _)| Some(sid) != keep.as_ref()) {
            self.remove(step, sid).await?;
        }
        Ok(())
    }

    async fn delete(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        for (sid, _) in &live.statements {
            self.remove(step, sid).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{assert_in_sync, declared};

    #[test]
    fn permission_as_created_is_in_sync() {
        assert_in_sync::<Permission>(|spec| Live {
            statements: vec![("any".to_owned(), spec.statement.clone())],
            ..Live::default()
        });
    }

    #[test]
    fn second_statement_with_the_owned_prefix_is_drift() {
        let spec = declared::<Permission>("").remove(0);
        let in_sync = ("one".to_owned(), spec.statement.clone());
        let statements = vec![in_sync, ("two".to_owned(), json!({ "Effect": "Allow" }))];
        let live = Live { statements, ..Live::default() };
        assert_eq!(spec.diff(Some(&live)).len(), 1);
    }

    #[test]
    fn id_of_new_content_differs_from_existing_ids() {
        let spec = declared::<Permission>("").remove(0);
        let existing = spec.sid(&Live::default());
        let live = Live { statements: vec![(existing.clone(), json!({}))], ..Live::default() };
        assert_ne!(spec.sid(&live), existing);
    }
}
