//! A pipeline of one's own on the local AWS: a folder with a `pipeline.toml`, an account, the built `provisioner`, and
//! clients.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use tempfile::TempDir;

use crate::local_aws::{LocalAws, REGION, Recorded, built, root};
use crate::recount::Counts;

/// Counting a file takes a fraction of a second; a busy machine gets more.
pub const COUNTED: Duration = Duration::from_secs(120);
/// Between two looks at the counts.
const LOOK: Duration = Duration::from_millis(100);

/// A pipeline of one's own.
pub struct Pipeline<'a> {
    aws: &'a LocalAws,
    folder: TempDir,
    /// The account that it is in, and no other pipeline.
    pub account: String,
    /// Its name: everything in it is called after it.
    pub name: String,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Takes what a process left.
    #[must_use]
    pub fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl<'a> Pipeline<'a> {
    /// A pipeline in an account whose last digits are `number`. Nothing is made yet.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(aws: &'a LocalAws, number: u32) -> Result<Self> {
        let account = format!("{:012}", 100_000_000_000_u64 + u64::from(number));
        let folder = TempDir::with_prefix("pipeline-").context("failed to make a temporary folder")?;
        let pipeline = Self { aws, folder, name: format!("events-{number}"), account };
        pipeline.declare("")?;
        Ok(pipeline)
    }

    /// Writes `pipeline.toml`: what a test needs, and what it adds.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn declare(&self, more: &str) -> Result<()> {
        let (name, artifact) = (&self.name, root().join("target/lambda/bootstrap"));
        let mut file = format!("[pipeline]\nname = \"{name}\"\nregion = \"{REGION}\"\n");
        // Plain HTTP, and no test needs data that is hard to delete.
        let defaults = [
            ("bucket", "require_tls = false".to_owned()),
            ("function", format!("artifact = \"{}\"", artifact.display())),
        ];
        let mut sections: Vec<(String, Vec<String>)> =
            defaults.map(|(section, line)| (section.to_owned(), vec![line])).into();
        let mut current = None;
        for line in more.lines().map(str::trim) {
            match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                Some(section) => {
                    let at = sections.iter().position(|(name, _)| name == section && !section.starts_with('['));
                    current = Some(at.unwrap_or_else(|| {
                        sections.push((section.to_owned(), Vec::new()));
                        sections.len() - 1
                    }));
                }
                None => {
                    let at = current.context("a key before its section")?;
                    let key = line.split('=').next().unwrap_or_default().trim().to_owned();
                    let lines = &mut sections[at].1;
                    lines.retain(|other| other.split('=').next().unwrap_or_default().trim() != key);
                    lines.push(line.to_owned());
                }
            }
        }
        for (section, lines) in sections {
            file.push_str(&format!("\n[{section}]\n{}\n", lines.join("\n")));
        }
        std::fs::write(self.config(), file).context("failed to write pipeline.toml")
    }

    /// Where its `pipeline.toml` is.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    /// The built `provisioner`, set up for this pipeline and cut off from the rest of the world.
    ///
    /// # Errors
    /// It is not built.
    pub fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(built("provisioner")?);
        command.env_clear().envs(self.aws.variables(&self.account)).current_dir(self.folder.path());
        command.env("HOME", self.folder.path()).args(args);
        Ok(command)
    }

    /// Runs the built `provisioner`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, args: &[&str]) -> Result<Ran> {
        let output = self.command(args)?.output().context("failed to run the provisioner")?;
        Ok(Ran::of(&output))
    }

    /// Runs the built `provisioner` and insists on its exit code.
    ///
    /// # Errors
    /// It exits otherwise.
    pub fn expect(&self, code: i32, args: &[&str]) -> Result<Ran> {
        let ran = self.run(args)?;
        ensure!(
            ran.code == Some(code),
            "provisioner {args:?} exited with {:?}, not {code}\n{}\n{}\n{}",
            ran.code,
            ran.out,
            ran.err,
            self.aws.log()
        );
        Ok(ran)
    }

    /// The calls that the account's root has made since `since`, as the local AWS counted them.
    ///
    /// # Errors
    /// The local AWS does not say.
    pub fn calls(&self, since: SystemTime) -> Result<Vec<Recorded>> {
        self.aws.calls(&self.account, since)
    }

    /// A configuration for the SDK's clients, as the account's root.
    ///
    /// # Errors
    /// The local AWS's certificate cannot be read.
    pub async fn sdk(&self) -> Result<aws_config::SdkConfig> {
        self.aws.sdk(&self.account).await
    }

    /// A client of S3, with the addressing that the local AWS needs.
    ///
    /// # Errors
    /// As [`Pipeline::sdk`].
    pub async fn s3(&self) -> Result<aws_sdk_s3::Client> {
        Ok(s3(&self.sdk().await?))
    }

    /// Puts an object into the bucket.
    ///
    /// # Errors
    /// What S3 answers.
    pub async fn upload(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let request = self.s3().await?.put_object().bucket(&self.name).key(key);
        request.body(bytes.to_vec().into()).send().await.with_context(|| format!("failed to upload {key}"))?;
        Ok(())
    }

    /// All that lies in the counts table.
    ///
    /// # Errors
    /// What DynamoDB answers.
    pub async fn counts(&self) -> Result<Counts> {
        counts(&aws_sdk_dynamodb::Client::new(&self.sdk().await?), &format!("{}-counts", self.name)).await
    }

    /// Waits until the counts are these.
    ///
    /// # Errors
    /// They are not, in time; the error says what they are.
    pub async fn counted(&self, expected: &Counts) -> Result<()> {
        let started = Instant::now();
        loop {
            let found = self.counts().await?;
            if found == *expected {
                return Ok(());
            }
            ensure!(
                started.elapsed() < COUNTED,
                "expected {expected:#?}\nfound {found:#?}\nthe local AWS says:\n{}",
                self.aws.log()
            );
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A client of S3, with the addressing that the local AWS needs.
#[must_use]
pub fn s3(config: &aws_config::SdkConfig) -> aws_sdk_s3::Client {
    aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(config).force_path_style(true).build())
}

/// All that lies in a counts table.
///
/// # Errors
/// What DynamoDB answers.
pub async fn counts(client: &aws_sdk_dynamodb::Client, table: &str) -> Result<Counts> {
    let pages = client.scan().table_name(table).consistent_read(true).into_paginator().items().send();
    let items: Result<Vec<_>, _> = pages.collect().await;
    let items = items.with_context(|| format!("failed to read table {table}"))?;
    let mut counts = Counts::new();
    for item in items {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        let event = text("event").context("an item without event")?;
        let hour = text("hour").context("an item without hour")?;
        let count = item.get("count").and_then(|value: &AttributeValue| value.as_n().ok());
        counts.insert((event, hour), count.context("an item without count")?.parse()?);
    }
    Ok(counts)
}
