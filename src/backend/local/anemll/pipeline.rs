//! Prefill and decoding over the components: the algorithm, for any runtime.
//!
//! A prompt goes into the cache in batches; each token then costs one prediction a component. What
//! cannot go in a batch (a start off a batch's beginning, an end that would overrun the cache) goes
//! token by token. Rewinding is free: the mask hides what lies behind the position.

use std::ops::Range;

use super::contract::{CallId, ComponentRuntime, Observed, RuntimeError, StateId};
use super::mask;
use super::plan::{Head, Layout, Plan, Prefill};
use crate::backend::local::sampler::Scores;

/// A batch costs about as much as so many tokens one by one: 508 to 625 tokens/s in batches of 64
/// against 27 one by one were published for Qwen3-1.7B on an M4 Pro. A prompt that goes on from inside
/// a batch by no more than that goes token by token.
const BATCH_COST: usize = 3;

/// A model of components, ready to continue a text.
pub struct Pipeline {
    runtime: Box<dyn ComponentRuntime>,
    plan: Plan,
    row: mask::Row,
    /// Token ids on their way into a batch.
    ids: Vec<i32>,
    /// What an `argmax_in_model` export gives, by part.
    best_indices: Vec<i32>,
    best_values: Vec<f32>,
    batched: bool,
}

impl Pipeline {
    /// Plans the calls of a model and makes `runtime` ready for them.
    ///
    /// # Errors
    /// When what the components declare cannot be called, or the runtime refuses the plan.
    pub fn new(
        mut runtime: Box<dyn ComponentRuntime>,
        layout: &Layout,
    ) -> Result<Self, RuntimeError> {
        let plan = Plan::new(runtime.components(), layout)?;
        runtime.prepare(&plan.calls)?;
        plan.write_constants(runtime.as_mut());
        let parts = match &plan.head {
            Head::Logits { .. } => 0,
            Head::Best { starts, .. } => starts.len(),
        };
        let batch = plan.prefill.as_ref().map_or(0, |prefill| prefill.batch);
        Ok(Self {
            row: mask::Row::zeroed(plan.context),
            ids: vec![0; batch],
            best_indices: vec![0; parts],
            best_values: vec![0.0; parts],
            batched: true,
            runtime,
            plan,
        })
    }

    /// Slots in the cache.
    #[must_use]
    pub fn context(&self) -> usize {
        self.plan.context
    }

    /// Tokens in a batch, where the model takes batches and has not been told otherwise.
    #[must_use]
    pub fn batch(&self) -> Option<usize> {
        let prefill = self.plan.prefill.as_ref().filter(|_| self.batched);
        prefill.map(|prefill| prefill.batch)
    }

    /// Whether prompts go in batches from now on, or token by token.
    pub fn use_batches(&mut self, batched: bool) {
        self.batched = batched;
    }

    /// The runtime's name.
    #[must_use]
    pub fn runtime(&self) -> &'static str {
        self.runtime.name()
    }

    /// Load times and placement.
    #[must_use]
    pub fn observed(&self) -> Observed {
        self.runtime.observed()
    }

    /// An empty cache.
    ///
    /// # Errors
    /// When there is no room.
    pub fn make_state(&mut self) -> Result<StateId, RuntimeError> {
        self.runtime.make_state()
    }

    /// Frees a cache.
    pub fn drop_state(&mut self, state: StateId) {
        self.runtime.drop_state(state);
    }

    /// Bytes of a cache.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.runtime.state_bytes()
    }

    /// Puts the tokens at the positions of `span` into `state`, where those before them are already.
    /// `tokens` is the whole text from position 0, at most [`Self::context`] long; a batch that
    /// begins within `span` is filled with the tokens behind it.
    ///
    /// # Errors
    /// When a prediction fails; what is before `span` stands.
    pub fn prefill(
        &mut self,
        tokens: &[u32],
        span: Range<usize>,
        state: StateId,
    ) -> Result<(), RuntimeError> {
        let mut position = span.start;
        while position < span.end {
            if let Some(start) = self.batch_start(position, tokens.len()) {
                position = self.prefill_batch(tokens, start, state)?;
            } else {
                self.infer(tokens[position], position, state)?;
                position += 1;
            }
        }
        Ok(())
    }

    /// Runs `token`, which stands at `position`, and gives what comes after it.
    ///
    /// # Errors
    /// When a prediction fails, or gives a token that there is not.
    pub fn next(
        &mut self,
        token: u32,
        position: usize,
        state: StateId,
        scores: &mut Scores,
    ) -> Result<(), RuntimeError> {
        self.infer(token, position, state)?;
        if let Some(head) = self.plan.infer.head {
            self.runtime.predict(head, None)?;
        }
        self.read_head(scores)
    }

    /// Whether the head gives logits, and not just the best token.
    #[must_use]
    pub fn gives_logits(&self) -> bool {
        matches!(self.plan.head, Head::Logits { .. })
    }

    /// Where the batch begins that `position` is to go in: at `position`, or before it, where
    /// computing a few tokens again costs less than the rest one by one. `None` where it is to go by
    /// itself, as it must where the batch would overrun the cache.
    fn batch_start(&self, position: usize, end: usize) -> Option<usize> {
        let batch = self.batch()?;
        let start = position - position % batch;
        let boundary = start + batch;
        let one_by_one = end.min(boundary) - position;
        let pays = position == start || one_by_one > BATCH_COST;
        (boundary <= self.plan.context && pays).then_some(start)
    }

    /// Computes the batch that begins at `start`; returns the position after its last token.
    fn prefill_batch(
        &mut self,
        tokens: &[u32],
        start: usize,
        state: StateId,
    ) -> Result<usize, RuntimeError> {
        let Some(Prefill {
            batch, ids, blocks, ..
        }) = &self.plan.prefill
        else {
            return Ok(start);
        };
        let end = (start + batch).min(tokens.len());
        for (id, token) in self.ids.iter_mut().zip(&tokens[start..end]) {
            *id = *token as i32;
        }
        // Padding on the right, which the positions behind it overwrite.
        self.ids[end - start..].fill(0);
        self.runtime.write_i32(*ids, 0, &self.ids);
        run(self.runtime.as_mut(), &blocks[start / batch], state)?;
        Ok(end)
    }

    /// Runs `token` through everything but the head.
    fn infer(&mut self, token: u32, position: usize, state: StateId) -> Result<(), RuntimeError> {
        let infer = &self.plan.infer;
        let runtime = self.runtime.as_mut();
        runtime.write_i32(infer.ids, 0, &[token as i32]);
        for buffer in infer.positions {
            runtime.write_i32(buffer, 0, &[position as i32]);
        }
        self.row.turn_to(position, |at, values| {
            runtime.write_f16(infer.mask, at, values);
        });
        run(runtime, &infer.body, state)
    }

    fn read_head(&mut self, scores: &mut Scores) -> Result<(), RuntimeError> {
        match &self.plan.head {
            Head::Logits { parts, vocabulary } => {
                scores.best = None;
                scores.logits.resize(*vocabulary, 0.0);
                let mut rest = scores.logits.as_mut_slice();
                for (at, (buffer, start)) in parts.iter().enumerate() {
                    let end = parts.get(at + 1).map_or(*vocabulary, |(_, next)| *next);
                    let (part, behind) = rest.split_at_mut(end - start);
                    self.runtime.read_f32(*buffer, part);
                    rest = behind;
                }
                Ok(())
            }
            Head::Best {
                indices,
                values,
                starts,
            } => {
                self.runtime.read_i32(*indices, &mut self.best_indices);
                self.runtime.read_f32(*values, &mut self.best_values);
                scores.logits.clear();
                scores.best = best(starts, &self.best_indices, &self.best_values);
                if scores.best.is_some() {
                    return Ok(());
                }
                Err(RuntimeError::Predict {
                    component: "lm_head".to_owned(),
                    function: "infer".to_owned(),
                    what: "it gives no best token, or one that there is not".to_owned(),
                })
            }
        }
    }
}

fn run(
    runtime: &mut dyn ComponentRuntime,
    calls: &[(CallId, bool)],
    state: StateId,
) -> Result<(), RuntimeError> {
    for (call, stateful) in calls {
        runtime.predict(*call, stateful.then_some(state))?;
    }
    Ok(())
}

/// The best of the parts' best, the first of equals; `None` when a value is not finite or an index
/// is negative.
fn best(starts: &[usize], indices: &[i32], values: &[f32]) -> Option<(u32, f32)> {
    let mut best: Option<(u32, f32)> = None;
    for ((start, index), value) in starts.iter().zip(indices).zip(values) {
        let token = u32::try_from(*start).ok()?.checked_add_signed(*index)?;
        if !value.is_finite() || *index < 0 {
            return None;
        }
        if best.is_none_or(|(_, so_far)| *value > so_far) {
            best = Some((token, *value));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_part_is_found_and_nonsense_is_not_a_token() {
        let starts = [0, 10, 20];
        assert_eq!(best(&starts, &[3, 4, 5], &[1.0, 2.0, 2.0]), Some((14, 2.0)));
        assert_eq!(best(&starts, &[3, -1, 5], &[1.0, 2.0, 0.0]), None);
        assert_eq!(best(&starts, &[3, 4, 5], &[1.0, f32::NAN, 0.0]), None);
        assert_eq!(best(&[], &[], &[]), None);
    }
}
