//! The parts of a forward pass, each shared among the threads.

use crate::attention::Scratch;
use crate::cache::Head;
use crate::format::BLOCK;
use crate::kernels::Kernels;
use crate::lanes::{Block, Lanes, inverse_rms, total};
use crate::matrix::{Matrix, TILE, Tile};
use crate::model::{BATCH, Dimensions, Projection};
use crate::pool::Pool;

/// Tokens whose sums in float32 take next to no time to be cleared.
const FEW: usize = 4;
/// From so many tokens on it pays to compute two tiles together: with fewer, what is read from memory is what
/// takes the time, and that is read best in one run.
const MANY: usize = 12;
/// Products of two numbers that one thread computes in the time that it takes to have another begin.
const ALONE: usize = 1 << 16;
/// Sixteens that a thread has room for: those of four tiles of all tokens.
const ROOM: usize = 4 * BATCH;
/// Rows of attention in one piece of work: tokens times the heads that share a key-value head.
pub(crate) const ATTENTION_ROWS: usize = 32;

/// What the next product is computed with, `[blocks, tokens]`.
#[derive(Debug)]
pub(crate) enum Activations {
    /// Rounded to 8 bits, for codes.
    Rounded(Vec<Block>),
    /// As they are, for float32.
    Exact(Vec<[f32; BLOCK]>),
}

impl Activations {
    pub fn new(columns: usize, exact: bool) -> Self {
        let count = columns / BLOCK * BATCH;
        if exact {
            Self::Exact(vec![[0.0; BLOCK]; count])
        } else {
            Self::Rounded(vec![Block::ZERO; count])
        }
    }
}

/// A token's 32 activations of either kind.
trait Activation: Sized + Send {
    /// Makes them of tokens' numbers, given in halves.
    fn set(kernels: &Kernels, halves: [&[Lanes]; 2], into: &mut [Self]);
}

impl Activation for Block {
    fn set(kernels: &Kernels, halves: [&[Lanes]; 2], into: &mut [Self]) {
        (kernels.quantize)(halves, into);
    }
}

impl Activation for [f32; BLOCK] {
    fn set(_: &Kernels, halves: [&[Lanes]; 2], into: &mut [Self]) {
        let [first, second] = halves.map(<[Lanes]>::iter);
        for (into, halves) in into.iter_mut().zip(first.zip(second)) {
            let halves = [halves.0, halves.1];
            for (to, half) in into.as_chunks_mut().0.iter_mut().zip(halves) {
                *to = half.0;
            }
        }
    }
}

/// What one thread computes in.
#[derive(Debug)]
struct Local {
    lanes: Vec<Lanes>,
    attention: Scratch,
    head: Vec<f32>,
    key: Vec<f32>,
    codes: Vec<i16>,
}

/// What computes.
#[derive(Debug)]
pub(crate) struct Engine {
    pub kernels: Kernels,
    pub pool: Pool,
    locals: Vec<Local>,
}

/// The rotary table of a batch: `[tokens, head_dim / 2]` each.
#[derive(Debug)]
pub(crate) struct Turns {
    /// What an angle grows by from one position to the next: `[head_dim / 2]`.
    frequencies: Vec<f32>,
    cosine: Vec<f32>,
    sine: Vec<f32>,
}

impl Turns {
    /// In float32 throughout, as transformers does.
    pub fn new(sizes: &Dimensions) -> Self {
        let power = |i: usize| 2.0 * i as f32 / sizes.head_dim as f32;
        let frequencies = (0..sizes.head_dim / 2).map(|i| 1.0 / sizes.rope_theta.powf(power(i)));
        Self {
            frequencies: frequencies.collect(),
            cosine: Vec::new(),
            sine: Vec::new(),
        }
    }

    /// Has it be that of `count` tokens from position `start` on.
    pub fn set(&mut self, start: usize, count: usize) {
        self.cosine.clear();
        self.sine.clear();
        for position in start..start + count {
            for frequency in &self.frequencies {
                let angle = position as f32 * frequency;
                self.cosine.push(angle.cos());
                self.sine.push(angle.sin());
            }
        }
    }
}

/// What a projection gave for all tokens.
pub(crate) struct Heads<'a> {
    pub lanes: &'a [Lanes],
    pub count: usize,
    pub projection: &'a Projection,
    pub sizes: &'a Dimensions,
}

impl Heads<'_> {
    /// A token's head, with bias and norm.
    fn head(&self, kernels: &Kernels, token: usize, head: usize, values: &mut [f32]) {
        let start = head * values.len();
        if (start | values.len()).is_multiple_of(TILE) {
            let from = &self.lanes[start / TILE * self.count + token..];
            (kernels.gather)(from, self.count, values);
        } else {
            for (column, value) in (start..).zip(&mut *values) {
                *value = self.lanes[column / TILE * self.count + token].0[column % TILE];
            }
        }
        if !self.projection.bias.is_empty() {
            let bias = &self.projection.bias[start..];
            for (value, bias) in values.iter_mut().zip(bias) {
                *value += bias;
            }
        }
        if !self.projection.norm.is_empty() {
            (kernels.rms_norm)(values, &self.projection.norm, self.sizes.norm_epsilon);
        }
    }

    /// The same, turned by its position.
    fn turned(
        &self,
        kernels: &Kernels,
        token: usize,
        head: usize,
        turns: &Turns,
        values: &mut [f32],
    ) {
        self.head(kernels, token, head, values);
        let half = values.len() / 2;
        let row = token * half..(token + 1) * half;
        (kernels.rotate)(values, &turns.cosine[row.clone()], &turns.sine[row]);
    }
}

impl Engine {
    pub fn new(kernels: Kernels, threads: usize, sizes: &Dimensions) -> Self {
        let pool = Pool::new(threads);
        let rows = ATTENTION_ROWS.max(sizes.group());
        let locals = (0..pool.threads()).map(|_| Local {
            lanes: vec![Lanes::ZERO; ROOM],
            attention: Scratch::new(rows, sizes.head_dim),
            head: vec![0.0; sizes.head_dim],
            key: vec![0.0; sizes.head_dim],
            codes: vec![0; sizes.head_dim],
        });
        Self {
            locals: locals.collect(),
            kernels,
            pool,
        }
    }

    /// Norms the residual stream into activations.
    pub fn norm(
        &mut self,
        x: &[Lanes],
        count: usize,
        weight: &[f32],
        sizes: &Dimensions,
        into: &mut Activations,
    ) {
        let kernels = self.kernels;
        let mut sums = [Lanes::ZERO; BATCH];
        for tile in x[..sizes.hidden / TILE * count].chunks_exact(count) {
            (kernels.add_squares)(&mut sums[..count], tile);
        }
        let inverse = sums.map(|sums| inverse_rms(total(sums.0), sizes.hidden, sizes.norm_epsilon));
        let weight = weight.as_chunks::<TILE>().0;
        self.activate_tiles(into, sizes.hidden, count, |tile, lanes| {
            let x = &x[tile * count..][..count];
            (kernels.scale)(x, &inverse, &weight[tile], lanes);
        });
    }

    /// Turns what attention gave into activations.
    pub fn gather(
        &mut self,
        attended: &[f32],
        count: usize,
        sizes: &Dimensions,
        into: &mut Activations,
    ) {
        let width = sizes.group() * sizes.head_dim;
        let padded = count.next_multiple_of(sizes.piece(count));
        let columns = sizes.heads * sizes.head_dim;
        self.activate_tiles(into, columns, count, |tile, lanes| {
            // A tile may lie in several heads.
            let mut done = 0;
            while done < TILE {
                let column = tile * TILE + done;
                let (head, within) = (column / width, column % width);
                let part = (width - within).min(TILE - done);
                let rows = attended[head * padded * width..].chunks_exact(width);
                for (lanes, row) in lanes.iter_mut().zip(rows) {
                    let row = &row[within..];
                    match row.first_chunk() {
                        Some(all) if done == 0 => lanes.0 = *all,
                        _ => lanes.0[done..done + part].copy_from_slice(&row[..part]),
                    }
                }
                done += part;
            }
        });
    }

    /// Fills activations of `columns` of `count` tokens with what `values` says of each tile, which is little
    /// work: for few tokens it is less than to share it.
    fn activate_tiles(
        &mut self,
        into: &mut Activations,
        columns: usize,
        count: usize,
        values: impl Fn(usize, &mut [Lanes]) + Sync,
    ) {
        let blocks = columns / BLOCK;
        let piece = if count < 4 { blocks } else { 4 };
        self.activate(into, blocks, count, piece, |lanes, _, first| {
            for (tile, lanes) in (2 * first..).zip(lanes.chunks_exact_mut(count)) {
                values(tile, lanes);
            }
        });
    }

    /// Fills `blocks` blocks of activations of `count` tokens, of which a piece of work has `piece`. `values`
    /// puts the numbers of some blocks, from one on, into the first room that it is given, tile by tile; the
    /// second is as large, and of use to it alone.
    fn activate(
        &mut self,
        into: &mut Activations,
        blocks: usize,
        count: usize,
        piece: usize,
        values: impl Fn(&mut [Lanes], &mut [Lanes], usize) + Sync,
    ) {
        match into {
            Activations::Rounded(data) => {
                self.fill(&mut data[..blocks * count], count, piece, values);
            }
            Activations::Exact(data) => {
                self.fill(&mut data[..blocks * count], count, piece, values);
            }
        }
    }

    /// The same for activations of one kind.
    fn fill<T: Activation>(
        &mut self,
        data: &mut [T],
        count: usize,
        piece: usize,
        values: impl Fn(&mut [Lanes], &mut [Lanes], usize) + Sync,
    ) {
        let kernels = self.kernels;
        let room = ROOM / (4 * count);
        self.pool.chunks(
            data,
            piece * count,
            &mut self.locals,
            |local, number, data| {
                let (lanes, spare) = local.lanes.split_at_mut(ROOM / 2);
                for (at, data) in data.chunks_mut(room * count).enumerate() {
                    let (lanes, spare) =
                        (&mut lanes[..2 * data.len()], &mut spare[..2 * data.len()]);
                    values(lanes, spare, number * piece + at * room);
                    let halves = lanes.chunks_exact(2 * count);
                    for (into, halves) in data.chunks_exact_mut(count).zip(halves) {
                        T::set(&kernels, halves.split_at(count).into(), into);
                    }
                }
            },
        );
    }

    /// The products of several matrices with the same activations, from tile `first` of all their tiles on,
    /// one behind the other in `out`.
    pub fn products(
        &mut self,
        matrices: &[&Matrix],
        first: usize,
        from: &Activations,
        count: usize,
        out: &mut [Lanes],
    ) {
        let kernels = self.kernels;
        let columns = matrices.first().map_or(0, |matrix| matrix.columns());
        let tiles = share(out.len() / count, columns, count, self.pool.threads());
        self.pool
            .chunks(out, tiles * count, &mut self.locals, |_, number, out| {
                let mut out = out;
                let mut tile = first + number * tiles;
                for matrix in matrices {
                    let own = matrix.tiles().saturating_sub(tile).min(out.len() / count);
                    let (ours, rest) = out.split_at_mut(own * count);
                    tiles_product(&kernels, matrix, tile, from, count, ours);
                    tile = (tile + own).saturating_sub(matrix.tiles());
                    out = rest;
                }
            });
    }

    /// The products of a matrix, row by row: `[count, rows]`. Computes as many tiles at a time as there is `room`
    /// for with so many tokens, at least one.
    pub fn score(
        &mut self,
        matrix: &Matrix,
        from: &Activations,
        count: usize,
        room: &mut [Lanes],
        out: &mut [f32],
    ) {
        let part = room.len() / count;
        for first in (0..matrix.tiles()).step_by(part) {
            let lanes = &mut room[..part.min(matrix.tiles() - first) * count];
            self.products(&[matrix], first, from, count, lanes);
            let (width, lanes) = (out.len() / count, &*lanes);
            self.pool
                .chunks(out, width, &mut self.locals, |_, token, row| {
                    let lanes = lanes[token..].iter().step_by(count);
                    for (to, lanes) in row[first * TILE..].chunks_mut(TILE).zip(lanes) {
                        to.copy_from_slice(&lanes.0[..to.len()]);
                    }
                });
        }
    }

    /// Adds a product to the residual stream.
    pub fn add_product(
        &mut self,
        matrix: &Matrix,
        from: &Activations,
        count: usize,
        x: &mut [Lanes],
    ) {
        let kernels = self.kernels;
        let x = &mut x[..matrix.tiles() * count];
        let tiles = share(matrix.tiles(), matrix.columns(), count, self.pool.threads());
        self.pool
            .chunks(x, tiles * count, &mut self.locals, |local, number, x| {
                for (at, x) in x.chunks_mut(2 * count).enumerate() {
                    let sums = &mut local.lanes[..x.len()];
                    let tile = number * tiles + 2 * at;
                    tiles_product(&kernels, matrix, tile, from, count, sums);
                    for (x, sum) in x.iter_mut().zip(&*sums) {
                        for (x, sum) in x.0.iter_mut().zip(&sum.0) {
                            *x += sum;
                        }
                    }
                }
            });
    }

    /// The MLP up to its last product: the gate's product through SiLU, times `up`'s, as activations.
    pub fn gated(
        &mut self,
        gate: &Matrix,
        up: &Matrix,
        from: &Activations,
        count: usize,
        into: &mut Activations,
    ) {
        let kernels = self.kernels;
        let blocks = gate.rows() / BLOCK;
        // Several blocks of 32 columns for few tokens: a thread reads on in one matrix before it turns to
        // the other.
        let tiles = share(2 * blocks, gate.columns(), count, self.pool.threads());
        let piece = (tiles / 2).max(1);
        self.activate(into, blocks, count, piece, |gates, ups, first| {
            tiles_product(&kernels, gate, 2 * first, from, count, gates);
            tiles_product(&kernels, up, 2 * first, from, count, ups);
            (kernels.swiglu)(gates, ups);
        });
    }

    /// Writes all tokens' keys and values into the cache.
    pub fn remember(
        &mut self,
        heads: &[Heads<'_>; 2],
        turns: &Turns,
        start: usize,
        cache: &mut [Head],
    ) {
        let kernels = self.kernels;
        let [keys, values] = heads;
        // For few tokens it is less work than to share it.
        let chunk = if keys.count < 4 { cache.len() } else { 1 };
        self.pool
            .chunks(cache, chunk, &mut self.locals, |local, number, cache| {
                for (at, cache) in cache.iter_mut().enumerate() {
                    let head = number * chunk + at;
                    for token in 0..keys.count {
                        let (key, value) = (&mut local.key, &mut local.head);
                        keys.turned(&kernels, token, head, turns, key);
                        values.head(&kernels, token, head, value);
                        cache.write(start + token, key, value, &mut local.codes, kernels.encode);
                    }
                }
            });
    }

    /// Attention of the last `wanted` tokens.
    pub fn attend(
        &mut self,
        queries: &Heads<'_>,
        wanted: usize,
        turns: &Turns,
        start: usize,
        cache: &[Head],
        attended: &mut [f32],
    ) {
        let kernels = self.kernels;
        let sizes = queries.sizes;
        let (dim, group) = (sizes.head_dim, sizes.group());
        let scale = (dim as f32).sqrt().recip();
        let piece = sizes.piece(wanted);
        let pieces = wanted.div_ceil(piece);
        let chunk = piece * group * dim;
        let first = queries.count - wanted;
        let attended = &mut attended[..sizes.kv_heads * pieces * chunk];
        self.pool
            .chunks(attended, chunk, &mut self.locals, |local, number, out| {
                let (head, from) = (number / pieces, number % pieces * piece);
                let tokens = piece.min(wanted - from);
                for (row, query) in local.attention.query[..tokens * group * dim]
                    .chunks_exact_mut(dim)
                    .enumerate()
                {
                    let token = first + from + row / group;
                    let own = head * group + row % group;
                    queries.turned(&kernels, token, own, turns, query);
                    (kernels.multiply)(query, scale);
                }
                let out = &mut out[..tokens * group * dim];
                let position = start + first + from;
                let heads = if pieces == 1 {
                    &cache[head..]
                } else {
                    &cache[head..=head]
                };
                local
                    .attention
                    .attend(&kernels, heads, dim, group, position, out);
            });
    }
}

/// Tiles in a piece of work: several for few tokens, so that a thread reads on where it was reading, and
/// two for many, whose products are long; all where a thread is done before another has begun.
fn share(tiles: usize, columns: usize, count: usize, threads: usize) -> usize {
    if tiles * TILE * columns * count < ALONE {
        return tiles;
    }
    let most = if count < 32 { 16 } else { 2 };
    (tiles / (threads * 8)).clamp(1, most)
}

/// The products of a matrix's tiles from `first` on with all `count` tokens, one tile behind the other.
fn tiles_product(
    kernels: &Kernels,
    matrix: &Matrix,
    first: usize,
    from: &Activations,
    count: usize,
    out: &mut [Lanes],
) {
    let (mut tile, mut rest) = (first, out);
    while !rest.is_empty() {
        let pair = match from {
            Activations::Rounded(_) if count >= MANY && rest.len() > count => kernels.pair,
            _ => None,
        };
        let tiles = if pair.is_some() { 2 } else { 1 };
        let (out, later) = rest.split_at_mut(tiles * count);
        let own = matrix.tile(tile);
        match (from, pair) {
            (Activations::Rounded(blocks), Some(pair)) => {
                let next = matrix.tile(tile + 1);
                pair([own, next], blocks, count, out.split_at_mut(count).into());
            }
            (Activations::Rounded(blocks), None) => (kernels.product)(own, blocks, count, out),
            (Activations::Exact(blocks), _) if count <= FEW => {
                exact_product::<FEW>(kernels, own, blocks, out);
            }
            (Activations::Exact(blocks), _) => exact_product::<BATCH>(kernels, own, blocks, out),
        }
        (tile, rest) = (tile + tiles, later);
    }
}

/// The products of a tile with at most `MOST` tokens, in float32.
fn exact_product<const MOST: usize>(
    kernels: &Kernels,
    tile: Tile<'_>,
    blocks: &[[f32; BLOCK]],
    out: &mut [Lanes],
) {
    let count = out.len();
    let mut sums = [[0.0; TILE]; MOST];
    let sums = &mut sums[..count].as_flattened_mut();
    let size = tile.packed.code_bytes();
    for (block, panel) in tile.codes.chunks_exact(size).enumerate() {
        let a = &blocks[block * count..][..count];
        (kernels.panel_f32)(BLOCK, a.as_flattened(), BLOCK, panel, sums, TILE);
    }
    for (out, sums) in out.iter_mut().zip(sums.as_chunks().0) {
        out.0 = *sums;
    }
}
