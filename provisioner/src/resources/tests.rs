//! The tests of all kinds, and the helpers that the tests of each kind share.

use std::collections::BTreeSet;

use super::{Context, Kind, desired};
use crate::aws::Account;
use crate::config::{self, Pipeline};
use crate::reconcile::diff::{Code, SettingChange};
use crate::resources::function::artifact::{Artifact, Artifacts};

/// Declarations that together set every key.
pub(crate) const FILES: [&str; 5] = [
    "",
    "[bucket]\nversioning = true\nexpire_days = 30\n[table]\nbilling = { read = 5, write = 5 }\n\
     point_in_time_recovery = false\ndeletion_protection = false\n[segment]\nworkspace_id = \"abc123\"\n\
     [stream]\nname = \"events-changes\"\n[alarms]\nemail = \"oncall@example.com\"\nsilent_hours = 3",
    "[tags]\nteam = \"analytics\"\n[bucket]\nrequire_tls = false\n[function]\narchitecture = \"arm64\"\n\
     max_concurrency = 3\nretries = 0\n[[role.statement]]\nactions = [\"s3:GetObject\"]\nresources = [\"arn:aws:s3:::acme/*\"]\n\
     [stream]\nretention_hours = 48\nkms_key = \"arn:aws:kms:eu-central-1:123456789012:key/events-k\"",
    "[bucket]\nkms_key = \"arn:aws:kms:eu-central-1:123456789012:key/events-b\"\n\
     [table]\nkms_key = \"arn:aws:kms:eu-central-1:123456789012:key/events-t\"\n\
     [function]\nkms_key = \"arn:aws:kms:eu-central-1:123456789012:key/events-f\"\n\
     failure_queue_kms_key = \"arn:aws:kms:eu-central-1:123456789012:key/events-q\"\n\
     environment = { STAGE = \"production\" }\n\
     [role]\npermissions_boundary = \"arn:aws:iam::123456789012:policy/boundary\"\n\
     [segment]\nworkspace_id = \"abc123\"",
    "[rollup]\nsum = [\"properties.revenue\"]\nby = [\"properties.plan\"]\n[[consumer]]\nname = \"alert\"\nretries = 3\n\
     [[consumer.statement]]\nactions = [\"sns:Publish\"]\nresources = [\"arn:aws:sns:eu-central-1:123456789012:alerts\"]\n\
     [alarms]\ntopic = \"arn:aws:sns:eu-central-1:123456789012:events-oncall\"",
];

fn pipeline(file: &str) -> Pipeline {
    let text = format!("[pipeline]\nname = \"events\"\nregion = \"eu-central-1\"\n{file}");
    config::parse("pipeline.toml", &text, None).expect("a valid file")
}

pub(crate) fn in_context<T>(file: &str, work: impl FnOnce(&Context<'_>) -> T) -> T {
    let pipeline = pipeline(file);
    let account = Account {
        partition: "aws".into(),
        region: pipeline.region.clone(),
        id: "123456789012".into(),
        caller: String::new(),
    };
    let artifact = || Artifact {
        zip: b"zip".to_vec(),
        code: Code { sha256: "c2hh".into(), bytes: 3, revision: Some("0123456789ab".into()) },
    };
    let functions = pipeline.functions().into_iter();
    let artifacts: Artifacts = functions.map(|function| (function.name.clone(), artifact())).collect();
    work(&Context { pipeline: &pipeline, account: &account, artifacts: Some(&artifacts) })
}

/// Returns the resources of one kind that a file declares.
pub(super) fn declared<K: Kind>(file: &str) -> Vec<K> {
    in_context(file, |context| K::desired(context))
}

/// Asserts that a resource in sync has no drift and no conflict, and that an absent one has drift.
pub(super) fn assert_in_sync<K: Kind>(live_of: impl Fn(&K) -> K::Live) {
    for file in FILES {
        for spec in declared::<K>(file) {
            assert_eq!(spec.diff(Some(&live_of(&spec))), Vec::<SettingChange>::new(), "{spec:?}");
            assert!(!spec.diff(None).is_empty(), "{spec:?}");
            assert!(spec.refusal(&live_of(&spec)).is_none(), "{spec:?}");
        }
    }
    let specs = FILES.into_iter().flat_map(declared::<K>);
    let settings: BTreeSet<_> = specs.flat_map(|spec| spec.diff(None)).map(|change| change.setting).collect();
    for setting in K::ESSENTIAL.unwrap_or_default() {
        assert!(settings.contains(setting), "{setting} is not a setting of a {}", K::NAME);
    }
}

#[test]
fn addresses_of_every_declaration_are_unique() {
    for file in FILES {
        in_context(file, |context| {
            let addresses: Vec<_> = desired(context).iter().map(|resource| resource.address().clone()).collect();
            assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "{addresses:?}");
        });
    }
}

#[test]
fn every_kind_with_a_file_is_registered() {
    let registry = include_str!("mod.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/resources")).expect("the folder") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        let module = name.trim_end_matches(".rs");
        if !matches!(module, "mod" | "cost" | "discover" | "openings" | "recorded" | "tests") {
            assert!(registry.contains(&format!("kind::<{module}::")), "{module} is not in the registry");
        }
    }
}
