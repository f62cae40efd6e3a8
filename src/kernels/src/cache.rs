//! Keys and values of a run of tokens, as codes of 16 bits or in float32, in pages.
//!
//! A page holds 64 tokens of one head of one layer. Keys lie in groups of 16 tokens, dimension by
//! dimension, values in groups of 16 dimensions, token by token, so that scores and sums are both a
//! row of numbers times rows of sixteen. Codes lie in pairs, of two dimensions or of two tokens, as one
//! instruction multiplies and adds them. Pages are added as tokens come and never move.

use crate::lanes::{Pairs, most_of};

/// Tokens of a page.
pub const PAGE: usize = 64;

/// What a code of each token's key is worth, and of its value.
pub(crate) type Scales = [[f32; PAGE]; 2];

/// What a number of keys and values is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 16 bits, with one scale for a token's key and one for its value.
    Codes,
    /// float32: what was computed, to the bit.
    Single,
}

/// Of what size keys and values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Transformer blocks.
    pub layers: usize,
    /// Key and value heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Of each number.
    pub precision: Precision,
}

impl CacheShape {
    /// The width of a head's values in memory: a multiple of 16.
    #[must_use]
    pub fn value_dim(self) -> usize {
        self.head_dim.next_multiple_of(16)
    }

    /// Bytes of a page of all heads and layers.
    #[must_use]
    pub fn page_bytes(self) -> usize {
        let bytes = match self.precision {
            Precision::Codes => self.page_pairs() * size_of::<Pairs>() + size_of::<Scales>(),
            Precision::Single => self.page_numbers() * size_of::<f32>(),
        };
        self.layers * self.heads * bytes
    }

    /// Numbers in a page of one head.
    fn page_numbers(self) -> usize {
        PAGE * (self.head_dim + self.value_dim())
    }

    /// Sixteen pairs each, in a page of one head.
    fn page_pairs(self) -> usize {
        PAGE / 16 * self.head_dim.div_ceil(2) + PAGE / 2 * self.value_dim() / 16
    }

    /// A page of one head, of zeros.
    fn page(self) -> Page {
        match self.precision {
            Precision::Codes => Page::Codes(
                vec![Pairs::ZERO; self.page_pairs()].into_boxed_slice(),
                Box::new([[0.0; PAGE]; 2]),
            ),
            Precision::Single => Page::Single(vec![0; 4 * self.page_numbers()].into_boxed_slice()),
        }
    }
}

/// The keys and values. How many tokens of it count is known to whoever uses it.
#[derive(Debug, Clone)]
pub struct Cache {
    shape: CacheShape,
    /// By layer, then by head.
    heads: Vec<Head>,
}

/// The pages of a head of a layer.
#[derive(Debug, Clone, Default)]
pub struct Head {
    pages: Vec<Page>,
}

/// Keys and values of 64 tokens of a head.
#[derive(Debug, Clone)]
enum Page {
    /// Codes of keys, then of values.
    Codes(Box<[Pairs]>, Box<Scales>),
    /// float32, little-endian.
    Single(Box<[u8]>),
}

/// What a page holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kept<'a> {
    /// Codes.
    Codes(&'a [Pairs], &'a Scales),
    /// float32, little-endian.
    Single(&'a [u8]),
}

impl Cache {
    /// One without pages.
    #[must_use]
    pub fn new(shape: CacheShape) -> Self {
        Self {
            shape,
            heads: vec![Head::default(); shape.layers * shape.heads],
        }
    }

    /// Its dimensions.
    #[must_use]
    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// How many tokens there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.heads.first().map_or(0, |head| head.pages.len() * PAGE)
    }

    /// Bytes of all pages.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.capacity() / PAGE * self.shape.page_bytes()
    }

    /// Makes room for `tokens` in all.
    pub fn reserve(&mut self, tokens: usize) {
        for head in &mut self.heads {
            while head.pages.len() * PAGE < tokens {
                head.pages.push(self.shape.page());
            }
        }
    }

    /// Gives back what lies behind the page of the last of `tokens`.
    pub fn shrink(&mut self, tokens: usize) {
        for head in &mut self.heads {
            head.pages.truncate(tokens.div_ceil(PAGE));
        }
    }

    /// A copy of the pages of the first `tokens`.
    #[must_use]
    pub fn copy_prefix(&self, tokens: usize) -> Self {
        let copied = |head: &Head| Head {
            pages: head
                .pages
                .iter()
                .take(tokens.div_ceil(PAGE))
                .cloned()
                .collect(),
        };
        Self {
            shape: self.shape,
            heads: self.heads.iter().map(copied).collect(),
        }
    }

    /// The heads of a layer.
    pub(crate) fn layer(&self, layer: usize) -> &[Head] {
        &self.heads[layer * self.shape.heads..][..self.shape.heads]
    }

    /// The heads of a layer, to be written.
    pub(crate) fn layer_mut(&mut self, layer: usize) -> &mut [Head] {
        &mut self.heads[layer * self.shape.heads..][..self.shape.heads]
    }
}

impl Head {
    /// Writes a token's key and value (`head_dim` wide). Where they are kept as codes, `encode` rounds
    /// numbers to codes of at most so much in size, and says what one is worth; `codes` has room for
    /// `head_dim` of them.
    pub(crate) fn write(
        &mut self,
        position: usize,
        key: &[f32],
        value: &[f32],
        codes: &mut [i16],
        encode: impl Fn(&[f32], f32, &mut [i16]) -> f32,
    ) {
        let token = position % PAGE;
        match &mut self.pages[position / PAGE] {
            Page::Codes(pairs, scales) => {
                let dims = key.len();
                let (keys, values) = pairs.split_at_mut(PAGE / 16 * dims.div_ceil(2));
                let codes = &mut codes[..dims];
                scales[0][token] = encode(key, most_of(dims), codes);
                // Whole pairs are copied as one number each.
                let (whole, last) = codes.as_chunks::<2>();
                let group = &mut keys[token / 16 * dims.div_ceil(2)..];
                for (pairs, pair) in group.iter_mut().zip(whole) {
                    pairs.0[token % 16] = *pair;
                }
                if let [code] = last {
                    group[whole.len()].0[token % 16][0] = *code;
                }
                scales[1][token] = encode(value, most_of(PAGE), codes);
                let groups = values.chunks_exact_mut(PAGE / 2);
                for (group, codes) in groups.zip(codes.chunks(16)) {
                    let pairs = &mut group[token / 2].0;
                    for (pair, code) in pairs.iter_mut().zip(codes) {
                        pair[token % 2] = *code;
                    }
                }
            }
            Page::Single(page) => {
                let (numbers, _) = page.as_chunks_mut::<4>();
                let (keys, values) = numbers.split_at_mut(PAGE * key.len());
                let group = &mut keys[token / 16 * 16 * key.len()..];
                for (row, number) in group.chunks_exact_mut(16).zip(key) {
                    row[token % 16] = number.to_le_bytes();
                }
                for (group, value) in values.chunks_exact_mut(PAGE * 16).zip(value.chunks(16)) {
                    for (to, number) in group[token * 16..].iter_mut().zip(value) {
                        *to = number.to_le_bytes();
                    }
                }
            }
        }
    }

    /// A page.
    pub(crate) fn page(&self, page: usize) -> Kept<'_> {
        match &self.pages[page] {
            Page::Codes(pairs, scales) => Kept::Codes(pairs, scales),
            Page::Single(bytes) => Kept::Single(bytes),
        }
    }
}
