//! tandem-mini in widths that the blocks of every type divide.
//!
//! It is 192 wide, and Q4_K has blocks of 256. With zeros behind its rows, and a head of zeros behind each
//! three, it computes the same; a mean of squares over more numbers is smaller, which norms and their
//! epsilon make up for. So there is a trained model of each type.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::Context;
use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::model_file;

const OLD: usize = 192;
const NEW: usize = 256;
/// The inside of the feed-forward network, before and after.
const INSIDE: [usize; 2] = [640, 768];
const HEAD: usize = 32;
/// Heads of queries that share keys and values, before and after.
const GROUP: [usize; 2] = [3, 4];

/// Writes the file of tandem-mini at `source` anew, wider, as `kind`.
pub fn file(source: &Path, kind: &str) -> anyhow::Result<PathBuf> {
    let path = model_file::folder()?.join(format!("tandem-mini-wide-{kind}.gguf"));
    let mut file = BufReader::new(File::open(source)?);
    let mut content = Content::read(&mut file)?;
    for (key, value) in [
        ("embedding_length", NEW),
        ("feed_forward_length", INSIDE[1]),
        ("attention.head_count", OLD / HEAD / GROUP[0] * GROUP[1]),
    ] {
        let old = content
            .metadata
            .insert(format!("qwen3.{key}"), Value::U32(u32::try_from(value)?));
        old.with_context(|| format!("{} has no {key}", source.display()))?;
    }
    let epsilon = "qwen3.attention.layer_norm_rms_epsilon";
    let old = content
        .metadata
        .get(epsilon)
        .context("no epsilon")?
        .to_f32()?;
    let epsilon_there = Value::F32(old * OLD as f32 / NEW as f32);
    content.metadata.insert(epsilon.to_owned(), epsilon_there);
    let mut names: Vec<&String> = content.tensor_infos.keys().collect();
    names.sort();
    let mut tensors = Vec::new();
    for name in names {
        let tensor = content.tensor(&mut file, name, &Device::Cpu)?;
        let tensor = tensor.dequantize(&Device::Cpu)?;
        let (wide, dtype) = if tensor.rank() == 1 {
            (norm(name, &tensor)?, GgmlDType::F32)
        } else {
            (matrix(name, &tensor)?, dtype(kind, name))
        };
        tensors.push((name.as_str(), QTensor::quantize(&wide, dtype)?));
    }
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, t)| (*name, t)).collect();
    let metadata: Vec<(&str, &Value)> = content
        .metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    write(&mut File::create(&path)?, &metadata, &tensors)?;
    Ok(path)
}

fn dtype(kind: &str, name: &str) -> GgmlDType {
    let finer = ["token_embd", "attn_v", "ffn_down"];
    match kind {
        "q4_0" => GgmlDType::Q4_0,
        "q6_k" => GgmlDType::Q6K,
        "q4_k_m" if finer.iter().any(|part| name.contains(part)) => GgmlDType::Q6K,
        "q4_k_m" => GgmlDType::Q4K,
        _ => GgmlDType::F32,
    }
}

fn norm(name: &str, tensor: &Tensor) -> candle_core::Result<Tensor> {
    if name.contains("_q_norm") || name.contains("_k_norm") {
        return Ok(tensor.clone());
    }
    let scaled = (tensor * (OLD as f64 / NEW as f64).sqrt())?;
    scaled.pad_with_zeros(0, 0, NEW - OLD)
}

fn matrix(name: &str, tensor: &Tensor) -> candle_core::Result<Tensor> {
    let wider = |tensor: &Tensor, dim: usize| -> candle_core::Result<Tensor> {
        let old = tensor.dim(dim)?;
        let new = if old == INSIDE[0] { INSIDE[1] } else { NEW };
        tensor.pad_with_zeros(dim, 0, new - old)
    };
    if name.contains("attn_output") {
        wider(&heads(tensor, 1)?, 0)
    } else if name.contains("attn_q") {
        wider(&heads(tensor, 0)?, 1)
    } else if name.contains("ffn_") {
        wider(&wider(tensor, 0)?, 1)
    } else {
        wider(tensor, 1)
    }
}

/// With a head of zeros behind each group.
fn heads(tensor: &Tensor, dim: usize) -> candle_core::Result<Tensor> {
    let (old, more) = (GROUP[0] * HEAD, (GROUP[1] - GROUP[0]) * HEAD);
    let groups: Vec<Tensor> = (0..tensor.dim(dim)? / old)
        .map(|group| {
            tensor
                .narrow(dim, group * old, old)?
                .pad_with_zeros(dim, 0, more)
        })
        .collect::<candle_core::Result<_>>()?;
    Tensor::cat(&groups, dim)
}
