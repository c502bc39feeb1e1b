//! The JSON Schema of `pipeline.toml`, for editors; generated from the list of keys that the messages quote.

use schemars::Schema;
use serde_json::{Value as Json, json};

use super::file;
use super::key::{Key, LISTS};

/// Returns the schema. It covers keys and types; `validate` also checks AWS's rules.
pub(crate) fn schema() -> Schema {
    let mut sections = json!({});
    for key in file::all_keys() {
        let (path, value) = (key.path, value(key));
        let Some((section, name)) = path.rsplit_once('.') else {
            // Arbitrary keys, all of one type.
            sections[path] = json!({ "type": "object", "additionalProperties": value });
            continue;
        };
        entry(&mut sections, section)[name] = match path {
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
    let section = json!({ "type": "object", "additionalProperties": false, "properties": sections.clone() });
    sections["environments"] = json!({ "type": "object", "additionalProperties": section });
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

/// Returns the properties of the section at a path, below those of the sections above it.
fn entry<'a>(sections: &'a mut Json, path: &str) -> &'a mut Json {
    let (siblings, name) = match path.rsplit_once('.') {
        Some((above, name)) => (entry(sections, above), name),
        None => (sections, path),
    };
    let (section, is_list) = (&mut siblings[name], LISTS.contains(&path));
    if section.is_null() {
        let object = json!({ "type": "object", "additionalProperties": false, "properties": {} });
        *section = if is_list { json!({ "type": "array", "items": object }) } else { object };
    }
    let section = if is_list { &mut section["items"] } else { section };
    &mut section["properties"]
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
