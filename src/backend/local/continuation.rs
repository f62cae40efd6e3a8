//! Tokens after a prompt: the prompt in blocks, then token after token, and the window moved on
//! where it is full.
//!
//! Each [`Continuation::step`] is short (a block of the prompt or one token, with a few guessed ones
//! behind it at times), so that whoever drives it can look up between steps. A step that chooses a token
//! allocates nothing of its own.

use std::time::{Duration, Instant};

use super::LanguageModel;
use super::drafting::{Drafted, Drafting};
use super::lookup::Lookup;
use super::payoff::{MOST, Payoff};
use super::sampler::{Sampler, Scores};
use super::sequence::Sequence;
use super::window::Window;
use crate::inference::{GenerateError, Sampling};

/// A block of the prompt should take so long, and at most twice as long: something more urgent waits for one
/// block at most, as does a cancel where the model does not heed it, and fewer, larger blocks are faster.
const BLOCK_TIME: Duration = Duration::from_millis(40);
/// The first block, before the model's speed is known: a slow model's must not keep a newer keystroke
/// waiting, and a fast one has large blocks soon.
pub const FIRST_BLOCK: usize = 16;
/// The bounds of later blocks.
const SMALLEST_BLOCK: usize = 8;
const LARGEST_BLOCK: usize = 512;

/// What was seen of a model's speed, which the next answer begins with.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Tokens of a prompt to compute at once.
    pub block: usize,
    /// What guesses cost and bring.
    pub payoff: Payoff,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            block: FIRST_BLOCK,
            payoff: Payoff::default(),
        }
    }
}

/// The tokens so far, and all that it takes to choose the next one.
#[derive(Debug)]
pub struct Continuation {
    /// The prompt and every token accepted so far.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    window: Window,
    /// The token at position 0 of the sequence.
    window_start: usize,
    sequence: Sequence,
    sampler: Sampler,
    block: usize,
    batch: Option<usize>,
    /// Where what comes next is looked up.
    drafting: Option<Drafting>,
    /// The longest answer worth guesses.
    most_answer: usize,
    /// What is known of guesses where none are made.
    payoff: Payoff,
}

impl Continuation {
    /// Continues `prompt` (not empty) from `sequence`, whose tokens must be a proper beginning of
    /// the prompt's part in the window: of `prompt[model.window().start(0, prompt.len())..]`. The
    /// prompt is computed in blocks of about `block` tokens: that of [`Self::pace`] of the answer before,
    /// or [`FIRST_BLOCK`].
    #[must_use]
    pub fn new(
        prompt: Vec<u32>,
        sampling: Sampling,
        model: &dyn LanguageModel,
        sequence: Sequence,
        block: usize,
    ) -> Self {
        let window = model.window();
        let mut tokens = prompt;
        // So that tokens are accepted in place.
        tokens.reserve(window.context_tokens);
        Self {
            prompt_tokens: tokens.len(),
            window_start: window.start(0, tokens.len()),
            tokens,
            window,
            sequence,
            sampler: Sampler::new(sampling),
            block,
            batch: model.block(),
            drafting: None,
            most_answer: usize::MAX,
            payoff: Payoff::default(),
        }
    }

    /// Has it look up what may come next, and compute several tokens at once where that pays. An answer is
    /// the same with and without. Models that score one token at a time go on as before.
    #[must_use]
    pub fn with_lookup(mut self, lookup: Option<Lookup>, most_answer: usize, pace: Pace) -> Self {
        self.most_answer = most_answer;
        self.payoff = pace.payoff;
        self.drafting = lookup.map(|lookup| Drafting::new(lookup, pace.payoff));
        self
    }

    /// Computes one block, or the last tokens and with them the next one, which counts once it is
    /// accepted. `scores` then holds what it was chosen by.
    ///
    /// # Errors
    /// When the arithmetic fails or its result is not finite.
    pub fn step(
        &mut self,
        model: &mut dyn LanguageModel,
        scores: &mut Scores,
    ) -> Result<Option<u32>, GenerateError> {
        self.step_guided(model, scores, |_| Ok(()), |_| false)
    }

    /// As [`Self::step`]; `guide` may change the scores before a token is chosen by them, and `last` says
    /// which tokens would be the last, so that none is guessed behind them.
    ///
    /// # Errors
    /// As [`Self::step`], and what `guide` fails with.
    pub fn step_guided(
        &mut self,
        model: &mut dyn LanguageModel,
        scores: &mut Scores,
        guide: impl FnOnce(&mut Scores) -> Result<(), GenerateError>,
        last: impl Fn(u32) -> bool,
    ) -> Result<Option<u32>, GenerateError> {
        let start = self.window.start(self.window_start, self.tokens.len());
        if start != self.window_start {
            self.window_start = start;
            self.sequence.truncate(0);
            self.drafting.iter_mut().for_each(Drafting::forget);
        }
        let ahead = self.drafting.as_mut();
        let recalled = ahead.is_some_and(|drafting| drafting.recall(scores));
        if !recalled && !self.compute(model, start, scores, last)? {
            return Ok(None);
        }
        guide(scores)?;
        self.sampler.choose(scores, &self.tokens).map(Some)
    }

    /// Computes a block, or all that waits and the scores of what comes next; whether it is those.
    fn compute(
        &mut self,
        model: &mut dyn LanguageModel,
        start: usize,
        scores: &mut Scores,
        last: impl Fn(u32) -> bool,
    ) -> Result<bool, GenerateError> {
        // What was guessed and did not come; the last token is always computed.
        self.sequence.truncate(self.tokens.len() - start - 1);
        let there = self.sequence.len();
        let waiting = &self.tokens[start + there..];
        if let Some(count) = self.block_of(waiting.len()) {
            let started = Instant::now();
            model.forward(&waiting[..count], &mut self.sequence, None)?;
            if count >= self.block {
                self.block = next_block(self.block, started.elapsed());
            }
            return Ok(false);
        }
        let started = Instant::now();
        let Some(drafting) = self.drafting.as_mut().filter(|_| waiting.len() == 1) else {
            model.forward(waiting, &mut self.sequence, Some(scores))?;
            return Ok(true);
        };
        let answer = self.tokens.len() - self.prompt_tokens;
        let most = model
            .ahead()
            .min(self.window.context_tokens.saturating_sub(there + 1))
            .min(self.most_answer.saturating_sub(answer + 1));
        let guess = drafting.guess(most, last);
        if guess.is_empty() {
            model.forward(waiting, &mut self.sequence, Some(scores))?;
            drafting.took(1, started.elapsed());
            return Ok(true);
        }
        let mut batch = [0; MOST + 1];
        let batch = &mut batch[..=guess.len()];
        batch[0] = waiting[0];
        batch[1..].copy_from_slice(guess);
        model.forward_all(batch, &mut self.sequence, drafting.logits())?;
        drafting.copy(scores);
        drafting.took(batch.len(), started.elapsed());
        Ok(true)
    }

    /// Adds the token that the last step chose.
    pub fn accept(&mut self, token: u32) {
        self.tokens.push(token);
        if let Some(drafting) = &mut self.drafting {
            drafting.accept(token);
        }
    }

    /// Whether no token can follow.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.window.is_full(self.tokens.len())
    }

    /// What was seen of the model's speed.
    #[must_use]
    pub fn pace(&self) -> Pace {
        Pace {
            block: self.block,
            payoff: self.drafting.as_ref().map_or(self.payoff, Drafting::payoff),
        }
    }

    /// How many tokens were guessed and computed ahead, and how many of them came.
    #[must_use]
    pub fn drafted(&self) -> Drafted {
        self.drafting
            .as_ref()
            .map_or_else(Drafted::default, Drafting::drafted)
    }

    /// How many tokens the prompt has.
    #[must_use]
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The accepted tokens.
    #[must_use]
    pub fn answer(&self) -> &[u32] {
        &self.tokens[self.prompt_tokens..]
    }

    /// Gives the computed keys and values back, for reuse.
    #[must_use]
    pub fn into_sequence(mut self) -> Sequence {
        // Without what was guessed and did not come.
        let seen = self.sequence.tokens().iter();
        let so_far = seen.zip(&self.tokens[self.window_start..]);
        let length = so_far.take_while(|(seen, token)| seen == token).count();
        self.sequence.truncate(length);
        self.sequence
    }

    /// How many of `waiting` tokens to compute without scores; `None` when all of them can go with
    /// the token that is chosen by them.
    fn block_of(&self, waiting: usize) -> Option<usize> {
        let Some(batch) = self.batch else {
            return (waiting > self.block).then_some(self.block);
        };
        let unaligned = self.sequence.len() % batch;
        if waiting <= batch - unaligned {
            return None;
        }
        if unaligned > 0 {
            return Some(batch - unaligned);
        }
        let fast_enough = (self.block / batch).max(1);
        Some(fast_enough.min((waiting - 1) / batch) * batch)
    }
}

/// The block size that would have taken at least [`BLOCK_TIME`], in powers of two.
fn next_block(block: usize, took: Duration) -> usize {
    if took > BLOCK_TIME * 2 {
        (block / 2).max(SMALLEST_BLOCK)
    } else if took < BLOCK_TIME {
        (block * 2).min(LARGEST_BLOCK)
    } else {
        block
    }
}

#[cfg(test)]
mod tests {
    use super::super::sequence::{ReleasedStates, StateHandle};
    use super::*;

    #[test]
    fn blocks_follow_the_speed_of_the_model_within_bounds() {
        let mut block = FIRST_BLOCK;
        for _ in 0..10 {
            block = next_block(block, Duration::from_secs(1));
        }
        assert_eq!(block, SMALLEST_BLOCK);
        for _ in 0..10 {
            block = next_block(block, Duration::from_millis(1));
        }
        assert_eq!(block, LARGEST_BLOCK);
        assert_eq!(next_block(block, BLOCK_TIME), block);
        assert_eq!(next_block(block, BLOCK_TIME * 2), block);
        // Twice as many tokens take twice as long at most.
        assert_eq!(next_block(64, BLOCK_TIME * 9 / 10), 128);
    }

    /// Says the number of tokens in the window, and remembers what it was given: where, how many,
    /// and whether scores were wanted.
    struct Recorder {
        batch: Option<usize>,
        window: Window,
        calls: Vec<(usize, usize, bool)>,
    }

    impl LanguageModel for Recorder {
        fn sequence(&mut self) -> Result<Sequence, GenerateError> {
            let handle = StateHandle::new(0, 1, &ReleasedStates::default());
            Ok(Sequence::in_state(handle))
        }

        fn forward(
            &mut self,
            tokens: &[u32],
            sequence: &mut Sequence,
            scores: Option<&mut Scores>,
        ) -> Result<(), GenerateError> {
            self.calls
                .push((sequence.len(), tokens.len(), scores.is_some()));
            sequence.push(tokens);
            if let Some(scores) = scores {
                scores.best = Some((sequence.len() as u32, 1.0));
            }
            Ok(())
        }

        fn window(&self) -> Window {
            self.window
        }

        fn block(&self) -> Option<usize> {
            self.batch
        }
    }

    /// The calls for the first token after `prompt` tokens of which `cached` are there.
    fn calls(batch: usize, block: usize, cached: usize, prompt: usize) -> Vec<(usize, usize)> {
        let mut model = Recorder {
            batch: Some(batch),
            window: Window::fixed(512),
            calls: Vec::new(),
        };
        let tokens: Vec<u32> = (0..prompt as u32).collect();
        let mut sequence = model.sequence().unwrap();
        sequence.push(&tokens[..cached]);
        let mut continuation = Continuation::new(tokens, Sampling::GREEDY, &model, sequence, block);
        let mut scores = Scores::default();
        while continuation
            .step(&mut model, &mut scores)
            .unwrap()
            .is_none()
        {}
        let last = model.calls.len() - 1;
        for (index, (_, _, scored)) in model.calls.iter().enumerate() {
            assert_eq!(*scored, index == last);
        }
        model
            .calls
            .iter()
            .map(|(at, count, _)| (*at, *count))
            .collect()
    }

    #[test]
    fn blocks_are_whole_batches_on_their_boundaries() {
        assert_eq!(calls(64, 64, 0, 1), [(0, 1)]);
        assert_eq!(calls(64, 64, 0, 64), [(0, 64)]);
        assert_eq!(calls(64, 64, 0, 65), [(0, 64), (64, 1)]);
        assert_eq!(
            calls(64, 16, 0, 200),
            [(0, 64), (64, 64), (128, 64), (192, 8)]
        );
        // From inside a batch first to its end.
        assert_eq!(
            calls(64, 64, 10, 200),
            [(10, 54), (64, 64), (128, 64), (192, 8)]
        );
        assert_eq!(calls(64, 64, 10, 30), [(10, 20)]);
        assert_eq!(calls(64, 64, 199, 200), [(199, 1)]);
        // A fast model takes several at once, and the last token always gives the scores.
        assert_eq!(calls(64, 512, 0, 256), [(0, 192), (192, 64)]);
    }

    #[test]
    fn an_answer_goes_on_beyond_the_window() {
        let mut model = Recorder {
            batch: Some(4),
            window: Window::anemll(16, 4),
            calls: Vec::new(),
        };
        let sequence = model.sequence().unwrap();
        let mut continuation =
            Continuation::new(vec![1; 12], Sampling::GREEDY, &model, sequence, 4);
        let mut scores = Scores::default();
        let mut said = Vec::new();
        while said.len() < 12 {
            if let Some(token) = continuation.step(&mut model, &mut scores).unwrap() {
                continuation.accept(token);
                said.push(token);
            }
        }
        assert!(!continuation.is_full());
        // The window moves at 14 tokens and keeps 8: two batches, seen anew from position 0.
        assert_eq!(said, [12, 13, 8, 9, 10, 11, 12, 13, 8, 9, 10, 11]);
        assert_eq!(model.calls[4..6], [(0, 4, false), (4, 4, true)]);
    }
}
