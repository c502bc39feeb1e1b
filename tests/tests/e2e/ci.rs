//! The workflows of GitHub: their scripts run as they stand, with the printed policies, and with a `gh` that records.

use std::fs::{read_to_string, write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::local_aws::root;
use tests::pipeline::{CommandOutput, Pipeline, RESOURCES};

use crate::pipeline;
use crate::policy::User;

/// Takes the place of GitHub's CLI: records each call as a line, keeps the last body, and lists the comment and the issue
/// that it was told to create, behind those that others made.
const GH: &str = r#"#!/usr/bin/env bash
set -euo pipefail
printf '%s\n' "$*" >>"$GH_STATE/calls"
for argument in "$@"; do
  case "$argument" in
    body=@*) cp "${argument#body=@}" "$GH_STATE/body" ;;
    title=*) title=${argument#title=} ;;
  esac
done
case "$*" in
  *"/issues/7/comments?"*) cat "$GH_STATE/comments" ;;
  *"POST repos/acme/events/issues/7/comments"*)
    printf '77\tgithub-actions[bot]\t%s\n' "$(head -n 1 "$GH_STATE/body")" >>"$GH_STATE/comments" ;;
  *"/issues?state=open&labels=drift"*) cat "$GH_STATE/issues" ;;
  *"POST repos/acme/events/issues --raw-field"*) printf '12\t%s\n' "$title" >>"$GH_STATE/issues" ;;
  *"state=closed"*) : >"$GH_STATE/issues" ;;
  "release download v0.1.0 "*) cp "$GH_STATE"/release/* "$RELEASE" ;;
  "attestation verify "*) exit "$ATTESTATION" ;;
esac
"#;

/// A machine on which the jobs of one repository run.
struct Runner<'a> {
    pipeline: &'a Pipeline<'a>,
    folder: TempDir,
}

impl<'a> Runner<'a> {
    fn new(pipeline: &'a Pipeline<'a>) -> Result<Self> {
        let runner = Self { pipeline, folder: TempDir::with_prefix("runner-")? };
        std::fs::create_dir(runner.path("bin"))?;
        write(runner.path("bin/gh"), GH)?;
        std::fs::set_permissions(runner.path("bin/gh"), std::fs::Permissions::from_mode(0o755))?;
        for file in ["calls", "body", "comments", "issues", "output", "summary"] {
            write(runner.path(file), "")?;
        }
        Ok(runner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a script of the workflows, by a user or without credentials.
    fn run(&self, task: &str, user: Option<&User<'_>>, variables: &[(&str, &str)]) -> Result<CommandOutput> {
        let provisioner = self.pipeline.command(&[])?;
        let built = PathBuf::from(provisioner.get_program());
        let folders = [self.path("bin"), built.parent().context("a folder")?.to_owned()];
        let path = std::env::join_paths(
            folders.into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        )?;
        let mut command = Command::new("bash");
        command.arg(root().join(".github/scripts").join(task).with_extension("sh")).env_clear();
        command.current_dir(provisioner.get_current_dir().context("a folder")?);
        if let Some(user) = user {
            command.envs(provisioner.get_envs().filter_map(|(name, value)| Some((name, value?))));
            user.sign(&mut command);
        }
        command.env("PATH", path).env("PIPELINE_ENV", "").env("PLAN", self.path("plan"));
        command.env("GH_STATE", self.folder.path()).env("GITHUB_OUTPUT", self.path("output"));
        command.env("GITHUB_STEP_SUMMARY", self.path("summary")).env("GITHUB_REPOSITORY", "acme/events");
        command.env("GITHUB_SERVER_URL", "https://github.example.com").env("GITHUB_RUN_ID", "5");
        command.envs(variables.iter().copied());
        Ok(CommandOutput::of(&command.output()?))
    }

    /// Runs a script that must succeed.
    fn expect(&self, task: &str, user: Option<&User<'_>>, variables: &[(&str, &str)]) -> Result<CommandOutput> {
        let run = self.run(task, user, variables)?;
        ensure!(run.code == Some(0), "{task}: {run:?}");
        Ok(run)
    }

    /// Plans, and returns the output `code` of the job.
    fn plan(&self, user: &User<'_>) -> Result<String> {
        write(self.path("output"), "")?;
        self.expect("plan", Some(user), &[])?;
        Ok(read_to_string(self.path("output"))?.trim().replace("code=", ""))
    }

    /// Returns the calls of `gh` since the last time that change something on GitHub.
    fn changes(&self) -> Result<Vec<String>> {
        let calls = read_to_string(self.path("calls"))?;
        write(self.path("calls"), "")?;
        Ok(calls.lines().filter(|call| !call.contains("--paginate")).map(str::to_owned).collect())
    }

    fn body(&self) -> Result<String> {
        Ok(read_to_string(self.path("body"))?)
    }
}

/// Creates a user with exactly the printed policy of a role, and returns it with the subjects that the role trusts.
async fn role<'a>(pipeline: &'a Pipeline<'a>, task: &'static str) -> Result<(User<'a>, Value)> {
    let printed = pipeline.expect(0, &["policy", task, "--env", "local", "--github", "acme/events"])?;
    let printed: Value = serde_json::from_str(&printed.out)?;
    let user = User::new(pipeline, task).await?;
    user.allow(&printed["policy"]).await?;
    let condition = &printed["trust_policy"]["Statement"][0]["Condition"]["StringEquals"];
    Ok((user, condition["token.actions.githubusercontent.com:sub"].clone()))
}

/// Sets the timeout of the function, as somebody does who does not know the file.
async fn set_timeout(pipeline: &Pipeline<'_>, seconds: i32) -> Result<()> {
    let lambda = aws_sdk_lambda::Client::new(&pipeline.sdk().await?);
    let request = lambda.update_function_configuration().function_name(format!("{}-handler", pipeline.name));
    request.timeout(seconds).send().await?;
    Ok(())
}

#[tokio::test]
async fn plan_of_a_pull_request_is_one_comment_that_is_edited() -> Result<()> {
    let pipeline = pipeline()?;
    let runner = Runner::new(&pipeline)?;
    let (planner, subjects) = role(&pipeline, "planner").await?;
    ensure!(subjects == json!(["repo:acme/events:pull_request", "repo:acme/events:ref:refs/heads/main"]), "{subjects}");
    // Somebody else begins a comment with the marker.
    write(runner.path("comments"), "6\tmallory\t<!-- provisioner: pipeline.toml -->\n")?;

    ensure!(runner.plan(&planner)? == "2", "no changes");
    let summary = read_to_string(runner.path("summary"))?;
    ensure!(summary.contains(&format!("Plan: {RESOURCES} to create")), "{summary}");
    runner.expect("comment", None, &[("NUMBER", "7")])?;
    let (created, first) = (runner.changes()?, runner.body()?);
    ensure!(
        created.len() == 1 && created[0].contains("--method POST repos/acme/events/issues/7/comments"),
        "{created:?}"
    );
    ensure!(first.trim_end() == format!("<!-- provisioner: pipeline.toml -->\n{summary}").trim_end(), "{first}");

    pipeline.declare("[function]\nmemory_mb = 512")?;
    ensure!(runner.plan(&planner)? == "2", "no changes");
    runner.expect("comment", None, &[("NUMBER", "7")])?;
    let edited = runner.changes()?;
    ensure!(
        edited.len() == 1 && edited[0].contains("--method PATCH repos/acme/events/issues/comments/77 "),
        "{edited:?}"
    );
    ensure!(runner.body()?.contains(&format!("{:21}  512", "memory_mb")), "{}", runner.body()?);

    // A plan of any length is only text, and names its whole form.
    write(runner.path("plan/plan.md"), format!("$(touch pwned) `touch pwned`\n{}", "é".repeat(70_000)))?;
    runner.expect("comment", None, &[("NUMBER", "7")])?;
    let body = runner.body()?;
    ensure!((64_000..=65_536).contains(&body.chars().count()), "{} characters", body.chars().count());
    ensure!(body.contains("https://github.example.com/acme/events/actions/runs/5"), "no pointer");
    ensure!(body.contains("$(touch pwned)") && !pipeline.config().with_file_name("pwned").exists(), "evaluated");

    // A plan that failed is reported.
    std::fs::remove_file(runner.path("plan/plan.md"))?;
    runner.expect("comment", None, &[("NUMBER", "7")])?;
    ensure!(runner.body()?.contains("**The plan failed.**"), "{}", runner.body()?);
    Ok(())
}

#[tokio::test]
async fn saved_plan_is_applied_and_verified_or_refused_as_stale() -> Result<()> {
    let pipeline = pipeline()?;
    let runner = Runner::new(&pipeline)?;
    let (planner, _) = role(&pipeline, "planner").await?;
    let (deployer, subjects) = role(&pipeline, "deployer").await?;
    ensure!(subjects == json!(["repo:acme/events:environment:production"]), "{subjects}");

    ensure!(runner.plan(&planner)? == "2", "no changes");
    let refused = runner.run("apply", Some(&planner), &[])?;
    ensure!(refused.code == Some(1) && refused.err.contains("AccessDenied"), "the planner applied: {refused:?}");
    let applied = runner.expect("apply", Some(&deployer), &[])?;
    ensure!(applied.out.contains(&format!("Done: {RESOURCES} created")), "{}", applied.out);
    ensure!(applied.out.contains("The pipeline works"), "{}", applied.out);
    // The runner takes no commands from the output between the two tokens.
    let commands: Vec<&str> = applied.out.lines().filter(|line| line.starts_with("::")).collect();
    let tokens: Vec<&str> = commands.iter().filter_map(|line| line.strip_prefix("::stop-commands::")).collect();
    ensure!(commands.len() == 4 && tokens.len() == 2 && tokens[0] != tokens[1], "{commands:?}");
    ensure!(commands[1] == format!("::{}::", tokens[0]) && commands[3] == format!("::{}::", tokens[1]), "{commands:?}");
    ensure!(runner.plan(&planner)? == "0", "not in sync");

    // The live state changes between the plan and its approval.
    pipeline.declare("[function]\nmemory_mb = 512")?;
    ensure!(runner.plan(&planner)? == "2", "no changes");
    set_timeout(&pipeline, 3).await?;
    let stale = runner.run("apply", Some(&deployer), &[])?;
    ensure!(stale.code == Some(1) && stale.err.contains("the saved plan is stale; nothing was changed"), "{stale:?}");
    ensure!(stale.out.contains("::error::") && stale.out.contains("Re-run all jobs"), "{}", stale.out);
    ensure!(!stale.out.contains("The pipeline works"), "{}", stale.out);

    ensure!(runner.plan(&planner)? == "2", "no changes");
    let again = runner.expect("apply", Some(&deployer), &[])?;
    ensure!(again.out.contains("Done: 0 created, 1 updated, 0 deleted"), "{}", again.out);
    Ok(())
}

#[tokio::test]
async fn drift_is_one_issue_until_the_pipeline_is_in_sync() -> Result<()> {
    let pipeline = pipeline()?;
    let runner = Runner::new(&pipeline)?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let (planner, _) = role(&pipeline, "planner").await?;
    let (verifier, subjects) = role(&pipeline, "verifier").await?;
    ensure!(subjects == json!(["repo:acme/events:ref:refs/heads/main"]), "{subjects}");
    let report = |code: &str, verified: &str| -> Result<Vec<String>> {
        runner.expect("drift-issue", None, &[("CODE", code), ("VERIFIED", verified)])?;
        runner.changes()
    };
    // An issue of another pipeline has the same label.
    write(runner.path("issues"), "3\tDrift of other.toml\n")?;

    let verified = runner.expect("verify", Some(&verifier), &[])?;
    ensure!(verified.out.contains("The pipeline works"), "{}", verified.out);
    ensure!(runner.plan(&planner)? == "0", "not in sync");
    ensure!(report("0", "success")?.is_empty(), "an issue without drift");

    set_timeout(&pipeline, 3).await?;
    ensure!(runner.plan(&planner)? == "2", "no drift");
    let opened = report("2", "success")?;
    ensure!(opened.len() == 2 && opened[0].starts_with("label create drift "), "{opened:?}");
    ensure!(
        opened[1].contains("--method POST repos/acme/events/issues --raw-field title=Drift of pipeline.toml"),
        "{opened:?}"
    );
    ensure!(runner.body()?.contains("timeout_seconds"), "{}", runner.body()?);
    let updated = report("2", "failure")?;
    ensure!(updated.len() == 1 && updated[0].contains("--method PATCH repos/acme/events/issues/12 "), "{updated:?}");
    ensure!(runner.body()?.contains("`provisioner verify` failed"), "{}", runner.body()?);
    ensure!(report("", "skipped")?.len() == 1 && runner.body()?.contains("The plan failed."), "{}", runner.body()?);

    pipeline.expect(0, &["apply", "--yes"])?;
    ensure!(runner.plan(&planner)? == "0", "not in sync");
    let closed = report("0", "skipped")?;
    ensure!(closed.len() == 2 && closed[0].contains("issues/12/comments --raw-field body=In sync again"), "{closed:?}");
    ensure!(closed[1].contains("--method PATCH repos/acme/events/issues/12 --raw-field state=closed"), "{closed:?}");
    ensure!(report("0", "success")?.is_empty(), "a second closing");
    Ok(())
}

#[test]
fn release_is_unpacked_only_if_sums_and_attestation_prove_it() -> Result<()> {
    let pipeline = pipeline()?;
    let runner = Runner::new(&pipeline)?;
    let (name, released) = ("provisioner-0.1.0-x86_64-linux", runner.path("release"));
    std::fs::create_dir_all(released.join(name))?;
    write(released.join(name).join("provisioner"), "a program")?;
    let pack = format!("tar -czf {name}.tar.gz {name} && rm -r {name} && sha256sum *.tar.gz >SHA256SUMS");
    ensure!(Command::new("bash").args(["-c", &pack]).current_dir(&released).status()?.success(), "{pack}");
    let is_unpacked = |folder: &str, attestation: &str| -> Result<bool> {
        let folder = runner.path(folder);
        let target = folder.display().to_string();
        let variables = [
            ("RELEASE", target.as_str()),
            ("REPOSITORY", "acme/provisioner"),
            ("VERSION", "0.1.0"),
            ("ATTESTATION", attestation),
        ];
        let run = runner.run("release", None, &variables)?;
        let is_there = folder.join("provisioner").is_file();
        ensure!(is_there == (run.code == Some(0)), "{run:?}");
        Ok(is_there)
    };
    ensure!(is_unpacked("proven", "0")?, "a proven release is refused");
    ensure!(!is_unpacked("unproven", "1")?, "a release without attestation is unpacked");
    let archive = released.join(format!("{name}.tar.gz"));
    write(&archive, [std::fs::read(&archive)?, b"more".to_vec()].concat())?;
    ensure!(!is_unpacked("changed", "0")?, "a changed release is unpacked");
    Ok(())
}

#[test]
fn no_job_with_a_token_builds_or_shares_it() -> Result<()> {
    let file = |path: &str| read_to_string(root().join(".github").join(path)).context(path.to_owned());
    let jobs = |workflow: &str| -> Vec<String> { workflow.split("\n    name: ").skip(1).map(str::to_owned).collect() };
    for job in jobs(&file("workflows/pipeline.yml")?) {
        let calls = job.contains("uses: $/.github/workflows/deploy.yml");
        ensure!(job.contains(": write") == calls && calls != job.contains("steps:"), "{job}");
    }
    let deploy = file("workflows/deploy.yml")?;
    let jobs = jobs(&deploy);
    ensure!(jobs.len() == 5, "{} jobs", jobs.len());
    for job in jobs {
        for builder in ["make ", "cargo ", "pip ", "actions/cache", "run:"] {
            ensure!(!job.contains(builder), "`{builder}` in {job}");
        }
        // The jobs that may write to GitHub run neither the provisioner nor code of a pull request.
        let writes = ["issues: write", "pull-requests: write"].iter().filter(|write| job.contains(**write)).count();
        let reports = usize::from(job.contains("uses: $/.github/actions/report"));
        ensure!(writes == reports && job.matches(": write").count() == 1, "{job}");
        ensure!(reports == 0 || !job.contains("actions/checkout"), "{job}");
        let task = job.split("task: ").nth(1).and_then(|rest| rest.lines().next()).context("a task")?;
        ensure!(root().join(".github/scripts").join(task).with_extension("sh").is_file(), "no script for {task}");
    }
    ensure!(!file("actions/report/action.yml")?.contains("aws"), "the report assumes a role");
    for action in ["run", "report"] {
        let action = file(&format!("actions/{action}/action.yml"))?;
        ensure!(action.contains("bash \"$GITHUB_ACTION_PATH/../../scripts/$TASK.sh\""), "{action}");
    }
    for script in ["plan", "apply", "verify"] {
        let text = file(&format!("scripts/{script}.sh"))?;
        // Each call is in a function that is not heard, or in that of plan.sh, whose output is.
        let calls = text.lines().filter(|line| line.contains("provisioner ") && !line.starts_with('#'));
        for call in calls {
            ensure!(call.contains("unheard provisioner ") || text.contains("unheard plan "), "{call}");
        }
    }
    Ok(())
}
