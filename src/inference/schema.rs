//! A JSON Schema that an answer has to be valid by.

use std::sync::Arc;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::{ErrorKind, GenerateError};

/// The longest schema, in bytes as JSON. What is made of it grows with it, and nobody cancels that.
const LONGEST: usize = 64 << 10;

/// How deeply a schema may be nested. Whatever reads it goes down by its own stack.
const DEEPEST: usize = 64;

/// How many properties and values a schema may name: a model's grammar takes a time that grows with the
/// square of it.
const MOST_NAMES: usize = 1_000;

const CORRECT: &str = "Correct the schema and ask again.";

/// A JSON Schema (2020-12, or the draft that it names) that was found to be one. Cheap to clone.
#[derive(Clone)]
pub struct AnswerSchema {
    json: Arc<Value>,
    validator: Arc<Validator>,
}

impl std::fmt::Debug for AnswerSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AnswerSchema({})", self.json)
    }
}

impl PartialEq for AnswerSchema {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl AnswerSchema {
    /// The schema that is written in `text`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for what is no JSON, and as in [`Self::new`].
    pub fn parse(text: &str) -> Result<Self, GenerateError> {
        let json = serde_json::from_str(text)
            .map_err(|error| refused(format!("the schema is not JSON ({error})"), CORRECT))?;
        Self::new(json)
    }

    /// `json` as a schema.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for what is no JSON Schema, refers to other files, or is larger
    /// than what can be worked with.
    pub fn new(json: Value) -> Result<Self, GenerateError> {
        if !json.is_object() {
            return Err(refused("the schema is not a JSON object", CORRECT));
        }
        let length = json.to_string().len();
        if length > LONGEST {
            let what = format!(
                "the schema is {} KiB long and may be {} KiB",
                length.div_ceil(1024),
                LONGEST >> 10
            );
            return Err(refused(what, "Ask for less at once."));
        }
        let size = Size::of(&json, DEEPEST);
        if size.deep {
            let what = format!("the schema is nested deeper than {DEEPEST} levels");
            return Err(refused(what, "Ask for less at once."));
        }
        if size.names > MOST_NAMES {
            let what = format!(
                "the schema names {} properties and values and may name {MOST_NAMES}",
                size.names
            );
            return Err(refused(what, "Ask for less at once."));
        }
        let validator = jsonschema::options()
            // Their time is bounded by the text's length, which that of backtracking ones is not.
            .with_pattern_options(PatternOptions::regex())
            .build(&json)
            .map_err(|error| {
                let place = error.instance_path().as_str();
                let place = if place.is_empty() { "/" } else { place };
                refused(
                    format!("this is not a JSON Schema: at {place}, {error}"),
                    CORRECT,
                )
            })?;
        Ok(Self {
            json: Arc::new(json),
            validator: Arc::new(validator),
        })
    }

    /// The schema.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// The JSON that `answer` is.
    ///
    /// # Errors
    /// Where in it, and by which keyword, it is not valid. Says nothing of its text.
    pub fn value_of(&self, answer: &str) -> Result<Value, String> {
        let value = serde_json::from_str(answer)
            .map_err(|error| format!("it is not JSON (column {})", error.column()))?;
        match self.validator.validate(&value) {
            Ok(()) => Ok(value),
            Err(error) => Err(format!(
                "it is not valid by the schema's {}",
                error.schema_path()
            )),
        }
    }
}

/// How large a schema is.
#[derive(Default)]
struct Size {
    names: usize,
    deep: bool,
}

impl Size {
    fn of(json: &Value, depth: usize) -> Self {
        let mut size = Self::default();
        size.add(json, depth);
        size
    }

    fn add(&mut self, json: &Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else {
            self.deep = true;
            return;
        };
        match json {
            Value::Object(members) => {
                for (key, value) in members {
                    if matches!(key.as_str(), "properties" | "patternProperties") {
                        self.names += value.as_object().map_or(0, serde_json::Map::len);
                    }
                    if key == "enum" {
                        self.names += value.as_array().map_or(0, Vec::len);
                    }
                    self.add(value, depth);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item, depth)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

fn refused(message: impl Into<String>, next_step: &str) -> GenerateError {
    GenerateError::new(ErrorKind::InvalidRequest, message, next_step)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_schema_is_refused_with_the_place() {
        let check = |schema: Value, says: &str| {
            let error = AnswerSchema::new(schema).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidRequest);
            let shown = error.to_string();
            assert!(shown.contains(says), "{shown}");
            assert!(shown.ends_with('.'), "{shown}");
        };
        check(json!(true), "not a JSON object");
        check(json!({"type": "strin"}), "/type");
        check(json!({"properties": {"a": {"minLength": -1}}}), "minLength");
        check(json!({"pattern": "("}), "(");
        check(json!({"pattern": "(?=a)b"}), "(?=a)b");
        check(json!({"$ref": "https://example.com/a.json"}), "example.com");
        check(json!({"$ref": "#/$defs/nowhere"}), "nowhere");
        let long: Vec<usize> = (0..=MOST_NAMES).collect();
        check(json!({"enum": long}), "may name 1000");
        check(json!({"description": "a".repeat(LONGEST)}), "64 KiB");
        let mut deep = json!({});
        for _ in 0..DEEPEST {
            deep = json!({"items": deep});
        }
        check(deep, "64 levels");
        let error = AnswerSchema::parse("{").unwrap_err();
        assert!(error.to_string().contains("not JSON"), "{error}");
    }

    #[test]
    fn an_answer_is_valid_or_the_keyword_is_named() {
        let schema = json!({
            "type": "object",
            "properties": {"age": {"type": "integer", "maximum": 150}},
            "required": ["age"],
        });
        let schema = AnswerSchema::new(schema).unwrap();
        assert_eq!(schema.value_of(r#"{"age": 5}"#), Ok(json!({"age": 5})));
        for (answer, says) in [
            ("", "not JSON"),
            (r#"{"age": 5"#, "not JSON"),
            (r#"Sure! {"age": 5}"#, "not JSON"),
            (r#"{"age": 200}"#, "/properties/age/maximum"),
            ("{}", "/required"),
        ] {
            let why = schema.value_of(answer).unwrap_err();
            assert!(why.contains(says), "{answer}: {why}");
        }
    }
}
