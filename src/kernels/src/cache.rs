//! Keys and values of a run of tokens, in float16, in pages.
//!
//! A page holds 64 tokens of one head of one layer. Keys lie in groups of 16 tokens, dimension by
//! dimension, values in groups of 16 dimensions, token by token, so that scores and sums are both a
//! row of numbers times rows of sixteen. Pages are added as tokens come and never move.

/// Tokens of a page.
pub const PAGE: usize = 64;

/// Of what size keys and values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Transformer blocks.
    pub layers: usize,
    /// Key and value heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
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
        self.layers * self.heads * self.page_halves() * size_of::<u16>()
    }

    /// Numbers in a page of one head.
    fn page_halves(self) -> usize {
        PAGE * (self.head_dim + self.value_dim())
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
    pages: Vec<Box<[u16]>>,
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
        let halves = self.shape.page_halves();
        for head in &mut self.heads {
            while head.pages.len() * PAGE < tokens {
                head.pages.push(vec![0; halves].into_boxed_slice());
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
    /// Writes a token's key (`head_dim` wide) and value, in float16.
    pub(crate) fn write(&mut self, position: usize, key: &[u16], value: &[u16]) {
        let page = &mut self.pages[position / PAGE];
        let (keys, values) = page.split_at_mut(PAGE * key.len());
        let token = position % PAGE;
        let group = &mut keys[token / 16 * 16 * key.len()..];
        for (row, half) in group.chunks_exact_mut(16).zip(key) {
            row[token % 16] = *half;
        }
        for (group, halves) in values.chunks_exact_mut(PAGE * 16).zip(value.chunks(16)) {
            group[token * 16..][..halves.len()].copy_from_slice(halves);
        }
    }

    /// The keys of 16 tokens, `[head_dim, 16]`.
    pub(crate) fn keys(&self, page: usize, group: usize, head_dim: usize) -> &[u16] {
        &self.pages[page][group * 16 * head_dim..][..16 * head_dim]
    }

    /// 16 dimensions of a page's values, `[64, 16]`.
    pub(crate) fn values(&self, page: usize, group: usize, head_dim: usize) -> &[u16] {
        &self.pages[page][PAGE * (head_dim + group * 16)..][..PAGE * 16]
    }
}
