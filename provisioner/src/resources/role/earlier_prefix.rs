//! The prefixes of earlier notifications, which the function may still read for some weeks.
//!
//! A change of `notification.prefix` must lose no file. Notifications of files below the old prefix may be queued by
//! Lambda for six hours, and may wait in the failure queue for two weeks. Therefore the role keeps its old permission
//! until a date after that, which a condition of the statement enforces. The live policy is the only memory of it, and a
//! plan after the date removes the statement.

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use crate::aws::policy;
use crate::resources::monday_after;

/// The statement of the current prefix.
pub(super) const READ_SID: &str = "ReadObjects";
/// The start of the statements of earlier prefixes; a number follows.
const SID: &str = "ReadEarlierObjects";
/// The weeks for which an earlier prefix is kept, from the current Monday: at least 21 days, longer than a message stays
/// in an SQS queue (14 days), and the same date all week, so that a saved plan does not change overnight.
const WEEKS: i64 = 4;

fn resources(statement: &Json) -> impl Iterator<Item = &str> {
    statement["Resource"].as_array().into_iter().flatten().filter_map(Json::as_str)
}

/// Returns the parts of an ARN of objects before and after its wildcard.
fn split(arn: &str) -> (&str, &str) {
    arn.split_once('*').unwrap_or((arn, ""))
}

fn covers(wide: &str, narrow: &str) -> bool {
    let ((prefix, suffix), (narrow_prefix, narrow_suffix)) = (split(wide), split(narrow));
    narrow_prefix.starts_with(prefix) && narrow_suffix.ends_with(suffix)
}

/// Returns the end of a statement's validity, or `None` if it is not one of an earlier prefix.
fn end(statement: &Json) -> Option<Timestamp> {
    policy::sid(statement).strip_prefix(SID)?;
    statement["Condition"]["DateLessThan"]["aws:CurrentTime"][0].as_str()?.parse().ok()
}

/// Returns the policy with the statements of earlier prefixes: those of the live policy that are still valid, and one
/// for the prefix that the live policy allows and the desired one does not.
pub(super) fn keep(desired: &Json, live: Option<&Json>, now: Timestamp) -> Json {
    let (mut statements, live) = (policy::statements(desired), live.map(policy::statements).unwrap_or_default());
    let reading: Vec<Json> =
        statements.iter().filter(|statement| policy::sid(statement) == READ_SID).cloned().collect();
    let current: Vec<String> = reading.iter().flat_map(resources).map(str::to_owned).collect();
    let Some(bucket) = current.first().and_then(|arn| arn.split('/').next()).map(str::to_owned) else {
        return desired.clone();
    };
    let is_needed =
        |arn: &str| arn.split('/').next() == Some(bucket.as_str()) && !current.iter().any(|wide| covers(wide, arn));
    let kept: Vec<Json> = live
        .iter()
        .filter(|statement| end(statement).is_some_and(|end| now < end) && resources(statement).all(is_needed))
        .cloned()
        .collect();
    let until = monday_after(now, WEEKS);
    let mut number = 0;
    for arn in live.iter().filter(|statement| policy::sid(statement) == READ_SID).flat_map(resources) {
        let is_kept = kept.iter().flat_map(resources).any(|other| other == arn);
        let Some(until) = until.filter(|_| is_needed(arn) && !is_kept) else { continue };
        let is_used = |number: u32| kept.iter().any(|other| policy::sid(other) == format!("{SID}{number}"));
        number += 1;
        while is_used(number) {
            number += 1;
        }
        let mut condition = reading.first().map_or_else(|| json!({}), |statement| statement["Condition"].clone());
        condition["DateLessThan"] = json!({ "aws:CurrentTime": format!("{until}T00:00:00Z") });
        statements.push(json!({
            "Sid": format!("{SID}{number}"), "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:GetObjectVersion"], "Resource": arn,
            "Condition": condition,
        }));
    }
    statements.extend(kept);
    policy::document(&statements)
}

/// Returns the earlier prefixes that a policy allows, with the end of each.
pub(crate) fn of(policy: &Json) -> Vec<(String, Timestamp)> {
    let prefix = |arn: &str| split(arn).0.split_once('/').map(|(_, prefix)| prefix.to_owned());
    policy::statements(policy)
        .iter()
        .filter_map(|statement| Some((resources(statement).next().and_then(prefix)?, end(statement)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(prefix: &str) -> Json {
        let arn = format!("arn:aws:s3:::events/{prefix}*.gz");
        policy::document(&[json!({
            "Sid": READ_SID, "Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjectVersion"], "Resource": arn,
        })])
    }

    fn at(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    /// 4 August 2015 is a Tuesday.
    const NOW: &str = "2015-08-04T12:34:56Z";

    #[test]
    fn earlier_prefix_is_kept_until_its_end_and_then_dropped() {
        let changed = keep(&read("new/"), Some(&read("old/")), at(NOW));
        assert_eq!(of(&changed), [("old/".to_owned(), at("2015-08-31T00:00:00Z"))]);
        // The live policy is the memory, so the next plan changes nothing, also in another week.
        for time in [NOW, "2015-08-30T23:59:59Z"] {
            assert_eq!(keep(&read("new/"), Some(&changed), at(time)), changed, "{time}");
        }
        assert_eq!(keep(&read("new/"), Some(&changed), at("2015-08-31T00:00:00Z")), read("new/"));
    }

    #[test]
    fn several_earlier_prefixes_are_kept_side_by_side() {
        let second = keep(&read("b/"), Some(&read("a/")), at(NOW));
        let third = keep(&read("c/"), Some(&second), at(NOW));
        let prefixes: Vec<String> = of(&third).into_iter().map(|(prefix, _)| prefix).collect();
        assert_eq!(prefixes, ["a/", "b/"]);
        // The way back: `a/` is the current prefix again.
        let back = keep(&read("a/"), Some(&third), at(NOW));
        let mut prefixes: Vec<String> = of(&back).into_iter().map(|(prefix, _)| prefix).collect();
        prefixes.sort_unstable();
        assert_eq!(prefixes, ["b/", "c/"]);
    }

    #[test]
    fn prefix_that_the_new_one_covers_needs_no_statement() {
        assert_eq!(keep(&read("logs/"), Some(&read("logs/2015/")), at(NOW)), read("logs/"));
        assert_eq!(keep(&read("logs/"), None, at(NOW)), read("logs/"));
        let other = json!({ "Version": "2012-10-17", "Statement": [] });
        assert_eq!(keep(&other, Some(&read("logs/")), at(NOW)), other);
    }
}
