//! Bundles that do not fit themselves: each contradiction is named, and all of them at once.

use std::fs;

use serde_json::json;
use tandem::backend::local::anemll::bundle::AnemllBundle;
use tandem::backend::local::anemll::contract::{
    BufferId, BufferSpec, CallPlan, CallSpec, Element, Role,
};
use tandem::backend::local::anemll::mask;
use tandem::backend::local::anemll::verify::verify;
use tandem::backend::local::error::LoadErrorKind;

use super::draft::{Draft, EMBEDDINGS, FFN, LM_HEAD, position};

/// The places of the functions in the FFN's metadata.
const INFER: Option<usize> = Some(0);
const PREFILL: Option<usize> = Some(1);

/// Changes a sound bundle and expects exactly these faults, each told by a part of its text.
fn check(change: impl FnOnce(&Draft), facts: &[&str]) {
    let draft = Draft::tiny();
    draft.open().unwrap();
    change(&draft);
    let error = draft.open().unwrap_err();
    let told: Vec<String> = error.faults.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), facts.len(), "{told:#?} instead of {facts:#?}");
    for fact in facts {
        assert!(
            told.iter().any(|fault| fault.contains(fact)),
            "{fact:?} is not in {told:#?}"
        );
    }
    let text = error.to_string();
    assert!(
        text.ends_with('.') && text.contains(error.next_step()),
        "{text}"
    );
    assert!(
        text.starts_with(&draft.path().display().to_string()),
        "{text}"
    );
    let (kind, facts) = (error.kind(), error.facts());
    let load_error = error.into_load_error();
    assert_eq!((load_error.kind, load_error.fact), (kind, facts));
}

#[test]
fn functions_that_are_missing_are_named() {
    let remove = |index: usize| {
        move |draft: &Draft| {
            draft.model(FFN, |model| {
                model["functions"].as_array_mut().unwrap().remove(index);
            });
        }
    };
    check(
        remove(1),
        &[
            "ffn_chunk_01of01: the function prefill is missing, but meta.yaml says that prompts go in \
           batches of 64",
        ],
    );
    check(
        remove(0),
        &["the function infer is missing; it has prefill"],
    );
    check(
        |draft| {
            draft.model(FFN, |model| {
                model["functions"][0]["name"] = json!("prefill");
            });
        },
        &["it declares the function prefill twice"],
    );
    check(
        |draft| {
            draft.model(EMBEDDINGS, |model| {
                let schemas = json!({"inputSchema": model["inputSchema"], "outputSchema": []});
                let mut one = schemas.clone();
                one["name"] = json!("a");
                let mut other = schemas;
                other["name"] = json!("b");
                model["functions"] = json!([one, other]);
            });
        },
        &["embeddings: it has several functions, and none is called main or infer"],
    );
}

#[test]
fn sizes_that_contradict_meta_yaml_are_named() {
    check(
        |draft| draft.meta("batch_size: 64", "batch_size: 32"),
        &[
            "embeddings: the input input_ids is [1, 1] or [1, 64], but [1, 32] is needed",
            "the input hidden_states is [1, 64, 96], but [1, 32, hidden size] is needed",
            "the input position_ids is [64], but [32] is needed",
            "function prefill: the input causal_mask is [1, 1, 64, 512], but [1, 1, 32, 512]",
        ],
    );
    check(
        |draft| draft.meta("context_length: 512", "context_length: 1024"),
        &[
            "function infer: the input causal_mask is [1, 1, 1, 512], but [1, 1, 1, 1024]",
            "function prefill: the input causal_mask is [1, 1, 64, 512], but [1, 1, 64, 1024]",
            "its state is model_model_kv_cache_0 Float16 [6, 2, 512, 32], but [2 x layers, \
             key-value heads, 1024, head size] is needed",
        ],
    );
    check(
        |draft| draft.meta("split_lm_head: 16", "split_lm_head: 8"),
        &["lm_head: it gives 16 parts of logits, meta.yaml says 8"],
    );
    let added = |line: &'static str| {
        move |draft: &Draft| {
            draft.meta(
                "    split_lm_head: 16",
                &format!("    split_lm_head: 16\n    {line}"),
            );
        }
    };
    check(
        added("vocab_size: 151936"),
        &["it gives 528 logits, meta.yaml says 151936"],
    );
    check(
        added("lm_head_chunk_sizes: [264, 264]"),
        &["meta.yaml says [264, 264]"],
    );
    check(
        added("argmax_in_model: true"),
        &["it gives no argmax_idx, but meta.yaml says"],
    );
    check(
        |draft| draft.meta("batch_size: 64", "batch_size: 1024"),
        &[
            "meta.yaml: batch_size is 1024, more than context_length, which is 512",
            "input_ids",
            "hidden_states",
            "position_ids",
            "causal_mask",
        ],
    );
}

#[test]
fn components_that_contradict_each_other_are_named() {
    check(
        |draft| draft.shape(LM_HEAD, None, "hidden_states", "[1, 1, 128]"),
        &["the hidden size differs: 96 in ffn_chunk_01of01, function infer hidden_states, "],
    );
    check(
        |draft| draft.shape(FFN, PREFILL, "model_model_kv_cache_0", "[6, 2, 512, 16]"),
        &[
            "function prefill: its state is model_model_kv_cache_0 Float16 [6, 2, 512, 16], but \
           ffn_chunk_01of01, function infer has model_model_kv_cache_0 Float16 [6, 2, 512, 32]",
        ],
    );
    check(
        |draft| {
            draft.model(FFN, |model| {
                model["functions"][0]["stateSchema"] = json!([]);
            });
        },
        &["function infer: it has no state to keep keys and values in"],
    );
    check(
        |draft| {
            draft.model(FFN, |model| {
                model["userDefinedMetadata"]["com.anemll.chunk_no"] = json!("2");
            });
        },
        &["ffn_chunk_01of01: its metadata.json says chunk_no 2"],
    );
}

#[test]
fn tensors_that_cannot_be_passed_are_named() {
    check(
        |draft| {
            draft.tensor(FFN, PREFILL, "causal_mask", |mask| {
                mask["dataType"] = json!("Float32");
            });
        },
        &["function prefill: the input causal_mask is of Float32, not of Float16"],
    );
    check(
        |draft| {
            draft.tensor(EMBEDDINGS, None, "input_ids", |ids| {
                ids["dataType"] = json!("Float16");
            });
        },
        &["embeddings: the input input_ids is of Float16, not of Int32"],
    );
    check(
        |draft| {
            draft.tensor(FFN, INFER, "current_pos", |tensor| {
                tensor["dataType"] = json!("Double");
            });
        },
        &["function infer: the input current_pos is of the type \"Double\", which is unknown"],
    );
    check(
        |draft| {
            draft.tensor(FFN, INFER, "current_pos", |tensor| {
                tensor["name"] = json!("position");
            });
        },
        &[
            "function infer: the input current_pos is missing",
            "function infer: it needs the input position, and nothing here knows what to put there",
        ],
    );
    check(
        |draft| draft.shape(FFN, INFER, "hidden_states", "[]"),
        &["function infer: the input hidden_states tells no shape"],
    );
    for (shape, fact) in [
        ("[18446744073709551616, 2]", "no positive number"),
        (
            "[4294967296, 4294967296, 4294967296]",
            "more elements than any tensor",
        ),
        ("[1, -1, 96]", "no positive number"),
        ("[1, 1, 0]", "no positive number"),
        ("[1, 1.5]", "no positive number"),
        ("[1, 1, 1, 1, 1, 1, 1, 1, 96]", "9 dimensions"),
        ("1 x 1 x 96", "no list of sizes"),
        ("", "no list of sizes"),
    ] {
        check(
            |draft| draft.shape(FFN, INFER, "hidden_states", shape),
            &[fact],
        );
    }
}

#[test]
fn inputs_that_may_be_left_out_are_left_out() {
    let draft = Draft::tiny();
    draft.model(FFN, |model| {
        let inputs = model["functions"][0]["inputSchema"].as_array_mut().unwrap();
        let mut extra = inputs[3].clone();
        extra["name"] = json!("temperature");
        extra["isOptional"] = json!("1");
        inputs.push(extra);
        // Dead in infer, and gone from some exports.
        let dead = inputs
            .iter()
            .position(|input| input["name"] == "position_ids")
            .unwrap();
        inputs.remove(dead);
    });
    draft.open().unwrap();
}

#[test]
fn parts_of_logits_have_no_gap_and_no_double() {
    let renamed = |from: &'static str, to: &'static str| {
        move |draft: &Draft| draft.tensor(LM_HEAD, None, from, |part| part["name"] = json!(to))
    };
    check(
        renamed("logits7", "other"),
        &["it gives logits16, but logits7 is missing: the parts have a gap"],
    );
    check(
        renamed("logits16", "logits9007199254740993"),
        &[
            "it gives logits9007199254740993, but logits16, logits17, logits18, logits19, logits20, \
           logits21, logits22, logits23 and more is missing",
        ],
    );
    check(
        renamed("logits3", "logits03"),
        &["the output logits03 has no number", "logits3 is missing"],
    );
    check(
        renamed("logits3", "logits4"),
        &["the output logits4 is declared twice", "logits3 is missing"],
    );
    check(
        |draft| {
            draft.tensor(LM_HEAD, None, "logits2", |part| {
                part["dataType"] = json!("Int32");
            });
        },
        &["lm_head: the output logits2 is of Int32"],
    );
    check(
        |draft| draft.shape(LM_HEAD, None, "logits2", "[1, 33]"),
        &["lm_head: the output logits2 is [1, 33], but [1, 1, logits] is needed"],
    );
    check(
        |draft| draft.model(LM_HEAD, |model| model["outputSchema"] = json!([])),
        &["lm_head: it gives no logits"],
    );
}

#[test]
fn a_tokenizer_of_another_model_is_told() {
    check(
        |draft| {
            draft.meta("split_lm_head: 16", "split_lm_head: 15");
            draft.model(LM_HEAD, |model| {
                let outputs = &mut model["outputSchema"];
                let last = position(outputs, "logits16").unwrap();
                outputs.as_array_mut().unwrap().remove(last);
            });
        },
        &["tokenizer.json: it has 528 tokens, but the model has 495 logits: it belongs to another"],
    );
    check(
        |draft| {
            draft.write(
                "generation_config.json",
                r#"{"eos_token_id": [519, 151645]}"#,
            );
        },
        &["text ends with the token 151645, but tokenizer.json has 528 tokens"],
    );
    check(
        |draft| {
            draft.json("tokenizer_config.json", |config| {
                config["eos_token"] = json!({"content": "</s>"});
            });
        },
        &["tokenizer_config.json: text ends with \"</s>\", a token that tokenizer.json has not"],
    );
}

#[test]
fn keys_that_make_no_sense_are_told() {
    check(
        |draft| draft.meta("context_length: 512", "context_length: -1"),
        &["meta.yaml: context_length is \"-1\", not a number from 1 to"],
    );
    check(
        |draft| draft.meta("    context_length: 512\n", ""),
        &["meta.yaml: context_length is missing"],
    );
    check(
        |draft| {
            draft.meta("num_chunks: 1", "num_chunks: 999999999999");
            draft.meta("batch_size: 64", "batch_size: [64]");
        },
        &[
            "num_chunks is \"999999999999\", not a number from 1 to 99",
            "batch_size is a list",
        ],
    );
    check(
        |draft| draft.meta("architecture: qwen3", "architecture: gemma3_text"),
        &["meta.yaml: the architecture is gemma3_text, which is no Qwen"],
    );
    check(
        |draft| draft.meta("  parameters:", "  settings:"),
        &["meta.yaml: it makes no sense (model_info: missing field `parameters`"],
    );
    check(
        |draft| {
            draft.meta("    ffn: qwen_FFN_PF_lut6.mlmodelc\n", "");
            draft.meta("    model_prefix: qwen\n", "");
        },
        &["meta.yaml: ffn is missing, and there is no model_prefix to tell it by"],
    );
}

#[test]
fn missing_files_are_named_with_what_is_there() {
    check(
        |draft| {
            fs::rename(
                draft.file(FFN),
                draft.file("qwen_FFN_PF_lut6_chunk_01of02.mlmodelc"),
            )
            .unwrap();
        },
        &[
            "qwen_FFN_PF_lut6_chunk_01of01.mlmodelc: it is missing; the folder has \
           qwen_FFN_PF_lut6_chunk_01of02.mlmodelc, qwen_embeddings.mlmodelc",
        ],
    );
    check(
        |draft| draft.meta("num_chunks: 1", "num_chunks: 3"),
        &[
            "qwen_FFN_PF_lut6_chunk_01of03.mlmodelc: it is missing",
            "qwen_FFN_PF_lut6_chunk_02of03.mlmodelc: it is missing",
            "qwen_FFN_PF_lut6_chunk_03of03.mlmodelc: it is missing",
        ],
    );
    check(
        |draft| {
            fs::rename(
                draft.file(EMBEDDINGS),
                draft.file("qwen_embeddings.mlpackage"),
            )
            .unwrap();
        },
        &["qwen_embeddings.mlmodelc: only the .mlpackage is there, which is not compiled"],
    );
    check(
        |draft| {
            fs::remove_file(draft.file("tokenizer.json")).unwrap();
            fs::remove_file(draft.file(&format!("{LM_HEAD}/metadata.json"))).unwrap();
        },
        &[
            "tokenizer.json: it is missing",
            "qwen_lm_head_lut6.mlmodelc/metadata.json: it is missing",
        ],
    );
    for name in ["../outside", "/etc", "a/../../b", "..\\\\outside"] {
        check(
            |draft| draft.meta("qwen_embeddings.mlmodelc", &format!("\"{name}\"")),
            &["would lie outside the folder"],
        );
    }
}

#[test]
fn everything_is_told_at_once() {
    let draft = Draft::tiny();
    draft.meta("split_lm_head: 16", "split_lm_head: 8");
    draft.shape(LM_HEAD, None, "hidden_states", "[1, 1, 128]");
    draft.tensor(FFN, PREFILL, "current_pos", |tensor| {
        tensor["name"] = json!("position");
    });
    fs::remove_dir_all(draft.file(EMBEDDINGS)).unwrap();
    draft.write("generation_config.json", r#"{"eos_token_id": 9999}"#);
    draft.write("config.json", "{");
    let error = draft.open().unwrap_err();
    let text = error.to_string();
    for fact in [
        "it is wrong in 7 places: (1) ",
        "config.json: it makes no sense",
        "the token 9999",
        "qwen_embeddings.mlmodelc: it is missing",
        "the input current_pos is missing",
        "needs the input position",
        "16 parts of logits, meta.yaml says 8",
        "the hidden size differs",
    ] {
        assert!(text.contains(fact), "{fact:?} is not in {text}");
    }
    // What is declared in a way that nothing here knows weighs more than what a download mends.
    assert_eq!(error.kind(), LoadErrorKind::Unsupported);
}

/// The configuration with which this model was given up before: the schema at the top of metadata.json
/// taken for both functions, no function named, batches of 1.
#[test]
fn the_configuration_that_failed_is_refused_and_told_why() {
    let batch_of_one =
        "meta.yaml: batch_size is 1: that is what infer takes, prefill takes several";
    check(
        |draft| {
            draft.meta("batch_size: 64", "batch_size: 1");
            draft.model(FFN, |model| model["functions"] = json!([]));
        },
        &[
            batch_of_one,
            "Its metadata.json declares no functions, and its one schema is that of infer, for a \
             single token: taken for prefill as well, the second token of a prompt would ask for row \
             1 of a mask of one row",
        ],
    );
    // With the batch that meta.yaml really has.
    check(
        |draft| draft.model(FFN, |model| model["functions"] = json!([])),
        &[
            "but meta.yaml says that prompts go in batches of 64. Its metadata.json declares no functions",
        ],
    );
    // With both functions named, and infer's schema for each.
    check(
        |draft| {
            draft.model(FFN, |model| {
                model["functions"][1]["inputSchema"] = model["inputSchema"].clone();
            });
        },
        &[
            "function prefill: the input hidden_states is [1, 1, 96], but [1, 64, hidden size]",
            "function prefill: the input position_ids is [1], but [64] is needed",
            "function prefill: the input causal_mask is [1, 1, 1, 512], but [1, 1, 64, 512] is needed: \
             token 2 of a batch would ask for row 1 of a mask of 1 row",
        ],
    );
    check(
        |draft| {
            draft.meta("batch_size: 64", "batch_size: 1");
            draft.model(FFN, |model| {
                model["functions"][1]["inputSchema"] = model["inputSchema"].clone();
            });
        },
        &[batch_of_one],
    );
}

/// What went wrong then, in the terms of the contract: `infer` declares a mask of one row, so a mask
/// buffer that it takes ends where row 1 begins, and a mask that has row 1 it does not take.
#[test]
fn a_mask_of_one_row_has_no_second() {
    let bundle = AnemllBundle::open(Draft::tiny().path()).unwrap();
    let role = Role::Ffn { chunk: 1, of: 1 };
    let spec = &bundle.component(role).unwrap().spec;
    let plan = |function: &str, tokens: usize, mask_rows: usize| {
        let declared = spec.function(function).unwrap();
        let mut plan = CallPlan::default();
        let mut bind = |name: &str, element, shape: Vec<usize>| {
            plan.buffers.push(BufferSpec { element, shape });
            (name.to_owned(), BufferId(plan.buffers.len() - 1))
        };
        let inputs = vec![
            bind("hidden_states", Element::Float16, vec![1, tokens, 96]),
            bind("position_ids", Element::Int32, vec![tokens]),
            bind("causal_mask", Element::Float16, vec![1, 1, mask_rows, 512]),
            bind("current_pos", Element::Int32, vec![1]),
        ];
        let outputs = vec![bind(
            "output_hidden_states",
            Element::Float16,
            vec![1, 1, 96],
        )];
        assert_eq!(declared.inputs.len(), inputs.len());
        plan.calls.push(CallSpec {
            role,
            function: function.to_owned(),
            inputs,
            outputs,
            stateful: true,
        });
        plan
    };
    let components = std::slice::from_ref(spec);

    let one_token = plan("infer", 1, 1);
    verify(components, &one_token).unwrap();
    let mask = &one_token.buffers[2];
    let rows = mask::block(0, 2, bundle.context_length);
    assert_eq!(
        rows[..mask.elements()],
        mask::block(0, 1, bundle.context_length)
    );
    let second = rows.get(mask.elements()..).unwrap();
    assert_eq!(
        second.len(),
        bundle.context_length,
        "row 1 begins where the buffer ends"
    );

    let error = verify(components, &plan("infer", 1, 2))
        .unwrap_err()
        .to_string();
    assert!(error.contains("causal_mask"), "{error}");
    let error = verify(components, &plan("infer", 64, 64))
        .unwrap_err()
        .to_string();
    assert!(error.contains("hidden_states"), "{error}");
    verify(components, &plan("prefill", 64, 64)).unwrap();
}
