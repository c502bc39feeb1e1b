//! Any message of the failure queue is a record of this bucket or is refused with a reason.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| provisioner::fuzzing::queue_record(text));
