//! Any file is a saved plan or an error, and its comparison with a current plan prints nothing that a terminal obeys.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| provisioner::fuzzing::saved_plan(text));
