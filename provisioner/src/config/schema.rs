//! The JSON Schema of `pipeline.toml`, for editors; generated from the list of keys that the messages quote.

use schemars::Schema;
use serde_json::{Map, Value as Json, json};

use super::file;
use super::key::Key;

/// Returns the schema. It covers keys and types; `validate` also checks AWS's rules.
pub(crate) fn schema() -> Schema {
    let mut sections = Map::new();
    for key in file::all_keys() {
        let (path, value) = (key.path, value(key));
        let Some((section, name)) = path.rsplit_once('.') else {
            // Arbitrary keys, all of one type.
            sections.insert(path.to_owned(), json!({ "type": "object", "additionalProperties": value }));
            continue;
        };
        let object = match section {
            "role.statement" => &mut entry(&mut sections, "role")["properties"]["statement"]["items"],
            section => entry(&mut sections, section),
        };
        if object.is_null() {
            *object = json!({ "type": "object", "additionalProperties": false, "properties": {} });
        }
        object["properties"][name] = match path {
            "table.billing" => json!({ "anyOf": [
                { "const": "on-demand" },
                {
                    "type": "object", "additionalProperties": false, "required": ["read", "write"],
                    "properties": { "read": { "type": "integer" }, "write": { "type": "integer" } },
                },
            ]}),
            _ => value,
        };
    }
    sections["role"]["properties"]["statement"]["type"] = json!("array");
    let section = json!({ "type": "object", "additionalProperties": false, "properties": sections.clone() });
    sections.insert("environments".to_owned(), json!({ "type": "object", "additionalProperties": section }));
    sections["pipeline"]["required"] = json!(["name", "region"]);
    let whole = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipeline.toml",
        "type": "object",
        "additionalProperties": false,
        "required": ["pipeline"],
        "properties": sections,
    });
    Schema::try_from(whole).unwrap_or_default()
}

fn entry<'a>(sections: &'a mut Map<String, Json>, section: &str) -> &'a mut Json {
    let object = json!({ "type": "object", "additionalProperties": false, "properties": {} });
    sections.entry(section).or_insert(object)
}

/// Returns the schema of a key, by the type of its example.
fn value(key: &Key) -> Json {
    let table: toml::Table = key.example.parse().unwrap_or_default();
    let value = table.values().next();
    let mut schema = match value {
        Some(toml::Value::Integer(_)) => json!({ "type": "integer" }),
        Some(toml::Value::Boolean(_)) => json!({ "type": "boolean" }),
        Some(toml::Value::Table(_)) => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Some(toml::Value::Array(_)) => json!({ "type": "array", "items": { "type": "string" } }),
        _ => json!({ "type": "string" }),
    };
    schema["examples"] = json!([value]);
    schema["description"] = json!(match key.default {
        "" => key.description.to_owned(),
        default => format!("{} Default: {default}.", key.description),
    });
    schema
}
