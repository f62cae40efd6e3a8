//! The canary: a model is healthy when it has generated, not when it has loaded.

use std::time::Duration;

use super::continuation::{Continuation, FIRST_BLOCK};
use super::loader::Loaded;
use super::queue::Clock;
use super::sampler::{Sampler, Scores};
use super::sequence::Sequence;
use super::{LanguageModel, Prefill};
use crate::config::LocalSettings;
use crate::inference::{ErrorKind, GenerateError, Sampling, Speed};
use crate::prompt::Vocabulary;

/// Enough to show a cache that is written wrongly, short enough not to keep the first request
/// waiting.
const TOKENS: usize = 8;
const PROMPT: &str = "fn main() {\n    let x = ";

/// The tokens compared after a prompt that was computed both ways.
const COMPARED_TOKENS: usize = 4;

/// How far a logit may differ between both ways of prefill, besides a hundredth of the largest one.
/// In half precision, other orders of summation move a logit by up to 0.1; a wrong mask, position or
/// cache row moves logits by whole units.
const PREFILL_TOLERANCE: f32 = 0.25;

/// A prompt, and the answer that was written down with the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// The prompt; not empty.
    pub prompt: Vec<u32>,
    /// The greedy answer; not empty.
    pub greedy: Vec<u32>,
}

/// The speed below which a model is degraded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    /// The longest time to the first token of a short prompt, in milliseconds.
    pub first_token_ms: f64,
    /// The least tokens a second after it.
    pub tokens_per_second: f64,
}

impl From<&LocalSettings> for Floor {
    fn from(settings: &LocalSettings) -> Self {
        Self {
            first_token_ms: settings.max_first_token.as_secs_f64() * 1e3,
            tokens_per_second: settings.min_tokens_per_second as f64,
        }
    }
}

impl Default for Floor {
    fn default() -> Self {
        Self::from(&LocalSettings::default())
    }
}

/// What stands in for a model that is not admitted, and what to do about it.
pub const TOO_SLOW: &str = "Others answer completions where they may and can. Choose a smaller model, \
    allow Claude, or lower `local.min_tokens_per_second` and raise `local.max_first_token`.";

impl Floor {
    /// Whether a model of that speed is admitted for completions.
    #[must_use]
    pub fn admits(&self, speed: Speed) -> bool {
        speed.first_token_ms <= self.first_token_ms
            && speed.tokens_per_second >= self.tokens_per_second
    }

    /// What was measured, beside what is asked for.
    #[must_use]
    pub fn beside(&self, speed: Speed) -> String {
        format!(
            "first token after {:.0} ms (at most {:.0}), then {:.1} tokens/s (at least {:.0})",
            speed.first_token_ms,
            self.first_token_ms,
            speed.tokens_per_second,
            self.tokens_per_second
        )
    }
}

/// What a probe found in a model that generates.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// As measured.
    pub speed: Speed,
    /// What is not as it should be, ending with the next step.
    pub degraded: Option<String>,
}

/// Compares both ways of prefill where the model has two, generates the same tokens twice, the
/// second time from a cache cut back, holds them to the golden answer where there is one, and
/// measures.
///
/// # Errors
/// [`ErrorKind::Backend`] when the arithmetic fails, its numbers are not finite, the two answers
/// differ, or they are not the golden one.
pub fn probe(loaded: &mut Loaded, floor: Floor, clock: &Clock) -> Result<Verdict, GenerateError> {
    let context = loaded.model.window().context_tokens;
    let mut prompt = loaded.tokenizer.encode(PROMPT)?;
    prompt.truncate((context / 2).max(1));
    let mut tokens = TOKENS.min(context - prompt.len());
    let fits = |canary: &&Canary| canary.prompt.len() + canary.greedy.len() <= context;
    let canary = loaded.canary.as_ref().filter(fits);
    if let Some(canary) = canary {
        prompt.clone_from(&canary.prompt);
        tokens = canary.greedy.len();
    }
    let model = loaded.model.as_mut();
    let prefill = compare_prefill(model, &prompt)?;
    let mut sequence = model.sequence()?;
    // Once unmeasured: the first pass may set things up.
    let first = greedy(model, &prompt, 1, &mut sequence)?;
    sequence.truncate(0);
    let started = clock.now();
    let mut once = greedy(model, &prompt, 1, &mut sequence)?;
    let first_token = clock.now() - started;
    let started = clock.now();
    let so_far = [prompt.as_slice(), &once].concat();
    once.extend(greedy(model, &so_far, tokens - 1, &mut sequence)?);
    let rest = clock.now() - started;
    sequence.truncate(prompt.len() - 1);
    let again = greedy(model, &prompt, tokens, &mut sequence)?;
    if once != again || !once.starts_with(&first) {
        return Err(broken(
            "the local model gave two answers to the same question",
        ));
    }
    if let Some(canary) = canary.filter(|canary| canary.greedy != once) {
        return Err(broken(format!(
            "the local model answers {once:?} where its golden answer is {:?}",
            canary.greedy
        )));
    }
    let speed = Speed {
        first_token_ms: first_token.as_secs_f64() * 1e3,
        tokens_per_second: (tokens - 1).max(1) as f64
            / rest.max(Duration::from_nanos(1)).as_secs_f64(),
    };
    let reasons: Vec<String> = prefill.into_iter().chain(below(speed, floor)).collect();
    Ok(Verdict {
        speed,
        degraded: (!reasons.is_empty()).then(|| reasons.join(" ")),
    })
}

/// What is too slow.
fn below(speed: Speed, floor: Floor) -> Option<String> {
    (!floor.admits(speed)).then(|| {
        let measured = floor.beside(speed);
        format!("the local model is too slow for completions: {measured}. {TOO_SLOW}")
    })
}

/// Computes a prompt of more than one batch in batches and token by token. Where the two disagree,
/// the model computes token by token from here on, and the reason is returned.
fn compare_prefill(
    model: &mut dyn LanguageModel,
    start: &[u32],
) -> Result<Option<String>, GenerateError> {
    let Some(batch) = model.block() else {
        return Ok(None);
    };
    let room = model.window().context_tokens.saturating_sub(8);
    let length = (2 * batch + 3).min(room);
    if length <= batch {
        return Ok(None);
    }
    let prompt: Vec<u32> = start.iter().copied().cycle().take(length).collect();
    let sequence = model.sequence()?;
    let mut batched = Scores::default();
    let mut continuation = Continuation::new(
        prompt.clone(),
        Sampling::GREEDY,
        model,
        sequence,
        FIRST_BLOCK,
    );
    let mut in_batches = Vec::new();
    let mut first = Scores::default();
    while in_batches.len() < COMPARED_TOKENS {
        if let Some(token) = continuation.step(model, &mut batched)? {
            if in_batches.is_empty() {
                first.clone_from(&batched);
            }
            continuation.accept(token);
            in_batches.push(token);
        }
    }
    let mut sequence = continuation.into_sequence();
    sequence.truncate(0);
    for token in &prompt[..length - 1] {
        model.forward(&[*token], &mut sequence, None)?;
    }
    let mut scores = Scores::default();
    model.forward(&prompt[length - 1..], &mut sequence, Some(&mut scores))?;
    let largest = scores.logits.iter().fold(0f32, |a, b| a.max(b.abs()));
    let difference = scores
        .logits
        .iter()
        .zip(&first.logits)
        .map(|(a, b)| (a - b).abs())
        .fold(0f32, f32::max);
    sequence.truncate(length - 1);
    let one_by_one = greedy(model, &prompt, COMPARED_TOKENS, &mut sequence)?;
    if one_by_one == in_batches && difference <= PREFILL_TOLERANCE + largest / 100.0 {
        return Ok(None);
    }
    model.set_prefill(Prefill::TokenByToken);
    Ok(Some(format!(
        "the local model computes a prompt of {length} tokens differently in batches and token by \
         token (a logit by {difference:.2}; then {in_batches:?} and {one_by_one:?}), so prompts \
         are computed token by token, which is slower. Run `tandem doctor` and report what it says."
    )))
}

fn greedy(
    model: &mut dyn LanguageModel,
    prompt: &[u32],
    count: usize,
    sequence: &mut Sequence,
) -> Result<Vec<u32>, GenerateError> {
    let mut sampler = Sampler::new(Sampling::GREEDY);
    let mut scores = Scores::default();
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + count {
        model.forward(&tokens[sequence.len()..], sequence, Some(&mut scores))?;
        tokens.push(sampler.choose(&mut scores, &tokens)?);
    }
    Ok(tokens.split_off(prompt.len()))
}

fn broken(what: impl Into<String>) -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        what,
        "Download the model again; if that does not help, choose another one.",
    )
}
