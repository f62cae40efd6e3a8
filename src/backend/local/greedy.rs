//! Raw tokens in, the likeliest tokens out: how any engine is held to any other.
//!
//! No template, no sampling and no text that stops: what a prompt is continued with depends on the
//! model alone, and on what computes it.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use aho_corasick::{AhoCorasick, MatchKind};

use super::anemll::bundle::AnemllBundle;
use super::anemll::contract::{ComponentRuntime, Observed, StateId};
use super::anemll::pipeline::Pipeline;
use super::anemll::plan::Layout;
use super::anemll::trace::{TokenLogit, largest};
use super::error::LoadError;
use super::loader;
use super::sampler::Scores;
use super::sequence::Sequence;
use super::tokenizer::Tokenizer;
use super::window::Window;
use super::{LanguageModel, ModelSource};
use crate::config::{ComputeDevice, ComputeEngine};
use crate::inference::{ErrorKind, GenerateError, Placement};
use crate::prompt::Vocabulary;
use crate::prompt::profile::{Profile, Prompting};

/// How many of the first step's logits are kept.
const BEST: usize = 5;

/// A prompt continued.
#[derive(Debug, Clone, PartialEq)]
pub struct Greedy {
    /// The tokens, without the one that ended them.
    pub tokens: Vec<u32>,
    /// The token that ended them; `None` when there was no more room, or no more was wanted.
    pub stop: Option<u32>,
    /// The tokens as text, special tokens included.
    pub text: String,
    /// The five best tokens of the first step, the best first; fewer from a model that chooses
    /// tokens itself.
    pub first_step: Vec<TokenLogit>,
    /// Until the first token.
    pub first_token: Duration,
    /// From the first token to the end.
    pub others: Duration,
}

/// A model, and one text's place in its cache.
pub struct Model {
    engine: Engine,
    window: Window,
    tokenizer: Tokenizer,
    ends: HashSet<u32>,
    placement: Placement,
    prompting: Prompting,
}

enum Engine {
    /// The portable engine.
    Whole {
        model: Box<dyn LanguageModel>,
        sequence: Sequence,
    },
    /// A bundle's components.
    Components {
        pipeline: Box<Pipeline>,
        state: StateId,
        /// How many tokens of the window the state holds.
        held: usize,
    },
}

/// Prompts go through the portable engine in blocks of so many tokens; chosen arbitrarily.
const BLOCK: usize = 256;

impl Model {
    /// The model at `source`, computed by the portable engine on `device`, by `engine` where that is the
    /// processor. Its whole context is there.
    ///
    /// # Errors
    /// Naming the file, what is wrong with it, and the next step.
    pub fn whole(
        source: &ModelSource,
        device: ComputeDevice,
        engine: ComputeEngine,
    ) -> Result<Self, GenerateError> {
        let arithmetic = source.arithmetic(engine);
        let mut loaded = loader::load_by(source, usize::MAX, device, arithmetic)?;
        let sequence = loaded.model.sequence()?;
        Ok(Self {
            window: loaded.model.window(),
            engine: Engine::Whole {
                model: loaded.model,
                sequence,
            },
            tokenizer: loaded.tokenizer,
            ends: loaded.ends.iter().copied().collect(),
            placement: loaded.placement,
            prompting: loaded.prompting,
        })
    }

    /// The model in `bundle`, whose components `runtime` holds.
    ///
    /// # Errors
    /// When the tokenizer cannot be read, or the runtime refuses the components.
    pub fn of_components(
        bundle: &AnemllBundle,
        runtime: Box<dyn ComponentRuntime>,
    ) -> Result<Self, GenerateError> {
        let file = bundle.tokenizer.display().to_string();
        let json = fs::read(&bundle.tokenizer).map_err(|error| LoadError::io(&file, &error))?;
        let tokenizer = Tokenizer::from_json(&json, bundle.vocabulary, &file)?;
        let mut pipeline = Pipeline::new(runtime, &Layout::from(bundle))?;
        let state = pipeline.make_state()?;
        let placement = pipeline.observed().into();
        let prompting = loader::prompting(bundle, &tokenizer);
        Ok(Self {
            engine: Engine::Components {
                pipeline: Box::new(pipeline),
                state,
                held: 0,
            },
            // ANEMLL's rule keeps whole batches; an export without them ends with its context.
            window: bundle.batch_size.map_or_else(
                || Window::fixed(bundle.context_length),
                |batch| Window::anemll(bundle.context_length, batch),
            ),
            tokenizer,
            ends: bundle.eos.iter().copied().collect(),
            placement,
            prompting,
        })
    }

    /// Whether a bundle's prompts are computed in batches, or token by token.
    pub fn use_batches(&mut self, batched: bool) {
        if let Engine::Components { pipeline, .. } = &mut self.engine {
            pipeline.use_batches(batched);
        }
    }

    /// Does all that makes it faster and can wait until nothing is asked of it.
    pub fn settle(&mut self) {
        if let Engine::Whole { model, .. } = &mut self.engine {
            while model.settle() {}
        }
    }

    /// Load times and placement of a bundle's components.
    #[must_use]
    pub fn observed(&self) -> Option<Observed> {
        match &self.engine {
            Engine::Whole { .. } => None,
            Engine::Components { pipeline, .. } => Some(pipeline.observed()),
        }
    }

    /// What it was asked to run on, and what was seen.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.placement.clone()
    }

    /// How it is asked for completions.
    #[must_use]
    pub fn profile(&self) -> &'static Profile {
        self.prompting.profile
    }

    /// Its tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Scores what follows `tokens`, which are all in the window. They begin as those of the call
    /// before did, unless the window has `moved`.
    fn next(
        &mut self,
        tokens: &[u32],
        moved: bool,
        scores: &mut Scores,
    ) -> Result<(), GenerateError> {
        let last = tokens.len() - 1;
        match &mut self.engine {
            Engine::Whole { model, sequence } => {
                if moved {
                    sequence.truncate(0);
                }
                while tokens.len() - sequence.len() > BLOCK {
                    let block = &tokens[sequence.len()..sequence.len() + BLOCK];
                    model.forward(block, sequence, None)?;
                }
                model.forward(&tokens[sequence.len()..], sequence, Some(scores))?;
            }
            Engine::Components {
                pipeline,
                state,
                held,
            } => {
                let from = if moved { 0 } else { *held };
                // The last token's own call fills its slot; a prompt's runs in its batch besides, as
                // in ANEMLL's own pipeline.
                if from < last || from == 0 {
                    pipeline.prefill(tokens, from..tokens.len(), *state)?;
                }
                pipeline.next(tokens[last], last, *state, scores)?;
                *held = tokens.len();
            }
        }
        Ok(())
    }
}

/// The tokens of `text`, in which every special token stands for itself, as Hugging Face's
/// tokenizers read it.
///
/// # Errors
/// When the tokenizer fails.
pub fn tokens_of(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, GenerateError> {
    let added: Vec<(&str, u32)> = tokenizer
        .added()
        .filter(|(text, _)| !text.is_empty())
        .collect();
    let search = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(added.iter().map(|(text, _)| text))
        .map_err(|error| {
            GenerateError::new(
                ErrorKind::Backend,
                format!("the model's special tokens cannot be looked for ({error})"),
                "Download the model again.",
            )
        })?;
    let (mut tokens, mut done) = (Vec::new(), 0);
    for found in search.find_iter(text) {
        tokens.extend(tokenizer.encode(&text[done..found.start()])?);
        tokens.push(added[found.pattern().as_usize()].1);
        done = found.end();
    }
    tokens.extend(tokenizer.encode(&text[done..])?);
    Ok(tokens)
}

/// Continues `prompt` by at most `max_tokens` tokens. `told` hears of every token.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for an empty prompt or a token that the model does not have,
/// [`ErrorKind::TooLong`] for a prompt that leaves no room, and whatever fails on the way.
pub fn greedy(
    model: &mut Model,
    prompt: &[u32],
    max_tokens: usize,
    mut told: impl FnMut(usize),
) -> Result<Greedy, GenerateError> {
    check(prompt, model.tokenizer.rows(), model.window)?;
    let begun = Instant::now();
    let mut first_token = Duration::ZERO;
    let mut first_step = Vec::new();
    let mut scores = Scores::default();
    let mut stop = None;
    let mut tokens = prompt.to_vec();
    let (mut start, mut moved) = (0, true);
    while tokens.len() - prompt.len() < max_tokens && !model.window.is_full(tokens.len()) {
        let next_start = model.window.start(start, tokens.len());
        moved |= next_start != start;
        start = next_start;
        model.next(&tokens[start..], moved, &mut scores)?;
        moved = false;
        let best = best(&scores)?;
        if first_step.is_empty() {
            first_token = begun.elapsed();
            first_step.clone_from(&best);
        }
        let token = best[0].id as u32;
        if model.ends.contains(&token) {
            stop = Some(token);
            break;
        }
        tokens.push(token);
        told(tokens.len() - prompt.len());
    }
    let tokens = tokens.split_off(prompt.len());
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| model.tokenizer.bytes(*token).iter().copied())
        .collect();
    Ok(Greedy {
        tokens,
        stop,
        text: String::from_utf8_lossy(&bytes).into_owned(),
        first_step,
        first_token,
        others: begun.elapsed().saturating_sub(first_token),
    })
}

/// The best tokens, at least one.
fn best(scores: &Scores) -> Result<Vec<TokenLogit>, GenerateError> {
    let mut best = largest(&scores.logits, BEST);
    if let (true, Some((id, logit))) = (best.is_empty(), scores.best) {
        let id = id as usize;
        best.push(TokenLogit { id, logit });
    }
    let sound = scores.logits.iter().all(|logit| logit.is_finite());
    if !sound || !best.first().is_some_and(|first| first.logit.is_finite()) {
        return Err(GenerateError::new(
            ErrorKind::Backend,
            "the local model computed numbers that are not finite",
            "Download the model again; if that does not help, choose another one.",
        ));
    }
    Ok(best)
}

fn check(prompt: &[u32], rows: usize, window: Window) -> Result<(), GenerateError> {
    let invalid = |what: String, next_step: String| {
        Err(GenerateError::new(
            ErrorKind::InvalidRequest,
            what,
            next_step,
        ))
    };
    if prompt.is_empty() {
        let next_step = "Give at least one token.";
        return invalid("the prompt is empty".to_owned(), next_step.to_owned());
    }
    if let Some(token) = prompt.iter().find(|token| **token as usize >= rows) {
        return invalid(
            format!("the model has no token {token}"),
            format!("Its tokens are 0 to {}.", rows.saturating_sub(1)),
        );
    }
    if window.is_full(prompt.len()) {
        let (length, room) = (prompt.len(), window.context_tokens);
        return Err(GenerateError::new(
            ErrorKind::TooLong,
            format!("the prompt has {length} tokens, the model's context {room}"),
            "Give a shorter prompt.",
        ));
    }
    Ok(())
}
