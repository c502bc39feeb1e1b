//! The declarations, checked against AWS's rules and completed: every name is known from here on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use super::diagnostic::Diagnostic;
use super::raw::{self, Maybe, Raw};
use super::rules::{self, Rule};

/// A whole pipeline, as declared.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Names and owns everything below.
    pub name: String,
    /// The region everything is in.
    pub region: String,
    /// The only account to act in, where one is named.
    pub account: Option<String>,
    /// The tags of everything, the two that mark ownership included.
    pub tags: BTreeMap<String, String>,
    /// The bucket that Segment writes to.
    pub bucket: Bucket,
    /// Which of the bucket's objects are counted.
    pub notification: Notification,
    /// The function's role.
    pub role_name: String,
    /// What the role may do beyond what the handler needs.
    pub role_statements: Vec<Statement>,
    /// The two tables.
    pub table: Table,
    /// The function.
    pub function: Function,
    /// The Segment message types that are counted, in the order declared.
    pub count: Vec<String>,
    /// Segment's workspace: with it, the role that Segment assumes to write into the bucket is made.
    pub segment_workspace_id: Option<String>,
    /// How much comes in a month, where the file says so.
    pub estimate: Option<Volume>,
    /// The environment that was laid over the file, where one was.
    pub environment: Option<String>,
    /// The folder of the file, to which `function.artifact` is relative.
    pub directory: PathBuf,
}

/// `[bucket]`
#[derive(Debug, Clone)]
pub struct Bucket {
    /// The bucket's name, global on AWS.
    pub name: String,
    /// Whether S3 keeps old versions of objects.
    pub versioning: bool,
    /// Days after which S3 deletes the objects under the notification's prefix.
    pub expire_days: Option<i32>,
    /// Whether the bucket's policy denies plain HTTP.
    pub require_tls: bool,
}

/// `[notification]`
#[derive(Debug, Clone)]
pub struct Notification {
    /// What the keys that are counted begin with.
    pub prefix: String,
    /// What they end with.
    pub suffix: String,
}

/// `[[role.statement]]`
#[derive(Debug, Clone)]
pub struct Statement {
    /// IAM actions, never empty.
    pub actions: Vec<String>,
    /// ARNs or `*`, never empty.
    pub resources: Vec<String>,
}

/// `[table]`
#[derive(Debug, Clone)]
pub struct Table {
    /// Name of the counts table.
    pub counts: String,
    /// Name of the ledger table.
    pub ledger: String,
    /// How reads and writes are paid for, in both tables and in the index.
    pub billing: Billing,
    /// Whether the tables can be restored to any second of the last 35 days.
    pub point_in_time_recovery: bool,
    /// Whether DynamoDB refuses to delete the tables.
    pub deletion_protection: bool,
}

/// How a table's reads and writes are paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Billing {
    /// By request.
    OnDemand,
    /// By the hour, for so many capacity units.
    Provisioned {
        /// Read capacity units.
        read: i64,
        /// Write capacity units.
        write: i64,
    },
}

/// `[function]`
#[derive(Debug, Clone)]
pub struct Function {
    /// The function's name.
    pub name: String,
    /// The handler's binary; relative to the file's folder.
    pub artifact: Option<String>,
    /// Memory, in MB.
    pub memory_mb: i32,
    /// Seconds after which Lambda ends an invocation.
    pub timeout_seconds: i32,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// Days that the log is kept.
    pub log_retention_days: i32,
    /// Most invocations at the same time (reserved concurrency), where it is limited.
    pub max_concurrency: Option<i32>,
    /// How often Lambda runs a failed notification again.
    pub retries: i32,
    /// Seconds after which Lambda gives a notification up.
    pub max_event_age_seconds: i32,
    /// The queue that takes what could not be counted.
    pub failure_queue: String,
}

/// `[estimate]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// Events.
    pub events_per_month: u64,
    /// Files that they come in.
    pub files_per_month: u64,
}

/// Segment's destination writes at least once an hour.
const HOURS_A_MONTH: u64 = 730;

/// CloudWatch Logs takes these numbers of days and no others (API reference, PutRetentionPolicy).
const RETENTION_DAYS: [i64; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

/// Lambda keeps an event that could not be run yet for at most six hours.
const SIX_HOURS: i64 = 21_600;

/// Checks and completes. Returns nothing where something that has no default is missing; a missing key is reported
/// only where all of the text could be parsed, since it may stand in the part that could not. The name of an environment
/// that does not name the pipeline itself ends the pipeline's name, and with that all names that derive from it.
pub(super) fn check(
    raw: Raw,
    suffix: Option<(&str, Range<usize>)>,
    complain_of_missing: bool,
    found: &mut Vec<Diagnostic>,
) -> Option<Pipeline> {
    let mut check = Check { found };
    let mut name = check.text(raw.pipeline.name, "pipeline.name", rules::pipeline_name);
    if let (Some(name), Some((environment, span))) = (&mut name, suffix) {
        let valid = rules::pipeline_name(name).is_ok();
        *name = format!("{name}-{environment}");
        if valid {
            check.rule(span, "pipeline.name", rules::pipeline_name(name));
        }
    }
    let region = check.text(raw.pipeline.region, "pipeline.region", rules::region);
    for (value, example) in [(&name, "name = \"segment-events\""), (&region, "region = \"us-east-1\"")] {
        if value.is_none() && complain_of_missing {
            let key = example.split(' ').next().unwrap_or_default();
            let help = format!("write under [pipeline]: {example}");
            check.found.push(Diagnostic::new(0..0, format!("`pipeline.{key}` is missing"), "", help));
        }
    }
    let account = check.text(raw.pipeline.account, "pipeline.account", rules::account);
    let base = name.clone().unwrap_or_else(|| "unnamed".to_owned());
    let tags = check.tags(&raw.tags, &base);

    let bucket = Bucket {
        name: check.text(raw.bucket.name, "bucket.name", rules::bucket_name).unwrap_or_else(|| base.clone()),
        versioning: raw.bucket.versioning.unwrap_or(false),
        expire_days: check.number(raw.bucket.expire_days, "bucket.expire_days", 1, 36_500, "days"),
        require_tls: raw.bucket.require_tls.unwrap_or(true),
    };
    let notification = check.notification(raw.notification);
    let role_name =
        check.text(raw.role.name.clone(), "role.name", rules::role_name).unwrap_or_else(|| format!("{base}-function"));
    if raw.segment.workspace_id.is_some() && role_name == format!("{base}-segment") {
        check.duplicate(raw.role.name.as_ref(), "role.name", "the name of the role that Segment assumes");
    }
    let role_statements = raw.role.statement.into_iter().filter_map(|s| check.statement(s)).collect();
    let table = check.table(raw.table, &base);
    let function = check.function(raw.function, &base);
    let count = check.count(raw.rollup.count);
    let segment_workspace_id = check.text(raw.segment.workspace_id, "segment.workspace_id", |id| {
        // The external id of an sts:AssumeRole call: 2 to 1224 characters (IAM API reference).
        if (2..=1224).contains(&id.len()) {
            return Ok(());
        }
        Err(rules::Broken {
            why: "not a workspace id".into(),
            help: "copy it from Segment's workspace settings".into(),
        })
    });

    let estimate = check.estimate(raw.estimate);

    Some(Pipeline {
        name: name?,
        region: region?,
        account,
        tags,
        bucket,
        notification,
        role_name,
        role_statements,
        table,
        function,
        count,
        segment_workspace_id,
        estimate,
        environment: None,
        directory: PathBuf::new(),
    })
}

/// Reports the names that two environments share, or an environment and the rest of the file: each would undo what the
/// other did.
pub(super) fn shared(all: &[(&str, Range<usize>, Pipeline)], found: &mut Vec<Diagnostic>) {
    for (i, (name, span, one)) in all.iter().enumerate() {
        for (other_name, _, other) in &all[..i] {
            let apart = one.account.is_some() && other.account.is_some() && one.account != other.account;
            let elsewhere = apart || one.region != other.region;
            // Buckets are global on AWS, and roles in an account.
            let keys = [
                ("pipeline.name", apart, &one.name, &other.name),
                ("bucket.name", false, &one.bucket.name, &other.bucket.name),
                ("role.name", apart, &one.role_name, &other.role_name),
                ("table.name", elsewhere, &one.table.counts, &other.table.counts),
                ("table.ledger_name", elsewhere, &one.table.ledger, &other.table.ledger),
                ("function.name", elsewhere, &one.function.name, &other.function.name),
                ("function.failure_queue", elsewhere, &one.function.failure_queue, &other.function.failure_queue),
            ];
            for (key, _, value, _) in keys.into_iter().filter(|(_, apart, one, other)| !apart && one == other) {
                let with = match *other_name {
                    "" => "the rest of the file".to_owned(),
                    other => format!("`environments.{other}`"),
                };
                found.push(Diagnostic::new(
                    span.clone(),
                    format!("`environments.{name}` shares `{key}` with {with}"),
                    format!("also `{value}`"),
                    format!("give it a name of its own: {key} = \"{value}-{name}\""),
                ));
            }
        }
    }
}

struct Check<'a> {
    found: &'a mut Vec<Diagnostic>,
}

impl Check<'_> {
    fn rule(&mut self, span: Range<usize>, what: &str, rule: Rule) {
        if let Err(broken) = rule {
            self.found.push(Diagnostic::new(span, format!("`{what}` breaks a rule of AWS's"), broken.why, broken.help));
        }
    }

    fn text(&mut self, value: Maybe<String>, what: &str, rule: impl Fn(&str) -> Rule) -> Option<String> {
        let value = value?;
        self.rule(value.span(), what, rule(value.get_ref()));
        Some(value.into_inner())
    }

    /// A whole number within bounds. `most` fits an `i32`, which is what AWS's APIs take.
    fn number(&mut self, value: Maybe<i64>, what: &str, least: i64, most: i64, unit: &str) -> Option<i32> {
        let value = value?;
        let span = value.span();
        let n = value.into_inner();
        if (least..=most).contains(&n) {
            return i32::try_from(n).ok();
        }
        self.found.push(Diagnostic::new(
            span,
            format!("`{what}` is out of range"),
            format!("{n} {unit}"),
            format!("write a whole number from {least} to {most} ({unit})"),
        ));
        None
    }

    fn duplicate<T>(&mut self, value: Option<&Spanned<T>>, what: &str, taken_by: &str) {
        let span = value.map_or(0..0, Spanned::span);
        self.found.push(Diagnostic::new(
            span,
            format!("`{what}` is used twice"),
            format!("also {taken_by}"),
            "give each its own name",
        ));
    }

    fn tags(&mut self, tags: &BTreeMap<Spanned<String>, Spanned<String>>, pipeline: &str) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (key, value) in tags {
            self.rule(key.span(), &format!("tags.{}", key.get_ref()), rules::tag_key(key.get_ref()));
            self.rule(value.span(), &format!("tags.{}", key.get_ref()), rules::tag_value(value.get_ref()));
            all.insert(key.get_ref().clone(), value.get_ref().clone());
        }
        // Fifty tags a resource (AWS's tagging guide), two of which mark what is ours.
        if let Some((last, _)) = tags.iter().nth(48) {
            self.found.push(Diagnostic::new(last.span(), "too many tags", "the 49th", "keep 48 or fewer"));
        }
        all.insert(crate::owner::PIPELINE_TAG.to_owned(), pipeline.to_owned());
        all.insert(crate::owner::MANAGED_BY_TAG.to_owned(), crate::owner::MANAGED_BY.to_owned());
        all
    }

    fn notification(&mut self, raw: raw::Notification) -> Notification {
        let lead = raw.prefix.as_ref().filter(|p| p.get_ref().starts_with('/')).map(Spanned::span);
        if let Some(span) = lead {
            self.found.push(Diagnostic::new(
                span,
                "`notification.prefix` matches nothing",
                "keys in S3 do not begin with a slash",
                "leave the first slash out: prefix = \"segment-logs/\"",
            ));
        }
        let (prefix_span, suffix_span) =
            (raw.prefix.as_ref().map(Spanned::span), raw.suffix.as_ref().map(Spanned::span));
        let prefix = self.text(raw.prefix, "notification.prefix", rules::filter);
        let suffix = self.text(raw.suffix, "notification.suffix", rules::filter);
        let both = Notification {
            prefix: prefix.unwrap_or_else(|| "segment-logs/".to_owned()),
            suffix: suffix.unwrap_or_else(|| ".gz".to_owned()),
        };
        // A key has at most 1,024 bytes (S3 user guide, object keys).
        if both.prefix.len() + both.suffix.len() > 1024 {
            let span = suffix_span.or(prefix_span).unwrap_or(0..0);
            self.found.push(Diagnostic::new(
                span,
                "`notification` matches nothing",
                "prefix and suffix together are longer than a key can be",
                "keep both within 1024 bytes",
            ));
        }
        both
    }

    fn statement(&mut self, raw: Spanned<raw::Statement>) -> Option<Statement> {
        let span = raw.span();
        let raw = raw.into_inner();
        for (what, list) in [("actions", &raw.actions), ("resources", &raw.resources)] {
            if list.is_empty() {
                let message = format!("`role.statement.{what}` is missing or empty");
                self.found.push(Diagnostic::new(
                    span.clone(),
                    message,
                    "",
                    super::keys::example(&format!("role.statement.{what}")),
                ));
            }
        }
        for action in &raw.actions {
            self.rule(action.span(), "role.statement.actions", rules::action(action.get_ref()));
        }
        for arn in &raw.resources {
            self.rule(arn.span(), "role.statement.resources", rules::resource(arn.get_ref()));
        }
        let plain = |list: Vec<Spanned<String>>| list.into_iter().map(Spanned::into_inner).collect::<Vec<_>>();
        let statement = Statement { actions: plain(raw.actions), resources: plain(raw.resources) };
        (!statement.actions.is_empty() && !statement.resources.is_empty()).then_some(statement)
    }

    fn table(&mut self, raw: raw::Table, base: &str) -> Table {
        let ledger_given = raw.ledger_name.clone();
        let name_given = raw.name.clone();
        let counts = self.text(raw.name, "table.name", rules::table_name).unwrap_or_else(|| format!("{base}-counts"));
        let ledger = self
            .text(raw.ledger_name, "table.ledger_name", rules::table_name)
            .unwrap_or_else(|| format!("{base}-ledger"));
        if counts == ledger {
            match ledger_given {
                Some(_) => self.duplicate(ledger_given.as_ref(), "table.ledger_name", "the name of the counts table"),
                None => self.duplicate(name_given.as_ref(), "table.name", "the name of the ledger table"),
            }
        }
        let billing = match raw.billing {
            None => Billing::OnDemand,
            Some(billing) => {
                let span = billing.span();
                self.billing(&span, &billing.into_inner())
            }
        };
        Table {
            counts,
            ledger,
            billing,
            point_in_time_recovery: raw.point_in_time_recovery.unwrap_or(true),
            deletion_protection: raw.deletion_protection.unwrap_or(true),
        }
    }

    fn billing(&mut self, span: &Range<usize>, raw: &raw::Billing) -> Billing {
        let help = "write billing = \"on-demand\" or billing = { read = 5, write = 5 }";
        match raw {
            raw::Billing::Named(name) if name == "on-demand" => Billing::OnDemand,
            raw::Billing::Named(name) => {
                let label = format!("`{}` is no way of billing", name.escape_debug());
                self.found.push(Diagnostic::new(span.clone(), "`table.billing` is unknown", label, help));
                Billing::OnDemand
            }
            raw::Billing::Provisioned { read, write } => {
                // 40,000 units a table is DynamoDB's default quota in every region.
                if ![read, write].into_iter().all(|units| (1..=40_000).contains(units)) {
                    let label = format!("read {read}, write {write}");
                    let message = "`table.billing` is out of range";
                    self.found.push(Diagnostic::new(
                        span.clone(),
                        message,
                        label,
                        "write 1 to 40000 capacity units each",
                    ));
                }
                Billing::Provisioned { read: *read, write: *write }
            }
        }
    }

    fn function(&mut self, raw: raw::Function, base: &str) -> Function {
        let architecture = raw.architecture.map(|value| {
            if !matches!(value.get_ref().as_str(), "x86_64" | "arm64") {
                let label = format!("Lambda has no `{}`", value.get_ref().escape_debug());
                let help = "write architecture = \"x86_64\" or architecture = \"arm64\"";
                self.found.push(Diagnostic::new(value.span(), "`function.architecture` is unknown", label, help));
            }
            value.into_inner()
        });
        if let Some(days) = &raw.log_retention_days
            && !RETENTION_DAYS.contains(days.get_ref())
        {
            let allowed: Vec<String> = RETENTION_DAYS.iter().map(ToString::to_string).collect();
            self.found.push(Diagnostic::new(
                days.span(),
                "`function.log_retention_days` is not one of CloudWatch's periods",
                format!("{} days", days.get_ref()),
                format!("write one of {}", allowed.join(", ")),
            ));
        }
        let name = self.text(raw.name, "function.name", rules::function_name);
        let retention = raw.log_retention_days.map_or(30, Spanned::into_inner);
        Function {
            name: name.unwrap_or_else(|| format!("{base}-handler")),
            artifact: raw.artifact,
            memory_mb: self.number(raw.memory_mb, "function.memory_mb", 128, 10_240, "MB").unwrap_or(256),
            timeout_seconds: self
                .number(raw.timeout_seconds, "function.timeout_seconds", 1, 900, "seconds")
                .unwrap_or(60),
            architecture: architecture.unwrap_or_else(|| "x86_64".to_owned()),
            log_retention_days: i32::try_from(retention).unwrap_or(i32::MAX),
            max_concurrency: self.number(raw.max_concurrency, "function.max_concurrency", 1, 100_000, "invocations"),
            retries: self.number(raw.retries, "function.retries", 0, 2, "retries").unwrap_or(2),
            max_event_age_seconds: self
                .number(raw.max_event_age_seconds, "function.max_event_age_seconds", 60, SIX_HOURS, "seconds")
                .unwrap_or(21_600),
            failure_queue: self
                .text(raw.failure_queue, "function.failure_queue", rules::queue_name)
                .unwrap_or_else(|| format!("{base}-failures")),
        }
    }

    fn estimate(&mut self, raw: raw::Estimate) -> Option<Volume> {
        // A thousand times what the largest senders send: beyond, it is a slip of the keyboard.
        let files_span = raw.files_per_month.as_ref().map(Spanned::span);
        let mut volume = |value, what: &str| self.volume(value, what, 1_000_000_000_000);
        let events = volume(raw.events_per_month, "estimate.events_per_month");
        let files = volume(raw.files_per_month, "estimate.files_per_month");
        if let (None, Some(span)) = (events, files_span) {
            let help = format!("write under [estimate]: {}", super::keys::example("estimate.events_per_month"));
            self.found.push(Diagnostic::new(span, "`estimate.events_per_month` is missing", "", help));
        }
        Some(Volume { events_per_month: events?, files_per_month: files.unwrap_or(HOURS_A_MONTH) })
    }

    fn volume(&mut self, value: Maybe<i64>, what: &str, most: u64) -> Option<u64> {
        let value = value?;
        let n = u64::try_from(*value.get_ref()).ok().filter(|n| (1..=most).contains(n));
        if n.is_none() {
            self.found.push(Diagnostic::new(
                value.span(),
                format!("`{what}` is out of range"),
                format!("{} a month", value.get_ref()),
                format!("write a whole number from 1 to {most}"),
            ));
        }
        n
    }

    fn count(&mut self, raw: Maybe<Vec<Spanned<String>>>) -> Vec<String> {
        let Some(raw) = raw else {
            return vec!["track".to_owned()];
        };
        let help = format!("write some of {}", contract::MESSAGE_TYPES.join(", "));
        if raw.get_ref().is_empty() {
            let label = "nothing would be counted";
            self.found.push(Diagnostic::new(raw.span(), "`rollup.count` is empty", label, help.clone()));
        }
        let mut seen = BTreeSet::new();
        for kind in raw.get_ref() {
            let name = kind.get_ref().as_str();
            if !contract::MESSAGE_TYPES.contains(&name) {
                let message = format!("`{}` is not a Segment message type", name.escape_debug());
                self.found.push(Diagnostic::new(kind.span(), message, "", help.clone()));
            } else if !seen.insert(name.to_owned()) {
                self.found.push(Diagnostic::new(
                    kind.span(),
                    format!("`{name}` is named twice"),
                    "",
                    "name each type once",
                ));
            }
        }
        raw.into_inner().into_iter().map(Spanned::into_inner).collect()
    }
}
