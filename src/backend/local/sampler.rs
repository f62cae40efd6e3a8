//! From logits to the next token.
//!
//! The order of the steps is that of Hugging Face's generation: repetition penalty, temperature,
//! top-k, top-p, min-p, then a draw. A vocabulary has 150,000 rows and an answer's settings leave a
//! few dozen of them, so nothing here sorts or exponentiates more than it must, and nothing is
//! allocated once the buffers have their size.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::inference::{ErrorKind, GenerateError, Sampling};

/// What a model says about the token that comes next. The caller keeps one and has it filled again
/// for every token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// One for each row of the vocabulary; empty where the model keeps them to itself.
    pub logits: Vec<f32>,
    /// The most likely token and its logit, from a model that chooses it itself. It counts where
    /// there are no logits; settings other than greedy then cannot apply.
    pub best: Option<(u32, f32)>,
}

/// Logits whose maximum is found together. Small enough that the maxima tell where the likely tokens
/// are, large enough that they are few.
const BLOCK: usize = 64;

/// Lanes of a block: two vectors of the x86-64 baseline, and of NEON.
const LANES: usize = 8;

/// Tokens with less than exp(-30) of the most likely one's probability are left out where no other
/// setting bounds the choice: 150,000 of them together have less than 1e-7, the resolution of the
/// draw.
const NEGLIGIBLE: f32 = -30.0;

/// The first candidates to be sorted for top-p; four times as many each further time.
const FIRST_SORTED: usize = 64;

/// Chooses tokens for one answer.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: StdRng,
    /// The tokens seen lately.
    seen: Vec<u32>,
    /// The largest logit of each block.
    maxima: Vec<f32>,
    selected: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// A token, and its logit or weight.
type Candidate = (u32, f32);

impl Sampler {
    /// A sampler; equal settings and seeds give equal choices.
    #[must_use]
    pub fn new(sampling: Sampling) -> Self {
        Self {
            sampling,
            random: StdRng::seed_from_u64(sampling.seed),
            seen: Vec::new(),
            maxima: Vec::new(),
            selected: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// The next token, given its scores and all tokens so far. The repetition penalty is applied to
    /// the logits in place.
    ///
    /// # Errors
    /// [`ErrorKind::Backend`] when a logit is not finite, or there are none.
    pub fn choose(&mut self, scores: &mut Scores, so_far: &[u32]) -> Result<u32, GenerateError> {
        let logits = &mut scores.logits;
        if logits.is_empty() {
            let best = scores.best.filter(|(_, logit)| logit.is_finite());
            return best.map(|(token, _)| token).ok_or_else(not_finite);
        }
        self.penalize(logits, so_far);
        if self.sampling.temperature <= 0.0 {
            return most_likely(logits);
        }
        self.find_candidates(logits)?;
        Ok(self.draw())
    }

    /// The repetition penalty of CTRL (arXiv 1909.05858): a logit seen lately is made smaller,
    /// whichever its sign.
    fn penalize(&mut self, logits: &mut [f32], so_far: &[u32]) {
        let penalty = self.sampling.repetition_penalty;
        if penalty <= 0.0 || (penalty - 1.0).abs() < f32::EPSILON {
            return;
        }
        let from = so_far.len().saturating_sub(self.sampling.repeat_last_n);
        self.seen.clear();
        self.seen.extend_from_slice(&so_far[from..]);
        self.seen.sort_unstable();
        self.seen.dedup();
        for token in &self.seen {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = if *logit > 0.0 {
                    *logit / penalty
                } else {
                    *logit * penalty
                };
            }
        }
    }

    /// What the settings leave to choose from, with weights relative to the most likely one's.
    fn find_candidates(&mut self, logits: &[f32]) -> Result<(), GenerateError> {
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            ..
        } = self.sampling;
        self.maxima.clear();
        let mut best = f32::NEG_INFINITY;
        block_maxima(logits, |_, max| {
            self.maxima.push(max);
            best = best.max(max);
        })?;
        let selects = top_k > 0 && top_k < logits.len();
        let floor = if selects {
            self.kth_maximum(top_k)
        } else if top_p >= 1.0 && min_p > 0.0 {
            // Rounded to the side of keeping; the weights decide below.
            best + temperature * (min_p.min(1.0).ln() * 1.0001 - 1e-4)
        } else {
            best + temperature * NEGLIGIBLE
        };
        self.collect(logits, floor);
        let candidates = &mut self.candidates;
        if selects && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, by_likelihood);
            candidates.truncate(top_k);
        }
        if selects {
            candidates.sort_unstable_by(by_likelihood);
        }
        for (_, weight) in &mut *candidates {
            *weight = ((*weight - best) / temperature).exp();
        }
        if top_p < 1.0 {
            keep_nucleus(candidates, top_p);
        }
        if min_p > 0.0 {
            // The most likely one has weight 1 and is never dropped.
            candidates.retain(|(_, weight)| *weight >= min_p.min(1.0));
        }
        Ok(())
    }

    /// A logit that at least `k` logits reach: the k-th largest of the blocks' maxima.
    fn kth_maximum(&mut self, k: usize) -> f32 {
        if k > self.maxima.len() {
            return f32::NEG_INFINITY;
        }
        self.selected.clone_from(&self.maxima);
        let (_, kth, _) = self
            .selected
            .select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        *kth
    }

    /// The tokens whose logits reach `floor`, in the order of the vocabulary.
    fn collect(&mut self, logits: &[f32], floor: f32) {
        self.candidates.clear();
        for (index, (block, max)) in logits.chunks(BLOCK).zip(&self.maxima).enumerate() {
            if *max >= floor {
                let tokens = (index * BLOCK) as u32..;
                let reach = tokens.zip(block.iter().copied());
                self.candidates
                    .extend(reach.filter(|(_, logit)| *logit >= floor));
            }
        }
    }

    fn draw(&mut self) -> u32 {
        let total: f32 = self.candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.random::<f32>() * total;
        let mut last = 0;
        for (token, weight) in &self.candidates {
            last = *token;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        last
    }
}

/// Most likely first. Equal ones keep the order of their tokens, so that the outcome is repeatable.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "sorting compares references"
)]
fn by_likelihood(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Keeps the smallest set of candidates whose probability reaches `top_p`, most likely first, and
/// sorts no more of them than that takes.
fn keep_nucleus(candidates: &mut Vec<Candidate>, top_p: f32) {
    let total: f32 = candidates.iter().map(|(_, weight)| weight).sum();
    let mut mass = 0.0;
    let mut from = 0;
    let mut sorted = FIRST_SORTED;
    while from < candidates.len() {
        let end = (from + sorted).min(candidates.len());
        let rest = &mut candidates[from..];
        if end - from < rest.len() {
            rest.select_nth_unstable_by(end - from - 1, by_likelihood);
        }
        rest[..end - from].sort_unstable_by(by_likelihood);
        for (index, (_, weight)) in candidates[from..end].iter().enumerate() {
            mass += weight / total;
            if mass >= top_p {
                candidates.truncate(from + index + 1);
                return;
            }
        }
        from = end;
        sorted *= 4;
    }
}

/// Calls `visit` with each block's number and largest logit. One pass that a compiler can turn into
/// vector instructions, the check for finite numbers included.
fn block_maxima(logits: &[f32], mut visit: impl FnMut(usize, f32)) -> Result<(), GenerateError> {
    // A finite number times 0 is 0, any other is NaN, which a sum never loses again.
    let mut poison = [0f32; LANES];
    let mut rest_poison = 0f32;
    for (index, block) in logits.chunks(BLOCK).enumerate() {
        let mut max = [f32::NEG_INFINITY; LANES];
        let (lanes, rest) = block.as_chunks::<LANES>();
        for lane in lanes {
            for i in 0..LANES {
                let logit = lane[i];
                max[i] = if logit > max[i] { logit } else { max[i] };
                poison[i] += logit * 0.0;
            }
        }
        let mut largest = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
        for logit in rest {
            largest = largest.max(*logit);
            rest_poison += logit * 0.0;
        }
        visit(index, largest);
    }
    let poison: f32 = poison.iter().sum::<f32>() + rest_poison;
    if poison.is_nan() {
        return Err(not_finite());
    }
    Ok(())
}

/// The first of the largest.
fn most_likely(logits: &[f32]) -> Result<u32, GenerateError> {
    let mut best = (f32::NEG_INFINITY, 0);
    block_maxima(logits, |index, max| {
        if max > best.0 {
            best = (max, index);
        }
    })?;
    let start = best.1 * BLOCK;
    let mut block = logits[start..].iter().take(BLOCK);
    // Comparing for equality is exact here: the maximum is one of them.
    let within = block.position(|logit| *logit >= best.0).unwrap_or_default();
    Ok((start + within) as u32)
}

fn not_finite() -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        "the local model computed numbers that are not finite",
        "Download the model again; if that does not help, choose another one.",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 2.9];

    fn choose(sampling: Sampling, logits: &[f32], so_far: &[u32]) -> u32 {
        let mut scores = Scores {
            logits: logits.to_vec(),
            best: None,
        };
        Sampler::new(sampling).choose(&mut scores, so_far).unwrap()
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
                // At the start, inside a vector's lanes, and in the rest behind them.
                for at in [0, 70, 129] {
                    let mut logits = vec![0.0; 130];
                    logits[at] = bad;
                    let mut scores = Scores { logits, best: None };
                    let error = Sampler::new(sampling).choose(&mut scores, &[]);
                    assert_eq!(error.unwrap_err().kind, ErrorKind::Backend, "{bad} at {at}");
                }
            }
        }
    }

    #[test]
    fn a_model_that_chooses_itself_is_taken_at_its_word() {
        let choose = |best| {
            let logits = Vec::new();
            Sampler::new(WARM).choose(&mut Scores { logits, best }, &[])
        };
        assert_eq!(choose(Some((7, 1.5))).unwrap(), 7);
        for best in [None, Some((7, f32::NAN)), Some((7, f32::INFINITY))] {
            assert_eq!(choose(best).unwrap_err().kind, ErrorKind::Backend);
        }
    }

    /// The same by sorting everything, as the settings are defined.
    fn by_sorting(sampling: Sampling, logits: &[f32]) -> Vec<u32> {
        let mut all: Vec<Candidate> = (0..).zip(logits.iter().copied()).collect();
        all.sort_by(by_likelihood);
        if sampling.top_k > 0 {
            all.truncate(sampling.top_k);
        }
        let best = all[0].1;
        let weight = |logit: f32| ((logit - best) / sampling.temperature).exp();
        let total: f32 = all.iter().map(|(_, logit)| weight(*logit)).sum();
        let mut mass = 0.0;
        let mut kept = Vec::new();
        for (token, logit) in all {
            if kept.is_empty() || weight(logit) >= sampling.min_p {
                kept.push(token);
            }
            mass += weight(logit) / total;
            if mass >= sampling.top_p {
                break;
            }
        }
        kept.sort_unstable();
        kept
    }

    #[test]
    fn what_is_left_to_choose_from_is_what_sorting_everything_leaves() {
        // Sharp enough that no decision hangs on the order of a sum.
        let mut random = StdRng::seed_from_u64(7);
        let logits: Vec<f32> = (0..5000)
            .map(|_| rand::Rng::random::<f32>(&mut random) * 20.0)
            .collect();
        for sampling in [
            Sampling { top_k: 1, ..WARM },
            Sampling { top_k: 40, ..WARM },
            Sampling { top_k: 79, ..WARM },
            Sampling { top_k: 300, ..WARM },
            Sampling { top_p: 0.9, ..WARM },
            Sampling { top_p: 0.2, ..WARM },
            Sampling {
                min_p: 0.05,
                ..WARM
            },
            Sampling {
                top_k: 40,
                top_p: 0.8,
                min_p: 0.3,
                ..WARM
            },
            Sampling {
                temperature: 0.5,
                top_p: 0.95,
                min_p: 0.01,
                ..WARM
            },
        ] {
            let mut sampler = Sampler::new(sampling);
            sampler.find_candidates(&logits).unwrap();
            let mut left: Vec<u32> = sampler.candidates.iter().map(|(t, _)| *t).collect();
            left.sort_unstable();
            assert_eq!(left, by_sorting(sampling, &logits), "{sampling:?}");
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
