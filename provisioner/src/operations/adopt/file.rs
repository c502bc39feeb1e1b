//! The `pipeline.toml` of a live state, with comments on what it cannot take over.

use std::collections::BTreeMap;

use counting::names::{counts, daily, env, ledger};

use super::draft::{Draft, quoted};
use super::live::{Bucket, Entry, Function, Queue, Table};
use crate::aws::{Account, is_key, policy, resource_in, role_path};
use crate::config::Via;
use crate::error::Error;

/// The permissions that Lambda demands of the role of a function in a VPC, and of one that is traced (Lambda developer
/// guide, execution role).
const VPC_ACTIONS: [&str; 6] = [
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
];
const TRACING_ACTIONS: [&str; 2] = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"];

/// The live state that a file describes.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) account: Account,
    pub(super) name: String,
    pub(super) bucket: Bucket,
    /// The entry that becomes the pipeline's.
    pub(super) entry: Option<Entry>,
    /// The other entries of new objects.
    pub(super) others: Vec<Entry>,
    /// The queue to which the entry sends, if it sends to one.
    pub(super) queue: Option<Queue>,
    pub(super) function: Option<Function>,
    /// The path of the role that has the default name, if there is one.
    pub(super) path_of_default_role: Option<String>,
    /// The tables whose names the function or the pipeline may use, by name.
    pub(super) tables: BTreeMap<String, Table>,
}

/// Returns a name for a pipeline, made of another name.
pub(super) fn pipeline_name(from: &str) -> String {
    let lower = from.to_ascii_lowercase();
    let plain: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let plain = plain.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let plain = plain.strip_suffix("-handler").unwrap_or(plain);
    let plain: String = plain.chars().take(40).collect();
    let plain = plain.trim_end_matches('-');
    if plain.len() < 2 { "segment-events".to_owned() } else { plain.to_owned() }
}

/// Returns the names of tables that the function's variables may have. A value of another variable may be a secret, and
/// is sent nowhere.
pub(super) fn named_tables(environment: &BTreeMap<String, String>) -> Vec<String> {
    let is_name = |name: &str| {
        (3..=255).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let named = environment.iter().filter(|(variable, _)| variable.to_ascii_uppercase().contains("TABLE"));
    named.map(|(_, value)| value.clone()).filter(|name| is_name(name)).collect()
}

/// Returns the keys of a pipeline's tables of counts, days and the ledger, in the form of [`Table::keys`].
fn wanted_keys() -> [String; 3] {
    [
        format!("{} (S), {} (S)", counts::EVENT, counts::HOUR),
        format!("{} (S), {} (S)", daily::DAY, daily::EVENT),
        format!("{} (S), {} (N)", ledger::OBJECT, ledger::CHUNK),
    ]
}

impl Found {
    /// Returns the file.
    ///
    /// # Errors
    /// A name that no pipeline can have.
    pub(super) fn file(&self) -> Result<String, Error> {
        let Account { id, region, .. } = &self.account;
        let mut draft = Draft::new(&self.name, region, Some(id), &self.bucket.name)?;
        self.head(&mut draft);
        self.bucket(&mut draft);
        self.notification(&mut draft);
        self.role(&mut draft);
        self.tables(&mut draft);
        self.function(&mut draft);
        Ok(draft.text())
    }

    /// Returns the name of the pipeline of the provisioner that has the function already.
    fn owner(&self) -> Option<&String> {
        self.function.as_ref().and_then(|function| function.owner.as_ref())
    }

    fn head(&self, draft: &mut Draft) {
        draft.head(
            "Written by `provisioner adopt`. Keys with their defaults are left out, and comments say what is not taken over. \
             `provisioner plan --adopt` shows what an apply would change.",
        );
        if let Some(owner) = self.owner() {
            draft.head(&format!(
                "The function belongs to the pipeline `{owner}` already. [tags], [rollup], [stream], [alarms], [segment] \
                 and [[consumer]] are not read: the plan shows the difference."
            ));
        } else if self.function.is_some() {
            draft.head(
                "The function's code, runtime, handler and role are replaced by the pipeline's. What it counted before stays \
                 in its own tables; after the apply, `provisioner backfill` counts all objects anew into the pipeline's.",
            );
        }
    }

    fn bucket(&self, draft: &mut Draft) {
        let bucket = &self.bucket;
        if bucket.versioning {
            draft.set("bucket", "versioning", true);
        }
        if !bucket.denies_plain_http {
            draft.comment("bucket", "The bucket accepts plain HTTP. Without the next line, an apply denies it.");
            draft.set("bucket", "require_tls", false);
        }
        if let Some(key) = &bucket.kms_key {
            let Account { partition, region, id, .. } = &self.account;
            let is_id = !key.contains(':') && !key.starts_with("alias/");
            let arn = if is_id { format!("arn:{partition}:kms:{region}:{id}:key/{key}") } else { key.clone() };
            draft.set("bucket", "kms_key", quoted(&arn));
            let is_declared = draft.pipeline.bucket.kms_key.as_ref().is_some_and(|declared| is_key(key, declared));
            if !is_declared {
                draft.comment("bucket", "Write the ARN of that key, which `aws kms describe-key` prints.");
            }
        }
    }

    /// Describes the expiration of the objects below the prefix, which must be known by now.
    fn expiration(&self, draft: &mut Draft) {
        let prefix = draft.pipeline.notification.prefix.clone();
        let rules = self.bucket.expirations.iter().filter(|rule| prefix.starts_with(&rule.prefix));
        let Some(rule) = rules.min_by_key(|rule| rule.days) else { return };
        // The pipeline's own rule deletes noncurrent versions too, after as many days.
        let is_whole = !self.bucket.had_versioning || rule.noncurrent_days == Some(rule.days);
        let (id, days) = (&rule.id, rule.days);
        if is_whole {
            if self.owner().is_none() {
                draft.comment(
                    "bucket",
                    &format!("The rule `{id}` deletes the objects. It may go once the pipeline's own does the same."),
                );
            }
            draft.set("bucket", "expire_days", days);
        } else {
            draft.comment(
                "bucket",
                &format!(
                    "The rule `{id}` deletes the objects after {days} days, and is kept. expire_days = {days} would delete \
                     noncurrent versions as well."
                ),
            );
        }
    }

    fn notification(&self, draft: &mut Draft) {
        const SECTION: &str = "notification";
        match &self.entry {
            None => {
                draft.comment(SECTION, "No entry of the bucket notifies the function: the pipeline's own is a new one.")
            }
            Some(entry) => {
                let Entry { id, destination, prefix, suffix } = entry;
                if self.owner().is_none() {
                    draft.comment(
                        SECTION,
                        &format!(
                            "The entry `{id}` notifies {destination}. An apply with --adopt replaces it by the pipeline's own in \
                             one call."
                        ),
                    );
                }
                let now = draft.pipeline.notification.clone();
                for (key, live, default) in [("prefix", prefix, now.prefix), ("suffix", suffix, now.suffix)] {
                    if live.is_empty() {
                        draft.comment(
                            SECTION,
                            &format!(
                                "The entry has no {key}, and the pipeline needs one: objects without {default} are no longer \
                                 counted."
                            ),
                        );
                    } else {
                        draft.text_key(SECTION, key, Some(live), &default);
                    }
                }
            }
        }
        for Entry { id, destination, prefix, suffix } in &self.others {
            draft.comment(
                SECTION,
                &format!(
                    "The entry `{id}` notifies {destination} of {prefix}*{suffix}, and is kept. If the plan calls it a conflict, \
                     remove it."
                ),
            );
        }
        match &self.queue {
            Some(queue) => {
                let now = draft.pipeline.notification.clone();
                draft.text_key(SECTION, "queue", Some(&queue.name), &now.queue);
                draft.number(SECTION, "batch_size", queue.batch_size, now.batch_size);
                draft.number(SECTION, "batch_seconds", queue.batch_seconds, now.batch_seconds);
                draft.number(SECTION, "max_concurrency", queue.max_concurrency, now.max_concurrency);
            }
            None if self.entry.is_some() => {
                draft.comment(
                    SECTION,
                    "One invocation for each object. Without the next line, notifications go through a queue, the default, and \
                     objects are counted in batches.",
                );
                draft.set(SECTION, "via", quoted(Via::Function.name()));
            }
            None => {}
        }
        self.expiration(draft);
    }

    fn role(&self, draft: &mut Draft) {
        let default = draft.pipeline.function.role.name.clone();
        let own_path = role_path(&self.name);
        let is_taken = self.path_of_default_role.as_ref().is_some_and(|path| *path != own_path);
        let role = self.function.as_ref().map(|function| &function.role);
        match role {
            Some(role) if role.path == own_path => draft.text_key("role", "name", Some(&role.name), &default),
            role => {
                if let Some(role) = role {
                    draft.comment(
                        "role",
                        &format!(
                            "The role {}{} is left as it is: a role cannot change its path, so the function gets one of the \
                             pipeline's own. Declare what an extended handler needs as [[role.statement]].",
                            role.path, role.name
                        ),
                    );
                }
                if is_taken {
                    draft.comment("role", &format!("There is another role {default}."));
                    draft.set("role", "name", quoted(&format!("{}-counter", self.name)));
                }
            }
        }
        if let Some(boundary) = role.and_then(|role| role.boundary.as_ref()) {
            draft.set("role", "permissions_boundary", quoted(boundary));
        }
    }

    /// Takes over the tables only if all three have the pipeline's keys. A table of counts without the ledger that says
    /// which objects they are of would be added to twice.
    fn tables(&self, draft: &mut Draft) {
        const SECTION: &str = "table";
        let now = draft.pipeline.table.clone();
        let variables = self.function.as_ref().map(|function| &function.environment);
        let keys = [
            ("name", env::COUNTS_TABLE, now.counts),
            ("daily_name", env::DAILY_TABLE, now.daily),
            ("ledger_name", env::LEDGER_TABLE, now.ledger),
        ];
        let live: Vec<Option<(&String, &Table)>> = keys
            .iter()
            .zip(wanted_keys())
            .map(|((_, variable, default), wanted)| {
                let own = variables.and_then(|variables| variables.get(*variable));
                let names = own.into_iter().chain([default]);
                let mut tables = names.filter_map(|name| self.tables.get_key_value(name));
                tables.find(|(_, table)| table.keys == wanted)
            })
            .collect();
        if let Some(live) = live.into_iter().collect::<Option<Vec<_>>>() {
            for ((key, _, default), (name, _)) in keys.iter().zip(&live) {
                draft.text_key(SECTION, key, Some(name), default);
            }
            let first = live.first().map(|(_, table)| *table);
            if let Some((read, write)) = first.and_then(|table| table.units) {
                draft.set(SECTION, "billing", format!("{{ read = {read}, write = {write} }}"));
            }
            if let Some(key) = first.and_then(|table| table.kms_key.as_ref()) {
                draft.set(SECTION, "kms_key", quoted(key));
            }
            return;
        }
        for (name, table) in &self.tables {
            draft.comment(SECTION, &format!("The table {name} (keys {}) is left as it is.", table.keys));
        }
        for (key, _, default) in &keys {
            if self.tables.contains_key(default) {
                draft.set(SECTION, key, quoted(&format!("{default}-2")));
            }
        }
    }

    /// Returns the name of the queue at an ARN, if it is one of the account and the region.
    fn queue_at<'a>(&self, arn: &'a str) -> Option<&'a str> {
        let is_near = arn.split(':').nth(3) == Some(self.account.region.as_str());
        resource_in(arn, "sqs").filter(|_| is_near && policy::account_of(arn) == Some(self.account.id.as_str()))
    }

    fn function(&self, draft: &mut Draft) {
        const SECTION: &str = "function";
        let Some(function) = &self.function else {
            draft.comment(SECTION, "No function was found: the pipeline's is a new one.");
            return;
        };
        let now = draft.pipeline.function.clone();
        if function.is_image {
            draft.comment(
                SECTION,
                &format!(
                    "The function {} is a container image, which Lambda cannot turn into one of a zip file: the pipeline's is a \
                     new one, and the entry that notifies the old one must be removed by hand.",
                    function.name
                ),
            );
            if function.name == now.name {
                draft.set(SECTION, "name", quoted(&format!("{}-counter", self.name)));
            }
            return;
        }
        draft.text_key(SECTION, "name", Some(&function.name), &now.name);
        draft.number(SECTION, "memory_mb", function.memory_mb, now.memory_mb);
        draft.number(SECTION, "timeout_seconds", function.timeout_seconds, now.timeout_seconds);
        draft.text_key(SECTION, "architecture", function.architecture.as_deref(), &now.architecture);
        draft.number(SECTION, "log_retention_days", function.log_retention_days, now.log_retention_days.value);
        if let Some(most) = function.max_concurrency {
            draft.set(SECTION, "max_concurrency", most);
        }
        let retries = self.queue.as_ref().map_or(function.retries, |queue| queue.retries);
        draft.number(SECTION, "retries", retries, now.retries);
        draft.number(SECTION, "max_event_age_seconds", function.max_event_age_seconds, now.max_event_age_seconds);
        if let Some(key) = &function.kms_key {
            draft.set(SECTION, "kms_key", quoted(key));
        }
        self.failures(function, draft);
        let names: Vec<&str> =
            function.environment.keys().map(String::as_str).filter(|name| !env::ALL.contains(name)).collect();
        if !names.is_empty() {
            draft.comment(
                SECTION,
                &format!(
                    "The variables {} stay as they are. Their values may be secrets, and are not in this file; declare those \
                     that an extended handler needs as environment = {{ NAME = \"value\" }}.",
                    names.join(", ")
                ),
            );
        }
        if function.is_in_vpc {
            draft.statement("The function is in a VPC.", &VPC_ACTIONS, "*");
        }
        if function.is_traced {
            draft.statement("The function is traced.", &TRACING_ACTIONS, "*");
        }
    }

    /// Describes the queue of failures. The role of the pipeline may send to it alone.
    fn failures(&self, function: &Function, draft: &mut Draft) {
        const SECTION: &str = "function";
        let of_queue = self.queue.as_ref().and_then(|queue| queue.failures.as_ref());
        let all = [of_queue, function.failures.as_ref(), function.dead_letters.as_ref()];
        let chosen = all.iter().flatten().find_map(|arn| self.queue_at(arn));
        let default = draft.pipeline.function.failure_queue.clone();
        draft.text_key(SECTION, "failure_queue", chosen, &default);
        let declared = draft.pipeline.function.failure_queue.clone();
        let is_declared = |arn: &str| self.queue_at(arn) == Some(declared.as_str());
        if let Some(other) = function.failures.as_ref().filter(|arn| !is_declared(arn)) {
            draft.comment(
                SECTION,
                &format!("The queue {declared} replaces {other} as the destination of failed invocations."),
            );
        }
        if let Some(letters) = function.dead_letters.as_ref().filter(|arn| !is_declared(arn)) {
            let action = if resource_in(letters, "sns").is_some() { "sns:Publish" } else { "sqs:SendMessage" };
            draft.statement("The function has a dead-letter destination, which is kept.", &[action], letters);
        }
    }
}

#[cfg(test)]
mod tests;
