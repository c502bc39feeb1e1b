//! `provisioner status`: the deployment, recent counts and recent failures.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::common::{file_of, run_json, wait_for_failures};
use crate::pipeline;

#[tokio::test]
async fn status_of_a_working_pipeline_shows_counts_lag_and_failures() -> Result<()> {
    let pipeline = pipeline()?;
    let before = pipeline.expect(1, &["status"])?;
    ensure!(before.err.contains("run `provisioner apply` first"), "{}", before.err);
    pipeline.declare("[function]\nretries = 0")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let fresh = run_json(&pipeline, 0, &["status"])?;
    ensure!(fresh["last_day"]["objects"] == 0 && fresh["failures"] == 0 && fresh["errors"] == json!([]), "{fresh}");
    ensure!(fresh["function"]["state"] == "Active", "{fresh}");

    let (file, expected) = file_of(250);
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.upload("segment-logs/x/1/cut.gz", &file[..file.len() / 2]).await?;
    pipeline.wait_for_counts(&expected).await?;
    wait_for_failures(&pipeline, 1).await?;
    let status = run_json(&pipeline, 0, &["status"])?;
    for span in ["last_hour", "last_day"] {
        let counted = &status[span];
        ensure!(counted["objects"] == 1, "{status}");
        let lags = ["median_seconds", "longest_seconds"].map(|lag| counted[lag].as_i64());
        ensure!(lags[0] == lags[1] && lags[0].is_some_and(|lag| (0..120).contains(&lag)), "{status}");
    }
    ensure!(status["failures"] == 1, "{status}");
    let errors = status["errors"].as_array().context("errors")?;
    ensure!(errors.iter().any(|line| line["message"].to_string().contains("cut.gz")), "{status}");
    let text = pipeline.expect(0, &["status"])?.out;
    ensure!(text.contains("1 object counted, half of them within") && text.contains("replay --dry-run"), "{text}");
    Ok(())
}
