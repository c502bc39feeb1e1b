//! `provisioner status`: the deployment, recent counts and recent failures, and whether the pipeline counts.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::common::{file_of, remove_notification, run_json, wait_for_failures};
use crate::policy::User;
use crate::{pipeline, strict_pipeline};

#[tokio::test]
async fn status_of_a_working_pipeline_shows_counts_lag_and_failures() -> Result<()> {
    let pipeline = pipeline()?;
    let before = pipeline.expect(3, &["status"])?;
    ensure!(before.err.contains("run `provisioner apply` first"), "{}", before.err);
    ensure!(before.out.contains(&format!("FAILED   bucket {}: missing", pipeline.name)), "{}", before.out);
    pipeline.declare("[notification]\nvia = \"function\"\n[function]\nretries = 0")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let fresh = run_json(&pipeline, 0, &["status"])?;
    ensure!(fresh["last_day"]["objects"] == 0 && fresh["failures"] == 0 && fresh["errors"] == json!([]), "{fresh}");
    ensure!(fresh["function"]["state"] == "Active", "{fresh}");
    ensure!(fresh["is_working"] == true && fresh["findings"] == json!([]), "{fresh}");

    let (file, expected) = file_of(250);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.upload("segment-logs/x/1/cut.gz", &file[..file.len() / 2]).await?;
    pipeline.wait_for_counts(&expected).await?;
    wait_for_failures(&pipeline, 1).await?;
    let status = run_json(&pipeline, 3, &["status"])?;
    for span in ["last_hour", "last_day"] {
        let counted = &status[span];
        ensure!(counted["objects"] == 1, "{status}");
        let lags = ["median_seconds", "longest_seconds"].map(|lag| counted[lag].as_i64());
        ensure!(lags[0] == lags[1] && lags[0].is_some_and(|lag| (0..120).contains(&lag)), "{status}");
    }
    ensure!(status["failures"] == 1, "{status}");
    let errors = status["errors"].as_array().context("errors")?;
    ensure!(errors.iter().any(|line| line["message"].to_string().contains("cut.gz")), "{status}");
    let text = pipeline.expect(3, &["status"])?.out;
    ensure!(text.contains("FAILED   failures: 1 in queue") && text.contains("FAILED   errors:"), "{text}");
    ensure!(text.contains("1 object counted, half of them within") && text.contains("replay --dry-run"), "{text}");
    Ok(())
}

/// Returns the subjects of the findings with this result.
fn subjects(status: &Value, result: &str) -> Vec<String> {
    let findings = status["findings"].as_array().into_iter().flatten();
    let subjects = findings.filter(|finding| finding["result"] == result);
    subjects.filter_map(|finding| finding["subject"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn status_of_a_broken_chain_names_the_broken_part() -> Result<()> {
    let pipeline = pipeline()?;
    let name = &pipeline.name;
    pipeline.expect(0, &["apply", "--yes"])?;
    run_json(&pipeline, 0, &["status"])?;

    remove_notification(&pipeline).await?;
    let status = run_json(&pipeline, 3, &["status"])?;
    ensure!(subjects(&status, "failed") == [format!("notification {name}")], "{status}");
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{name}-handler");
    let policy = lambda.get_policy().function_name(&function).send().await?.policy.context("a policy")?;
    let policy: Value = serde_json::from_str(&policy)?;
    let sid = policy["Statement"][0]["Sid"].as_str().context("a statement")?.to_owned();
    lambda.remove_permission().function_name(&function).statement_id(sid).send().await?;
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let role = format!("{name}-function");
    iam.delete_role_policy().role_name(&role).policy_name("handler").send().await?;
    let status = run_json(&pipeline, 3, &["status"])?;
    ensure!(subjects(&status, "failed").len() == 3, "{status}");

    // A difference that counting does not need is drift, but no failure.
    pipeline.expect(0, &["apply", "--yes"])?;
    lambda.update_function_configuration().function_name(&function).memory_size(512).send().await?;
    run_json(&pipeline, 0, &["status"])?;
    lambda.delete_function().function_name(&function).send().await?;
    let text = pipeline.expect(3, &["status"])?.out;
    ensure!(text.contains(&format!("FAILED   function {function}: missing")), "{text}");
    Ok(())
}

#[tokio::test]
async fn status_without_permissions_is_unknown_and_not_absent() -> Result<()> {
    let pipeline = strict_pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let user = User::new(&pipeline, "visitor").await?;
    user.allow(&json!({
        "Version": "2012-10-17",
        "Statement": [{ "Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*" }],
    }))
    .await?;
    let run = user.run(&["status", "--format", "json"])?;
    let status: Value = serde_json::from_str(&run.out)?;
    ensure!(run.code == Some(3) && subjects(&status, "failed").is_empty(), "{run:?}");
    ensure!(subjects(&status, "unknown").len() > 10 && status["is_working"] == false, "{status}");
    Ok(())
}
