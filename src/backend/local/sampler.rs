//! From logits to the next token.
//!
//! The order of the steps is that of Hugging Face's generation: repetition penalty, temperature,
//! top-k, top-p, min-p, then a draw.

use std::cmp::Ordering;
use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::inference::{ErrorKind, GenerateError, Sampling};

/// What a model says of the next token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// One for each row of the vocabulary; empty where the model keeps them to itself.
    pub logits: Vec<f32>,
    /// The most likely token and its logit, from a model that chooses it itself. It counts where
    /// there are no logits; settings other than greedy then cannot apply.
    pub best: Option<(u32, f32)>,
}

/// Chooses tokens for one answer.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: StdRng,
}

impl Sampler {
    /// A sampler; equal settings and seeds give equal choices.
    #[must_use]
    pub fn new(sampling: Sampling) -> Self {
        Self {
            sampling,
            random: StdRng::seed_from_u64(sampling.seed),
        }
    }

    /// The next token, given the logits and all tokens so far.
    ///
    /// # Errors
    /// [`ErrorKind::Backend`] when a logit is not finite, or there are none.
    pub fn choose(&mut self, mut logits: Vec<f32>, so_far: &[u32]) -> Result<u32, GenerateError> {
        if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
            return Err(GenerateError::new(
                ErrorKind::Backend,
                "the local model computed numbers that are not finite",
                "Download the model again; if that does not help, choose another one.",
            ));
        }
        self.penalize(&mut logits, so_far);
        if self.sampling.temperature <= 0.0 {
            return Ok(most_likely(&logits));
        }
        let candidates = self.candidates(&logits);
        Ok(self.draw(&candidates))
    }

    /// The repetition penalty of CTRL (arXiv 1909.05858): a logit seen lately is made smaller,
    /// whichever its sign.
    fn penalize(&self, logits: &mut [f32], so_far: &[u32]) {
        let penalty = self.sampling.repetition_penalty;
        if penalty <= 0.0 || (penalty - 1.0).abs() < f32::EPSILON {
            return;
        }
        let from = so_far.len().saturating_sub(self.sampling.repeat_last_n);
        let seen: HashSet<u32> = so_far[from..].iter().copied().collect();
        for token in seen {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 {
                    *logit / penalty
                } else {
                    *logit * penalty
                };
            }
        }
    }

    /// What the settings leave to choose from, most likely first, with weights relative to it.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f32)> {
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            ..
        } = self.sampling;
        let mut candidates: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        let by_likelihood = |a: &(u32, f32), b: &(u32, f32)| {
            // Equal logits keep the order of their tokens, so that the outcome is repeatable.
            b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
        };
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, by_likelihood);
            candidates.truncate(top_k);
        }
        candidates.sort_unstable_by(by_likelihood);
        let best = candidates[0].1;
        for (_, weight) in &mut candidates {
            *weight = ((*weight - best) / temperature).exp();
        }
        if top_p < 1.0 {
            let total: f32 = candidates.iter().map(|(_, weight)| weight).sum();
            let mut mass = 0.0;
            let kept = candidates
                .iter()
                .position(|(_, weight)| {
                    mass += weight / total;
                    mass >= top_p
                })
                .map_or(candidates.len(), |last| last + 1);
            candidates.truncate(kept);
        }
        if min_p > 0.0 {
            // The most likely one has weight 1 and is never dropped.
            let kept = candidates.partition_point(|(_, weight)| *weight >= min_p.min(1.0));
            candidates.truncate(kept.max(1));
        }
        candidates
    }

    fn draw(&mut self, candidates: &[(u32, f32)]) -> u32 {
        let total: f32 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.random::<f32>() * total;
        for (token, weight) in candidates {
            left -= weight;
            if left < 0.0 {
                return *token;
            }
        }
        candidates[candidates.len() - 1].0
    }
}

/// The first of the largest.
fn most_likely(logits: &[f32]) -> u32 {
    let larger = |a: &(u32, f32), b: &(u32, f32)| match a.1.total_cmp(&b.1) {
        Ordering::Equal => b.0.cmp(&a.0),
        order => order,
    };
    (0..)
        .zip(logits.iter().copied())
        .max_by(larger)
        .map_or(0, |(token, _)| token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 2.9];

    fn choose(sampling: Sampling, logits: &[f32], so_far: &[u32]) -> u32 {
        Sampler::new(sampling)
            .choose(logits.to_vec(), so_far)
            .unwrap()
    }

    /// The tokens that ever come out, over many seeds.
    fn reachable(sampling: Sampling) -> Vec<u32> {
        let mut seen: Vec<u32> = (0..400)
            .map(|seed| choose(Sampling { seed, ..sampling }, &LOGITS, &[]))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    const WARM: Sampling = Sampling {
        temperature: 1.0,
        ..Sampling::GREEDY
    };

    #[test]
    fn greedy_takes_the_most_likely_and_the_first_of_equals() {
        assert_eq!(choose(Sampling::GREEDY, &LOGITS, &[]), 1);
        assert_eq!(choose(Sampling::GREEDY, &[0.0, 5.0, 5.0], &[]), 1);
    }

    #[test]
    fn the_penalty_counts_only_lately_seen_tokens_and_works_on_both_signs() {
        let sampling = Sampling {
            repetition_penalty: 1.2,
            repeat_last_n: 2,
            ..Sampling::GREEDY
        };
        assert_eq!(choose(sampling, &LOGITS, &[1, 0]), 4);
        assert_eq!(choose(sampling, &LOGITS, &[1, 0, 0]), 1, "too long ago");
        assert_eq!(choose(sampling, &[-1.0, -1.1], &[0]), 1);
    }

    #[test]
    fn each_filter_keeps_what_it_says() {
        assert_eq!(reachable(WARM), [0, 1, 2, 3, 4]);
        assert_eq!(reachable(Sampling { top_k: 2, ..WARM }), [1, 4]);
        // Probabilities are about 0.40 (1), 0.36 (4), 0.15 (2), 0.05 (0), 0.01 (3).
        assert_eq!(reachable(Sampling { top_p: 0.5, ..WARM }), [1, 4]);
        assert_eq!(reachable(Sampling { top_p: 0.3, ..WARM }), [1]);
        assert_eq!(reachable(Sampling { min_p: 0.3, ..WARM }), [1, 2, 4]);
        let cold = Sampling {
            temperature: 0.001,
            ..WARM
        };
        assert_eq!(reachable(cold), [1]);
    }

    #[test]
    fn numbers_that_are_not_finite_are_a_fault_of_the_backend() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for sampling in [Sampling::GREEDY, WARM] {
                let error = Sampler::new(sampling)
                    .choose(vec![0.0, bad], &[])
                    .unwrap_err();
                assert_eq!(error.kind, ErrorKind::Backend);
            }
        }
    }

    proptest! {
        #[test]
        fn a_choice_is_a_token_and_repeats_with_its_seed(
            logits in proptest::collection::vec(-50f32..50.0, 1..40),
            temperature in 0f32..3.0,
            top_k in 0usize..50,
            top_p in 0f32..1.1,
            min_p in 0f32..1.5,
            seed: u64,
        ) {
            let sampling = Sampling { temperature, top_k, top_p, min_p, seed, ..WARM };
            let first = choose(sampling, &logits, &[]);
            prop_assert!((first as usize) < logits.len());
            prop_assert_eq!(first, choose(sampling, &logits, &[]));
        }
    }
}
