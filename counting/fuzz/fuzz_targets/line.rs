//! The scanner accepts exactly the objects of JSON's grammar, up to a depth, and never panics.
#![no_main]

use counting::line::{Malformed, Stops, scan};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

fuzz_target!(|line: &[u8]| {
    // The scanner's input contains no newline and is not blank.
    if line.contains(&b'\n') || line.iter().all(|byte| b" \t\r".contains(byte)) {
        return;
    }
    let text = std::str::from_utf8(line);
    let is_json = text.is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let is_object = text.is_ok_and(|text| text.trim_start().starts_with('{'));
    // The scanner limits the depth, and serde_json does not if the value is ignored.
    let brackets = line.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    match scan(line, &mut Stops::default()) {
        Ok(_) => assert!(is_json && is_object),
        Err(Malformed::NotAnObject) => assert!(is_json && !is_object),
        Err(Malformed::NotJson) => assert!(!is_json || brackets > 126),
    }
});
