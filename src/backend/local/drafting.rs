//! Tokens computed ahead: a guess is scored together with the token before it, and holds as far as it is
//! what the scores choose.
//!
//! The scores of a token depend on those before it alone. So as long as the guess is right they are those
//! that the next step would have computed, and the choice by them is the same, greedy or drawn: nothing
//! changes but the time. The first token that is another ends it, and what was computed behind is cut off.

use std::time::Duration;

use super::lookup::Lookup;
use super::payoff::{MOST, Payoff};
use super::sampler::Scores;

/// How many tokens were guessed, and how many of them were right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drafted {
    /// Computed ahead.
    pub offered: usize,
    /// Of those, the ones that came.
    pub accepted: usize,
}

/// Guesses for one answer, and the scores behind them.
#[derive(Debug)]
pub(super) struct Drafting {
    lookup: Lookup,
    payoff: Payoff,
    /// The guess at what comes next, whether it is computed or not.
    guess: Vec<u32>,
    /// The length of the passage that it was found after.
    length: usize,
    /// How many of its tokens are computed with the step, and how many came.
    offered: usize,
    came: usize,
    /// Scores after the token before the guess, and after each offered token: `[offered + 1, vocabulary]`.
    logits: Vec<f32>,
    drafted: Drafted,
}

impl Drafting {
    pub fn new(lookup: Lookup, payoff: Payoff) -> Self {
        Self {
            lookup,
            payoff,
            guess: Vec::with_capacity(MOST),
            length: 0,
            offered: 0,
            came: 0,
            logits: Vec::new(),
            drafted: Drafted::default(),
        }
    }

    /// Guesses at what comes next; returns what of it is to be computed ahead: at most `most` tokens, and
    /// none from the first on that would be the `last`, after which nothing is computed.
    pub fn guess(&mut self, most: usize, last: impl Fn(u32) -> bool) -> &[u32] {
        self.forget();
        if let Some(passage) = self.lookup.find() {
            self.length = passage.length;
            self.guess.extend(self.lookup.after(passage, MOST));
            let worth_it = self.guess.iter().take_while(|token| !last(**token));
            let most = most.min(worth_it.count());
            self.offered = self.payoff.choose(self.length, most);
        }
        self.drafted.offered += self.offered;
        &self.guess[..self.offered]
    }

    /// Where the scores of the guess go.
    pub fn logits(&mut self) -> &mut Vec<f32> {
        &mut self.logits
    }

    /// Copies the scores of the next token, where they are there; `false` where it has to be computed.
    pub fn recall(&mut self, scores: &mut Scores) -> bool {
        if self.came == 0 || self.came > self.offered {
            return false;
        }
        self.copy(scores);
        true
    }

    /// Copies the scores after so many tokens of the guess as came.
    pub fn copy(&self, scores: &mut Scores) {
        let rows = self.logits.len() / (self.offered + 1);
        scores.best = None;
        scores.logits.clear();
        let row = self.logits.get(self.came * rows..(self.came + 1) * rows);
        scores.logits.extend_from_slice(row.unwrap_or_default());
    }

    /// Tells it the token that was chosen.
    pub fn accept(&mut self, token: u32) {
        self.lookup.push(token);
        let Some(guessed) = self.guess.get(self.came) else {
            self.forget();
            return;
        };
        let right = *guessed == token;
        self.payoff.guessed(self.length + self.came, right);
        if right {
            self.drafted.accepted += usize::from(self.came < self.offered);
            self.came += 1;
        } else {
            self.forget();
        }
    }

    /// Lets go of the guess.
    pub fn forget(&mut self) {
        self.guess.clear();
        self.offered = 0;
        self.came = 0;
    }

    /// Notes how long a step of so many tokens took.
    pub fn took(&mut self, tokens: usize, time: Duration) {
        self.payoff.took(tokens, time);
    }

    /// What was seen of times and guesses.
    pub fn payoff(&self) -> Payoff {
        self.payoff
    }

    pub fn drafted(&self) -> Drafted {
        self.drafted
    }
}
