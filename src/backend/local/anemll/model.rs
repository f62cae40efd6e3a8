//! A bundle as a [`LanguageModel`]: the pipeline, its states as sequences, and its window.

use super::contract::{Observed, StateId};
use super::pipeline::Pipeline;
use crate::backend::local::sampler::Scores;
use crate::backend::local::sequence::{ReleasedStates, Sequence, StateHandle};
use crate::backend::local::window::Window;
use crate::backend::local::{LanguageModel, Prefill};
use crate::inference::{ErrorKind, GenerateError};

/// A window is moved as if batches had so many tokens where the export has none: ANEMLL's default.
const USUAL_BATCH: usize = 64;

/// A loaded bundle.
pub struct AnemllModel {
    pipeline: Pipeline,
    window: Window,
    released: ReleasedStates,
}

impl AnemllModel {
    /// The model that `pipeline` computes.
    #[must_use]
    pub fn new(pipeline: Pipeline) -> Self {
        let batch = pipeline.batch().unwrap_or(USUAL_BATCH);
        Self {
            window: Window::anemll(pipeline.context(), batch),
            pipeline,
            released: ReleasedStates::default(),
        }
    }

    /// Load times and placement.
    #[must_use]
    pub fn observed(&self) -> Observed {
        self.pipeline.observed()
    }
}

impl LanguageModel for AnemllModel {
    fn sequence(&mut self) -> Result<Sequence, GenerateError> {
        // A state that nobody holds any more is as good as a new one: the mask hides what is in it.
        let state = match self.released.take() {
            Some(id) => StateId(id),
            None => self.pipeline.make_state()?,
        };
        while let Some(id) = self.released.take() {
            self.pipeline.drop_state(StateId(id));
        }
        let handle = StateHandle::new(state.0, self.pipeline.state_bytes(), &self.released);
        Ok(Sequence::in_state(handle))
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        sequence: &mut Sequence,
        scores: Option<&mut Scores>,
    ) -> Result<(), GenerateError> {
        let Some(state) = sequence.state().map(StateId) else {
            return Err(GenerateError::new(
                ErrorKind::Backend,
                "the on-device model was given another model's sequence",
                "Report it with the log.",
            ));
        };
        let start = sequence.len();
        let context = self.pipeline.context();
        if start + tokens.len() > context {
            return Err(GenerateError::new(
                ErrorKind::TooLong,
                format!("the on-device model sees {context} tokens at once"),
                "Ask about less text.",
            ));
        }
        sequence.push(tokens);
        let done = self.compute(sequence.tokens(), start, state, scores);
        if done.is_err() {
            sequence.truncate(start);
        }
        done
    }

    fn window(&self) -> Window {
        self.window
    }

    fn block(&self) -> Option<usize> {
        self.pipeline.batch()
    }

    fn gives_logits(&self) -> bool {
        self.pipeline.gives_logits()
    }

    fn set_prefill(&mut self, prefill: Prefill) {
        self.pipeline.use_batches(prefill == Prefill::Batched);
    }
}

impl AnemllModel {
    fn compute(
        &mut self,
        tokens: &[u32],
        start: usize,
        state: StateId,
        scores: Option<&mut Scores>,
    ) -> Result<(), GenerateError> {
        let end = tokens.len();
        let Some(scores) = scores else {
            return Ok(self.pipeline.prefill(tokens, start..end, state)?);
        };
        // The last token goes by itself, for its scores; in a batch that is computed anyway it is
        // computed twice, which is harmless.
        let last = end - 1;
        self.pipeline.prefill(tokens, start..last, state)?;
        Ok(self.pipeline.next(tokens[last], last, state, scores)?)
    }
}
