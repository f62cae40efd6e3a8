//! The forward pass of Qwen2, Qwen2.5 and Qwen3 (dense), on candle's CPU tensors.
//!
//! After `modeling_qwen2.py` and `modeling_qwen3.py` of Hugging Face transformers; the tests hold
//! the logits to theirs. Activations are `[tokens, hidden]`, without a batch dimension.

use candle_core::quantized::QMatMul;
use candle_core::{Device, Module, Result, Storage, Tensor};
use candle_nn::ops::{rms_norm, softmax_last_dim};
use candle_nn::rotary_emb::rope;

use super::LanguageModel;
use super::error::{LoadError, arithmetic};
use super::model_config::{Architecture, ModelConfig};
use super::payoff::MOST;
use super::sampler::Scores;
use super::sequence::{KvShape, Sequence};
use super::weights::Weights;
use super::window::Window;
use crate::inference::GenerateError;

/// A loaded model.
#[derive(Debug)]
pub struct Qwen {
    config: ModelConfig,
    context_tokens: usize,
    embedding: QMatMul,
    layers: Vec<Layer>,
    norm: Tensor,
    head: QMatMul,
    device: Device,
    /// `[positions, head_dim / 2]` each.
    cosine: Tensor,
    sine: Tensor,
}

#[derive(Debug)]
struct Layer {
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

/// A projection into heads, with what each generation puts behind it.
#[derive(Debug)]
struct Projection {
    weight: QMatMul,
    bias: Option<Tensor>,
    norm: Option<Tensor>,
    heads: usize,
}

impl Qwen {
    /// Reads the weights; `context_tokens` bounds the positions that will be asked for.
    ///
    /// # Errors
    /// [`LoadError`] when a tensor is missing, has another shape or cannot be read.
    pub fn load(
        config: ModelConfig,
        weights: &mut dyn Weights,
        context_tokens: usize,
        file: &str,
    ) -> std::result::Result<Self, LoadError> {
        let ModelConfig {
            hidden, vocabulary, ..
        } = config;
        let embedding = weights.matrix("token_embd.weight", vocabulary, hidden)?;
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            layers.push(Layer::load(&config, weights, layer)?);
        }
        let norm = weights.vector("output_norm.weight", hidden)?;
        let head = if weights.contains("output.weight") {
            weights.matrix("output.weight", vocabulary, hidden)?
        } else {
            embedding.clone()
        };
        let (cosine, sine) = rotary_table(&config, context_tokens, weights.device())
            .map_err(|error| LoadError::candle(file, "making the rotary table", &error))?;
        Ok(Self {
            config,
            context_tokens,
            embedding,
            layers,
            norm,
            head,
            device: weights.device().clone(),
            cosine,
            sine,
        })
    }

    fn compute(
        &self,
        tokens: &[u32],
        sequence: &mut Sequence,
        scored: usize,
        logits: &mut Vec<f32>,
    ) -> Result<()> {
        let start = sequence.len();
        let count = tokens.len();
        sequence.reserve(count)?;
        let ids = Tensor::new(tokens, &self.device)?;
        let mut x = self.embedding.embedding(&ids)?;
        let cosine = self.cosine.narrow(0, start, count)?;
        let sine = self.sine.narrow(0, start, count)?;
        let mask = (count > 1)
            .then(|| causal_mask(start, count, &self.device))
            .transpose()?;
        let last = self.layers.len() - 1;
        for (index, layer) in self.layers.iter().enumerate() {
            let h = rms_norm(&x, &layer.attention_norm, self.epsilon())?;
            let keys = self.heads(&layer.key, &h, &cosine, &sine)?;
            let values = self.split_heads(&layer.value, &h)?;
            let (keys, values) = sequence.append(index, &keys, &values)?;
            // The last layer's output is wanted at the scored positions only, or not at all: its keys
            // and values are all that later tokens need of the other positions.
            if index < last {
                let query = self.heads(&layer.query, &h, &cosine, &sine)?;
                let attended = self.attend(&query, &keys, &values, mask.as_ref())?;
                x = (x + layer.output.forward(&attended)?)?;
            } else if scored > 0 {
                let first = count - scored;
                let h = h.narrow(0, first, scored)?;
                let cosine = cosine.narrow(0, first, scored)?;
                let sine = sine.narrow(0, first, scored)?;
                let mask = mask.as_ref().filter(|_| scored > 1);
                let mask = mask.map(|mask| mask.narrow(0, first, scored));
                let mask = mask.transpose()?;
                let query = self.heads(&layer.query, &h, &cosine, &sine)?;
                let attended = self.attend(&query, &keys, &values, mask.as_ref())?;
                x = (x.narrow(0, first, scored)? + layer.output.forward(&attended)?)?;
            } else {
                break;
            }
            let h = rms_norm(&x, &layer.mlp_norm, self.epsilon())?;
            let gated = (layer.gate.forward(&h)?.silu()? * layer.up.forward(&h)?)?;
            x = (x + layer.down.forward(&gated)?)?;
        }
        if scored > 0 {
            let h = rms_norm(&x, &self.norm, self.epsilon())?;
            // Nothing is copied here where they are in the processor's memory already.
            let computed = self
                .head
                .forward(&h)?
                .contiguous()?
                .to_device(&Device::Cpu)?;
            let (storage, layout) = computed.storage_and_layout();
            let Storage::Cpu(storage) = &*storage else {
                candle_core::bail!("the logits are not in the processor's memory");
            };
            let start = layout.start_offset();
            let rows = &storage.as_slice::<f32>()?[start..start + computed.elem_count()];
            logits.clear();
            logits.extend_from_slice(rows);
        }
        sequence.push(tokens);
        Ok(())
    }

    /// `[tokens, hidden]` to `[heads, tokens, head_dim]`, normed where the generation norms.
    fn split_heads(&self, projection: &Projection, h: &Tensor) -> Result<Tensor> {
        let mut x = projection.weight.forward(h)?;
        if let Some(bias) = &projection.bias {
            x = x.broadcast_add(bias)?;
        }
        let mut x = x.reshape(((), projection.heads, self.config.head_dim))?;
        if let Some(norm) = &projection.norm {
            x = rms_norm(&x, norm, self.epsilon())?;
        }
        x.transpose(0, 1)?.contiguous()
    }

    /// The same, turned by position.
    fn heads(
        &self,
        projection: &Projection,
        h: &Tensor,
        cosine: &Tensor,
        sine: &Tensor,
    ) -> Result<Tensor> {
        let x = self.split_heads(projection, h)?.unsqueeze(0)?;
        rope(&x, cosine, sine)?.squeeze(0)
    }

    /// Attention of `query` `[heads, n, head_dim]` over keys and values `[kv_heads, m, head_dim]`;
    /// `[n, heads * head_dim]`. Query heads that share a key-value head are stacked into the rows of
    /// one product, so that keys and values are never repeated in memory.
    fn attend(
        &self,
        query: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        let ModelConfig {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.config;
        let count = query.dim(1)?;
        let length = keys.dim(1)?;
        let stacked = (kv_heads, heads / kv_heads * count, head_dim);
        let query = (query.reshape(stacked)? * (head_dim as f64).powf(-0.5))?;
        let mut scores = query.matmul(&keys.t()?)?;
        if let Some(mask) = mask {
            scores = scores
                .reshape((heads, count, length))?
                .broadcast_add(mask)?
                .reshape((kv_heads, (), length))?;
        }
        softmax_last_dim(&scores)?
            .matmul(values)?
            .reshape((heads, count, head_dim))?
            .transpose(0, 1)?
            .reshape((count, heads * head_dim))
    }

    fn epsilon(&self) -> f32 {
        self.config.norm_epsilon as f32
    }
}

impl LanguageModel for Qwen {
    fn sequence(&mut self) -> std::result::Result<Sequence, GenerateError> {
        let shape = KvShape {
            layers: self.config.layers,
            heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
        };
        Ok(Sequence::in_tensors(shape, &self.device))
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        sequence: &mut Sequence,
        scores: Option<&mut Scores>,
    ) -> std::result::Result<(), GenerateError> {
        let computed = match scores {
            Some(scores) => {
                scores.best = None;
                self.compute(tokens, sequence, 1, &mut scores.logits)
            }
            None => self.compute(tokens, sequence, 0, &mut Vec::new()),
        };
        computed.map_err(|error| arithmetic(&error))
    }

    fn ahead(&self) -> usize {
        MOST
    }

    fn forward_all(
        &mut self,
        tokens: &[u32],
        sequence: &mut Sequence,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), GenerateError> {
        self.compute(tokens, sequence, tokens.len(), logits)
            .map_err(|error| arithmetic(&error))
    }

    fn window(&self) -> Window {
        Window::fixed(self.context_tokens)
    }
}

impl Layer {
    fn load(
        config: &ModelConfig,
        weights: &mut dyn Weights,
        layer: usize,
    ) -> std::result::Result<Self, LoadError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let ModelConfig {
            hidden,
            intermediate,
            heads,
            kv_heads,
            head_dim,
            ..
        } = *config;
        let mut projection = |part: &str, heads: usize, normed: bool| {
            let rows = heads * head_dim;
            let weight = weights.matrix(&name(&format!("{part}.weight")), rows, hidden)?;
            let (bias, norm) = match config.architecture {
                Architecture::Qwen2 => {
                    let bias = weights.vector(&name(&format!("{part}.bias")), rows)?;
                    (Some(bias), None)
                }
                Architecture::Qwen3 if normed => {
                    let norm = weights.vector(&name(&format!("{part}_norm.weight")), head_dim)?;
                    (None, Some(norm))
                }
                Architecture::Qwen3 => (None, None),
            };
            Ok(Projection {
                weight,
                bias,
                norm,
                heads,
            })
        };
        Ok(Self {
            query: projection("attn_q", heads, true)?,
            key: projection("attn_k", kv_heads, true)?,
            value: projection("attn_v", kv_heads, false)?,
            attention_norm: weights.vector(&name("attn_norm.weight"), hidden)?,
            output: weights.matrix(&name("attn_output.weight"), hidden, heads * head_dim)?,
            mlp_norm: weights.vector(&name("ffn_norm.weight"), hidden)?,
            gate: weights.matrix(&name("ffn_gate.weight"), intermediate, hidden)?,
            up: weights.matrix(&name("ffn_up.weight"), intermediate, hidden)?,
            down: weights.matrix(&name("ffn_down.weight"), hidden, intermediate)?,
        })
    }
}

/// Cosines and sines by position, in float32 throughout as transformers computes them.
fn rotary_table(
    config: &ModelConfig,
    positions: usize,
    device: &Device,
) -> Result<(Tensor, Tensor)> {
    let half = config.head_dim / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| 1.0 / (config.rope_theta as f32).powf(2.0 * i as f32 / config.head_dim as f32))
        .collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), device)?;
    let angles = Tensor::arange(0, positions as u32, device)?
        .to_dtype(candle_core::DType::F32)?
        .reshape((positions, 1))?
        .broadcast_mul(&frequencies)?;
    Ok((angles.cos()?, angles.sin()?))
}

/// `[count, start + count]`: 0 where the token may look, minus infinity where not.
fn causal_mask(start: usize, count: usize, device: &Device) -> Result<Tensor> {
    let length = start + count;
    let mut mask = vec![0f32; count * length];
    for (row, allowed) in mask.chunks_mut(length).zip(start + 1..) {
        row[allowed..].fill(f32::NEG_INFINITY);
    }
    Tensor::from_vec(mask, (count, length), device)
}
