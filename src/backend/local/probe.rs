//! The canary: a model is healthy when it has generated, not when it has loaded.

use std::time::Instant;

use super::LanguageModel;
use super::loader::Loaded;
use super::sampler::{Sampler, Scores};
use super::sequence::Sequence;
use crate::inference::{ErrorKind, GenerateError, Sampling, Speed};
use crate::prompt::Vocabulary;

/// Enough to show a cache that is written wrongly, short enough not to keep the first request
/// waiting.
const TOKENS: usize = 8;
const PROMPT: &str = "fn main() {\n    let x = ";

/// Generates a few tokens twice, the second time from a cache cut back, and measures.
///
/// # Errors
/// [`ErrorKind::Backend`] when the arithmetic fails, its numbers are not finite, or the two answers
/// differ.
pub fn probe(loaded: &mut Loaded) -> Result<Speed, GenerateError> {
    let model = loaded.model.as_mut();
    let mut prompt = loaded.tokenizer.encode(PROMPT)?;
    prompt.truncate((loaded.context_tokens / 2).max(1));
    let tokens = TOKENS.min(loaded.context_tokens - prompt.len());
    let mut sequence = model.sequence()?;
    let started = Instant::now();
    let first = greedy(model, &prompt, 1, &mut sequence)?;
    let first_token = started.elapsed();
    sequence.truncate(prompt.len() - 1);
    let started = Instant::now();
    let once = greedy(model, &prompt, tokens, &mut sequence)?;
    let rest = started.elapsed();
    sequence.truncate(prompt.len() - 1);
    let again = greedy(model, &prompt, tokens, &mut sequence)?;
    if once != again || !once.starts_with(&first) {
        return Err(GenerateError::new(
            ErrorKind::Backend,
            "the local model gave two answers to the same question",
            "Download the model again; if that does not help, choose another one.",
        ));
    }
    Ok(Speed {
        first_token_ms: first_token.as_secs_f64() * 1e3,
        tokens_per_second: tokens as f64 / rest.as_secs_f64().max(1e-9),
    })
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
