//! Writes GGUF files in the sizes of Qwen3 (config.json of Qwen/Qwen3-0.6B, -1.7B and -4B), their weights
//! any codes and their scales such that numbers stay finite.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use candle_core::quantized::GgmlDType;
use half::f16;

const HEAD: usize = 128;
const KV_HEADS: usize = 8;
const VOCABULARY: usize = 151_936;

/// What tells one size of Qwen3 from another.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub name: &'static str,
    layers: usize,
    hidden: usize,
    intermediate: usize,
    heads: usize,
}

/// Those whose embedding is their output head too.
pub const SIZES: [Sizes; 3] = [
    Sizes {
        name: "0.6b",
        layers: 28,
        hidden: 1024,
        intermediate: 3072,
        heads: 16,
    },
    Sizes {
        name: "1.7b",
        layers: 28,
        hidden: 2048,
        intermediate: 6144,
        heads: 16,
    },
    Sizes {
        name: "4b",
        layers: 36,
        hidden: 2560,
        intermediate: 9728,
        heads: 32,
    },
];

/// The folder of these files.
pub fn folder() -> anyhow::Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("arithmetic");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

impl Sizes {
    /// The file with weights of this kind; written where it is not there.
    pub fn file(self, kind: &str) -> anyhow::Result<PathBuf> {
        if !["q4_0", "q8_0", "q4_k_m"].contains(&kind) {
            bail!("{kind} is none of q4_0, q8_0 and q4_k_m");
        }
        let path = folder()?.join(format!("random-qwen3-{}-{kind}.gguf", self.name));
        if path.exists() {
            return Ok(path);
        }
        let unfinished = path.with_extension("unfinished");
        self.write(kind, &unfinished)
            .with_context(|| format!("{} cannot be written", unfinished.display()))?;
        fs::rename(&unfinished, &path)?;
        Ok(path)
    }

    /// Bytes that a token behind `context` others reads: all matrices, the embedding as the output head,
    /// and the keys and values in float16.
    pub fn bytes_per_token(self, kind: &str, context: usize) -> f64 {
        let matrices: usize = self
            .tensors(kind)
            .iter()
            .map(|tensor| tensor.dtype.bytes(tensor.elements()))
            .sum();
        (matrices + context * self.layers * KV_HEADS * HEAD * 2 * 2) as f64
    }

    /// Operations of a token of a prompt: a product and a sum for each weight of the layers' matrices.
    pub fn operations_per_token(self) -> f64 {
        let layers = self.tensors("q4_0").into_iter();
        let layers =
            layers.filter(|tensor| tensor.name.starts_with("blk.") && tensor.dims.len() == 2);
        2.0 * layers.map(|tensor| tensor.elements()).sum::<usize>() as f64
    }

    fn tensors(self, kind: &str) -> Vec<Tensor> {
        let (hidden, queries, keys) = (self.hidden, self.heads * HEAD, KV_HEADS * HEAD);
        let mut shapes = vec![
            ("token_embd.weight".to_owned(), vec![VOCABULARY, hidden]),
            ("output_norm.weight".to_owned(), vec![hidden]),
        ];
        for layer in 0..self.layers {
            for (part, dims) in [
                ("attn_norm", vec![hidden]),
                ("ffn_norm", vec![hidden]),
                ("attn_q_norm", vec![HEAD]),
                ("attn_k_norm", vec![HEAD]),
                ("attn_q", vec![queries, hidden]),
                ("attn_k", vec![keys, hidden]),
                ("attn_v", vec![keys, hidden]),
                ("attn_output", vec![hidden, queries]),
                ("ffn_gate", vec![self.intermediate, hidden]),
                ("ffn_up", vec![self.intermediate, hidden]),
                ("ffn_down", vec![hidden, self.intermediate]),
            ] {
                shapes.push((format!("blk.{layer}.{part}.weight"), dims));
            }
        }
        let with_type = |(name, dims): (String, Vec<usize>)| Tensor {
            dtype: match (kind, dims.len()) {
                (_, 1) => GgmlDType::F32,
                ("q4_0", _) => GgmlDType::Q4_0,
                ("q8_0", _) => GgmlDType::Q8_0,
                // What llama.cpp's Q4_K_M keeps finer: about half of these two, and the embedding.
                _ if self.finer(&name) => GgmlDType::Q6K,
                _ => GgmlDType::Q4K,
            },
            name,
            dims,
        };
        shapes.into_iter().map(with_type).collect()
    }

    fn finer(self, name: &str) -> bool {
        let layer: usize = name
            .split('.')
            .nth(1)
            .and_then(|part| part.parse().ok())
            .unwrap_or(0);
        let in_finer_layer =
            !(self.layers / 8..self.layers * 7 / 8).contains(&layer) || layer % 3 == 2;
        name.starts_with("token_embd")
            || in_finer_layer && (name.contains("attn_v") || name.contains("ffn_down"))
    }

    /// Tensor by tensor, so that a large model needs no more memory than a small one.
    fn write(self, kind: &str, path: &Path) -> io::Result<()> {
        let tensors = self.tensors(kind);
        let mut header = self.header(tensors.len());
        let mut offset = 0;
        for tensor in &tensors {
            header.text(&tensor.name);
            header.number(tensor.dims.len() as u32);
            for dim in tensor.dims.iter().rev() {
                header.long(*dim);
            }
            header.number(match tensor.dtype {
                GgmlDType::Q4_0 => 2,
                GgmlDType::Q8_0 => 8,
                GgmlDType::Q4K => 12,
                GgmlDType::Q6K => 14,
                _ => 0,
            });
            header.long(offset);
            offset += tensor
                .dtype
                .bytes(tensor.elements())
                .next_multiple_of(ALIGNMENT);
        }
        let mut bytes = header.0;
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&bytes)?;
        let mut state = 1;
        for tensor in &tensors {
            let mut left = tensor.elements();
            while left > 0 {
                let elements = left.min(PIECE);
                fill(&mut bytes, tensor.dtype, elements, &mut state);
                left -= elements;
                if left == 0 {
                    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
                }
                file.write_all(&bytes)?;
            }
        }
        file.flush()
    }

    fn header(self, tensors: usize) -> Header {
        let (words, kinds, merges) = vocabulary();
        let mut header = Header(b"GGUF".to_vec());
        header.number(3);
        header.long(tensors);
        header.long(18);
        header.says("general.architecture", "qwen3");
        header.says("general.name", "random weights");
        for (key, value) in [
            ("qwen3.block_count", self.layers),
            ("qwen3.context_length", 40_960),
            ("qwen3.embedding_length", self.hidden),
            ("qwen3.feed_forward_length", self.intermediate),
            ("qwen3.attention.head_count", self.heads),
            ("qwen3.attention.head_count_kv", KV_HEADS),
            ("qwen3.attention.key_length", HEAD),
            ("qwen3.attention.value_length", HEAD),
            ("tokenizer.ggml.eos_token_id", VOCABULARY - 1),
        ] {
            header.key(key, U32);
            header.number(value as u32);
        }
        for (key, value) in [
            ("qwen3.attention.layer_norm_rms_epsilon", 1e-6f32),
            ("qwen3.rope.freq_base", 1e6),
        ] {
            header.key(key, F32);
            header.number(value.to_bits());
        }
        header.says("tokenizer.ggml.model", "gpt2");
        header.says("tokenizer.ggml.pre", "qwen2");
        for (key, texts) in [("tokens", words), ("merges", merges)] {
            header.list(&format!("tokenizer.ggml.{key}"), STRING, texts.len());
            for text in &texts {
                header.text(text);
            }
        }
        header.list("tokenizer.ggml.token_type", I32, kinds.len());
        for kind in kinds {
            header.number(kind);
        }
        header
    }
}

struct Tensor {
    name: String,
    dims: Vec<usize>,
    dtype: GgmlDType,
}

impl Tensor {
    fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

trait Bytes {
    /// What so many numbers of a type take.
    fn bytes(self, elements: usize) -> usize;
}

impl Bytes for GgmlDType {
    fn bytes(self, elements: usize) -> usize {
        elements / self.block_size() * self.type_size()
    }
}

/// Of each tensor's data in a file.
const ALIGNMENT: usize = 32;
/// Numbers that are made at once: a multiple of every type's block.
const PIECE: usize = 1 << 20;

/// GGUF's names for the types of its metadata (docs/gguf.md of ggml).
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// What stands before the tensors' data.
struct Header(Vec<u8>);

impl Header {
    fn number(&mut self, number: u32) {
        self.0.extend(number.to_le_bytes());
    }

    fn long(&mut self, number: usize) {
        self.0.extend((number as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.long(text.len());
        self.0.extend(text.as_bytes());
    }

    fn key(&mut self, key: &str, kind: u32) {
        self.text(key);
        self.number(kind);
    }

    fn says(&mut self, key: &str, text: &str) {
        self.key(key, STRING);
        self.text(text);
    }

    fn list(&mut self, key: &str, kind: u32, length: usize) {
        self.key(key, ARRAY);
        self.number(kind);
        self.long(length);
    }
}

/// Makes so many numbers: ones, or random codes with scales that make weights of about 0.02, as Qwen's are.
fn fill(bytes: &mut Vec<u8>, dtype: GgmlDType, elements: usize, state: &mut u64) {
    bytes.clear();
    let (places, scale): (&[usize], f32) = match dtype {
        GgmlDType::Q4_0 => (&[0], 0.004),
        GgmlDType::Q8_0 => (&[0], 0.000_3),
        GgmlDType::Q4K => (&[0, 2], 0.000_1),
        GgmlDType::Q6K => (&[208], 0.000_015),
        _ => {
            bytes.extend((0..elements).flat_map(|_| 1f32.to_le_bytes()));
            return;
        }
    };
    bytes.resize(dtype.bytes(elements), 0);
    for eight in bytes.chunks_mut(8) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let random = state.to_le_bytes();
        eight.copy_from_slice(&random[..eight.len()]);
    }
    for block in bytes.chunks_exact_mut(dtype.type_size()) {
        for place in places {
            block[*place..place + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        }
    }
}

/// The 256 bytes, as GPT-2 writes them, then pairs and triples of them with their merges, then special
/// tokens (of type 3).
fn vocabulary() -> (Vec<String>, Vec<u32>, Vec<String>) {
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
