//! Answers that are valid by a schema, whatever the model would rather say.

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use tandem::backend::local::ModelSource;
use tandem::backend::local::continuation::Pace;
use tandem::backend::local::decode::{DecodeRequest, Decoding, Step};
use tandem::backend::local::guide::Guide;
use tandem::backend::local::loader::{Loaded, load};
use tandem::backend::local::lookup::Lookup;
use tandem::backend::local::sampler::Scores;
use tandem::config::ComputeDevice;
use tandem::inference::{
    AnswerSchema, Backend as _, ErrorKind, FinishReason, GenerateError, GenerateRequest, Sampling,
    Task,
};
use tandem::prompt::Vocabulary as _;
use tokio_util::sync::CancellationToken;

use super::backend::{chat, open};
use super::load_fixture;

fn schema(json: Value) -> AnswerSchema {
    AnswerSchema::new(json).unwrap()
}

/// What `loaded` says, held to `json`.
pub fn said(
    loaded: &mut Loaded,
    json: &Value,
    sampling: Sampling,
    max_tokens: usize,
) -> Result<(String, FinishReason), GenerateError> {
    let ends = loaded.ends.clone();
    let grammar = loaded.tokenizer.grammar(&schema(json.clone()), &ends)?;
    let prompt = loaded.tokenizer.encode("let person = ").unwrap();
    let request = DecodeRequest {
        sampling,
        max_tokens,
        ends,
        stop: Vec::new(),
        guide: Guide::by(grammar),
        lookup: Some(Lookup::new([], &prompt)),
        prompt,
    };
    let model = loaded.model.as_mut();
    let sequence = model.sequence().unwrap();
    let mut decoding = Decoding::new(request, model, sequence, Pace::default());
    let (mut scores, mut text) = (Scores::default(), String::new());
    loop {
        match decoding.step(model, &loaded.tokenizer, &mut scores)? {
            Step::Text(more) => text.push_str(&more),
            Step::Finished(more, reason) => return Ok((text + &more, reason)),
        }
    }
}

pub fn sampled(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.5,
        seed,
        ..Sampling::GREEDY
    }
}

/// Schemas whose answers have an end: no string, list or number is without one.
fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        (0..8_u32).prop_map(|most| json!({"type": "string", "maxLength": most})),
        "[a-c]{1,3}(é|\"|\\\\)?".prop_map(|text| json!({"const": text})),
        (-30..30_i32, 0..2000_i32).prop_map(
            |(least, more)| json!({"type": "integer", "minimum": least, "maximum": least + more})
        ),
        Just(json!({"type": ["boolean", "null"]})),
        Just(json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"})),
        Just(json!({"type": "string", "format": "date"})),
        Just(json!({"enum": ["red", "green", 5, null, [1, {"a": true}]]})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0..3_u32, 0..2_u32).prop_map(|(items, least, more)| {
                json!({"type": "array", "items": items, "minItems": least, "maxItems": least + more})
            }),
            proptest::collection::vec((inner.clone(), any::<bool>()), 0..4).prop_map(|members| {
                let names = ["name", "ä ö", "b\"c", "d"];
                let required: Vec<&str> = names
                    .into_iter()
                    .zip(&members)
                    .filter_map(|(name, (_, required))| required.then_some(name))
                    .collect();
                let members = names.into_iter().zip(members);
                let properties: Map<String, Value> = members
                    .map(|(name, (schema, _))| (name.to_owned(), schema))
                    .collect();
                json!({
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                })
            }),
            (inner.clone(), inner).prop_map(|(a, b)| json!({"anyOf": [a, b]})),
        ]
    })
}

#[test]
fn whatever_a_model_says_is_valid_by_the_schema() {
    let mini = load(&ModelSource::embedded(), 2048, ComputeDevice::Cpu).unwrap();
    let mini = RefCell::new(mini);
    let finished = RefCell::new(0);
    let config = Config::with_cases(24);
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&(schemas(), any::<u64>()), |(json, seed)| {
        for sampling in [Sampling::GREEDY, sampled(seed)] {
            let mini = &mut *mini.borrow_mut();
            let (text, reason) = said(mini, &json, sampling, 1500).unwrap();
            prop_assert_eq!(reason, FinishReason::Stop, "{}", &text);
            let value: Value = serde_json::from_str(&text)
                .map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
            prop_assert!(jsonschema::is_valid(&json, &value), "{} by {}", text, json);
            *finished.borrow_mut() += 1;
        }
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(finished.into_inner(), 48);
}

#[test]
fn members_come_in_the_order_of_the_schema_and_the_answer_ends_itself() {
    let mut mini = load(&ModelSource::embedded(), 512, ComputeDevice::Cpu).unwrap();
    let json = json!({
        "type": "object",
        "properties": {"zebra": {"const": 1}, "ant": {"const": 2}, "mule": {"const": "x"}},
        "required": ["ant", "mule", "zebra"],
        "additionalProperties": false,
    });
    let mut seen = BTreeSet::new();
    for seed in 0..4 {
        let (text, reason) = said(&mut mini, &json, sampled(seed), 200).unwrap();
        assert_eq!(reason, FinishReason::Stop);
        let packed: String = text.split_whitespace().collect();
        assert_eq!(packed, r#"{"zebra":1,"ant":2,"mule":"x"}"#);
        seen.insert(text);
    }
    // A recursive schema is one, too.
    let tree = json!({
        "$defs": {"tree": {
            "type": "object",
            "properties": {"left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree"}]}},
            "required": ["left"],
            "additionalProperties": false,
        }},
        "$ref": "#/$defs/tree",
    });
    let (text, reason) = said(&mut mini, &tree, sampled(7), 400).unwrap();
    if reason == FinishReason::Stop {
        assert!(jsonschema::is_valid(
            &tree,
            &serde_json::from_str(&text).unwrap()
        ));
    }
    assert!(text.starts_with('{'), "{text}");
}

#[test]
fn what_no_grammar_can_hold_is_refused_by_its_keyword() {
    let loaded = load_fixture("qwen3-tiny");
    let check = |json: Value, says: &str| {
        let error = loaded
            .tokenizer
            .grammar(&schema(json), &loaded.ends)
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        let shown = error.to_string();
        assert!(shown.contains(says), "{shown}");
        assert!(shown.ends_with('.') && shown.len() < 500, "{shown}");
        assert!(!error.is_backend_fault() && error.may_fall_back());
    };
    check(
        json!({"type": "array", "uniqueItems": true}),
        "`uniqueItems`",
    );
    check(json!({"not": {"type": "string"}}), "`not`");
    check(json!({"type": "string", "format": "poem"}), "poem");
    check(
        json!({"properties": {"a": false}, "required": ["a"], "type": "object"}),
        "nsatisfiable",
    );
    // Refers to nothing but itself.
    check(
        json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        "",
    );
    // More work than it may be.
    check(json!({"type": "integer", "multipleOf": 1_000_000_007}), "");
}

fn asked(json: Value, max_tokens: usize) -> GenerateRequest {
    let mut request = chat("?");
    if let Task::Chat(task) = &mut request.task {
        task.system = None;
        task.schema = Some(schema(json));
    }
    request.max_tokens = max_tokens;
    request.sampling = sampled(3);
    request
}

#[tokio::test]
async fn a_conversation_is_answered_by_the_schema() {
    let backend = open("qwen3-tiny.gguf");
    let answer = |json: Value, max_tokens: usize| {
        let request = asked(json, max_tokens);
        backend
            .generate(request, CancellationToken::new())
            .collect()
    };
    let choice = json!({"enum": ["yes", "no"]});
    let generation = answer(choice.clone(), 32).await.unwrap();
    assert_eq!(generation.finish.reason, FinishReason::Stop);
    assert!(
        [r#""yes""#, r#""no""#].contains(&&*generation.text),
        "{generation:?}"
    );
    // The same with two tokens of it: the end says that it is none.
    let generation = answer(json!({"const": "a long way to go"}), 2)
        .await
        .unwrap();
    assert_eq!(generation.finish.reason, FinishReason::Length);
    // And the model is none the worse for a schema that it cannot be held to.
    let error = answer(json!({"not": {}}), 32).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(answer(choice, 32).await.is_ok());
}
