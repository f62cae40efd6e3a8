//! Schemas that nobody means well with, or that nobody thought about: each is refused by a clear error, or
//! what is said is valid by it. None is a panic or goes on for ever.

use serde_json::{Map, Value, json};
use tandem::backend::local::loader::Loaded;
use tandem::inference::{AnswerSchema, FinishReason, GenerateError};

use super::grammar::{said, sampled};
use super::load_fixture;

/// What came of a schema.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// An answer that is valid by it, or the beginning of one.
    Answered,
    /// An error before the first token.
    Refused,
    /// An error later.
    Failed,
    /// What was said is not valid, which the router finds out: the grammar is not exact.
    Rejected,
}

fn assert_tells(error: &GenerateError, json: &Value) {
    let shown = error.to_string();
    assert!(shown.ends_with('.') && shown.len() < 600, "{shown} {json}");
    assert!(!shown.contains("panic"), "{shown} {json}");
    assert!(!error.next_step.is_empty(), "{shown}");
}

/// Asks `tiny` by `json` twice, for so many tokens at most.
fn fate(tiny: &mut Loaded, json: &Value, max_tokens: usize) -> Fate {
    let schema = match AnswerSchema::new(json.clone()) {
        Ok(schema) => schema,
        Err(error) => {
            assert_tells(&error, json);
            return Fate::Refused;
        }
    };
    if let Err(error) = tiny.tokenizer.grammar(&schema, &tiny.ends) {
        assert_tells(&error, json);
        assert!(!error.is_backend_fault(), "{error}");
        return Fate::Refused;
    }
    for seed in 0..2 {
        match said(tiny, json, sampled(seed), max_tokens) {
            Ok((text, FinishReason::Stop)) => {
                if let Err(why) = schema.value_of(&text) {
                    assert!(!why.is_empty(), "{text} by {json}");
                    return Fate::Rejected;
                }
            }
            Ok((text, reason)) => assert_eq!(reason, FinishReason::Length, "{text} by {json}"),
            Err(error) => {
                assert_tells(&error, json);
                return Fate::Failed;
            }
        }
    }
    Fate::Answered
}

#[test]
fn multiples_are_counted_or_refused() {
    use Fate::{Answered, Refused};
    let mut tiny = load_fixture("qwen3-tiny");
    let multiple = |number: Value| json!({"type": "number", "minimum": 0, "maximum": 20, "multipleOf": number});
    for (json, expected) in [
        (multiple(json!(0.1)), Answered),
        (multiple(json!(0.25)), Answered),
        (multiple(json!(7)), Answered),
        (multiple(json!(1e-300)), Refused),
        (multiple(json!(5e-324)), Refused),
        (multiple(json!(1e-10)), Refused),
        (multiple(json!(0.123_456_789_123)), Refused),
        // Whole numbers: what llguidance counts in 32 bits, by digits, has to fit.
        (json!({"type": "integer", "multipleOf": 1e300}), Refused),
        (json!({"type": "number", "multipleOf": 1e300}), Refused),
        (json!({"type": "integer", "multipleOf": u32::MAX}), Refused),
        (
            json!({"type": "integer", "multipleOf": 1_000_000_007}),
            Refused,
        ),
        (json!({"type": "integer", "multipleOf": 1e15}), Refused),
        (json!({"type": "integer", "multipleOf": 0}), Refused),
        (json!({"type": "number", "multipleOf": -1}), Refused),
        (
            json!({"type": "integer", "minimum": 0, "maximum": 99, "allOf": [{"multipleOf": 6}, {"multipleOf": 4}]}),
            Answered,
        ),
        (
            json!({"type": "number", "allOf": [{"multipleOf": 0.000_01}, {"multipleOf": 99_999}]}),
            Refused,
        ),
        (
            json!({"type": "integer", "allOf": [{"multipleOf": 65_536}, {"multipleOf": 65_537}]}),
            Refused,
        ),
    ] {
        assert_eq!(fate(&mut tiny, &json, 60), expected, "{json}");
    }
}

/// `depth` schemas, each inside the last.
fn nested(depth: usize, around: impl Fn(Value) -> Value) -> Value {
    (0..depth).fold(json!({"type": "null"}), |inner, _| around(inner))
}

/// Definitions `d0` to `d{count}`, each made of the next one's name.
fn chained(count: usize, each: impl Fn(Value) -> Value) -> Value {
    let mut definitions = Map::new();
    for at in 0..count {
        let next = json!({"$ref": format!("#/$defs/d{}", at + 1)});
        definitions.insert(format!("d{at}"), each(next));
    }
    definitions.insert(
        format!("d{count}"),
        json!({"type": "integer", "minimum": 0, "maximum": 9}),
    );
    json!({"$defs": definitions, "$ref": "#/$defs/d0"})
}

/// Odd by what they ask of one value.
fn shallow() -> Vec<Value> {
    let names = |count: usize| (0..count).map(|at| format!("name{at}"));
    let properties = |count: usize| -> Map<String, Value> {
        names(count)
            .map(|name| (name, json!({"type": "boolean"})))
            .collect()
    };
    vec![
        json!({}),
        json!({"type": []}),
        json!({"enum": []}),
        json!({"const": null}),
        json!({"const": "a".repeat(5000)}),
        json!({"enum": (0..900).collect::<Vec<_>>()}),
        json!({"enum": names(900).collect::<Vec<_>>()}),
        json!({"enum": [1, 1.0, "1", [1], {"a": 1}, null, true, 1e300, -0.0]}),
        // Bounds that nothing meets, that one number meets, and that no float tells apart.
        json!({"type": "integer", "minimum": 10, "maximum": 5}),
        json!({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}),
        json!({"type": "integer", "minimum": 0.1, "maximum": 0.9}),
        json!({"type": "number", "minimum": 1e300}),
        json!({"type": "number", "maximum": -1e300}),
        json!({"type": "number", "minimum": 1e-300, "maximum": 2e-300}),
        json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 5e-324}),
        json!({"type": "integer", "minimum": i64::MAX, "maximum": u64::MAX}),
        json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MIN}),
        json!({"type": "number", "minimum": 0.1, "maximum": 0.1}),
        json!({"type": "string", "minLength": 5, "maxLength": 2}),
        json!({"type": "string", "minLength": 1_000_000}),
        json!({"type": "string", "minLength": u64::MAX}),
        json!({"type": "string", "maxLength": u64::MAX}),
        json!({"type": "string", "maxLength": 0}),
        json!({"type": "string", "minLength": 3, "pattern": "^a?$"}),
        json!({"type": "array", "minItems": 4_000_000_000_u64}),
        json!({"type": "array", "items": {"type": "null"}, "minItems": 100_000}),
        json!({"type": "array", "items": false, "minItems": 1}),
        json!({"type": "array", "prefixItems": [false]}),
        json!({"type": "array", "maxItems": 0, "minItems": 0}),
        json!({"type": "object", "minProperties": 5}),
        json!({"type": "object", "additionalProperties": false, "required": ["a"]}),
        json!({"type": "object", "required": names(900).collect::<Vec<_>>()}),
        json!({"type": "object", "properties": properties(300), "additionalProperties": false}),
        json!({
            "type": "object",
            "properties": properties(300),
            "required": names(300).collect::<Vec<_>>(),
            "additionalProperties": false,
        }),
        json!({"type": "object", "properties": {"a": false}}),
        json!({"type": "object", "patternProperties": {"^a": {"type": "null"}, "b$": {"type": "null"}}}),
        json!({"type": "object", "propertyNames": {"pattern": "^[a-z]$"}}),
        json!({"type": "object", "dependentSchemas": {"a": false}}),
        json!({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"type": "null"}}),
        json!({"contains": {"type": "null"}, "type": "array"}),
        json!({"unevaluatedProperties": false, "type": "object"}),
        // Patterns that take long, are long, or are none of this kind.
        json!({"type": "string", "pattern": "^(a|a)*$"}),
        json!({"type": "string", "pattern": "^(([a-z]+)*)*x$"}),
        json!({"type": "string", "pattern": "^a{1000}$"}),
        json!({"type": "string", "pattern": "^(a{1,100}){1,100}$"}),
        json!({"type": "string", "pattern": "^(.{0,200}x){20}$"}),
        json!({"type": "string", "pattern": "\\bword\\b"}),
        json!({"type": "string", "pattern": "(?=a)b"}),
        json!({"type": "string", "pattern": "^\\p{L}{1,5}$"}),
        json!({"type": "string", "pattern": "^[\\ud800]$"}),
        json!({"type": "string", "pattern": "a".repeat(20_000)}),
        json!({"type": "string", "format": "date-time", "maxLength": 3}),
    ]
}

/// Deep, and deeper by what refers to itself.
fn deep() -> Vec<Value> {
    vec![
        nested(
            40,
            |inner| json!({"type": "array", "items": inner, "minItems": 1, "maxItems": 1}),
        ),
        nested(
            18,
            |inner| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]}),
        ),
        nested(
            30,
            |inner| json!({"anyOf": [inner, {"type": "string", "maxLength": 1}]}),
        ),
        nested(60, |inner| json!({"allOf": [inner]})),
        json!({"$ref": "#"}),
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
        json!({"type": "array", "items": {"$ref": "#"}}),
        json!({"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
        json!({"allOf": [{"$ref": "#"}, {"type": "null"}]}),
        json!({"oneOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        json!({
            "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
            "properties": {"x": {"$ref": "#/$defs/a"}},
            "type": "object",
        }),
        // Parts that each refer to the next one several times.
        chained(6, |next| json!({"allOf": [next.clone(), next]})),
        chained(24, |next| json!({"allOf": [next.clone(), next]})),
        chained(24, |next| json!({"anyOf": [next.clone(), next]})),
        chained(24, |next| json!({"oneOf": [next.clone(), next]})),
        chained(
            24,
            |next| json!({"type": "array", "prefixItems": [next.clone(), next], "minItems": 2}),
        ),
        json!({"anyOf": (0..400).map(|at| json!({"const": at})).collect::<Vec<_>>()}),
        json!({"oneOf": (0..60).map(|at| json!({"type": "integer", "minimum": at})).collect::<Vec<_>>()}),
        json!({"allOf": (0..60).map(|at| json!({"type": "integer", "minimum": at})).collect::<Vec<_>>()}),
        json!({"x-guidance": {"whitespace_pattern": "(", "lenient": true}, "type": "null"}),
        json!({"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer", "minimum": 3, "exclusiveMinimum": true}),
        json!({"$schema": "https://example.com/mine", "type": "null"}),
        json!({"$id": "https://example.com/a", "$ref": "b"}),
        json!({"$dynamicRef": "#a"}),
    ]
}

#[test]
fn odd_schemas_are_refused_or_kept() {
    let mut tiny = load_fixture("qwen3-tiny");
    let mut rejected = Vec::new();
    let (mut answered, mut refused) = (0, 0);
    for json in shallow().into_iter().chain(deep()) {
        match fate(&mut tiny, &json, 30) {
            Fate::Answered => answered += 1,
            Fate::Refused => refused += 1,
            Fate::Failed => {}
            Fate::Rejected => rejected.push(json),
        }
    }
    // Both happen, so that neither is what always happens.
    assert!(answered >= 20 && refused >= 20, "{answered}, {refused}");
    assert!(rejected.len() <= 2, "{rejected:#?}");
    // The model is none the worse for all of it.
    let json = json!({"type": "boolean"});
    assert_eq!(fate(&mut tiny, &json, 30), Fate::Answered);
}
