//! A JSON Schema as Claude takes it. Pure.
//!
//! What its structured outputs are held to is a part of JSON Schema, and anything else is an error:
//! <https://platform.claude.com/docs/en/build-with-claude/structured-outputs>. So an object has no
//! members but those that are named, and what cannot be enforced is told in the description. Whether
//! the answer is valid by the whole schema is found out once it is there.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Keywords that go as they are.
const KEPT: [&str; 8] = [
    "$ref",
    "const",
    "default",
    "enum",
    "required",
    "title",
    "type",
    "description",
];

/// Keywords that hold schemas by name, one schema, and a list of them.
const NAMED: [&str; 3] = ["$defs", "definitions", "properties"];
const LISTED: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Keywords about the schema, which say nothing of an answer.
const ABOUT: [&str; 4] = ["$schema", "$id", "$comment", "examples"];

const FORMATS: [&str; 9] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "time",
    "uuid",
];

/// The schema to send; `None` where it has an object without named members, which Claude would leave
/// empty.
pub fn accepted(schema: &Value) -> Option<Value> {
    let Value::Object(keywords) = schema else {
        return Some(schema.clone());
    };
    let mut kept = Map::new();
    let mut told = String::new();
    for (keyword, value) in keywords {
        let name = keyword.as_str();
        if KEPT.contains(&name) {
            kept.insert(keyword.clone(), value.clone());
        } else if NAMED.contains(&name) {
            let named = value.as_object()?.iter();
            let named = named.map(|(name, schema)| Some((name.clone(), accepted(schema)?)));
            kept.insert(
                keyword.clone(),
                Value::Object(named.collect::<Option<_>>()?),
            );
        } else if LISTED.contains(&name) {
            let listed = value.as_array()?.iter().map(accepted);
            // Only one of them may hold, which is looked at in the end.
            let keyword = if name == "oneOf" { "anyOf" } else { name };
            kept.insert(
                keyword.to_owned(),
                Value::Array(listed.collect::<Option<_>>()?),
            );
        } else if name == "items" && (value.is_object() || value.is_boolean()) {
            kept.insert(keyword.clone(), accepted(value)?);
        } else if is_kept(name, value) {
            kept.insert(keyword.clone(), value.clone());
        } else if name == "additionalProperties" {
            if !value.is_boolean() && !keywords.contains_key("properties") {
                return None;
            }
        } else if !ABOUT.contains(&name) {
            let _ = write!(told, " {keyword}: {value}.");
        }
    }
    if is_object(keywords) {
        if !keywords.contains_key("properties") {
            return None;
        }
        kept.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    if !told.is_empty() {
        let description = match kept.get("description").and_then(Value::as_str) {
            Some(description) => format!("{description}{told}"),
            None => told.trim_start().to_owned(),
        };
        kept.insert("description".to_owned(), Value::String(description));
    }
    Some(Value::Object(kept))
}

fn is_kept(keyword: &str, value: &Value) -> bool {
    match keyword {
        "format" => value
            .as_str()
            .is_some_and(|format| FORMATS.contains(&format)),
        "minItems" => value.as_u64().is_some_and(|least| least <= 1),
        _ => false,
    }
}

fn is_object(keywords: &Map<String, Value>) -> bool {
    match keywords.get("type") {
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        _ => keywords.contains_key("properties"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_claude_cannot_be_held_to_is_told_in_words() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "age": {"type": "integer", "maximum": 150, "description": "In years."},
                "tags": {"type": "array", "items": {"type": "string", "maxLength": 9}, "minItems": 2},
                "when": {"type": "string", "format": "date"},
                "who": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/who"}]},
            },
            "required": ["age"],
            "$defs": {"who": {"properties": {"name": {"type": "string"}}}},
        });
        let sent = json!({
            "type": "object",
            "properties": {
                "age": {"type": "integer", "description": "In years. maximum: 150."},
                "tags": {
                    "type": "array",
                    "items": {"type": "string", "description": "maxLength: 9."},
                    "description": "minItems: 2.",
                },
                "when": {"type": "string", "format": "date"},
                "who": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/who"}]},
            },
            "required": ["age"],
            "$defs": {
                "who": {
                    "properties": {"name": {"type": "string"}},
                    "additionalProperties": false,
                },
            },
            "additionalProperties": false,
        });
        assert_eq!(accepted(&schema), Some(sent));
    }

    #[test]
    fn an_object_without_named_members_cannot_be_asked_for() {
        for schema in [
            json!({"type": "object"}),
            json!({"type": ["object", "null"]}),
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"type": "array", "items": {"type": "object"}}),
        ] {
            assert_eq!(accepted(&schema), None, "{schema}");
        }
    }
}
