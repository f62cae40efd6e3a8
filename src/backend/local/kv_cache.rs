//! Keys and values of tokens that were computed before, so that they need not be again.
//!
//! A [`Sequence`] belongs to one prompt and its answer. It grows in place: a token's keys and values
//! are written into tensors that have room, never appended by copying what is there. [`KvCache`]
//! keeps sequences between requests and hands out the one that shares most with a new prompt.

use candle_core::{DType, Device, Result, Tensor};

/// Room is added in steps of at least this many tokens.
const GROWTH: usize = 256;

/// A new prompt takes over a cached sequence, and cuts off its end, where it shares at least this
/// part of it; else it gets a copy of what they share, and the cached one stays.
const TAKE_OVER_SHARE: f64 = 0.5;

/// The dimensions of the keys and values of one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Transformer blocks.
    pub layers: usize,
    /// Key and value heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl KvShape {
    /// Bytes of the keys and values of one token, in float32.
    #[must_use]
    pub fn bytes_per_token(self) -> usize {
        2 * self.layers * self.heads * self.head_dim * size_of::<f32>()
    }
}

/// The keys and values of a run of tokens from position 0.
#[derive(Debug)]
pub struct Sequence {
    shape: KvShape,
    tokens: Vec<u32>,
    capacity: usize,
    /// By layer: keys and values, each `[heads, capacity, head_dim]`.
    layers: Vec<(Tensor, Tensor)>,
}

impl Sequence {
    /// A sequence without tokens.
    #[must_use]
    pub fn new(shape: KvShape) -> Self {
        Self {
            shape,
            tokens: Vec::new(),
            capacity: 0,
            layers: Vec::new(),
        }
    }

    /// The tokens whose keys and values are there.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Forgets all tokens from position `length` on. Costs nothing.
    pub fn truncate(&mut self, length: usize) {
        self.tokens.truncate(length);
    }

    /// Makes room for `more` tokens.
    ///
    /// # Errors
    /// When candle cannot make the tensors.
    pub fn reserve(&mut self, more: usize) -> Result<()> {
        let needed = self.len() + more;
        if needed <= self.capacity {
            return Ok(());
        }
        let capacity = needed.max(self.capacity * 2).next_multiple_of(GROWTH);
        self.reallocate(capacity)
    }

    /// Writes the keys and values (`[heads, n, head_dim]`) of the `n` tokens after the present ones
    /// into `layer`, and returns views of all of them. [`Self::push`] makes them count once every
    /// layer has them.
    ///
    /// # Errors
    /// When the shapes do not fit, or there is no room.
    pub fn append(&self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let (all_keys, all_values) = &self.layers[layer];
        all_keys.slice_set(keys, 1, self.len())?;
        all_values.slice_set(values, 1, self.len())?;
        let length = self.len() + keys.dim(1)?;
        Ok((
            all_keys.narrow(1, 0, length)?,
            all_values.narrow(1, 0, length)?,
        ))
    }

    /// Counts `tokens` as present.
    pub fn push(&mut self, tokens: &[u32]) {
        debug_assert!(self.len() + tokens.len() <= self.capacity);
        self.tokens.extend_from_slice(tokens);
    }

    /// The bytes it occupies.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.capacity * self.shape.bytes_per_token()
    }

    /// A sequence of its own with the first `length` tokens.
    fn copy_prefix(&self, length: usize) -> Result<Self> {
        let mut copy = Self::new(self.shape);
        copy.layers.clone_from(&self.layers);
        copy.tokens = self.tokens[..length].to_vec();
        copy.reallocate((length + 1).next_multiple_of(GROWTH))?;
        Ok(copy)
    }

    fn reallocate(&mut self, capacity: usize) -> Result<()> {
        let shape = self.shape;
        let length = self.len();
        let fresh = || {
            let dims = (shape.heads, capacity, shape.head_dim);
            Tensor::zeros(dims, DType::F32, &Device::Cpu)
        };
        let moved = |old: Option<&Tensor>| {
            let new = fresh()?;
            if let (Some(old), true) = (old, length > 0) {
                new.slice_set(&old.narrow(1, 0, length)?.contiguous()?, 1, 0)?;
            }
            Ok::<_, candle_core::Error>(new)
        };
        let mut layers = Vec::with_capacity(shape.layers);
        for layer in 0..shape.layers {
            let old = self.layers.get(layer);
            layers.push((
                moved(old.map(|(keys, _)| keys))?,
                moved(old.map(|(_, values)| values))?,
            ));
        }
        self.layers = layers;
        self.capacity = capacity;
        Ok(())
    }
}

/// Sequences kept between requests.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    budget_bytes: usize,
    /// Least recently used first.
    sequences: Vec<Sequence>,
}

impl KvCache {
    /// A cache that keeps at most `budget_bytes` between requests.
    #[must_use]
    pub fn new(shape: KvShape, budget_bytes: usize) -> Self {
        Self {
            shape,
            budget_bytes,
            sequences: Vec::new(),
        }
    }

    /// A sequence that starts with the longest run of `prompt` that any cached one has, less the
    /// prompt's last token: that one is computed always, for its logits.
    ///
    /// # Errors
    /// When candle cannot copy.
    pub fn acquire(&mut self, prompt: &[u32]) -> Result<Sequence> {
        let reusable = prompt.len().saturating_sub(1);
        let best = self
            .sequences
            .iter()
            .enumerate()
            .map(|(index, cached)| (common_prefix(cached.tokens(), &prompt[..reusable]), index))
            .max();
        let Some((shared, index)) = best.filter(|(shared, _)| *shared > 0) else {
            return Ok(Sequence::new(self.shape));
        };
        if shared as f64 >= self.sequences[index].len() as f64 * TAKE_OVER_SHARE {
            let mut taken = self.sequences.remove(index);
            taken.truncate(shared);
            return Ok(taken);
        }
        self.sequences[index].copy_prefix(shared)
    }

    /// Keeps a sequence for later, at the cost of those that were not used for longest.
    pub fn release(&mut self, mut sequence: Sequence) {
        if sequence.is_empty() {
            return;
        }
        if sequence.bytes() > self.budget_bytes {
            // One sequence alone is too large: its beginning is what a later prompt may share.
            let tokens = self.budget_bytes / self.shape.bytes_per_token();
            let kept = tokens.saturating_sub(tokens % GROWTH).min(sequence.len());
            sequence.truncate(kept);
            if kept == 0 || sequence.reallocate(kept.next_multiple_of(GROWTH)).is_err() {
                return;
            }
        }
        self.sequences.push(sequence);
        while self.bytes() > self.budget_bytes && self.sequences.len() > 1 {
            self.sequences.remove(0);
        }
    }

    /// The bytes that cached sequences occupy.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.sequences.iter().map(Sequence::bytes).sum()
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: KvShape = KvShape {
        layers: 2,
        heads: 3,
        head_dim: 4,
    };

    /// Keys and values that tell their token.
    fn write(sequence: &mut Sequence, tokens: &[u32]) {
        sequence.reserve(tokens.len()).unwrap();
        for layer in 0..SHAPE.layers {
            let data: Vec<f32> = (0..SHAPE.heads)
                .flat_map(|head| tokens.iter().map(move |token| (head, *token)))
                .flat_map(|(head, token)| [token as f32 + head as f32 / 8.0; SHAPE.head_dim])
                .collect();
            let dims = (SHAPE.heads, tokens.len(), SHAPE.head_dim);
            let tensor = Tensor::from_vec(data, dims, &Device::Cpu).unwrap();
            sequence.append(layer, &tensor, &tensor).unwrap();
        }
        sequence.push(tokens);
    }

    fn first_of_each(sequence: &Sequence) -> Vec<f32> {
        let (keys, _) = &sequence.layers[SHAPE.layers - 1];
        let all = keys.to_vec3::<f32>().unwrap();
        all[0][..sequence.len()].iter().map(|row| row[0]).collect()
    }

    #[test]
    fn what_is_written_stays_through_growth_rewinding_and_copying() {
        let mut sequence = Sequence::new(SHAPE);
        let tokens: Vec<u32> = (0..600).collect();
        for block in tokens.chunks(7) {
            write(&mut sequence, block);
        }
        sequence.truncate(300);
        write(&mut sequence, &[9, 8, 7]);
        let mut expected: Vec<f32> = (0..300).map(|token| token as f32).collect();
        expected.extend([9.0, 8.0, 7.0]);
        assert_eq!(first_of_each(&sequence), expected);
        let copy = sequence.copy_prefix(301).unwrap();
        assert_eq!(first_of_each(&copy), expected[..301]);
    }

    fn cache_with(budget_tokens: usize, sequences: &[&[u32]]) -> KvCache {
        let mut cache = KvCache::new(SHAPE, budget_tokens * SHAPE.bytes_per_token());
        for tokens in sequences {
            let mut sequence = Sequence::new(SHAPE);
            write(&mut sequence, tokens);
            cache.release(sequence);
        }
        cache
    }

    #[test]
    fn the_longest_common_prefix_is_reused_and_others_survive() {
        let mut cache = cache_with(4096, &[&[1, 2, 3, 4, 5, 6], &[1, 2, 9, 9, 9, 9, 9]]);
        // Shares most of the first: takes it over, cut back.
        let taken = cache.acquire(&[1, 2, 3, 4, 7]).unwrap();
        assert_eq!(taken.tokens(), [1, 2, 3, 4]);
        cache.release(taken);
        // Shares a little of the second: a copy, and the second is still whole.
        let copy = cache.acquire(&[1, 2, 9, 5]).unwrap();
        assert_eq!(copy.tokens(), [1, 2, 9]);
        assert_eq!(first_of_each(&copy), [1.0, 2.0, 9.0]);
        cache.release(copy);
        let whole = cache.acquire(&[1, 2, 9, 9, 9, 9, 9]).unwrap();
        assert_eq!(whole.len(), 6, "all but the last, which gives the logits");
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_budget_holds() {
        let mut cache = cache_with(2 * GROWTH, &[&[1, 1, 1], &[2, 2, 2]]);
        let used = cache.acquire(&[1, 1, 1, 1]).unwrap();
        cache.release(used);
        let mut third = Sequence::new(SHAPE);
        write(&mut third, &[3, 3, 3]);
        cache.release(third);
        assert!(cache.bytes() <= 2 * GROWTH * SHAPE.bytes_per_token());
        assert_eq!(cache.acquire(&[2, 2, 2, 2]).unwrap().len(), 0);
        assert_eq!(cache.acquire(&[1, 1, 1, 1]).unwrap().len(), 3);
    }

    #[test]
    fn a_sequence_beyond_the_budget_keeps_its_beginning() {
        let tokens: Vec<u32> = (0..1000).collect();
        let mut cache = cache_with(2 * GROWTH + 10, &[&tokens]);
        assert!(cache.bytes() <= (2 * GROWTH + 10) * SHAPE.bytes_per_token());
        assert_eq!(cache.acquire(&tokens).unwrap().len(), 2 * GROWTH);
    }
}
