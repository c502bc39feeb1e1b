//! The memory of the declared tags: a tag on each resource, so that a tag that is taken out of pipeline.toml is taken
//! off the resource too, and no tag of anybody else is.
//!
//! A tag's value has room for 256 characters, and 46 keys have up to 5,888. The value therefore has five hexadecimal
//! digits of the SHA-256 of each key. A foreign tag is mistaken for one that was declared before with a probability of
//! one in a million, and a plan shows its removal.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

/// The tag with the memory; absent if no tags are declared.
pub(crate) const MANAGED_TAGS: &str = "managed-tags";
/// The digits of a key.
const DIGITS: usize = 5;

fn digits(key: &str) -> String {
    let hash = Sha256::digest(key);
    hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>().chars().take(DIGITS).collect()
}

/// Returns the value of the tag for the declared keys.
pub(super) fn memory<'a>(keys: impl Iterator<Item = &'a String>) -> String {
    keys.map(|key| digits(key)).collect::<BTreeSet<String>>().into_iter().collect()
}

fn remembered(tags: &BTreeMap<String, String>) -> BTreeSet<String> {
    let digits: Vec<char> = tags.get(MANAGED_TAGS).map(|value| value.chars().collect()).unwrap_or_default();
    digits.chunks_exact(DIGITS).map(|chunk| chunk.iter().collect()).collect()
}

/// Returns the keys of the live tags that were declared before and are not any more.
pub(crate) fn dropped(live: &BTreeMap<String, String>, desired: &BTreeMap<String, String>) -> Vec<String> {
    let (before, now) = (remembered(live), remembered(desired));
    let is_dropped = |key: &String| {
        let digits = digits(key);
        !desired.contains_key(key) && (key == MANAGED_TAGS || before.contains(&digits) && !now.contains(&digits))
    };
    live.keys().filter(|key| is_dropped(key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(keys: &[&str]) -> BTreeMap<String, String> {
        let mut tags: BTreeMap<String, String> = keys.iter().map(|key| ((*key).to_owned(), "x".to_owned())).collect();
        if !keys.is_empty() {
            tags.insert(MANAGED_TAGS.to_owned(), memory(tags.clone().keys()));
        }
        tags
    }

    #[test]
    fn key_that_is_no_longer_declared_is_dropped_and_a_foreign_one_is_not() {
        let mut live = tags(&["team", "stage"]);
        live.insert("foreign".to_owned(), "y".to_owned());
        assert_eq!(dropped(&live, &tags(&["team"])), ["stage"]);
        assert_eq!(dropped(&live, &tags(&["Team", "stage"])), ["team"]);
        assert_eq!(dropped(&live, &tags(&["team", "stage", "foreign"])), [""; 0]);
        assert_eq!(dropped(&live, &tags(&[])), [MANAGED_TAGS, "stage", "team"]);
        live.remove(MANAGED_TAGS);
        assert_eq!(dropped(&live, &tags(&["team"])), [""; 0]);
    }

    #[test]
    fn memory_of_the_most_tags_fits_into_a_value() {
        let keys: Vec<String> = (0..46).map(|n| format!("{n:0>128}")).collect();
        assert!(memory(keys.iter()).len() <= 256);
    }
}
