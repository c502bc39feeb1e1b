//! The JSON Schema of `pipeline.toml` and `provisioner validate`: both refuse the same values.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::pipeline;

/// The ways in which a value can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    /// It has another type.
    Type,
    /// It is below the range, too short, or a list with too few entries.
    Below,
    /// It is above the range, too long, or a list with too many entries.
    Above,
    /// It is not in the list of values, or has other letters.
    Unknown,
}

/// Returns a value that the schema of a key refuses, if there is one with this mistake.
fn wrong(mistake: Mistake, schema: &Value) -> Option<Value> {
    let number = |name: &str| schema[name].as_i64();
    let text = |length: i64| json!("x".repeat(usize::try_from(length).unwrap_or_default()));
    if schema["items"].is_object() && mistake != Mistake::Type {
        let entries = |n: i64| json!((0..n).map(|n| format!("a{n}")).collect::<Vec<_>>());
        let of_list = match mistake {
            Mistake::Below => number("minItems").map(|least| entries(least - 1)),
            Mistake::Above => number("maxItems").map(|most| entries(most + 1)),
            Mistake::Type | Mistake::Unknown => None,
        };
        return of_list.or_else(|| wrong(mistake, &schema["items"]).map(|entry| json!([entry])));
    }
    let is_choice = schema["anyOf"].is_array();
    match mistake {
        Mistake::Type if is_choice || schema["type"] == "string" => Some(json!(1)),
        Mistake::Type => Some(json!("x")),
        Mistake::Below if is_choice => Some(json!({ "read": 0, "write": 1 })),
        Mistake::Below => {
            let short = number("minLength").map(|least| text(least - 1));
            number("minimum").map(|least| json!(least - 1)).or(short)
        }
        Mistake::Above if is_choice => Some(json!({ "read": 1, "write": 1_000_000 })),
        Mistake::Above => {
            let long = number("maxLength").map(|most| text(most + 1));
            number("maximum").map(|most| json!(most + 1)).or(long)
        }
        Mistake::Unknown if schema["type"] == "integer" => schema["enum"].is_array().then(|| json!(2)),
        Mistake::Unknown if is_choice || schema["enum"].is_array() => Some(json!("unknown")),
        Mistake::Unknown => schema["pattern"].is_string().then(|| json!("?".repeat(12))),
    }
}

/// Returns a file with a value for every key of the schema, which `choose` chooses by its path and schema.
fn document(properties: &Value, above: &str, choose: &dyn Fn(&str, &Value) -> Value) -> Value {
    let mut table = serde_json::Map::new();
    for (name, schema) in properties.as_object().into_iter().flatten().filter(|(name, _)| *name != "environments") {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        // A file has one receiver of alarms.
        if path == "alarms.topic" {
            continue;
        }
        let value = if schema["properties"].is_object() {
            document(&schema["properties"], &path, choose)
        } else if schema["items"]["properties"].is_object() {
            json!([document(&schema["items"]["properties"], &path, choose)])
        } else if above.is_empty() {
            json!({ "team": choose(&format!("{path}.team"), &schema["additionalProperties"]) })
        } else {
            choose(&path, schema)
        };
        table.insert(name.clone(), value);
    }
    Value::Object(table)
}

/// Returns the path of a key in a path of JSON: `$.consumer[0].retries`.
fn key_path(path: &str) -> String {
    let without_index = |part: &str| part.split('[').next().unwrap_or_default().to_owned();
    path.split('.').skip(1).map(without_index).collect::<Vec<_>>().join(".")
}

#[test]
fn schema_and_validate_refuse_the_same_values() -> Result<()> {
    let pipeline = pipeline()?;
    let schema = pipeline.expect(0, &["schema", "pipeline"])?.out;
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("schema.json"), &schema)?;
    let schema: Value = serde_json::from_str(&schema)?;
    let write = |name: &str, document: &Value| -> Result<()> {
        Ok(std::fs::write(file(name), toml::to_string(document).context("a file that is not TOML")?)?)
    };
    let example = |schema: &Value| schema["examples"][0].clone();
    write("good.toml", &document(&schema["properties"], "", &|_, schema| example(schema)))?;
    let mut others = Vec::new();
    for (n, region) in
        ["us-gov-west-1", "cn-north-1", "us-isob-east-1", "eu-isoe-west-1", "eusc-de-east-1"].iter().enumerate()
    {
        let partition = ["aws-us-gov", "aws-cn", "aws-iso-b", "aws-iso-e", "aws-eusc"][n];
        let key = format!("arn:{partition}:kms:{region}:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab");
        let name = format!("other-{n}.toml");
        write(
            &name,
            &json!({
                "pipeline": { "name": "events", "region": region },
                "bucket": { "kms_key": key },
                "table": { "kms_key": key },
                "role": { "permissions_boundary": format!("arn:{partition}:iam::aws:policy/PowerUserAccess") },
                "alarms": { "topic": format!("arn:{partition}:sns:{region}:123456789012:on_call-1") },
            }),
        )?;
        others.push(name);
    }
    let mut expected = Vec::new();
    for mistake in [Mistake::Type, Mistake::Below, Mistake::Above, Mistake::Unknown] {
        let keys = RefCell::new(BTreeSet::new());
        let choose = |path: &str, schema: &Value| match wrong(mistake, schema) {
            Some(value) => {
                keys.borrow_mut().insert(path.to_owned());
                value
            }
            None => example(schema),
        };
        let name = format!("{mistake:?}.toml");
        write(&name, &document(&schema["properties"], "", &choose))?;
        ensure!(keys.borrow().len() > 8, "{mistake:?}: {keys:?}");
        expected.push((name, keys.into_inner()));
    }

    let mut checker = Command::new(tests::local_aws::root().join(".venv/bin/check-jsonschema"));
    checker.args(["--output-format", "json", "--schemafile"]).arg(file("schema.json")).arg(file("good.toml"));
    checker.args(expected.iter().map(|(name, _)| name).chain(&others).map(|name| file(name)));
    let output = checker.output().context("check-jsonschema is not installed: run `make venv`")?;
    let report: Value = serde_json::from_slice(&output.stdout).context("check-jsonschema printed no JSON")?;
    let errors = report["errors"].as_array().context("errors")?;
    let refused = |name: &str| -> BTreeSet<String> {
        let of_file = errors.iter().filter(|error| error["filename"].as_str().is_some_and(|path| path.ends_with(name)));
        of_file.map(|error| key_path(error["path"].as_str().unwrap_or_default())).collect()
    };
    let validate = |name: &str| pipeline.run(&["--config", &file(name).to_string_lossy(), "validate"]);
    for name in others.iter().map(String::as_str).chain(["good.toml"]) {
        ensure!(refused(name).is_empty(), "{name}: {report:#}");
        ensure!(validate(name)?.code == Some(0), "{:?}", validate(name)?);
    }
    for (name, keys) in &expected {
        ensure!(refused(name) == *keys, "the schema refuses {:?} of {name}, and not {keys:?}", refused(name));
        let run = validate(name)?;
        let accepted: Vec<&String> = keys.iter().filter(|key| !run.err.contains(&format!("`{key}`"))).collect();
        ensure!(run.code == Some(1) && accepted.is_empty(), "validate accepts {accepted:?} of {name}: {}", run.err);
    }
    Ok(())
}
