//! Keys and values of a run of tokens, in float16 or float32, in pages.
//!
//! A page holds 64 tokens of one head of one layer. Keys lie in groups of 16 tokens, dimension by
//! dimension, values in groups of 16 dimensions, token by token, so that scores and sums are both a
//! row of numbers times rows of sixteen. Pages are added as tokens come and never move.

/// Tokens of a page.
pub const PAGE: usize = 64;

/// What a number of keys and values is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// float16.
    Half,
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
        let size = match self.precision {
            Precision::Half => size_of::<u16>(),
            Precision::Single => size_of::<f32>(),
        };
        self.layers * self.heads * self.page_numbers() * size
    }

    /// Numbers in a page of one head.
    fn page_numbers(self) -> usize {
        PAGE * (self.head_dim + self.value_dim())
    }

    /// A page of one head, of zeros.
    fn page(self) -> Page {
        let numbers = self.page_numbers();
        match self.precision {
            Precision::Half => Page::Half(vec![0; numbers].into_boxed_slice()),
            Precision::Single => Page::Single(vec![0; 4 * numbers].into_boxed_slice()),
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
    /// float16, as bits.
    Half(Box<[u16]>),
    /// float32, little-endian.
    Single(Box<[u8]>),
}

/// Rows of sixteen numbers of a page, as a panel of their type takes them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// float16, as bits.
    Half(&'a [u16]),
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
    /// Writes a token's key (`head_dim` wide) and value. `to_half` rounds to float16, where they are kept
    /// in that.
    pub(crate) fn write(
        &mut self,
        position: usize,
        key: &[f32],
        value: &[f32],
        to_half: impl Fn(&[f32; 16]) -> [u16; 16],
    ) {
        let token = position % PAGE;
        match &mut self.pages[position / PAGE] {
            Page::Half(page) => {
                let round = |numbers: &[f32]| {
                    let mut sixteen = [0.0; 16];
                    sixteen[..numbers.len()].copy_from_slice(numbers);
                    to_half(&sixteen)
                };
                let (keys, values) = page.split_at_mut(PAGE * key.len());
                place(keys, values, token, [key, value], round);
            }
            Page::Single(page) => {
                let (numbers, _) = page.as_chunks_mut::<4>();
                let (keys, values) = numbers.split_at_mut(PAGE * key.len());
                let bytes = |numbers: &[f32]| {
                    let mut sixteen = [[0; 4]; 16];
                    for (bytes, number) in sixteen.iter_mut().zip(numbers) {
                        *bytes = number.to_le_bytes();
                    }
                    sixteen
                };
                place(keys, values, token, [key, value], bytes);
            }
        }
    }

    /// The keys of 16 tokens, `[head_dim, 16]`.
    pub(crate) fn keys(&self, page: usize, group: usize, head_dim: usize) -> Rows<'_> {
        self.rows(page, group * 16 * head_dim, head_dim)
    }

    /// 16 dimensions of a page's values, `[64, 16]`.
    pub(crate) fn values(&self, page: usize, group: usize, head_dim: usize) -> Rows<'_> {
        self.rows(page, PAGE * (head_dim + group * 16), PAGE)
    }

    /// So many rows of a page from its number `start` on.
    fn rows(&self, page: usize, start: usize, rows: usize) -> Rows<'_> {
        match &self.pages[page] {
            Page::Half(numbers) => Rows::Half(&numbers[start..][..rows * 16]),
            Page::Single(bytes) => Rows::Single(&bytes[4 * start..][..4 * rows * 16]),
        }
    }
}

/// Writes a token's key into a page's keys, and its value into the values, sixteen numbers at a time.
fn place<Number: Copy>(
    keys: &mut [Number],
    values: &mut [Number],
    token: usize,
    [key, value]: [&[f32]; 2],
    number: impl Fn(&[f32]) -> [Number; 16],
) {
    let group = &mut keys[token / 16 * 16 * key.len()..];
    for (rows, key) in group.chunks_mut(16 * 16).zip(key.chunks(16)) {
        for (row, number) in rows.chunks_exact_mut(16).zip(number(key)) {
            row[token % 16] = number;
        }
    }
    for (group, value) in values.chunks_exact_mut(PAGE * 16).zip(value.chunks(16)) {
        let numbers = number(value);
        group[token * 16..][..value.len()].copy_from_slice(&numbers[..value.len()]);
    }
}
