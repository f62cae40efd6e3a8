//! The forward pass of Qwen2, Qwen2.5 and Qwen3 (dense) on packed weights.
//!
//! Whatever a matrix gives lies tile by tile: `[tiles, tokens, 16]`. So the threads that compute
//! different tiles write to different places, and what is then computed of 32 columns finds them side
//! by side for all tokens.

use crate::cache::{Cache, CacheShape, Precision};
use crate::format::BLOCK;
use crate::kernels::Kernels;
use crate::lanes::Lanes;
use crate::matrix::{Matrix, Packed, TILE};
use crate::step::{ATTENTION_ROWS, Activations, Engine, Heads, Turns};

/// Tokens computed at once: enough that a weight is read from memory seldom, few enough that what is
/// computed in between stays in the cache.
pub const BATCH: usize = 128;
/// The dimensions of a model.
#[derive(Debug, Clone, Copy)]
pub struct Dimensions {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the MLP.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Epsilon of every norm.
    pub norm_epsilon: f32,
    /// Base of the rotary embedding.
    pub rope_theta: f32,
}

impl Dimensions {
    /// Whether every width is whole blocks, as the layout needs it.
    #[must_use]
    pub fn fit(&self) -> bool {
        [self.hidden, self.intermediate, self.heads * self.head_dim]
            .iter()
            .all(|width| width.is_multiple_of(BLOCK))
    }

    pub(crate) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Tokens in a piece of attention.
    pub(crate) fn piece(&self, tokens: usize) -> usize {
        (ATTENTION_ROWS / self.group()).clamp(1, tokens)
    }
}

/// A projection into heads.
#[derive(Debug)]
pub struct Projection {
    /// `[heads * head_dim, hidden]`.
    pub weight: Matrix,
    /// Added to it; empty where there is none.
    pub bias: Vec<f32>,
    /// The norm of each head; empty where there is none.
    pub norm: Vec<f32>,
}

/// A transformer block.
#[derive(Debug)]
pub struct Layer {
    /// Before attention.
    pub attention_norm: Vec<f32>,
    /// Queries.
    pub query: Projection,
    /// Keys.
    pub key: Projection,
    /// Values.
    pub value: Projection,
    /// What attention gives.
    pub output: Matrix,
    /// Before the MLP.
    pub mlp_norm: Vec<f32>,
    /// The MLP's gate.
    pub gate: Matrix,
    /// What it lets through.
    pub up: Matrix,
    /// The MLP's result.
    pub down: Matrix,
}

/// All weights.
#[derive(Debug)]
pub struct Weights {
    /// `[vocabulary, hidden]`.
    pub embedding: Matrix,
    /// From the first to the last.
    pub layers: Vec<Layer>,
    /// Before the head.
    pub norm: Vec<f32>,
    /// `[vocabulary, hidden]`; where there is none, the embedding is it.
    pub head: Option<Matrix>,
}

/// A model, ready to compute.
#[derive(Debug)]
pub struct Model {
    dimensions: Dimensions,
    weights: Weights,
    engine: Engine,
    turns: Turns,
    /// The residual stream.
    x: Vec<Lanes>,
    /// Those of its tokens that are scored.
    x_scored: Vec<Lanes>,
    /// Queries, keys and values.
    qkv: Vec<Lanes>,
    /// `[kv_heads, tokens, heads / kv_heads, head_dim]`.
    attended: Vec<f32>,
    /// Of the width of the residual stream.
    narrow: Activations,
    /// Of the width of all heads, then of the MLP.
    wide: Activations,
    /// As many as the vocabulary has tiles.
    scores: Vec<Lanes>,
    row: Vec<f32>,
}

impl Model {
    /// A model of these weights, computed by `kernels` on `threads`. Its matrices are either all of
    /// codes or all of float32.
    ///
    /// # Panics
    /// When the dimensions do not [`fit`](Dimensions::fit).
    #[must_use]
    pub fn new(dimensions: Dimensions, weights: Weights, kernels: Kernels, threads: usize) -> Self {
        assert!(dimensions.fit(), "widths are whole blocks");
        let Dimensions {
            hidden,
            intermediate,
            heads,
            kv_heads,
            head_dim,
            ..
        } = dimensions;
        let exact = weights.embedding.packed() == Packed::F32;
        let tiles = |width: usize| width.div_ceil(TILE) * BATCH;
        Self {
            x: vec![Lanes::ZERO; tiles(hidden)],
            x_scored: vec![Lanes::ZERO; tiles(hidden)],
            qkv: vec![Lanes::ZERO; tiles(heads * head_dim) + 2 * tiles(kv_heads * head_dim)],
            attended: vec![0.0; (BATCH + ATTENTION_ROWS) * heads * head_dim],
            narrow: Activations::new(hidden, exact),
            wide: Activations::new(intermediate.max(heads * head_dim), exact),
            scores: vec![Lanes::ZERO; dimensions.vocabulary.div_ceil(TILE).max(BATCH)],
            row: vec![0.0; hidden],
            engine: Engine::new(kernels, threads, &dimensions),
            dimensions,
            weights,
            turns: Turns::new(&dimensions),
        }
    }

    /// What computes it.
    #[must_use]
    pub fn kernels(&self) -> &Kernels {
        &self.engine.kernels
    }

    /// How many threads compute.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.engine.pool.threads()
    }

    /// Of what size its keys and values are.
    #[must_use]
    pub fn cache_shape(&self) -> CacheShape {
        CacheShape {
            layers: self.weights.layers.len(),
            heads: self.dimensions.kv_heads,
            head_dim: self.dimensions.head_dim,
            precision: if self.weights.embedding.packed() == Packed::F32 {
                Precision::Single
            } else {
                Precision::Codes
            },
        }
    }

    /// Computes `tokens` at position `start`, behind those that `cache` has, and writes their keys
    /// and values into it. `logits` becomes those of the last `scored` of them, one row each (at most
    /// [`BATCH`] and at most all).
    ///
    /// # Panics
    /// When a token is not in the vocabulary, or the cache another model's.
    pub fn forward(
        &mut self,
        tokens: &[u32],
        start: usize,
        cache: &mut Cache,
        scored: usize,
        logits: &mut Vec<f32>,
    ) {
        self.forward_until(tokens, start, cache, scored, logits, || false);
    }

    /// The same, given up once `stop` says so, which is asked before each layer of each batch. Returns how
    /// many of the tokens are computed: all, or those of the batches before. Only with all are there logits.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn forward_until(
        &mut self,
        tokens: &[u32],
        start: usize,
        cache: &mut Cache,
        scored: usize,
        logits: &mut Vec<f32>,
        stop: impl Fn() -> bool,
    ) -> usize {
        assert!(cache.shape() == self.cache_shape(), "another model's cache");
        assert!(scored <= tokens.len().min(BATCH), "more scores than tokens");
        cache.reserve(start + tokens.len());
        let (mut rest, mut start) = (tokens, start);
        while !rest.is_empty() {
            // Batches of about the same size, the last with all that is scored.
            let batches = rest.len().div_ceil(BATCH);
            let even = rest.len().div_ceil(batches);
            let count = if batches == 1 {
                even
            } else {
                even.min(rest.len() - scored).max(1)
            };
            let (batch, later) = rest.split_at(count);
            let scored = if later.is_empty() { scored } else { 0 };
            if !self.batch(batch, start, cache, scored, logits, &stop) {
                break;
            }
            rest = later;
            start += count;
        }
        tokens.len() - rest.len()
    }

    /// Computes a batch; whether it was not stopped.
    fn batch(
        &mut self,
        tokens: &[u32],
        start: usize,
        cache: &mut Cache,
        scored: usize,
        logits: &mut Vec<f32>,
        stop: &impl Fn() -> bool,
    ) -> bool {
        let count = tokens.len();
        let Self {
            dimensions: sizes,
            weights,
            engine,
            ..
        } = self;
        for (token, id) in tokens.iter().enumerate() {
            weights.embedding.row(*id as usize, &mut self.row);
            for (tile, lanes) in self.row.as_chunks::<TILE>().0.iter().enumerate() {
                self.x[tile * count + token].0 = *lanes;
            }
        }
        self.turns.set(start, count);
        let turns = &self.turns;
        let hidden_tiles = sizes.hidden / TILE;
        let x = &mut self.x;
        let mut wanted = count;
        for (index, layer) in weights.layers.iter().enumerate() {
            if stop() {
                return false;
            }
            let projections = [&layer.query, &layer.key, &layer.value];
            let matrices = projections.map(|projection| &projection.weight);
            let tiles = matrices.map(Matrix::tiles);
            let qkv = &mut self.qkv[..tiles.iter().sum::<usize>() * count];
            engine.norm(x, count, &layer.attention_norm, sizes, &mut self.narrow);
            engine.products(&matrices, 0, &self.narrow, count, qkv);
            let (queries, rest) = qkv.split_at(tiles[0] * count);
            let (keys, values) = rest.split_at(tiles[1] * count);
            let heads =
                [(keys, &layer.key), (values, &layer.value)].map(|(lanes, projection)| Heads {
                    lanes,
                    count,
                    projection,
                    sizes,
                });
            engine.remember(&heads, turns, start, cache.layer_mut(index));
            if index + 1 == weights.layers.len() {
                // Of what follows in the last layer, only scored tokens need anything.
                if scored == 0 {
                    return true;
                }
                wanted = scored;
                for tile in 0..hidden_tiles {
                    let from = &x[tile * count + count - scored..][..scored];
                    self.x_scored[tile * scored..][..scored].copy_from_slice(from);
                }
                std::mem::swap(x, &mut self.x_scored);
            }
            let queries = Heads {
                lanes: queries,
                count,
                projection: &layer.query,
                sizes,
            };
            engine.attend(
                &queries,
                wanted,
                turns,
                start,
                cache.layer(index),
                &mut self.attended,
            );
            engine.gather(&self.attended, wanted, sizes, &mut self.wide);
            engine.add_product(&layer.output, &self.wide, wanted, x);
            engine.norm(x, wanted, &layer.mlp_norm, sizes, &mut self.narrow);
            engine.gated(&layer.gate, &layer.up, &self.narrow, wanted, &mut self.wide);
            engine.add_product(&layer.down, &self.wide, wanted, x);
        }
        engine.norm(x, scored, &weights.norm, sizes, &mut self.narrow);
        let head = weights.head.as_ref().unwrap_or(&weights.embedding);
        logits.resize(scored * sizes.vocabulary, 0.0);
        engine.score(head, &self.narrow, scored, &mut self.scores, logits);
        true
    }
}
