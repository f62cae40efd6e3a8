//! One answer in the making: its tokens, their text, and where it ends.
//!
//! Each [`Decoding::step`] is short (a block of the prompt or one token), so that whoever drives it
//! can look up between steps: for cancels, and for something more urgent.

use std::collections::HashSet;
use std::sync::Arc;

use super::LanguageModel;
use super::continuation::{Continuation, Pace};
use super::detokenizer::Detokenizer;
use super::drafting::Drafted;
use super::guide::Guide;
use super::lookup::Lookup;
use super::sampler::Scores;
use super::sequence::Sequence;
use super::stop::{Passed, StopSequences};
use super::tokenizer::Tokenizer;
use crate::inference::{FinishReason, GenerateError, Sampling, Usage};

/// What an answer needs besides a model.
#[derive(Debug)]
pub struct DecodeRequest {
    /// The prompt; not empty.
    pub prompt: Vec<u32>,
    /// How to choose.
    pub sampling: Sampling,
    /// The longest answer.
    pub max_tokens: usize,
    /// Tokens that end the answer.
    pub ends: Arc<HashSet<u32>>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// What bears on the choice of tokens besides the model.
    pub guide: Guide,
    /// Where what may come next is looked up; the answer is the same without.
    pub lookup: Option<Lookup>,
}

/// An answer in the making.
#[derive(Debug)]
pub struct Decoding {
    continuation: Continuation,
    max_tokens: usize,
    ends: Arc<HashSet<u32>>,
    cached_tokens: usize,
    detokenizer: Detokenizer,
    stops: StopSequences,
    guide: Guide,
    /// Tokens that said again what the answer had to begin with.
    healed: usize,
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
    /// Starts from `sequence`, as in [`Continuation::new`], at the pace of the answer before.
    #[must_use]
    pub fn new(
        request: DecodeRequest,
        model: &dyn LanguageModel,
        sequence: Sequence,
        pace: Pace,
    ) -> Self {
        let DecodeRequest {
            prompt,
            sampling,
            max_tokens,
            ends,
            stop,
            guide,
            lookup,
        } = request;
        Self {
            cached_tokens: sequence.len(),
            continuation: Continuation::new(prompt, sampling, model, sequence, pace.block)
                .with_lookup(lookup, max_tokens, pace),
            max_tokens,
            ends,
            detokenizer: Detokenizer::default(),
            stops: StopSequences::new(stop),
            guide,
            healed: 0,
        }
    }

    /// Computes one block of the prompt, or one token of the answer.
    ///
    /// # Errors
    /// When the arithmetic fails or its result is not finite, and as in [`Guide::apply`].
    pub fn step(
        &mut self,
        model: &mut dyn LanguageModel,
        tokenizer: &Tokenizer,
        scores: &mut Scores,
    ) -> Result<Step, GenerateError> {
        let guide = &mut self.guide;
        let guided = |scores: &mut Scores| guide.apply(scores, tokenizer);
        let (ends, stops) = (&self.ends, &self.stops);
        let last = |token| ends.contains(&token) || stops.are_in(tokenizer.bytes(token));
        let step = self.continuation.step_guided(model, scores, guided, last)?;
        let Some(token) = step else {
            return Ok(Step::Text(String::new()));
        };
        if self.ends.contains(&token) {
            return Ok(Step::Finished(self.stops.finish(), FinishReason::Stop));
        }
        self.continuation.accept(token);
        let is_begun = self.guide.has_begun();
        let added = self.guide.accept(token, tokenizer.bytes(token))?;
        if !is_begun && added.is_empty() {
            self.healed = self.answer().len();
        }
        let piece = self.detokenizer.push(added);
        let text = match self.stops.push(&piece) {
            Passed::Stopped(text) => return Ok(Step::Finished(text, FinishReason::Stop)),
            Passed::Text(text) => text,
        };
        if self.guide.is_complete() {
            let text = text + &self.stops.finish();
            return Ok(Step::Finished(text, FinishReason::Stop));
        }
        if self.answer().len() >= self.max_tokens + self.healed || self.continuation.is_full() {
            let text = text + &self.stops.finish();
            return Ok(Step::Finished(text, FinishReason::Length));
        }
        Ok(Step::Text(text))
    }

    /// What it cost so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.continuation.prompt_tokens(),
            cached_tokens: self.cached_tokens,
            completion_tokens: self.answer().len(),
        }
    }

    /// What was seen of the model's speed.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.continuation.pace()
    }

    /// How many tokens were guessed and computed ahead, and how many of them came.
    #[must_use]
    pub fn drafted(&self) -> Drafted {
        self.continuation.drafted()
    }

    /// The tokens of the answer so far.
    #[must_use]
    pub fn answer(&self) -> &[u32] {
        self.continuation.answer()
    }

    /// Gives the computed keys and values back, for reuse.
    #[must_use]
    pub fn into_sequence(self) -> Sequence {
        self.continuation.into_sequence()
    }
}
