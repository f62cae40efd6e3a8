//! Attention of a few tokens over all that came before, page by page.
//!
//! The softmax is computed as pages come (Milakov and Gimelshein, arXiv 1805.02867): what was summed
//! for earlier pages is scaled down when a larger score turns up. So the scores of one page are all
//! that is ever in memory, however long the context. Query heads that share a key-value head are rows
//! of the same product.

use crate::cache::{Head, PAGE, Rows};
use crate::kernels::Kernels;
use crate::lanes::Running;

/// What one thread needs.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// `[rows, head_dim]`, scaled by one over the root of `head_dim`.
    pub query: Vec<f32>,
    /// `[rows, 64]`.
    scores: Vec<f32>,
    /// `[rows, value_dim]`.
    sums: Vec<f32>,
    running: Vec<Running>,
}

impl Scratch {
    pub fn new(rows: usize, head_dim: usize) -> Self {
        Self {
            query: vec![0.0; rows * head_dim],
            scores: vec![0.0; rows * PAGE],
            sums: vec![0.0; rows * head_dim.next_multiple_of(16)],
            running: vec![Running::NONE; rows],
        }
    }

    /// Attends with the first `tokens * group` rows of the query: `group` rows for each token, the
    /// first of which is at `position` and sees itself and all before it. The result goes into `out`,
    /// `[tokens * group, head_dim]`.
    pub fn attend(
        &mut self,
        kernels: &Kernels,
        head: &Head,
        head_dim: usize,
        group: usize,
        position: usize,
        out: &mut [f32],
    ) {
        let rows = out.len() / head_dim;
        let width = head_dim.next_multiple_of(16);
        let tokens = rows / group;
        let end = position + tokens;
        let sums = &mut self.sums[..rows * width];
        sums.fill(0.0);
        self.running[..rows].fill(Running::NONE);
        for page in 0..end.div_ceil(PAGE) {
            let first = page * PAGE;
            let seen = (end - first).min(PAGE);
            let groups = seen.div_ceil(16);
            let scores = &mut self.scores[..rows * PAGE];
            scores.fill(0.0);
            let query = &self.query[..rows * head_dim];
            for group in 0..groups {
                let to = &mut scores[group * 16..(rows - 1) * PAGE + group * 16 + 16];
                let keys = head.keys(page, group, head_dim);
                panel(kernels, head_dim, query, head_dim, keys, to, PAGE);
            }
            for (row, scores) in scores.chunks_exact_mut(PAGE).enumerate() {
                let scores = &mut scores[..groups * 16];
                let visible = (position + row / group + 1).saturating_sub(first);
                if visible < scores.len() {
                    scores[visible..].fill(f32::NEG_INFINITY);
                }
                let earlier = (kernels.soften)(scores, &mut self.running[row]);
                if page > 0 && earlier < 1.0 {
                    (kernels.multiply)(&mut sums[row * width..][..width], earlier);
                }
            }
            for dims in 0..width / 16 {
                let to = &mut sums[dims * 16..(rows - 1) * width + dims * 16 + 16];
                let values = head.values(page, dims, head_dim);
                panel(kernels, seen, scores, PAGE, values, to, width);
            }
        }
        let sums = sums.chunks_exact(width).zip(&self.running);
        for (out, (sums, running)) in out.chunks_exact_mut(head_dim).zip(sums) {
            out.copy_from_slice(&sums[..head_dim]);
            (kernels.multiply)(out, 1.0 / running.sum);
        }
    }
}

/// The panel of these rows' type.
fn panel(
    kernels: &Kernels,
    depth: usize,
    a: &[f32],
    a_stride: usize,
    b: Rows<'_>,
    c: &mut [f32],
    c_stride: usize,
) {
    match b {
        Rows::Half(b) => (kernels.panel_f16)(depth, a, a_stride, b, c, c_stride),
        Rows::Single(b) => (kernels.panel_f32)(depth, a, a_stride, b, c, c_stride),
    }
}
