//! Sample files in Segment's format, generated from a seed: the same seed and times produce the same bytes.

use std::io::Write as _;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use fastrand::Rng;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

/// Event names as users choose them: with spaces, quotes, and in other scripts.
const EVENTS: [&str; 8] = [
    "Order Completed",
    "Signed Up",
    "Product Viewed",
    "Clicked \"Buy now\"",
    "Größe gewählt",
    "注文を確定しました",
    "it's a \\ backslash",
    "🎉 Level Up",
];

/// The beginning of the keys: Segment's folder.
pub const FOLDER: &str = "segment-logs/";

/// A file: the key that Segment would give it, and its gzipped bytes.
pub struct Sample {
    /// `segment-logs/{source}/{day in epoch milliseconds}/{name}.gz`
    pub key: String,
    /// Gzip of one JSON object per line.
    pub bytes: Vec<u8>,
    /// The number of messages of all types.
    pub messages: usize,
}

/// Generates `files` files of `messages` messages each, from the hour of `now` and the hour before.
#[must_use]
pub fn generate(seed: u64, now: DateTime<Utc>, files: usize, messages: usize) -> Vec<Sample> {
    let mut rng = Rng::with_seed(seed);
    // No message is in the future, and both hours have messages.
    let minutes = now.timestamp().rem_euclid(3600) / 60 + 60;
    (0..files).map(|file| sample_file(&mut rng, file, now, minutes * 60, messages)).collect()
}

/// Generates a file for each of the last `months` months of 30 days before `now`. The first file has `messages`
/// messages, each later one more, as in a growing business.
#[must_use]
pub fn history(seed: u64, now: DateTime<Utc>, months: usize, messages: usize) -> Vec<Sample> {
    let mut rng = Rng::with_seed(seed);
    let month = Duration::days(30);
    let ends = (1..=months).rev().map(|ago| now - month * i32::try_from(ago).unwrap_or(0));
    ends.enumerate()
        .map(|(n, begin)| {
            let messages = messages + n * messages * 2 / 5 + rng.usize(0..=messages / 4);
            sample_file(&mut rng, n, begin + month, month.num_seconds(), messages)
        })
        .collect()
}

/// Generates the file with this number; its messages are at most `seconds` before `end`.
fn sample_file(rng: &mut Rng, number: usize, end: DateTime<Utc>, seconds: i64, messages: usize) -> Sample {
    let mut text = Vec::new();
    for _ in 0..messages {
        let time = end - Duration::seconds(rng.i64(0..=seconds));
        let line = message(rng, time);
        text.extend_from_slice(line.to_string().as_bytes());
        text.push(b'\n');
    }
    let day = end.timestamp().div_euclid(86_400) * 86_400_000;
    let source = ["VhBYQcAjH5", "q7PzMKdW2n"][number % 2];
    let name: String = (0..12).map(|_| rng.alphanumeric()).collect();
    Sample { key: format!("{FOLDER}{source}/{day}/{name}.{number}.gz"), bytes: gzip(&text), messages }
}

/// Generates a message with all fields that Segment writes.
#[must_use]
pub fn message(rng: &mut Rng, time: DateTime<Utc>) -> Value {
    let stamp = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let id = |rng: &mut Rng| -> String { (0..24).map(|_| rng.alphanumeric()).collect() };
    let mut message = json!({
        "anonymousId": id(rng),
        "context": {
            "campaign": { "medium": "email", "name": "Summer \u{2600}", "source": "newsletter" },
            "ip": format!("192.0.2.{}", rng.u8(..)),
            "library": { "name": "analytics.js", "version": "2.1.0" },
            "locale": "en-US",
            "page": { "path": "/", "referrer": "", "title": "Example", "url": "https://www.example.com/" },
            "timezone": "Europe/Berlin",
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Safari/537.36",
        },
        "integrations": { "Amplitude": { "session_id": time.timestamp_millis() } },
        "messageId": format!("ajs-{}", id(rng)),
        "originalTimestamp": stamp(time),
        "receivedAt": stamp(time + Duration::milliseconds(rng.i64(100..2000))),
        "sentAt": stamp(time + Duration::milliseconds(rng.i64(0..100))),
        "timestamp": stamp(time),
        "userId": if rng.bool() { json!(id(rng)) } else { Value::Null },
        "version": 2,
    });
    // Four in five are track messages; as in real data, a few names make up most of the events.
    let kind = if rng.u8(0..5) > 0 { "track" } else { ["identify", "page", "screen", "group"][rng.usize(0..4)] };
    message["type"] = json!(kind);
    match kind {
        "track" => {
            let range = rng.usize(1..=EVENTS.len());
            message["event"] = json!(EVENTS[rng.usize(0..range)]);
            message["properties"] = json!({
                "event": "a property of the same name",
                "revenue": f64::from(rng.u32(100..100_000)) / 100.0,
                "note": "quotes \" and \\ and \u{1f600}",
            });
        }
        "identify" => message["traits"] = json!({ "email": "person@example.com", "plan": "premium" }),
        _ => message["properties"] = json!({ "name": "Home" }),
    }
    message
}

/// Compresses a text without file name and time, so that the bytes depend on the text alone.
#[must_use]
pub fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}
