//! Memory is bounded for any file. The function's memory is measured on its real process.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta};
use serde_json::json;
use tests::recount::{self, Counts};
use tests::samples::{self, gzip};

use crate::{aws, pipeline};

/// 64 MiB, half of the smallest function's memory, in the kernel's unit KiB.
const MAX_KIB: u64 = 64 * 1024;

#[tokio::test]
async fn function_with_any_object_stays_below_64_mib() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;

    // A hundred megabytes of gzip and more than 700 MB of text, as members of one file.
    let mut random = fastrand::Rng::with_seed(5);
    let begin = DateTime::UNIX_EPOCH + TimeDelta::days(16_651);
    let text: String = (0..25_000)
        .map(|_| {
            let time = begin + TimeDelta::seconds(random.i64(0..7200));
            format!("{}\n", samples::message(&mut random, time))
        })
        .collect();
    let member = gzip(text.as_bytes());
    let times = (100_000_000 / member.len() + 1) as u64;
    ensure!(text.len() as u64 * times > 700_000_000, "{} bytes of text", text.len() as u64 * times);
    let mut expected = Counts::new();
    recount::add(&mut expected, &member)?;
    expected.values_mut().for_each(|count| *count *= times);
    let file: Vec<u8> = (0..times).flat_map(|_| member.iter().copied()).collect();
    pipeline.upload("segment-logs/x/1/large.gz", &file).await?;
    pipeline.wait_for_counts(&expected).await?;

    // Forty thousand pairs are close to the limit; most of a million are counted under one name.
    let names = |count: usize| -> Vec<u8> {
        let line = |n: usize| {
            let event = format!("an event with a name of its own, {n:08}");
            format!("{}\n", json!({ "type": "track", "event": event, "timestamp": "2015-08-04T12:00:00Z" }))
        };
        gzip((0..count).map(line).collect::<String>().as_bytes())
    };
    pipeline.upload("segment-logs/x/1/million.gz", &names(1_000_000)).await?;
    let other = ("(other events)".to_owned(), "2015-08-04T12:00:00Z".to_owned());
    let started = std::time::Instant::now();
    let counts = loop {
        let counts = pipeline.counts().await?;
        let new = counts.values().sum::<u64>() - expected.values().sum::<u64>();
        if new == 1_000_000 {
            break counts;
        }
        ensure!(started.elapsed() < 4 * tests::pipeline::COUNT_TIMEOUT, "only {new} of a million are counted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    ensure!(counts.get(&other).is_some_and(|count| *count > 900_000), "{:?}", counts.get(&other));
    let status = pipeline.run(&["status"])?.out;
    ensure!(status.contains("PairsOverflowed"), "{status}");
    expected = counts;
    let many = names(40_000);
    recount::add(&mut expected, &many)?;
    pipeline.upload("segment-logs/x/1/many.gz", &many).await?;
    pipeline.wait_for_counts(&expected).await?;

    // A line of a mebibyte of small nested maps, which a JSON value would need a hundred times as much for.
    let maps = (0..90_000).map(|n| format!(r#""{n:x}":{{}}"#)).collect::<Vec<_>>().join(",");
    let nested =
        format!(r#"{{"type":"track","event":"n\u0065sted","timestamp":"2015-08-04T12:00:00Z","x":{{{maps}}}}}"#);
    ensure!(nested.len() < 1024 * 1024, "{} bytes", nested.len());
    let nested = gzip(nested.as_bytes());
    recount::add(&mut expected, &nested)?;
    pipeline.upload("segment-logs/x/1/nested.gz", &nested).await?;
    pipeline.wait_for_counts(&expected).await?;

    let peak = aws()?.function_peak_memory()?;
    ensure!(peak < MAX_KIB, "a function used {peak} KiB");
    Ok(())
}

#[test]
fn rollup_of_a_decompression_bomb_stays_below_64_mib() -> Result<()> {
    // A message, then a line of ten gigabytes of zeros in ten megabytes of gzip.
    let message = gzip(b"{\"type\":\"track\",\"event\":\"Signed Up\",\"timestamp\":\"2015-08-04T12:00:00Z\"}\n");
    let member = gzip(&vec![0; 100_000_000]);
    let pipeline = pipeline()?;
    let mut command = pipeline.command(&["rollup", "--count", "track", "-"])?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("standard input")?;
    let writer = std::thread::spawn(move || {
        stdin.write_all(&message).and_then(|()| (0..100).try_for_each(|_| stdin.write_all(&member)))
    });

    let mut peak = 0;
    while child.try_wait()?.is_none() {
        // The kernel keeps the peak; only growth after the last read is missed, 5 ms at most.
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let now = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = now.and_then(|now| now.trim().strip_suffix("kB")?.trim().parse().ok());
        peak = peak.max(now.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("Signed Up"), "{output:?}");
    ensure!(String::from_utf8_lossy(&output.stderr).contains("1 of 2 lines skipped (too_long=1)"), "{output:?}");
    ensure!(peak > 0 && peak < MAX_KIB, "rollup used {peak} KiB");
    Ok(())
}
