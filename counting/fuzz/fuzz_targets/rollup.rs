//! Any bytes produce totals or an error, and pushed in two parts they produce the same as in one.
#![no_main]

use std::collections::BTreeSet;

use counting::rollup::{Limits, Rollup, RollupError, Totals};
use counting::stats::Stats;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_age_days: Some(90), max_ahead_hours: Some(24) };

fn roll(parts: &[&[u8]]) -> Result<(Totals, Stats), RollupError> {
    let mut rollup = Rollup::new(&BTreeSet::from(["track".to_owned(), "page".to_owned()]), LIMITS);
    for part in parts {
        rollup.push(part)?;
    }
    rollup.finish()
}

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let (left, right) = bytes.split_at(usize::from(cut).min(bytes.len()));
    match (roll(&[bytes]), roll(&[left, right])) {
        (Ok(whole), Ok(parts)) => assert_eq!(whole, parts),
        (Err(_), Err(_)) => {}
        (whole, parts) => panic!("{whole:?} in one part, {parts:?} in two"),
    }
});
