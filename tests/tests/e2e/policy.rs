//! `provisioner policy`: the printed policies are sufficient and minimal.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::TimeToLiveSpecification;
use aws_sdk_kinesis::types::{StreamMode, StreamModeDetails};
use aws_sdk_s3::types::{
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
};
use serde_json::{Value, json};
use tests::consumer::section;
use tests::local_aws::REGION;
use tests::pipeline::{CommandOutput, Pipeline};

use crate::common::{file_of, remove_notification, s3_notification, wait_for_a_failure};
use crate::strict_kinds::eventually;
use crate::{pipeline, strict_pipeline, verdict};

/// An IAM user with one policy, which can be replaced.
pub(crate) struct User<'a> {
    pipeline: &'a Pipeline<'a>,
    name: &'static str,
    iam: aws_sdk_iam::Client,
    key: aws_sdk_iam::types::AccessKey,
}

impl<'a> User<'a> {
    pub(crate) async fn new(pipeline: &'a Pipeline<'a>, name: &'static str) -> Result<Self> {
        let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
        iam.create_user().user_name(name).send().await?;
        let key = iam.create_access_key().user_name(name).send().await?.access_key.context("a key")?;
        Ok(Self { pipeline, name, iam, key })
    }

    pub(crate) async fn allow(&self, policy: &Value) -> Result<()> {
        self.allow_parts(std::slice::from_ref(policy)).await
    }

    /// Allows what several policies allow together.
    pub(crate) async fn allow_parts(&self, policies: &[Value]) -> Result<()> {
        for (n, policy) in policies.iter().enumerate() {
            let request = self.iam.put_user_policy().user_name(self.name).policy_name(format!("deploy-{n}"));
            request.policy_document(policy.to_string()).send().await?;
        }
        Ok(())
    }

    pub(crate) fn run(&self, args: &[&str]) -> Result<CommandOutput> {
        let mut command = self.pipeline.command(args)?;
        self.sign(&mut command);
        Ok(CommandOutput::of(&command.output()?))
    }

    /// Gives the user's key to a command.
    pub(crate) fn sign(&self, command: &mut Command) {
        command.env("AWS_ACCESS_KEY_ID", &self.key.access_key_id);
        command.env("AWS_SECRET_ACCESS_KEY", &self.key.secret_access_key);
    }
}

/// Restricts a policy to these actions.
fn restrict(policy: &Value, actions: &BTreeSet<String>) -> Value {
    let statements = policy["Statement"].as_array().into_iter().flatten().filter_map(|statement| {
        let all = statement["Action"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let some: Vec<&str> = all.filter(|action| actions.contains(*action)).collect();
        let mut statement = statement.clone();
        statement["Action"] = json!(some);
        (!some.is_empty()).then_some(statement)
    });
    // A policy has at least one statement.
    let nothing = json!({ "Effect": "Allow", "Action": "iam:GetSSHPublicKey", "Resource": "*" });
    json!({ "Version": "2012-10-17", "Statement": statements.chain([nothing]).collect::<Vec<_>>() })
}

fn actions(policy: &Value) -> BTreeSet<String> {
    let statements = policy["Statement"].as_array().into_iter().flatten();
    let actions = statements.flat_map(|statement| statement["Action"].as_array().into_iter().flatten());
    actions.filter_map(|action| action.as_str().map(str::to_owned)).collect()
}

/// Pairs of an action that AWS requires and the one that the local AWS requires instead (Lambda's service authorization
/// reference).
const SUBSTITUTES: [(&str, &str); 4] = [
    ("s3:DeleteObjectVersion", "s3:DeleteObject"),
    ("lambda:GetFunctionEventInvokeConfig", "lambda:GetFunction"),
    ("lambda:PutFunctionEventInvokeConfig", "lambda:UpdateFunctionCode"),
    ("lambda:DeleteFunctionConcurrency", "lambda:PutFunctionConcurrency"),
];

/// Actions that AWS requires and the local AWS does not, so their need cannot be tested here. By AWS's service
/// authorization references, CreateFunction requires `iam:PassRole`, GetFunction `lambda:ListTags` and CreateBucket
/// `s3:TagResource`. The strict local AWS checks them.
const NOT_CHECKED_LOCALLY: [&str; 8] = [
    "iam:PassRole",
    "lambda:DeleteEventSourceMapping",
    "lambda:GetAccountSettings",
    "lambda:ListFunctionUrlConfigs",
    "lambda:ListTags",
    "lambda:UpdateEventSourceMapping",
    "s3:GetBucketAbac",
    "s3:TagResource",
];

/// Actions for cases that these lives do not have: a log group that Lambda made anew, a `verify` that fails, a bucket
/// with access control lists, one with attribute-based access control, capacity units that drift, and a stream of an
/// earlier name.
const OTHER_CASES: [&str; 6] = [
    "application-autoscaling:DescribeScalableTargets",
    "kinesis:ListStreams",
    "logs:DescribeLogStreams",
    "logs:FilterLogEvents",
    "s3:GetBucketAcl",
    "s3:UntagResource",
];

/// Actions that no answer names: GetFunction omits the tags, and the HEAD of a missing object has no body.
const UNNAMED: [&str; 2] = ["lambda:ListTags", "s3:ListBucket"];

/// The declarations that are applied in order: together they use every kind and every way to change one.
const DECLARATIONS: [&str; 3] = [
    "[function]\nmax_concurrency = 3\n[segment]\nworkspace_id = \"abc123\"",
    "[function]\nmemory_mb = 512\nretries = 1\nlog_retention_days = 7\n[notification]\nprefix = \"other/\"\n\
     batch_size = 50\n[table]\nbilling = { read = 5, write = 5 }\npoint_in_time_recovery = false\n\
     [bucket]\nversioning = true\n\
     kms_key = \"AES256\"\n     expire_days = 30\n[tags]\nteam = \"data\"\n[segment]\nworkspace_id = \"other\"",
    "[segment]\nworkspace_id = \"other\"",
];

/// Introduces drift: a change for each setting that no declaration changes.
async fn introduce_drift(pipeline: &Pipeline<'_>, round: usize) -> Result<()> {
    let (sdk, name) = (pipeline.sdk().await?, &pipeline.name);
    let s3 = pipeline.s3().await?;
    // An owned statement that is not declared, next to an unmanaged one or alone: the policy is put, or deleted.
    let statement = |sid: &str| {
        json!({
            "Sid": sid, "Effect": "Deny", "Principal": "*", "Action": "s3:GetObject",
            "Resource": format!("arn:aws:s3:::{name}/none"),
        })
    };
    let mut statements = vec![statement("PipelineDenyPlainHttp")];
    statements.extend((round == 1).then(|| statement("Unmanaged")));
    let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
    s3.put_bucket_policy().bucket(name).policy(policy).send().await?;
    if round > 1 {
        return Ok(());
    }
    s3.delete_public_access_block().bucket(name).send().await?;
    s3.delete_bucket_ownership_controls().bucket(name).send().await?;
    let kms = ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::AwsKms).build()?;
    let rule = ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(kms).build();
    let encryption = ServerSideEncryptionConfiguration::builder().rules(rule).build()?;
    s3.put_bucket_encryption().bucket(name).server_side_encryption_configuration(encryption).send().await?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk);
    let off = TimeToLiveSpecification::builder().attribute_name("expires_at").enabled(false).build()?;
    let request = dynamodb.update_time_to_live().table_name(format!("{name}-ledger"));
    request.time_to_live_specification(off).send().await?;
    let iam = aws_sdk_iam::Client::new(&sdk);
    let role = format!("{name}-function");
    let deny_all = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole",
    }]});
    let more = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*",
    }]});
    iam.update_assume_role_policy().role_name(&role).policy_document(deny_all.to_string()).send().await?;
    iam.update_role().role_name(&role).description("mine").send().await?;
    let managed = iam.create_policy().policy_name("unmanaged").policy_document(more.to_string()).send().await?;
    let arn = managed.policy.and_then(|policy| policy.arn);
    iam.attach_role_policy().role_name(&role).set_policy_arn(arn).send().await?;
    let sqs = aws_sdk_sqs::Client::new(&sdk);
    let url = sqs.get_queue_url().queue_name(format!("{name}-failures")).send().await?.queue_url;
    let short = aws_sdk_sqs::types::QueueAttributeName::MessageRetentionPeriod;
    sqs.set_queue_attributes().set_queue_url(url).attributes(short, "60").send().await?;
    let lambda = aws_sdk_lambda::Client::new(&sdk);
    let function = format!("{name}-handler");
    let request = lambda.add_permission().function_name(&function).statement_id(format!("{name}-s3-wide"));
    request.action("lambda:InvokeFunction").principal("s3.amazonaws.com").send().await?;
    let empty = [b"PK\x05\x06".as_slice(), &[0; 18]].concat();
    lambda.update_function_code().function_name(&function).zip_file(empty.into()).send().await?;
    Ok(())
}

#[tokio::test]
async fn deployer_policy_is_sufficient() -> Result<()> {
    let pipeline = pipeline()?;
    let deployer = User::new(&pipeline, "deployer").await?;
    for (i, declared) in DECLARATIONS.iter().enumerate() {
        pipeline.declare(declared)?;
        let policy = serde_json::from_str(&pipeline.expect(0, &["policy", "--env", "local"])?.out)?;
        ensure!(serde_json::to_string(&policy)?.len() < 6_144, "larger than the limit of a managed policy");
        deployer.allow(&policy).await?;
        if i > 0 {
            introduce_drift(&pipeline, i).await?;
        }
        let applied = deployer.run(&["apply", "--yes", "--prune"])?;
        ensure!(applied.code == Some(0), "{i}: {}\n{}", applied.out, applied.err);
        ensure!(!applied.out.contains("the caller may not"), "{}", applied.out);
        ensure!(!applied.out.contains("user/deployer"), "a plan names its caller: {}", applied.out);
        let plan = deployer.run(&["plan"])?;
        ensure!(verdict(&plan.out)? == "No changes.", "{}", plan.out);
    }
    pipeline.upload("other/x.gz", b"").await?;
    let destroyed = deployer.run(&["destroy", "--yes", "--delete-data"])?;
    ensure!(destroyed.code == Some(0), "{}", destroyed.err);
    Ok(())
}

#[tokio::test]
async fn plan_by_a_restricted_caller_reports_missing_permissions() -> Result<()> {
    let pipeline = pipeline()?;
    let deployer = User::new(&pipeline, "deployer").await?;
    let policy: Value = serde_json::from_str(&pipeline.expect(0, &["policy", "--env", "local"])?.out)?;
    let mut some = actions(&policy);
    for missing in ["sqs:CreateQueue", "lambda:AddPermission", "iam:SimulatePrincipalPolicy"] {
        ensure!(some.remove(missing), "{missing} is not printed");
    }
    deployer.allow(&restrict(&policy, &some)).await?;
    let plan = deployer.run(&["plan"])?;
    ensure!(plan.out.contains("the permissions of the caller were not checked: iam:Sim"), "{}", plan.out);

    let mut policy = restrict(&policy, &some);
    let simulate = json!({ "Effect": "Allow", "Action": "iam:SimulatePrincipalPolicy", "Resource": "*" });
    policy["Statement"].as_array_mut().context("statements")?.push(simulate);
    deployer.allow(&policy).await?;
    let plan = deployer.run(&["plan"])?;
    let denied: Vec<&str> = plan.out.lines().filter(|line| line.contains("the caller lacks")).collect();
    let name = &pipeline.name;
    let note = |address: String, action: &str| format!("note: the caller lacks permissions for {address}: {action}");
    for expected in [
        note(format!("queue {name}-failures"), "sqs:CreateQueue"),
        note(format!("queue {name}-notifications"), "sqs:CreateQueue"),
        note(format!("permission {name}-handler"), "lambda:AddPermission"),
    ] {
        ensure!(denied.contains(&expected.as_str()), "{expected} is not in {}", plan.out);
    }
    ensure!(denied.len() == 3, "{denied:#?}");
    Ok(())
}

#[tokio::test]
async fn deployer_policy_is_minimal() -> Result<()> {
    let pipeline = pipeline()?;
    let unused = unused_by_deployer(&pipeline, &["policy", "--env", "local"]).await?;
    let unused: BTreeSet<&str> = unused.iter().map(String::as_str).collect();
    ensure!(unused == NOT_CHECKED_LOCALLY.into(), "printed, but never required: {unused:?}");
    Ok(())
}

#[tokio::test]
async fn deployer_policy_is_minimal_on_the_strict_aws() -> Result<()> {
    let unused = unused_by_deployer(&strict_pipeline()?, &["policy", "deployer"]).await?;
    ensure!(unused.is_empty(), "printed, but never required: {unused:?}");
    Ok(())
}

/// Lets a deployer who begins without permissions live through all declarations, and returns the printed actions that
/// were never denied.
async fn unused_by_deployer(pipeline: &Pipeline<'_>, policy: &[&'static str]) -> Result<BTreeSet<String>> {
    let mut deployer = Growth::new(User::new(pipeline, "deployer").await?, policy);
    for (i, declared) in DECLARATIONS.iter().enumerate() {
        pipeline.declare(declared)?;
        if i > 0 {
            introduce_drift(pipeline, i).await?;
        }
        deployer.grant_until_success(&["apply", "--yes", "--prune"]).await?;
        if i == 0 {
            deployer.grant_until_success(&["verify", "--timeout", "60"]).await?;
        }
    }
    pipeline.upload("other/x.gz", b"").await?;
    deployer.grant_until_success(&["destroy", "--yes", "--delete-data"]).await?;
    let mut unused = deployer.unused();
    // Denials of these depend on the order in which actions were granted.
    unused.retain(|action| !SUBSTITUTES.iter().any(|(name, _)| name == action) && !OTHER_CASES.contains(&&**action));
    Ok(unused)
}

/// The optional kinds, then other values of their settings, then the first ones without a tag.
fn optional_declarations(pipeline: &Pipeline<'_>) -> [String; 3] {
    let declared = |stream: &str, alarms: &str, tags: &str, consumer: &str| {
        let consumer = section(pipeline, &["Order Completed"], consumer);
        format!(
            "[rollup]\nby = [\"properties.plan\"]\n[stream]\nretention_hours = {stream}\n\
             [alarms]\nemail = \"{alarms}@example.com\"\n{tags}\n{consumer}"
        )
    };
    [
        declared("24", "first", "[tags]\nteam = \"data\"", "batch_size = 7"),
        declared("48", "second", "[tags]\nteam = \"other\"", "batch_size = 9\nretries = 3"),
        declared("24", "first", "", "batch_size = 7"),
    ]
}

/// Introduces drift in the settings of optional kinds that no declaration changes.
async fn introduce_optional_drift(pipeline: &Pipeline<'_>) -> Result<()> {
    let (sdk, name) = (pipeline.sdk().await?, &pipeline.name);
    let arn = |service: &str, resource: String| format!("arn:aws:{service}:{REGION}:{}:{resource}", pipeline.account);
    let provisioned = StreamModeDetails::builder().stream_mode(StreamMode::Provisioned).build()?;
    let request = aws_sdk_kinesis::Client::new(&sdk).update_stream_mode().stream_mode_details(provisioned);
    let request = request.stream_arn(arn("kinesis", format!("stream/{name}-stream")));
    eventually(|| request.clone().send()).await?;
    let nobody = json!({ "Version": "2012-10-17", "Statement": [] }).to_string();
    let request =
        aws_sdk_sns::Client::new(&sdk).set_topic_attributes().attribute_name("Policy").attribute_value(nobody);
    request.topic_arn(arn("sns", format!("{name}-alarms"))).send().await?;
    Ok(())
}

#[tokio::test]
async fn deployer_and_planner_policies_of_optional_kinds_are_minimal_on_the_strict_aws() -> Result<()> {
    let pipeline = strict_pipeline()?;
    let policies: [&[&str]; 2] = [&["policy", "deployer"], &["policy", "planner"]];
    let of_every_pipeline: Vec<BTreeSet<String>> =
        policies.iter().map(|policy| printed_actions(&pipeline, policy)).collect::<Result<_>>()?;
    let mut deployer = Growth::new(User::new(&pipeline, "deployer").await?, policies[0]);
    let mut planner = Growth::new(User::new(&pipeline, "planner").await?, policies[1]);
    deployer.granted.clone_from(&of_every_pipeline[0]);
    planner.granted.clone_from(&of_every_pipeline[1]);
    for (n, declared) in optional_declarations(&pipeline).iter().enumerate() {
        pipeline.declare(declared)?;
        if n > 0 {
            introduce_optional_drift(&pipeline).await?;
        }
        planner.grant_until_success(&["plan"]).await?;
        deployer.grant_until_success(&["apply", "--yes"]).await?;
        planner.grant_until_success(&["plan"]).await?;
    }
    deployer.grant_until_success(&["destroy", "--yes", "--delete-data"]).await?;
    for (who, user) in [("deployer", deployer), ("planner", planner)] {
        let mut unused = user.unused();
        unused.retain(|action| !OTHER_CASES.contains(&&**action));
        ensure!(unused.is_empty(), "printed for the {who}, but never required: {unused:?}");
    }
    Ok(())
}

/// Returns the actions of a printed policy.
fn printed_actions(pipeline: &Pipeline<'_>, policy: &[&str]) -> Result<BTreeSet<String>> {
    Ok(actions(&serde_json::from_str(&pipeline.expect(0, policy)?.out)?))
}

#[tokio::test]
async fn planner_reader_and_operator_policies_are_minimal_on_the_strict_aws() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.declare(
        "[bucket]\nversioning = true\n[function]\nmax_concurrency = 3\nretries = 0\n[segment]\nworkspace_id = \"abc123\"",
    )?;
    let mut planner = Growth::new(User::new(&pipeline, "planner").await?, &["policy", "planner"]);
    planner.grant_until_success(&["plan"]).await?;
    pipeline.expect(0, &["apply", "--yes"])?;
    planner.grant_until_success(&["plan"]).await?;
    let mut unused = planner.unused();
    unused.retain(|action| !OTHER_CASES.contains(&&**action));
    ensure!(unused.is_empty(), "printed for the planner, but never required: {unused:?}");

    let (file, expected) = file_of(3);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await?;
    let mut reader = Growth::new(User::new(&pipeline, "reader").await?, &["policy", "reader"]);
    for args in [
        ["query", "event 1", "--from", "2015-08-04", "--to", "2015-08-05"].as_slice(),
        &["top", "--from", "2015-08-04", "--to", "2015-08-05"],
        &["events"],
    ] {
        reader.grant_until_success(args).await?;
    }
    ensure!(reader.unused().is_empty(), "printed for the reader, but never required: {:?}", reader.unused());

    remove_notification(&pipeline).await?;
    pipeline.upload("segment-logs/x/1/b.gz", &file).await?;
    let mut operator = Growth::new(User::new(&pipeline, "operator").await?, &["policy", "operator"]);
    operator.grant_until_success(&["backfill"]).await?;
    // Reads of the notification are stale for a while.
    let wait_for_status = |code: i32| -> Result<()> {
        let started = std::time::Instant::now();
        while pipeline.run(&["status"])?.code != Some(code) {
            ensure!(started.elapsed() < tests::pipeline::COUNT_TIMEOUT, "the status is never {code}");
        }
        Ok(())
    };
    wait_for_status(3)?;
    pipeline.expect(0, &["apply", "--yes"])?;
    wait_for_status(0)?;
    operator.grant_until_success(&["status"]).await?;
    operator.grant_until_success(&["verify", "--timeout", "60"]).await?;
    operator.grant_until_success(&["pause"]).await?;
    operator.grant_until_success(&["resume"]).await?;
    // SQS makes the messages visible later if the denial of this action leaves them in flight.
    operator.granted.insert("sqs:ChangeMessageVisibility".to_owned());
    for command in [["replay"].as_slice(), &["replay", "--purge", "--yes"]] {
        let mut last = None;
        for round in 0..10 {
            if last.is_some() {
                break;
            }
            // A replay that was denied may have left its messages invisible.
            let key = format!("segment-logs/x/1/broken{round}.gz");
            pipeline.upload(&key, b"\x1f\x8b broken").await?;
            send_failure(&pipeline, &key).await?;
            wait_for_a_failure(&pipeline).await?;
            last = operator.grant_more(command).await?;
        }
        ensure!(last.is_some(), "{command:?} is still denied: {:?}", operator.granted);
    }
    let mut unused = operator.unused();
    // A bucket with versioning needs the actions on versions instead, and the limits of the account are read only if the
    // concurrency of the function is not the declared one.
    unused.retain(|action| !["s3:GetObject", "s3:DeleteObject", "lambda:GetAccountSettings"].contains(&&**action));
    unused.retain(|action| !UNNAMED.contains(&&**action) && !OTHER_CASES.contains(&&**action));
    ensure!(unused.is_empty(), "printed for the operator, but never required: {unused:?}");
    Ok(())
}

/// Sends the notification of an object to the failure queue, as SQS does after its last delivery.
async fn send_failure(pipeline: &Pipeline<'_>, key: &str) -> Result<()> {
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    let mut body = s3_notification(&pipeline.name, &[key]);
    let object = pipeline.s3().await?.head_object().bucket(&pipeline.name).key(key).send().await?;
    if let Some(version) = object.version_id {
        body["Records"][0]["s3"]["object"]["versionId"] = json!(version);
    }
    sqs.send_message().set_queue_url(url).message_body(body.to_string()).send().await?;
    Ok(())
}

/// A user who is granted the actions of a printed policy only as they are denied.
struct Growth<'a> {
    user: User<'a>,
    /// The command that prints the policy.
    policy: &'a [&'static str],
    granted: BTreeSet<String>,
    printed: BTreeSet<String>,
}

impl<'a> Growth<'a> {
    fn new(user: User<'a>, policy: &'a [&'static str]) -> Self {
        Self { user, policy, granted: BTreeSet::new(), printed: BTreeSet::new() }
    }

    /// Returns the printed actions that were never denied.
    fn unused(&self) -> BTreeSet<String> {
        self.printed.difference(&self.granted).cloned().collect()
    }

    /// Runs a command and grants the denied actions, until none is denied and it succeeds.
    async fn grant_until_success(&mut self, command: &[&str]) -> Result<()> {
        for _ in 0..60 {
            if let Some(run) = self.grant_more(command).await? {
                ensure!(run.code == Some(0), "{command:?}: {run:?}");
                return Ok(());
            }
        }
        anyhow::bail!("still denied: {:?}", self.granted)
    }

    /// Runs a command and grants the denied actions. Returns the run if none was denied.
    async fn grant_more(&mut self, command: &[&str]) -> Result<Option<CommandOutput>> {
        let policy: Value = serde_json::from_str(&self.user.pipeline.expect(0, self.policy)?.out)?;
        self.printed.extend(actions(&policy));
        self.user.allow(&restrict(&policy, &self.granted)).await?;
        let run = self.user.run(command)?;
        // A denied search for orphaned resources is not a failure; it is reported in a note.
        let text = format!("{}{}", run.err, run.out);
        let before =
            ["allow the caller ", "or allow ", "failed to look for orphaned resources: ", "caller were not checked: "];
        let denied = before.into_iter().flat_map(|before| text.split(before).skip(1));
        // SQS writes its actions in small letters.
        let spelling = |action: &str| {
            let printed = self.printed.iter().find(|printed| printed.eq_ignore_ascii_case(action));
            printed.map_or_else(|| action.to_owned(), Clone::clone)
        };
        let mut more: BTreeSet<String> = denied
            .filter_map(|rest| rest.split_whitespace().next())
            .map(|action| spelling(action.trim_end_matches(':')))
            .collect();
        for (action, substitute) in SUBSTITUTES {
            if more.contains(action) && self.granted.contains(action) {
                more.insert(substitute.to_owned());
            }
        }
        if more.is_empty() {
            return Ok(Some(run));
        }
        let unknown: Vec<&String> = more.iter().filter(|action| !self.printed.contains(*action)).collect();
        ensure!(unknown.is_empty(), "required, but not printed: {unknown:?}\n{text}");
        ensure!(!more.is_subset(&self.granted), "granted, but still denied: {more:?}\n{text}");
        self.granted.extend(more);
        Ok(None)
    }
}

#[tokio::test]
async fn reader_and_operator_policies_are_sufficient_and_separate() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (file, expected) = file_of(250);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await?;
    remove_notification(&pipeline).await?;
    pipeline.upload("segment-logs/x/1/b.gz", &file).await?;
    let policy = |to: &str| -> Result<Value> {
        Ok(serde_json::from_str(&pipeline.expect(0, &["policy", to, "--env", "local"])?.out)?)
    };
    let reads: [&[&str]; 4] = [
        &["query", "event 7", "--from", "2015-08-04", "--to", "2015-08-05"],
        &["top", "--from", "2015-08-04", "--to", "2015-08-05"],
        &["events"],
        &["dashboard", "--out", "report.html", "--from", "2015-08-04", "--to", "2015-08-05"],
    ];
    let operates: [&[&str]; 7] =
        [&["backfill"], &["replay"], &["status"], &["logs"], &["verify", "--timeout", "30"], &["pause"], &["resume"]];

    let reader = User::new(&pipeline, "reader").await?;
    reader.allow(&policy("reader")?).await?;
    for args in reads {
        let run = reader.run(args)?;
        ensure!(run.code == Some(0), "{args:?}: {run:?}");
    }
    let operator = User::new(&pipeline, "operator").await?;
    operator.allow(&policy("operator")?).await?;
    for args in operates {
        if args[0] == "status" {
            pipeline.expect(0, &["apply", "--yes"])?;
        }
        let run = operator.run(args)?;
        ensure!(run.code == Some(0), "{args:?}: {run:?}");
        let refused = reader.run(args)?;
        let code = if args[0] == "status" { 3 } else { 1 };
        ensure!(refused.code == Some(code) && refused.err.contains("AccessDenied"), "{args:?}: {refused:?}");
    }
    let refused = operator.run(&["events"])?;
    ensure!(refused.code == Some(1) && refused.err.contains("allow the caller dynamodb:Query"), "{refused:?}");
    Ok(())
}
