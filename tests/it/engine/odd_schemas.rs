//! Schemas that nobody means well with, or that nobody thought about: each is refused by a clear error, or
//! what is said is valid by it. None is a panic or goes on for ever.

use serde_json::{Value, json};
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
