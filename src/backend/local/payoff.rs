//! Whether guesses pay, by what was seen on this machine with this model.
//!
//! A guess of `k` tokens makes the next step compute `k + 1` tokens in place of one. That takes longer,
//! by how much depends on the processor, the kernels and the model; and it brings more than one token
//! where the guess is right. Both are measured as answers are made: the time of a step by its number of
//! tokens, and how often a guess was right by how long the passage is that it was found after. The latter
//! is seen for guesses that were not computed too, so that what stopped paying is noticed when it pays
//! again.

use std::time::Duration;

/// The most tokens of a guess.
pub const MOST: usize = 7;

/// The share of a new measurement in an average.
const NEW_TIME: f32 = 0.1;
const NEW_HIT: f32 = 0.04;

/// What a token more costs, as a share of a step of one, before that is known.
const FIRST_EXTRA: f32 = 0.2;

/// A measurement that is so many times the average is the machine's doing, and counts as so much.
const OUTLIER: f32 = 3.0;

/// A guess must promise more tokens a second than none by this factor: estimates are not exact.
const MARGIN: f32 = 1.05;

/// The shortest passages of each class, and how often guesses after them are right before that is known:
/// about as in a replay of commits where new lines were said.
const CLASSES: [(usize, f32); 8] = [
    (1, 0.2),
    (2, 0.4),
    (3, 0.5),
    (4, 0.55),
    (6, 0.65),
    (9, 0.8),
    (14, 0.9),
    (24, 0.95),
];

/// What was seen of steps and guesses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Payoff {
    /// Seconds of a step, by its number of tokens less one; 0 where none was seen.
    seconds: [f32; MOST + 1],
    /// How often guesses were right, by [`CLASSES`].
    hits: [f32; CLASSES.len()],
    /// The tokens of every guess, whether that pays or not.
    fixed: Option<usize>,
}

impl Default for Payoff {
    fn default() -> Self {
        Self {
            seconds: [0.0; MOST + 1],
            hits: CLASSES.map(|(_, hits)| hits),
            fixed: None,
        }
    }
}

impl Payoff {
    /// So many tokens of every guess, whether that pays or not: for tests and benches.
    #[must_use]
    pub fn fixed(tokens: usize) -> Self {
        Self {
            fixed: Some(tokens),
            ..Self::default()
        }
    }

    /// Notes how long a step of so many tokens took.
    pub fn took(&mut self, tokens: usize, time: Duration) {
        let Some(average) = tokens
            .checked_sub(1)
            .and_then(|at| self.seconds.get_mut(at))
        else {
            return;
        };
        let seconds = time.as_secs_f32();
        if *average > 0.0 {
            *average += NEW_TIME * (seconds.min(*average * OUTLIER) - *average);
        } else {
            *average = seconds;
        }
    }

    /// Notes whether a token was guessed right after a passage of so many tokens.
    pub fn guessed(&mut self, length: usize, right: bool) {
        let hits = &mut self.hits[class(length)];
        *hits += NEW_HIT * (f32::from(u8::from(right)) - *hits);
    }

    /// How many tokens of a guess of `most`, found after a passage of `length`, should be computed with
    /// the next step: as many as promise most tokens a second.
    #[must_use]
    pub fn worth(&self, length: usize, most: usize) -> usize {
        if let Some(tokens) = self.fixed {
            return tokens.min(most).min(MOST);
        }
        let alone = self.cost(1);
        let (mut expected, mut all_right) = (1.0, 1.0);
        let mut best = (0, MARGIN);
        for count in 1..=most.min(MOST) {
            // Right up to here is a passage that is longer by as much.
            all_right *= self.hits[class(length + count - 1)];
            expected += all_right;
            let gain = expected * alone / self.cost(count + 1);
            if gain > best.1 {
                best = (count, gain);
            }
        }
        best.0
    }

    /// Seconds of a step of so many tokens, at least one: as seen, else between what was seen of shorter
    /// and longer ones, or as much more as [`FIRST_EXTRA`] says.
    fn cost(&self, tokens: usize) -> f32 {
        let seen = |at: usize| Some((at, self.seconds[at])).filter(|(_, seconds)| *seconds > 0.0);
        let at = (tokens - 1).min(MOST);
        let shorter = (0..=at).rev().find_map(seen);
        let longer = (at..=MOST).find_map(seen);
        let between = |(a, low): (usize, f32), (b, high): (usize, f32)| {
            let part = (at - a) as f32 / (b - a).max(1) as f32;
            low + part * (high - low)
        };
        match (shorter, longer) {
            (Some(shorter), Some(longer)) => between(shorter, longer),
            (Some(shorter), None) => {
                // On from what was seen, by the slope that was seen if there was one.
                let first = (0..shorter.0).find_map(seen);
                let extra = first.map_or(shorter.1 * FIRST_EXTRA, |first| {
                    (shorter.1 - first.1) / (shorter.0 - first.0) as f32
                });
                shorter.1 + extra.max(0.0) * (at - shorter.0) as f32
            }
            // What is known of longer ones tells of one token, and nothing known makes all relative to it.
            (None, longer) => {
                let as_one = |at: usize| 1.0 + FIRST_EXTRA * at as f32;
                let one = longer.map_or(1.0, |(longer, seconds)| seconds / as_one(longer));
                one * as_one(at)
            }
        }
    }
}

fn class(length: usize) -> usize {
    let beyond = CLASSES.iter().take_while(|(least, _)| *least <= length);
    beyond.count().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(times: &[(usize, u64)]) -> Payoff {
        let mut payoff = Payoff::default();
        for (tokens, time) in times {
            payoff.took(*tokens, Duration::from_millis(*time));
        }
        payoff
    }

    fn always(mut payoff: Payoff, right: bool) -> Payoff {
        for length in 1..100 {
            for _ in 0..200 {
                payoff.guessed(length, right);
            }
        }
        payoff
    }

    #[test]
    fn guesses_that_are_always_right_are_as_long_as_steps_are_cheap() {
        let cheap = always(milliseconds(&[(1, 10), (4, 12), (8, 16)]), true);
        assert_eq!(cheap.worth(1, MOST), MOST);
        assert_eq!(cheap.worth(1, 3), 3);
        assert_eq!(cheap.worth(1, 0), 0);
        // From the sixth token on a step takes twice as long.
        let stepped = always(milliseconds(&[(1, 10), (5, 11), (6, 25), (8, 26)]), true);
        assert_eq!(stepped.worth(9, MOST), 4);
    }

    #[test]
    fn nothing_is_guessed_where_it_costs_as_much_as_it_brings() {
        let dear = always(milliseconds(&[(1, 10), (2, 20), (4, 40), (8, 80)]), true);
        assert_eq!(dear.worth(32, MOST), 0);
        let wrong = always(milliseconds(&[(1, 10), (4, 12)]), false);
        assert_eq!(wrong.worth(32, MOST), 0);
    }

    #[test]
    fn longer_passages_promise_more() {
        let payoff = milliseconds(&[(1, 10), (4, 16), (8, 24)]);
        let worth: Vec<usize> = (1..=32).map(|length| payoff.worth(length, MOST)).collect();
        assert!(worth.is_sorted(), "{worth:?}");
        assert_eq!((worth[0], worth[31]), (0, MOST));
    }

    #[test]
    fn what_stopped_paying_pays_again() {
        let times = milliseconds(&[(1, 10), (4, 13), (8, 18)]);
        let wrong = always(times, false);
        assert_eq!(wrong.worth(8, MOST), 0);
        assert!(always(wrong, true).worth(8, MOST) > 4);
    }

    #[test]
    fn costs_between_and_beyond_what_was_seen_are_estimated() {
        let payoff = milliseconds(&[(1, 10), (5, 18)]);
        for (tokens, expected) in [(1, 10.0), (3, 14.0), (5, 18.0), (7, 22.0)] {
            let got = payoff.cost(tokens) * 1e3;
            assert!((got - expected).abs() < 1e-3, "{tokens}: {got}");
        }
        let mut slow_once = payoff;
        slow_once.took(1, Duration::from_mins(1));
        assert!(slow_once.cost(1) < 0.0125, "one that took long");
        // Only longer ones were seen.
        let ahead = milliseconds(&[(6, 20)]);
        for (tokens, expected) in [(1, 10.0), (2, 12.0), (6, 20.0)] {
            let got = ahead.cost(tokens) * 1e3;
            assert!((got - expected).abs() < 1e-3, "{tokens}: {got}");
        }
        // Nothing was measured, or what is not one of ours.
        assert!(Payoff::default().worth(32, MOST) > 0);
        let mut same = payoff;
        same.took(0, Duration::from_secs(1));
        same.took(MOST + 2, Duration::from_secs(1));
        assert_eq!(same, payoff);
    }
}
