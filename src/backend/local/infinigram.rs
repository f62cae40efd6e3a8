//! What the document itself says comes next: an n-gram model over it whose n is as long as what it
//! finds.
//!
//! A small model writes plausible code where the document would have told it the right name. So its
//! distribution is mixed with that of the places in the document where the last tokens stood before,
//! the longest such passages first: the ∞-gram of Liu et al. (arXiv 2401.17377), mixed in as Grave et
//! al. mix in their cache (arXiv 1612.04426). How much weight it gets depends on how long the passage
//! is that it found.

/// Stands between texts that do not follow each other.
const BREAK: u32 = u32::MAX;

/// Tokens of text looked through, those nearest to the cursor: a pass over them costs some
/// microseconds a token.
pub const MOST_TOKENS: usize = 16 * 1024;

/// And of the text after the cursor.
pub const MOST_AFTER: usize = 4 * 1024;

/// Passages of more tokens tell no more.
const LONGEST: u16 = 24;

/// By how much a passage's weight grows with each token that it is longer.
const GROWTH: f32 = 2.0;

/// The share of the mixture after a passage of any length, and in how many tokens most of it is
/// reached: of a dozen pairs the one that answered best in packages that tandem-mini was not trained on.
const MOST_SHARE: f32 = 0.85;
const REACH: f32 = 4.0;

/// The tokens around a cursor, and how far what was last said agrees with what stands before each.
#[derive(Debug)]
pub struct InfiniGram {
    tokens: Vec<u32>,
    /// For each token, how many before it are the last ones said.
    lengths: Vec<u16>,
    /// The weight of each token of the vocabulary, and those that have any.
    weights: Vec<f32>,
    weighted: Vec<u32>,
}

impl InfiniGram {
    /// Over the tokens of a document `before` and `after` the cursor, and of pieces of `others`.
    #[must_use]
    pub fn new(before: &[u32], after: &[u32], others: &[Vec<u32>]) -> Self {
        let mut tokens = Vec::new();
        for other in others {
            tokens.extend(other);
            tokens.push(BREAK);
        }
        let before = &before[before.len().saturating_sub(MOST_TOKENS)..];
        tokens.extend(before);
        tokens.push(BREAK);
        tokens.extend(after);
        let last = &before[before.len().saturating_sub(usize::from(LONGEST))..];
        let lengths = (0..tokens.len()).map(|at| {
            let agreeing = tokens[..at].iter().rev().zip(last.iter().rev());
            agreeing.take_while(|(token, said)| token == said).count() as u16
        });
        Self {
            lengths: lengths.collect(),
            tokens,
            weights: Vec::new(),
            weighted: Vec::new(),
        }
    }

    /// Tells it what is said next.
    pub fn push(&mut self, token: u32) {
        for at in (1..self.tokens.len()).rev() {
            self.lengths[at] = if self.tokens[at - 1] == token {
                (self.lengths[at - 1] + 1).min(LONGEST)
            } else {
                0
            };
        }
    }

    /// Mixes what it knows into `logits`.
    pub fn mix(&mut self, logits: &mut [f32]) {
        // The cursor itself is no place to learn from: what follows there is not known.
        let places = self.tokens.iter().zip(&self.lengths);
        let places =
            places.filter(|(token, length)| **length > 0 && (**token as usize) < logits.len());
        let Some(longest) = places.clone().map(|(_, length)| *length).max() else {
            return;
        };
        self.weights.resize(logits.len(), 0.0);
        let mut total = 0.0;
        for (token, length) in places {
            let shorter = f32::from(longest - *length);
            let weight = (-GROWTH * shorter).exp();
            let sum = &mut self.weights[*token as usize];
            if *sum <= 0.0 {
                self.weighted.push(*token);
            }
            *sum += weight;
            total += weight;
        }
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
        let normalizer = most + sum.ln();
        // All others would be scaled by 1 - share, which changes no comparison between them.
        let odds = share(longest) / (1.0 - share(longest));
        for token in self.weighted.drain(..) {
            let weight = std::mem::take(&mut self.weights[token as usize]);
            let logit = &mut logits[token as usize];
            let mixed = (*logit - normalizer).exp() + odds * weight / total;
            *logit = normalizer + mixed.ln();
        }
    }
}

/// The share of the mixture, by the tokens of the longest passage found.
fn share(longest: u16) -> f32 {
    MOST_SHARE * (1.0 - (-f32::from(longest) / REACH).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 10;

    /// The probabilities of all tokens after mixing, from even ones.
    fn mixed(grams: &mut InfiniGram) -> Vec<f32> {
        let mut logits = vec![1.5; ROWS];
        grams.mix(&mut logits);
        let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
        logits.iter().map(|logit| logit.exp() / sum).collect()
    }

    fn likeliest(grams: &mut InfiniGram) -> usize {
        let mixed = mixed(grams);
        (0..ROWS)
            .max_by(|a, b| mixed[*a].total_cmp(&mixed[*b]))
            .unwrap()
    }

    #[test]
    fn what_followed_the_longest_passage_is_likeliest() {
        let before = [1, 2, 3, 4, 9, 7, 3, 5, 8, 7, 3, 5, 9, 1, 2, 3];
        assert_eq!(likeliest(&mut InfiniGram::new(&before, &[], &[])), 4);
        // The text after the cursor and other documents count as well.
        let short = [9, 1, 2, 3];
        let after = [8, 1, 2, 3, 6];
        assert_eq!(likeliest(&mut InfiniGram::new(&short, &after, &[])), 6);
        let others = [vec![1, 2, 3, 7]];
        assert_eq!(likeliest(&mut InfiniGram::new(&short, &[], &others)), 7);
    }

    #[test]
    fn what_is_said_moves_the_passage_on() {
        let before = [1, 2, 3, 4, 5, 6, 9, 1, 2];
        let mut grams = InfiniGram::new(&before, &[], &[]);
        for next in [3, 4, 5, 6] {
            assert_eq!(likeliest(&mut grams), next);
            grams.push(next as u32);
        }
        grams.push(8);
        assert_eq!(mixed(&mut grams), vec![0.1; ROWS], "8 never stood there");
    }

    #[test]
    fn probabilities_are_mixed_by_the_share_of_the_passage() {
        // After 1 came 2 twice and 3 once.
        let before = [1, 2, 9, 1, 3, 8, 1, 2, 7, 1];
        let mixed = mixed(&mut InfiniGram::new(&before, &[], &[]));
        let (share, even) = (share(1), 0.1);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-5;
        assert!(near(mixed[2], (1.0 - share) * even + share * 2.0 / 3.0));
        assert!(near(mixed[3], (1.0 - share) * even + share / 3.0));
        assert!(near(mixed[4], (1.0 - share) * even));
    }

    #[test]
    fn texts_that_do_not_follow_each_other_are_not_read_on() {
        let mut grams = InfiniGram::new(&[4, 1], &[5, 1, 6], &[vec![3, 1]]);
        let mixed = mixed(&mut grams);
        assert!(mixed[6] > 0.1, "1 was followed by 6");
        for token in [3, 4, 5] {
            assert!(mixed[token] < 0.1, "{token} did not follow 1");
        }
    }

    #[test]
    fn little_text_and_unknown_tokens_do_no_harm() {
        assert_eq!(mixed(&mut InfiniGram::new(&[], &[], &[])), vec![0.1; ROWS]);
        let beyond = ROWS as u32;
        let mut grams = InfiniGram::new(&[1, beyond, 1], &[], &[]);
        assert_eq!(mixed(&mut grams), vec![0.1; ROWS]);
    }
}
