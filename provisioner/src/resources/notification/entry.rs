//! The entries of a bucket's notification configuration, as S3 returns them.

use std::collections::BTreeSet;

use aws_sdk_s3::operation::get_bucket_notification_configuration::GetBucketNotificationConfigurationOutput;
use aws_sdk_s3::types::{Event, FilterRule, NotificationConfigurationFilter, S3KeyFilter};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::aws::listing;

/// The live state of an entry, owned or adoptable.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) id: Option<String>,
    /// The ARN of its destination.
    pub(super) destination: String,
    pub(super) events: BTreeSet<String>,
    /// The filter, in the form of [`encoded`].
    pub(super) prefix: Option<String>,
    pub(super) suffix: Option<String>,
}

/// An entry of a bucket's configuration, for a function, a queue or a topic.
#[derive(Debug)]
pub(crate) struct ConfiguredEntry<'a> {
    pub(crate) id: Option<&'a str>,
    /// The ARN of its destination.
    pub(crate) destination: &'a str,
    events: &'a [Event],
    filter: Option<&'a NotificationConfigurationFilter>,
}

/// The characters that a filter's value may have as they are (S3 user guide, safe characters of object keys; the
/// guide's examples of filters have slashes). S3 expects all others percent-encoded, and a space as `+`: an unencoded
/// value matches no key.
const ENCODED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'/')
    .remove(b' ');

/// Encodes the beginning or the end of a key as a filter's value.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, &ENCODED).to_string().replace(' ', "+")
}

/// Returns a live value in the form of [`encoded`] if it has that meaning, and otherwise as it is.
pub(super) fn normalized(value: String) -> String {
    let is_encoded = value.chars().all(|c| matches!(c, '%' | '+') || encoded(&c.to_string()).len() == c.len_utf8());
    if is_encoded { encoded(&listing::decode(&value)) } else { value }
}

fn rules(filter: Option<&NotificationConfigurationFilter>) -> &[FilterRule] {
    filter.and_then(|filter| filter.key.as_ref()).map(S3KeyFilter::filter_rules).unwrap_or_default()
}

/// Returns the value of a filter rule. S3 returns the names as `Prefix` or as `prefix`.
fn rule(rules: &[FilterRule], name: &str) -> Option<String> {
    let named = |rule: &&FilterRule| rule.name.as_ref().is_some_and(|n| n.as_str().eq_ignore_ascii_case(name));
    rules.iter().find(named).and_then(|rule| rule.value.clone())
}

impl ConfiguredEntry<'_> {
    /// Returns whether it is of new objects.
    pub(crate) fn is_of_new_objects(&self) -> bool {
        self.events.iter().any(|event| event.as_str().starts_with("s3:ObjectCreated:"))
    }

    /// Returns the beginning of the keys, empty for any.
    pub(crate) fn prefix(&self) -> String {
        listing::decode(&rule(rules(self.filter), "prefix").unwrap_or_default())
    }

    /// Returns the end of the keys, empty for any.
    pub(crate) fn suffix(&self) -> String {
        listing::decode(&rule(rules(self.filter), "suffix").unwrap_or_default())
    }

    /// Returns the entry as it is compared.
    pub(super) fn live(&self) -> Entry {
        let rules = rules(self.filter);
        Entry {
            id: self.id.map(str::to_owned),
            destination: self.destination.to_owned(),
            events: self.events.iter().map(|event| event.as_str().to_owned()).collect(),
            prefix: rule(rules, "prefix").map(normalized),
            suffix: rule(rules, "suffix").map(normalized),
        }
    }
}

/// Returns the entries of a configuration: of functions, then of queues, then of topics.
pub(crate) fn entries(all: &GetBucketNotificationConfigurationOutput) -> Vec<ConfiguredEntry<'_>> {
    let functions = all.lambda_function_configurations().iter().map(|e| ConfiguredEntry {
        id: e.id.as_deref(),
        destination: &e.lambda_function_arn,
        events: &e.events,
        filter: e.filter.as_ref(),
    });
    let queues = all.queue_configurations().iter().map(|e| ConfiguredEntry {
        id: e.id.as_deref(),
        destination: &e.queue_arn,
        events: &e.events,
        filter: e.filter.as_ref(),
    });
    let topics = all.topic_configurations().iter().map(|e| ConfiguredEntry {
        id: e.id.as_deref(),
        destination: &e.topic_arn,
        events: &e.events,
        filter: e.filter.as_ref(),
    });
    functions.chain(queues).chain(topics).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_values_are_encoded_as_s3_expects() {
        for (plain, value) in [
            ("segment-logs/", "segment-logs/"),
            ("year=2026/", "year%3D2026/"),
            ("a b+c", "a+b%2Bc"),
            ("(a)_!*'.gz", "(a)_!*'.gz"),
            ("\u{e4}%", "%C3%A4%25"),
        ] {
            assert_eq!(encoded(plain), value);
            assert_eq!(listing::decode(&encoded(plain)), plain);
            assert_eq!(normalized(value.to_owned()), value);
        }
        assert_eq!(normalized("year%3d2026%2F".to_owned()), "year%3D2026/");
        assert_eq!(normalized("a%20b".to_owned()), "a+b");
    }
}
