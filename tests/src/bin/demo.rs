//! `make demo`: deploys the whole pipeline on a local AWS, uploads sample files and counts them.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use tests::local_aws::{LocalAws, Scheme, built_program, root};
use tests::pipeline::{COUNT_TIMEOUT, counts, s3};
use tests::recount::{self, Counts};
use tests::samples;

/// Deploys pipeline.toml on a local AWS, uploads sample files, and prints the counts
#[derive(Parser)]
struct Args {
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

/// The account on the local AWS.
const ACCOUNT: &str = "123456789012";
/// The bucket's name in pipeline.toml; the name of the counts table derives from the pipeline's.
const BUCKET: &str = "acme-segment-events";
const COUNTS_TABLE: &str = "segment-events-counts";
/// The number of past months with a sample file, besides the files of the last two hours.
const MONTHS: usize = 6;

struct Demo {
    aws: LocalAws,
}

#[expect(clippy::print_stdout, reason = "this is the program's output")]
fn say(text: &str) {
    println!("{text}");
}

impl Demo {
    /// Runs the built provisioner as a user would, with its output shown.
    fn provisioner(&self, args: &[&str]) -> Result<()> {
        say(&format!("\n$ provisioner {}", args.join(" ")));
        let mut command = Command::new(built_program("provisioner")?);
        command.args(args).current_dir(root()).env("PIPELINE_ENV", "local");
        for variable in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "PIPELINE_CONFIG"] {
            command.env_remove(variable);
        }
        let status = command.envs(self.aws.variables(ACCOUNT)).status().context("failed to run the provisioner")?;
        ensure!(status.success(), "provisioner {} ended with {status}", args.join(" "));
        Ok(())
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
    let demo = Demo { aws: LocalAws::start(Scheme::Http)? };

    demo.provisioner(&["plan"])?;
    demo.provisioner(&["apply", "--yes"])?;
    demo.provisioner(&["plan"])?;

    let now = Utc::now();
    let mut samples = samples::history(args.seed, now, MONTHS, args.messages * 3);
    samples.extend(samples::generate(args.seed, now, args.files, args.messages));
    let folder = root().join("target/demo");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("failed to empty {}", folder.display()))?;
    }
    let config = demo.aws.sdk(ACCOUNT).await?;
    let s3 = s3(&config);

    say(&format!("\nUploading {} sample files; copies are in target/demo.", samples.len()));
    let mut uploaded = table(["uploaded object", "messages", "bytes"]);
    for sample in &samples {
        let copy = folder.join(&sample.key);
        fs::create_dir_all(copy.parent().unwrap_or(&folder)).context("failed to make target/demo")?;
        fs::write(&copy, &sample.bytes).with_context(|| format!("failed to write {}", copy.display()))?;
        let body = sample.bytes.clone().into();
        let request = s3.put_object().bucket(BUCKET).key(&sample.key).body(body);
        request.send().await.with_context(|| format!("failed to upload {}", sample.key))?;
        uploaded.add_row([sample.key.clone(), sample.messages.to_string(), sample.bytes.len().to_string()]);
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
        let found = counts(&dynamodb, COUNTS_TABLE).await?;
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
