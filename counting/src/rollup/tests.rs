//! Tests of the rollup against a plain reference, on irregular files, split at every byte.

use std::io::Write as _;

use chrono::{DateTime, Timelike, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::*;

/// Returns the pair or the skip reason of one line, computed plainly with serde_json and chrono.
fn reference(line: &[u8], types: &BTreeSet<String>) -> Result<(String, String), Skip> {
    let line = std::str::from_utf8(line).map_err(|_| Skip::NotJson)?;
    serde_json::from_str::<IgnoredAny>(line).map_err(|_| Skip::NotJson)?;
    if !line.trim_start().starts_with('{') {
        return Err(Skip::NotAnObject);
    }
    // A map keeps only one of two equal keys, so the members are read again as a list.
    struct Keys;
    impl<'de> Visitor<'de> for Keys {
        type Value = Vec<(Box<RawValue>, Box<RawValue>)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(entry) = map.next_entry()? {
                all.push(entry);
            }
            Ok(all)
        }
    }
    let members = serde_json::Deserializer::from_str(line).deserialize_map(Keys).map_err(|_| Skip::NotJson)?;
    let text = |key: &str| {
        let found: Vec<&str> =
            members.iter().filter(|(name, _)| decoded(name.get()) == key).map(|(_, value)| value.get()).collect();
        match found.as_slice() {
            [] | ["null"] => Ok(None),
            [text] if text.starts_with('"') => Ok(Some(decoded(text))),
            [_] => Err(Skip::WrongType),
            _ => Err(Skip::DuplicateKey),
        }
    };
    let kind = text("type")?.ok_or(Skip::NoType)?.to_ascii_lowercase();
    if !types.contains(&kind) {
        return Err(Skip::OtherType);
    }
    let name = if kind == "track" { text("event")?.ok_or(Skip::NoEvent)? } else { kind };
    if name.is_empty() {
        return Err(Skip::EmptyName);
    }
    let mut skip = Skip::NoTime;
    for field in TIMES {
        match text(field) {
            Ok(None) => {}
            Ok(Some(time)) => match hour(&time) {
                Some(hour) => return Ok((name_in_table(&name).into_owned(), hour)),
                None => skip = Skip::BadTime,
            },
            Err(_) => skip = Skip::BadTime,
        }
    }
    Err(skip)
}

fn hour(time: &str) -> Option<String> {
    let time = DateTime::parse_from_rfc3339(time).ok()?.with_timezone(&Utc);
    let hour = format!("{}T{:02}:00:00Z", time.date_naive(), time.hour());
    (hour.len() == 20).then_some(hour)
}

/// Decodes a JSON string by UTF-16 units, with U+FFFD for lone surrogates.
fn decoded(quoted: &str) -> String {
    let mut units = Vec::new();
    let mut rest = quoted[1..quoted.len() - 1].chars();
    while let Some(c) = rest.next() {
        let escape = if c == '\\' { rest.next() } else { None };
        if escape == Some('u') {
            let digits: String = rest.by_ref().take(4).collect();
            units.push(u16::from_str_radix(&digits, 16).expect("four digits"));
            continue;
        }
        let c = match escape {
            None => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some(same) => same,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16_lossy(&units)
}

fn reference_totals(file: &[u8], types: &BTreeSet<String>) -> (Totals, BTreeMap<Skip, u64>) {
    let (mut totals, mut skips) = (Totals::new(), BTreeMap::new());
    let file = file.strip_prefix(BOM).unwrap_or(file);
    for line in file.split(|byte| *byte == b'\n') {
        if line.iter().all(|byte| b" \t\r".contains(byte)) {
            continue;
        }
        match reference(line, types) {
            Ok(pair) => totals.entry(pair).or_default().count += 1,
            Err(skip) => *skips.entry(skip).or_default() += 1,
        }
    }
    (totals, skips)
}

/// Returns the number of messages.
fn sum(totals: &Totals) -> i64 {
    totals.values().map(|amount| amount.count).sum()
}

fn types(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn roll(parts: &[&[u8]], types: &BTreeSet<String>) -> Result<(Totals, Stats), RollupError> {
    let mut rollup = Rollup::new(&Rules { types: types.clone(), ..Rules::default() });
    for part in parts {
        rollup.push(part)?;
    }
    rollup.finish()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("a write to memory");
    encoder.finish().expect("a write to memory")
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(text, 1).expect("a write to memory")
}

fn track(event: &str, time: &str) -> String {
    serde_json::json!({ "type": "track", "event": event, "timestamp": time }).to_string()
}

fn count_of(file: &[u8]) -> i64 {
    sum(&roll(&[file], &types(&["track"])).expect("a whole file").0)
}

#[test]
fn file_of_every_supported_form_is_counted() {
    let one = track("e", "2015-08-04T12:00:00Z");
    let two = format!("{one}\n{one}\n");
    assert_eq!(count_of(b""), 0);
    assert_eq!(count_of(&gzip(b"")), 0);
    assert_eq!(count_of(two.as_bytes()), 2);
    assert_eq!(count_of(&gzip(two.as_bytes())), 2);
    assert_eq!(count_of(one.as_bytes()), 1, "no newline at the end");
    assert_eq!(count_of(format!("{one}\r\n\r\n{one}\r\n").as_bytes()), 2);
    assert_eq!(count_of(format!("\u{feff}{one}\n\n \t\n{one}").as_bytes()), 2);
    assert_eq!(count_of(&[gzip(one.as_bytes()), gzip(b"\n"), gzip(two.as_bytes())].concat()), 3, "many members");
    // A line may begin in one gzip member and end in the next.
    let (begin, end) = one.as_bytes().split_at(10);
    assert_eq!(count_of(&[gzip(begin), gzip(end)].concat()), 1);
}

#[test]
fn skipped_line_is_recorded_with_its_reason() {
    for (line, reason) in [
        ("nonsense", Skip::NotJson),
        ("{\"type\":\"track\"", Skip::NotJson),
        ("{\"type\":\"track\",}", Skip::NotJson),
        ("{\"a\":\"\u{1}\"}", Skip::NotJson),
        ("{\"a\":1e999}", Skip::NoType),
        ("{\"a\":01}", Skip::NotJson),
        ("{\"a\":\"\\ud800\"}", Skip::NoType),
        ("[1]", Skip::NotAnObject),
        ("null", Skip::NotAnObject),
        ("{}", Skip::NoType),
        ("{\"type\":null}", Skip::NoType),
        ("{\"type\":1}", Skip::WrongType),
        ("{\"type\":\"identify\"}", Skip::OtherType),
        ("{\"type\":\"track\",\"type\":\"track\"}", Skip::DuplicateKey),
        ("{\"type\":null,\"type\":\"track\"}", Skip::DuplicateKey),
        ("{\"type\":\"track\",\"\\u0074ype\":\"track\"}", Skip::DuplicateKey),
        ("{\"type\":\"track\"}", Skip::NoEvent),
        ("{\"type\":\"track\",\"event\":[\"e\"]}", Skip::WrongType),
        ("{\"type\":\"track\",\"event\":\"\"}", Skip::EmptyName),
        ("{\"type\":\"track\",\"event\":\"e\"}", Skip::NoTime),
        ("{\"type\":\"track\",\"event\":\"e\",\"timestamp\":\"soon\"}", Skip::BadTime),
        ("{\"type\":\"track\",\"event\":\"e\",\"timestamp\":1}", Skip::BadTime),
        ("{\"type\":\"track\",\"event\":\"e\",\"timestamp\":null,\"receivedAt\":\"\"}", Skip::BadTime),
    ] {
        let file = format!("{line}\n{}", track("e", "2015-08-04T12:00:00Z"));
        let (totals, seen) = roll(&[file.as_bytes()], &types(&["track"])).expect("a file");
        assert_eq!(seen.skips, BTreeMap::from([(reason, 1)]), "{line}");
        assert_eq!(sum(&totals), 1);
        assert_eq!(reference(line.as_bytes(), &types(&["track"])), Err(reason), "{line}");
    }
}

#[test]
fn message_without_timestamp_is_counted_by_received_at() {
    let line = r#"{"type":"track","event":"e","receivedAt":"2015-08-04T12:59:59Z"}"#;
    let (totals, _) = roll(&[line.as_bytes()], &types(&["track"])).expect("a file");
    assert_eq!(totals, Totals::from([(("e".into(), "2015-08-04T12:00:00Z".into()), 1.into())]));
}

#[test]
fn hour_beyond_the_limits_is_that_of_received_at() {
    let limits = Limits { max_age_days: Some(1), max_ahead_hours: Some(2) };
    let hour_of = |timestamp: &str, received: &str, limits| {
        let line = format!(r#"{{"type":"track","event":"e","timestamp":"{timestamp}","receivedAt":"{received}"}}"#);
        let mut rollup = Rollup::new(&Rules { types: types(&["track"]), limits, ..Rules::default() });
        rollup.push(line.as_bytes()).expect("a line");
        let (totals, stats) = rollup.finish().expect("a file");
        (totals.into_keys().next().expect("a pair").1, stats.beyond_limits)
    };
    let received = "2015-08-04T12:30:00Z";
    for (timestamp, hour, moved) in [
        ("2015-08-03T12:00:00Z", "2015-08-03T12:00:00Z", 0),
        ("2015-08-03T11:59:59Z", "2015-08-04T12:00:00Z", 1),
        ("0001-01-01T00:00:00Z", "2015-08-04T12:00:00Z", 1),
        ("2015-08-04T14:59:59Z", "2015-08-04T14:00:00Z", 0),
        ("2015-08-04T15:00:00Z", "2015-08-04T12:00:00Z", 1),
        ("9999-12-31T23:59:59Z", "2015-08-04T12:00:00Z", 1),
    ] {
        assert_eq!(hour_of(timestamp, received, limits), (hour.to_owned(), moved), "{timestamp}");
        let unlimited = hour_of(timestamp, received, Limits::default());
        assert_eq!(unlimited, (hour::format(hour::parse(timestamp).expect("a time")), 0), "{timestamp}");
        // Nothing to compare with.
        assert_eq!(hour_of(timestamp, "soon", limits), unlimited, "{timestamp}");
    }
}

#[test]
fn hour_falls_back_to_the_other_times_in_order() {
    let line = |times: &str| format!("{{\"type\":\"Track\",\"event\":\"e\",{times}}}");
    for bad in
        ["\"\"", "\"2015-08-04T12:00:00\"", "\"20150804T120000Z\"", "\"2015-08-04T12:00Z\"", "1438689600", "null"]
    {
        for (at, field) in TIMES.iter().enumerate().skip(1) {
            let times = TIMES.iter().take(at).map(|field| format!("\"{field}\":{bad},")).collect::<String>();
            let later = TIMES.iter().skip(at + 1).map(|field| format!(",\"{field}\":\"2016-01-01T00:00:00Z\""));
            let file = line(&format!("{times}\"{field}\":\"2015-08-04T12:59:59Z\"{}", later.collect::<String>()));
            let (totals, seen) = roll(&[file.as_bytes()], &types(&["track"])).expect("a file");
            assert_eq!(totals, Totals::from([(("e".into(), "2015-08-04T12:00:00Z".into()), 1.into())]), "{file}");
            assert_eq!(seen.fallbacks, BTreeMap::from([(*field, 1)]), "{file}");
        }
    }
}

#[test]
fn messages_of_other_types_are_listed_by_type() {
    let file: String = (0..20).map(|n| format!("{{\"type\":\"kind {}\"}}\n", n % 10)).collect();
    let (_, seen) = roll(&[file.as_bytes()], &types(&["track"])).expect("a file");
    assert_eq!(seen.other_types.values().sum::<u64>(), 20);
    assert_eq!((seen.other_types["kind 0"], seen.other_types["…"]), (2, 4));
    assert_eq!(seen.skipped(), 0);
}

#[test]
fn lone_surrogates_are_accepted_and_replaced_in_names() {
    for (escaped, name) in [("a\\ud83d", "a\u{fffd}"), ("\\ude00\\ud83d\\ude00\\\\ud83d", "\u{fffd}😀\\ud83d")] {
        let line = format!("{{\"x\":[\"\\udfff\"],{}", &track("NAME", "2015-08-04T12:00:00Z")[1..]);
        let (totals, _) = roll(&[line.replace("NAME", escaped).as_bytes()], &types(&["track"])).expect("a file");
        assert_eq!(totals.keys().next().map(|pair| pair.0.as_str()), Some(name), "{escaped}");
    }
}

#[test]
fn message_over_several_lines_is_counted() {
    let one =
        serde_json::json!({ "type": "track", "event": "a [{\"", "timestamp": "2015-08-04T12:00:00Z", "x": [[1], {}] });
    let pretty = serde_json::to_string_pretty(&one).expect("JSON");
    for file in [
        format!("{pretty}\n{pretty}\n{one}"),
        format!("[\n{pretty},\n{pretty}\n,{one}]\n"),
        format!("{pretty}{one}{pretty}").replace('\n', "\r"),
        // A truncated message before them.
        format!("{{\"type\":\"track\",\"x\":[{{\n{one}\n{one}\n{one}"),
    ] {
        assert_eq!(count_of(file.as_bytes()), 3, "{file}");
    }
}

#[test]
fn long_lines_of_many_messages_are_counted_in_bounded_memory() {
    let one = track("e", "2015-08-04T12:00:00Z");
    let many = 2 * LONGEST_LINE / one.len();
    for seam in [",", "\r", ""] {
        let mut text = vec![one.as_str(); many].join(seam);
        if seam == "," {
            text = format!("[{text}]");
        }
        for size in [text.len(), 65_521] {
            let parts: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let (totals, seen) = roll(&parts, &types(&["track"])).expect("a file");
            assert_eq!(sum(&totals), many as i64, "{seam:?} in parts of {size}");
            assert_eq!(seen.skips, BTreeMap::new());
        }
    }
}

#[test]
fn value_that_never_ends_takes_no_message_with_it() {
    let one = track("e", "2015-08-04T12:00:00Z");
    let many = 3 * LONGEST_LINE / one.len();
    let text = format!("{{\"a\":[\n{}", format!("{one}\n").repeat(many));
    for size in [text.len(), 65_521] {
        let parts: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let (totals, seen) = roll(&parts, &types(&["track"])).expect("a file");
        assert_eq!(sum(&totals), many as i64, "in parts of {size}");
        assert_eq!(seen.first_skips, [(1, Skip::NotJson)]);
    }
}

#[test]
fn zstd_frame_with_a_large_window_is_an_error() {
    let text = vec![b' '; 64 * 1024 * 1024];
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.window_log(26).expect("a window");
    encoder.write_all(&text).expect("a write to memory");
    let file = encoder.finish().expect("a write to memory");
    let error = roll(&[&file], &types(&["track"])).expect_err("a large window").to_string();
    assert!(error.contains("memory"), "{error}");
}

#[test]
fn file_without_messages_is_an_error_with_the_reason() {
    let one = track("e", "2015-08-04T12:00:00Z");
    let utf16 = |mark: &str| format!("{mark}{one}").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for (file, reason) in [
        (b"BZh91AY&SY".to_vec(), "bzip2"),
        (b"\xfd7zXZ\0\0\x04".to_vec(), "xz"),
        (utf16("\u{feff}"), "UTF-16"),
        (utf16(""), "UTF-16"),
        (b"PK\x03\x04\x14\0".to_vec(), "zip"),
        (b"\0\0\0\0\0\0\0\0".to_vec(), "binary"),
        (b"<html>\n</html>".to_vec(), "none of its 2 lines is a JSON object"),
        (b"x".to_vec(), "none of its 1 lines is a JSON object"),
        (b"[1, 2]".to_vec(), "none of its 2 lines is a JSON object"),
    ] {
        for file in [gzip(&gzip(&file)), gzip(&file), file] {
            let error = roll(&[&file], &types(&["track"])).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}

#[test]
fn escaped_event_name_is_decoded() {
    let line = br#"{"type":"track","event":"\u00e9\ud83d\ude00\n\"\\","timestamp":"2015-08-04T12:00:00Z"}"#;
    let (totals, _) = roll(&[line], &types(&["track"])).expect("a file");
    assert_eq!(totals.keys().next().map(|pair| pair.0.as_str()), Some("é😀\n\"\\"));
}

#[test]
fn names_too_long_for_a_key_are_shortened_and_stay_distinct() {
    let name = |end: char| format!("{}{end}", "é".repeat(600));
    let file =
        [name('a'), name('b'), name('a'), "x".repeat(1024)].map(|n| track(&n, "2015-08-04T12:00:00Z")).join("\n");
    let (totals, _) = roll(&[file.as_bytes()], &types(&["track"])).expect("a file");
    assert_eq!(totals.values().map(|amount| amount.count).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));
    assert_eq!(totals.len(), 3);
    assert!(totals.keys().all(|(name, _)| name.len() <= LONGEST_NAME));
    assert!(totals.contains_key(&("x".repeat(1024), "2015-08-04T12:00:00Z".to_owned())));
}

#[test]
fn nested_brackets_are_accepted_to_a_depth_of_127() {
    for depth in [1, 10, 125, 126, 127, 128, 100_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let inner = if open == "[" { "" } else { "1" };
            let value = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
            let line = format!("{{\"a\":{value},{}", &track("e", "2015-08-04T12:00:00Z")[1..]);
            let result = roll(&[line.as_bytes()], &types(&["track"]));
            // The message itself is one more level.
            assert_eq!(result.is_ok(), depth < 127, "{depth} {open}");
        }
    }
}

#[test]
fn endless_line_is_skipped_in_bounded_memory() {
    let good = track("e", "2015-08-04T12:00:00Z");
    let mut rollup = Rollup::new(&Rules { types: types(&["track"]), ..Rules::default() });
    rollup.push(format!("{good}\n{{\"a\":\"").as_bytes()).expect("text");
    for _ in 0..200 {
        rollup.push(&[b'x'; 512 * 1024]).expect("text");
    }
    assert!(rollup.0.lines().partial.capacity() <= 2 * LONGEST_LINE);
    rollup.push(format!("\"}}\n{good}\n").as_bytes()).expect("text");
    let (totals, seen) = rollup.finish().expect("a file");
    assert_eq!((sum(&totals), seen.lines), (2, 3));
    assert_eq!(seen.first_skips, [(2, Skip::TooLong)]);
    // The result is the same if the whole file is pushed in one call.
    let whole = format!("{good}\n{{\"a\":\"{}\"}}\n{good}", "x".repeat(2 * LONGEST_LINE));
    assert_eq!(count_of(whole.as_bytes()), 2);
}

#[test]
fn pairs_that_do_not_fit_are_counted_under_one_name_and_the_others_as_before() {
    let line = |event: &str, hour: i64| track(event, &hour::format(hour)) + "\n";
    // A known event, names without end, the known event again, one with the reserved name, and then hours without end.
    let names = (0..150_000).map(|n| line(&format!("event number {n}"), 400_000));
    let hours = (0..3_000).map(|n| line("e", 400_001 + n));
    let known = || std::iter::once(line("e", 400_000));
    let file: String = known().chain(names).chain(known()).chain([line(OVERFLOW, 1)]).chain(hours).collect();
    let (totals, stats) = roll(&[file.as_bytes()], &types(&["track"])).expect("a file");
    let count =
        |event: &str, hour: i64| totals.get(&(event.to_owned(), hour::format(hour))).map_or(0, |amount| amount.count);
    assert_eq!(sum(&totals), 153_003, "a message is lost");
    assert_eq!((count("e", 400_000), count("event number 0", 400_000)), (2, 1));
    let overflowed: i64 =
        totals.iter().filter(|((event, _), _)| event == OVERFLOW).map(|(_, amount)| amount.count).sum();
    assert_eq!(u64::try_from(overflowed).expect("a number"), stats.overflowed);
    assert!(overflowed > 90_000 && totals.len() < 70_000, "{overflowed} of {} pairs", totals.len());
    let hours = totals.keys().filter(|(event, _)| event == OVERFLOW).count();
    assert_eq!(hours, OVERFLOW_HOURS);
    // Another attempt, in other pieces, counts the same.
    let pieces: Vec<&[u8]> = file.as_bytes().chunks(9_973).collect();
    assert_eq!(roll(&pieces, &types(&["track"])).expect("a file"), (totals, stats));
}

#[test]
fn first_skipped_lines_are_listed_by_number_and_reason_only() {
    let file = format!("\n{}\nsecret\n{{}}\n", track("e", "2015-08-04T12:00:00Z"));
    let (_, seen) = roll(&[file.as_bytes()], &types(&["track"])).expect("a file");
    assert_eq!(seen.examples(), "3:not_json 4:no_type");
    assert_eq!((seen.skipped(), seen.reasons().as_str()), (2, "not_json=1 no_type=1"));
}

/// Returns a file with a line of every form.
fn mixed_file() -> Vec<u8> {
    let mut file = Vec::from(BOM);
    for line in [
        track("é \"quoted\" \\ 😀", "2015-08-04T12:34:56.789+05:30"),
        r#"{"context":{"a":[1,-2.5e-3,{"b":null}],"c":"\ud83d\ude00\u00e9"},"type":"track","event":"e","timestamp":"2015-08-04T12:00:00Z"}"#.into(),
        "\r".into(),
        r#"{"type":"page","timestamp":"2015-08-04t12:00:00z"}"#.into(),
        "broken {".into(),
        r#"{"type":"track","event":"e","receivedAt":"2016-12-31T23:59:60Z"}"#.into(),
    ] {
        file.extend_from_slice(line.as_bytes());
        file.extend_from_slice(b"\r\n");
    }
    file
}

#[test]
fn file_cut_at_any_byte_has_the_same_totals() {
    let types = types(&["track", "page"]);
    let plain = mixed_file();
    let expected = roll(&[&plain], &types).expect("a file");
    let zipped = gzip(&plain);
    assert_eq!(roll(&[&zipped], &types).expect("a file"), expected);
    for file in [&plain, &zipped] {
        for cut in 0..=file.len() {
            let (left, right) = file.split_at(cut);
            assert_eq!(roll(&[left, right], &types).expect("a file"), expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = file.chunks(1).collect();
        assert_eq!(roll(&bytes, &types).expect("a file"), expected, "byte by byte");
    }
}

#[test]
fn truncated_file_matches_the_reference_or_is_an_error() {
    let types = types(&["track", "page"]);
    let plain = mixed_file();
    let zipped = gzip(&plain);
    let frame = zstd(&plain);
    for end in 4..frame.len() {
        assert!(matches!(roll(&[&frame[..end]], &types), Err(RollupError::Damaged(_))), "cut at {end}");
    }
    for end in 0..=plain.len() {
        let expected = reference_totals(&plain[..end], &types);
        match roll(&[&plain[..end]], &types) {
            Ok((totals, seen)) => assert_eq!((totals, seen.skips), expected, "cut at {end}"),
            Err(error) => {
                assert!(matches!(error, RollupError::NoMessages(1)), "cut at {end}: {error}");
                assert_eq!(expected, (Totals::new(), BTreeMap::from([(Skip::NotJson, 1)])), "cut at {end}");
            }
        }
    }
    for end in 2..zipped.len() {
        assert!(matches!(roll(&[&zipped[..end]], &types), Err(RollupError::Damaged(_))), "cut at {end}");
    }
}

#[test]
fn gzip_file_with_a_changed_byte_is_an_error_or_has_the_same_totals() {
    let types = types(&["track", "page"]);
    let zipped = gzip(&mixed_file());
    let expected = roll(&[&zipped], &types).expect("a file").0;
    // Bytes 4 to 9 of the header are the time, extra flags and operating system, which no checksum covers.
    for at in (2..4).chain(10..zipped.len()) {
        let mut damaged = zipped.clone();
        damaged[at] ^= 0x20;
        if let Ok((totals, _)) = roll(&[&damaged], &types) {
            assert_eq!(totals, expected, "byte {at}");
        }
    }
}

/// Generates JSON texts in common styles; some are slightly invalid.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,4})?",
        "\"([a-zé😀 ]|\\\\[\"\\\\/bfnrtux]|\\\\u[0-9a-fA-F]{4}|\\\\ud83d\\\\ude00){0,12}\"",
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(" ,"))),
            prop::collection::vec(("[a-z\\\\\"]{0,3}", inner), 0..4).prop_map(|all| {
                let members: Vec<String> = all.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn member() -> impl Strategy<Value = String> {
    let key = prop_oneof!["type", "event", "timestamp", "receivedAt", "\\\\u0074ype", "even", "[a-z]{0,12}"];
    let value = prop_oneof![
        3 => prop_oneof![
            Just("\"track\"".to_owned()), Just("\"page\"".to_owned()), Just("\"\\u0074rack\"".to_owned()),
            Just("\"2015-08-04T12:34:56Z\"".to_owned()), Just("\"2015-08-04T23:59:60.5-01:00\"".to_owned()),
            Just("\"Order Completed\"".to_owned()), Just("\"\"".to_owned()),
        ],
        2 => json_text(),
    ];
    (key, value).prop_map(|(key, value)| format!("\"{key}\":{value}"))
}

/// Generates lines that are messages, or JSON objects that are none.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let good = (prop::collection::vec(member(), 0..4), "[a-z]{1,3}").prop_map(|(more, event)| {
        let mut all = vec![
            "\"type\":\"track\"".to_owned(),
            format!("\"event\":\"{event}\""),
            "\"timestamp\":\"2015-08-04T12:34:56Z\"".to_owned(),
        ];
        all.extend(
            more.into_iter().filter(|m| !["\"t", "\"e", "\"r", "\"\\"].iter().any(|start| m.starts_with(start))),
        );
        format!("{{{}}}", all.join(", ")).into_bytes()
    });
    let any = prop::collection::vec(member(), 0..6).prop_map(|all| format!("{{{}}}", all.join(",")).into_bytes());
    let types = types(&["track", "page"]);
    prop_oneof![3 => good, 4 => any]
        .prop_filter("an object", move |line| reference(line, &types) != Err(Skip::NotJson))
        .boxed()
}

/// Generates lines of any content: an object with one byte changed or removed, another JSON text, or words.
fn odd_line() -> impl Strategy<Value = Vec<u8>> {
    let damaged = (line(), any_index(), any_byte(), any::<bool>()).prop_map(|(mut line, at, byte, remove)| {
        let at = at.index(line.len());
        if remove {
            line.remove(at);
        } else {
            line[at] = byte;
        }
        line
    });
    let cut = (line(), any_index()).prop_map(|(line, at)| line[..at.index(line.len())].to_vec());
    prop_oneof![damaged, cut, json_text().prop_map(String::into_bytes), "[a-z ]{1,9}".prop_map(String::into_bytes)]
}

fn any_index() -> impl Strategy<Value = prop::sample::Index> {
    any::<prop::sample::Index>()
}

fn any_byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), prop::sample::select(b"{}[],:\"\\ \n\r\x00\x1f\x7f\x80\xc3\xffetn0-.".to_vec())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn random_lines_match_the_reference(
        lines in prop::collection::vec(line(), 0..6), cut in any_index(), zip in any::<bool>(),
    ) {
        let types = types(&["track", "page"]);
        let file = lines.join(&b'\n');
        let expected = reference_totals(&file, &types);
        let bytes = if zip { gzip(&file) } else { file };
        // Plain text that begins like gzip is read as gzip.
        prop_assume!(zip || !bytes.starts_with(&GZIP));
        let (left, right) = bytes.split_at(cut.index(bytes.len() + 1));
        let (totals, seen) = roll(&[left, right], &types).expect("a whole file");
        prop_assert_eq!((totals, seen.skips), expected, "{}", String::from_utf8_lossy(&lines.join(&b'\n')));
    }

    #[test]
    fn messages_are_counted_with_any_seams_between_them(
        lines in prop::collection::vec(line(), 1..6), seam in prop::sample::select(vec!["\n", "\r\n", "\r", "", " ", "\n\n"]),
        form in 0..6, cut in any_index(),
    ) {
        let types = types(&["track", "page"]);
        let expected = reference_totals(&lines.join(&b'\n'), &types);
        let file = match form {
            0 => lines.join(seam.as_bytes()),
            1 => [b"[".as_slice(), &lines.join(format!(",{seam}").as_bytes()), b"]"].concat(),
            // Each message is a gzip member of its own, or the file is compressed twice.
            2 => lines.iter().map(|line| gzip(line)).collect::<Vec<_>>().concat(),
            3 => gzip(&gzip(&lines.join(seam.as_bytes()))),
            4 => lines.iter().map(|line| zstd(line)).collect::<Vec<_>>().concat(),
            _ => gzip(&zstd(&lines.join(seam.as_bytes()))),
        };
        let (left, right) = file.split_at(cut.index(file.len() + 1));
        let (totals, seen) = roll(&[left, right], &types).expect("a whole file");
        prop_assert_eq!((totals, seen.skips), expected, "{}", String::from_utf8_lossy(&file));
    }

    #[test]
    fn odd_line_takes_no_message_with_it(
        before in prop::collection::vec(line(), 0..4), odd in odd_line(), after in prop::collection::vec(line(), 1..4),
        cut in any_index(),
    ) {
        let types = types(&["track", "page"]);
        let (expected, _) = reference_totals(&[before.clone(), after.clone()].concat().join(&b'\n'), &types);
        let file = [before, vec![odd], after].concat().join(&b'\n');
        let (left, right) = file.split_at(cut.index(file.len() + 1));
        let Ok((totals, seen)) = roll(&[left, right], &types) else {
            // The first bytes decide on the format.
            prop_assert!(file.starts_with(&GZIP) || file.iter().take(2).any(|byte| *byte == 0 || *byte >= 0xfe));
            return Ok(());
        };
        let text = String::from_utf8_lossy(&file).into_owned();
        for (pair, count) in expected {
            prop_assert!(totals.get(&pair).is_some_and(|found| found.count >= count.count), "{:?} in {}", pair, text);
        }
        prop_assert_eq!(seen.lines, seen.events + seen.skips.values().sum::<u64>(), "{}", &text);
        prop_assert_eq!(roll(&[&file], &types).expect("a file"), (totals, seen), "{}", &text);
    }

    #[test]
    fn random_bytes_never_cause_a_panic(bytes in prop::collection::vec(any_byte(), 0..300), zip in any::<bool>()) {
        let bytes = if zip { [&GZIP[..], &bytes].concat() } else { bytes };
        let _ = roll(&[&bytes], &types(&["track"]));
    }
}
