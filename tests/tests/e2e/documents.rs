//! The documents: every command in them works, in their order, with the declarations between them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::local_aws::{built_program, root};
use tests::pipeline::{CommandOutput, Pipeline};
use tests::samples::gzip;

use crate::common::HOUR;
use crate::pipeline;

/// A block of a document.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    /// Lines of pipeline.toml.
    Declaration(String),
    /// Commands, with their continued lines.
    Commands(String),
}

/// Returns the declarations and commands of a document: its indented blocks that begin with a section or a prompt.
fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
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
                // A continued line, or one of a here-document.
                commands.push_str(&format!("{}\n", line.strip_prefix("  ").unwrap_or_default()));
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

/// Runs the commands of a document, as the account's root. Names and the account are those of the pipeline. A later
/// declaration is added to the earlier ones.
fn run(pipeline: &Pipeline<'_>, document: &str) -> Result<CommandOutput> {
    let text = std::fs::read_to_string(root().join(document)).with_context(|| format!("failed to read {document}"))?;
    let text = text.replace("acme-segment-events", &pipeline.name).replace("segment-events", &pipeline.name);
    let text = text.replace("123456789012", &pipeline.account);
    let folder = pipeline.config().parent().context("a folder")?.to_owned();
    let (mut declared, mut script) = (String::new(), "set -euo pipefail\n".to_owned());
    for block in blocks(&text) {
        match block {
            Block::Declaration(more) => {
                declared.push_str(&more);
                pipeline.declare(&declared)?;
                let file = std::fs::read_to_string(pipeline.config())?;
                script.push_str(&format!("cat > pipeline.toml <<'END OF FILE'\n{file}\nEND OF FILE\n"));
            }
            Block::Commands(commands) => {
                for line in commands.lines() {
                    script.push_str(&format!("{line}\n"));
                }
            }
        }
    }
    pipeline.declare("")?;
    let bin = folder.join("bin");
    std::fs::create_dir(&bin)?;
    // The answer to every question.
    program(&bin, "provisioner", &format!("exec '{}' \"$@\" <<< yes", built_program("provisioner")?.display()))?;
    // The CLI's own default endpoint of SQS takes precedence over the variable.
    let aws = root().join(".venv/bin/aws").display().to_string();
    program(&bin, "aws", &format!("exec '{aws}' --endpoint-url \"$AWS_ENDPOINT_URL\" \"$@\""))?;
    // The functions are built.
    program(&bin, "make", "exec provisioner \"$1\"")?;
    std::os::unix::fs::symlink(root().join("target"), folder.join("target"))?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    let environment = pipeline.command(&[])?;
    command.env_clear().envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", path).env("AWS_PAGER", "").current_dir(&folder).args(["-x", "-c", &script]);
    Ok(CommandOutput::of(&command.stdin(Stdio::null()).output().context("failed to run bash")?))
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
    let run = run(&pipeline, "docs/extending.md")?;
    ensure!(run.code == Some(0), "{}\n{}", run.out, run.err);
    Ok(())
}

#[test]
fn document_is_read_in_blocks_of_declarations_and_commands() {
    let text = "Text.\n\n    [a]\n    b = 1\n\n    $ one \\\n        two\n    output\n\nText.\n\n    code();\n";
    let expected =
        [Block::Declaration("[a]\nb = 1\n\noutput\n\n".to_owned()), Block::Commands("one \\\n  two\n".to_owned())];
    assert_eq!(blocks(text), expected);
}
