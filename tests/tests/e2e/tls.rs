//! The bucket's policy allows TLS and denies plain HTTP, even to the function.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::local_aws::{LocalAws, Scheme};
use tests::pipeline::Pipeline;
use tests::recount::Counts;
use tests::samples::gzip;

use crate::common::failure_messages;
use crate::{pipeline, verdict};

const REQUIRE: &str = "[bucket]\nrequire_tls = true";

fn file() -> (Vec<u8>, Counts) {
    let line = json!({ "type": "track", "event": "e", "timestamp": "2015-08-04T12:00:00Z" }).to_string();
    (gzip(line.as_bytes()), Counts::from([(("e".to_owned(), "2015-08-04T12:00:00Z".to_owned()), 1)]))
}

#[tokio::test]
async fn pipeline_over_tls_counts() -> Result<()> {
    let aws = LocalAws::start(Scheme::Https)?;
    let pipeline = Pipeline::new(&aws, 0)?;
    pipeline.declare(REQUIRE)?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let plan = pipeline.expect(0, &["plan"])?;
    ensure!(verdict(&plan.out)? == "No changes." && !plan.out.contains("note:"), "{}", plan.out);
    let (file, expected) = file();
    pipeline.upload("segment-logs/x/1/a.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await
}

#[tokio::test]
async fn function_over_plain_http_is_denied_and_the_plan_warns() -> Result<()> {
    let pipeline = pipeline()?;
    // Lambda adds the error to the message of an asynchronous invocation.
    pipeline.declare(&format!("[notification]\nvia = \"function\"\n{REQUIRE}"))?;
    let plan = pipeline.expect(0, &["plan"])?;
    ensure!(plan.out.contains("note: the endpoint uses plain HTTP"), "{}", plan.out);
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.upload("segment-logs/x/1/a.gz", &file().0).await?;
    let failed = failure_messages(&pipeline, 1).await?;
    let payload = &failed[0]["responsePayload"];
    ensure!(
        payload["errorType"] == "ObjectUnreadable" && payload["errorMessage"].to_string().contains("AccessDenied"),
        "{payload}"
    );
    ensure!(pipeline.counts().await?.is_empty(), "counted despite the denial");
    Ok(())
}
