//! Resources that others have changed or created, each in a state that only AWS, or the strict local AWS, has; and
//! environments without usable credentials.

use std::fmt::Debug;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::ProvisionedThroughput;
use aws_sdk_lambda::types::{FunctionCode, PackageType};
use aws_sdk_s3::types::{
    AccessControlPolicy, Grant, Grantee, ObjectOwnership, OwnershipControls, OwnershipControlsRule, Permission, Type,
};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};
use tests::local_aws::REGION;
use tests::pipeline::{COUNT_TIMEOUT, CommandOutput, Pipeline};

use crate::policy::User;
use crate::strict::{KEY, assert_in_sync, report};
use crate::{strict_pipeline, verdict};

/// Repeats a call until it succeeds: AWS knows a new resource late, and refuses changes while another is in flight.
pub(crate) async fn eventually<T, E: Debug>(call: impl AsyncFn() -> Result<T, E>) -> Result<T> {
    let started = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => ensure!(started.elapsed() < COUNT_TIMEOUT, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn image_function_of_the_pipeline_is_a_conflict() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let (name, account) = (format!("{}-handler", pipeline.name), &pipeline.account);
    let image = format!("{account}.dkr.ecr.{REGION}.amazonaws.com/counter:latest");
    let request = lambda.create_function().function_name(&name).package_type(PackageType::Image);
    let request = request.code(FunctionCode::builder().image_uri(image).build());
    let trust = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": { "Service": "lambda.amazonaws.com" }, "Action": "sts:AssumeRole",
    }]});
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    iam.create_role().role_name("images").assume_role_policy_document(trust.to_string()).send().await?;
    let request = request.role(format!("arn:aws:iam::{account}:role/images"));
    let request = request.tags("pipeline", &pipeline.name).tags("managed-by", "provisioner");
    eventually(|| request.clone().send()).await?;
    for command in [["plan"].as_slice(), &["apply", "--yes"]] {
        let refused = pipeline.expect(1, command)?;
        let why = format!("function {name} has the package type Image, and Lambda cannot change it to Zip");
        ensure!(refused.err.contains(&why) && refused.out.contains("1 conflict"), "{refused:?}");
    }
    let live = lambda.get_function_configuration().function_name(&name).send().await?;
    ensure!(live.package_type == Some(PackageType::Image), "{live:?}");
    let tables = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?).list_tables().send().await?;
    ensure!(tables.table_names().is_empty(), "apply executed a part of a refused plan: {tables:?}");
    Ok(())
}

/// Registers a table with Application Auto Scaling, for which these tests have no client.
fn register_scalable_table(pipeline: &Pipeline<'_>, table: &str) -> Result<()> {
    let key = format!("AWS4-HMAC-SHA256 Credential={}/20150804/{REGION}", pipeline.account);
    let answer = ureq::post(crate::strict_aws()?.endpoint())
        .header("x-amz-target", "AnyScaleFrontendService.RegisterScalableTarget")
        .header("content-type", "application/x-amz-json-1.1")
        .header("authorization", format!("{key}/application-autoscaling/aws4_request, SignedHeaders=host, Signature=0"))
        .send_json(json!({
            "ServiceNamespace": "dynamodb", "ResourceId": format!("table/{table}"),
            "ScalableDimension": "dynamodb:table:ReadCapacityUnits", "MinCapacity": 5, "MaxCapacity": 50,
        }))
        .context("failed to register the table")?;
    ensure!(answer.status() == 200, "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn units_of_a_scaled_table_are_kept() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare("[table]\nbilling = { read = 5, write = 5 }")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let table = format!("{}-counts", pipeline.name);
    let dynamodb = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    let units = ProvisionedThroughput::builder().read_capacity_units(9).write_capacity_units(5).build()?;
    dynamodb.update_table().table_name(&table).provisioned_throughput(units).send().await?;
    let drifted = pipeline.expect(0, &["plan"])?.out;
    ensure!(drifted.contains("billing.read  9 -> 5"), "{drifted}");
    register_scalable_table(&pipeline, &table)?;
    let plan = assert_in_sync(&pipeline)?;
    let note = format!("table {table}: its capacity units are set by Application Auto Scaling, and are kept");
    ensure!(plan.contains(&note), "{plan}");
    Ok(())
}

#[tokio::test]
async fn tags_beyond_the_limit_are_a_conflict() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let table = format!("{}-counts", pipeline.name);
    let dynamodb = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    let tag = |n: u32| aws_sdk_dynamodb::types::Tag::builder().key(format!("unmanaged-{n}")).value("x").build();
    let arn = format!("arn:aws:dynamodb:{REGION}:{}:table/{table}", pipeline.account);
    let tags: Vec<_> = (0..48).map(tag).collect::<Result<_, _>>()?;
    dynamodb.tag_resource().resource_arn(arn).set_tags(Some(tags)).send().await?;
    assert_in_sync(&pipeline)?;
    pipeline.declare("[tags]\nteam = \"data\"")?;
    let refused = pipeline.expect(1, &["apply", "--yes"])?;
    let why = format!("table {table} has 48 unmanaged tags, and 4 more exceed the 50 that AWS allows");
    ensure!(refused.err.contains(&why) && !refused.out.contains("Done"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn bucket_with_grants_to_others_is_not_adopted() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let (s3, name) = (pipeline.s3().await?, &pipeline.name);
    s3.create_bucket().bucket(name).object_ownership(ObjectOwnership::ObjectWriter).send().await?;
    let rule = OwnershipControlsRule::builder().object_ownership(ObjectOwnership::ObjectWriter).build()?;
    let controls = OwnershipControls::builder().rules(rule).build()?;
    let request = s3.put_bucket_ownership_controls().bucket(name).ownership_controls(controls);
    eventually(|| request.clone().send()).await?;
    let owner = eventually(|| s3.get_bucket_acl().bucket(name).send()).await?.owner.context("an owner")?;
    let delivery = "http://acs.amazonaws.com/groups/s3/LogDelivery";
    let grantee = Grantee::builder().r#type(Type::Group).uri(delivery).build()?;
    let grant = Grant::builder().grantee(grantee).permission(Permission::Write).build();
    let acl = AccessControlPolicy::builder().owner(owner).grants(grant).build();
    let request = s3.put_bucket_acl().bucket(name).access_control_policy(acl);
    eventually(|| request.clone().send()).await?;
    let refused = pipeline.expect(1, &["plan", "--adopt"])?;
    let why = format!("bucket {name} grants access by its access control list to: {delivery}");
    ensure!(refused.err.contains(&why) && refused.err.contains("put-bucket-acl"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn policy_that_lets_in_another_account_is_noted() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (s3, name) = (pipeline.s3().await?, &pipeline.name);
    let other = "arn:aws:iam::210987654321:root";
    let policy = json!({ "Version": "2012-10-17", "Statement": [{
        "Sid": "Unmanaged", "Effect": "Allow", "Principal": { "AWS": other }, "Action": "s3:GetObject",
        "Resource": format!("arn:aws:s3:::{name}/*"),
    }]});
    s3.put_bucket_policy().bucket(name).policy(policy.to_string()).send().await?;
    let plan = assert_in_sync(&pipeline)?;
    let note = format!("note: bucket {name}: its policy lets in AWS:{other}, which is outside the account");
    ensure!(plan.contains(&note), "{plan}");
    Ok(())
}

/// Creates a user that has exactly the printed permissions of a deployer.
pub(crate) async fn deployer<'a>(pipeline: &'a Pipeline<'_>) -> Result<User<'a>> {
    let deployer = User::new(pipeline, "deployer").await?;
    deployer.allow_parts(&printed_parts(pipeline)?).await?;
    Ok(deployer)
}

/// Returns the policies to attach to a deployer: one, or the parts of one that is too long.
fn printed_parts(pipeline: &Pipeline<'_>) -> Result<Vec<Value>> {
    let mut parts = Vec::new();
    loop {
        let part = (parts.len() + 1).to_string();
        let run = pipeline.run(&["policy", "deployer", "--part", &part])?;
        if run.code != Some(0) {
            ensure!(!parts.is_empty() && run.err.contains("the policy has no part"), "{run:?}");
            return Ok(parts);
        }
        ensure!(run.out.split_whitespace().collect::<String>().len() <= 6_144, "{}", run.out);
        parts.push(serde_json::from_str(&run.out)?);
    }
}

fn printed(pipeline: &Pipeline<'_>) -> Result<Value> {
    Ok(serde_json::from_str(&pipeline.expect(0, &["policy", "deployer"])?.out)?)
}

pub(crate) fn succeed(user: &User<'_>, args: &[&str]) -> Result<String> {
    let run = user.run(args)?;
    ensure!(run.code == Some(0), "{args:?}: {run:?}");
    Ok(run.out)
}

/// Asserts that the tagging index has listed a deleted resource.
fn assert_stale_index(pipeline: &Pipeline<'_>) -> Result<()> {
    let fired = &report(pipeline)?["fired"];
    ensure!(fired["get_resources_lists_deleted_resources"].as_u64() > Some(0), "{fired}");
    Ok(())
}

#[tokio::test]
async fn pipeline_is_created_again_although_the_index_lists_the_deleted_one() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let deployer = deployer(&pipeline).await?;
    succeed(&deployer, &["apply", "--yes"])?;
    succeed(&deployer, &["destroy", "--yes", "--delete-data"])?;
    let applied = succeed(&deployer, &["apply", "--yes"])?;
    ensure!(!applied.contains("orphaned"), "{applied}");
    assert_stale_index(&pipeline)?;
    assert_in_sync(&pipeline).map(drop)
}

#[tokio::test]
async fn renamed_resources_are_pruned_with_the_printed_rights_and_a_stale_index() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let deployer = deployer(&pipeline).await?;
    succeed(&deployer, &["apply", "--yes"])?;
    let name = &pipeline.name;
    pipeline.declare(&format!("[function]\nname = \"{name}-counter\"\nfailure_queue = \"{name}-lost\""))?;
    pipeline.expect(0, &["apply", "--yes", "--prune"])?;
    // SQS resolves the name of a deleted queue for a while.
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    eventually(async || {
        let found = sqs.get_queue_url().queue_name(format!("{name}-failures")).send().await;
        if found.is_ok() { Err(found) } else { Ok(()) }
    })
    .await?;
    // The old names are in no statement of this policy.
    deployer.allow(&printed(&pipeline)?).await?;
    let plan = succeed(&deployer, &["plan"])?;
    ensure!(verdict(&plan)? == "No changes." && !plan.contains("note:"), "{plan}");
    assert_stale_index(&pipeline)
}

#[tokio::test]
async fn table_deleted_by_hand_is_created_again() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let deployer = deployer(&pipeline).await?;
    succeed(&deployer, &["apply", "--yes"])?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    let table = format!("{}-counts", pipeline.name);
    let request = dynamodb.update_table().table_name(&table).deletion_protection_enabled(false);
    request.send().await?;
    eventually(|| dynamodb.delete_table().table_name(&table).send()).await?;
    let applied = succeed(&deployer, &["apply", "--yes"])?;
    ensure!(applied.contains(&format!("  + table {table}")), "{applied}");
    assert_in_sync(&pipeline).map(drop)
}

#[tokio::test]
async fn log_group_that_lambda_made_anew_is_owned() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.expect(0, &["destroy", "--yes", "--delete-data"])?;
    let logs = aws_sdk_cloudwatchlogs::Client::new(&pipeline.sdk().await?);
    let group = format!("/aws/lambda/{}-handler", pipeline.name);
    logs.create_log_group().log_group_name(&group).send().await?;
    let refused = pipeline.expect(1, &["plan"])?;
    ensure!(refused.err.contains(&format!("log group {group} exists and is unmanaged")), "{refused:?}");
    let stream = "2015/08/04/[$LATEST]0123456789abcdef";
    logs.create_log_stream().log_group_name(&group).log_stream_name(stream).send().await?;
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(&pipeline).map(drop)
}

#[tokio::test]
async fn queue_with_an_undeclared_key_is_a_problem_until_it_is_declared() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    let request = sqs.set_queue_attributes().set_queue_url(url);
    request.attributes(QueueAttributeName::KmsMasterKeyId, KEY).send().await?;
    let plan = pipeline.expect(2, &["plan", "--detailed-exitcode"])?.out;
    ensure!(verdict(&plan)?.ends_with("1 problem.") && plan.contains("failure_queue_kms_key"), "{plan}");
    pipeline.declare(&format!("[function]\nfailure_queue_kms_key = \"{KEY}\""))?;
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(&pipeline).map(drop)
}

#[tokio::test]
async fn role_tag_in_another_case_is_replaced() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let role = format!("{}-function", pipeline.name);
    let tag = aws_sdk_iam::types::Tag::builder().key("Team").value("others").build()?;
    iam.tag_role().role_name(&role).tags(tag).send().await?;
    pipeline.declare("[tags]\nteam = \"data\"")?;
    let plan = pipeline.expect(0, &["plan"])?.out;
    ensure!(plan.contains("tags.team          \"others\" -> \"data\""), "{plan}");
    pipeline.expect(0, &["apply", "--yes"])?;
    assert_in_sync(&pipeline)?;
    let tags = iam.list_role_tags().role_name(&role).send().await?.tags;
    let teams: Vec<_> = tags.iter().filter(|tag| tag.key.eq_ignore_ascii_case("team")).collect();
    ensure!(matches!(teams.as_slice(), [tag] if tag.value == "data"), "{teams:?}");
    Ok(())
}

#[tokio::test]
async fn local_environment_with_the_endpoint_of_one_service_is_refused_before_any_call() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let listener = TcpListener::bind("127.0.0.1:0").context("no port")?;
    listener.set_nonblocking(true)?;
    let url = format!("http://{}", listener.local_addr()?);
    let mut command = pipeline.command(&["plan", "--env", "local"])?;
    command.env_remove("AWS_ENDPOINT_URL").env("AWS_ENDPOINT_URL_S3", &url).env("HTTPS_PROXY", &url);
    let run = CommandOutput::of(&command.output()?);
    ensure!(run.code == Some(1) && run.out.is_empty(), "{run:?}");
    let why = "the environment `local` requires an endpoint of a local AWS for ";
    ensure!(run.err.contains(why) && run.err.contains("DYNAMODB") && run.err.contains("STS"), "{}", run.err);
    let caller = listener.accept();
    ensure!(matches!(&caller, Err(error) if error.kind() == ErrorKind::WouldBlock), "a call was made: {caller:?}");
    Ok(())
}

/// Runs a plan with the profile `work` of an AWS configuration file, and no other credentials.
fn plan_as_profile(pipeline: &Pipeline<'_>, file: &str, endpoint: Option<&str>) -> Result<CommandOutput> {
    let path = pipeline.config().with_file_name("aws-config");
    std::fs::write(&path, file)?;
    let mut command = pipeline.command(&["plan"])?;
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command.env("AWS_CONFIG_FILE", &path).env("AWS_PROFILE", "work");
    if let Some(endpoint) = endpoint {
        command.env("AWS_ENDPOINT_URL", endpoint);
    }
    Ok(CommandOutput::of(&command.output()?))
}

/// Returns the causes in the error of a run without credentials: the indented lines, each of which is another one.
fn causes(run: &CommandOutput) -> Result<Vec<&str>> {
    ensure!(run.code == Some(1) && run.out.is_empty(), "{run:?}");
    let first = "error: failed to read the identity of the caller: no AWS credentials were found, profile work\n";
    let rest = run.err.strip_prefix(first).with_context(|| run.err.clone())?;
    let causes: Vec<&str> = rest.lines().map_while(|line| line.strip_prefix("  ")).collect();
    let known: std::collections::BTreeSet<&&str> = causes.iter().collect();
    ensure!(known.len() == causes.len(), "a cause is repeated: {}", run.err);
    Ok(causes)
}

#[tokio::test]
async fn profile_that_asks_for_an_mfa_code_is_explained() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let listener = TcpListener::bind("127.0.0.1:0").context("no port")?;
    let url = format!("http://{}", listener.local_addr()?);
    // The answer of STS if the role's trust policy demands a code.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let body = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User may not assume \
                        the role</Message></Error><RequestId>1</RequestId></ErrorResponse>";
            let head = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length";
            let _ = write!(stream, "{head}: {}\r\n\r\n{body}", body.len());
        }
    });
    let file = "[profile base]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = x\n\
                [profile work]\nsource_profile = base\nrole_arn = arn:aws:iam::123456789012:role/deploy\n\
                mfa_serial = arn:aws:iam::123456789012:mfa/me\nregion = us-east-1\n";
    let run = plan_as_profile(&pipeline, file, Some(&url))?;
    let causes = causes(&run)?;
    ensure!(causes.contains(&"AccessDenied: User may not assume the role"), "{}", run.err);
    ensure!(run.err.contains("\nhelp: the profile work asks for an MFA code (mfa_serial)"), "{}", run.err);
    ensure!(run.err.contains("aws configure export-credentials --profile work"), "{}", run.err);
    Ok(())
}

#[tokio::test]
async fn profile_without_an_sso_token_is_explained() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let file = "[profile work]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = deploy\n\
                [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://corp.awsapps.com/start\n";
    let run = plan_as_profile(&pipeline, file, None)?;
    ensure!(causes(&run)?.contains(&"failed to load the cached SSO token"), "{}", run.err);
    ensure!(run.err.ends_with("\nhelp: sign in: aws sso login --profile work\n"), "{}", run.err);
    Ok(())
}
