//! `[[consumer]]`: functions of one's own that are told what was counted.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::check::{Check, Maybe};
use super::function::{Function, Source, check_environment};
use super::key::{Key, example, key};
use super::role::{RawStatement, Role, check_statements};
use super::rules;

/// The default of `batch_size`.
const BATCH_SIZE: i32 = 100;
/// The default of `retries`. Lambda halves a batch at each.
const RETRIES: i32 = 10;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    name: Maybe<String>,
    from: Maybe<String>,
    artifact: Option<String>,
    memory_mb: Maybe<i64>,
    timeout_seconds: Maybe<i64>,
    environment: BTreeMap<Spanned<String>, Spanned<String>>,
    statement: Vec<Spanned<RawStatement>>,
    batch_size: Maybe<i64>,
    retries: Maybe<i64>,
}

/// The bounds of batches and retries are Lambda's (API reference, CreateEventSourceMapping).
pub(super) const KEYS: &[Key] = &[
    key("consumer.name", "name = \"alert\"", "", "Name; function and role are called PIPELINE-NAME.")
        .text(rules::FUNCTION_NAME)
        .required(),
    key(
        "consumer.from",
        "from = \"ledger\"",
        "\"ledger\"",
        "\"ledger\": the stream of the ledger table; \"kinesis\": the stream of [stream].",
    )
    .words(&["ledger", "kinesis"]),
    key(
        "consumer.artifact",
        "artifact = \"target/lambda/alert/bootstrap\"",
        "target/lambda/NAME/bootstrap",
        "Binary of the function, relative to the file.",
    ),
    key("consumer.memory_mb", "memory_mb = 128", "128", "Memory in MB; the CPU share grows with it.")
        .range(128, 10_240, "MB"),
    key("consumer.timeout_seconds", "timeout_seconds = 60", "60", "Seconds after which Lambda ends an invocation.")
        .range(1, 900, "seconds"),
    key("consumer.environment", "environment = { TABLE = \"alerts\" }", "", "Environment variables of the function."),
    key("consumer.batch_size", "batch_size = 100", "100", "Records of the stream in a batch, at most.")
        .range(1, 10_000, "records"),
    key(
        "consumer.retries",
        "retries = 10",
        "10",
        "Retries of a failed batch, before its place in the stream goes to the failure queue.",
    )
    .range(0, 10_000, "retries"),
    key(
        "consumer.statement.actions",
        "actions = [\"sns:Publish\"]",
        "",
        "IAM actions that the function's role allows in addition.",
    )
    .text(rules::ACTION)
    .entries(1, usize::MAX)
    .required(),
    key(
        "consumer.statement.resources",
        "resources = [\"arn:aws:sns:us-east-1:123456789012:alerts\"]",
        "",
        "ARNs on which the role allows these actions.",
    )
    .text(rules::RESOURCE)
    .entries(1, usize::MAX)
    .required(),
];

impl Raw {
    /// Checks the section. Settings that it lacks are those of `counter`. Returns `None` without a name.
    pub(super) fn check(
        self,
        check: &mut Check<'_>,
        base: &str,
        counter: &Function,
        has_stream: bool,
    ) -> Option<Spanned<Function>> {
        let Some(name) = self.name else {
            check.mistake(0..0, "`consumer.name` is missing", "", example(KEYS, "consumer.name"));
            return None;
        };
        let function = format!("{base}-{}", name.get_ref());
        let rule = rules::FUNCTION_NAME;
        check.rule(name.span(), "consumer.name", rule.check(name.get_ref()).and_then(|()| rule.check(&function)));
        let batch_size = check.number(self.batch_size, "consumer.batch_size");
        let from_stream = check_from(check, self.from, has_stream);
        let batch_size = batch_size.unwrap_or(BATCH_SIZE);
        let statements = check_statements(check, "consumer.statement", KEYS, self.statement);
        let artifact = self.artifact.unwrap_or_else(|| format!("target/lambda/{}/bootstrap", name.get_ref()));
        let checked = Function {
            role: Role { name: function.clone(), statements },
            source: if from_stream { Source::Stream { batch_size } } else { Source::Ledger { batch_size } },
            artifact: Some(artifact),
            memory_mb: check.number(self.memory_mb, "consumer.memory_mb").unwrap_or(128),
            timeout_seconds: check.number(self.timeout_seconds, "consumer.timeout_seconds").unwrap_or(60),
            max_concurrency: None,
            retries: check.number(self.retries, "consumer.retries").unwrap_or(RETRIES),
            failure_queue: format!("{function}-failures"),
            environment: check_environment(check, "consumer.environment", &self.environment, &[]),
            name: function,
            ..counter.clone()
        };
        Some(Spanned::new(name.span(), checked))
    }
}

/// Checks the source, and returns whether it is the Kinesis stream.
fn check_from(check: &mut Check<'_>, from: Maybe<String>, has_stream: bool) -> bool {
    let span = from.as_ref().map(Spanned::span);
    let is_stream = check.word(from, "consumer.from") == Some("kinesis");
    if let (Some(span), true, false) = (span, is_stream, has_stream) {
        let help = "declare the stream: write [stream] and below it name = \"...\"";
        check.mistake(span, "`consumer.from` names a stream that is not declared", "", help);
    }
    is_stream
}

/// Reports the consumers whose function, role or queue has the name of another resource of the pipeline.
pub(super) fn check_names(check: &mut Check<'_>, consumers: &[Spanned<Function>], taken: &[(&str, &str)]) {
    for (n, consumer) in consumers.iter().enumerate() {
        let function = consumer.get_ref();
        let earlier = consumers.iter().take(n).any(|earlier| earlier.get_ref().name == function.name);
        let names = [&function.name, &function.failure_queue];
        let other = taken.iter().find(|(_, name)| names.iter().any(|own| own == name)).map(|(key, _)| *key);
        if let Some(other) = other.or(earlier.then_some("an earlier consumer")) {
            check.duplicate(Some(consumer), "consumer.name", other);
        }
    }
}
