//! Exports of other kinds: other sizes and chunks, monolithic, without batches, with argmax inside.

use std::fs;

use serde_json::{Value, json};
use tandem::backend::local::anemll::bundle::{AnemllBundle, BundleError, LogitsOutput};
use tandem::backend::local::anemll::contract::{ComponentSpec, Role};
use tandem::backend::local::anemll::reference::ReferenceRuntime;

use super::super::export::{Driver, Export};
use super::super::fixture;
use super::draft::{Draft, EMBEDDINGS, FFN, LM_HEAD};

/// Sizes of anemll-odd's parts.
fn odd_parts() -> Vec<usize> {
    (0..11).map(|part| 58 + usize::from(part < 5)).collect()
}

#[test]
fn a_bundle_of_other_sizes_says_them() {
    let bundle = AnemllBundle::open(&fixture("anemll-odd/anemll")).unwrap();
    assert_eq!((bundle.context_length, bundle.batch_size), (320, Some(48)));
    assert_eq!((bundle.hidden, bundle.vocabulary), (Some(72), 643));
    assert_eq!(
        (bundle.layers, bundle.kv_heads, bundle.head_dim),
        (5, 3, 20)
    );
    assert_eq!((bundle.num_chunks, bundle.tokenizer_tokens), (2, 631));
    assert_eq!(bundle.eos.iter().copied().collect::<Vec<_>>(), [628, 630]);
    // In the order of numbers, though declared in that of names.
    let LogitsOutput::Parts(parts) = &bundle.logits else {
        panic!("logits come in parts");
    };
    let numbered: Vec<String> = (1..=11).map(|number| format!("logits{number}")).collect();
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, numbered);
    assert_eq!(bundle.logits.sizes().collect::<Vec<_>>(), odd_parts());
    assert_eq!(bundle.sampling.unwrap().top_k, Some(20));
    let roles: Vec<Role> = bundle
        .components
        .iter()
        .map(|part| part.spec.role)
        .collect();
    let chunk = |chunk| Role::Ffn { chunk, of: 2 };
    assert_eq!(roles, [Role::Embeddings, chunk(1), chunk(2), Role::LmHead]);
    assert_eq!(bundle.stateful().count(), 2);
    assert!(
        bundle
            .stateful()
            .all(|part| part.infer == "infer" && part.prefill.is_some())
    );
}

/// The fixture is sound: what it declares, run by the reference runtime, gives what transformers gave.
#[test]
fn the_second_fixture_gives_its_golden_tokens() {
    let bundle = AnemllBundle::open(&fixture("anemll-odd/anemll")).unwrap();
    let specs: Vec<ComponentSpec> = bundle
        .components
        .iter()
        .map(|part| part.spec.clone())
        .collect();
    let export = Export {
        layers: 5,
        kv_heads: 3,
        head_dim: 20,
        hidden: 72,
        context: 320,
        batch: 48,
        chunks: 2,
        parts: odd_parts(),
        argmax: false,
        monolithic: false,
    };
    let runtime = ReferenceRuntime::load(&specs, &fixture("anemll-odd/hf")).unwrap();
    let mut driver = Driver::new(runtime, &export);
    let text = fs::read(fixture("anemll-odd/golden.json")).unwrap();
    let golden: Value = serde_json::from_slice(&text).unwrap();
    let tokens = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let mut seen = 0;
    for list in ["cases", "eos_cases"] {
        for case in golden[list].as_array().unwrap() {
            let prompt = tokens(&case["input_ids"]);
            let mut expected = tokens(&case["greedy"]);
            // The driver knows nothing of the window's shift.
            let steps = case["shift_before_step"].as_u64().unwrap_or(u64::MAX) as usize;
            expected.truncate(steps);
            let state = tandem::backend::local::anemll::contract::ComponentRuntime::make_state(
                &mut driver.runtime,
            );
            let given = driver.greedy(&prompt, expected.len(), state.unwrap());
            assert_eq!(given, expected, "{}", case["name"]);
            seen += 1;
        }
    }
    assert_eq!(seen, 8);
}

/// Turns the tiny bundle into one of a single component, as ANEMLL's monolithic converter makes it.
fn monolithic() -> Draft {
    let draft = Draft::tiny();
    draft.meta("  parameters:", "  model_type: monolithic\n  parameters:");
    draft.meta(
        "    ffn: qwen_FFN_PF_lut6.mlmodelc",
        "    monolithic_model: qwen_monolithic_full_lut6.mlmodelc",
    );
    draft.meta("    num_chunks: 1\n", "");
    let read = |component: &str| -> Value {
        let text = fs::read(draft.file(&format!("{component}/metadata.json"))).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()[0].clone()
    };
    let (head, embeddings) = (read(LM_HEAD), read(EMBEDDINGS));
    draft.model(FFN, |model| {
        for (index, tokens) in [(0, 1), (1, 64)] {
            let function = &mut model["functions"][index];
            let mut ids = embeddings["inputSchema"][0].clone();
            ids["shape"] = json!(format!("[1, {tokens}]"));
            ids.as_object_mut().unwrap().remove("enumeratedShapes");
            function["inputSchema"][0] = ids;
            function["outputSchema"] = head["outputSchema"].clone();
        }
    });
    fs::rename(
        draft.file(FFN),
        draft.file("qwen_monolithic_full_lut6.mlmodelc"),
    )
    .unwrap();
    fs::remove_dir_all(draft.file(EMBEDDINGS)).unwrap();
    fs::remove_dir_all(draft.file(LM_HEAD)).unwrap();
    draft
}

#[test]
fn a_monolithic_export_is_one_component() {
    let draft = monolithic();
    let bundle = draft.open().unwrap();
    assert_eq!((bundle.num_chunks, bundle.components.len()), (1, 1));
    assert_eq!(bundle.components[0].spec.role, Role::Monolithic);
    assert_eq!((bundle.hidden, bundle.vocabulary), (None, 528));
    assert_eq!((bundle.batch_size, bundle.logits.parts()), (Some(64), 16));
    assert_eq!(bundle.prefill_function(), Some("prefill"));

    // Named by prefix and lut where meta.yaml leaves the name out.
    draft.meta(
        "    monolithic_model: qwen_monolithic_full_lut6.mlmodelc",
        "    lut_bits: 6",
    );
    assert_eq!(draft.open().unwrap(), bundle);

    // For a context of its own.
    draft.model("qwen_monolithic_full_lut6.mlmodelc", |model| {
        model["functions"][0]["name"] = json!("infer_ctx512");
        model["functions"][1]["name"] = json!("prefill_ctx512");
    });
    let bundle = draft.open().unwrap();
    assert_eq!(bundle.infer_function(), Some("infer_ctx512"));
    assert_eq!(bundle.prefill_function(), Some("prefill_ctx512"));
}

#[test]
fn an_export_for_several_contexts_is_called_for_its_own() {
    let draft = Draft::tiny();
    draft.model(FFN, |model| {
        let functions = model["functions"].as_array_mut().unwrap();
        functions[0]["name"] = json!("infer_ctx512");
        // Another context, in another size: not called, and so not checked.
        let mut other = functions[0].clone();
        other["name"] = json!("infer_ctx128");
        other["inputSchema"][2]["shape"] = json!("[1, 1, 1, 128]");
        other["inputSchema"][3]["dataType"] = json!("Something");
        functions.push(other);
    });
    let bundle = draft.open().unwrap();
    assert_eq!(bundle.infer_function(), Some("infer_ctx512"));
    let ffn = bundle.component(Role::Ffn { chunk: 1, of: 1 }).unwrap();
    assert!(
        ffn.spec.function("infer_ctx128").is_none(),
        "what makes no sense is not passed on"
    );
    draft.meta("context_length: 512", "context_length: 256");
    let error = draft.open().unwrap_err().to_string();
    assert!(
        error.contains("the function infer is missing; it has infer_ctx512, prefill"),
        "{error}"
    );
}

#[test]
fn an_export_without_batches_takes_one_token_after_another() {
    let draft = Draft::tiny();
    draft.meta("    batch_size: 64\n", "");
    let with_prefill = draft.open().unwrap();
    assert_eq!(with_prefill.batch_size, Some(64), "told by prefill itself");
    draft.model(FFN, |model| {
        model.as_object_mut().unwrap().remove("functions");
    });
    let bundle = draft.open().unwrap();
    assert_eq!((bundle.batch_size, bundle.prefill_function()), (None, None));
    assert_eq!(bundle.infer_function(), Some("main"));
    assert!(bundle.components.iter().all(|part| part.prefill.is_none()));
}

/// The tiny bundle with a head that gives the best token of each of `parts` parts.
fn argmax(parts: usize, keys: &str) -> Result<AnemllBundle, BundleError> {
    let draft = Draft::tiny();
    draft.meta(
        "    split_lm_head: 16\n",
        &format!("    split_lm_head: {parts}\n{keys}"),
    );
    draft.model(LM_HEAD, |model| {
        let output = |name: &str, of: &str| {
            json!({"name": name, "dataType": of, "shape": format!("[{parts}]"), "isOptional": "0"})
        };
        model["outputSchema"] = json!([output("argmax_idx", "Int32"), output("argmax_val", "Float16")]);
    });
    draft.open()
}

#[test]
fn an_export_with_argmax_inside_tells_the_sizes_of_its_parts() {
    let bundle = argmax(16, "    argmax_in_model: true\n    vocab_size: 528\n").unwrap();
    assert!(bundle.argmax_in_model());
    assert_eq!(bundle.logits.sizes().collect::<Vec<_>>(), [33; 16]);
    assert_eq!(bundle.vocabulary, 528);

    // The first parts are one larger.
    let uneven = argmax(5, "    vocab_size: 528\n").unwrap();
    assert_eq!(
        uneven.logits.sizes().collect::<Vec<_>>(),
        [106, 106, 106, 105, 105]
    );

    // As listed.
    let listed = argmax(2, "    lm_head_chunk_sizes: [500, 28]\n").unwrap();
    assert_eq!(listed.logits.sizes().collect::<Vec<_>>(), [500, 28]);

    for (parts, keys, fact) in [
        (
            16,
            "    argmax_in_model: false\n    vocab_size: 528\n",
            "meta.yaml says argmax_in_model: false",
        ),
        (
            16,
            "    argmax_in_model: true\n",
            "nothing tells their sizes",
        ),
        (
            3,
            "    lm_head_chunk_sizes: [500, 28]\n",
            "nothing tells their sizes",
        ),
        (
            2,
            "    lm_head_chunk_sizes: [528, 0]\n",
            "its parts have [528, 0] logits",
        ),
        (
            2,
            "    lm_head_chunk_sizes: [18446744073709551615, 1]\n",
            "its parts have",
        ),
        (
            2,
            "    vocab_size: 500\n",
            "528 tokens, but the model has 500 logits",
        ),
    ] {
        let error = argmax(parts, keys).unwrap_err().to_string();
        assert!(error.contains(fact), "{error}");
    }
}

#[test]
fn names_that_meta_yaml_leaves_out_are_put_together() {
    let draft = Draft::tiny();
    let whole = draft.open().unwrap();
    draft.meta("    embeddings: qwen_embeddings.mlmodelc\n", "");
    draft.meta("    ffn: qwen_FFN_PF_lut6.mlmodelc\n", "");
    draft.meta(
        "    lm_head: qwen_lm_head_lut6.mlmodelc\n",
        "    lm_head: qwen_lm_head_lut6\n",
    );
    draft.meta("    num_chunks: 1\n", "");
    assert_eq!(draft.open().unwrap(), whole);
}

#[test]
fn chat_templates_are_found_wherever_they_are() {
    let draft = Draft::tiny();
    let template = |draft: &Draft| draft.open().unwrap().chat_template;
    draft.json("tokenizer_config.json", |config| {
        config["chat_template"] = json!([
            {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}
        ]);
    });
    assert_eq!(template(&draft).as_deref(), Some("plain"));
    draft.write("chat_template.jinja", "in a file");
    assert_eq!(template(&draft).as_deref(), Some("in a file"));
    fs::remove_file(draft.file("chat_template.jinja")).unwrap();
    fs::remove_file(draft.file("tokenizer_config.json")).unwrap();
    assert_eq!(template(&draft), None);
}
