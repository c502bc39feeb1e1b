//! The scripts of `provisioner completions`, and the answers that they ask for.

use anyhow::{Result, ensure};
use tests::pipeline::{CommandOutput, Pipeline};

use crate::pipeline;

/// Returns what is offered for the last of these words.
pub(crate) fn offered(pipeline: &Pipeline<'_>, words: &[&str]) -> Result<Vec<String>> {
    let mut command = pipeline.command(&[&["--", "provisioner"], words].concat())?;
    let answer = CommandOutput::of(&command.env("PROVISIONER_COMPLETE", "fish").output()?);
    ensure!(answer.code == Some(0) && answer.err.is_empty(), "{answer:?}");
    Ok(answer.out.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect())
}

#[test]
fn scripts_of_every_shell_ask_for_the_values_of_the_file() -> Result<()> {
    let pipeline = pipeline()?;
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        ensure!(pipeline.expect(0, &["completions", shell])?.out.contains("PROVISIONER_COMPLETE"), "{shell}");
    }
    pipeline.declare("[rollup]\nsum = [\"properties.revenue\"]\n[environments.staging]\nfunction.memory_mb = 128")?;
    for (words, wanted) in [
        (&["--env", "st"][..], &["staging"][..]),
        (&["plan", "--env", ""], &["staging", "local"]),
        (&["plan", "--det"], &["--detailed-exitcode"]),
        (&["query", "x", "--sum", ""], &["properties.revenue"]),
        (&["--config", "-", "--env", ""], &[]),
        (&["--config", "no-such-file", "--env", ""], &["local"]),
    ] {
        let offered = offered(&pipeline, words)?;
        ensure!(offered == wanted, "{words:?}: {offered:?}");
    }
    Ok(())
}
