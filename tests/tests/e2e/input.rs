//! Input that is a little odd: every message is counted, skipped with a reason that `status` shows, or its object fails.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::recount::Counts;
use tests::samples::gzip;

use crate::common::{HOUR, failure_messages, run_json, track};
use crate::pipeline;

/// Returns the count that a file with one message of `event` must have.
fn one(event: &str) -> ((String, String), u64) {
    ((event.to_owned(), HOUR.to_owned()), 1)
}

#[tokio::test]
async fn messages_in_every_readable_form_are_counted() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.expect(0, &["apply", "--yes"])?;
    let message = |event: &str| track(event);
    let compressed = |text: &str| zstd::encode_all(text.as_bytes(), 3);
    let with = |kind: &str, event: &str, time: (&str, &str)| {
        json!({ "type": kind, "event": event, "timestamp": time.0, "receivedAt": time.1 }).to_string()
    };
    let files: Vec<(&str, Vec<u8>, Vec<&str>)> = vec![
        ("twice", gzip(&gzip(message("twice").as_bytes())), vec!["twice"]),
        ("array", gzip(format!("[{},\n {}]", message("in"), message("array")).as_bytes()), vec!["in", "array"]),
        ("joined", gzip([message("joined"), message("behind")].concat().as_bytes()), vec!["joined", "behind"]),
        ("cr", gzip([message("cr"), message("only")].join("\r").as_bytes()), vec!["cr", "only"]),
        ("crlf", gzip([message("crlf"), message("too")].join("\r\n").as_bytes()), vec!["crlf", "too"]),
        ("zstd", compressed(&(message("zstd") + "\n"))?, vec!["zstd"]),
        ("zstd-in-gzip", gzip(&compressed(&message("nested"))?), vec!["nested"]),
        ("plain", message("plain").into_bytes(), vec!["plain"]),
        (
            "seam",
            [gzip(message("before").as_bytes()), gzip(message("after").as_bytes())].concat(),
            vec!["before", "after"],
        ),
        ("surrogate", gzip(message("odd").replacen('{', "{\"x\":\"\\ud83d\",", 1).as_bytes()), vec!["odd"]),
        (
            "case",
            gzip([with("Track", "title", (HOUR, HOUR)), with("TRACK", "upper", (HOUR, HOUR))].join("\n").as_bytes()),
            vec!["title", "upper"],
        ),
        ("time", gzip(with("track", "received", ("2015-08-04 14:00", HOUR)).as_bytes()), vec!["received"]),
        (
            "limits",
            gzip(
                [
                    with("track", "early", ("2014-08-04T12:00:00Z", HOUR)),
                    with("track", "late", ("2030-01-01T00:00:00Z", HOUR)),
                    with("track", "in time", (HOUR, "2015-10-04T12:00:00Z")),
                ]
                .join("\n")
                .as_bytes(),
            ),
            vec!["early", "late", "in time"],
        ),
    ];
    let mut expected = Counts::new();
    for (key, bytes, events) in &files {
        expected.extend(events.iter().map(|event| one(event)));
        pipeline.upload(&format!("segment-logs/x/1/{key}.gz"), bytes).await?;
    }
    pipeline.wait_for_counts(&expected).await?;
    // The command line counts the same.
    for (key, bytes, _) in &files {
        std::fs::write(pipeline.config().with_file_name(key), bytes)?;
    }
    let names: Vec<&str> = files.iter().map(|(key, ..)| *key).collect();
    let run = pipeline.expect(0, &[&["rollup"][..], &names].concat())?;
    let lines: String = expected.iter().map(|((event, hour), n)| format!("{event}\t{hour}\t{n}\n")).collect();
    ensure!(run.out == lines, "{} is not {lines}", run.out);
    ensure!(run.err.contains("time: messages by another time: receivedAt=1"), "{}", run.err);
    ensure!(
        run.err.contains("limits: messages counted when they were received") && run.err.contains("late: 2"),
        "{}",
        run.err
    );
    Ok(())
}

#[tokio::test]
async fn object_without_messages_fails_and_skipped_lines_are_reported() -> Result<()> {
    let pipeline = pipeline()?;
    pipeline.declare("[notification]\nvia = \"function\"\n[function]\nretries = 0")?;
    pipeline.expect(0, &["apply", "--yes"])?;
    // Lines that are no messages are skipped, and `status` says so.
    let text = format!("{}\nnot json\n{}\n", track("good"), json!({ "type": "page", "name": "Home" }));
    pipeline.upload("segment-logs/x/1/skips.gz", &gzip(text.as_bytes())).await?;
    pipeline.wait_for_counts(&Counts::from([one("good")])).await?;
    let status = run_json(&pipeline, 3, &["status"])?;
    let errors = status["errors"].to_string();
    ensure!(errors.contains("LinesSkipped") && errors.contains("skips.gz"), "{status}");
    pipeline.expect(0, &["dashboard", "--out", "page.html"])?;
    let page = std::fs::read_to_string(pipeline.config().with_file_name("page.html"))?;
    ensure!(page.contains("Objects of the last day with skipped lines") && page.contains("/skips.gz#"), "{page}");

    let utf16: Vec<u8> = track("utf16").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let files: [(&str, Vec<u8>); 6] = [
        ("utf16", gzip(&utf16)),
        ("bzip2", b"BZh91AY&SY\x01\x02\x03\x04".to_vec()),
        ("xz", b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F".to_vec()),
        ("csv", gzip(b"event,time\nSigned Up,2015-08-04T12:00:00Z\n")),
        ("html", gzip(b"<html><body>Access Denied</body></html>")),
        ("thrice", gzip(&gzip(&gzip(track("deep").as_bytes())))),
    ];
    for (key, bytes) in &files {
        pipeline.upload(&format!("segment-logs/x/1/{key}.gz"), bytes).await?;
    }
    let bodies = failure_messages(&pipeline, files.len()).await?;
    for (key, _) in &files {
        let found = bodies.iter().find(|body| body["requestPayload"].to_string().contains(key));
        let payload = &found.with_context(|| format!("{key} is not in {bodies:?}"))?["responsePayload"];
        ensure!(payload["errorType"] == "NotMessages" || payload["errorType"] == "ObjectDamaged", "{key}: {payload}");
    }
    ensure!(pipeline.counts().await? == Counts::from([one("good")]), "something was counted");
    Ok(())
}
