//! Qwen from a GGUF file on the processor, by kernels of our own (`tandem_kernels`).
//!
//! Quantized weights keep the file's codes, in another order; activations are rounded to 8 bits for
//! each product, as candle and llama.cpp do. A model that is small enough is kept in float32 and
//! computed with exactly the file's values.

use std::collections::HashMap;
use std::io::{Read, Seek};
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use candle_core::quantized::GgmlDType;
use tandem_kernels::format::Stored;
use tandem_kernels::kernels::Kernels;
use tandem_kernels::matrix::{Matrix, Packed, TILE};
use tandem_kernels::memory::{LargePages, Memory};
use tandem_kernels::model::{BATCH, Dimensions, Layer, Model, Projection, Weights};
use tokio_util::sync::CancellationToken;

use super::LanguageModel;
use super::error::LoadError;
use super::gguf::Gguf;
use super::model_config::{Architecture, ModelConfig};
use super::payoff::MOST;
use super::read_at::ReadAt;
use super::sampler::Scores;
use super::sequence::Sequence;
use super::weights::FLOAT32_BYTES;
use super::window::Window;
use crate::inference::{ErrorKind, GenerateError};

/// What a thread reads at once: enough that reading is fast, and little enough that it is still in the
/// processor's cache when it is packed.
const PIECE_BYTES: usize = 256 << 10;

/// A loaded model.
#[derive(Debug)]
pub struct PackedQwen {
    model: Model,
    large_pages: LargePages,
    context_tokens: usize,
    vocabulary: usize,
    cancel: Option<CancellationToken>,
}

/// That a model can be computed here, and how.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    kernels: Kernels,
    exact: bool,
}

impl Plan {
    /// Looks whether the model in `gguf` can be computed at all: by the kernels that define the result,
    /// which are slow.
    ///
    /// # Errors
    /// Why not, as half a sentence.
    pub fn new<R: Read + Seek>(gguf: &Gguf<R>, config: &ModelConfig) -> Result<Self, String> {
        if !dimensions(config).fit() {
            return Err("a width is no multiple of 32".to_owned());
        }
        let exact = gguf.elements() * size_of::<f32>() <= FLOAT32_BYTES;
        for (name, _) in matrices(config, gguf.contains(HEAD)) {
            let dtype = gguf.stored(&name);
            let known = dtype.and_then(stored);
            if known.is_none_or(|stored| !exact && Packed::of(stored) == Packed::F32) {
                let kind = dtype.map_or_else(|| "missing".to_owned(), |dtype| format!("{dtype:?}"));
                return Err(format!("the tensor {name} is {kind}"));
            }
        }
        Ok(Self {
            kernels: Kernels::portable(),
            exact,
        })
    }

    /// The same by the best kernels of this processor that prove themselves.
    #[must_use]
    pub fn proven(self) -> Self {
        let (kernels, rejected) = Kernels::best();
        for wrong in &rejected {
            tracing::warn!(wrong, "kernels that do not prove themselves are not used");
        }
        Self { kernels, ..self }
    }

    /// Whether only the slow kernels, which every processor has, are left.
    #[must_use]
    pub fn is_portable(&self) -> bool {
        self.kernels.name == Kernels::portable().name
    }

    /// The same on the file's codes, however small the model. Files of float32 have none.
    #[must_use]
    pub fn rounded(self) -> Self {
        Self {
            exact: false,
            ..self
        }
    }

    /// Whether the weights are kept in float32.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// The name of the kernels.
    #[must_use]
    pub fn kernels(&self) -> &'static str {
        self.kernels.name
    }
}

impl PackedQwen {
    /// Reads the weights of a model that was planned; `context_tokens` bounds the positions that will
    /// be asked for.
    ///
    /// # Errors
    /// [`LoadError`] when a tensor is missing, has another shape or cannot be read.
    pub fn load<R: Read + Seek + ReadAt>(
        config: &ModelConfig,
        gguf: &mut Gguf<R>,
        plan: Plan,
        threads: usize,
        context_tokens: usize,
    ) -> Result<Self, LoadError> {
        let (matrices, memory) = packed(config, gguf, plan.exact, threads)?;
        let mut source = Source { gguf, matrices };
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            layers.push(source.layer(config, layer)?);
        }
        let embedding = source.matrix(EMBEDDING)?;
        let norm = source.vector("output_norm.weight", config.hidden)?;
        let head = if source.gguf.contains(HEAD) {
            Some(source.matrix(HEAD)?)
        } else {
            None
        };
        let weights = Weights {
            embedding,
            layers,
            norm,
            head,
        };
        Ok(Self {
            model: Model::new(dimensions(config), weights, plan.kernels, threads),
            large_pages: memory.into_large_pages(),
            context_tokens,
            vocabulary: config.vocabulary,
            cancel: None,
        })
    }

    /// How many threads compute.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.model.threads()
    }
}

impl LanguageModel for PackedQwen {
    fn sequence(&mut self) -> Result<Sequence, GenerateError> {
        Ok(Sequence::in_pages(self.model.cache_shape()))
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        sequence: &mut Sequence,
        scores: Option<&mut Scores>,
    ) -> Result<(), GenerateError> {
        let Some(scores) = scores else {
            return self.compute(tokens, sequence, 0, &mut Vec::new());
        };
        scores.best = None;
        self.compute(tokens, sequence, 1, &mut scores.logits)
    }

    fn heed(&mut self, cancel: Option<&CancellationToken>) {
        self.cancel = cancel.cloned();
    }

    fn settle(&mut self) -> bool {
        self.large_pages.step()
    }

    fn ahead(&self) -> usize {
        MOST
    }

    fn forward_all(
        &mut self,
        tokens: &[u32],
        sequence: &mut Sequence,
        logits: &mut Vec<f32>,
    ) -> Result<(), GenerateError> {
        self.compute(tokens, sequence, tokens.len(), logits)
    }

    fn window(&self) -> Window {
        Window::fixed(self.context_tokens)
    }
}

impl PackedQwen {
    /// Computes `tokens` behind those in `sequence`, and the logits of the last `scored` of them.
    fn compute(
        &mut self,
        tokens: &[u32],
        sequence: &mut Sequence,
        scored: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), GenerateError> {
        let start = sequence.len();
        if let Some(token) = tokens
            .iter()
            .find(|token| **token as usize >= self.vocabulary)
        {
            let rows = self.vocabulary;
            return Err(refused(&format!(
                "there is no token {token} among its {rows}"
            )));
        }
        if tokens.is_empty() || start + tokens.len() > self.context_tokens || scored > BATCH {
            let (count, most) = (tokens.len(), self.context_tokens);
            return Err(refused(&format!(
                "{count} tokens do not fit behind {start} of {most}"
            )));
        }
        let shape = self.model.cache_shape();
        let Some(cache) = sequence.pages().filter(|cache| cache.shape() == shape) else {
            return Err(refused("the sequence is another model's"));
        };
        let cancel = &self.cancel;
        let stop = || cancel.as_ref().is_some_and(CancellationToken::is_cancelled);
        let model = &mut self.model;
        let computed = model.forward_until(tokens, start, cache, scored, logits, stop);
        sequence.push(&tokens[..computed]);
        if computed < tokens.len() {
            return Err(GenerateError::cancelled());
        }
        Ok(())
    }
}

fn refused(fact: &str) -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        format!("the local model's arithmetic failed ({fact})"),
        "Try again; if it happens twice, download the model again.",
    )
}

/// The layout's name for a type, where it has one.
fn stored(dtype: GgmlDType) -> Option<Stored> {
    Some(match dtype {
        GgmlDType::F32 => Stored::F32,
        GgmlDType::F16 => Stored::F16,
        GgmlDType::BF16 => Stored::BF16,
        GgmlDType::Q4_0 => Stored::Q4_0,
        GgmlDType::Q8_0 => Stored::Q8_0,
        GgmlDType::Q4K => Stored::Q4K,
        GgmlDType::Q6K => Stored::Q6K,
        _ => return None,
    })
}

fn dimensions(config: &ModelConfig) -> Dimensions {
    Dimensions {
        hidden: config.hidden,
        intermediate: config.intermediate,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        vocabulary: config.vocabulary,
        norm_epsilon: config.norm_epsilon as f32,
        rope_theta: config.rope_theta as f32,
    }
}

const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";

/// All matrices by name, outputs by inputs.
fn matrices(
    config: &ModelConfig,
    has_head: bool,
) -> impl Iterator<Item = (String, [usize; 2])> + use<> {
    let ModelConfig {
        hidden,
        intermediate,
        vocabulary,
        head_dim,
        ..
    } = *config;
    let (queries, keys) = (config.heads * head_dim, config.kv_heads * head_dim);
    let parts = [
        ("attn_q", [queries, hidden]),
        ("attn_k", [keys, hidden]),
        ("attn_v", [keys, hidden]),
        ("attn_output", [hidden, queries]),
        ("ffn_gate", [intermediate, hidden]),
        ("ffn_up", [intermediate, hidden]),
        ("ffn_down", [hidden, intermediate]),
    ];
    let of_layers = (0..config.layers).flat_map(move |layer| {
        parts.map(|(part, dims)| (format!("blk.{layer}.{part}.weight"), dims))
    });
    let head = has_head.then_some(HEAD);
    std::iter::once(EMBEDDING)
        .chain(head)
        .map(move |name| (name.to_owned(), [vocabulary, hidden]))
        .chain(of_layers)
}

/// A matrix in the file.
struct Place {
    name: String,
    stored: Stored,
    /// Of its first byte.
    offset: u64,
    /// Rows and columns.
    dims: [usize; 2],
    /// How it will be held.
    packed: Packed,
}

/// One that is being read.
struct Room {
    place: Place,
    matrix: Matrix,
}

/// All matrices, packed, and the memory that they lie in.
fn packed<R: Read + Seek + ReadAt>(
    config: &ModelConfig,
    gguf: &Gguf<R>,
    exact: bool,
    threads: usize,
) -> Result<(HashMap<String, Matrix>, Memory), LoadError> {
    let mut places = Vec::new();
    for (name, dims) in matrices(config, gguf.contains(HEAD)) {
        let Some(stored) = gguf.stored(&name).and_then(stored) else {
            let fact = format!("the tensor {name} is missing, or of another type than it was");
            return Err(LoadError::malformed(gguf.file(), fact));
        };
        // Checked before room is made for it.
        let offset = gguf.offset(&name, &dims)?;
        let packed = if exact {
            Packed::F32
        } else {
            Packed::of(stored)
        };
        places.push(Place {
            name,
            stored,
            offset,
            dims,
            packed,
        });
    }
    let lengths = |place: &Place| Matrix::lengths(place.dims[0], place.dims[1], place.packed);
    let mut memory = Memory::of(places.iter().flat_map(lengths));
    let mut rooms: Vec<Room> = places
        .into_iter()
        .map(|place| Room {
            matrix: Matrix::within(&mut memory, place.dims[0], place.dims[1], place.packed),
            place,
        })
        .collect();
    fill(&mut rooms, gguf, threads)?;
    let named = rooms.into_iter().map(|room| (room.place.name, room.matrix));
    Ok((named.collect(), memory))
}

/// Has `threads` take piece after piece from the file.
fn fill<R: Read + Seek + ReadAt>(
    rooms: &mut [Room],
    gguf: &Gguf<R>,
    threads: usize,
) -> Result<(), LoadError> {
    let pieces = rooms.iter_mut().flat_map(|room| {
        let (stored, offset) = (room.place.stored, room.place.offset);
        let row_bytes = stored.row_bytes(room.matrix.columns());
        let tiles = (PIECE_BYTES / (TILE * row_bytes)).max(1);
        room.matrix.pieces(tiles).map(move |piece| {
            let from = offset + (piece.first() * row_bytes) as u64;
            (piece.rows() * row_bytes, from, stored, piece)
        })
    });
    let pieces = Mutex::new(pieces);
    let next = || {
        let mut pieces = pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.next()
    };
    let work = || -> Result<(), LoadError> {
        let mut buffer = Vec::new();
        while let Some((length, from, stored, mut piece)) = next() {
            buffer.resize(length.max(buffer.len()), 0);
            gguf.read_at(from, &mut buffer[..length])?;
            piece.pack(stored, &buffer[..length]);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        others.into_iter().fold(own, |result, other| {
            let other = other.join().unwrap_or_else(|panic| resume_unwind(panic));
            result.and(other)
        })
    })
}

/// A file whose matrices have been packed.
struct Source<'a, R> {
    gguf: &'a mut Gguf<R>,
    matrices: HashMap<String, Matrix>,
}

impl<R: Read + Seek> Source<'_, R> {
    fn layer(&mut self, config: &ModelConfig, layer: usize) -> Result<Layer, LoadError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let ModelConfig {
            hidden,
            heads,
            kv_heads,
            head_dim,
            ..
        } = *config;
        let mut projection = |part: &str, heads: usize, normed: bool| {
            let mut projection = Projection {
                weight: self.matrix(&name(&format!("{part}.weight")))?,
                bias: Vec::new(),
                norm: Vec::new(),
            };
            match config.architecture {
                Architecture::Qwen2 => {
                    let bias = name(&format!("{part}.bias"));
                    projection.bias = self.vector(&bias, heads * head_dim)?;
                }
                Architecture::Qwen3 if normed => {
                    projection.norm =
                        self.vector(&name(&format!("{part}_norm.weight")), head_dim)?;
                }
                Architecture::Qwen3 => {}
            }
            Ok(projection)
        };
        Ok(Layer {
            query: projection("attn_q", heads, true)?,
            key: projection("attn_k", kv_heads, true)?,
            value: projection("attn_v", kv_heads, false)?,
            attention_norm: self.vector(&name("attn_norm.weight"), hidden)?,
            output: self.matrix(&name("attn_output.weight"))?,
            mlp_norm: self.vector(&name("ffn_norm.weight"), hidden)?,
            gate: self.matrix(&name("ffn_gate.weight"))?,
            up: self.matrix(&name("ffn_up.weight"))?,
            down: self.matrix(&name("ffn_down.weight"))?,
        })
    }

    fn matrix(&mut self, name: &str) -> Result<Matrix, LoadError> {
        self.matrices.remove(name).ok_or_else(|| {
            LoadError::malformed(self.gguf.file(), format!("the tensor {name} is missing"))
        })
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.gguf.tensor(name, &[length])?;
        tensor
            .dequantize(&candle_core::Device::Cpu)
            .and_then(|tensor| tensor.to_vec1())
            .map_err(|error| LoadError::candle(self.gguf.file(), name, &error))
    }
}
