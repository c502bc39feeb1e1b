//! An independent recount of files: simple, slow, and built on different crates from the handler's.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, SubsecRound, Timelike, Utc};
use flate2::read::MultiGzDecoder;
use serde_json::Value;

/// Counts by event and hour.
pub type Counts = BTreeMap<(String, String), u64>;

/// Adds the track messages of one gzipped file.
///
/// # Errors
/// The file is not gzip, or a line is not in Segment's format.
pub fn add(counts: &mut Counts, gzipped: &[u8]) -> Result<()> {
    let mut text = String::new();
    MultiGzDecoder::new(gzipped).read_to_string(&mut text).context("not a gzip file")?;
    for line in text.lines() {
        let message: Value = serde_json::from_str(line).context("not a line of JSON")?;
        if message["type"] != "track" {
            continue;
        }
        let event = message["event"].as_str().context("a track message without an event")?;
        let time = message["timestamp"].as_str().context("a message without a timestamp")?;
        let time = DateTime::parse_from_rfc3339(time).context("an invalid timestamp")?.with_timezone(&Utc);
        let hour = time.trunc_subsecs(0).with_minute(0).and_then(|t| t.with_second(0)).context("an invalid hour")?;
        let hour = hour.to_rfc3339_opts(SecondsFormat::Secs, true);
        *counts.entry((event.to_owned(), hour)).or_default() += 1;
    }
    Ok(())
}
