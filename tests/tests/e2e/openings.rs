//! Resources that others have opened, or made beforehand, are refused or noted, and are never taken unasked.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use aws_sdk_lambda::types::FunctionUrlAuthType;
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::json;
use tests::pipeline::Pipeline;

use crate::{pipeline, verdict};

const OTHER: &str = "210987654321";

/// The clients, and the names and ARNs of what the tests open.
struct Opener {
    lambda: aws_sdk_lambda::Client,
    sqs: aws_sdk_sqs::Client,
    dynamodb: aws_sdk_dynamodb::Client,
    function: String,
    queue_url: String,
    queue_arn: String,
    table_arn: String,
}

impl Opener {
    async fn new(pipeline: &Pipeline<'_>) -> Result<Self> {
        let (sdk, name, account) = (pipeline.sdk().await?, &pipeline.name, &pipeline.account);
        let sqs = aws_sdk_sqs::Client::new(&sdk);
        let queue = sqs.get_queue_url().queue_name(format!("{name}-failures")).send().await?;
        Ok(Self {
            lambda: aws_sdk_lambda::Client::new(&sdk),
            dynamodb: aws_sdk_dynamodb::Client::new(&sdk),
            sqs,
            function: format!("{name}-handler"),
            queue_url: queue.queue_url.context("a URL")?,
            queue_arn: format!("arn:aws:sqs:us-east-1:{account}:{name}-failures"),
            table_arn: format!("arn:aws:dynamodb:us-east-1:{account}:table/{name}-counts"),
        })
    }

    async fn permit(&self, id: &str, principal: &str, qualifier: Option<&str>) -> Result<()> {
        let request = self.lambda.add_permission().function_name(&self.function).statement_id(id);
        let request = request.action("lambda:InvokeFunction").principal(principal);
        request.set_qualifier(qualifier.map(str::to_owned)).send().await?;
        Ok(())
    }

    async fn forbid(&self, id: &str, qualifier: Option<&str>) -> Result<()> {
        let request = self.lambda.remove_permission().function_name(&self.function).statement_id(id);
        request.set_qualifier(qualifier.map(str::to_owned)).send().await?;
        Ok(())
    }

    async fn set_queue_policy(&self, principal: Option<&str>) -> Result<()> {
        let policy = principal.map_or_else(String::new, |principal| {
            json!({ "Version": "2012-10-17", "Statement": [{ "Sid": "open", "Effect": "Allow",
                "Principal": { "AWS": principal }, "Action": "sqs:SendMessage", "Resource": self.queue_arn }] })
            .to_string()
        });
        let attributes = HashMap::from([(QueueAttributeName::Policy, policy)]);
        self.sqs.set_queue_attributes().queue_url(&self.queue_url).set_attributes(Some(attributes)).send().await?;
        Ok(())
    }

    async fn set_table_policy(&self, principal: &str) -> Result<()> {
        let policy = json!({ "Version": "2012-10-17", "Statement": [{ "Sid": "open", "Effect": "Allow",
            "Principal": { "AWS": principal }, "Action": "dynamodb:PutItem", "Resource": self.table_arn }] });
        let request = self.dynamodb.put_resource_policy().resource_arn(&self.table_arn);
        request.policy(policy.to_string()).send().await?;
        Ok(())
    }
}

#[tokio::test]
async fn resource_open_to_others_is_refused_with_its_remedy() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let opener = Opener::new(&pipeline).await?;
    opener.permit("everyone", "*", None).await?;
    opener.set_queue_policy(Some("*")).await?;
    opener.set_table_policy(OTHER).await?;

    for command in [&["plan"][..], &["apply", "--yes"], &["plan", "--adopt"]] {
        let run = pipeline.expect(1, command)?;
        ensure!(run.out.contains("Plan refused: 3 conflicts. Nothing was changed."), "{}", run.out);
        for part in [
            "* (lambda:InvokeFunction)",
            "aws lambda remove-permission --function-name",
            "AWS:* (sqs:SendMessage)",
            "aws sqs set-queue-attributes",
            "AWS:210987654321 (dynamodb:PutItem)",
            "aws dynamodb delete-resource-policy",
        ] {
            ensure!(run.out.contains(part) || run.err.contains(part), "{part} is not in {}\n{}", run.out, run.err);
        }
    }
    opener.forbid("everyone", None).await?;
    opener.set_queue_policy(None).await?;
    opener.dynamodb.delete_resource_policy().resource_arn(&opener.table_arn).send().await?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "still open");
    Ok(())
}

#[tokio::test]
async fn url_alias_and_version_open_to_others_are_refused() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let opener = Opener::new(&pipeline).await?;
    let (lambda, function) = (&opener.lambda, &opener.function);
    lambda.create_function_url_config().function_name(function).auth_type(FunctionUrlAuthType::None).send().await?;
    let refused = pipeline.expect(1, &["plan"])?;
    ensure!(refused.out.contains("a URL without sign-in"), "{}", refused.out);
    let request = lambda.update_function_url_config().function_name(function);
    request.auth_type(FunctionUrlAuthType::AwsIam).send().await?;
    let noted = pipeline.expect(0, &["plan"])?.out;
    ensure!(noted.contains("unmanaged URLs") && verdict(&noted)? == "No changes.", "{noted}");

    let version = lambda.publish_version().function_name(function).send().await?.version.context("a version")?;
    lambda.create_alias().function_name(function).name("live").function_version(&version).send().await?;
    for qualifier in [version.as_str(), "live"] {
        opener.permit("other", OTHER, Some(qualifier)).await?;
        let refused = pipeline.expect(1, &["plan"])?;
        ensure!(refused.out.contains("(lambda:InvokeFunction)"), "{qualifier}: {}", refused.out);
        opener.forbid("other", Some(qualifier)).await?;
        pipeline.expect(0, &["plan"])?;
    }
    Ok(())
}

#[tokio::test]
async fn opening_within_the_account_is_noted_and_kept() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let opener = Opener::new(&pipeline).await?;
    opener.permit("own", &pipeline.account, None).await?;
    opener.set_queue_policy(Some(&pipeline.account)).await?;
    opener.set_table_policy(&pipeline.account).await?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(verdict(&plan)? == "No changes.", "{plan}");
    let notes = plan.matches("its policy, which is unmanaged and kept, lets in").count();
    ensure!(notes == 3, "{plan}");
    Ok(())
}

#[tokio::test]
async fn resource_made_beforehand_with_the_pipelines_tags_is_taken_only_with_adopt() -> Result<()> {
    let pipeline = pipeline()?;
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let request = sqs.create_queue().queue_name(format!("{}-failures", pipeline.name));
    request.tags("pipeline", &pipeline.name).tags("managed-by", "provisioner").send().await?;
    for command in [&["plan"][..], &["apply", "--yes"]] {
        let run = pipeline.expect(1, command)?;
        ensure!(run.out.contains("existed before this pipeline's first apply"), "{}", run.out);
        ensure!(run.out.contains("1 conflict. Nothing was changed."), "{}", run.out);
    }
    pipeline.expect(0, &["apply", "--yes", "--adopt"])?;
    ensure!(verdict(&pipeline.expect(0, &["plan"])?.out)? == "No changes.", "not in sync after adoption");
    Ok(())
}
