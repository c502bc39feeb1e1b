//! `provisioner apply`: creates the planned resources, converges, and asks for confirmation.

use anyhow::{Result, ensure};
use tests::pipeline::{KINDS, RESOURCES};

use crate::{pipeline, steps, verdict};

#[tokio::test]
async fn apply_of_a_new_pipeline_creates_the_planned_resources_and_is_idempotent() -> Result<()> {
    let pipeline = pipeline()?;

    let plan = pipeline.expect(2, &["plan", "--detailed-exitcode"])?;
    let shown = steps(&plan.out);
    ensure!(
        shown.len() == RESOURCES
            && shown.iter().zip(KINDS).all(|(step, kind)| step.starts_with(&format!("  + {kind} "))),
        "{}",
        plan.out
    );
    let all = format!("Plan: {RESOURCES} to create, 0 to update, 0 to delete.");
    ensure!(verdict(&plan.out)? == all, "{}", plan.out);
    ensure!(pipeline.expect(2, &["plan", "--detailed-exitcode"])?.out == plan.out, "plan changed something");

    let applied = pipeline.expect(0, &["apply", "--yes"])?;
    let done = format!("Done: {RESOURCES} created, 0 updated, 0 deleted");
    ensure!(applied.out.contains(&done), "{}", applied.out);
    ensure!(KINDS.iter().all(|kind| applied.err.contains(&format!("+ {kind} "))), "{}", applied.err);

    let again = pipeline.expect(0, &["plan", "--detailed-exitcode"])?;
    ensure!(verdict(&again.out)? == "No changes.", "{}", again.out);
    ensure!(pipeline.expect(0, &["apply", "--yes"])?.err.is_empty(), "the second apply is not a no-op");
    Ok(())
}

#[tokio::test]
async fn apply_of_any_declaration_leaves_the_pipeline_in_sync() -> Result<()> {
    let pipeline = pipeline()?;
    for file in [
        "[bucket]\nversioning = true\nexpire_days = 30\nrequire_tls = true\n[table]\nbilling = { read = 5, write = 5 }\n\
         [segment]\nworkspace_id = \"abc123\"\n[tags]\nteam = \"analytics\"",
        "[bucket]\nversioning = false\nexpire_days = 60\n[table]\nbilling = { read = 6, write = 5 }\n\
         point_in_time_recovery = false\n[segment]\nworkspace_id = \"abc123\"\n[tags]\nteam = \"data\"\n\
         [[role.statement]]\nactions = [\"s3:GetObject\"]\nresources = [\"arn:aws:s3:::acme/*\"]",
        "[table]\ndeletion_protection = false\n[rollup]\ncount = [\"track\", \"page\"]\n[notification]\nprefix = \"other/\"",
    ] {
        pipeline.declare(file)?;
        pipeline.expect(0, &["apply", "--yes"])?;
        let plan = pipeline.expect(0, &["plan"])?;
        ensure!(verdict(&plan.out)?.starts_with("No changes."), "{file}\n{}", plan.out);
    }
    Ok(())
}

#[tokio::test]
async fn apply_without_yes_flag_proceeds_only_if_yes_is_typed() -> Result<()> {
    use std::io::Write as _;
    use std::process::Stdio;

    let pipeline = pipeline()?;
    for (answer, code) in [("", 1), ("no\n", 1), ("yes\n", 0)] {
        let mut command = pipeline.command(&["apply"])?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(answer.as_bytes())?;
        }
        let run = tests::pipeline::CommandOutput::of(&child.wait_with_output()?);
        ensure!(run.code == Some(code), "{answer:?}: {run:?}");
        ensure!((code == 0) == run.out.contains("Done: "), "{run:?}");
    }
    Ok(())
}
