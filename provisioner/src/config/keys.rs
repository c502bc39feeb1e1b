//! Every key that a `pipeline.toml` may hold, each with an example: what the messages about a wrong key or a wrong
//! type show.

/// Dotted path and how to write it. The tests hold this list against the types in [`super::raw`].
pub(super) const KEYS: &[(&str, &str)] = &[
    ("pipeline.name", "name = \"segment-events\""),
    ("pipeline.region", "region = \"us-east-1\""),
    ("pipeline.account", "account = \"123456789012\""),
    ("tags", "team = \"analytics\""),
    ("bucket.name", "name = \"acme-segment-events\""),
    ("bucket.versioning", "versioning = false"),
    ("bucket.expire_days", "expire_days = 90"),
    ("bucket.require_tls", "require_tls = true"),
    ("notification.prefix", "prefix = \"segment-logs/\""),
    ("notification.suffix", "suffix = \".gz\""),
    ("role.name", "name = \"segment-events-function\""),
    ("role.statement.actions", "actions = [\"s3:GetObject\"]"),
    ("role.statement.resources", "resources = [\"arn:aws:s3:::acme-lookup/*\"]"),
    ("table.name", "name = \"segment-events-counts\""),
    ("table.ledger_name", "ledger_name = \"segment-events-ledger\""),
    ("table.billing", "billing = \"on-demand\""),
    ("table.point_in_time_recovery", "point_in_time_recovery = true"),
    ("table.deletion_protection", "deletion_protection = true"),
    ("function.name", "name = \"segment-events-handler\""),
    ("function.artifact", "artifact = \"target/lambda/bootstrap\""),
    ("function.memory_mb", "memory_mb = 256"),
    ("function.timeout_seconds", "timeout_seconds = 60"),
    ("function.architecture", "architecture = \"x86_64\""),
    ("function.log_retention_days", "log_retention_days = 30"),
    ("function.max_concurrency", "max_concurrency = 10"),
    ("function.retries", "retries = 2"),
    ("function.max_event_age_seconds", "max_event_age_seconds = 21600"),
    ("function.failure_queue", "failure_queue = \"segment-events-failures\""),
    ("rollup.count", "count = [\"track\"]"),
    ("estimate.events_per_month", "events_per_month = 10000000"),
    ("estimate.files_per_month", "files_per_month = 730"),
    ("segment.workspace_id", "workspace_id = \"abc123XYZ\""),
];

/// How to write the key at `path`, or the section of that name.
pub(super) fn example(path: &str) -> String {
    if let Some((_, example)) = KEYS.iter().find(|(key, _)| *key == path) {
        return format!("write it as `{example}`");
    }
    match path {
        "role.statement" => {
            "write [[role.statement]] and under it actions = [\"...\"] and resources = [\"...\"]".to_owned()
        }
        _ if path.starts_with("tags.") => "tags are texts: team = \"analytics\"".to_owned(),
        _ => format!("write it as a section: [{path}]"),
    }
}

/// What to write instead of the unknown key at `path`: the nearest known one beside it, or all of them.
pub(super) fn instead_of(path: &str) -> String {
    let (section, wrong) = path.rsplit_once('.').unwrap_or(("", path));
    let mut siblings: Vec<&str> = KEYS
        .iter()
        .filter_map(|(key, _)| match section {
            "" => key.split('.').next(),
            _ => key.strip_prefix(section)?.strip_prefix('.')?.split('.').next(),
        })
        .collect();
    if section.is_empty() {
        siblings.push("environments");
    }
    siblings.dedup();
    // 0.8: one or two letters off in a name of this length; further off, a guess misleads.
    let nearest = siblings
        .iter()
        .map(|known| (strsim::jaro_winkler(wrong, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None if section.is_empty() => format!("the sections are: {}", siblings.join(", ")),
        None => format!("the keys of [{section}] are: {}", siblings.join(", ")),
    }
}
