//! What every kind must keep, and what the kinds' own tests share.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value as Json;

use super::declared as all;
use crate::artifact::Artifact;
use crate::aws::Place;
use crate::change::{Change, Code};
use crate::config::{self, Pipeline};
use crate::kind::{Kind, Scope};

/// Declarations that between them set every key.
const FILES: [&str; 3] = [
    "",
    "[bucket]\nversioning = true\nexpire_days = 30\n[table]\nbilling = { read = 5, write = 5 }\n\
     point_in_time_recovery = false\ndeletion_protection = false\n[segment]\nworkspace_id = \"abc123\"",
    "[tags]\nteam = \"analytics\"\n[bucket]\nrequire_tls = false\n[function]\narchitecture = \"arm64\"\n\
     max_concurrency = 3\nretries = 0\n[[role.statement]]\nactions = [\"s3:GetObject\"]\nresources = [\"arn:aws:s3:::acme/*\"]",
];

fn pipeline(file: &str) -> Pipeline {
    let text = format!("[pipeline]\nname = \"events\"\nregion = \"eu-central-1\"\n{file}");
    config::parse("pipeline.toml", &text, None).expect("a valid file")
}

pub(super) fn in_scope<T>(file: &str, work: impl FnOnce(&Scope<'_>) -> T) -> T {
    let pipeline = pipeline(file);
    let place = Place {
        partition: "aws".into(),
        region: pipeline.region.clone(),
        account: "123456789012".into(),
        caller: String::new(),
    };
    let artifact = Arc::new(Artifact {
        zip: b"zip".to_vec(),
        code: Code { sha256: "c2hh".into(), bytes: 3, revision: Some("0123456789ab".into()) },
    });
    work(&Scope { pipeline: &pipeline, place: &place, artifact: Some(&artifact) })
}

/// What a file declares of one kind.
pub(super) fn declared<K: Kind>(file: &str) -> Vec<K> {
    in_scope(file, |scope| K::declared(scope))
}

/// Of a resource that is as declared nothing differs; of none, something does.
pub(super) fn converges<K: Kind>(live_of: impl Fn(&K) -> K::Live) {
    for file in FILES {
        for spec in declared::<K>(file) {
            assert_eq!(spec.diff(Some(&live_of(&spec))), Vec::<Change>::new(), "{spec:?}");
            assert!(!spec.diff(None).is_empty(), "{spec:?}");
            assert!(spec.refusal(&live_of(&spec)).is_none(), "{spec:?}");
        }
    }
}

#[test]
fn what_a_deployer_may_do_is_bound_to_the_pipelines_resources() {
    for file in FILES {
        let policy = in_scope(file, |scope| crate::rights::deployer_policy(scope, false));
        for statement in policy["Statement"].as_array().expect("statements") {
            let actions: Vec<&str> =
                statement["Action"].as_array().expect("actions").iter().filter_map(Json::as_str).collect();
            assert!(!actions.iter().any(|action| action.contains('*')), "{actions:?}");
            for resource in statement["Resource"].as_array().expect("resources").iter().filter_map(Json::as_str) {
                match resource {
                    // What AWS cannot bind to a resource, all of it reading.
                    "*" => assert_eq!(actions, ["iam:ListRoles", "logs:DescribeLogGroups", "tag:GetResources"]),
                    arn if arn.contains(":iam:") => assert!(arn.contains(":role/pipeline/events/events-"), "{arn}"),
                    arn => assert!(arn.contains("events"), "{arn}"),
                }
            }
        }
    }
}

#[test]
fn addresses_are_unique_and_needs_are_declared_before() {
    for file in FILES {
        in_scope(file, |scope| {
            let addresses: Vec<_> = all(scope).iter().map(|resource| resource.address().clone()).collect();
            assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "{addresses:?}");
        });
    }
}

#[test]
fn every_file_of_a_kind_is_registered() {
    let registry = include_str!("mod.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/resources")).expect("the folder") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        let module = name.trim_end_matches(".rs");
        if !matches!(module, "mod" | "recorded" | "tests") {
            assert!(registry.contains(&format!("kind::<{module}::")), "{module} is not in the registry");
        }
    }
}
