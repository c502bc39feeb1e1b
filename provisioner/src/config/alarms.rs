//! `[alarms]`

use serde::{Deserialize, Serialize};

use super::check::{Check, Maybe};
use super::key::{Key, key};
use super::rules;

/// The default of `silent_hours`. Segment writes at least once an hour while there are events, but a source that sends
/// at one time of the day is silent for a day; the delivery takes another hour, and CloudWatch counts whole hours.
const SILENT_HOURS: i32 = 26;
/// The longest time that an alarm looks back, seven days (CloudWatch API reference, PutMetricAlarm: Period).
const MOST_SILENT_HOURS: i64 = 168;
const SKIPPED_PERCENT: i32 = 5;
const MOST_SKIPPED_PERCENT: i64 = 99;
const QUEUE_AGE_MINUTES: i32 = 60;
/// The time for which the queue keeps a notification, 14 days.
const MOST_QUEUE_AGE_MINUTES: i64 = 20_160;

/// The alarms. A limit of 0 stands for no alarm.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Alarms {
    /// The receiver of the alarms.
    pub(crate) receiver: Receiver,
    /// Hours without a counted object.
    pub(crate) silent_hours: i32,
    /// Percents of the lines of an hour that are skipped.
    pub(crate) skipped_percent: i32,
    /// Age of the oldest notification, in minutes.
    pub(crate) queue_age_minutes: i32,
}

/// The receiver of alarms.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Receiver {
    /// An address, which is subscribed to a topic of the pipeline.
    Email(String),
    /// The ARN of an existing topic.
    Topic(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    email: Maybe<String>,
    topic: Maybe<String>,
    silent_hours: Maybe<i64>,
    skipped_percent: Maybe<i64>,
    queue_age_minutes: Maybe<i64>,
}

pub(super) const KEYS: &[Key] = &[
    key(
        "alarms.email",
        "email = \"oncall@example.com\"",
        "",
        "Address that receives the alarms; a topic is created, and the address is subscribed to it.",
    )
    .form(rules::EMAIL_FORM)
    .text(rules::EMAIL),
    key(
        "alarms.topic",
        "topic = \"arn:aws:sns:us-east-1:123456789012:oncall\"",
        "",
        "ARN of an existing topic that receives the alarms, in place of the address.",
    )
    .form(rules::TOPIC_FORM),
    key(
        "alarms.silent_hours",
        "silent_hours = 26",
        "26",
        "Hours without a counted object after which there is an alarm; 0: none.",
    )
    .range(0, MOST_SILENT_HOURS, "hours"),
    key(
        "alarms.skipped_percent",
        "skipped_percent = 5",
        "5",
        "Percents of an hour's lines above which skipped lines are an alarm; 0: none.",
    )
    .range(0, MOST_SKIPPED_PERCENT, "percent"),
    key(
        "alarms.queue_age_minutes",
        "queue_age_minutes = 60",
        "60",
        "Age of the oldest notification above which there is an alarm; 0: none.",
    )
    .range(0, MOST_QUEUE_AGE_MINUTES, "minutes"),
];

impl Raw {
    /// Checks the section. Returns `None` without a receiver.
    pub(super) fn check(self, check: &mut Check<'_>, region: Option<&str>) -> Option<Alarms> {
        if let (Some(_), Some(topic)) = (&self.email, &self.topic) {
            check.mistake(
                topic.span(),
                "`alarms.topic` and `alarms.email` exclude each other",
                "",
                "remove one of them; an address can also be subscribed to your topic by hand",
            );
        }
        let email = check.text(self.email, "alarms.email").map(Receiver::Email);
        let topic = check.text_by(self.topic, "alarms.topic", |arn| rules::topic_arn(arn, region)).map(Receiver::Topic);
        let silent_hours = check.number(self.silent_hours, "alarms.silent_hours").unwrap_or(SILENT_HOURS);
        let skipped_percent = check.number(self.skipped_percent, "alarms.skipped_percent").unwrap_or(SKIPPED_PERCENT);
        let queue_age_minutes = check.number(self.queue_age_minutes, "alarms.queue_age_minutes");
        let queue_age_minutes = queue_age_minutes.unwrap_or(QUEUE_AGE_MINUTES);
        let Some(receiver) = email.or(topic) else {
            let help = "write below [alarms]: email = \"oncall@example.com\", or topic = \"arn:aws:sns:...\"";
            check.mistake(0..0, "`alarms.email` is missing", "", help);
            return None;
        };
        Some(Alarms { receiver, silent_hours, skipped_percent, queue_age_minutes })
    }
}
