//! How long typing must rest before a model is asked: by how a person types and how fast the model
//! is.
//!
//! A request is worth its work if its answer may well come before the next key takes it back. How
//! likely that is after a pause, the person's own last pauses tell: of those that were longer than
//! this one is already, some were longer by as much as the model takes. Tabby's rule, one and a half
//! to three mean pauses less the mean response time, knows means alone; but pauses within a word and
//! those between lines are two things.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Pauses that are remembered: about ten seconds of typing.
const PAUSES: usize = 48;

/// From so many on they say something.
const LEAST_PAUSES: usize = 12;

/// Before that, what nobody takes for a delay.
const FIRST: Duration = Duration::from_millis(75);

/// Keys that come in a heap are one: a paste, a macro, an editor that closes brackets by itself.
const LEAST: Duration = Duration::from_millis(20);

/// Nobody who has paused for so long is in the middle of a word.
const MOST: Duration = Duration::from_millis(500);

/// A pause this long is a break, however long.
const BREAK: Duration = Duration::from_secs(3);

/// What a model costs that is asked in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Some work of this machine: one answer of five may come in time.
    Work,
    /// Money: one of two.
    Money,
}

/// How a person types and how fast they are answered.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When the last key came, and the state of the document after it.
    last: Option<(Instant, u64)>,
    pauses: VecDeque<Duration>,
    /// How long answers take, the last ones most, and what they cost.
    answers: Option<(Duration, Cost)>,
}

impl Pace {
    /// A key was pressed, after which the documents are at `revision`.
    pub fn key(&self, now: Instant, revision: u64) {
        let mut known = self.lock();
        if let Some((last, before)) = known.last {
            if before == revision {
                return;
            }
            let pause = now.saturating_duration_since(last).min(BREAK);
            if known.pauses.len() == PAUSES {
                known.pauses.pop_front();
            }
            known.pauses.push_back(pause);
        }
        known.last = Some((now, revision));
    }

    /// A model has answered, and took so long.
    pub fn answered(&self, took: Duration, cost: Cost) {
        let mut known = self.lock();
        let before = known.answers.filter(|(_, before)| *before == cost);
        let mean = before.map_or(took, |(mean, _)| (mean * 3 + took) / 4);
        known.answers = Some((mean, cost));
    }

    /// How long answers take, and what they cost; `None` before there was one.
    #[must_use]
    pub fn answers(&self) -> Option<(Duration, Cost)> {
        self.lock().answers
    }

    /// How long typing must rest.
    #[must_use]
    pub fn rest(&self) -> Duration {
        let known = self.lock();
        let Some((took, cost)) = known.answers else {
            return FIRST;
        };
        if known.pauses.len() < LEAST_PAUSES {
            return FIRST;
        }
        let mut pauses: Vec<_> = known.pauses.iter().copied().collect();
        drop(known);
        pauses.sort_unstable();
        let longer = |than: Duration| pauses.len() - pauses.partition_point(|one| *one <= than);
        let of = match cost {
            Cost::Work => 5,
            Cost::Money => 2,
        };
        std::iter::once(LEAST)
            .chain(pauses.iter().copied())
            .filter(|rest| (LEAST..MOST).contains(rest))
            .find(|rest| longer(*rest + took) * of >= longer(*rest))
            .unwrap_or(MOST)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Somebody who types with these pauses, in milliseconds, over and over.
    fn typing(pauses: &[u64], took: u64, cost: Cost) -> Pace {
        let pace = Pace::default();
        let mut now = Instant::now();
        pace.key(now, 0);
        for (pause, revision) in pauses.iter().cycle().zip(1..=PAUSES as u64 * 2) {
            now += Duration::from_millis(*pause);
            pace.key(now, revision);
        }
        pace.answered(Duration::from_millis(took), cost);
        pace
    }

    fn check(pauses: &[u64], took: u64, cost: Cost, rest: u64) {
        let found = typing(pauses, took, cost).rest();
        assert_eq!(found, Duration::from_millis(rest), "{pauses:?} {took}");
    }

    #[test]
    fn a_fast_model_is_asked_at_once_and_a_slow_one_in_a_pause() {
        // Words of six letters, and a thought behind each.
        let words = [120, 150, 140, 160, 130, 800];
        check(&words, 40, Cost::Work, 20);
        check(&words, 100, Cost::Work, 20);
        // Only after a word could an answer be seen, which is one pause of six.
        check(&words, 300, Cost::Work, 120);
        check(&words, 300, Cost::Money, 150);
        // Not even then.
        check(&words, 2000, Cost::Work, 500);
        // Keys that repeat.
        check(&[33], 40, Cost::Work, 33);
        // Who thinks before every key.
        check(&[5000], 2000, Cost::Money, 20);
    }

    #[test]
    fn little_is_known_at_first() {
        let pace = Pace::default();
        assert_eq!(pace.rest(), FIRST);
        pace.answered(Duration::from_millis(10), Cost::Work);
        let now = Instant::now();
        for revision in 0..LEAST_PAUSES as u64 {
            pace.key(now + Duration::from_millis(100 * revision), revision);
        }
        assert_eq!(pace.rest(), FIRST);
        // The same state again is no key.
        let later = now + Duration::from_millis(100 * LEAST_PAUSES as u64);
        pace.key(later, LEAST_PAUSES as u64 - 1);
        assert_eq!(pace.rest(), FIRST);
        pace.key(later, LEAST_PAUSES as u64);
        assert_eq!(pace.rest(), LEAST);
    }

    #[test]
    fn the_last_answers_count_most() {
        let pace = typing(&[300], 10, Cost::Work);
        assert_eq!(pace.rest(), LEAST);
        for _ in 0..8 {
            pace.answered(Duration::from_millis(400), Cost::Work);
        }
        assert_eq!(pace.rest(), Duration::from_millis(300));
        // What another model takes says nothing of this one.
        pace.answered(Duration::from_millis(10), Cost::Money);
        assert_eq!(pace.rest(), LEAST);
    }

    proptest! {
        #[test]
        fn a_rest_is_within_its_bounds(
            pauses in proptest::collection::vec(0u64..100_000, 1..60),
            took in 0u64..100_000,
        ) {
            let rest = typing(&pauses, took, Cost::Work).rest();
            prop_assert!((LEAST..=MOST).contains(&rest));
            let paid = typing(&pauses, took, Cost::Money).rest();
            prop_assert!(paid >= rest);
        }
    }
}
