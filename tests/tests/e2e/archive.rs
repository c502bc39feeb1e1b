//! An archive of a release: it alone leads to counts, without Rust.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::local_aws::{built_program, root};
use tests::pipeline::CommandOutput;
use tests::recount::Counts;
use tests::samples::gzip;

use crate::common::{HOUR, track};
use crate::{aws, pipeline};

/// Builds an archive in `dist`, with the staged files in `stage`, as `make dist` does. To compress the provisioner of a debug
/// build takes long, so the function takes its place.
fn pack(stage: &Path, dist: &Path) -> Result<Vec<u8>> {
    std::fs::create_dir_all(stage)?;
    std::fs::create_dir_all(dist)?;
    for program in ["provisioner", "bootstrap"] {
        std::fs::copy(root().join("target/lambda/bootstrap"), stage.join(format!("{program}-x86_64")))?;
    }
    std::fs::write(stage.join("THIRD-PARTY-LICENSES"), "made up")?;
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "archive", "ARCH=x86_64", "ARCHS=x86_64", "VERSION=9.8.7"]);
    make.arg(format!("STAGE={}", stage.display())).arg(format!("DIST={}", dist.display()));
    let made = make.current_dir(root()).env("SOURCE_DATE_EPOCH", "1000000000").env_remove("MAKEFLAGS").output()?;
    ensure!(made.status.success(), "{:?}", CommandOutput::of(&made));
    std::fs::read(dist.join("provisioner-9.8.7-x86_64-linux.tar.gz")).context("failed to read the archive")
}

#[tokio::test]
async fn archive_alone_leads_to_counts() -> Result<()> {
    let pipeline = pipeline()?;
    let folder = pipeline.config().with_file_name("elsewhere");
    let archive = pack(&folder.join("one"), &folder.join("dist"))?;
    ensure!(archive == pack(&folder.join("other one"), &folder.join("dist"))?, "the second archive differs");

    let work = folder.join("work");
    std::fs::create_dir(&work)?;
    let name = "provisioner-9.8.7-x86_64-linux";
    let archive = folder.join("dist").join(format!("{name}.tar.gz"));
    let tar = Command::new("tar").arg("--extract").arg("--file").arg(archive).arg("-C").arg(&folder).output()?;
    ensure!(tar.status.success(), "{:?}", CommandOutput::of(&tar));
    for file in ["README.md", "CHANGELOG.md", "LICENSE", "THIRD-PARTY-LICENSES", "docs/guide.md", "docs/man"] {
        ensure!(folder.join(name).join(file).exists(), "{file} is missing");
    }
    let program = folder.join(name).join("provisioner");
    std::fs::copy(built_program("provisioner")?, &program)?;
    let account = pipeline.account.clone();
    let run = |args: &[&str]| -> Result<String> {
        let mut command = Command::new(&program);
        command.env_clear().envs(aws()?.variables(&account)).env("PIPELINE_ENV", "local");
        let run = CommandOutput::of(&command.env("HOME", &work).current_dir(&work).args(args).output()?);
        ensure!(run.code == Some(0), "{args:?}: {run:?}");
        Ok(run.out)
    };
    run(&["init", "--name", &pipeline.name])?;
    run(&["plan", "--out", "saved.plan"])?;
    run(&["apply", "saved.plan", "--yes"])?;
    let bytes = gzip([track("Signed Up"), track("Signed Up")].join("\n").as_bytes());
    pipeline.upload("segment-logs/x/1/a.gz", &bytes).await?;
    let expected = Counts::from([(("Signed Up".to_owned(), HOUR.to_owned()), 2)]);
    pipeline.wait_for_counts(&expected).await?;
    let day = ["--from", "2015-08-04", "--to", "2015-08-05"];
    ensure!(run(&[&["query", "Signed Up"], &day[..]].concat())?.contains(" 2 "), "the query finds nothing");
    run(&[&["dashboard", "--out", "page.html"], &day[..]].concat())?;
    ensure!(std::fs::read_to_string(work.join("page.html"))?.contains("Signed Up"), "the page lacks the event");
    run(&["destroy", "--yes", "--delete-data"]).map(drop)
}
