//! `make demo`: deploys the whole pipeline on a local AWS, uploads sample files and counts them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aws_config::Region;
use chrono::Utc;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value as Json;
use tests::local_aws::{LocalAws, Scheme, built_program, root};
use tests::pipeline::{COUNT_TIMEOUT, counts, s3};
use tests::recount::{self, Counts};
use tests::samples;

/// Deploys a pipeline on a local AWS, uploads sample files, and prints the counts
#[derive(Parser)]
struct Args {
    /// File with the desired state
    #[arg(long, default_value = "pipeline.toml")]
    config: PathBuf,
    /// Seed of the sample files
    #[arg(long, default_value_t = 2015)]
    seed: u64,
    /// Number of files to upload
    #[arg(long, default_value_t = 6)]
    files: usize,
    /// Number of messages in each file
    #[arg(long, default_value_t = 500)]
    messages: usize,
}

/// The account on the local AWS, unless pipeline.toml names one.
const ACCOUNT: &str = "123456789012";
/// The environment of `pipeline.toml` for a local AWS.
const ENVIRONMENT: &str = "local";
/// The number of past months with a sample file, besides the files of the last two hours.
const MONTHS: usize = 6;

struct Demo {
    aws: LocalAws,
    /// The declaration, with the environment for this machine.
    file: String,
    account: String,
}

#[expect(clippy::print_stdout, reason = "this is the program's output")]
fn say(text: &str) {
    println!("{text}");
}

/// The handler as `make handler` builds it, which the demo replaces by the one that is built with this program.
const BUILT: &str = "target/lambda/bootstrap";

/// Returns the section at a key of a table; a new one if there is none.
fn section<'a>(table: &'a mut toml::Table, key: &str) -> Result<&'a mut toml::Table> {
    let section = table.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    section.as_table_mut().with_context(|| format!("{key} in the file is not a section"))
}

/// Returns the text of a key, which the environment may override.
fn declared(file: &toml::Table, section: &str, key: &str) -> Option<String> {
    let local = file.get("environments").and_then(|all| all.get(ENVIRONMENT));
    let of = |table: &toml::Value| table.get(section)?.get(key)?.as_str().map(str::to_owned);
    local.and_then(of).or_else(|| file.get(section)?.get(key)?.as_str().map(str::to_owned))
}

/// Returns a file for this machine, and the account in it. The local AWS runs the function on this processor and speaks
/// plain HTTP, the samples end as Segment's files do, and the recount knows the names of `track` messages only.
fn declaration(path: &Path) -> Result<(String, String)> {
    let text = fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut file: toml::Table = text.parse().with_context(|| format!("failed to parse {}", path.display()))?;
    let account = declared(&file, "pipeline", "account").unwrap_or_else(|| ACCOUNT.to_owned());
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    let is_usual = declared(&file, "function", "artifact").is_none_or(|artifact| artifact == BUILT);
    let local = section(section(&mut file, "environments")?, ENVIRONMENT)?;
    section(local, "bucket")?.insert("require_tls".to_owned(), false.into());
    section(local, "notification")?.insert("suffix".to_owned(), ".gz".into());
    section(local, "rollup")?.insert("count".to_owned(), vec!["track"].into());
    let function = section(local, "function")?;
    function.insert("architecture".to_owned(), architecture.into());
    if is_usual {
        function.insert("artifact".to_owned(), built_program("bootstrap")?.display().to_string().into());
    }
    Ok((toml::to_string(&file)?, account))
}

impl Demo {
    /// Returns a command of the built provisioner, which reads the file from its standard input.
    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(built_program("provisioner")?);
        command.args(args).current_dir(root()).stdin(Stdio::piped());
        command.env("PIPELINE_CONFIG", "-").env("PIPELINE_ENV", ENVIRONMENT);
        for variable in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"] {
            command.env_remove(variable);
        }
        command.envs(self.aws.variables(&self.account));
        Ok(command)
    }

    /// Runs a command, and returns its output unless it is shown.
    fn run(&self, args: &[&str], mut command: Command) -> Result<Vec<u8>> {
        let mut child = command.spawn().context("failed to run the provisioner")?;
        // A program that ends early does not read the file; its exit code says why.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(self.file.as_bytes()));
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "provisioner {} ended with {}", args.join(" "), output.status);
        Ok(output.stdout)
    }

    /// Runs the built provisioner as a user would, with its output shown.
    fn provisioner(&self, args: &[&str]) -> Result<()> {
        say(&format!("\n$ provisioner {}", args.join(" ")));
        self.run(args, self.command(args)?).map(drop)
    }

    /// Returns the names of what is declared.
    fn outputs(&self) -> Result<Json> {
        let args = ["outputs", "--format", "json"];
        let mut command = self.command(&args)?;
        command.stdout(Stdio::piped());
        serde_json::from_slice(&self.run(&args, command)?).context("failed to parse the outputs")
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let started = Instant::now();
    // A signal drops the future, and with it the local AWS.
    tokio::select! {
        result = demo(&args) => result?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
    say(&format!(
        "\nThe demo took {:.1} s, and every process that it started is stopped.",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

async fn demo(args: &Args) -> Result<()> {
    say("Starting a local AWS, with IAM enforced.");
    let (file, account) = declaration(&args.config)?;
    let demo = Demo { aws: LocalAws::start(Scheme::Http)?, file, account };

    demo.provisioner(&["plan"])?;
    demo.provisioner(&["apply", "--yes"])?;
    demo.provisioner(&["plan"])?;

    let outputs = demo.outputs()?;
    let named = |path: &str| outputs.pointer(path).and_then(Json::as_str).map(str::to_owned).context("outputs");
    let (bucket, counts_table) = (named("/bucket/name")?, named("/tables/counts/name")?);
    let prefix = named("/bucket/prefix")?;

    let now = Utc::now();
    let mut samples = samples::history(args.seed, now, MONTHS, args.messages * 3);
    samples.extend(samples::generate(args.seed, now, args.files, args.messages));
    let folder = root().join("target/demo");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("failed to empty {}", folder.display()))?;
    }
    let config = demo.aws.sdk(&demo.account).await?.into_builder().region(Region::new(named("/region")?)).build();
    let s3 = s3(&config);

    say(&format!("\nUploading {} sample files; copies are in target/demo.", samples.len()));
    let mut uploaded = table(["uploaded object", "messages", "bytes"]);
    for sample in &samples {
        let copy = folder.join(&sample.key);
        fs::create_dir_all(copy.parent().unwrap_or(&folder)).context("failed to make target/demo")?;
        fs::write(&copy, &sample.bytes).with_context(|| format!("failed to write {}", copy.display()))?;
        let body = sample.bytes.clone().into();
        let key = sample.key.replacen(samples::FOLDER, &prefix, 1);
        let request = s3.put_object().bucket(&bucket).key(&key).body(body);
        request.send().await.with_context(|| format!("failed to upload {key}"))?;
        uploaded.add_row([key, sample.messages.to_string(), sample.bytes.len().to_string()]);
    }
    say(&uploaded.to_string());

    let mut expected = Counts::new();
    for sample in &samples {
        let copy = fs::read(folder.join(&sample.key)).context("failed to read a sample back")?;
        recount::add(&mut expected, &copy)?;
    }
    let counting = Instant::now();
    let dynamodb = aws_sdk_dynamodb::Client::new(&config);
    let found = loop {
        let found = counts(&dynamodb, &counts_table).await?;
        if found == expected || counting.elapsed() > COUNT_TIMEOUT {
            break found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    // A difference is reported by the comparison below.
    if found == expected {
        say(&format!("All of them were counted {:.1} s after the last upload.", counting.elapsed().as_secs_f64()));
    }

    demo.provisioner(&["top", "--last", "2h"])?;
    say("\nHow many purchases did I get in the past hour?");
    demo.provisioner(&["query", "Order Completed", "--last", "1h"])?;
    say("\nAre my sign-ups increasing month over month?");
    demo.provisioner(&["query", "Signed Up", "--last", "6mo", "--by", "month", "--compare"])?;
    demo.provisioner(&["dashboard", "--out", "target/demo/dashboard.html", "--last", "30d", "--compare"])?;
    demo.provisioner(&["verify"])?;
    demo.provisioner(&["status"])?;

    say("\nRecent events by hour, as counted by the function and as recounted from the files:");
    let mut compared = table(["event", "hour (UTC)", "counted", "recounted"]);
    let late = (now - chrono::Duration::hours(2)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    for (pair, recounted) in expected.iter().filter(|((_, hour), _)| *hour > late) {
        let counted = found.get(pair).copied().unwrap_or(0);
        compared.add_row([pair.0.clone(), pair.1.clone(), counted.to_string(), recounted.to_string()]);
    }
    say(&compared.to_string());
    say(&format!("All {} of the past {MONTHS} months were compared.", expected.len()));
    ensure!(found == expected, "the counts differ from the recount; log of the local AWS:\n{}", demo.aws.log());
    say("They are equal.");
    Ok(())
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header);
    for column in 1..N {
        if let Some(numbers) = table.column_mut(column) {
            numbers.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
