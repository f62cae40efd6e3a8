//! Writes a GGUF file in the sizes of Qwen3-0.6B (config.json of Qwen/Qwen3-0.6B), its weights any
//! codes and its scales such that numbers stay finite.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::bail;
use candle_core::Device;
use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use half::f16;

const LAYERS: usize = 28;
const HIDDEN: usize = 1024;
const INTERMEDIATE: usize = 3072;
const HEADS: usize = 16;
const KV_HEADS: usize = 8;
const HEAD: usize = 128;
const VOCABULARY: usize = 151_936;

/// The file with weights of this kind; written where it is not there.
pub fn at(kind: &str) -> anyhow::Result<PathBuf> {
    if !["q4_0", "q8_0", "q4_k_m"].contains(&kind) {
        bail!("{kind} is none of q4_0, q8_0 and q4_k_m");
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("arithmetic");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("random-qwen3-0.6b-{kind}.gguf"));
    if path.exists() {
        return Ok(path);
    }
    let mut state = 1;
    let mut tensors = Vec::new();
    for (name, dims) in shapes() {
        let dtype = match (kind, dims.len()) {
            (_, 1) => GgmlDType::F32,
            ("q4_0", _) => GgmlDType::Q4_0,
            ("q8_0", _) => GgmlDType::Q8_0,
            // What llama.cpp's Q4_K_M keeps finer: about half of these two, and the embedding.
            _ if finer(&name) => GgmlDType::Q6K,
            _ => GgmlDType::Q4K,
        };
        tensors.push((name, tensor(&dims, dtype, &mut state)?));
    }
    let tensors: Vec<(&str, &QTensor)> =
        tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
    let metadata = metadata();
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let unfinished = path.with_extension("unfinished");
    write(&mut File::create(&unfinished)?, &metadata, &tensors)?;
    fs::rename(&unfinished, &path)?;
    Ok(path)
}

fn finer(name: &str) -> bool {
    let layer: usize = name
        .split('.')
        .nth(1)
        .and_then(|part| part.parse().ok())
        .unwrap_or(0);
    let in_finer_layer = !(LAYERS / 8..LAYERS * 7 / 8).contains(&layer) || layer % 3 == 2;
    name.starts_with("token_embd")
        || in_finer_layer && (name.contains("attn_v") || name.contains("ffn_down"))
}

fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![
        ("token_embd.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("output_norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        for (part, dims) in [
            ("attn_norm", vec![HIDDEN]),
            ("ffn_norm", vec![HIDDEN]),
            ("attn_q_norm", vec![HEAD]),
            ("attn_k_norm", vec![HEAD]),
            ("attn_q", vec![HEADS * HEAD, HIDDEN]),
            ("attn_k", vec![KV_HEADS * HEAD, HIDDEN]),
            ("attn_v", vec![KV_HEADS * HEAD, HIDDEN]),
            ("attn_output", vec![HIDDEN, HEADS * HEAD]),
            ("ffn_gate", vec![INTERMEDIATE, HIDDEN]),
            ("ffn_up", vec![INTERMEDIATE, HIDDEN]),
            ("ffn_down", vec![HIDDEN, INTERMEDIATE]),
        ] {
            shapes.push((format!("blk.{layer}.{part}.weight"), dims));
        }
    }
    shapes
}

fn tensor(dims: &[usize], dtype: GgmlDType, state: &mut u64) -> anyhow::Result<QTensor> {
    let elements: usize = dims.iter().product();
    let blocks = elements / dtype.block_size();
    let mut bytes = vec![0u8; blocks * dtype.type_size()];
    if dtype == GgmlDType::F32 {
        for number in bytes.chunks_exact_mut(4) {
            number.copy_from_slice(&1f32.to_le_bytes());
        }
    } else {
        for eight in bytes.chunks_mut(8) {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            let random = state.to_le_bytes();
            eight.copy_from_slice(&random[..eight.len()]);
        }
        // So that weights are about 0.02, as Qwen's are.
        let (places, scale): (&[usize], f32) = match dtype {
            GgmlDType::Q4_0 => (&[0], 0.004),
            GgmlDType::Q8_0 => (&[0], 0.000_3),
            GgmlDType::Q4K => (&[0, 2], 0.000_1),
            GgmlDType::Q6K => (&[208], 0.000_015),
            other => bail!("no scale is known for {other:?}"),
        };
        for block in bytes.chunks_exact_mut(dtype.type_size()) {
            for place in places {
                block[*place..place + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
            }
        }
    }
    let storage = QStorage::from_data(Cow::Owned(bytes), &Device::Cpu, dtype)?;
    Ok(QTensor::new(storage, dims)?)
}

fn metadata() -> Vec<(&'static str, Value)> {
    let count = |value: usize| Value::U32(value as u32);
    let (tokens, kinds, merges) = vocabulary();
    let strings = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
    vec![
        ("general.architecture", Value::String("qwen3".into())),
        ("general.name", Value::String("random weights".into())),
        ("qwen3.block_count", count(LAYERS)),
        ("qwen3.context_length", count(40_960)),
        ("qwen3.embedding_length", count(HIDDEN)),
        ("qwen3.feed_forward_length", count(INTERMEDIATE)),
        ("qwen3.attention.head_count", count(HEADS)),
        ("qwen3.attention.head_count_kv", count(KV_HEADS)),
        ("qwen3.attention.key_length", count(HEAD)),
        ("qwen3.attention.value_length", count(HEAD)),
        ("qwen3.attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
        ("qwen3.rope.freq_base", Value::F32(1e6)),
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("qwen2".into())),
        ("tokenizer.ggml.tokens", strings(tokens)),
        (
            "tokenizer.ggml.token_type",
            Value::Array(kinds.into_iter().map(Value::I32).collect()),
        ),
        ("tokenizer.ggml.merges", strings(merges)),
        ("tokenizer.ggml.eos_token_id", count(VOCABULARY - 1)),
    ]
}

/// The 256 bytes, as GPT-2 writes them, then pairs and triples of them with their merges, then special
/// tokens (of type 3).
fn vocabulary() -> (Vec<String>, Vec<i32>, Vec<String>) {
    const SPECIAL: usize = 300;
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256u32).filter(|byte| !printable(byte));
    let moved: Vec<u32> = others.enumerate().map(|(at, _)| 256 + at as u32).collect();
    let alphabet: Vec<String> = (0..256u32)
        .filter(printable)
        .chain(moved)
        .filter_map(char::from_u32)
        .map(String::from)
        .collect();
    let mut tokens = alphabet.clone();
    let mut merges = Vec::new();
    let mut seen: HashSet<String> = tokens.iter().cloned().collect();
    let mut at = 0;
    while tokens.len() < VOCABULARY - SPECIAL {
        let (first, second) = (&tokens[at / 256], &alphabet[at % 256]);
        let (token, merge) = (format!("{first}{second}"), format!("{first} {second}"));
        at += 1;
        if seen.insert(token.clone()) {
            tokens.push(token);
            merges.push(merge);
        }
    }
    let mut kinds = vec![1; tokens.len()];
    for special in 0..SPECIAL {
        tokens.push(format!("<|special_{special}|>"));
        kinds.push(3);
    }
    (tokens, kinds, merges)
}
