//! The keys and values of one run of tokens, wherever they live.
//!
//! A [`Sequence`] belongs to one prompt and its answer. Cutting its end off costs nothing: what lies
//! behind its length is never looked at.

use std::cell::RefCell;
use std::rc::Rc;

use candle_core::{DType, Device, Result, Tensor};
use tandem_kernels::cache::{Cache, CacheShape, PAGE};

/// Room is added in steps of at least this many tokens.
pub(super) const GROWTH: usize = 256;

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
    tokens: Vec<u32>,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Tensors(Tensors),
    Pages(Cache),
    State(StateHandle),
}

/// Keys and values in candle's memory, which grow in place: a token's are written into tensors that
/// have room, never appended by copying what is there.
#[derive(Debug)]
struct Tensors {
    shape: KvShape,
    device: Device,
    capacity: usize,
    /// By layer: keys and values, each `[heads, capacity, head_dim]`.
    layers: Vec<(Tensor, Tensor)>,
}

/// States inside a runtime that nobody holds any more: filled by dropped [`StateHandle`]s, drained
/// by the model, which alone can free them.
#[derive(Debug, Clone, Default)]
pub struct ReleasedStates(Rc<RefCell<Vec<usize>>>);

impl ReleasedStates {
    /// One of them, which then is the caller's to free or to use again.
    #[must_use]
    pub fn take(&self) -> Option<usize> {
        self.0.borrow_mut().pop()
    }
}

/// A state inside a runtime. Dropped, it joins its model's [`ReleasedStates`].
#[derive(Debug)]
pub struct StateHandle {
    id: usize,
    bytes: usize,
    released: ReleasedStates,
}

impl StateHandle {
    /// A handle to the state `id`, which occupies `bytes` whatever it holds.
    #[must_use]
    pub fn new(id: usize, bytes: usize, released: &ReleasedStates) -> Self {
        Self {
            id,
            bytes,
            released: released.clone(),
        }
    }
}

impl Drop for StateHandle {
    fn drop(&mut self) {
        self.released.0.borrow_mut().push(self.id);
    }
}

impl Sequence {
    /// An empty one in the memory of candle's `device`.
    #[must_use]
    pub fn in_tensors(shape: KvShape, device: &Device) -> Self {
        Self {
            tokens: Vec::new(),
            storage: Storage::Tensors(Tensors {
                shape,
                device: device.clone(),
                capacity: 0,
                layers: Vec::new(),
            }),
        }
    }

    /// An empty one in pages of memory of its own.
    #[must_use]
    pub fn in_pages(shape: CacheShape) -> Self {
        Self {
            tokens: Vec::new(),
            storage: Storage::Pages(Cache::new(shape)),
        }
    }

    /// An empty one inside a runtime.
    #[must_use]
    pub fn in_state(handle: StateHandle) -> Self {
        Self {
            tokens: Vec::new(),
            storage: Storage::State(handle),
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

    /// Counts `tokens` as present.
    pub fn push(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }

    /// The state it lives in; `None` for one in this process's own memory.
    #[must_use]
    pub fn state(&self) -> Option<usize> {
        match &self.storage {
            Storage::Tensors(_) | Storage::Pages(_) => None,
            Storage::State(handle) => Some(handle.id),
        }
    }

    /// The pages it lives in; `None` for one that lives elsewhere. What is written there counts once
    /// [`Self::push`] says so.
    pub fn pages(&mut self) -> Option<&mut Cache> {
        match &mut self.storage {
            Storage::Pages(cache) => Some(cache),
            Storage::Tensors(_) | Storage::State(_) => None,
        }
    }

    /// The bytes it occupies.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::Tensors(tensors) => tensors.capacity * tensors.shape.bytes_per_token(),
            Storage::Pages(cache) => cache.bytes(),
            Storage::State(handle) => handle.bytes,
        }
    }

    /// Makes room for `more` tokens, in this process's own memory. A state has all its room from the start.
    ///
    /// # Errors
    /// When candle cannot make the tensors.
    pub fn reserve(&mut self, more: usize) -> Result<()> {
        self.tokens.reserve(more);
        let length = self.tokens.len();
        match &mut self.storage {
            Storage::Tensors(tensors) if length + more > tensors.capacity => {
                let capacity = (length + more).max(tensors.capacity * 2);
                tensors.reallocate(length, capacity.next_multiple_of(GROWTH))
            }
            Storage::Pages(cache) => {
                cache.reserve(length + more);
                Ok(())
            }
            Storage::Tensors(_) | Storage::State(_) => Ok(()),
        }
    }

    /// Writes the keys and values (`[heads, n, head_dim]`) of the `n` tokens after the present ones
    /// into `layer`, and returns views of all of them. [`Self::push`] makes them count once every
    /// layer has them.
    ///
    /// # Errors
    /// When the shapes do not fit, there is no room, or the sequence lives in another memory.
    pub fn append(&self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let Storage::Tensors(tensors) = &self.storage else {
            candle_core::bail!("the sequence is another model's");
        };
        let Some((all_keys, all_values)) = tensors.layers.get(layer) else {
            candle_core::bail!("no room was made in the sequence");
        };
        all_keys.slice_set(keys, 1, self.len())?;
        all_values.slice_set(values, 1, self.len())?;
        let length = self.len() + keys.dim(1)?;
        Ok((
            all_keys.narrow(1, 0, length)?,
            all_values.narrow(1, 0, length)?,
        ))
    }

    /// A sequence of its own with the first `length` tokens; `None` where that cannot be had.
    pub(super) fn copy_prefix(&self, length: usize) -> Option<Self> {
        let tensors = match &self.storage {
            Storage::Tensors(tensors) => tensors,
            Storage::Pages(cache) => {
                return Some(Self {
                    tokens: self.tokens[..length].to_vec(),
                    storage: Storage::Pages(cache.copy_prefix(length)),
                });
            }
            Storage::State(_) => return None,
        };
        let mut copy = Tensors {
            shape: tensors.shape,
            device: tensors.device.clone(),
            capacity: tensors.capacity,
            layers: tensors.layers.clone(),
        };
        copy.reallocate(length, (length + 1).next_multiple_of(GROWTH))
            .ok()?;
        Some(Self {
            tokens: self.tokens[..length].to_vec(),
            storage: Storage::Tensors(copy),
        })
    }

    /// Gives back all that goes beyond `bytes`, and the tokens with it. `false` where it cannot
    /// become so small and hold anything.
    pub(super) fn shrink(&mut self, bytes: usize) -> bool {
        let tensors = match &mut self.storage {
            Storage::Tensors(tensors) => tensors,
            Storage::Pages(cache) => {
                let room = bytes / cache.shape().page_bytes() * PAGE;
                self.tokens.truncate(room);
                cache.shrink(self.tokens.len());
                return !self.tokens.is_empty();
            }
            Storage::State(_) => return false,
        };
        let room = bytes / tensors.shape.bytes_per_token();
        let kept = (room - room % GROWTH).min(self.tokens.len());
        self.tokens.truncate(kept);
        kept > 0
            && tensors
                .reallocate(kept, kept.next_multiple_of(GROWTH))
                .is_ok()
    }
}

impl Tensors {
    /// Moves the first `length` tokens to tensors for `capacity`.
    fn reallocate(&mut self, length: usize, capacity: usize) -> Result<()> {
        let shape = self.shape;
        let fresh = || {
            let dims = (shape.heads, capacity, shape.head_dim);
            Tensor::zeros(dims, DType::F32, &self.device)
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

#[cfg(test)]
pub(super) mod tests {
    use tandem_kernels::cache::Precision;

    use super::*;

    pub const SHAPE: KvShape = KvShape {
        layers: 2,
        heads: 3,
        head_dim: 4,
    };

    /// Keys and values that tell their token.
    pub fn write(sequence: &mut Sequence, tokens: &[u32]) {
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

    pub fn first_of_each(sequence: &Sequence) -> Vec<f32> {
        let Storage::Tensors(tensors) = &sequence.storage else {
            panic!("not in candle's memory")
        };
        let (keys, _) = &tensors.layers[SHAPE.layers - 1];
        let all = keys.to_vec3::<f32>().unwrap();
        all[0][..sequence.len()].iter().map(|row| row[0]).collect()
    }

    #[test]
    fn what_is_written_stays_through_growth_rewinding_and_copying() {
        let mut sequence = Sequence::in_tensors(SHAPE, &Device::Cpu);
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

    #[test]
    fn pages_grow_are_copied_and_shrink_by_the_page() {
        let shape = CacheShape {
            layers: 2,
            heads: 3,
            head_dim: 8,
            precision: Precision::Codes,
        };
        let mut sequence = Sequence::in_pages(shape);
        assert_eq!((sequence.bytes(), sequence.state()), (0, None));
        let tokens: Vec<u32> = (0..150).collect();
        sequence.reserve(150).unwrap();
        sequence.push(&tokens);
        assert_eq!(sequence.bytes(), 3 * shape.page_bytes());
        let copy = sequence.copy_prefix(64).unwrap();
        assert_eq!((copy.len(), copy.bytes()), (64, shape.page_bytes()));
        assert!(sequence.shrink(2 * shape.page_bytes() + 1));
        assert_eq!(sequence.tokens(), &tokens[..128]);
        assert_eq!(sequence.bytes(), 2 * shape.page_bytes());
        assert!(!sequence.shrink(shape.page_bytes() - 1));
    }

    #[test]
    fn a_dropped_state_comes_back_to_its_model_once() {
        let released = ReleasedStates::default();
        let sequence = Sequence::in_state(StateHandle::new(7, 100, &released));
        assert_eq!((sequence.state(), sequence.bytes()), (Some(7), 100));
        assert!(sequence.copy_prefix(0).is_none());
        assert_eq!(released.take(), None);
        drop(sequence);
        assert_eq!(released.take(), Some(7));
        assert_eq!(released.take(), None);
    }
}
