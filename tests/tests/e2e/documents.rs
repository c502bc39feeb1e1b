//! The documents: every command in them works, in their order, with the declarations between them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::local_aws::{REGION, built_program, root};
use tests::pipeline::{CommandOutput, Pipeline, counts};
use tests::recount::Counts;
use tests::samples::gzip;

use crate::common::{HOUR, remove_notification, s3_notification, track};
use crate::pipeline;

/// A block of a document.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    /// Lines of pipeline.toml.
    Declaration(String),
    /// Commands, with their continued lines.
    Commands(String),
}

/// Returns the declarations and commands of a document: its indented blocks that begin with a section or a prompt. A fenced
/// block is for other programs.
fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            lines.by_ref().take_while(|line| !line.starts_with("```")).for_each(drop);
        }
        let Some(first) = line.strip_prefix("    ") else { continue };
        let mut block = vec![first.to_owned()];
        // A blank line between two indented ones belongs to the block, unless the other kind follows.
        while let Some(next) = lines.next_if(|next| next.starts_with("    ") || next.is_empty()) {
            block.push(next.strip_prefix("    ").unwrap_or_default().to_owned());
        }
        let mut commands = String::new();
        let mut declaration = String::new();
        let mut is_command = false;
        for line in &block {
            if let Some(command) = line.strip_prefix("$ ") {
                is_command = true;
                commands.push_str(&format!("{command}\n"));
            } else if is_command && line.starts_with("  ") {
                // A continued line.
                commands.push_str(&format!("{line}\n"));
            } else {
                is_command = false;
                declaration.push_str(&format!("{line}\n"));
            }
        }
        if declaration.starts_with('[') {
            blocks.push(Block::Declaration(declaration));
        }
        if !commands.is_empty() {
            blocks.push(Block::Commands(commands));
        }
    }
    blocks
}

/// Merges a declaration into pipeline.toml: a section that is there gets or replaces keys, another one is added.
const DECLARE: &str = r#"
import sys
lines = open("pipeline.toml").read().splitlines()
for line in sys.stdin.read().splitlines():
    if line.startswith("["):
        if line.startswith("[[") or line not in lines:
            lines += ["", line]
            at = len(lines)
        else:
            at = lines.index(line) + 1
    elif line.strip():
        key = line.split("=")[0].strip()
        end = next((n for n in range(at, len(lines)) if lines[n].startswith("[")), len(lines))
        old = [n for n in range(at, end) if lines[n].split("=")[0].strip() == key]
        if old:
            lines[old[0]] = line
        else:
            lines.insert(at, line)
            at += 1
open("pipeline.toml", "w").write("\n".join(lines) + "\n")
"#;

/// Prints the member at a path, as `jq` does, which is not installed everywhere.
const JQ: &str = r#"
import functools, json, sys
path, *files = [word for word in sys.argv[1:] if word != "-r"]
found = json.load(open(files[0]) if files else sys.stdin)
found = functools.reduce(lambda value, name: value[name], path.strip(".").split("."), found)
print(found if isinstance(found, str) else json.dumps(found))
"#;

/// Runs the commands of documents, as the account's root. Names and accounts are those of the pipeline, and of another
/// account that only it uses. A declaration is merged into the file.
fn run(pipeline: &Pipeline<'_>, documents: &[&str]) -> Result<CommandOutput> {
    let other_account = pipeline.account.replacen('1', "2", 1);
    let read =
        |name: &&str| std::fs::read_to_string(root().join(name)).with_context(|| format!("failed to read {name}"));
    let text = documents.iter().map(read).collect::<Result<String>>()?;
    let text = text.replace("acme-segment-events", &pipeline.name).replace("segment-events", &pipeline.name);
    let text = text.replace("123456789012", &pipeline.account).replace("210987654321", &other_account);
    let folder = pipeline.config().parent().context("a folder")?.to_owned();
    let mut script = "set -euo pipefail\n".to_owned();
    for block in blocks(&text) {
        match block {
            Block::Declaration(more) => script.push_str(&format!("declare-keys <<'END OF KEYS'\n{more}END OF KEYS\n")),
            Block::Commands(commands) => script.push_str(&commands),
        }
    }
    let bin = folder.join("bin");
    std::fs::create_dir(&bin)?;
    // Every answer is yes. A new file denies plain HTTP, which the local AWS speaks. `status` exits with 3 if it has found
    // something.
    let answered = format!("'{}' \"$@\" <<< yes || code=$?", built_program("provisioner")?.display());
    let http = "[[ $1 != init ]] || sed --in-place 's/^# require_tls = true/require_tls = false/' pipeline.toml";
    let found = "[[ $* != *status || $code != 3 ]] || code=0";
    program(&bin, "provisioner", &format!("code=0\n{answered}\n{http}\n{found}\nexit $code"))?;
    // The CLI's own default endpoint of SQS takes precedence over the variable.
    // Its own first line has no quotes around a path with spaces.
    let venv = root().join(".venv/bin").display().to_string();
    program(&bin, "aws", &format!("exec '{venv}/python' '{venv}/aws' --endpoint-url \"$AWS_ENDPOINT_URL\" \"$@\""))?;
    // The functions are built.
    program(&bin, "make", "exec provisioner \"$1\"")?;
    program(&bin, "declare-keys", &format!("exec python3 -c '{DECLARE}'"))?;
    program(&bin, "jq", &format!("exec python3 -c '{JQ}' \"$@\""))?;
    std::os::unix::fs::symlink(root().join("target"), folder.join("target"))?;
    let (mut credentials, mut config) = (String::new(), String::new());
    let accounts = [("default", &pipeline.account), ("production", &pipeline.account), ("staging", &other_account)];
    for (profile, account) in accounts {
        let keys = format!("aws_access_key_id = {account}\naws_secret_access_key = test");
        credentials.push_str(&format!("[{profile}]\n{keys}\n"));
        let section = if profile == "default" { profile.to_owned() } else { format!("profile {profile}") };
        config.push_str(&format!("[{section}]\nregion = {REGION}\n"));
    }
    std::fs::create_dir(folder.join(".aws"))?;
    std::fs::write(folder.join(".aws/credentials"), credentials)?;
    std::fs::write(folder.join(".aws/config"), config)?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    let environment = pipeline.command(&[])?;
    command.env_clear().envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // Those of the environment would take precedence over a profile.
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command.env("PATH", path).env("AWS_PAGER", "").current_dir(&folder).args(["-x", "-c", &script]);
    Ok(CommandOutput::of(&command.stdin(Stdio::null()).output().context("failed to run bash")?))
}

/// Runs the commands of documents, and returns their output.
fn succeed(pipeline: &Pipeline<'_>, documents: &[&str]) -> Result<String> {
    let run = run(pipeline, documents)?;
    ensure!(run.code == Some(0), "{documents:?}\n{}\n{}", run.out, run.err);
    Ok(run.out)
}

fn program(folder: &Path, name: &str, script: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/bash\n{script}\n"))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).context("failed to make it executable")
}

#[tokio::test]
async fn commands_of_the_document_on_extensions_work() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let line = json!({
        "type": "track", "event": "Order Completed", "timestamp": HOUR,
        "properties": { "plan": "pro", "revenue": 19.99, "product_id": "p1" },
    });
    pipeline.upload("segment-logs/x/1/a.gz", &gzip(line.to_string().as_bytes())).await?;
    succeed(&pipeline, &["docs/extending.md"]).map(drop)
}

#[test]
fn guide_leads_from_no_file_to_counts_alarms_and_roles() -> Result<()> {
    let pipeline = pipeline()?;
    std::fs::remove_file(pipeline.config())?;
    let out = succeed(&pipeline, &["docs/guide.md"])?;
    for part in ["The pipeline works", "The pipeline counts.", "Segment's form", "Order Completed", "19.99", "pro "] {
        ensure!(out.contains(part), "{part} is not in {out}");
    }
    ensure!(pipeline.config().with_file_name("counts.html").is_file(), "no page");
    let file = std::fs::read_to_string(pipeline.config())?;
    ensure!(file.contains("[environments.staging]") && file.contains("workspace_id = \"abc123XYZ\""), "{file}");
    Ok(())
}

#[tokio::test]
async fn operations_replay_failures_and_replace_the_tables() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    remove_notification(&pipeline).await?;
    pipeline.upload("segment-logs/x/1/a.gz", &gzip(track("Order Completed").as_bytes())).await?;
    let sqs = aws_sdk_sqs::Client::new(&pipeline.sdk().await?);
    let url = sqs.get_queue_url().queue_name(format!("{}-failures", pipeline.name)).send().await?.queue_url;
    let body = s3_notification(&pipeline.name, &["segment-logs/x/1/a.gz"]).to_string();
    sqs.send_message().set_queue_url(url).message_body(body).send().await?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let out = succeed(&pipeline, &["docs/operations.md"])?;
    for part in ["1 message: 1 counted, 0 not counted.", "The pipeline is paused.", "Everything is counted."] {
        ensure!(out.contains(part), "{part} is not in {out}");
    }
    let expected = Counts::from([(("Order Completed".to_owned(), HOUR.to_owned()), 1)]);
    let client = aws_sdk_dynamodb::Client::new(&pipeline.sdk().await?);
    for table in ["counts", "counts-2", "counts-restored"] {
        let found = counts(&client, &format!("{}-{table}", pipeline.name)).await?;
        ensure!(found == expected, "{table}: {found:?}");
    }
    Ok(())
}

#[tokio::test]
async fn tables_and_counts_are_read_as_their_documents_say() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[rollup]\nsum = [\"properties.revenue\"]\nby = [\"properties.plan\"]")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let order = json!({
        "type": "track", "event": "Order Completed", "timestamp": HOUR,
        "properties": { "plan": "pro", "revenue": 19.99 },
    });
    let file = [order.to_string(), track("Signed Up")].join("\n");
    pipeline.upload("segment-logs/x/1/a.gz", &gzip(file.as_bytes())).await?;
    let pair = |event: &str| ((event.to_owned(), HOUR.to_owned()), 1);
    pipeline.wait_for_counts(&Counts::from(["Order Completed", "Signed Up"].map(pair))).await?;
    // The record of the object is there as well.
    pipeline.expect(0, &["backfill"])?;
    let out = succeed(&pipeline, &["docs/counts.md", "docs/commands.md", "docs/formats.md"])?;
    for part in ["\"N\": \"19.99\"", "\"S\": \"2015-08-04T12:00:00Z#pro\"", "\"events\": {\n", "segment-logs/x/1/a.gz#"]
    {
        ensure!(out.contains(part), "{part} is not in {out}");
    }
    // The query of the present hour finds nothing in a new one.
    ensure!(out.matches("\"Count\": 0,").count() <= 1, "queries found nothing: {out}");
    Ok(())
}

#[test]
fn document_is_read_in_blocks_of_declarations_and_commands() {
    let text = "Text.\n\n    [a]\n    b = 1\n\n    $ one \\\n        two\n    output\n\nText.\n\n    code();\n\n```sh\n    $ no\n```\n";
    let expected =
        [Block::Declaration("[a]\nb = 1\n\noutput\n\n".to_owned()), Block::Commands("one \\\n    two\n".to_owned())];
    assert_eq!(blocks(text), expected);
}

/// Returns the files below a folder with this ending, without those of builds.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" {
                found.extend(files(&path, ending)?);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Returns the parts of a text between two signs, on one line each.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let starts = text.split(open).skip(1);
    starts.filter_map(|rest| rest.split_once(close)).map(|(part, _)| part).filter(|part| !part.contains('\n')).collect()
}

/// Returns the anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
    heading.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

/// Returns the documents, each with its text.
fn documents() -> Result<Vec<(PathBuf, String)>> {
    let read = |path: PathBuf| Ok((path.clone(), std::fs::read_to_string(path)?));
    files(root(), ".md")?.into_iter().map(read).collect()
}

#[test]
fn links_of_documents_lead_to_files_and_headings() -> Result<()> {
    for (path, text) in documents()? {
        let (folder, shown) = (path.parent().context("a folder")?, path.strip_prefix(root())?.display());
        for link in between(&text, "](", ")").into_iter().filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { folder.join(file) };
            ensure!(target.exists(), "{shown} links to {link}, which does not exist");
            if !heading.is_empty() {
                let lines = std::fs::read_to_string(&target)?;
                let mut headings = lines.lines().filter(|line| line.starts_with('#')).map(anchor);
                ensure!(headings.any(|anchor| anchor == heading), "{shown} links to {link}, which has no such heading");
            }
        }
    }
    Ok(())
}

/// Returns whether a source file defines this item.
fn defines(source: &str, item: &str) -> bool {
    let is_end = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    ["fn", "mod", "const", "trait"].iter().any(|keyword| {
        let definition = format!("{keyword} {item}");
        source.match_indices(&definition).any(|(at, found)| is_end(&source[at + found.len()..]))
    })
}

#[test]
fn tests_and_modules_that_documents_name_exist() -> Result<()> {
    let read = |path: PathBuf| Ok((path.display().to_string(), std::fs::read_to_string(path)?));
    let sources = files(root(), ".rs")?.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    for (path, text) in documents()? {
        for name in between(&text, "`", "`") {
            let is_name = |part: &str| part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            let Some((module, item)) = name.rsplit_once("::").filter(|_| name.split("::").all(is_name)) else {
                continue;
            };
            let module = module.rsplit("::").next().unwrap_or(module);
            let is_of_module = |(file, source): &&(String, String)| {
                file.contains(&format!("/{module}.rs"))
                    || file.contains(&format!("/{module}/"))
                    || defines(source, module)
            };
            let exists = sources.iter().filter(is_of_module).any(|(_, source)| defines(source, item));
            ensure!(exists, "{} names {name}, which does not exist", path.strip_prefix(root())?.display());
        }
    }
    Ok(())
}
