//! One answer in the making: prefill in blocks, then token after token.
//!
//! Each [`Decoding::step`] is short (a block of the prompt or one token), so that whoever drives it
//! can look up between steps: for cancels, and for something more urgent.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::detokenizer::Detokenizer;
use super::kv_cache::Sequence;
use super::sampler::Sampler;
use super::stop::{Passed, StopSequences};
use super::tokenizer::Tokenizer;
use super::{LanguageModel, Logits};
use crate::inference::{FinishReason, GenerateError, Sampling, Usage};

/// A block of the prompt should take about so long: a cancel waits for one block at most, and fewer,
/// larger blocks are faster.
const BLOCK_TIME: Duration = Duration::from_millis(40);
/// The first block, before the model's speed is known.
pub const FIRST_BLOCK: usize = 64;
/// The bounds of later blocks.
const SMALLEST_BLOCK: usize = 16;
const LARGEST_BLOCK: usize = 512;

/// What an answer needs besides a model.
#[derive(Debug)]
pub struct DecodeRequest {
    /// The prompt; not empty.
    pub prompt: Vec<u32>,
    /// How to choose.
    pub sampling: Sampling,
    /// The longest answer.
    pub max_tokens: usize,
    /// Prompt and answer together.
    pub context_tokens: usize,
    /// Tokens that end the answer.
    pub ends: Arc<HashSet<u32>>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
}

/// An answer in the making.
#[derive(Debug)]
pub struct Decoding {
    request: DecodeRequest,
    sequence: Sequence,
    cached_tokens: usize,
    /// The prompt and every token chosen so far.
    tokens: Vec<u32>,
    sampler: Sampler,
    detokenizer: Detokenizer,
    stops: StopSequences,
    block: usize,
}

/// What a step brought.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// This text (often none), and there is more to do.
    Text(String),
    /// This text, and the end.
    Finished(String, FinishReason),
}

impl Decoding {
    /// Starts from `sequence`, whose tokens must be a proper beginning of the prompt, with blocks of
    /// `block` tokens: [`Self::block`] of the answer before, or [`FIRST_BLOCK`].
    #[must_use]
    pub fn new(mut request: DecodeRequest, sequence: Sequence, block: usize) -> Self {
        Self {
            cached_tokens: sequence.len(),
            sequence,
            tokens: request.prompt.clone(),
            sampler: Sampler::new(request.sampling),
            detokenizer: Detokenizer::default(),
            stops: StopSequences::new(std::mem::take(&mut request.stop)),
            block,
            request,
        }
    }

    /// Computes one block of the prompt, or one token of the answer.
    ///
    /// # Errors
    /// When the arithmetic fails or its result is not finite.
    pub fn step(
        &mut self,
        model: &dyn LanguageModel,
        tokenizer: &Tokenizer,
    ) -> Result<Step, GenerateError> {
        let waiting = &self.tokens[self.sequence.len()..];
        if waiting.len() > self.block {
            let started = Instant::now();
            model.forward(&waiting[..self.block], &mut self.sequence, Logits::None)?;
            self.block = next_block(self.block, started.elapsed());
            return Ok(Step::Text(String::new()));
        }
        let logits = model.forward(waiting, &mut self.sequence, Logits::Last)?;
        let token = self.sampler.choose(logits, &self.tokens)?;
        if self.request.ends.contains(&token) {
            return Ok(Step::Finished(self.stops.finish(), FinishReason::Stop));
        }
        self.tokens.push(token);
        let piece = self.detokenizer.push(tokenizer.bytes(token));
        let text = match self.stops.push(&piece) {
            Passed::Stopped(text) => return Ok(Step::Finished(text, FinishReason::Stop)),
            Passed::Text(text) => text,
        };
        if self.answer_tokens() >= self.request.max_tokens
            || self.tokens.len() >= self.request.context_tokens
        {
            let text = text + &self.stops.finish();
            return Ok(Step::Finished(text, FinishReason::Length));
        }
        Ok(Step::Text(text))
    }

    /// What it cost so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.request.prompt.len(),
            cached_tokens: self.cached_tokens,
            completion_tokens: self.answer_tokens(),
        }
    }

    /// The block size that suits the model's speed.
    #[must_use]
    pub fn block(&self) -> usize {
        self.block
    }

    /// The tokens of the answer so far.
    #[must_use]
    pub fn answer(&self) -> &[u32] {
        &self.tokens[self.request.prompt.len()..]
    }

    /// Gives the computed keys and values back, for reuse.
    #[must_use]
    pub fn into_sequence(self) -> Sequence {
        self.sequence
    }

    fn answer_tokens(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }
}

/// The block size that would have taken [`BLOCK_TIME`], in powers of two.
fn next_block(block: usize, took: Duration) -> usize {
    if took > BLOCK_TIME * 2 {
        (block / 2).max(SMALLEST_BLOCK)
    } else if took < BLOCK_TIME / 2 {
        (block * 2).min(LARGEST_BLOCK)
    } else {
        block
    }
}

#[cfg(test)]
mod tests {
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
    }
}
