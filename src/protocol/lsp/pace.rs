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

/// Answers of which the speed is remembered.
const ANSWERS: usize = 8;

/// A pause this long is a break, however long.
const BREAK: Duration = Duration::from_secs(3);

/// What a model costs that is asked in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Some work of this machine, which ends within a token.
    Work,
    /// Money.
    Money,
}

impl Cost {
    /// Of so many answers one must come in time.
    fn worth(self) -> usize {
        match self {
            Self::Work => 5,
            Self::Money => 2,
        }
    }

    /// The longest rest. Nobody who has paused for half a second is in the middle of a word; and
    /// work of this machine is too cheap to let a person wait for it who has paused after all.
    fn most(self) -> Duration {
        match self {
            Self::Work => Duration::from_millis(150),
            Self::Money => Duration::from_millis(500),
        }
    }
}

/// How a person types and how fast they are answered.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When the last key came, and the state of the document after it.
    last: Option<(Instant, u64)>,
    pauses: VecDeque<Duration>,
    /// How long the last answers took.
    answers: VecDeque<Duration>,
    /// What they cost.
    cost: Option<Cost>,
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
        if known.cost.replace(cost) != Some(cost) {
            known.answers.clear();
        }
        if known.answers.len() == ANSWERS {
            known.answers.pop_front();
        }
        known.answers.push_back(took);
    }

    /// How long answers take, and what they cost; `None` before there was one. One in four of the
    /// last was faster: what was slow once, since the model was loaded or the machine had other
    /// things to do, must not keep the model from being asked and so from showing that it is fast.
    #[must_use]
    pub fn answers(&self) -> Option<(Duration, Cost)> {
        let known = self.lock();
        let mut answers: Vec<_> = known.answers.iter().copied().collect();
        answers.sort_unstable();
        Some((*answers.get(answers.len() / 4)?, known.cost?))
    }

    /// How long typing must rest.
    #[must_use]
    pub fn rest(&self) -> Duration {
        let Some((took, cost)) = self.answers() else {
            return FIRST;
        };
        let mut pauses: Vec<_> = self.lock().pauses.iter().copied().collect();
        if pauses.len() < LEAST_PAUSES {
            return FIRST;
        }
        pauses.sort_unstable();
        let longer = |than: Duration| pauses.len() - pauses.partition_point(|one| *one <= than);
        std::iter::once(LEAST)
            .chain(pauses.iter().copied())
            .filter(|rest| (LEAST..cost.most()).contains(rest))
            .find(|rest| longer(*rest + took) * cost.worth() >= longer(*rest))
            .unwrap_or(cost.most())
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
        check(&words, 2000, Cost::Work, 150);
        check(&words, 2000, Cost::Money, 500);
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
    fn what_was_slow_once_is_forgotten_soon() {
        let pace = typing(&[300], 4000, Cost::Work);
        assert_eq!(pace.rest(), Cost::Work.most());
        for _ in 0..4 {
            pace.answered(Duration::from_millis(10), Cost::Work);
        }
        assert_eq!(pace.rest(), LEAST);
        for _ in 0..ANSWERS {
            pace.answered(Duration::from_millis(400), Cost::Work);
        }
        assert_eq!(pace.rest(), Cost::Work.most());
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
            prop_assert!((LEAST..=Cost::Work.most()).contains(&rest));
            let paid = typing(&pauses, took, Cost::Money).rest();
            prop_assert!(paid >= rest);
        }
    }
}
