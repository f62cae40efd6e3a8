//! Our own kernels against candle, whole models of every type of weights; and who computes what.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use tandem::backend::local::ModelSource;
use tandem::backend::local::error::LoadErrorKind;
use tandem::backend::local::kv_cache::KvCache;
use tandem::backend::local::loader::{Arithmetic, Loaded, load_by};
use tandem::backend::local::sampler::Scores;
use tandem::backend::local::sequence::Sequence;
use tandem::config::{BundleRuntime, ComputeDevice};
use tandem::inference::ErrorKind;
use tokio_util::sync::CancellationToken;

use super::fixture;

const CONTEXT: usize = 512;

/// The type that a matrix of this name is stored in.
type TypeOf = fn(&str) -> GgmlDType;

fn loaded(source: &ModelSource, arithmetic: Arithmetic) -> Loaded {
    load_by(source, CONTEXT, ComputeDevice::Cpu, arithmetic).unwrap()
}

fn at(path: &Path) -> ModelSource {
    ModelSource::at(path, BundleRuntime::Auto)
}

/// Sizes that every type's blocks divide.
const SIZES: [(&str, u32); 8] = [
    ("qwen3.block_count", 2),
    ("qwen3.context_length", 512),
    ("qwen3.embedding_length", 256),
    ("qwen3.feed_forward_length", 512),
    ("qwen3.attention.head_count", 8),
    ("qwen3.attention.head_count_kv", 2),
    ("qwen3.attention.key_length", 32),
    ("qwen3.attention.value_length", 32),
];

/// A Qwen3 with pseudo-random weights, stored as `dtype` says for each matrix, with the tokenizer of a
/// fixture.
fn random_model(path: &Path, dtype: impl Fn(&str) -> GgmlDType) {
    let mut file = BufReader::new(File::open(fixture("qwen3-tiny.gguf")).unwrap());
    let content = Content::read(&mut file).unwrap();
    let sizes = SIZES.map(|(key, value)| (key, Value::U32(value)));
    let kept = content.metadata.iter();
    let kept = kept.filter(|(key, _)| !SIZES.iter().any(|(own, _)| own == key));
    let metadata: Vec<(&str, &Value)> = kept
        .map(|(key, value)| (key.as_str(), value))
        .chain(sizes.iter().map(|(key, value)| (*key, value)))
        .collect();
    let mut state = 1u64;
    let mut random = |dims: &[usize], around: f32, size: f32| {
        let numbers: Vec<f32> = (0..dims.iter().product())
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                around + size * ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
            })
            .collect();
        Tensor::from_vec(numbers, dims, &Device::Cpu).unwrap()
    };
    let mut tensors = Vec::new();
    let mut matrix = |name: String, rows: usize, columns: usize| {
        let numbers = random(&[rows, columns], 0.0, 0.12);
        let quantized = QTensor::quantize(&numbers, dtype(&name)).unwrap();
        tensors.push((name, quantized));
    };
    matrix("token_embd.weight".to_owned(), 384, 256);
    for layer in 0..2 {
        for (part, rows, columns) in [
            ("attn_q", 256, 256),
            ("attn_k", 64, 256),
            ("attn_v", 64, 256),
            ("attn_output", 256, 256),
            ("ffn_gate", 512, 256),
            ("ffn_up", 512, 256),
            ("ffn_down", 256, 512),
        ] {
            matrix(format!("blk.{layer}.{part}.weight"), rows, columns);
        }
    }
    let mut vector = |name: String, length: usize| {
        let numbers = random(&[length], 1.0, 0.2);
        tensors.push((name, QTensor::quantize(&numbers, GgmlDType::F32).unwrap()));
    };
    vector("output_norm.weight".to_owned(), 256);
    for layer in 0..2 {
        for (part, length) in [
            ("attn_norm", 256),
            ("ffn_norm", 256),
            ("attn_q_norm", 32),
            ("attn_k_norm", 32),
        ] {
            vector(format!("blk.{layer}.{part}.weight"), length);
        }
    }
    let tensors: Vec<(&str, &QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

fn prompt(length: usize) -> Vec<u32> {
    (0..length as u32).map(|at| at * at * 31 % 370).collect()
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

fn fresh(model: &mut Loaded, tokens: &[u32], block: usize) -> Vec<f32> {
    let mut sequence = model.model.sequence().unwrap();
    feed(model, &mut sequence, tokens, block)
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// The root mean square of the difference, as a share of that of `b`.
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (difference / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

fn q4_k_m(name: &str) -> GgmlDType {
    let finer = ["token_embd", "attn_v", "ffn_down"];
    if finer.iter().any(|part| name.contains(part)) {
        GgmlDType::Q6K
    } else {
        GgmlDType::Q4K
    }
}

/// candle keeps such small models in float32, so it computes with the file's exact values: our kernels
/// in float32 must agree but for the order of sums, and on codes but for the
/// rounding of activations to 8 bits, which makes about 1 % of the logits' size here.
#[test]
fn models_of_every_type_are_candles() {
    let folder = tempfile::tempdir().unwrap();
    let types: [(&str, TypeOf); 5] = [
        ("q4_0", |_| GgmlDType::Q4_0),
        ("q8_0", |_| GgmlDType::Q8_0),
        ("q4_k", |_| GgmlDType::Q4K),
        ("q6_k", |_| GgmlDType::Q6K),
        ("q4_k_m", q4_k_m),
    ];
    for (name, dtype) in types {
        let path = folder.path().join(format!("{name}.gguf"));
        random_model(&path, dtype);
        let source = at(&path);
        let mut candle = loaded(&source, Arithmetic::Candle);
        let mut exact = loaded(&source, Arithmetic::Packed);
        let mut rounded = loaded(&source, Arithmetic::Rounded);
        for length in [1, 2, 65, 150] {
            let tokens = prompt(length);
            let expected = fresh(&mut candle, &tokens, 64);
            let size = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
            assert!(size > 0.5, "{name}: logits of {size} tell nothing");
            let off = largest_difference(&fresh(&mut exact, &tokens, 64), &expected);
            assert!(
                off < size * 1e-5,
                "{name}, {length} tokens: off by {off} of {size}"
            );
            let error = relative_error(&fresh(&mut rounded, &tokens, 64), &expected);
            assert!(error < 0.04, "{name}, {length} tokens: an error of {error}");
        }
    }
}

/// Kernels for instructions give the bits of those that define the result, in a whole model.
#[test]
fn a_whole_model_gives_the_bits_of_the_portable_kernels() {
    let source = at(&fixture("qwen3-tiny-q8_0.gguf"));
    let tokens = prompt(40);
    let mut best = loaded(&source, Arithmetic::Packed);
    let mut portable = loaded(&source, Arithmetic::Portable);
    assert_eq!(
        fresh(&mut best, &tokens, 64),
        fresh(&mut portable, &tokens, 64)
    );
    let observed = portable.placement.observed.unwrap();
    assert!(observed.starts_with("cpu: tandem-kernels, "), "{observed}");
    assert!(observed.ends_with(", portable"), "{observed}");
}

/// Blocks, single tokens, a cache cut back and one copied: the same up to the order of sums.
#[test]
fn prefixes_are_reused_as_if_computed_anew() {
    let mut model = loaded(&ModelSource::embedded(), Arithmetic::Rounded);
    let long = prompt(200);
    let mut cache = KvCache::new(64 << 20);
    let mut sequence = cache.acquire(&long, model.model.as_mut()).unwrap();
    feed(&mut model, &mut sequence, &long, 64);
    assert!(sequence.bytes() > 0 && sequence.state().is_none());
    cache.release(sequence);
    // Most is shared: taken over and cut back. Then little is: copied.
    for shared in [150, 40] {
        let mut tokens = long[..shared].to_vec();
        tokens.extend([11, 12, 13]);
        let mut sequence = cache.acquire(&tokens, model.model.as_mut()).unwrap();
        assert_eq!(sequence.len(), shared);
        let reused = feed(&mut model, &mut sequence, &tokens, 64);
        cache.release(sequence);
        for block in [64, 7, 1] {
            let anew = fresh(&mut model, &tokens, block);
            let off = largest_difference(&reused, &anew);
            assert!(
                off < 1e-3,
                "{shared} shared, blocks of {block}: off by {off}"
            );
        }
    }
    assert_eq!(cache.sequences(), 2);
}

/// A model's own text, computed on codes: where float32 is sure of a token, so are they.
#[test]
fn tandem_mini_on_its_codes_says_what_it_says_in_float32() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tandem-mini/golden.json");
    let golden: serde_json::Value = serde_json::from_slice(&fs::read(golden).unwrap()).unwrap();
    let source = ModelSource::embedded();
    let mut candle = loaded(&source, Arithmetic::Candle);
    let mut rounded = loaded(&source, Arithmetic::Rounded);
    let (mut steps, mut same, mut worst) = (0, 0, 0f64);
    let ids =
        |value: &serde_json::Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    for case in golden["cases"].as_array().unwrap() {
        let prompt = ids(&case["prompt_ids"]);
        let answer = ids(&case["greedy_ids"]);
        let tokens = [prompt.as_slice(), &answer].concat();
        let (mut a, mut b) = (
            candle.model.sequence().unwrap(),
            rounded.model.sequence().unwrap(),
        );
        for end in prompt.len()..tokens.len() {
            let expected = feed(&mut candle, &mut a, &tokens[..end], 64);
            let got = feed(&mut rounded, &mut b, &tokens[..end], 64);
            worst = worst.max(relative_error(&got, &expected));
            steps += 1;
            let best = (0..got.len())
                .max_by(|a, b| got[*a].total_cmp(&got[*b]))
                .unwrap();
            same += usize::from(best as u32 == tokens[end]);
        }
    }
    assert!(steps > 50, "{steps}");
    assert!(
        same * 100 >= steps * 95,
        "{same} of {steps} tokens are the same"
    );
    assert!(worst < 0.1, "an error of {worst}");
}

#[test]
fn what_our_kernels_do_not_know_candle_computes_and_the_reason_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q5.gguf");
    random_model(&path, |name| {
        if name.contains("ffn_up") {
            GgmlDType::Q5_0
        } else {
            GgmlDType::Q8_0
        }
    });
    let mut auto = loaded(&at(&path), Arithmetic::Auto);
    let observed = auto.placement.observed.clone().unwrap();
    assert!(observed.starts_with("cpu: candle, "), "{observed}");
    assert!(
        observed.ends_with("(the tensor blk.0.ffn_up.weight is Q5_0)"),
        "{observed}"
    );
    assert_eq!(fresh(&mut auto, &prompt(9), 64).len(), 384);
    let error = load_by(&at(&path), CONTEXT, ComputeDevice::Cpu, Arithmetic::Packed);
    let error = error.err().unwrap();
    assert_eq!(error.kind, LoadErrorKind::Unsupported);
    assert!(
        error.fact.contains("blk.0.ffn_up.weight is Q5_0"),
        "{error}"
    );
    assert!(
        error.next_step.contains("`local.engine` to auto"),
        "{error}"
    );
    let folder = load_by(
        &at(&fixture("qwen3-tiny")),
        CONTEXT,
        ComputeDevice::Cpu,
        Arithmetic::Packed,
    );
    let error = folder.err().unwrap();
    assert_eq!(error.kind, LoadErrorKind::Unsupported);
    assert!(error.fact.contains("a folder with safetensors"), "{error}");
}

#[test]
fn a_computation_is_given_up_once_it_is_cancelled() {
    let mut model = loaded(&at(&fixture("qwen3-tiny.gguf")), Arithmetic::Packed);
    let tokens = prompt(200);
    let expected = fresh(&mut model, &tokens, 64);
    let mut sequence = model.model.sequence().unwrap();
    feed(&mut model, &mut sequence, &tokens[..3], 64);
    let cancel = CancellationToken::new();
    model.model.heed(Some(&cancel));
    feed(&mut model, &mut sequence, &tokens[..10], 64);
    cancel.cancel();
    let error = model.model.forward(&tokens[10..], &mut sequence, None);
    assert_eq!(error.unwrap_err().kind, ErrorKind::Cancelled);
    assert_eq!(sequence.tokens(), &tokens[..10]);
    model.model.heed(None);
    let got = feed(&mut model, &mut sequence, &tokens, 64);
    let off = largest_difference(&got, &expected);
    assert!(off < 1e-3, "off by {off}");
}

#[test]
fn what_cannot_be_computed_is_an_error_and_leaves_the_sequence() {
    let mut model = loaded(&at(&fixture("qwen3-tiny.gguf")), Arithmetic::Packed);
    let mut sequence = model.model.sequence().unwrap();
    feed(&mut model, &mut sequence, &[1, 2, 3], 64);
    let too_many = vec![1; CONTEXT - 2];
    for tokens in [&[384][..], &[], &too_many] {
        assert!(model.model.forward(tokens, &mut sequence, None).is_err());
        assert_eq!(sequence.tokens(), [1, 2, 3]);
    }
    let mut other = loaded(&ModelSource::embedded(), Arithmetic::Packed);
    let mut theirs = other.model.sequence().unwrap();
    let error = model.model.forward(&[1], &mut theirs, None).unwrap_err();
    assert!(error.to_string().contains("another model's"), "{error}");
}
