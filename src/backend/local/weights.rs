//! Where a model's tensors come from: a GGUF file or a folder with safetensors.
//!
//! Tensors are asked for by their GGUF names and by their shapes, so that a file that does not fit
//! its own configuration is refused before anything is computed with it.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Seek};
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::QMatMul;
use candle_core::safetensors::{BufferedSafetensors, Load};
use candle_core::{DType, Device, Tensor};

use super::error::LoadError;
use super::gguf::Gguf;

/// Weights that would take at most this much memory as float32 are kept as float32: computed with
/// exactly the file's values, where quantized products round activations to 8 bits. The goldens of
/// tandem-mini rest on it.
pub const FLOAT32_BYTES: usize = 96 << 20;

/// A source of tensors.
pub trait Weights {
    /// Where tensors are read to.
    fn device(&self) -> &Device;

    /// Elements in all tensors.
    fn elements(&self) -> usize;

    /// Whether there is such a tensor.
    fn contains(&self, name: &str) -> bool;

    /// A matrix to multiply by, `rows` outputs by `columns` inputs.
    ///
    /// # Errors
    /// [`LoadError`] when it is missing, has another shape or cannot be read.
    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<QMatMul, LoadError>;

    /// A vector, as float32.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor, LoadError>;
}

impl<R: Read + Seek> Weights for Gguf<R> {
    fn device(&self) -> &Device {
        Gguf::device(self)
    }

    fn elements(&self) -> usize {
        Gguf::elements(self)
    }

    fn contains(&self, name: &str) -> bool {
        Gguf::contains(self, name)
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<QMatMul, LoadError> {
        let small = self.elements() * size_of::<f32>() <= FLOAT32_BYTES;
        let tensor = self.tensor(name, &[rows, columns])?;
        let matrix = if small {
            tensor.dequantize(self.device()).map(QMatMul::Tensor)
        } else {
            QMatMul::from_arc(Arc::new(tensor))
        };
        matrix.map_err(|error| LoadError::candle(self.file(), name, &error))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor, LoadError> {
        self.tensor(name, &[length])?
            .dequantize(self.device())
            .map_err(|error| LoadError::candle(self.file(), name, &error))
    }
}

/// The shards of a folder.
pub struct Safetensors {
    folder: String,
    shards: Vec<BufferedSafetensors>,
    /// Hugging Face's tensor names to shards.
    shard_of: HashMap<String, usize>,
    device: Device,
}

impl Safetensors {
    /// Reads `model.safetensors`, or every shard that `model.safetensors.index.json` names. Tensors
    /// go onto `device`.
    ///
    /// # Errors
    /// [`LoadError`] when a file is missing, unreadable or malformed.
    pub fn open(folder: &Path, device: &Device) -> Result<Self, LoadError> {
        let mut opened = Self {
            folder: folder.display().to_string(),
            shards: Vec::new(),
            shard_of: HashMap::new(),
            device: device.clone(),
        };
        for shard in shard_names(folder)? {
            let path = folder.join(&shard);
            let name = path.display().to_string();
            let bytes = fs::read(&path).map_err(|error| LoadError::io(&name, &error))?;
            let shard = BufferedSafetensors::new(bytes)
                .map_err(|error| LoadError::candle(&name, "reading its header", &error))?;
            for (tensor, _) in shard.tensors() {
                opened.shard_of.insert(tensor, opened.shards.len());
            }
            opened.shards.push(shard);
        }
        Ok(opened)
    }

    fn tensor(&self, name: &str, dims: &[usize]) -> Result<Tensor, LoadError> {
        let name = hugging_face_name(name);
        let Some(shard) = self.shard_of.get(&name) else {
            return Err(LoadError::malformed(
                &self.folder,
                format!("the tensor {name} is missing"),
            ));
        };
        let failed = |error| LoadError::candle(&self.folder, &name, &error);
        let view = self.shards[*shard].get(&name).map_err(failed)?;
        if view.shape() != dims {
            let fact = format!(
                "the tensor {name} has the shape {:?}, config.json asks for {dims:?}",
                view.shape()
            );
            return Err(LoadError::malformed(&self.folder, fact));
        }
        view.load(&self.device)
            .and_then(|tensor| tensor.to_dtype(DType::F32))
            .map_err(failed)
    }
}

impl Weights for Safetensors {
    fn device(&self) -> &Device {
        &self.device
    }

    fn elements(&self) -> usize {
        let count = |shard: &BufferedSafetensors| -> usize {
            let tensors = shard.tensors();
            let elements = tensors
                .iter()
                .map(|(_, view)| view.shape().iter().product::<usize>());
            elements.sum()
        };
        self.shards.iter().map(count).sum()
    }

    fn contains(&self, name: &str) -> bool {
        self.shard_of.contains_key(&hugging_face_name(name))
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<QMatMul, LoadError> {
        Ok(QMatMul::Tensor(self.tensor(name, &[rows, columns])?))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor, LoadError> {
        self.tensor(name, &[length])
    }
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

fn shard_names(folder: &Path) -> Result<Vec<String>, LoadError> {
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        return Ok(vec!["model.safetensors".to_owned()]);
    }
    let name = index.display().to_string();
    let text = fs::read(&index).map_err(|error| LoadError::io(&name, &error))?;
    let Index { weight_map } = serde_json::from_slice(&text)
        .map_err(|error| LoadError::malformed(&name, format!("it is no shard index ({error})")))?;
    let mut shards: Vec<String> = weight_map.into_values().collect();
    shards.sort_unstable();
    shards.dedup();
    // A shard is a file of this folder: an index must not make us read anything else.
    if let Some(shard) = shards
        .iter()
        .find(|shard| Path::new(shard).file_name() != Some(shard.as_ref()))
    {
        let fact = format!("it names the shard {shard:?}, which is no file of its folder");
        return Err(LoadError::malformed(&name, fact));
    }
    Ok(shards)
}

/// The same tensor's name in Hugging Face's Qwen2 and Qwen3 (`modeling_qwen3.py` of transformers,
/// `tensor_mapping.py` of gguf-py).
fn hugging_face_name(name: &str) -> String {
    match name {
        "token_embd.weight" => return "model.embed_tokens.weight".to_owned(),
        "output_norm.weight" => return "model.norm.weight".to_owned(),
        "output.weight" => return "lm_head.weight".to_owned(),
        _ => {}
    }
    let mut parts = name.splitn(4, '.');
    let (_, layer, part, kind) = (parts.next(), parts.next(), parts.next(), parts.next());
    let part = match part.unwrap_or_default() {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        other => other,
    };
    format!(
        "model.layers.{}.{part}.{}",
        layer.unwrap_or_default(),
        kind.unwrap_or_default()
    )
}
