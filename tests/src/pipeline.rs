//! A pipeline on the local AWS: a folder with a `pipeline.toml`, its own account, the built `provisioner`, and clients.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use tempfile::TempDir;

use crate::local_aws::{LocalAws, REGION, RecordedCall, built_program, root};
use crate::recount::Counts;

/// The resources of a pipeline that declares nothing optional, by kind, in the order in which a plan lists them.
pub const KINDS: [&str; 12] = [
    "bucket",
    "table",
    "table",
    "table",
    "role",
    "log group",
    "queue",
    "queue",
    "function",
    "permission",
    "event source mapping",
    "notification",
];
/// The number of resources of such a pipeline.
pub const RESOURCES: usize = KINDS.len();
/// The number of these that hold data initially (bucket and tables), which `destroy` keeps by default.
pub const DATA_RESOURCES: usize = 4;
/// The timeout for a count. Counting a file takes a fraction of a second, and longer on a busy machine.
pub const COUNT_TIMEOUT: Duration = Duration::from_secs(120);
/// The pause between two reads of the counts.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A pipeline in an account of its own.
pub struct Pipeline<'a> {
    aws: &'a LocalAws,
    folder: TempDir,
    /// The account, which holds no other pipeline.
    pub account: String,
    /// The name, from which the names of all its resources are derived.
    pub name: String,
}

/// The exit code and output of a command.
#[derive(Debug)]
pub struct CommandOutput {
    /// Exit code; `None` if a signal ended the command.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl CommandOutput {
    /// Converts the output of a process.
    #[must_use]
    pub fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl<'a> Pipeline<'a> {
    /// Declares a pipeline in an account whose last digits are `number`. Creates no resources.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn new(aws: &'a LocalAws, number: u32) -> Result<Self> {
        let account = format!("{:012}", 100_000_000_000_u64 + u64::from(number));
        let folder = TempDir::with_prefix("pipeline-").context("failed to create a temporary folder")?;
        let pipeline = Self { aws, folder, name: format!("events-{number}"), account };
        pipeline.declare("")?;
        Ok(pipeline)
    }

    /// Writes `pipeline.toml`: the defaults for tests, overridden and extended by `more`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn declare(&self, more: &str) -> Result<()> {
        let (name, artifact) = (&self.name, root().join("target/lambda/bootstrap"));
        let mut file = format!("[pipeline]\nname = \"{name}\"\nregion = \"{REGION}\"\n");
        // The local AWS speaks plain HTTP.
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

    /// Returns the path of `pipeline.toml`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    /// Returns a command for the built `provisioner`, with an environment of this pipeline's account only.
    ///
    /// # Errors
    /// The program is not built.
    pub fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(built_program("provisioner")?);
        command.env_clear().envs(self.aws.variables(&self.account)).current_dir(self.folder.path());
        command.env("HOME", self.folder.path()).args(args);
        Ok(command)
    }

    /// Runs the built `provisioner`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn run(&self, args: &[&str]) -> Result<CommandOutput> {
        let output = self.command(args)?.output().context("failed to run the provisioner")?;
        Ok(CommandOutput::of(&output))
    }

    /// Runs the built `provisioner` and checks its exit code.
    ///
    /// # Errors
    /// The program exits with another code.
    pub fn expect(&self, code: i32, args: &[&str]) -> Result<CommandOutput> {
        let run = self.run(args)?;
        ensure!(
            run.code == Some(code),
            "provisioner {args:?} exited with {:?}, not {code}\n{}\n{}\n{}",
            run.code,
            run.out,
            run.err,
            self.aws.log()
        );
        Ok(run)
    }

    /// Returns the calls that the account's root has made since `since`, as recorded by the local AWS.
    ///
    /// # Errors
    /// The local AWS does not return them.
    pub fn calls(&self, since: SystemTime) -> Result<Vec<RecordedCall>> {
        self.aws.calls(&self.account, since)
    }

    /// Returns a configuration for the SDK's clients, as the account's root.
    ///
    /// # Errors
    /// The local AWS's certificate cannot be read.
    pub async fn sdk(&self) -> Result<aws_config::SdkConfig> {
        self.aws.sdk(&self.account).await
    }

    /// Returns an S3 client with the addressing that the local AWS needs.
    ///
    /// # Errors
    /// As [`Pipeline::sdk`].
    pub async fn s3(&self) -> Result<aws_sdk_s3::Client> {
        Ok(s3(&self.sdk().await?))
    }

    /// Puts an object into the bucket.
    ///
    /// # Errors
    /// S3 returns an error.
    pub async fn upload(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let request = self.s3().await?.put_object().bucket(&self.name).key(key);
        request.body(bytes.to_vec().into()).send().await.with_context(|| format!("failed to upload {key}"))?;
        Ok(())
    }

    /// Returns all counts in the counts table.
    ///
    /// # Errors
    /// DynamoDB returns an error.
    pub async fn counts(&self) -> Result<Counts> {
        counts(&aws_sdk_dynamodb::Client::new(&self.sdk().await?), &format!("{}-counts", self.name)).await
    }

    /// Returns all counts in the daily table, by event and day.
    ///
    /// # Errors
    /// DynamoDB returns an error.
    pub async fn daily(&self) -> Result<Counts> {
        let client = aws_sdk_dynamodb::Client::new(&self.sdk().await?);
        items(&client, &format!("{}-daily", self.name), "day").await
    }

    /// Waits until the counts equal `expected`, by the hour and by the day.
    ///
    /// # Errors
    /// They still differ after [`COUNT_TIMEOUT`]; the error shows both.
    pub async fn wait_for_counts(&self, expected: &Counts) -> Result<()> {
        let started = Instant::now();
        loop {
            let (found, days) = (self.counts().await?, self.daily().await?);
            if found == *expected && days == by_day(expected) {
                return Ok(());
            }
            ensure!(
                started.elapsed() < COUNT_TIMEOUT,
                "expected {expected:#?}\nfound {found:#?}\nby day {days:#?}\nlog of the local AWS:\n{}",
                self.aws.log()
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Returns an S3 client with the addressing that the local AWS needs.
#[must_use]
pub fn s3(config: &aws_config::SdkConfig) -> aws_sdk_s3::Client {
    aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(config).force_path_style(true).build())
}

/// Returns all counts in a counts table.
///
/// # Errors
/// DynamoDB returns an error.
pub async fn counts(client: &aws_sdk_dynamodb::Client, table: &str) -> Result<Counts> {
    items(client, table, "hour").await
}

/// Returns the sums of each event and UTC day.
#[must_use]
pub fn by_day(counts: &Counts) -> Counts {
    let mut days = Counts::new();
    for ((event, hour), count) in counts {
        *days.entry((event.clone(), hour.chars().take(10).collect())).or_default() += count;
    }
    days
}

/// Returns the count of each event and time, which is the attribute `time`.
async fn items(client: &aws_sdk_dynamodb::Client, table: &str, time: &str) -> Result<Counts> {
    let pages = client.scan().table_name(table).consistent_read(true).into_paginator().items().send();
    let items: Result<Vec<_>, _> = pages.collect().await;
    let items = items.with_context(|| format!("failed to read table {table}"))?;
    let mut counts = Counts::new();
    for item in items {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        let event = text("event").context("an item without event")?;
        let time = text(time).with_context(|| format!("an item without {time}"))?;
        let count = item.get("count").and_then(|value: &AttributeValue| value.as_n().ok());
        counts.insert((event, time), count.context("an item without count")?.parse()?);
    }
    Ok(counts)
}
