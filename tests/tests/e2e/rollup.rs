//! `provisioner rollup`: counts local files with the function's code.

use anyhow::{Result, ensure};
use chrono::Utc;
use serde_json::{Value, json};
use tests::recount::{self, Counts};
use tests::samples::{self, gzip};

use crate::pipeline;

#[test]
fn rollup_of_local_files_prints_sorted_counts() -> Result<()> {
    let pipeline = pipeline()?;
    let folder = pipeline.config().with_file_name("files");
    std::fs::create_dir(&folder)?;
    let mut expected = Counts::new();
    let mut args = vec!["rollup".to_owned()];
    for (n, sample) in samples::generate(9, Utc::now(), 3, 100).iter().enumerate() {
        recount::add(&mut expected, &sample.bytes)?;
        let path = folder.join(n.to_string());
        std::fs::write(&path, &sample.bytes)?;
        args.push(path.display().to_string());
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let tsv = pipeline.expect(0, &args)?.out;
    let lines: Vec<String> =
        expected.iter().map(|((event, hour), n)| format!("{}\t{hour}\t{n}\n", event.replace('\\', "\\\\"))).collect();
    ensure!(tsv == lines.concat(), "{tsv}");
    let json: Value = serde_json::from_str(&pipeline.expect(0, &[&args[..], &["--format", "json"]].concat())?.out)?;
    let rows: Vec<Value> =
        expected.iter().map(|((event, hour), n)| json!({ "event": event, "hour": hour, "count": n })).collect();
    ensure!(json == json!(rows), "{json}");
    Ok(())
}

#[test]
fn rollup_of_hostile_names_escapes_them() -> Result<()> {
    let pipeline = pipeline()?;
    let path = pipeline.config().with_file_name("file");
    let line = json!({ "type": "track", "event": "a\tb\nc\\d\u{1b}[31m", "timestamp": "2015-08-04T12:00:00Z" });
    std::fs::write(&path, line.to_string())?;
    let file = path.display().to_string();
    let tsv = pipeline.expect(0, &["rollup", &file])?.out;
    ensure!(tsv == "a\\tb\\nc\\\\d\\u{1b}[31m\t2015-08-04T12:00:00Z\t1\n", "{tsv}");
    let table = pipeline.expect(0, &["rollup", &file, "--format", "table"])?.out;
    ensure!(!table.contains('\u{1b}'), "{table}");
    Ok(())
}

#[test]
fn rollup_with_a_damaged_file_names_it_and_prints_the_others() -> Result<()> {
    let pipeline = pipeline()?;
    let good =
        gzip(json!({ "type": "track", "event": "e", "timestamp": "2015-08-04T12:00:00Z" }).to_string().as_bytes());
    let path = |name: &str| pipeline.config().with_file_name(name);
    std::fs::write(path("good.gz"), &good)?;
    std::fs::write(path("cut.gz"), &good[..good.len() - 9])?;
    let run = pipeline.expect(1, &["rollup", "cut.gz", "good.gz", "gone.gz"])?;
    ensure!(run.out == "e\t2015-08-04T12:00:00Z\t1\n", "{run:?}");
    ensure!(run.err.contains("inflate cut.gz") && run.err.contains("read gone.gz"), "{run:?}");
    Ok(())
}
