//! The whole file: its raw form as serde sees it, and its checked form, the desired state.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::alarms::{self, Alarms};
use super::bucket::{self, Bucket};
use super::check::Check;
use super::consumer;
use super::diagnostic::Diagnostic;
use super::estimate::{self, Volume};
use super::function::{self, Function, Source};
use super::key::{Key, example, suggestion};
use super::notification::{self, Notification};
use super::pipeline::{self, check_tags};
use super::role;
use super::stream::{self, Stream};
use super::table::{self, Table};
use super::tree::{self, Tree};
use super::{rollup, rules, segment};

/// A checked `pipeline.toml`: the desired state, with every name filled in.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Pipeline {
    /// The pipeline's name; other names derive from it.
    pub(crate) name: String,
    /// The region of all resources.
    pub(crate) region: String,
    /// The only account in which to act, if the file names one.
    pub(crate) account: Option<String>,
    /// The tags of all resources, including the two that mark ownership.
    pub(crate) tags: BTreeMap<String, String>,
    /// The bucket to which Segment writes.
    pub(crate) bucket: Bucket,
    /// The filter that selects the objects to count.
    pub(crate) notification: Notification,
    /// The ARN of the policy that bounds the permissions of every role of the pipeline.
    pub(crate) permissions_boundary: Option<String>,
    /// The tables.
    pub(crate) table: Table,
    /// The function that counts.
    pub(crate) function: Function,
    /// The functions that are told what was counted.
    pub(crate) consumers: Vec<Function>,
    /// The rules of counting.
    pub(crate) rollup: rollup::Rollup,
    /// The stream of the ledger's changes, if the file declares one.
    pub(crate) stream: Option<Stream>,
    /// The alarms, if the file declares them.
    pub(crate) alarms: Option<Alarms>,
    /// The id of Segment's workspace; with it, the role that Segment assumes to write to the bucket is created.
    pub(crate) segment_workspace_id: Option<String>,
    /// The expected volume, if the file declares one.
    pub(crate) estimate: Option<Volume>,
    /// The environment that overlays the file, if any.
    pub(crate) environment: Option<String>,
    /// The folder of the file, to which `function.artifact` is relative.
    #[serde(skip)]
    pub(crate) directory: PathBuf,
}

impl Pipeline {
    /// Returns the functions of the pipeline; the counter is the first.
    pub(crate) fn functions(&self) -> Vec<&Function> {
        std::iter::once(&self.function).chain(&self.consumers).collect()
    }

    /// Returns the name of the role that Segment assumes, if the file declares it.
    pub(crate) fn segment_role(&self) -> String {
        format!("{}-segment", self.name)
    }

    /// Returns whether functions read the stream of the ledger table.
    pub(crate) fn has_ledger_stream(&self) -> bool {
        self.consumers.iter().any(|consumer| matches!(consumer.source, Source::Ledger { .. }))
    }

    /// Returns whether the ledger's markers say what was added.
    pub(crate) fn has_outbox(&self) -> bool {
        self.has_ledger_stream() || self.stream.is_some()
    }
}

/// The file as serde sees it. Every key may be absent here; the checks know the required ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    pipeline: pipeline::Raw,
    tags: pipeline::RawTags,
    bucket: bucket::Raw,
    notification: notification::Raw,
    role: role::Raw,
    table: table::Raw,
    function: function::Raw,
    consumer: Vec<consumer::Raw>,
    rollup: rollup::Raw,
    /// Absent without the section, which alone declares a stream.
    stream: Option<stream::Raw>,
    /// Absent without the section, which alone declares alarms.
    alarms: Option<alarms::Raw>,
    segment: segment::Raw,
    estimate: estimate::Raw,
}

/// Returns every key, section by section.
pub(super) fn all_keys() -> impl Iterator<Item = &'static Key> {
    let sections: [&[Key]; 12] = [
        pipeline::KEYS,
        bucket::KEYS,
        notification::KEYS,
        role::KEYS,
        table::KEYS,
        function::KEYS,
        consumer::KEYS,
        rollup::KEYS,
        estimate::KEYS,
        stream::KEYS,
        alarms::KEYS,
        segment::KEYS,
    ];
    sections.into_iter().flatten()
}

/// The mistakes after which the rest of a file is not looked at. Each takes a time in proportion to the file.
const MOST_ROUNDS: usize = 200;

/// Deserializes the tree. A value that does not fit is reported and cut out, and the rest is tried again, so that the
/// first mistake does not hide the next. Returns `None` if the mistakes are too many to go on.
pub(super) fn read(mut tree: Tree<'_>, found: &mut Vec<Diagnostic>) -> Option<Raw> {
    let keys: Vec<&Key> = all_keys().collect();
    for _ in 0..MOST_ROUNDS {
        let error = match Raw::deserialize(toml::Deserializer::from(tree.clone())) {
            Ok(raw) => return Some(raw),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        // Each round cuts a node out of the tree.
        match tree::cut(&mut tree, &span) {
            Some(cut) if cut.by_key => {
                let message = format!("`{}` is not a key of pipeline.toml", cut.path);
                found.push(Diagnostic::new(span, message, "", suggestion(&keys, &cut.path)));
            }
            Some(cut) => {
                let message = format!("`{}` has a wrong value", cut.path);
                found.push(Diagnostic::new(span, message, error.message(), example(all_keys(), &cut.path)));
            }
            None => {
                found.push(Diagnostic::new(span, error.message(), "", "see every key in docs/reference.md"));
                return None;
            }
        }
    }
    None
}

/// Checks the file and fills in the names. Returns `None` if a required key is absent. An absent key is reported only
/// if all of the text was parsed, since the key may be in the unparsed part. The name of an environment that does not
/// set `pipeline.name` is appended to the pipeline's name, and so to every derived name.
pub(super) fn check(
    raw: Raw,
    suffix: Option<(&str, Range<usize>)>,
    report_missing: bool,
    found: &mut Vec<Diagnostic>,
) -> Option<Pipeline> {
    let keys: Vec<&'static Key> = all_keys().collect();
    let mut check = Check { found, keys: &keys };
    let name_span = raw.pipeline.name.as_ref().map(Spanned::span);
    let mut name = check.text(raw.pipeline.name, "pipeline.name");
    if let (Some(name), Some((environment, span))) = (&mut name, suffix) {
        let valid = rules::PIPELINE_NAME.check(name).is_ok();
        *name = format!("{name}-{environment}");
        if valid {
            check.rule(span, "pipeline.name", rules::PIPELINE_NAME.check(name));
        }
    }
    let region = check.text(raw.pipeline.region, "pipeline.region");
    for (value, example) in [(&name, "name = \"segment-events\""), (&region, "region = \"us-east-1\"")] {
        if value.is_none() && report_missing {
            let key = example.split(' ').next().unwrap_or_default();
            let help = format!("write below [pipeline]: {example}");
            check.mistake(0..0, format!("`pipeline.{key}` is missing"), "", help);
        }
    }
    let account = check.text(raw.pipeline.account, "pipeline.account");
    let base = name.clone().unwrap_or_else(|| "unnamed".to_owned());
    let tags = check_tags(&mut check, &raw.tags, &base);
    if let (Some(span), Some(name), false) = (name_span, &name, raw.bucket.is_named())
        && rules::PIPELINE_NAME.check(name).is_ok()
    {
        check.rule(span, "pipeline.name", rules::derived_bucket_name(name));
    }
    let bucket = raw.bucket.check(&mut check, &base, region.as_deref());
    let queue_span = raw.notification.queue_span();
    let table = raw.table.check(&mut check, &base, region.as_deref());
    let notification = raw.notification.check(&mut check, &base, table.billing);
    let has_segment_role = raw.segment.is_declared();
    let (role, permissions_boundary) = raw.role.check(&mut check, &base, has_segment_role);
    let function = raw.function.check(&mut check, &base, region.as_deref(), notification.via, role);
    if notification.queue == function.failure_queue {
        let message = "`notification.queue` is the failure queue";
        check.mistake(queue_span.unwrap_or(0..0), message, "", "give each queue a name of its own");
    }
    let stream = raw.stream.map(|stream| stream.check(&mut check, &base, region.as_deref()));
    let consumers = raw.consumer.into_iter();
    let consumers: Vec<_> =
        consumers.filter_map(|consumer| consumer.check(&mut check, &base, &function, stream.is_some())).collect();
    let segment_role = format!("{base}-segment");
    let taken = [
        ("the name of the function that counts", function.name.as_str()),
        ("the name of its role", &function.role.name),
        ("the name of its failure queue", &function.failure_queue),
        ("the name of the queue of notifications", &notification.queue),
        ("the name of the role that Segment assumes", &segment_role),
    ];
    consumer::check_names(&mut check, &consumers, &taken);
    let consumers = consumers.into_iter().map(Spanned::into_inner).collect();
    let rollup = raw.rollup.check(&mut check);
    let alarms = raw.alarms.and_then(|alarms| alarms.check(&mut check, region.as_deref()));
    let segment_workspace_id = raw.segment.check(&mut check, region.as_deref());
    let estimate = raw.estimate.check(&mut check);
    Some(Pipeline {
        name: name?,
        region: region?,
        account,
        tags,
        bucket,
        notification,
        permissions_boundary,
        table,
        function,
        consumers,
        rollup,
        stream,
        alarms,
        segment_workspace_id,
        estimate,
        environment: None,
        directory: PathBuf::new(),
    })
}

/// Reports the names that two environments share, or an environment and the rest of the file: each would revert the
/// other's changes.
pub(super) fn check_shared_names(all: &[(&str, Range<usize>, Pipeline)], found: &mut Vec<Diagnostic>) {
    for (i, (name, span, one)) in all.iter().enumerate() {
        for (other_name, _, other) in &all[..i] {
            let apart = one.account.is_some() && other.account.is_some() && one.account != other.account;
            let elsewhere = apart || one.region != other.region;
            // Bucket names are global on AWS, and role names are global in an account.
            let mut keys = vec![
                ("pipeline.name", apart, &one.name, &other.name),
                ("bucket.name", false, &one.bucket.name, &other.bucket.name),
                ("role.name", apart, &one.function.role.name, &other.function.role.name),
                ("table.name", elsewhere, &one.table.counts, &other.table.counts),
                ("table.daily_name", elsewhere, &one.table.daily, &other.table.daily),
                ("table.ledger_name", elsewhere, &one.table.ledger, &other.table.ledger),
                ("table.breakdowns_name", elsewhere, &one.table.breakdowns, &other.table.breakdowns),
                ("function.name", elsewhere, &one.function.name, &other.function.name),
                ("notification.queue", elsewhere, &one.notification.queue, &other.notification.queue),
                ("function.failure_queue", elsewhere, &one.function.failure_queue, &other.function.failure_queue),
            ];
            if let (Some(one), Some(other)) = (&one.stream, &other.stream) {
                keys.push(("stream.name", elsewhere, &one.name, &other.name));
            }
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
