//! The arithmetic of the reference runtime: Qwen's blocks over a cache of fixed slots, in float32.
//!
//! It computes what ANEMLL's programs compute and in their terms (`qwen_model.py` of Anemll 0.3.4):
//! attention goes over every slot of the cache, the mask is added to the scores, and nothing is
//! known about a sequence but what the inputs say. The portable engine's `qwen` does the same
//! arithmetic over a cache that grows; the two share no code, so that each can vouch for the other.

use std::ops::Range;

use candle_core::quantized::QMatMul;
use candle_core::{Device, Module, Result, Tensor};
use candle_nn::ops::{rms_norm, softmax_last_dim};
use candle_nn::rotary_emb::rope;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::backend::local::error::LoadError;
use crate::backend::local::model_config::{Architecture, ModelConfig};
use crate::backend::local::weights::Weights;

/// A model's weights, in float32.
pub(super) struct Model {
    config: ModelConfig,
    embedding: QMatMul,
    blocks: Vec<Block>,
    norm: Tensor,
    head: QMatMul,
}

struct Block {
    attention_norm: Tensor,
    query: Projection,
    key: Projection,
    value: Projection,
    output: QMatMul,
    mlp_norm: Tensor,
    gate: QMatMul,
    up: QMatMul,
    down: QMatMul,
}

struct Projection {
    weight: QMatMul,
    bias: Option<Tensor>,
    norm: Option<Tensor>,
    heads: usize,
}

/// The keys and values of one sequence, as Core ML's state holds them: `[2 x layers, kv_heads,
/// context, head_dim]` in half precision; row `i` is K of layer `i`, row `layers + i` is V.
pub(super) struct Cache {
    shape: [usize; 4],
    values: Vec<f16>,
}

/// Where the tokens of one call stand.
pub(super) struct Place {
    /// The rotary position of each token.
    pub positions: Vec<i32>,
    /// The slot of the first token; the others follow it.
    pub slot: usize,
    /// `[tokens, context]`, added to the scores.
    pub mask: Tensor,
}

impl Model {
    /// Reads the weights.
    ///
    /// # Errors
    /// [`LoadError`] when a tensor is missing, has another shape or cannot be read.
    pub fn load(
        config: ModelConfig,
        weights: &mut dyn Weights,
    ) -> std::result::Result<Self, LoadError> {
        let (rows, hidden) = (config.vocabulary, config.hidden);
        let embedding = weights.matrix("token_embd.weight", rows, hidden)?;
        let blocks = (0..config.layers).map(|layer| Block::load(&config, weights, layer));
        let blocks = blocks.collect::<std::result::Result<_, _>>()?;
        let norm = weights.vector("output_norm.weight", hidden)?;
        let head = if weights.contains("output.weight") {
            weights.matrix("output.weight", rows, hidden)?
        } else {
            embedding.clone()
        };
        Ok(Self {
            config,
            embedding,
            blocks,
            norm,
            head,
        })
    }

    /// The model's dimensions.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Token ids, each below the vocabulary, to `[tokens, hidden]`.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        self.embedding.embedding(&Tensor::new(ids, &Device::Cpu)?)
    }

    /// `[tokens, hidden]` through the blocks `layers`; their keys and values go into the cache.
    pub fn run(
        &self,
        layers: Range<usize>,
        mut x: Tensor,
        place: &Place,
        cache: &mut Cache,
    ) -> Result<Tensor> {
        let rotary = self.rotary(&place.positions)?;
        for layer in layers {
            let block = &self.blocks[layer];
            let h = self.normed(&x, &block.attention_norm)?;
            let query = turned(&self.heads(&block.query, &h)?, &rotary)?;
            let key = turned(&self.heads(&block.key, &h)?, &rotary)?;
            let value = self.heads(&block.value, &h)?;
            let (key_row, value_row) = (layer, self.config.layers + layer);
            cache.write(key_row, place.slot, &key)?;
            cache.write(value_row, place.slot, &value)?;
            let (keys, values) = (cache.read(key_row)?, cache.read(value_row)?);
            let attended = attend(&query, &keys, &values, &place.mask)?;
            x = (x + block.output.forward(&attended)?)?;
            let h = self.normed(&x, &block.mlp_norm)?;
            let gated = (block.gate.forward(&h)?.silu()? * block.up.forward(&h)?)?;
            x = (x + block.down.forward(&gated)?)?;
        }
        Ok(x)
    }

    /// The norm before the logits.
    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        self.normed(x, &self.norm)
    }

    /// `[1, hidden]` to a logit for each row of the vocabulary.
    pub fn logits(&self, x: &Tensor) -> Result<Vec<f32>> {
        self.head.forward(x)?.squeeze(0)?.to_vec1()
    }

    fn normed(&self, x: &Tensor, gain: &Tensor) -> Result<Tensor> {
        rms_norm(x, gain, self.config.norm_epsilon as f32)
    }

    /// Cosines and sines, `[tokens, head_dim / 2]` each.
    fn rotary(&self, positions: &[i32]) -> Result<(Tensor, Tensor)> {
        let half = self.config.head_dim / 2;
        let angle = |position: i32, pair: usize| {
            let exponent = 2.0 * pair as f32 / self.config.head_dim as f32;
            position as f32 / (self.config.rope_theta as f32).powf(exponent)
        };
        let angles: Vec<f32> = positions
            .iter()
            .flat_map(|position| (0..half).map(|pair| angle(*position, pair)))
            .collect();
        let angles = Tensor::from_vec(angles, (positions.len(), half), &Device::Cpu)?;
        Ok((angles.cos()?, angles.sin()?))
    }

    /// `[tokens, hidden]` to `[heads, tokens, head_dim]`, normed where the generation norms.
    fn heads(&self, projection: &Projection, h: &Tensor) -> Result<Tensor> {
        let mut x = projection.weight.forward(h)?;
        if let Some(bias) = &projection.bias {
            x = x.broadcast_add(bias)?;
        }
        let mut x = x.reshape(((), projection.heads, self.config.head_dim))?;
        if let Some(norm) = &projection.norm {
            x = self.normed(&x, norm)?;
        }
        x.transpose(0, 1)?.contiguous()
    }
}

/// `query` `[heads, n, head_dim]` over all slots, keys and values `[kv_heads, context,
/// head_dim]`; `[n, heads * head_dim]`. Heads that share a key-value head are stacked.
fn attend(query: &Tensor, keys: &Tensor, values: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let (heads, count, head_dim) = query.dims3()?;
    let (kv_heads, slots, _) = keys.dims3()?;
    let stacked = query.reshape((kv_heads, heads / kv_heads * count, head_dim))?;
    let scale = (head_dim as f64).powf(-0.5);
    let scores = (stacked.matmul(&keys.t()?)? * scale)?
        .reshape((heads, count, slots))?
        .broadcast_add(mask)?
        .reshape((kv_heads, (), slots))?;
    softmax_last_dim(&scores)?
        .matmul(values)?
        .reshape((heads, count, head_dim))?
        .transpose(0, 1)?
        .reshape((count, heads * head_dim))
}

/// Queries or keys `[heads, tokens, head_dim]`, turned by their positions.
fn turned(x: &Tensor, (cosine, sine): &(Tensor, Tensor)) -> Result<Tensor> {
    rope(&x.unsqueeze(0)?, cosine, sine)?.squeeze(0)
}

impl Block {
    fn load(
        config: &ModelConfig,
        weights: &mut dyn Weights,
        layer: usize,
    ) -> std::result::Result<Self, LoadError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (hidden, head_dim) = (config.hidden, config.head_dim);
        let mut projection = |part: &str, heads: usize, normed: bool| {
            let rows = heads * head_dim;
            let (mut bias, mut norm) = (None, None);
            if config.architecture == Architecture::Qwen2 {
                bias = Some(weights.vector(&name(&format!("{part}.bias")), rows)?);
            } else if normed {
                norm = Some(weights.vector(&name(&format!("{part}_norm.weight")), head_dim)?);
            }
            let weight = weights.matrix(&name(&format!("{part}.weight")), rows, hidden)?;
            Ok(Projection {
                weight,
                bias,
                norm,
                heads,
            })
        };
        let query = projection("attn_q", config.heads, true)?;
        let key = projection("attn_k", config.kv_heads, true)?;
        let value = projection("attn_v", config.kv_heads, false)?;
        let attention = config.heads * head_dim;
        let inner = config.intermediate;
        Ok(Self {
            query,
            key,
            value,
            attention_norm: weights.vector(&name("attn_norm.weight"), hidden)?,
            output: weights.matrix(&name("attn_output.weight"), hidden, attention)?,
            mlp_norm: weights.vector(&name("ffn_norm.weight"), hidden)?,
            gate: weights.matrix(&name("ffn_gate.weight"), inner, hidden)?,
            up: weights.matrix(&name("ffn_up.weight"), inner, hidden)?,
            down: weights.matrix(&name("ffn_down.weight"), hidden, inner)?,
        })
    }
}

impl Cache {
    /// An empty cache; `None` when there is no room for it.
    pub fn zeroed(shape: [usize; 4]) -> Option<Self> {
        let elements = shape
            .iter()
            .try_fold(1, |all: usize, size| all.checked_mul(*size))?;
        let mut values = Vec::new();
        values.try_reserve_exact(elements).ok()?;
        values.resize(elements, f16::ZERO);
        Some(Self { shape, values })
    }

    /// How many slots each row has.
    pub fn context(&self) -> usize {
        self.shape[2]
    }

    /// The sum of absolute values of each row.
    pub fn abs_sum_by_row(&self) -> Vec<f64> {
        let row = self.values.len() / self.shape[0];
        let sum = |row: &[f16]| {
            row.iter()
                .map(|value| f64::from(value.to_f32().abs()))
                .sum()
        };
        self.values.chunks(row).map(sum).collect()
    }

    /// `[kv_heads, tokens, head_dim]`, rounded to half precision, into the slots from `slot` on.
    fn write(&mut self, row: usize, slot: usize, tensor: &Tensor) -> Result<()> {
        let [_, heads, context, width] = self.shape;
        let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        let tokens = tensor.dim(1)?;
        for (head, values) in values.chunks(tokens * width).enumerate() {
            let at = ((row * heads + head) * context + slot) * width;
            self.values[at..at + values.len()].convert_from_f32_slice(values);
        }
        Ok(())
    }

    /// All slots of a row, `[kv_heads, context, head_dim]`.
    fn read(&self, row: usize) -> Result<Tensor> {
        let [_, heads, context, width] = self.shape;
        let length = heads * context * width;
        let values = self.values[row * length..(row + 1) * length].to_f32_vec();
        Tensor::from_vec(values, (heads, context, width), &Device::Cpu)
    }
}
