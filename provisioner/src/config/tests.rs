//! The rules of the file, each tested with a file that violates it.

use super::*;

const GOOD: &str = "[pipeline]\nname = \"events\"\nregion = \"us-east-1\"\n";

fn mistakes(text: &str) -> Vec<Diagnostic> {
    match check_all("pipeline.toml", text, None) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.file.expect("mistakes in the file").found,
    }
}

fn with(more: &str) -> Vec<Diagnostic> {
    mistakes(&format!("{GOOD}{more}"))
}

#[test]
fn omitted_names_derive_from_the_name_of_the_pipeline() {
    let pipeline = parse("pipeline.toml", GOOD, None).expect("valid");
    assert_eq!(pipeline.bucket.name, "events");
    assert_eq!((pipeline.table.counts.as_str(), pipeline.table.ledger.as_str()), ("events-counts", "events-ledger"));
    assert_eq!(
        (pipeline.function.name.as_str(), pipeline.function.role.name.as_str()),
        ("events-handler", "events-function")
    );
    assert_eq!(pipeline.tags["pipeline"], "events");
}

#[test]
fn example_of_every_key_is_valid() {
    let mut text = String::new();
    // Of the two receivers of alarms, a file has one.
    for key::Key { path, example, .. } in file::all_keys().filter(|key| key.path != "alarms.topic") {
        let (section, _) = path.rsplit_once('.').unwrap_or((path, ""));
        let header = if key::LISTS.contains(&section) { format!("[[{section}]]") } else { format!("[{section}]") };
        if !text.contains(&header) {
            text.push_str(&format!("{header}\n"));
        }
        text.push_str(&format!("{example}\n"));
    }
    assert_eq!(mistakes(&text), [], "{text}");
}

#[test]
fn every_number_declares_its_bounds() {
    for key::Key { path, example, values, .. } in file::all_keys() {
        let table: toml::Table = example.parse().expect("TOML");
        let is_number = table.values().any(toml::Value::is_integer);
        let is_bounded = matches!(values, key::Values::Range { .. } | key::Values::Numbers { .. });
        assert_eq!(is_number, is_bounded, "{path}");
    }
}

#[test]
fn declared_default_is_the_value_without_the_key() {
    fn without_origin(value: &mut serde_json::Value) {
        if let Some(object) = value.as_object_mut() {
            object.remove("is_explicit");
            object.values_mut().for_each(without_origin);
        }
        value.as_array_mut().into_iter().flatten().for_each(without_origin);
    }
    let checked = |file: &toml::Table| {
        let pipeline = parse("pipeline.toml", &file.to_string(), None).expect("a valid file");
        let mut pipeline = serde_json::to_value(&pipeline).expect("JSON");
        without_origin(&mut pipeline);
        pipeline
    };
    let more = "[stream]\n[estimate]\nevents_per_month = 1\n[alarms]\nemail = \"a@example.com\"\n[[consumer]]\nname = \"alert\"\n";
    let base: toml::Table = format!("{GOOD}{more}").parse().expect("TOML");
    let mut defaults = 0;
    for key in file::all_keys() {
        let (Some(default), Some((section, name))) = (schema::default_of(key), key.path.split_once('.')) else {
            continue;
        };
        let mut file = base.clone();
        let section = file.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let section = if section.is_array() { &mut section[0] } else { section };
        section.as_table_mut().expect("a section").insert(name.to_owned(), default);
        assert_eq!(checked(&file), checked(&base), "{}", key.path);
        defaults += 1;
    }
    assert!(defaults > 20, "{defaults} defaults");
}

#[test]
fn letters_are_those_of_their_class() {
    for (rule, good, bad) in [
        (rules::PIPELINE_NAME, "az09-", "A_."),
        (rules::BUCKET_NAME, "az09-.", "A_/"),
        (rules::ROLE_NAME, "azAZ09_+=,.@-", "/*:"),
        (rules::TABLE_NAME, "azAZ09_.-", "+,"),
        (rules::ACCOUNT, "09", "a-"),
    ] {
        let filler = good.chars().last().unwrap_or_default().to_string().repeat(11);
        let refuses = |c: char| rule.check(&format!("{c}{filler}")).is_err_and(|found| found.why.starts_with('`'));
        assert!(!good.chars().any(refuses), "{rule:?}");
        assert!(bad.chars().all(refuses), "{rule:?}");
    }
}

#[test]
fn file_with_several_mistakes_reports_each_at_its_position() {
    let text =
        "[pipeline]\nname = \"Events\"\nregin = \"us-east-1\"\n[function]\nmemory_mb = 1\ntimeout_seconds = \"x\"\n";
    let found = mistakes(text);
    let at: Vec<&str> = found.iter().map(|diagnostic| &text[diagnostic.span.clone()]).collect();
    assert_eq!(at, ["", "\"Events\"", "regin", "1", "\"x\""]);
    assert!(found.iter().all(|diagnostic| !diagnostic.help.is_empty()));
}

#[test]
fn unknown_key_suggests_the_nearest_key() {
    assert_eq!(with("[function]\nmemory = 256")[0].help, "did you mean `memory_mb`?");
    assert!(with("[functoin]\nmemory_mb = 256")[0].help.contains("`function`"));
}

#[test]
fn syntax_error_is_reported_once_and_hides_no_other_mistake() {
    let found = mistakes("[pipeline]\nname = \"events\"\nregion = us-east-1\n[bucket]\nnmae = 1\n");
    assert_eq!(found.iter().filter(|diagnostic| diagnostic.is_syntax).count(), 1, "{found:?}");
    assert!(found.iter().any(|diagnostic| diagnostic.message.contains("bucket.nmae")), "{found:?}");
    assert!(!found.iter().any(|diagnostic| diagnostic.message.contains("missing")), "{found:?}");
}

#[test]
fn value_that_aws_would_refuse_is_a_mistake() {
    for (file, wrong) in [
        ("[bucket]\nname = \"Acme\"", "`A`"),
        ("[bucket]\nname = \"ab\"", "2 characters"),
        ("[bucket]\nname = \"192.0.2.1\"", "IP address"),
        ("[bucket]\nname = \"xn--acme\"", "reserved"),
        ("[bucket]\nname = \"acme-s3alias\"", "reserved"),
        ("[bucket]\nexpire_days = 0", "0 days"),
        ("[function]\nmemory_mb = 127", "127 MB"),
        ("[function]\nmemory_mb = 10241", "10241 MB"),
        ("[function]\ntimeout_seconds = 901", "901 seconds"),
        ("[function]\nlog_retention_days = 31", "31 days"),
        ("[function]\narchitecture = \"arm\"", "`arm`"),
        ("[notification]\nvia = \"function\"\n[function]\nretries = 3", "3 retries"),
        ("[function]\nretries = 1000", "1000 retries"),
        ("[notification]\nvia = \"topic\"", "`topic`"),
        ("[notification]\nbatch_size = 11\nbatch_seconds = 0", "more than 10"),
        ("[notification]\nmax_concurrency = 1", "1 batches"),
        ("[rollup]\nduplicates = \"twice\"", "`twice`"),
        ("[notification]\nprefix = \"/logs/\"", "slash"),
        ("[notification]\nsuffix = \"*.gz\"", "wildcards"),
        ("[notification]\nprefix = \"\"", "0 characters"),
        ("[table]\nbilling = \"by-the-hour\"", "`by-the-hour`"),
        ("[table]\nbilling = { read = 0, write = 5 }", "read 0"),
        ("[table]\nname = \"events-ledger\"", "ledger"),
        ("[table]\ndaily_name = \"events-ledger\"", "ledger"),
        ("[table]\nledger_name = \"events-daily\"", "daily"),
        ("[notification]\nprefix = \"logs/${aws:username}/\"", "variable"),
        ("[tags]\n\"aws:x\" = \"y\"", "reserved"),
        ("[tags]\npipeline = \"y\"", "owns"),
        ("[rollup]\ncount = []", "0 entries"),
        ("[estimate]\nevents_per_month = 0", "0 a month"),
        ("[stream]\nname = \"events stream\"", "` ` is not allowed"),
        ("[stream]\nretention_hours = 23", "23 hours"),
        ("[stream]\nkms_key = \"alias/aws/kinesis\"", "not the ARN of a KMS key"),
        ("[alarms]\nemail = \"oncall\"", "not an e-mail address"),
        ("[alarms]\nemail = \"on call@example.com\"", "` ` is not allowed"),
        ("[alarms]\nemail = \"a@b@example.com\"", "not an e-mail address"),
        ("[alarms]\ntopic = \"oncall\"", "not the ARN of a topic"),
        ("[alarms]\ntopic = \"arn:aws:sns:us-east-1:123456789012:oncall.fifo\"", "not the ARN of a topic"),
        ("[alarms]\ntopic = \"arn:aws:sns:eu-west-1:123456789012:oncall\"", "a topic in eu-west-1"),
        ("[alarms]\nemail = \"a@example.com\"\nsilent_hours = 169", "169 hours"),
        ("[alarms]\nemail = \"a@example.com\"\nskipped_percent = 100", "100 percent"),
        ("[alarms]\nemail = \"a@example.com\"\nqueue_age_minutes = -1", "-1 minutes"),
        ("[segment]\nworkspace_id = \"a b\"", "` ` is not allowed"),
        ("[segment]\nworkspace_id = \"\"", "0 characters"),
        ("[[role.statement]]\nactions = [\"GetObject\"]\nresources = [\"*\"]", "not an IAM action"),
        ("[[role.statement]]\nactions = [\"s3:GetObject\"]\nresources = [\"bucket\"]", "not an ARN"),
    ] {
        let found = with(file);
        assert!(found.iter().any(|d| d.label.contains(wrong)), "{file}: {found:?}");
    }
}

#[test]
fn region_outside_the_scheme_of_aws_is_refused() {
    for region in
        ["us-east-1", "eu-central-2", "ap-southeast-5", "us-gov-west-1", "cn-north-1", "mx-central-1", "eusc-de-east-1"]
    {
        assert!(rules::region(region).is_ok(), "{region}");
    }
    for region in ["", "us-esat-1", "us-east", "us-east-1a", "useast1", "mars-north-1", "US-EAST-1", "us-east-0"] {
        assert!(rules::region(region).is_err(), "{region}");
    }
}

#[test]
fn environment_overrides_the_rest_of_the_file() {
    let text = format!(
        "{GOOD}[bucket]\nname = \"acme\"\nversioning = true\n[environments.staging]\nbucket.name = \"acme-staging\"\n"
    );
    let staging = parse("pipeline.toml", &text, Some("staging")).expect("valid");
    assert_eq!((staging.bucket.name.as_str(), staging.bucket.versioning.value), ("acme-staging", true));
    assert_eq!(parse("pipeline.toml", &text, None).expect("valid").bucket.name, "acme");
    assert!(parse("pipeline.toml", &text, Some("production")).is_err());
}

#[test]
fn undeclared_local_environment_is_accepted() {
    assert!(parse("pipeline.toml", GOOD, Some("local")).expect("valid").bucket.require_tls);
    let text = format!("{GOOD}[environments.local]\nbucket.require_tls = false\n");
    assert!(!parse("pipeline.toml", &text, Some("local")).expect("valid").bucket.require_tls);
}

#[test]
fn environment_has_its_own_names_and_ownership_marker() {
    let text = format!("{GOOD}[environments.staging]\n[environments.other]\npipeline.name = \"visits\"\n");
    let staging = parse("pipeline.toml", &text, Some("staging")).expect("valid");
    assert_eq!((staging.name.as_str(), staging.tags["pipeline"].as_str()), ("events-staging", "events-staging"));
    assert_eq!(
        (staging.bucket.name.as_str(), staging.function.role.name.as_str()),
        ("events-staging", "events-staging-function")
    );
    assert_eq!(staging.environment.as_deref(), Some("staging"));
    assert_eq!(parse("pipeline.toml", &text, Some("other")).expect("valid").table.counts, "visits-counts");
    // The local AWS is a separate AWS, so the names need no suffix.
    assert_eq!(parse("pipeline.toml", &text, Some("local")).expect("valid").name, "events");
}

#[test]
fn environments_that_share_a_name_are_refused() {
    let bucket = "[bucket]\nname = \"acme\"\n";
    let found = with(&format!("{bucket}[environments.staging]\nfunction.memory_mb = 128\n"));
    assert!(found.len() == 1 && found[0].message.contains("shares `bucket.name`"), "{found:?}");
    let two = "[environments.a]\nbucket.name = \"same\"\n[environments.b]\nbucket.name = \"same\"\n";
    let found = with(two);
    assert!(
        found.len() == 1 && found[0].message.contains("`environments.b` shares `bucket.name` with `environments.a`")
    );
    // In another region, all names but those of the bucket and the role may be the same.
    let region = "[environments.a]\npipeline.region = \"eu-west-1\"\n";
    assert_eq!(with(&format!("[function]\nname = \"f\"\n{region}")), []);
    assert_eq!(with(&format!("[role]\nname = \"r\"\n{region}")).len(), 1);
    assert_eq!(with(&format!("{bucket}[environments.local]\nbucket.require_tls = false\n")), []);
}

#[test]
fn stream_is_declared_by_its_section_and_named_after_the_pipeline() {
    let of = |file: &str| parse("pipeline.toml", &format!("{GOOD}{file}"), None).expect("valid").stream;
    assert!(of("").is_none());
    let stream = of("[stream]\n").expect("a stream");
    assert_eq!((stream.name.as_str(), stream.retention_hours.value), ("events-stream", 24));
    assert!(!stream.retention_hours.is_explicit);
    let found = with("[stream]\nname = \"changes\"\n[environments.staging]\n");
    assert!(found.len() == 1 && found[0].message.contains("shares `stream.name`"), "{found:?}");
}

#[test]
fn alarms_have_exactly_one_receiver() {
    let topic = "topic = \"arn:aws:sns:us-east-1:123456789012:oncall\"\n";
    let email = "email = \"oncall@example.com\"\n";
    let of = |file: &str| parse("pipeline.toml", &format!("{GOOD}{file}"), None).expect("valid").alarms;
    assert!(of("").is_none());
    for receiver in [topic, email] {
        let alarms = of(&format!("[alarms]\n{receiver}")).expect("alarms");
        assert_eq!((alarms.silent_hours, alarms.skipped_percent, alarms.queue_age_minutes), (26, 5, 60));
    }
    assert!(with("[alarms]\n")[0].message.contains("`alarms.email` is missing"));
    assert!(with(&format!("[alarms]\n{email}{topic}"))[0].message.contains("exclude each other"));
}

#[test]
fn mistake_in_an_unselected_environment_is_reported() {
    let found = with("[environments.staging]\nfunction.memory_mb = 1\n");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn message_shows_file_line_column_caret_and_help() {
    let error = parse("pipeline.toml", &format!("{GOOD}[function]\nmemory_mb = 1\n"), None).expect_err("a mistake");
    let shown = anstream::adapter::strip_str(&error.to_string()).to_string();
    for part in ["pipeline.toml:5:13", "5 | memory_mb = 1", "^ 1 MB", "help: write a whole number from 128 to 10240"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
}

#[test]
fn control_characters_of_a_file_do_not_reach_the_terminal() {
    let error = parse("pipeline.toml", &format!("{GOOD}[bucket]\nname = \"a\u{9b}31m\"\nx = \"\\u001b[31m\"\n"), None);
    let shown = anstream::adapter::strip_str(&error.expect_err("mistakes").to_string()).to_string();
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
}

#[test]
fn random_text_never_panics() {
    let mut random = fastrand::Rng::with_seed(7);
    let whole = include_str!("../../../pipeline.toml");
    for _ in 0..2000 {
        let mut bytes = whole.as_bytes().to_vec();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = parse("pipeline.toml", &text, None) {
            let _ = error.to_string();
        }
    }
}

#[test]
fn unknown_environment_is_reported_at_its_use_beside_the_mistakes_of_the_file() {
    let error = |text: &str| parse("pipeline.toml", text, Some("nope")).expect_err("an error").to_string();
    let only = error(&format!("{GOOD}[environments.staging]\n"));
    assert!(only.starts_with("--env names the environment `nope`") && only.contains("declares: staging"), "{only}");
    let both = error(&format!("{GOOD}[function]\nmemory_mb = 1\n"));
    assert!(both.contains("memory_mb") && both.contains("\nerror: --env names the environment `nope`"), "{both}");
}

#[test]
fn tag_keys_that_differ_in_case_alone_are_refused() {
    let found = with("[tags]\nTeam = \"a\"\nteam = \"b\"\n");
    assert!(found.len() == 1 && found[0].label.contains("does not distinguish"), "{found:?}");
    assert!(with("[tags]\nPipeline = \"a\"\n")[0].label.contains("owns"));
}

#[test]
fn tags_leave_room_for_the_markers_and_the_revision() {
    let tags = |n: usize| (0..n).map(|i| format!("t{i:02} = \"x\"\n")).collect::<String>();
    assert_eq!(with(&format!("[tags]\n{}", tags(46))), []);
    assert_eq!(with(&format!("[tags]\n{}", tags(47))).len(), 1);
}

#[test]
fn derived_bucket_name_is_checked_like_a_declared_one() {
    let of = |name: &str| mistakes(&format!("[pipeline]\nname = \"{name}\"\nregion = \"us-east-1\"\n"));
    for name in ["ab", "sthree-events", "events-an", "events--x-s3"] {
        assert!(of(name).iter().any(|d| d.label.contains("as the name of the bucket")), "{name}: {:?}", of(name));
    }
    assert_eq!(mistakes("[pipeline]\nname = \"ab\"\nregion = \"us-east-1\"\n[bucket]\nname = \"acme-events\"\n"), []);
}

#[test]
fn partitions_follow_the_regions() {
    for (region, partition) in [
        ("us-east-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eu-isoe-west-1", "aws-iso-e"),
        ("us-isof-south-1", "aws-iso-f"),
        ("eusc-de-east-1", "aws-eusc"),
    ] {
        assert!(rules::region(region).is_ok(), "{region}");
        assert_eq!(rules::partition(region), partition, "{region}");
    }
}

#[test]
fn segment_role_outside_its_partition_is_refused() {
    let of = |region: &str| {
        mistakes(&format!("[pipeline]\nname = \"events\"\nregion = \"{region}\"\n[segment]\nworkspace_id = \"abc\"\n"))
    };
    assert_eq!(of("eu-central-1"), []);
    assert!(of("cn-north-1")[0].label.contains("`aws-cn`"), "{:?}", of("cn-north-1"));
}

#[test]
fn provisioned_capacity_bounds_batches_and_backfill() {
    let of = |file: &str| {
        let pipeline = parse("pipeline.toml", &format!("{GOOD}{file}"), None).expect("a pipeline");
        let billing = pipeline.table.billing;
        (pipeline.notification.max_concurrency, billing.objects_a_second(), billing.carries())
    };
    assert_eq!(of(""), (8, 50, None));
    let (batches, objects, carries) = of("[table]\nbilling = { read = 5, write = 25 }\n");
    assert_eq!((batches, objects), (2, 5));
    let carries = carries.expect("a sentence");
    assert!(carries.contains("450 objects of 100 pairs an hour one by one, and 18,000 in batches"), "{carries}");
    assert!(carries.contains("up to 98 at once"), "{carries}");
    let (batches, objects, carries) = of("[table]\nbilling = { read = 500, write = 500 }\n");
    assert_eq!((batches, objects), (5, 50));
    assert!(!carries.expect("a sentence").contains("at once"));
    assert_eq!(of("[table]\nbilling = { read = 5, write = 5 }\n[notification]\nmax_concurrency = 30\n").0, 30);
}

#[test]
fn mistakes_of_a_file_of_another_kind_are_limited() {
    let keys = |n: usize| (0..n).map(|n| format!("key_{n} = 1\n")).collect::<String>();
    let error = |n: usize| {
        parse("other.toml", &format!("{GOOD}\n[rollup]\n{}", keys(n)), None).expect_err("mistakes").to_string()
    };
    assert!(!error(100).contains("not shown") && error(100).contains("100 mistakes"));
    let many = error(5_000);
    assert_eq!(many.matches("is not a key of pipeline.toml").count(), 100);
    assert!(many.contains("100 more are not shown, and there may be others"), "{}", &many[many.len() - 300..]);
}
