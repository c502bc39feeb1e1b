//! Tests of the file.

use super::super::live::{Expiration, Role};
use super::*;
use crate::config::{self, Pipeline};

const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:failures";

fn found() -> Found {
    let function = Function {
        name: "segment_counter".to_owned(),
        role: Role { name: "counter".to_owned(), path: "/".to_owned(), boundary: None },
        memory_mb: Some(512),
        timeout_seconds: Some(60),
        architecture: Some("x86_64".to_owned()),
        environment: BTreeMap::from([("DB_PASSWORD".to_owned(), "hunter2".to_owned())]),
        ..Function::default()
    };
    Found {
        account: Account {
            partition: "aws".to_owned(),
            region: "us-east-1".to_owned(),
            id: "123456789012".to_owned(),
            caller: String::new(),
        },
        name: pipeline_name(&function.name),
        bucket: Bucket { name: "acme-segment-logs".to_owned(), ..Bucket::default() },
        entry: Some(Entry {
            id: "tf-s3-lambda-1".to_owned(),
            destination: "arn:aws:lambda:us-east-1:123456789012:function:segment_counter".to_owned(),
            prefix: "logs/".to_owned(),
            suffix: ".gz".to_owned(),
        }),
        others: Vec::new(),
        queue: None,
        function: Some(function),
        path_of_default_role: None,
        tables: BTreeMap::new(),
    }
}

/// Returns the file, and its checked form.
fn file(found: &Found) -> (String, Pipeline) {
    let text = found.file().expect("a file");
    let pipeline = config::parse("pipeline.toml", &text, None);
    (text.clone(), pipeline.unwrap_or_else(|error| panic!("{error}\n{text}")))
}

fn of_function(change: impl FnOnce(&mut Function)) -> Found {
    let mut found = found();
    if let Some(function) = &mut found.function {
        change(function);
    }
    found
}

#[test]
fn file_has_what_differs_from_the_defaults() {
    let (text, pipeline) = file(&found());
    assert_eq!((pipeline.name.as_str(), pipeline.account.as_deref()), ("segment-counter", Some("123456789012")));
    assert_eq!((pipeline.notification.via, pipeline.notification.prefix.as_str()), (Via::Function, "logs/"));
    assert_eq!((pipeline.function.name.as_str(), pipeline.function.memory_mb), ("segment_counter", 512));
    assert!(!pipeline.bucket.require_tls && !pipeline.bucket.versioning.value);
    for default in ["timeout_seconds", "architecture", "suffix", "versioning", "retries", "failure_queue"] {
        assert!(!text.contains(&format!("\n{default} =")), "{default} is in {text}");
    }
    assert!(text.contains("DB_PASSWORD") && !text.contains("hunter2"), "{text}");
    assert!(text.contains("The role /counter is left as it is"), "{text}");
}

#[test]
fn settings_of_the_bucket_are_taken_over() {
    let mut found = found();
    let rule = Expiration { id: "old".to_owned(), days: 30, ..Expiration::default() };
    found.bucket = Bucket {
        versioning: true,
        had_versioning: true,
        kms_key: Some("0123-abc".to_owned()),
        denies_plain_http: true,
        expirations: vec![rule],
        ..found.bucket
    };
    let (text, pipeline) = file(&found);
    let key = "arn:aws:kms:us-east-1:123456789012:key/0123-abc";
    assert_eq!(pipeline.bucket.kms_key.as_deref(), Some(key));
    assert!(pipeline.bucket.require_tls && pipeline.bucket.versioning.value);
    // An expiration would delete the old versions too.
    assert!(pipeline.bucket.expire_days.is_none() && text.contains("The rule `old` deletes"), "{text}");
    found.bucket.expirations[0].noncurrent_days = Some(30);
    found.bucket.kms_key = Some("alias/segment".to_owned());
    let (text, pipeline) = file(&found);
    assert_eq!((pipeline.bucket.expire_days, pipeline.bucket.kms_key), (Some(30), None));
    assert!(text.contains("# kms_key = \"alias/segment\" is live"), "{text}");
}

#[test]
fn queue_and_its_mapping_are_taken_over() {
    let mut found = of_function(|function| function.retries = Some(0));
    found.queue = Some(Queue {
        name: "uploads".to_owned(),
        batch_size: Some(10),
        batch_seconds: Some(0),
        max_concurrency: Some(5),
        retries: Some(2),
        failures: Some("arn:aws:sqs:us-east-1:123456789012:uploads-failed".to_owned()),
        ..Queue::default()
    });
    let (_, pipeline) = file(&found);
    let notification = &pipeline.notification;
    assert_eq!((notification.via, notification.queue.as_str()), (Via::Queue, "uploads"));
    assert_eq!((notification.batch_size, notification.batch_seconds, notification.max_concurrency), (10, 0, 5));
    assert_eq!((pipeline.function.retries, pipeline.function.failure_queue.as_str()), (2, "uploads-failed"));
}

#[test]
fn role_whose_name_is_taken_gets_another_one() {
    let mut found = found();
    found.path_of_default_role = Some("/".to_owned());
    assert_eq!(file(&found).1.function.role.name, "segment-counter-counter");
    found.path_of_default_role = Some("/pipeline/segment-counter/".to_owned());
    assert_eq!(file(&found).1.function.role.name, "segment-counter-function");
    let own = of_function(|function| {
        function.role = Role {
            name: "mine".to_owned(),
            path: "/pipeline/segment-counter/".to_owned(),
            boundary: Some("arn:aws:iam::123456789012:policy/boundary".to_owned()),
        };
    });
    let pipeline = file(&own).1;
    assert_eq!(pipeline.function.role.name, "mine");
    assert!(pipeline.permissions_boundary.is_some_and(|arn| arn.ends_with("policy/boundary")));
}

#[test]
fn tables_are_taken_over_together_or_not_at_all() {
    let mut found = found();
    let table = |keys: &str| Table { keys: keys.to_owned(), units: Some((5, 6)), kms_key: None };
    let [counts, daily, ledger] = wanted_keys();
    found.tables = BTreeMap::from([("segment-counter-counts".to_owned(), table(&counts))]);
    let (text, pipeline) = file(&found);
    assert_eq!(pipeline.table.counts, "segment-counter-counts-2");
    assert!(text.contains("The table segment-counter-counts (keys event (S), hour (S)) is left as it is"), "{text}");
    found.tables.insert("days".to_owned(), table(&daily));
    found.tables.insert("segment-counter-ledger".to_owned(), table(&ledger));
    assert_eq!(file(&found).1.table.daily, "segment-counter-daily");
    if let Some(function) = &mut found.function {
        function.environment.insert(env::DAILY_TABLE.to_owned(), "days".to_owned());
    }
    let table = file(&found).1.table;
    assert_eq!((table.counts.as_str(), table.daily.as_str()), ("segment-counter-counts", "days"));
    assert_eq!(table.billing, config::Billing::Provisioned { read: 5, write: 6 });
}

#[test]
fn destinations_of_failures_that_are_kept_get_a_permission() {
    let found = of_function(|function| {
        function.failures = Some("arn:aws:sqs:us-east-1:123456789012:lost".to_owned());
        function.dead_letters = Some(TOPIC.to_owned());
        function.is_in_vpc = true;
    });
    let pipeline = file(&found).1;
    assert_eq!(pipeline.function.failure_queue, "lost");
    let statements = &pipeline.function.role.statements;
    assert!(statements.len() == 2 && statements[0].resources == [TOPIC], "{statements:?}");
    let found = of_function(|function| function.failures = Some(TOPIC.to_owned()));
    let (text, pipeline) = file(&found);
    assert_eq!(pipeline.function.failure_queue, "segment-counter-failures");
    assert!(text.contains(&format!("replaces {TOPIC}")), "{text}");
}

#[test]
fn what_cannot_be_taken_over_is_a_comment() {
    let mut found = of_function(|function| {
        function.max_concurrency = Some(0);
        function.log_retention_days = Some(31);
    });
    if let Some(entry) = &mut found.entry {
        entry.prefix.clear();
    }
    found.others = vec![Entry { id: "others".to_owned(), ..Entry::default() }];
    let (text, pipeline) = file(&found);
    assert_eq!(pipeline.notification.prefix, "segment-logs/");
    for part in ["max_concurrency = 0 is live", "log_retention_days = 31", "has no prefix", "The entry `others`"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let image = of_function(|function| function.is_image = true);
    assert_eq!(file(&image).1.function.name, "segment-counter-handler");
    found.function = None;
    assert!(file(&found).0.contains("No function was found"));
}

#[test]
fn names_of_pipelines_are_made_valid() {
    for (from, name) in [
        ("segment-events-handler", "segment-events"),
        ("SegmentEvents", "segmentevents"),
        ("2015_Segment.Logs", "segment-logs"),
        ("_", "segment-events"),
    ] {
        assert_eq!(pipeline_name(from), name);
    }
    assert_eq!(pipeline_name(&"a-".repeat(40)).len(), 39);
}

#[test]
fn only_variables_of_tables_name_tables() {
    let variables = [("TABLE", "EventCounts"), ("counts_table", "a/b"), ("DB_PASSWORD", "hunter2")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(named_tables(&BTreeMap::from(variables)), ["EventCounts"]);
}
