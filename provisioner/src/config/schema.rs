//! The JSON Schema of `pipeline.toml`, for editors: made from the same list of keys that the messages quote.

use schemars::Schema;
use serde_json::{Map, Value as Json, json};

use super::keys::KEYS;

/// The schema. It knows keys and types; `validate` knows AWS's rules.
#[must_use]
pub fn schema() -> Schema {
    let mut sections = Map::new();
    for (path, example) in KEYS {
        let Some((section, key)) = path.rsplit_once('.') else {
            // Free keys, all of one type.
            sections.insert((*path).to_owned(), json!({ "type": "object", "additionalProperties": value(example) }));
            continue;
        };
        let object = match section {
            "role.statement" => &mut entry(&mut sections, "role")["properties"]["statement"]["items"],
            section => entry(&mut sections, section),
        };
        if object.is_null() {
            *object = json!({ "type": "object", "additionalProperties": false, "properties": {} });
        }
        object["properties"][key] = match *path {
            "table.billing" => json!({ "anyOf": [
                { "const": "on-demand" },
                {
                    "type": "object", "additionalProperties": false, "required": ["read", "write"],
                    "properties": { "read": { "type": "integer" }, "write": { "type": "integer" } },
                },
            ]}),
            _ => value(example),
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

/// What an example's value says of the key.
fn value(example: &str) -> Json {
    let table: toml::Table = example.parse().unwrap_or_default();
    let value = table.values().next();
    let mut schema = match value {
        Some(toml::Value::Integer(_)) => json!({ "type": "integer" }),
        Some(toml::Value::Boolean(_)) => json!({ "type": "boolean" }),
        Some(toml::Value::Array(_)) => json!({ "type": "array", "items": { "type": "string" } }),
        _ => json!({ "type": "string" }),
    };
    schema["examples"] = json!([value]);
    schema
}
