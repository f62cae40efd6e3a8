//! The engine against Hugging Face `transformers` and `tokenizers`, on tiny random models
//! (`tests/fixtures/make.py`).

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tandem::backend::local::ModelSource;
use tandem::backend::local::continuation::Pace;
use tandem::backend::local::decode::{DecodeRequest, Decoding, Step};
use tandem::backend::local::detokenizer::Detokenizer;
use tandem::backend::local::guide::Guide;
use tandem::backend::local::kv_cache::KvCache;
use tandem::backend::local::loader::{Arithmetic, Loaded, load, load_by};
use tandem::backend::local::sampler::Scores;
use tandem::backend::local::sequence::Sequence;
use tandem::config::{BundleRuntime, ComputeDevice};
use tandem::inference::{
    ChatTask, CompleteTask, CompletionShape, FinishReason, Message, Role, Sampling,
};
use tandem::prompt::{Budget, Vocabulary, completion};

use super::{CONTEXT, fixture, load_fixture};

/// The largest difference of a logit from float32 `transformers`.
const TOLERANCE: f32 = 1e-3;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    input_ids: Vec<u32>,
    logits: Vec<f32>,
    greedy: Vec<u32>,
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&fs::read(fixture(name)).unwrap()).unwrap()
}

/// Feeds what `sequence` lacks of `tokens` in blocks of `block`; the last token's logits.
fn feed(model: &mut Loaded, sequence: &mut Sequence, tokens: &[u32], block: usize) -> Vec<f32> {
    let mut scores = Scores::default();
    while sequence.len() < tokens.len() {
        let end = tokens.len().min(sequence.len() + block);
        let wanted = (end == tokens.len()).then_some(&mut scores);
        let next = &tokens[sequence.len()..end];
        model.model.forward(next, sequence, wanted).unwrap();
    }
    scores.logits
}

fn argmax(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    best.unwrap() as u32
}

fn assert_close(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let worst = got
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst < TOLERANCE, "{what}: a logit is off by {worst}");
}

/// Logits and greedy tokens, with the prompt computed at once, in blocks and token by token, and
/// with the cache cut back and used again: by what a user gets, and by candle.
fn check(model: &str, golden: &str) {
    for arithmetic in [Arithmetic::Auto, Arithmetic::Candle] {
        check_by(model, golden, arithmetic);
    }
}

fn check_by(model: &str, golden: &str, arithmetic: Arithmetic) {
    let source = ModelSource::at(&fixture(model), BundleRuntime::Auto);
    let mut loaded = load_by(&source, CONTEXT, ComputeDevice::Cpu, arithmetic).unwrap();
    let model = format!("{model} by {arithmetic:?}");
    let Golden { cases } = read(golden);
    let mut cache = KvCache::new(64 << 20);
    for (number, case) in cases.iter().enumerate() {
        let prompt = &case.input_ids;
        for block in [512, 7, 1] {
            let what = format!("{model}, case {number}, blocks of {block}");
            let mut sequence = loaded.model.sequence().unwrap();
            let logits = feed(&mut loaded, &mut sequence, prompt, block);
            assert_close(&logits, &case.logits, &what);
            // Rewinding into the prompt and computing the rest again changes nothing.
            sequence.truncate(prompt.len() / 2);
            let again = feed(&mut loaded, &mut sequence, prompt, block);
            let what = format!("{what}, rewound");
            assert_close(&again, &case.logits, &what);
        }
        for reuse in [false, true] {
            let what = format!("{model}, case {number}, reuse {reuse}");
            let mut tokens = prompt.clone();
            for _ in &case.greedy {
                let mut sequence = if reuse {
                    cache.acquire(&tokens, loaded.model.as_mut()).unwrap()
                } else {
                    loaded.model.sequence().unwrap()
                };
                if reuse && tokens.len() > prompt.len() {
                    assert_eq!(sequence.len(), tokens.len() - 1, "{what}");
                }
                let logits = feed(&mut loaded, &mut sequence, &tokens, 64);
                tokens.push(argmax(&logits));
                cache.release(sequence);
            }
            assert_eq!(tokens[prompt.len()..], case.greedy, "{what}");
        }
    }
}

#[test]
fn qwen3_from_gguf_is_hugging_faces() {
    check("qwen3-tiny.gguf", "qwen3-tiny.golden.json");
}

#[test]
fn qwen3_from_a_quantized_gguf_is_hugging_faces() {
    check("qwen3-tiny-q8_0.gguf", "qwen3-tiny-q8_0.golden.json");
}

#[test]
fn qwen3_from_safetensors_is_hugging_faces() {
    check("qwen3-tiny", "qwen3-tiny.golden.json");
}

#[test]
fn qwen2_from_gguf_is_hugging_faces() {
    check("qwen2-tiny.gguf", "qwen2-tiny.golden.json");
}

#[test]
fn qwen2_from_sharded_safetensors_is_hugging_faces() {
    check("qwen2-tiny", "qwen2-tiny.golden.json");
}

#[test]
fn our_kernels_in_float32_are_hugging_faces() {
    for model in ["qwen3-tiny", "qwen3-tiny-q8_0", "qwen2-tiny"] {
        let (file, golden) = (format!("{model}.gguf"), format!("{model}.golden.json"));
        check_by(&file, &golden, Arithmetic::Packed);
    }
}

#[derive(Deserialize)]
struct Sample {
    text: String,
    /// Encoded by a tokenizer without added tokens.
    plain: Vec<u32>,
    /// Encoded with special tokens recognised.
    with_special: Vec<u32>,
}

#[test]
fn the_tokenizer_is_hugging_faces_and_text_holds_no_special_tokens() {
    let samples: Vec<Sample> = read("tokenizer.golden.json");
    assert!(samples.iter().any(|s| s.plain != s.with_special));
    for model in ["qwen3-tiny.gguf", "qwen3-tiny", "qwen2-tiny.gguf"] {
        let tokenizer = load_fixture(model).tokenizer;
        for sample in &samples {
            // Twice: the second answer comes from the cache of lines.
            for _ in 0..2 {
                let tokens = tokenizer.encode(&sample.text).unwrap();
                assert_eq!(tokens, sample.plain, "{model}: {:?}", sample.text);
            }
            let bytes: Vec<u8> = sample
                .with_special
                .iter()
                .flat_map(|token| tokenizer.bytes(*token).to_vec())
                .collect();
            let plain: Vec<u8> = sample
                .plain
                .iter()
                .flat_map(|token| tokenizer.bytes(*token).to_vec())
                .collect();
            assert_eq!(bytes, plain, "special tokens stand for their own text");
        }
        assert_eq!(tokenizer.special("<|im_end|>"), Some(375));
        assert_eq!(tokenizer.special("not a token"), None);
    }
}

#[derive(Deserialize)]
struct MiniGolden {
    cases: Vec<MiniCase>,
}

#[derive(Deserialize)]
struct MiniCase {
    name: String,
    path: Option<String>,
    prefix: String,
    suffix: String,
    prompt_ids: Vec<u32>,
    greedy_ids: Vec<u32>,
    first_top5: Vec<(u32, f32)>,
}

/// Prompts, logits and greedy answers of the shipped model, as its own folder records them.
#[test]
fn tandem_mini_answers_as_it_was_shipped() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tandem-mini/golden.json");
    let golden: MiniGolden = serde_json::from_slice(&fs::read(golden).unwrap()).unwrap();
    let mut loaded = load(&ModelSource::embedded(), 1024, ComputeDevice::Cpu).unwrap();
    for case in &golden.cases {
        let task = CompleteTask {
            path: case.path.clone(),
            language: String::new(),
            prefix: case.prefix.as_str().into(),
            suffix: case.suffix.as_str().into(),
            snippets: Vec::new(),
            shape: CompletionShape::Auto,
        };
        let budget = Budget {
            context_tokens: 1024,
            max_tokens: case.greedy_ids.len(),
        };
        let (tokenizer, prompting) = (&loaded.tokenizer, &loaded.prompting);
        let prompt = completion::render(&task, tokenizer, prompting, budget, false).unwrap();
        let prompt = prompt.tokens;
        assert_eq!(prompt, case.prompt_ids, "{}", case.name);
        let mut sequence = loaded.model.sequence().unwrap();
        let mut tokens = prompt.clone();
        for (step, expected) in case.greedy_ids.iter().enumerate() {
            let logits = feed(&mut loaded, &mut sequence, &tokens, 64);
            if step == 0 {
                for (token, logit) in &case.first_top5 {
                    let got = logits[*token as usize];
                    assert!((got - logit).abs() < TOLERANCE, "{}: {got}", case.name);
                }
            }
            assert_eq!(argmax(&logits), *expected, "{}, step {step}", case.name);
            tokens.push(*expected);
        }
    }
}

/// Random tokens and their decoding by Hugging Face `tokenizers`.
#[derive(Deserialize)]
struct Decoded {
    tokens: Vec<u32>,
    text: String,
}

#[test]
fn pieces_of_random_tokens_make_hugging_faces_text() {
    let cases: Vec<Decoded> = read("detokenizer.golden.json");
    assert!(cases.iter().any(|case| case.text.contains('\u{fffd}')));
    let tokenizer = load_fixture("qwen3-tiny").tokenizer;
    for case in cases {
        let mut detokenizer = Detokenizer::default();
        let pieces: Vec<String> = case
            .tokens
            .iter()
            .map(|token| detokenizer.push(tokenizer.bytes(*token)))
            .collect();
        assert_eq!(pieces.concat(), case.text);
    }
}

/// Prompts and greedy answers of `tests/fixtures/anemll-tiny`, made independently of `make.py`.
#[derive(Deserialize)]
struct AnemllGolden {
    cases: Vec<AnemllCase>,
    eos_cases: Vec<AnemllCase>,
}

#[derive(Deserialize)]
struct AnemllCase {
    name: String,
    input_ids: Vec<u32>,
    greedy: Vec<u32>,
    #[serde(default)]
    stop_token: Option<u32>,
    #[serde(default)]
    messages: Vec<AnemllMessage>,
}

#[derive(Deserialize)]
struct AnemllMessage {
    role: String,
    content: String,
}

#[test]
fn answers_end_where_hugging_faces_end_and_chats_are_rendered_as_its_template_does() {
    let mut loaded = load_fixture("anemll-tiny/hf");
    let golden: AnemllGolden = read("anemll-tiny/golden.json");
    let budget = Budget {
        context_tokens: CONTEXT,
        max_tokens: 40,
    };
    for case in golden.cases.iter().chain(&golden.eos_cases) {
        if let [system, user] = case.messages.as_slice() {
            assert_eq!((&*system.role, &*user.role), ("system", "user"));
            let task = ChatTask {
                system: Some(system.content.clone()),
                messages: vec![Message {
                    role: Role::User,
                    text: user.content.clone(),
                }],
                schema: None,
            };
            let template = loaded.chat.unwrap();
            let prompt = template.chat(&task, &loaded.tokenizer, budget).unwrap();
            assert_eq!(prompt, case.input_ids, "{}", case.name);
        }
        let request = DecodeRequest {
            prompt: case.input_ids.clone(),
            sampling: Sampling::GREEDY,
            max_tokens: case.greedy.len(),
            ends: Arc::clone(&loaded.ends),
            stop: Vec::new(),
            guide: Guide::default(),
            lookup: None,
        };
        let sequence = loaded.model.sequence().unwrap();
        let mut decoding = Decoding::new(request, loaded.model.as_ref(), sequence, Pace::default());
        let mut scores = Scores::default();
        let reason = loop {
            let step = decoding.step(loaded.model.as_mut(), &loaded.tokenizer, &mut scores);
            if let Step::Finished(_, reason) = step.unwrap() {
                break reason;
            }
        };
        // The token that ends a text is no part of it.
        let (expected, end) = match case.stop_token {
            Some(_) => (&case.greedy[..case.greedy.len() - 1], FinishReason::Stop),
            None => (case.greedy.as_slice(), FinishReason::Length),
        };
        assert_eq!(decoding.answer(), expected, "{}", case.name);
        assert_eq!(reason, end, "{}", case.name);
    }
}
