//! The JSON Schemas of the configuration, and the file to start from, both made from the types.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde_json::Value;

use super::layers::{LISTS, leaves};
use super::{EditorOptions, Options, ProjectOptions, Settings};

/// The schema of the user's own file, with every default.
#[must_use]
pub fn config_schema() -> Value {
    let mut schema = schema::<Options>();
    let defaults = leaves(&Options::from(&Settings::default()));
    insert_defaults(&mut schema, &defaults);
    schema
}

/// The schema of a project's file.
#[must_use]
pub fn project_schema() -> Value {
    schema::<ProjectOptions>()
}

/// The schema of what an editor may send.
#[must_use]
pub fn editor_schema() -> Value {
    let mut schema = schema::<EditorOptions>();
    let defaults = leaves(&Options::from(&Settings::default()));
    insert_defaults(&mut schema, &defaults);
    schema
}

/// Inlined, for editors whose YAML servers follow references badly; groups of all options are empty
/// by default, which says nothing and is left out.
fn schema<T: JsonSchema>() -> Value {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    drop_defaults(&mut schema);
    // The order in which known keys are told, and that of the files.
    schema.sort_all_objects();
    schema
}

fn drop_defaults(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            // A property may be called `default`; its schema is an object with a type.
            if members
                .get("default")
                .is_none_or(|value| value.get("type").is_none())
            {
                members.remove("default");
            }
            members.values_mut().for_each(drop_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_defaults),
        _ => {}
    }
}

fn insert_defaults(schema: &mut Value, defaults: &BTreeMap<String, Value>) {
    for (key, default) in defaults {
        let pointer = format!("/properties/{}", key.replace('.', "/properties/"));
        if let Some(Value::Object(property)) = schema.pointer_mut(&pointer) {
            property.insert("default".to_owned(), default.clone());
        }
    }
    for list in LISTS {
        let pointer = format!("/properties/{}", list.replace('.', "/properties/"));
        if let Some(Value::Object(property)) = schema.pointer_mut(&pointer) {
            property.insert("default".to_owned(), Value::Array(Vec::new()));
        }
    }
}

/// A file for the user to start from: every key with its meaning, commented out.
#[must_use]
pub fn starting_file() -> String {
    let mut text = String::from(
        "# The configuration of Tandem. Every line below is a comment: remove the `#` before a key,\n\
         # and before its group, to change its value, which is the default here.\n",
    );
    let schema = config_schema();
    write_group(&mut text, &schema, "");
    text
}

fn write_group(text: &mut String, schema: &Value, indent: &str) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    // Single keys before groups, as a YAML reader wants to meet them.
    let (groups, keys): (Vec<_>, Vec<_>) = properties
        .iter()
        .partition(|(_, schema)| schema.get("properties").is_some());
    for (name, schema) in keys {
        write_description(text, schema, indent);
        let default = schema.get("default").map_or_else(String::new, |default| {
            format!(
                " {}",
                default
                    .as_str()
                    .map_or_else(|| default.to_string(), str::to_owned)
            )
        });
        let _ = writeln!(text, "#{indent}{name}:{default}");
    }
    for (name, schema) in groups {
        text.push('\n');
        write_description(text, schema, indent);
        let _ = writeln!(text, "#{indent}{name}:");
        write_group(text, schema, &format!("{indent}  "));
    }
}

fn write_description(text: &mut String, schema: &Value, indent: &str) {
    let description = schema["description"].as_str().unwrap_or_default();
    for line in description.lines() {
        let _ = writeln!(text, "# {indent}{line}");
    }
}
