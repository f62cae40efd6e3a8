//! The reference runtime against ANEMLL's own model, call by call, and against its own rules.

use std::fs;
use std::path::Path;

use half::f16;
use serde_json::Value;
use tandem::backend::local::anemll::contract::{
    BufferId, CallId, CallPlan, ComponentRuntime, ComponentSpec, Element, Role, RuntimeError, Shape,
};
use tandem::backend::local::anemll::reference::{ReferenceRuntime, weights_beside};
use tandem::backend::local::anemll::trace::Traced;

use super::export::{CACHE, Driver, Export, plan_of};
use super::{fixture, json, tokens};

fn load(export: &Export) -> ReferenceRuntime {
    ReferenceRuntime::load(&export.components(), &fixture("anemll-tiny/hf")).unwrap()
}

fn driver(export: &Export) -> Driver<ReferenceRuntime> {
    Driver::new(load(export), export)
}

fn close(got: &Value, expected: &Value, tolerance: f64, what: &str) {
    if let (Some(got), Some(expected)) = (got.as_f64(), expected.as_f64()) {
        let off = (got - expected).abs();
        assert!(off <= tolerance, "{what}: {got}, expected {expected}");
    } else {
        assert_eq!(got, expected, "{what}");
    }
}

/// Holds one tensor of a call to the trace. Integers, masks and embeddings are exact up to the
/// digits that the trace has; the tolerances of the rest are those of the fixture's README.
fn hold_tensor(got: &Value, expected: &Value, exact: bool, what: &str) {
    for field in ["shape", "dtype", "neg_inf"] {
        assert_eq!(got.get(field), expected.get(field), "{what}: {field}");
    }
    let abs_sum = expected["abs_sum"].as_f64().unwrap_or_default();
    let (first, sum, abs) = if exact {
        (1e-6, 1e-5, 1e-5)
    } else {
        (0.1, 0.005 * abs_sum, 0.01 * abs_sum)
    };
    close(&got["sum"], &expected["sum"], sum, &format!("{what}: sum"));
    close(
        &got["abs_sum"],
        &expected["abs_sum"],
        abs,
        &format!("{what}: abs_sum"),
    );
    let (got, expected) = (got["first4"].as_array(), expected["first4"].as_array());
    let (got, expected) = (got.unwrap(), expected.unwrap());
    assert_eq!(got.len(), expected.len(), "{what}: first4");
    for (got, expected) in got.iter().zip(expected) {
        close(got, expected, first, &format!("{what}: first4"));
    }
}

/// The names of an object, in alphabetical order.
fn names(value: &Value) -> Vec<&String> {
    let mut names: Vec<&String> = value.as_object().unwrap().keys().collect();
    names.sort();
    names
}

/// Holds a whole call to the trace.
pub fn hold_call(got: &Value, expected: &Value) {
    let what = format!("call {}, {}", expected["i"], expected["component"]);
    for field in ["i", "component", "function", "argmax"] {
        assert_eq!(got.get(field), expected.get(field), "{what}: {field}");
    }
    let embeddings = expected["component"] == "embeddings";
    for side in ["inputs", "outputs"] {
        assert_eq!(names(&got[side]), names(&expected[side]), "{what}: {side}");
        for (name, expected) in expected[side].as_object().unwrap() {
            let from_embeddings = embeddings || (side == "inputs" && expected["shape"][1] == 64);
            let exact = from_embeddings || expected.get("abs_sum").is_none();
            let what = format!("{what}, {name}");
            hold_tensor(&got[side][name], expected, exact, &what);
        }
    }
    assert_eq!(
        got.get("state_after").is_some(),
        expected.get("state_after").is_some()
    );
    if let Some(states) = expected.get("state_after") {
        let (got, expected) = (&got["state_after"][CACHE], &states[CACHE]);
        assert_eq!(got["shape"], expected["shape"], "{what}");
        let (got, expected) = (&got["abs_sum_by_row"], &expected["abs_sum_by_row"]);
        let rows = expected.as_array().unwrap();
        assert_eq!(got.as_array().unwrap().len(), rows.len(), "{what}");
        for (row, expected) in rows.iter().enumerate() {
            let tolerance = 0.002 * expected.as_f64().unwrap();
            close(
                &got[row],
                expected,
                tolerance,
                &format!("{what}: row {row}"),
            );
        }
    }
    if let Some(top) = expected.get("top5").and_then(Value::as_array) {
        assert_eq!(got["top5"].as_array().unwrap().len(), top.len(), "{what}");
        for (index, expected) in top.iter().enumerate() {
            let got = &got["top5"][index]["logit"];
            close(got, &expected["logit"], 0.15, &format!("{what}: top5"));
        }
    }
}

#[test]
fn every_call_of_anemlls_own_model_is_repeated() {
    let export = Export::tiny();
    let trace = json("anemll-tiny/trace.json");
    let (prompt, decoded) = (tokens(&trace["input_ids"]), tokens(&trace["decoded"]));
    let (traced, log) = Traced::new(Box::new(load(&export)));
    let mut driver = Driver::new(traced, &export);
    let state = driver.runtime.make_state().unwrap();
    assert_eq!(driver.greedy(&prompt, decoded.len(), state), decoded);

    let calls = serde_json::to_value(log.take()).unwrap();
    let (got, expected) = (
        calls.as_array().unwrap(),
        trace["calls"].as_array().unwrap(),
    );
    assert_eq!(got.len(), 19);
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        hold_call(got, expected);
    }
    assert!(log.take().is_empty(), "a record is given once");
}

#[test]
fn however_the_model_is_cut_it_gives_the_golden_tokens() {
    let golden = json("anemll-tiny/golden.json");
    let tiny = Export::tiny();
    let cuts = [
        Export {
            chunks: 2,
            ..tiny.clone()
        },
        Export {
            chunks: 3,
            batch: 32,
            ..tiny.clone()
        },
        Export {
            parts: vec![106, 106, 106, 105, 105],
            ..tiny.clone()
        },
        Export {
            parts: vec![528],
            context: 256,
            batch: 48,
            ..tiny.clone()
        },
        Export {
            argmax: true,
            ..tiny.clone()
        },
        Export {
            argmax: true,
            parts: vec![76, 76, 76, 75, 75, 75, 75],
            ..tiny.clone()
        },
        Export {
            monolithic: true,
            ..tiny.clone()
        },
        Export {
            monolithic: true,
            argmax: true,
            parts: vec![66; 8],
            ..tiny
        },
    ];
    let mut checked = 0;
    for export in &cuts {
        let mut driver = driver(export);
        let state = driver.runtime.make_state().unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let (prompt, expected) = (tokens(&case["input_ids"]), tokens(&case["greedy"]));
            if prompt.len() > 100 {
                continue;
            }
            let expected = &expected[..12];
            assert_eq!(
                driver.greedy(&prompt, 12, state),
                expected,
                "{export:?}, {}",
                case["name"]
            );
            checked += 1;
        }
    }
    assert!(checked >= 6 * cuts.len(), "{checked}");
}

#[test]
fn models_of_other_sizes_and_of_qwen2_give_their_golden_tokens() {
    let qwen3 = Export {
        layers: 3,
        kv_heads: 2,
        head_dim: 24,
        hidden: 64,
        context: 200,
        batch: 24,
        chunks: 2,
        parts: vec![55, 55, 55, 55, 55, 55, 54],
        argmax: false,
        monolithic: false,
    };
    // Its head is not its embedding, and its queries, keys and values have biases.
    let qwen2 = Export {
        layers: 2,
        head_dim: 16,
        hidden: 96,
        parts: vec![96; 4],
        ..qwen3.clone()
    };
    for (name, export) in [("qwen3-tiny", qwen3), ("qwen2-tiny", qwen2)] {
        let runtime = ReferenceRuntime::load(&export.components(), &fixture(name)).unwrap();
        let mut driver = Driver::new(runtime, &export);
        let golden = json(&format!("{name}.golden.json"));
        let cases = golden["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let (prompt, expected) = (tokens(&case["input_ids"]), tokens(&case["greedy"]));
            let state = driver.runtime.make_state().unwrap();
            let got = driver.greedy(&prompt, expected.len(), state);
            assert_eq!(got, expected, "{name}, {} tokens", prompt.len());
            driver.runtime.drop_state(state);
        }
    }
}

#[test]
fn what_the_mask_hides_changes_nothing_and_states_do_not_mix() {
    let mut driver = driver(&Export::tiny());
    let prompt: Vec<u32> = (0..100).map(|i| (i * 37 + 5) % 500).collect();
    let clean = driver.runtime.make_state().unwrap();
    driver.prompt(&prompt, clean);
    let expected = driver.logits();

    let crowded = driver.runtime.make_state().unwrap();
    for batch in 0..8 {
        let noise: Vec<u32> = (0..64).map(|i| (i * 91 + batch * 17 + 1) % 528).collect();
        driver
            .prefill(&noise, batch as usize * 64, crowded)
            .unwrap();
    }
    let rows = |driver: &Driver<ReferenceRuntime>, state| driver.runtime.state_rows(state).unwrap();
    let (before, full) = (rows(&driver, clean), rows(&driver, crowded));
    assert!(
        full[0]
            .1
            .iter()
            .zip(&before[0].1)
            .all(|(full, part)| full > part)
    );
    driver.prompt(&prompt, crowded);
    assert_eq!(driver.logits(), expected);
    assert_eq!(
        rows(&driver, clean),
        before,
        "another state's calls leave this one alone"
    );

    let last = prompt.len() - 1;
    driver.infer(prompt[last], last, clean).unwrap();
    assert_eq!(driver.logits(), expected, "the same call gives the same");
}

#[test]
fn position_ids_are_dead_in_infer_and_alive_in_prefill() {
    let export = Export::tiny();
    let mut driver = driver(&export);
    let plan = plan_of(&export);
    let positions = |function: &str| -> (CallId, BufferId) {
        let found = plan.calls.iter().position(|call| call.function == function);
        let call = found.unwrap();
        let inputs = &plan.calls[call].inputs;
        let input = inputs.iter().find(|(name, _)| name == "position_ids");
        (CallId(call), input.unwrap().1)
    };
    let state = driver.runtime.make_state().unwrap();
    driver.prefill(&[1, 2, 3], 0, state).unwrap();
    driver.infer(4, 3, state).unwrap();
    let hidden = driver.floats("output_hidden_states");
    let (call, buffer) = positions("infer");
    driver.runtime.write_i32(buffer, 0, &[77]);
    driver.runtime.predict(call, Some(state)).unwrap();
    assert_eq!(driver.floats("output_hidden_states"), hidden);

    driver.prefill(&[1, 2, 3], 0, state).unwrap();
    let rows = driver.runtime.state_rows(state);
    let (call, buffer) = positions("prefill");
    driver.runtime.write_i32(buffer, 1, &[77]);
    driver.runtime.predict(call, Some(state)).unwrap();
    assert_ne!(driver.runtime.state_rows(state), rows);
}

#[test]
fn a_prediction_that_core_ml_would_refuse_is_refused() {
    let mut driver = driver(&Export::tiny());
    let state = driver.runtime.make_state().unwrap();
    let check = |got: Result<(), RuntimeError>, expected: &str| {
        let error = got.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        driver.infer(528, 0, state),
        "embeddings, function main, failed: the token 528",
    );
    check(
        driver.infer(u32::MAX, 0, state),
        "the token -1 is not in 0..528",
    );
    check(
        driver.infer(1, 512, state),
        "current_pos 512 and 1 tokens leave the cache of 512",
    );
    check(
        driver.prefill(&[1], 449, state),
        "current_pos 449 and 64 tokens leave the cache",
    );
    check(
        driver.runtime.predict(CallId(1), None),
        "takes a state and was given none",
    );
    check(
        driver.runtime.predict(CallId(0), Some(state)),
        "takes no state",
    );
    check(driver.runtime.predict(CallId(99), None), "no call 99");
    driver.runtime.drop_state(state);
    check(driver.infer(1, 0, state), "does not exist");
    let another = driver.runtime.make_state().unwrap();
    assert_ne!(
        another, state,
        "a dropped state's number is not given again"
    );
    assert_eq!(driver.runtime.state_bytes(), 6 * 2 * 512 * 32 * 2);
}

#[test]
fn a_plan_that_core_ml_would_refuse_is_refused() {
    fn check(change: impl FnOnce(&mut CallPlan), expected: &str) {
        let export = Export::tiny();
        let mut plan = plan_of(&export);
        change(&mut plan);
        let error = load(&export).prepare(&plan).unwrap_err();
        assert!(matches!(error, RuntimeError::Mismatch { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let buffer = |plan: &CallPlan, call: usize, input: usize| plan.calls[call].inputs[input].1.0;
    check(
        |plan| plan.calls[1].inputs.truncate(3),
        "current_pos is missing",
    );
    check(
        |plan| plan.calls[1].inputs[0].0 = "hidden".to_owned(),
        "hidden is not declared",
    );
    check(
        |plan| plan.calls[2].outputs[3].0 = "logits17".to_owned(),
        "logits17 is not declared",
    );
    check(
        |plan| plan.calls[1].function = "main".to_owned(),
        "no such function",
    );
    check(|plan| plan.calls[1].stateful = false, "called without one");
    check(
        |plan| {
            let mask = buffer(plan, 1, 2);
            plan.buffers[mask].shape = vec![1, 1, 64, 512];
        },
        "causal_mask has the shape [1, 1, 64, 512]",
    );
    check(
        |plan| {
            let positions = buffer(plan, 1, 1);
            plan.buffers[positions].element = Element::Float16;
        },
        "position_ids is Float16, declared is Int32",
    );
    // What comes out of the embeddings is not declared, and follows from what goes in.
    check(
        |plan| {
            let ids = buffer(plan, 0, 0);
            plan.buffers[ids].shape = vec![1, 64];
        },
        "for 64 tokens it must be [1, 64, 96]",
    );
}

/// The message about components that the weights do not fit.
fn refusal(change: impl FnOnce(&mut Vec<ComponentSpec>), weights: &Path) -> String {
    let mut components = Export::tiny().components();
    change(&mut components);
    let refused = ReferenceRuntime::load(&components, weights);
    refused.err().expect("they do not fit").to_string()
}

#[test]
fn weights_of_another_model_are_refused_with_every_contradiction() {
    let tiny = fixture("anemll-tiny/hf");
    let check = |change: &dyn Fn(&mut Vec<ComponentSpec>), expected: &[&str]| {
        let message = refusal(|components| change(components), &tiny);
        for expected in expected {
            assert!(message.contains(expected), "{expected}: {message}");
        }
        assert!(message.contains("--weights"), "{message}");
    };
    let other = Export {
        layers: 4,
        kv_heads: 1,
        head_dim: 16,
        hidden: 80,
        parts: vec![33; 15],
        ..Export::tiny()
    };
    check(
        &|components| *components = other.components(),
        &[
            "cache has 8 rows, the weights' 3 layers need 6",
            "cache has 1 key-value heads, the weights have 2",
            "cache has 16 as head_dim, the weights have 32",
            "hidden size is 80, the weights' is 96",
            "lm_head gives 495 logits, the weights' vocabulary is 528",
        ],
    );
    check(
        &|components| {
            components[1].functions[1].outputs[0].shape = Shape::Fixed(vec![1, 64, 96]);
            components[1].functions[0].name = "generate".to_owned();
        },
        &[
            "ffn_chunk_01of01, function prefill: the output output_hidden_states is Float16",
            "ffn_chunk_01of01 has no function generate",
        ],
    );
    check(
        &|components| {
            components[1].functions[0].inputs[2].name = "update_mask".to_owned();
            components[1].functions[1].states[0].shape[2] = 1 << 40;
        },
        &[
            "the components declare different states",
            "the input update_mask is not of this format",
            "the input causal_mask is missing",
        ],
    );
    check(
        &|components| components[1].role = Role::Ffn { chunk: 3, of: 2 },
        &["ffn_chunk_03of02 has no function infer"],
    );
    check(
        &|components| components[1].role = Role::Ffn { chunk: 4, of: 4 },
        &["the bundle has 4 chunks, the weights have 3 layers"],
    );
}

#[test]
fn missing_weights_are_named_with_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let message = refusal(|_| {}, folder.path());
    let place = folder.path().display().to_string();
    for expected in [&*place, "config.json is missing", "--weights"] {
        assert!(message.contains(expected), "{message}");
    }
    fs::copy(
        fixture("anemll-tiny/hf/config.json"),
        folder.path().join("config.json"),
    )
    .unwrap();
    let message = refusal(|_| {}, folder.path());
    assert!(message.contains("model.safetensors"), "{message}");

    let beside = weights_beside(&folder.path().join("anemll"));
    assert_eq!(beside, folder.path().join("hf"));
}

#[test]
fn numbers_that_json_lacks_are_written_as_text() {
    let export = Export::tiny();
    let (traced, log) = Traced::new(Box::new(load(&export)));
    let mut driver = Driver::new(traced, &export);
    let state = driver.runtime.make_state().unwrap();
    let plan = plan_of(&export);
    let mask = plan.calls[1].inputs[2].1;
    driver.infer(1, 0, state).unwrap();
    driver
        .runtime
        .write_f16(mask, 0, &vec![f16::NEG_INFINITY; 512]);
    driver.runtime.predict(CallId(1), Some(state)).unwrap();
    driver.runtime.predict(CallId(9), None).unwrap_err();
    driver.infer(600, 1, state).unwrap_err();
    let calls = serde_json::to_value(log.take()).unwrap();
    assert_eq!(calls.as_array().unwrap().len(), 5);
    // With everything masked, attention is over nothing: Core ML gives no number either.
    let blind = &calls[3];
    assert_eq!(blind["inputs"]["causal_mask"]["neg_inf"], 512);
    assert_eq!(blind["inputs"]["causal_mask"]["first4"][0], "-inf");
    assert_eq!(blind["outputs"]["output_hidden_states"]["sum"], "nan");
    let failed = &calls[4];
    assert!(failed["error"].as_str().unwrap().contains("the token 600"));
    assert_eq!(failed["outputs"], serde_json::json!({}));
}
