//! Bundles on disk: what a sound one says, and everything that is told of one that is not.

mod archives;
mod draft;
mod hostile;
mod refused;
mod variants;

use std::collections::BTreeSet;

use tandem::backend::local::anemll::bundle::{AnemllBundle, LogitsOutput};
use tandem::backend::local::anemll::contract::Role;

use super::fixture;

#[test]
fn a_sound_bundle_says_all_that_the_pipeline_needs() {
    let folder = fixture("anemll-tiny/anemll");
    assert!(AnemllBundle::is_at(&folder));
    assert!(!AnemllBundle::is_at(&fixture("anemll-tiny/hf")));
    let bundle = AnemllBundle::open(&folder).unwrap();
    assert_eq!(bundle.name, "anemll-Qwen3-tiny-ctx512");
    assert_eq!(
        (bundle.version.as_str(), bundle.architecture.as_str()),
        ("0.3.4", "qwen3")
    );
    assert_eq!((bundle.context_length, bundle.batch_size), (512, Some(64)));
    assert_eq!((bundle.hidden, bundle.vocabulary), (Some(96), 528));
    assert_eq!(
        (bundle.layers, bundle.kv_heads, bundle.head_dim),
        (3, 2, 32)
    );
    assert_eq!(bundle.state.name, "model_model_kv_cache_0");
    assert_eq!((bundle.num_chunks, bundle.logits.parts()), (1, 16));
    assert!(!bundle.argmax_in_model());
    let LogitsOutput::Parts(parts) = &bundle.logits else {
        panic!("logits come in parts");
    };
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    let numbered: Vec<String> = (1..=16).map(|number| format!("logits{number}")).collect();
    assert_eq!(names, numbered);
    assert!(parts.iter().all(|part| part.size == 33));
    assert_eq!(bundle.infer_function(), Some("infer"));
    assert_eq!(bundle.prefill_function(), Some("prefill"));
    assert_eq!(bundle.eos, BTreeSet::from([517, 519]));
    assert_eq!((bundle.tokenizer_tokens, bundle.sampling), (528, None));
    assert!(bundle.tokenizer.is_file());
    assert!(bundle.chat_template.unwrap().contains("enable_thinking"));

    let called: Vec<_> = bundle
        .components
        .iter()
        .map(|part| {
            let file = part.path.file_name().unwrap().to_str().unwrap();
            (
                part.spec.role,
                file,
                part.infer.as_str(),
                part.prefill.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        called,
        [
            (
                Role::Embeddings,
                "qwen_embeddings.mlmodelc",
                "main",
                Some("main")
            ),
            (
                Role::Ffn { chunk: 1, of: 1 },
                // meta.yaml leaves the chunk out of the name.
                "qwen_FFN_PF_lut6_chunk_01of01.mlmodelc",
                "infer",
                Some("prefill")
            ),
            (Role::LmHead, "qwen_lm_head_lut6.mlmodelc", "main", None),
        ]
    );
}
