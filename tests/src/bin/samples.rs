//! Generates a large sample file for benchmarks.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::{Context, Result};
use chrono::{DateTime, Duration};
use clap::Parser;
use fastrand::Rng;
use flate2::{Compression, GzBuilder};
use tests::samples;

/// Writes a gzipped file of messages in Segment's format; the same seed gives the same bytes
#[derive(Parser)]
struct Args {
    /// File to write
    out: PathBuf,
    /// Number of messages
    #[arg(long, default_value_t = 300_000)]
    messages: usize,
    /// Seed of the messages
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let file = File::create(&args.out).with_context(|| format!("failed to create {}", args.out.display()))?;
    let mut gzip = GzBuilder::new().write(BufWriter::new(file), Compression::default());
    let mut rng = Rng::with_seed(args.seed);
    let begin = DateTime::UNIX_EPOCH + Duration::days(16_651);
    for _ in 0..args.messages {
        // Two hours, as in a file that is delivered late.
        let time = begin + Duration::milliseconds(rng.i64(0..2 * 3_600_000));
        writeln!(gzip, "{}", samples::message(&mut rng, time)).context("failed to write")?;
    }
    gzip.finish().and_then(|mut file| file.flush()).context("failed to write")
}
