//! The scanner accepts exactly the lines that serde_json parses as an object, and never panics.
#![no_main]

use counting::line::{Malformed, Stops, scan};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|line: &[u8]| {
    // The scanner's input contains no newline and is not blank.
    if line.contains(&b'\n') || line.iter().all(|byte| b" \t\r".contains(byte)) {
        return;
    }
    let reference = serde_json::from_slice::<Value>(line);
    match scan(line, &mut Stops::default()) {
        Ok(_) => assert!(matches!(reference, Ok(Value::Object(_)))),
        Err(Malformed::NotAnObject) => assert!(reference.is_ok_and(|value| !value.is_object())),
        Err(Malformed::NotJson) => assert!(reference.is_err()),
    }
});
