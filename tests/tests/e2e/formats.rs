//! Plans as text, JSON and Markdown, as they were looked at and found good; and what reads them.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::pipeline::Pipeline;

use crate::{pipeline, steps};

/// What differs from run to run, replaced.
fn redacted(pipeline: &Pipeline<'_>, text: &str) -> Result<String> {
    let mut out = text.replace(&pipeline.account, "123456789012").replace(&pipeline.name, "events");
    for line in text.lines() {
        // Hashes end with the padding of base64, and what follows depends on the build.
        for word in line.split(|c: char| c.is_whitespace() || c == '"').filter(|w| w.len() == 44 && w.ends_with('=')) {
            out = out.replace(word, "HASH");
        }
    }
    let lines: Result<Vec<String>> = out.lines().map(without_build).collect();
    Ok(lines?.join("\n"))
}

fn without_build(line: &str) -> Result<String> {
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

/// The plan in all three formats; each is asked for by itself, and the same value is in each.
fn shown(pipeline: &Pipeline<'_>, name: &str, code: i32, more: &[&str]) -> Result<()> {
    let plan = |format: &str| -> Result<String> {
        let ran = pipeline.expect(code, &[&["plan", "--format", format], more].concat())?;
        redacted(pipeline, &ran.out)
    };
    let (text, json, markdown) = (plan("text")?, plan("json")?, plan("markdown")?);
    let document: Value = serde_json::from_str(&json)?;
    let resources = document["resources"].as_array().context("resources")?;
    ensure!(document["format"] == 1 && !resources.is_empty(), "{json}");
    for resource in resources {
        let (kind, of) = (resource["kind"].as_str().unwrap_or_default(), resource["name"].as_str().unwrap_or_default());
        for rendering in [&text, &markdown] {
            ensure!(rendering.contains(&format!("{kind} {of}")), "{kind} {of} is not in {rendering}");
        }
    }
    insta::assert_snapshot!(format!("{name}-text"), text);
    insta::assert_snapshot!(format!("{name}-json"), json);
    insta::assert_snapshot!(format!("{name}-markdown"), markdown);
    Ok(())
}

#[tokio::test]
async fn plans_look_as_they_should() -> Result<()> {
    let pipeline = pipeline()?;
    let estimate = "[estimate]\nevents_per_month = 100000000\nfiles_per_month = 10000";
    pipeline.declare(estimate)?;
    shown(&pipeline, "create", 0, &[])?;
    pipeline.expect(0, &["apply", "--yes"])?;

    pipeline.declare(&format!(
        "{estimate}\n[function]\nmemory_mb = 1024\n[table]\nbilling = {{ read = 5, write = 5 }}\n[tags]\nteam = \"data\"\n\
         [[role.statement]]\nactions = [\"s3:GetObject\"]\nresources = [\"arn:aws:s3:::acme/*\"]"
    ))?;
    shown(&pipeline, "update", 0, &[])?;

    pipeline.declare("")?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    lambda.update_function_configuration().function_name(&function).timeout(3).send().await?;
    let iam = aws_sdk_iam::Client::new(&pipeline.sdk().await?);
    let role = format!("{}-function", pipeline.name);
    iam.delete_role_policy().role_name(&role).policy_name("handler").send().await?;
    shown(&pipeline, "drift", 0, &[])?;
    pipeline.expect(0, &["apply", "--yes"])?;

    pipeline.declare("[function]\nname = \"counter\"")?;
    shown(&pipeline, "orphan", 0, &["--prune"])?;

    pipeline.declare("[table]\nname = \"renamed\"")?;
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    sqs.untag_queue().set_queue_url(url).tag_keys("pipeline").tag_keys("managed-by").send().await?;
    shown(&pipeline, "refusal", 1, &[])?;
    Ok(())
}

#[tokio::test]
async fn an_apply_is_a_stream_of_events() -> Result<()> {
    let pipeline = pipeline()?;
    let lines = |out: &str| -> Result<Vec<Value>> {
        out.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))).collect()
    };
    let applied = pipeline.expect(0, &["apply", "--yes", "--format", "json"])?;
    let events = lines(&applied.out)?;
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    ensure!(events[0]["event"] == "plan" && events[0]["plan"]["counts"]["create"] == 9, "{}", applied.out);
    ensure!(of("started") == 9 && of("done") == 9, "{}", applied.out);
    let last = events.last().context("an event")?;
    ensure!(last["event"] == "finished" && last["done"] == 9 && last["failed"] == 0, "{last}");
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

#[tokio::test]
async fn a_saved_plan_is_done_exactly_or_not_at_all() -> Result<()> {
    let pipeline = pipeline()?;
    let file = pipeline.config().with_file_name("plan.json");
    let path = file.to_str().context("a path")?;
    let save = || pipeline.expect(0, &["plan", "--out", path]);
    let refused = |parts: &[&str]| -> Result<()> {
        let ran = pipeline.expect(1, &["apply", path, "--yes"])?;
        ensure!(ran.err.contains("the plan no longer holds, so nothing was done"), "{}", ran.err);
        ensure!(parts.iter().all(|part| ran.err.contains(part)), "{parts:?} are not in {}", ran.err);
        Ok(())
    };

    save()?;
    let mut command = pipeline.command(&["plan", "--out", path, "--format", "json"])?;
    command.env("AWS_SECRET_ACCESS_KEY", "a-secret-key").env("AWS_SESSION_TOKEN", "a-secret-token");
    let shown = tests::pipeline::Ran::of(&command.output()?);
    let saved = std::fs::read_to_string(&file)?;
    for text in [&saved, &shown.out, &shown.err] {
        ensure!(!text.contains("a-secret") && !text.contains(env!("CARGO_MANIFEST_DIR")), "{text}");
    }
    {
        use std::os::unix::fs::PermissionsExt as _;
        ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "others may read it");
    }
    let applied = pipeline.expect(0, &["apply", path, "--yes"])?;
    ensure!(applied.out.contains("Done: 9 created"), "{}", applied.out);
    refused(&["bucket", "is as declared now"])?;

    // The live state has moved.
    pipeline.declare("[function]\nmemory_mb = 512")?;
    save()?;
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    lambda.update_function_configuration().function_name(&function).memory_size(128).send().await?;
    refused(&["memory_mb was 256, and is 128 now"])?;
    lambda.update_function_configuration().function_name(&function).memory_size(256).timeout(3).send().await?;
    refused(&["timeout_seconds would change now too"])?;
    lambda.update_function_configuration().function_name(&function).timeout(60).send().await?;

    // The declaration has moved; comments have not.
    pipeline.declare("[function]\nmemory_mb = 1024")?;
    refused(&["memory_mb was to become 512, and now 1024"])?;
    pipeline.declare("[function]\nmemory_mb = 512\n[estimate]\nevents_per_month = 5")?;
    refused(&["the declaration"])?;
    pipeline.declare("[function]\nmemory_mb = 512")?;
    let text = std::fs::read_to_string(pipeline.config())?;
    std::fs::write(pipeline.config(), format!("# looked at\n{text}"))?;

    // The artifact has moved.
    let other = pipeline.config().with_file_name("bootstrap");
    let mut bytes = std::fs::read(tests::local_aws::root().join("target/lambda/bootstrap"))?;
    bytes.push(0);
    std::fs::write(&other, bytes)?;
    let artifact = tests::local_aws::root().join("target/lambda/bootstrap");
    let moved = std::fs::read_to_string(pipeline.config())?.replace(&artifact.display().to_string(), "bootstrap");
    let before = std::fs::read_to_string(pipeline.config())?;
    std::fs::write(pipeline.config(), moved)?;
    refused(&[&format!("function {function}: code would change now too")])?;
    std::fs::write(pipeline.config(), before)?;

    // All is as it was: it is done.
    let applied = pipeline.expect(0, &["apply", path, "--yes"])?;
    ensure!(applied.out.contains("Done: 0 created, 1 updated, 0 deleted"), "{}", applied.out);

    // What is no plan is refused as such.
    for (text, why) in [
        ("", "is not a plan"),
        ("{}", "is not a plan"),
        ("{\"provisioner\":\"9.9.9\"}", "was written by version 9.9.9"),
    ] {
        std::fs::write(&file, text)?;
        let ran = pipeline.expect(1, &["apply", path, "--yes"])?;
        ensure!(ran.err.contains(why) && ran.err.contains("plan --out"), "{}", ran.err);
    }
    let ran = pipeline.expect(1, &["plan", "--out", "missing/plan.json"])?;
    ensure!(ran.err.contains("failed to write the plan to missing/plan.json"), "{}", ran.err);
    Ok(())
}

#[tokio::test]
async fn a_saved_plan_keeps_what_it_was_allowed() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    pipeline.declare(&format!("[function]\nfailure_queue = \"{}-lost\"", pipeline.name))?;
    let plan = pipeline.expect(0, &["plan", "--prune", "--out", "plan.json"])?;
    ensure!(steps(&plan.out).iter().any(|step| step.starts_with("  - queue")), "{}", plan.out);
    let applied = pipeline.expect(0, &["apply", "plan.json", "--yes"])?;
    ensure!(applied.out.contains("1 created, 2 updated, 1 deleted"), "{}", applied.out);
    Ok(())
}

#[tokio::test]
async fn what_is_as_declared_is_not_written_to() -> Result<()> {
    use std::time::SystemTime;

    let pipeline = pipeline()?;
    pipeline.declare("[segment]\nworkspace_id = \"abc123\"\n[bucket]\nexpire_days = 30\nversioning = true")?;
    let writes = |since| -> Result<Vec<String>> {
        let calls = pipeline.calls(since)?;
        Ok(calls.into_iter().filter(|call| call.writes).map(|call| call.name).collect())
    };
    // No plan ever writes: of nothing, of what is there, of what has drifted.
    let started = SystemTime::now();
    pipeline.expect(2, &["plan", "--detailed-exitcode"])?;
    ensure!(writes(started)?.is_empty(), "{:?}", writes(started)?);
    ensure!(pipeline.calls(started)?.len() > 9, "no calls were recorded");
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(writes(started)?.len() > 20, "writes are not recorded");

    let started = SystemTime::now();
    pipeline.expect(0, &["plan", "--detailed-exitcode"])?;
    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(writes(started)?.is_empty(), "{:?}", writes(started)?);

    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let function = format!("{}-handler", pipeline.name);
    lambda.update_function_configuration().function_name(&function).timeout(3).send().await?;
    let started = SystemTime::now();
    pipeline.expect(2, &["plan", "--detailed-exitcode", "--adopt", "--prune", "--out", "plan.json"])?;
    ensure!(writes(started)?.is_empty(), "{:?}", writes(started)?);
    Ok(())
}

#[test]
fn schemas_describe_what_is_printed() -> Result<()> {
    let pipeline = pipeline()?;
    let schema = |of: &str| -> Result<Value> { Ok(serde_json::from_str(&pipeline.expect(0, &["schema", of])?.out)?) };
    let plan: Value = serde_json::from_str(&pipeline.expect(0, &["plan", "--format", "json"])?.out)?;
    let folder = tempfile::tempdir()?;
    // The checker is the one that `make check` holds the workflow against its schema with.
    let checked = |schema: &Value, values: &[Value]| -> Result<()> {
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
    checked(&schema("plan")?, &[plan])?;
    let applied = pipeline.expect(0, &["apply", "--yes", "--format", "json"])?.out;
    let lines: Result<Vec<Value>, _> = applied.lines().map(serde_json::from_str).collect();
    checked(&schema("events")?, &lines?)?;
    let file = schema("pipeline")?;
    let shipped = std::fs::read_to_string(tests::local_aws::root().join("pipeline.toml"))?;
    // Every commented-out key too.
    let key = |line: &str| line.contains(" = ") || line.starts_with('[');
    let all = shipped.lines().map(|line| line.strip_prefix("# ").filter(|line| key(line)).unwrap_or(line));
    let all = all.collect::<Vec<_>>().join("\n");
    checked(&file, &[toml::from_str(&shipped)?, toml::from_str(&all)?])?;
    let wrong: Value = toml::from_str("[pipeline]\nname = \"a\"\nregion = 1\n[functoin]\nx = 1\n")?;
    ensure!(checked(&file, &[wrong]).is_err(), "anything goes");
    for shell in ["bash", "zsh", "fish"] {
        ensure!(pipeline.expect(0, &["completions", shell])?.out.contains("detailed-exitcode"), "{shell}");
    }
    Ok(())
}
