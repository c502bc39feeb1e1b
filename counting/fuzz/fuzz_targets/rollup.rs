//! Any bytes produce totals or an error, and pushed in two parts they produce the same as in one.
#![no_main]

use counting::rollup::{Limits, Rollup, RollupError, Rules, Totals};
use counting::stats::Stats;
use libfuzzer_sys::fuzz_target;

fn roll(parts: &[&[u8]]) -> Result<(Totals, Stats), RollupError> {
    let rules = Rules {
        types: ["track", "page"].map(str::to_owned).into(),
        limits: Limits { max_age_days: Some(90), max_ahead_hours: Some(24) },
        sums: ["properties.revenue", "a.b.c"].map(str::to_owned).into(),
    };
    let mut rollup = Rollup::new(&rules);
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
