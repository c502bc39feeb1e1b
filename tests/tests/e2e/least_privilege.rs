//! Least privilege: the function needs every action that its role allows.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::pipeline::COUNT_TIMEOUT;
use tests::samples::gzip;

use crate::handler::function_log;
use crate::pipeline;

#[tokio::test]
async fn function_without_any_one_of_its_permissions_counts_nothing() -> Result<()> {
    let pipeline = pipeline()?;
    // The queue repeats a failed notification after six timeouts.
    pipeline.declare("[function]\ntimeout_seconds = 2")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let role = format!("{}-function", pipeline.name);
    let policy = iam.get_role_policy().role_name(&role).policy_name("handler").send().await?.policy_document;
    let policy: Value = serde_json::from_str(&percent_encoding::percent_decode_str(&policy).decode_utf8()?)?;
    let put = async |document: &Value| {
        let request = iam.put_role_policy().role_name(&role).policy_name("handler");
        request.policy_document(document.to_string()).send().await.context("failed to put the policy")
    };

    let statements = policy["Statement"].as_array().context("statements")?;
    let mut tried = 0;
    for (s, statement) in statements.iter().enumerate() {
        for (a, action) in statement["Action"].as_array().context("actions")?.iter().enumerate() {
            let action = action.as_str().context("an action")?;
            // Lambda uses these actions on the function's behalf, and the local AWS does not check them, so their need
            // cannot be tested here.
            let elsewhere = action.starts_with("logs:") || action.starts_with("sqs:");
            // Needed only for versions and for missing objects; the strict local AWS tests them.
            if elsewhere || matches!(action, "s3:GetObjectVersion" | "s3:ListBucket") {
                continue;
            }
            let mut less = policy.clone();
            less["Statement"][s]["Action"].as_array_mut().context("actions")?.remove(a);
            if less["Statement"][s]["Action"] == json!([]) {
                less["Statement"].as_array_mut().context("statements")?.remove(s);
            }
            put(&less).await?;

            let key = format!("segment-logs/x/1/without-{}.gz", action.replace(':', "-"));
            let line = json!({ "type": "track", "event": action, "timestamp": "2015-08-04T12:00:00Z" });
            pipeline.upload(&key, &gzip(line.to_string().as_bytes())).await?;
            let denied =
                async || {
                    Ok::<_, anyhow::Error>(function_log(&pipeline).await?.lines().any(|line| {
                        line.contains(&key) && line.contains("not counted") && line.contains("AccessDenied")
                    }))
                };
            let started = Instant::now();
            while !denied().await? {
                ensure!(
                    started.elapsed() < COUNT_TIMEOUT,
                    "nothing was denied without {action}\n{}",
                    function_log(&pipeline).await?
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tried += 1;
            let counted: u64 = pipeline.counts().await?.values().sum();
            ensure!(counted == tried - 1, "counted without {action}");

            // With the action allowed again, the retry counts the object: nothing was lost or left incomplete.
            put(&policy).await?;
            let started = Instant::now();
            while pipeline.counts().await?.values().sum::<u64>() != tried {
                ensure!(
                    started.elapsed() < COUNT_TIMEOUT,
                    "not counted with all actions allowed\n{}",
                    function_log(&pipeline).await?
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    ensure!(tried == 4, "{tried} actions were tested");
    Ok(())
}
