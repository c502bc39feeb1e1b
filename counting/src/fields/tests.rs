//! Tests of sums and breakdowns, against a plain reference and at their limits.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::amount::plain;
use crate::rollup::{MOST_PAIR_BYTES, OVERFLOW, Rollup, Rules, Totals, pair_bytes};
use crate::stats::Stats;

/// Adds the numbers at the paths of a message as serde_json reads it.
fn reference_sums(message: &Value, paths: &[String], amount: &mut Amount) {
    for path in paths {
        let found = path.split('.').try_fold(message, |value, key| value.get(key));
        let text = match found {
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::String(text)) => text.clone(),
            _ => continue,
        };
        if let Ok(number) = number(&text) {
            let sum = amount.sums.entry(path.clone()).or_default();
            sum.values += 1;
            sum.sum += number;
        }
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_999_i64..9_999).prop_map(Value::from),
        "-?[0-9]{1,3}(\\.[0-9]{1,3})?".prop_map(Value::from),
        ".{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 30, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[abc\\\\\"]", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Divides a message by the values at the paths as serde_json reads it, without a limit.
fn reference_values(message: &Value, paths: &[String], undivided: &Amount, amount: &mut Amount) {
    for path in paths {
        let value = match path.split('.').try_fold(message, |value, key| value.get(key)) {
            None | Some(Value::Null) => NONE.to_owned(),
            Some(Value::String(text)) if text.is_empty() => NONE.to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(_) | Value::Object(_)) => OTHER.to_owned(),
            Some(plain) => plain.to_string(),
        };
        *amount.value_mut(path, &value) += undivided;
    }
}

fn track() -> BTreeSet<String> {
    BTreeSet::from(["track".to_owned()])
}

proptest! {
    #[test]
    fn sums_and_values_equal_those_of_a_reference_parser(values in prop::collection::vec(any_value(), 0..12)) {
        let sums: Vec<String> = ["a", "b.a", "b.c.a", "c.b", "b"].map(str::to_owned).into();
        let by: Vec<String> = ["b", "a", "c.a"].map(str::to_owned).into();
        let rules =
            Rules { types: track(), sums: sums.clone(), by: by.clone(), by_limit: usize::MAX, ..Rules::default() };
        let mut rollup = Rollup::new(&rules);
        let mut expected = Amount::default();
        for value in values {
            let mut message = json!({ "type": "track", "event": "e", "timestamp": "2015-08-04T12:00:00Z" });
            for (key, value) in value.as_object().into_iter().flatten() {
                message[key] = value.clone();
            }
            let mut undivided = Amount::from(1);
            reference_sums(&message, &sums, &mut undivided);
            expected += &undivided;
            reference_values(&message, &by, &undivided, &mut expected);
            rollup.push(format!("{message}\n").as_bytes()).expect("text");
        }
        let (totals, _) = rollup.finish().expect("messages");
        prop_assert_eq!(totals.into_values().next().unwrap_or_default(), expected);
    }
}

#[test]
fn value_that_is_no_number_is_skipped_with_its_reason_and_its_message_counts() {
    let line = |properties: &str| {
        format!(
            "{{\"type\":\"track\",\"event\":\"e\",\"timestamp\":\"2015-08-04T12:00:00Z\",\"properties\":{properties}}}\n"
        )
    };
    let rules = Rules { types: track(), sums: vec!["properties.revenue".to_owned()], ..Rules::default() };
    let mut rollup = Rollup::new(&rules);
    for properties in [
        "{\"revenue\":19.99}",
        "{\"revenue\":\"0.01\"}",
        "{\"rev\\u0065nue\":1e1}",
        "{\"revenue\":\"$5\"}",
        "{\"revenue\":{\"value\":5}}",
        "{\"revenue\":true}",
        "{\"revenue\":1,\"revenue\":2}",
        "{\"revenue\":0.1234567890123}",
        "{\"revenue\":null}",
        "{}",
        "null",
        "[{\"revenue\":5}]",
    ] {
        rollup.push(line(properties).as_bytes()).expect("text");
    }
    let (totals, stats) = rollup.finish().expect("messages");
    let amount = totals.into_values().next().expect("a pair");
    assert_eq!((amount.count, stats.events, stats.skipped()), (12, 12, 0));
    let sum = amount.sums.get("properties.revenue").expect("a sum");
    assert_eq!((sum.values, plain(&sum.sum).as_str()), (3, "30"));
    let reason = |name: &str| format!("properties.revenue:{name}");
    let expected = [("duplicate_key", 1), ("not_a_number", 3), ("too_many_digits", 1)];
    assert_eq!(stats.fields_skipped, expected.map(|(name, count)| (reason(name), count)).into());
}

const PLAN: &str = "properties.plan";

fn by_plan(by_limit: usize) -> Rules {
    let sums = vec!["properties.revenue".to_owned()];
    Rules { types: track(), sums, by: vec![PLAN.to_owned()], by_limit, ..Rules::default() }
}

fn roll(rules: &Rules, lines: impl IntoIterator<Item = String>) -> (Totals, Stats) {
    let mut rollup = Rollup::new(rules);
    for line in lines {
        rollup.push(line.as_bytes()).expect("text");
        rollup.push(b"\n").expect("text");
    }
    rollup.finish().expect("messages")
}

fn message(event: &str, hour: usize, properties: &Value) -> String {
    let time = format!("2015-08-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24);
    json!({ "type": "track", "event": event, "timestamp": time, "properties": properties }).to_string()
}

/// Checks that the values of each pair add up to it, in counts and sums.
fn assert_adds_up(totals: &Totals) {
    for (pair, amount) in totals {
        let mut all = Amount::default();
        for (_, _, value) in amount.values() {
            all += value;
        }
        assert_eq!(all, amount.undivided(), "{pair:?}");
    }
}

#[test]
fn values_beyond_the_limit_count_as_other_in_every_hour() {
    let lines = (0..600).map(|n| message("e", n % 3, &json!({ "plan": format!("plan {}", n % 7), "revenue": n })));
    let none = (0..3).map(|hour| message("e", hour, &json!({})));
    let (totals, stats) = roll(&by_plan(4), lines.chain(none));
    assert_adds_up(&totals);
    let values: BTreeSet<&str> = totals.values().flat_map(Amount::values).map(|(_, value, _)| value).collect();
    assert_eq!(values, ["(none)", "(other)", "plan 0", "plan 1", "plan 2", "plan 3"].into());
    let other: i64 = totals.values().map(|amount| amount.by[PLAN][OTHER].count).sum();
    assert_eq!((other.unsigned_abs(), other), (stats.values_limited[PLAN], 256));
}

#[test]
fn ids_as_values_use_bounded_memory_and_still_add_up() {
    let id = |n: usize| format!("{n:0150}");
    let events = (0..40_000).map(|n| message(&format!("event {}", n % 9_000), n % 50, &json!({ "plan": id(n) })));
    let (totals, stats) = roll(&by_plan(1_000), events);
    assert!(pair_bytes(&totals) <= 2 * MOST_PAIR_BYTES, "{} bytes", pair_bytes(&totals));
    assert!(stats.values_limited[PLAN] > 0 && stats.overflowed > 0);
    assert_adds_up(&totals);
    assert_eq!(totals.values().map(|amount| amount.count).sum::<i64>(), 40_000);
    assert!(totals.keys().any(|(event, _)| event == OVERFLOW));
}

#[test]
fn long_value_is_shortened_and_stays_distinct() {
    let long = |end: char| format!("{}{end}", "é".repeat(300));
    let (totals, _) = roll(&by_plan(10), ['a', 'b'].map(|end| message("e", 0, &json!({ "plan": long(end) }))));
    let values: Vec<&str> = totals.values().flat_map(Amount::values).map(|(_, value, _)| value).collect();
    assert!(values.len() == 2 && values.iter().all(|value| value.len() <= LONGEST_VALUE), "{values:?}");
}
