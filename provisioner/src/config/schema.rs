//! The JSON Schema of `pipeline.toml`, for editors; generated from the keys, which the checks read too.

use schemars::Schema;
use serde_json::{Value as Json, json};
use toml::Value as Toml;

use super::file;
use super::key::{Key, LISTS, Values};

/// Returns the schema. `validate` also checks rules that a schema cannot express.
pub(crate) fn schema() -> Schema {
    let mut sections = json!({});
    for key in file::all_keys() {
        let Some((section, name)) = key.path.rsplit_once('.') else {
            // Arbitrary keys, all of one type.
            sections[key.path] = json!({ "type": "object", "additionalProperties": value(key) });
            continue;
        };
        let section = entry(&mut sections, section);
        section["properties"][name] = value(key);
        if key.is_required {
            let mut required = section["required"].as_array().cloned().unwrap_or_default();
            required.push(json!(name));
            section["required"] = json!(required);
        }
    }
    // An environment overrides some keys of a section, and replaces a list.
    let mut overrides = sections.clone();
    for section in overrides.as_object_mut().into_iter().flatten().filter_map(|(_, section)| section.as_object_mut()) {
        section.remove("required");
    }
    let overrides = json!({ "type": "object", "additionalProperties": false, "properties": overrides });
    sections["environments"] = json!({ "type": "object", "additionalProperties": overrides });
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

/// Returns the section at a path, or an entry of it if it is a list, below the sections above it.
fn entry<'a>(sections: &'a mut Json, path: &str) -> &'a mut Json {
    let (siblings, name) = match path.rsplit_once('.') {
        Some((above, name)) => (&mut entry(sections, above)["properties"], name),
        None => (sections, path),
    };
    let (section, is_list) = (&mut siblings[name], LISTS.contains(&path));
    if section.is_null() {
        let object = json!({ "type": "object", "additionalProperties": false, "properties": {} });
        *section = if is_list { json!({ "type": "array", "items": object }) } else { object };
    }
    if is_list { &mut section["items"] } else { section }
}

/// Returns the schema of a key, by the type of its example.
fn value(key: &Key) -> Json {
    let example = key.example.parse().ok().and_then(|table: toml::Table| table.into_iter().next());
    let example = example.map(|(_, value)| value);
    let mut single = single(example.as_ref(), key.values);
    if !key.form.is_empty() {
        single["pattern"] = json!(key.form);
    }
    let mut schema = match example {
        Some(Toml::Table(_)) => json!({ "type": "object", "additionalProperties": single }),
        Some(Toml::Array(_)) => json!({ "type": "array", "items": single }),
        _ => single,
    };
    let (least, most) = key.entries;
    limit(&mut schema, "minItems", (least > 0).then_some(least));
    limit(&mut schema, "maxItems", (most < usize::MAX).then_some(most));
    if key.is_set {
        schema["uniqueItems"] = json!(true);
    }
    let default = default_of(key).filter(|default| example.as_ref().is_some_and(|example| default.same_type(example)));
    schema["description"] = json!(match (&default, key.default) {
        (Some(_), _) | (None, "") => key.description.to_owned(),
        (None, in_words) => format!("{} Default: {in_words}.", key.description),
    });
    if let Some(default) = default {
        schema["default"] = json!(default);
    }
    schema["examples"] = json!([example]);
    schema
}

/// Returns the schema of a value, or of an entry of a list or of a table.
fn single(example: Option<&Toml>, values: Values) -> Json {
    let kind = match example {
        Some(Toml::Integer(_)) => "integer",
        Some(Toml::Boolean(_)) => "boolean",
        _ => "string",
    };
    let mut schema = json!({ "type": kind });
    match values {
        Values::Any => {}
        Values::Range { least, most, unit } => {
            schema["minimum"] = json!(least);
            schema["maximum"] = json!(most);
            schema["x-unit"] = json!(unit);
        }
        Values::Numbers { allowed, unit } => {
            schema["enum"] = json!(allowed);
            schema["x-unit"] = json!(unit);
        }
        Values::Words(words) => schema["enum"] = json!(words),
        Values::Text(text) => {
            let (least, most) = text.length;
            limit(&mut schema, "minLength", (least > 0).then_some(least));
            limit(&mut schema, "maxLength", (most < usize::MAX).then_some(most));
            if !text.letters.class.is_empty() {
                schema["pattern"] = json!(format!("^[{}]*$", text.letters.class));
            }
        }
        Values::Capacity { word, least, most } => {
            let units = json!({ "type": "integer", "minimum": least, "maximum": most });
            schema = json!({ "anyOf": [
                { "const": word },
                {
                    "type": "object", "additionalProperties": false, "required": ["read", "write"],
                    "properties": { "read": units, "write": units },
                },
            ]});
        }
    }
    schema
}

fn limit(schema: &mut Json, name: &str, number: Option<usize>) {
    if let Some(number) = number {
        schema[name] = json!(number);
    }
}

/// Returns the default of a key, unless it is in words.
pub(super) fn default_of(key: &Key) -> Option<Toml> {
    let table: toml::Table = format!("default = {}", key.default).parse().ok()?;
    table.get("default").cloned()
}
