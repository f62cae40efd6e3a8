//! Sequences kept between requests, so that what was computed before need not be again.

use super::LanguageModel;
use super::sequence::Sequence;
use crate::inference::GenerateError;

/// A new prompt takes over a cached sequence, and cuts off its end, where it shares at least this
/// part of it; else it gets a copy of what they share, and the cached one stays.
const TAKE_OVER_SHARE: f64 = 0.5;

/// Sequences kept between requests.
#[derive(Debug)]
pub struct KvCache {
    budget_bytes: usize,
    /// Least recently used first.
    sequences: Vec<Sequence>,
}

impl KvCache {
    /// A cache that keeps at most `budget_bytes` between requests, or one sequence where a model's
    /// are all larger than that.
    #[must_use]
    pub fn new(budget_bytes: usize) -> Self {
        Self {
            budget_bytes,
            sequences: Vec::new(),
        }
    }

    /// A sequence of `model` that starts with the longest run of `prompt` that any cached one has,
    /// less the prompt's last token: that one is computed always, for its logits.
    ///
    /// Where a sequence can be neither copied nor made beside the others within the budget, a cached
    /// one is taken over: the one that shares most, else the least recently used.
    ///
    /// # Errors
    /// When the model cannot make a sequence, not even after the cache gave up all of its own.
    pub fn acquire(
        &mut self,
        prompt: &[u32],
        model: &mut dyn LanguageModel,
    ) -> Result<Sequence, GenerateError> {
        let reusable = prompt.len().saturating_sub(1);
        let best = self
            .sequences
            .iter()
            .enumerate()
            .map(|(index, cached)| (common_prefix(cached.tokens(), &prompt[..reusable]), index))
            .filter(|(shared, _)| *shared > 0)
            .max();
        if let Some((shared, index)) = best {
            let cached = &self.sequences[index];
            if shared as f64 >= cached.len() as f64 * TAKE_OVER_SHARE {
                return Ok(self.take_over(index, shared));
            }
            if let Some(copy) = cached.copy_prefix(shared) {
                return Ok(copy);
            }
        }
        let (shared, index) = best.unwrap_or_default();
        // Those inside a runtime are all of one size, and zeroing a new one costs more than nothing.
        let is_state = |cached: &Sequence| cached.state().is_some();
        let one_more = self
            .sequences
            .get(index)
            .filter(|cached| is_state(cached))
            .map(Sequence::bytes);
        if one_more.is_some_and(|bytes| self.bytes() + bytes > self.budget_bytes) {
            return Ok(self.take_over(index, shared));
        }
        model.sequence().or_else(|error| {
            if self.sequences.is_empty() {
                return Err(error);
            }
            self.sequences.clear();
            model.sequence()
        })
    }

    /// Keeps a sequence for later, at the cost of those that were not used for longest.
    pub fn release(&mut self, mut sequence: Sequence) {
        if sequence.is_empty() {
            return;
        }
        // One in candle's memory that is too large alone: its beginning is what a later prompt may
        // share. One in a runtime cannot become smaller, and one there must be.
        let too_large = sequence.bytes() > self.budget_bytes && sequence.state().is_none();
        if too_large && !sequence.shrink(self.budget_bytes) {
            return;
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

    /// How many sequences are cached.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.sequences.len()
    }

    fn take_over(&mut self, index: usize, shared: usize) -> Sequence {
        let mut taken = self.sequences.remove(index);
        taken.truncate(shared);
        taken
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::sampler::Scores;
    use super::super::sequence::tests::{SHAPE, first_of_each, write};
    use super::super::sequence::{GROWTH, ReleasedStates, StateHandle};
    use super::super::window::Window;
    use super::*;
    use crate::inference::ErrorKind;

    /// Makes sequences, in candle's memory or as states of 100 bytes, of which there are so many.
    struct Maker {
        states: Option<usize>,
        made: usize,
        released: ReleasedStates,
    }

    impl Maker {
        fn new(states: Option<usize>) -> Self {
            Self {
                states,
                made: 0,
                released: ReleasedStates::default(),
            }
        }
    }

    impl LanguageModel for Maker {
        fn sequence(&mut self) -> Result<Sequence, GenerateError> {
            let Some(states) = &mut self.states else {
                return Ok(Sequence::in_tensors(SHAPE, &Device::Cpu));
            };
            while self.released.take().is_some() {
                *states += 1;
            }
            let error = || GenerateError::new(ErrorKind::Backend, "no room", "Try again.");
            *states = states.checked_sub(1).ok_or_else(error)?;
            self.made += 1;
            let handle = StateHandle::new(self.made, 100, &self.released);
            Ok(Sequence::in_state(handle))
        }

        fn forward(
            &mut self,
            tokens: &[u32],
            sequence: &mut Sequence,
            _: Option<&mut Scores>,
        ) -> Result<(), GenerateError> {
            match self.states {
                Some(_) => sequence.push(tokens),
                None => write(sequence, tokens),
            }
            Ok(())
        }

        fn window(&self) -> Window {
            Window::fixed(4096)
        }
    }

    fn cache_with(budget_tokens: usize, sequences: &[&[u32]]) -> (KvCache, Maker) {
        let mut cache = KvCache::new(budget_tokens * SHAPE.bytes_per_token());
        for tokens in sequences {
            let mut sequence = Sequence::in_tensors(SHAPE, &Device::Cpu);
            write(&mut sequence, tokens);
            cache.release(sequence);
        }
        (cache, Maker::new(None))
    }

    #[test]
    fn the_longest_common_prefix_is_reused_and_others_survive() {
        let (mut cache, mut model) =
            cache_with(4096, &[&[1, 2, 3, 4, 5, 6], &[1, 2, 9, 9, 9, 9, 9]]);
        // Shares most of the first: takes it over, cut back.
        let taken = cache.acquire(&[1, 2, 3, 4, 7], &mut model).unwrap();
        assert_eq!(taken.tokens(), [1, 2, 3, 4]);
        cache.release(taken);
        // Shares a little of the second: a copy, and the second is still whole.
        let copy = cache.acquire(&[1, 2, 9, 5], &mut model).unwrap();
        assert_eq!(copy.tokens(), [1, 2, 9]);
        assert_eq!(first_of_each(&copy), [1.0, 2.0, 9.0]);
        cache.release(copy);
        let whole = cache.acquire(&[1, 2, 9, 9, 9, 9, 9], &mut model).unwrap();
        assert_eq!(whole.len(), 6, "all but the last, which gives the logits");
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_budget_holds() {
        let (mut cache, mut model) = cache_with(2 * GROWTH, &[&[1, 1, 1], &[2, 2, 2]]);
        let used = cache.acquire(&[1, 1, 1, 1], &mut model).unwrap();
        cache.release(used);
        let mut third = Sequence::in_tensors(SHAPE, &Device::Cpu);
        write(&mut third, &[3, 3, 3]);
        cache.release(third);
        assert!(cache.bytes() <= 2 * GROWTH * SHAPE.bytes_per_token());
        assert_eq!(cache.acquire(&[2, 2, 2, 2], &mut model).unwrap().len(), 0);
        assert_eq!(cache.acquire(&[1, 1, 1, 1], &mut model).unwrap().len(), 3);
    }

    #[test]
    fn a_sequence_beyond_the_budget_keeps_its_beginning() {
        let tokens: Vec<u32> = (0..1000).collect();
        let (mut cache, mut model) = cache_with(2 * GROWTH + 10, &[&tokens]);
        assert!(cache.bytes() <= (2 * GROWTH + 10) * SHAPE.bytes_per_token());
        let reused = cache.acquire(&tokens, &mut model).unwrap();
        assert_eq!(reused.len(), 2 * GROWTH);
    }

    /// Asks a cache of states for `prompt` and keeps what was computed; the state and how many
    /// tokens were there already.
    fn ask(cache: &mut KvCache, model: &mut Maker, prompt: &[u32]) -> (usize, usize) {
        let mut sequence = cache.acquire(prompt, model).unwrap();
        let cached = sequence.len();
        model
            .forward(&prompt[cached..], &mut sequence, None)
            .unwrap();
        let state = sequence.state().unwrap();
        cache.release(sequence);
        (state, cached)
    }

    #[test]
    fn states_are_rewound_and_taken_over_within_the_budget() {
        let mut cache = KvCache::new(250);
        let mut model = Maker::new(Some(9));
        let (first, cached) = ask(&mut cache, &mut model, &[1, 2, 3, 4, 5, 6]);
        assert_eq!(cached, 0);
        // Most of it is shared: the same state, rewound.
        let typed = ask(&mut cache, &mut model, &[1, 2, 3, 4, 7]);
        assert_eq!(typed, (first, 4));
        // Little is shared, and there is room: another state, and the first stays whole.
        let (second, cached) = ask(&mut cache, &mut model, &[1, 8, 8, 8, 8]);
        assert!(second != first && cached == 0);
        // Nothing is shared, and there is no more room: the least recently used one starts anew.
        assert_eq!(ask(&mut cache, &mut model, &[5, 5]), (first, 0));
        // A little is shared, and there is no more room: what is shared is used.
        assert_eq!(ask(&mut cache, &mut model, &[1, 9, 9]), (second, 1));
        assert_eq!(cache.bytes(), 200);
    }

    #[test]
    fn one_state_is_always_possible() {
        // Larger than the budget, and the runtime has no other.
        let mut cache = KvCache::new(10);
        let mut model = Maker::new(Some(1));
        let (only, _) = ask(&mut cache, &mut model, &[1, 2, 3]);
        assert_eq!(ask(&mut cache, &mut model, &[7, 8, 9]), (only, 0));
        // The budget would allow two, the runtime has one.
        let mut cache = KvCache::new(1000);
        let mut model = Maker::new(Some(1));
        ask(&mut cache, &mut model, &[1, 2, 3]);
        let (_, cached) = ask(&mut cache, &mut model, &[7, 8, 9]);
        assert_eq!(cached, 0);
        // While one is in use there is no other.
        let held = cache.acquire(&[7, 8, 9], &mut model).unwrap();
        assert!(cache.acquire(&[4], &mut model).is_err());
        drop(held);
        assert!(cache.acquire(&[4], &mut model).is_ok());
    }
}
