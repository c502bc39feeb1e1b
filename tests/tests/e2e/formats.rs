//! Plans as text, JSON and Markdown, compared with reviewed snapshots; the event stream of `apply`; JSON schemas.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::pipeline::{Pipeline, RESOURCES};

use crate::pipeline;

/// Replaces everything that differs from run to run.
fn redact(pipeline: &Pipeline<'_>, text: &str) -> Result<String> {
    let mut out = text.replace(&pipeline.account, "123456789012").replace(&pipeline.name, "events");
    for line in text.lines() {
        // A hash ends with base64 padding, and the text after it depends on the build.
        for word in line.split(|c: char| c.is_whitespace() || c == '"').filter(|w| w.len() == 44 && w.ends_with('=')) {
            out = out.replace(word, "HASH");
        }
    }
    let lines: Result<Vec<String>> = out.lines().map(redact_build).collect();
    Ok(lines?.join("\n"))
}

fn redact_build(line: &str) -> Result<String> {
    let trimmed = line.trim_start();
    for key in ["\"bytes\": ", "\"revision\": "] {
        if trimmed.starts_with(key) {
            let comma = if line.ends_with(',') { "," } else { "" };
            return Ok(format!("{}{key}0{comma}", &line[..line.len() - trimmed.len()]));
        }
    }
    let mut line = line.to_owned();
    let mut from = 0;
    while let Some(at) = line[from..].find("HASH (").map(|at| from + at) {
        let end = line[at..].find(')').context("an open parenthesis")? + at;
        line.replace_range(at..=end, "HASH (BUILD)");
        from = at + 4;
    }
    Ok(line)
}

/// Compares the plan in each of the three formats with its snapshot, and checks that all contain the same resources.
fn snapshot_plan(pipeline: &Pipeline<'_>, name: &str, code: i32, more: &[&str]) -> Result<()> {
    let plan = |format: &str| -> Result<String> {
        let run = pipeline.expect(code, &[&["plan", "--format", format], more].concat())?;
        redact(pipeline, &run.out)
    };
    let (text, json, markdown) = (plan("text")?, plan("json")?, plan("markdown")?);
    let document: Value = serde_json::from_str(&json)?;
    let resources = document["resources"].as_array().context("resources")?;
    ensure!(document["format"] == 1 && !resources.is_empty(), "{json}");
    for resource in resources {
        let text_of = |key: &str| resource[key].as_str().unwrap_or_default();
        let address = format!("{} {}", text_of("kind"), text_of("name"));
        for rendering in [&text, &markdown] {
            ensure!(rendering.contains(&address), "{address} is not in {rendering}");
        }
    }
    insta::assert_snapshot!(format!("{name}-text"), text);
    insta::assert_snapshot!(format!("{name}-json"), json);
    insta::assert_snapshot!(format!("{name}-markdown"), markdown);
    Ok(())
}

#[tokio::test]
async fn plan_in_each_format_matches_its_snapshot() -> Result<()> {
    let pipeline = pipeline()?;
    let estimate = "[estimate]\nevents_per_month = 100000000\nfiles_per_month = 10000";
    pipeline.declare(estimate)?;
    snapshot_plan(&pipeline, "create", 0, &[])?;
    pipeline.expect(0, &["apply", "--yes"])?;

    pipeline.declare(&format!(
        "{estimate}\n[function]\nmemory_mb = 1024\n[table]\nbilling = {{ read = 5, write = 5 }}\n[tags]\nteam = \"data\"\n\
         [[role.statement]]\nactions = [\"s3:GetObject\"]\nresources = [\"arn:aws:s3:::acme/*\"]"
    ))?;
    snapshot_plan(&pipeline, "update", 0, &[])?;

    pipeline.declare("")?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    lambda.update_function_configuration().function_name(&function).timeout(3).send().await?;
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let role = format!("{}-function", pipeline.name);
    iam.delete_role_policy().role_name(&role).policy_name("handler").send().await?;
    snapshot_plan(&pipeline, "drift", 0, &[])?;
    pipeline.expect(0, &["apply", "--yes"])?;

    pipeline.declare("[function]\nname = \"counter\"")?;
    snapshot_plan(&pipeline, "orphan", 0, &["--prune"])?;

    pipeline.declare("[table]\nname = \"renamed\"")?;
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    sqs.untag_queue().set_queue_url(url).tag_keys("pipeline").tag_keys("managed-by").send().await?;
    snapshot_plan(&pipeline, "refusal", 1, &[])?;
    Ok(())
}

#[tokio::test]
async fn apply_as_json_is_a_stream_of_events() -> Result<()> {
    let pipeline = pipeline()?;
    let lines = |out: &str| -> Result<Vec<Value>> {
        out.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))).collect()
    };
    let applied = pipeline.expect(0, &["apply", "--yes", "--format", "json"])?;
    let events = lines(&applied.out)?;
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    ensure!(events[0]["event"] == "plan" && events[0]["plan"]["counts"]["create"] == RESOURCES, "{}", applied.out);
    ensure!(of("started") == RESOURCES && of("done") == RESOURCES, "{}", applied.out);
    let last = events.last().context("an event")?;
    ensure!(last["event"] == "finished" && last["done"] == RESOURCES && last["failed"] == 0, "{last}");
    ensure!(applied.err.is_empty(), "{}", applied.err);

    let again = lines(&pipeline.expect(0, &["apply", "--yes", "--format", "json"])?.out)?;
    ensure!(again.len() == 2 && again[1]["done"] == 0, "{again:?}");

    for n in 0..5 {
        pipeline.upload(&format!("other/{n}"), b"").await?;
    }
    let destroyed = lines(&pipeline.expect(0, &["destroy", "--yes", "--delete-data", "--format", "json"])?.out)?;
    let progress = destroyed.iter().find(|event| event["event"] == "progress").context("no progress")?;
    ensure!(progress["done"] == 5 && progress["total"] == 5 && progress["kind"] == "bucket", "{progress}");
    Ok(())
}

#[test]
fn schemas_accept_the_printed_documents() -> Result<()> {
    let pipeline = pipeline()?;
    let schema = |document: &str| -> Result<Value> {
        Ok(serde_json::from_str(&pipeline.expect(0, &["schema", document])?.out)?)
    };
    let plan: Value = serde_json::from_str(&pipeline.expect(0, &["plan", "--format", "json"])?.out)?;
    let folder = tempfile::tempdir()?;
    // `make check` validates the workflow with the same program.
    let validate = |schema: &Value, values: &[Value]| -> Result<()> {
        let path = folder.path().join("schema.json");
        std::fs::write(&path, schema.to_string())?;
        let mut checker = Command::new(tests::local_aws::root().join(".venv/bin/check-jsonschema"));
        checker.arg("--schemafile").arg(&path);
        for (i, value) in values.iter().enumerate() {
            let path = folder.path().join(format!("{i}.json"));
            std::fs::write(&path, value.to_string())?;
            checker.arg(path);
        }
        let output = checker.output().context("check-jsonschema is not installed: run `make venv`")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    };
    validate(&schema("plan")?, &[plan])?;
    let applied = pipeline.expect(0, &["apply", "--yes", "--format", "json"])?.out;
    let lines: Result<Vec<Value>, _> = applied.lines().map(serde_json::from_str).collect();
    validate(&schema("apply")?, &lines?)?;
    let file = schema("pipeline")?;
    let shipped = std::fs::read_to_string(tests::local_aws::root().join("pipeline.toml"))?;
    // Every commented-out key is valid too.
    let key = |line: &str| line.contains(" = ") || line.starts_with('[');
    let all = shipped.lines().map(|line| line.strip_prefix("# ").filter(|line| key(line)).unwrap_or(line));
    let all = all.collect::<Vec<_>>().join("\n");
    validate(&file, &[toml::from_str(&shipped)?, toml::from_str(&all)?])?;
    let wrong: Value = toml::from_str("[pipeline]\nname = \"a\"\nregion = 1\n[functoin]\nx = 1\n")?;
    ensure!(validate(&file, &[wrong]).is_err(), "the schema accepts an invalid file");
    Ok(())
}
