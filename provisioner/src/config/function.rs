//! `[function]`, and the functions of a pipeline

use std::collections::BTreeMap;

use counting::names::env;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::check::{Check, Maybe};
use super::key::{Key, key};
use super::notification::Via;
use super::role::Role;
use super::rules;
use super::setting::Setting;

/// The retention periods that CloudWatch Logs accepts, in days (API reference, PutRetentionPolicy).
const RETENTION_DAYS: [i64; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

/// The longest time that Lambda keeps an event before its invocation, in seconds (API reference,
/// PutFunctionEventInvokeConfig).
const SIX_HOURS: i64 = 21_600;

/// The size of declared environment variables in bytes. Lambda allows 4 KB in total (Lambda quotas), of which the
/// pipeline's own variables need up to 1 KB.
const MOST_ENVIRONMENT_BYTES: usize = 3_072;

/// The events with which Lambda invokes a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// Notifications of objects; the function is the counter.
    Notifications,
    /// Batches of the stream of the ledger table.
    Ledger {
        /// The most records in a batch.
        batch_size: i32,
    },
    /// Batches of the Kinesis stream.
    Stream {
        /// The most records in a batch.
        batch_size: i32,
    },
}

/// A function: the counter or a consumer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Function {
    /// The function's name.
    pub(crate) name: String,
    /// Its role.
    pub(crate) role: Role,
    /// Its events.
    pub(crate) source: Source,
    /// The function's binary, relative to the file's folder.
    pub(crate) artifact: Option<String>,
    /// Memory, in MB.
    pub(crate) memory_mb: i32,
    /// Seconds after which Lambda ends an invocation.
    pub(crate) timeout_seconds: i32,
    /// `x86_64` or `arm64`.
    pub(crate) architecture: String,
    /// Days for which the log is kept.
    pub(crate) log_retention_days: Setting<i32>,
    /// The limit of concurrent invocations (reserved concurrency), if there is one.
    pub(crate) max_concurrency: Option<i32>,
    /// Retries of a failed notification or batch.
    pub(crate) retries: i32,
    /// Seconds after which Lambda gives up on a notification.
    pub(crate) max_event_age_seconds: i32,
    /// The name of the queue that receives failed notifications, or the places of failed batches in their stream.
    pub(crate) failure_queue: String,
    /// Environment variables; those of the counter in addition to the pipeline's own.
    pub(crate) environment: BTreeMap<String, String>,
    /// The ARN of the KMS key that encrypts the environment variables at rest; without one, Lambda's own key.
    pub(crate) kms_key: Option<String>,
    /// The ARN of the KMS key that encrypts the failure queue; without one, SQS's own key.
    pub(crate) failure_queue_kms_key: Option<String>,
}

/// The retries of an asynchronous invocation, at most and by default (API reference, PutFunctionEventInvokeConfig).
pub(crate) const INVOKE_RETRIES: i32 = 2;
/// The retries of a message of the queue: by default those of a minor disturbance, and at most one less than the receive
/// count of SQS (API reference, SetQueueAttributes).
const QUEUE_RETRIES: i32 = 4;
const MOST_QUEUE_RETRIES: i64 = 999;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    name: Maybe<String>,
    artifact: Option<String>,
    memory_mb: Maybe<i64>,
    timeout_seconds: Maybe<i64>,
    architecture: Maybe<String>,
    log_retention_days: Maybe<i64>,
    max_concurrency: Maybe<i64>,
    retries: Maybe<i64>,
    max_event_age_seconds: Maybe<i64>,
    failure_queue: Maybe<String>,
    environment: BTreeMap<Spanned<String>, Spanned<String>>,
    kms_key: Maybe<String>,
    failure_queue_kms_key: Maybe<String>,
}

pub(super) const KEYS: &[Key] = &[
    key("function.name", "name = \"segment-events-handler\"", "NAME-handler", "Name of the function.")
        .text(rules::FUNCTION_NAME),
    key(
        "function.artifact",
        "artifact = \"target/lambda/bootstrap\"",
        "the binary that `make handler` builds",
        "Binary of the function, relative to the file.",
    ),
    key("function.memory_mb", "memory_mb = 256", "256", "Memory in MB; the CPU share grows with it.")
        .range(128, 10_240, "MB"),
    key("function.timeout_seconds", "timeout_seconds = 60", "60", "Seconds after which Lambda ends an invocation.")
        .range(1, 900, "seconds"),
    key(
        "function.architecture",
        "architecture = \"x86_64\"",
        "\"x86_64\"",
        "Instruction set of the functions; `make handler` builds for it.",
    )
    .words(&["x86_64", "arm64"]),
    key("function.log_retention_days", "log_retention_days = 30", "30", "Days for which the log is kept.")
        .numbers(&RETENTION_DAYS, "days"),
    key(
        "function.max_concurrency",
        "max_concurrency = 10",
        "no limit",
        "Limit of concurrent invocations (reserved concurrency).",
    )
    .range(1, 100_000, "invocations"),
    key(
        "function.retries",
        "retries = 4",
        "4",
        "Retries of a failed notification; without a queue at most 2, the default.",
    )
    .range(0, MOST_QUEUE_RETRIES, "retries"),
    key(
        "function.max_event_age_seconds",
        "max_event_age_seconds = 21600",
        "21600",
        "Seconds after which Lambda gives up on a notification that it was sent without a queue.",
    )
    .range(60, SIX_HOURS, "seconds"),
    key(
        "function.failure_queue",
        "failure_queue = \"segment-events-failures\"",
        "NAME-failures",
        "Name of the queue that receives failed notifications.",
    )
    .text(rules::QUEUE_NAME),
    key(
        "function.environment",
        "environment = { STAGE = \"production\" }",
        "",
        "Environment variables for a counter of your own, in addition to the pipeline's.",
    ),
    key(
        "function.kms_key",
        "kms_key = \"arn:aws:kms:us-east-1:123456789012:key/EXAMPLE\"",
        "Lambda's key",
        "ARN of the KMS key that encrypts the environment variables at rest.",
    )
    .form(rules::KMS_KEY_FORM),
    key(
        "function.failure_queue_kms_key",
        "failure_queue_kms_key = \"arn:aws:kms:us-east-1:123456789012:key/EXAMPLE\"",
        "SQS's key",
        "ARN of the KMS key that encrypts the failure queue.",
    )
    .form(rules::KMS_KEY_FORM),
];

impl Raw {
    pub(super) fn check(
        self,
        check: &mut Check<'_>,
        base: &str,
        region: Option<&str>,
        via: Via,
        role: Role,
    ) -> Function {
        Function {
            name: check.text(self.name, "function.name").unwrap_or_else(|| format!("{base}-handler")),
            role,
            source: Source::Notifications,
            artifact: self.artifact,
            memory_mb: check.number(self.memory_mb, "function.memory_mb").unwrap_or(256),
            timeout_seconds: check.number(self.timeout_seconds, "function.timeout_seconds").unwrap_or(60),
            architecture: check.word(self.architecture, "function.architecture").unwrap_or("x86_64").to_owned(),
            log_retention_days: Setting::new(check.number(self.log_retention_days, "function.log_retention_days"), 30),
            max_concurrency: check.number(self.max_concurrency, "function.max_concurrency"),
            retries: check_retries(check, self.retries, via),
            max_event_age_seconds: check
                .number(self.max_event_age_seconds, "function.max_event_age_seconds")
                .unwrap_or(21_600),
            failure_queue: check
                .text(self.failure_queue, "function.failure_queue")
                .unwrap_or_else(|| format!("{base}-failures")),
            environment: check_environment(check, "function.environment", &self.environment, &env::ALL),
            kms_key: check.text_by(self.kms_key, "function.kms_key", |arn| rules::kms_key(arn, region)),
            failure_queue_kms_key: check.text_by(self.failure_queue_kms_key, "function.failure_queue_kms_key", |arn| {
                rules::kms_key(arn, region)
            }),
        }
    }
}

/// Checks the retries. Lambda retries an asynchronous invocation less often than a queue delivers a message.
fn check_retries(check: &mut Check<'_>, value: Maybe<i64>, via: Via) -> i32 {
    let span = value.as_ref().map(Spanned::span);
    let retries = check.number(value, "function.retries");
    let (default, most) = match via {
        Via::Queue => (QUEUE_RETRIES, i32::MAX),
        Via::Function => (INVOKE_RETRIES, INVOKE_RETRIES),
    };
    if let (Some(n), Some(span)) = (retries.filter(|n| *n > most), span) {
        let help = format!("write {most} or fewer, or via = \"queue\" below [notification]");
        check.mistake(span, "`function.retries` is out of range without a queue", format!("{n} retries"), help);
    }
    retries.unwrap_or(default)
}

/// Checks the names and values of the environment variables at `path`, and their total size. The pipeline sets `own`.
pub(super) fn check_environment(
    check: &mut Check<'_>,
    path: &str,
    declared: &BTreeMap<Spanned<String>, Spanned<String>>,
    own: &[&str],
) -> BTreeMap<String, String> {
    let mut size = 0;
    for (name, value) in declared {
        let key = format!("{path}.{}", name.get_ref());
        check.rule(name.span(), &key, rules::variable_name(name.get_ref()));
        if own.contains(&name.get_ref().as_str()) {
            check.mistake(
                name.span(),
                format!("`{key}` is a variable of the pipeline"),
                "the provisioner sets it",
                "remove it",
            );
        }
        size += name.get_ref().len() + value.get_ref().len();
        if size > MOST_ENVIRONMENT_BYTES {
            check.mistake(
                value.span(),
                format!("`{path}` is too large"),
                format!("{size} bytes up to here"),
                format!("keep names and values within {MOST_ENVIRONMENT_BYTES} bytes"),
            );
            break;
        }
    }
    declared.iter().map(|(name, value)| (name.get_ref().clone(), value.get_ref().clone())).collect()
}
