//! Attention of a few tokens over all that came before, page by page.
//!
//! The softmax is computed as pages come (Milakov and Gimelshein, arXiv 1805.02867): what was summed
//! for earlier pages is scaled down when a larger score turns up. So the scores of one page are all
//! that is ever in memory, however long the context. Query heads that share a key-value head are rows
//! of the same product.

use crate::cache::{Head, Kept, PAGE, Scales};
use crate::kernels::Kernels;
use crate::lanes::{Groups, Pairs, Row, most_of};

/// What one thread needs.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// `[rows, head_dim]`, scaled by one over the root of `head_dim`.
    pub query: Vec<f32>,
    /// Its codes: `[rows, head_dim]`, a row filled up to whole pairs.
    codes: Vec<i16>,
    /// `[rows, 64]`.
    scores: Vec<f32>,
    /// The same as codes.
    weights: Vec<[i16; PAGE]>,
    /// Dot products of codes, with the keys of a page or with the dimensions of its values.
    dots: Vec<[i32; 16]>,
    /// `[rows, value_dim]`.
    sums: Vec<f32>,
    rows: Vec<Row>,
    /// How many of a page's tokens each row sees.
    visible: Vec<usize>,
}

/// Which rows attend to what.
#[derive(Debug, Clone, Copy)]
struct Span {
    rows: usize,
    head_dim: usize,
    /// Rows of a token.
    group: usize,
    /// Where the first of the tokens is.
    position: usize,
    /// The page that is attended to.
    page: usize,
    /// Its tokens that the last row sees.
    seen: usize,
}

impl Span {
    /// How many of the page's tokens a row sees.
    fn visible(&self, row: usize) -> usize {
        (self.position + row / self.group + 1).saturating_sub(self.page * PAGE)
    }

    /// The width of a row of values.
    fn width(&self) -> usize {
        self.head_dim.next_multiple_of(16)
    }
}

impl Scratch {
    pub fn new(rows: usize, head_dim: usize) -> Self {
        let width = head_dim.next_multiple_of(16);
        Self {
            query: vec![0.0; rows * head_dim],
            codes: vec![0; rows * head_dim.next_multiple_of(2)],
            scores: vec![0.0; rows * PAGE],
            weights: vec![[0; PAGE]; rows],
            dots: vec![[0; 16]; rows * (PAGE.max(width) / 16)],
            sums: vec![0.0; rows * width],
            rows: vec![Row::NONE; rows],
            visible: vec![0; rows],
        }
    }

    /// Attends to the first of `heads`, of which the second is likely to come next, with the first
    /// `tokens * group` rows of the query: `group` rows for each token, the first of which is at `position`
    /// and sees itself and all before it. The result goes into `out`, `[tokens * group, head_dim]`.
    pub fn attend(
        &mut self,
        kernels: &Kernels,
        heads: &[Head],
        head_dim: usize,
        group: usize,
        position: usize,
        out: &mut [f32],
    ) {
        let head = &heads[0];
        let rows = out.len() / head_dim;
        let end = position + rows / group;
        let mut span = Span {
            rows,
            head_dim,
            group,
            position,
            page: 0,
            seen: 0,
        };
        let width = span.width();
        self.sums[..rows * width].fill(0.0);
        self.rows[..rows].fill(Row::NONE);
        for page in 0..end.div_ceil(PAGE) {
            span.page = page;
            span.seen = (end - page * PAGE).min(PAGE);
            match head.page(page) {
                Kept::Codes(pairs, scales) => {
                    if page == 0 {
                        self.encode_query(kernels, &span);
                    }
                    let next = if (page + 1) * PAGE < end {
                        Some(head.page(page + 1))
                    } else {
                        heads.get(1).map(|head| head.page(0))
                    };
                    let next = match next {
                        Some(Kept::Codes(pairs, _)) => pairs,
                        _ => &[],
                    };
                    self.add_codes(kernels, &span, (pairs, scales), next);
                }
                Kept::Single(numbers) => self.add_numbers(kernels, &span, numbers),
            }
        }
        let sums = self.sums.chunks_exact_mut(width).zip(&self.rows);
        for (out, (sums, row)) in out.chunks_exact_mut(head_dim).zip(sums) {
            (kernels.multiply)(sums, 1.0 / row.sum());
            out.copy_from_slice(&sums[..head_dim]);
        }
    }

    fn encode_query(&mut self, kernels: &Kernels, span: &Span) {
        let dims = span.head_dim;
        let most = most_of(dims);
        let rows = self.rows[..span.rows].iter_mut();
        let codes = self.codes.chunks_exact_mut(dims.next_multiple_of(2));
        let queries = self.query.chunks_exact(dims);
        for ((row, codes), query) in rows.zip(codes).zip(queries) {
            row.query = (kernels.encode)(query, most, &mut codes[..dims]);
        }
    }

    /// Adds a page of codes, behind which comes `next`.
    fn add_codes(
        &mut self,
        kernels: &Kernels,
        span: &Span,
        (pairs, scales): (&[Pairs], &Scales),
        next: &[Pairs],
    ) {
        let depth = span.head_dim.div_ceil(2);
        let (keys, values) = pairs.split_at(PAGE / 16 * depth);
        let (next_keys, next_values) = next.split_at(next.len().min(keys.len()));
        let groups = PAGE / 16;
        let dots = &mut self.dots[..span.rows * groups];
        let keys = Groups {
            pairs: &keys[..span.seen.div_ceil(16) * depth],
            apart: depth,
            depth,
            ahead: next_keys,
        };
        (kernels.panel_codes)(&self.codes, 2 * depth, keys, dots, groups);
        let most = most_of(PAGE);
        let rows = &mut self.rows[..span.rows];
        for (number, visible) in self.visible[..span.rows].iter_mut().enumerate() {
            *visible = span.visible(number);
        }
        let (dots, visible) = (dots.as_chunks().0, &self.visible[..span.rows]);
        (kernels.weigh)(dots, visible, scales, most, rows, &mut self.weights);
        let weights = self.weights.as_flattened();
        let groups = span.width() / 16;
        let dots = &mut self.dots[..span.rows * groups];
        let values = Groups {
            pairs: values,
            apart: PAGE / 2,
            depth: span.seen.div_ceil(2),
            ahead: next_values,
        };
        (kernels.panel_codes)(weights, PAGE, values, dots, groups);
        let rows = self.rows.iter().zip(dots.chunks_exact(groups));
        for (sums, (row, dots)) in self.sums.chunks_exact_mut(span.width()).zip(rows) {
            (kernels.add_weighted)(sums, dots, row);
        }
    }

    /// Adds a page of float32.
    fn add_numbers(&mut self, kernels: &Kernels, span: &Span, numbers: &[u8]) {
        let (dims, width) = (span.head_dim, span.width());
        let (keys, values) = numbers.split_at(4 * PAGE * dims);
        let groups = span.seen.div_ceil(16);
        let scores = &mut self.scores[..span.rows * PAGE];
        scores.fill(0.0);
        for (group, keys) in keys.chunks_exact(4 * 16 * dims).take(groups).enumerate() {
            let to = &mut scores[group * 16..(span.rows - 1) * PAGE + group * 16 + 16];
            (kernels.panel_f32)(dims, &self.query, dims, keys, to, PAGE);
        }
        let rows = scores.chunks_exact_mut(PAGE).zip(&mut self.rows);
        let sums = self.sums.chunks_exact_mut(width);
        for (number, ((scores, row), sums)) in rows.zip(sums).enumerate() {
            let scores = &mut scores[..groups * 16];
            let visible = span.visible(number);
            if visible < scores.len() {
                scores[visible..].fill(f32::NEG_INFINITY);
            }
            let earlier = (kernels.soften)(scores, &mut row.running);
            if earlier < 1.0 {
                (kernels.multiply)(sums, earlier);
            }
        }
        let sums = &mut self.sums[..span.rows * width];
        for (dims, values) in values.chunks_exact(4 * 16 * PAGE).enumerate() {
            let to = &mut sums[dims * 16..(span.rows - 1) * width + dims * 16 + 16];
            (kernels.panel_f32)(span.seen, scores, PAGE, values, to, width);
        }
    }
}
