//! Whether guesses pay, by what was seen on this machine with this model.
//!
//! A guess of `k` tokens makes the next step compute `k + 1` tokens in place of one. That takes longer,
//! by how much depends on the processor, the kernels and the model; and it brings more than one token
//! where the guess is right. Both are measured as answers are made: the time of a step by its number of
//! tokens, and how often a guess was right by how long the passage is that it was found after. The latter
//! is seen for guesses that were not computed too, so that what stopped paying is noticed when it pays
//! again. Times are seen only of steps that were made, so a size that its estimate keeps from being used
//! is tried again at times: a hundredth of all time may go to that, and one slow step decides nothing.

use std::time::Duration;

/// The most tokens of a guess.
pub const MOST: usize = 7;

/// The share of a new measurement in an average.
const NEW_TIME: f32 = 0.1;
const NEW_HIT: f32 = 0.04;

/// What a token more costs, as a share of a step of one, before that is known.
const FIRST_EXTRA: f32 = 0.2;

/// What it costs at the least: a step is mostly the reading of weights.
const LEAST_EXTRA: f32 = 0.05;

/// A measurement that is so many times the average is the machine's doing, and counts as so much.
const OUTLIER: f32 = 3.0;

/// Until there are so many measurements, or as many again after a long while, a lower one counts in full:
/// a machine makes a step slower than it is, and never faster.
const FEW: u8 = 3;

/// An estimate is old when so many other steps were made since.
const OLD: u32 = 256;

/// The share of time that may be lost by steps of a size that does not seem to pay, made to find out
/// whether that is still so.
const TRIALS: f32 = 0.01;

/// What may be saved up for trials, in steps of one token: more than the longest step takes.
const SAVED: f32 = 16.0;

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

/// What was seen of steps of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Timing {
    /// Seconds; 0 where none was seen.
    seconds: f32,
    /// How many measurements there are, up to [`FEW`], since there was none for a long while.
    count: u8,
    /// The number of the last step of this size among all.
    last: u32,
}

/// What was seen of steps and guesses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Payoff {
    /// By the number of tokens less one.
    timings: [Timing; MOST + 1],
    /// All steps.
    steps: u32,
    /// Seconds that trials may take.
    saved: f32,
    /// What the step being made should take by what it promises, where it is a trial.
    trial: Option<f32>,
    /// How often guesses were right, by [`CLASSES`].
    hits: [f32; CLASSES.len()],
    /// The tokens of every guess, whether that pays or not.
    fixed: Option<usize>,
}

impl Default for Payoff {
    fn default() -> Self {
        Self {
            timings: [Timing::default(); MOST + 1],
            steps: 0,
            saved: 0.0,
            trial: None,
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
        let trial = self.trial.take();
        let Some(at) = tokens.checked_sub(1).filter(|at| *at <= MOST) else {
            return;
        };
        self.steps = self.steps.wrapping_add(1);
        let Timing { seconds, count, .. } = self.timings[at];
        let known = self.timings.iter().any(|timing| timing.count > 0);
        let expected = if known { self.cost(tokens) } else { f32::MAX };
        let measured = time.as_secs_f32().min(expected * OUTLIER);
        let count = if self.is_old(at) { 0 } else { count };
        let in_full = count == 0 || count < FEW && measured < seconds;
        let share = if in_full { 1.0 } else { NEW_TIME };
        self.timings[at] = Timing {
            seconds: seconds + share * (measured - seconds),
            count: FEW.min(count + 1),
            last: self.steps,
        };
        self.saved += TRIALS * measured - trial.map_or(0.0, |worth| (measured - worth).max(0.0));
        self.saved = self.saved.min(SAVED * self.cost(1));
    }

    /// Notes whether a token was guessed right after a passage of so many tokens.
    pub fn guessed(&mut self, length: usize, right: bool) {
        let hits = &mut self.hits[class(length)];
        *hits += NEW_HIT * (f32::from(u8::from(right)) - *hits);
    }

    /// How many tokens of a guess of `most`, found after a passage of `length`, should be computed with
    /// the next step, which is made then: as many as promise most tokens a second, or as many as should be
    /// tried again.
    pub fn choose(&mut self, length: usize, most: usize) -> usize {
        if let Some(tokens) = self.fixed {
            return tokens.min(most).min(MOST);
        }
        let expected = self.expected(length);
        let best = self.best(&expected, most);
        let Some(trial) = self.worth_trying(&expected, best, most) else {
            return best;
        };
        self.trial = Some(expected[trial] * self.cost(best + 1) / expected[best]);
        trial
    }

    /// How many tokens a step brings that computes so many guessed ones, from none on.
    fn expected(&self, length: usize) -> [f32; MOST + 1] {
        let (mut expected, mut all_right) = ([1.0; MOST + 1], 1.0);
        for count in 1..=MOST {
            // Right up to here is a passage that is longer by as much.
            all_right *= self.hits[class(length + count - 1)];
            expected[count] = expected[count - 1] + all_right;
        }
        expected
    }

    fn best(&self, expected: &[f32; MOST + 1], most: usize) -> usize {
        let alone = self.cost(1);
        let mut best = (0, MARGIN);
        let counts = expected.iter().enumerate().skip(1);
        for (count, expected) in counts.take(most) {
            let gain = expected * alone / self.cost(count + 1);
            if gain > best.1 {
                best = (count, gain);
            }
        }
        best.0
    }

    /// The number of guessed tokens whose step should be tried instead of that of the `best`: of those that
    /// would be better if they took as little as a step can, the one not made for longest; none where trials
    /// have taken all that they may.
    fn worth_trying(&self, expected: &[f32; MOST + 1], best: usize, most: usize) -> Option<usize> {
        let alone = self.cost(1);
        let rate = expected[best] / self.cost(best + 1);
        let might_pay = |count: usize| {
            let least = alone * (1.0 + LEAST_EXTRA * count as f32);
            // How long one token takes is what all others are compared with.
            count == 0 || expected[count] > MARGIN * rate * least
        };
        let lost = |count: usize| (self.cost(count + 1) - expected[count] / rate).max(0.0);
        (0..=most.min(MOST))
            .filter(|count| *count != best && might_pay(*count))
            .filter(|count| self.timings[*count].count < FEW || self.is_old(*count))
            .min_by_key(|count| self.timings[*count].last)
            .filter(|count| lost(*count) <= self.saved)
    }

    fn is_old(&self, at: usize) -> bool {
        self.steps.wrapping_sub(self.timings[at].last) > OLD
    }

    /// Seconds of a step of so many tokens, at least one: as seen, else between what was seen of shorter
    /// and longer ones, or as much more as [`FIRST_EXTRA`] says. Never more than a longer one takes.
    fn cost(&self, tokens: usize) -> f32 {
        let at = (tokens - 1).min(MOST);
        let longer = self.timings[at..].iter().filter(|timing| timing.count > 0);
        let longer = longer.map(|timing| timing.seconds);
        longer.fold(self.estimate(at), f32::min)
    }

    fn estimate(&self, at: usize) -> f32 {
        let seen = |at: usize| {
            let timing = self.timings[at];
            (timing.count > 0).then_some((at, timing.seconds))
        };
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

    impl Payoff {
        /// As many as promise most tokens a second, with no trial.
        fn worth(&self, length: usize, most: usize) -> usize {
            self.best(&self.expected(length), most)
        }
    }

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
        assert_eq!(Payoff::fixed(3).choose(1, MOST), 3);
        assert_eq!(Payoff::fixed(3).choose(1, 2), 2);
        let mut same = payoff;
        same.took(0, Duration::from_secs(1));
        same.took(MOST + 2, Duration::from_secs(1));
        assert_eq!(same, payoff);
    }

    /// A machine and a text: what steps take by their number of tokens, in milliseconds, and how many
    /// tokens of a guess are right.
    struct Made {
        times: [f32; MOST + 1],
        right: usize,
    }

    impl Made {
        fn steps(slope: f32, right: usize) -> Self {
            let times = std::array::from_fn(|at| 10.0 * (1.0 + slope * at as f32));
            Self { times, right }
        }

        /// Has `steps` steps made, of which those for which `slow` says how many times as long take so
        /// long; returns the sizes, and milliseconds for each token as if none had been slow.
        fn run(
            &self,
            payoff: &mut Payoff,
            steps: usize,
            slow: impl Fn(usize, usize) -> f32,
        ) -> (Vec<usize>, f32) {
            let (mut time, mut said) = (0.0, 0);
            let mut sizes = Vec::new();
            for step in 0..steps {
                let count = payoff.choose(32, MOST);
                let took = self.times[count];
                let seen = took * slow(step, count);
                payoff.took(count + 1, Duration::from_secs_f32(seen / 1e3));
                for token in 0..MOST {
                    payoff.guessed(32, token < self.right);
                    if token >= self.right {
                        break;
                    }
                }
                time += took;
                said += 1 + self.right.min(count);
                sizes.push(count);
            }
            (sizes, time / said as f32)
        }
    }

    #[test]
    fn one_slow_step_keeps_no_size_from_being_used() {
        let quick = Made::steps(0.05, MOST);
        // The first guess of all, and the first step of each size.
        let seen = std::cell::Cell::new([false; MOST + 1]);
        let first_of_each = |_: usize, count: usize| -> f32 {
            let mut all = seen.get();
            let first = !std::mem::replace(&mut all[count], true);
            seen.set(all);
            if first { 100.0 } else { 1.0 }
        };
        let first = |step: usize, _: usize| if step == 0 { 100.0 } else { 1.0 };
        let a_while = |step: usize, count: usize| {
            if step < 20 && count > 0 { 10.0 } else { 1.0 }
        };
        for slow in [
            &first_of_each as &dyn Fn(usize, usize) -> f32,
            &first,
            &a_while,
        ] {
            // With the time of one token known, and from nothing.
            for known in [true, false] {
                seen.set([known; MOST + 1]);
                let mut payoff = Payoff::default();
                if known {
                    payoff.took(1, Duration::from_millis(10));
                    seen.set([false; MOST + 1]);
                }
                quick.run(&mut payoff, 2000, slow);
                let (sizes, _) = quick.run(&mut payoff, 1000, |_, _| 1.0);
                let whole = sizes.iter().filter(|size| **size == MOST).count();
                assert!(whole > 950, "{whole} of 1000, {known}, {:?}", &sizes[..40]);
            }
        }
    }

    #[test]
    fn what_costs_more_than_it_brings_is_tried_seldom() {
        for (slope, right) in [(1.0, 0), (1.5, MOST), (0.5, 0), (3.0, 2), (0.2, 0)] {
            let made = Made::steps(slope, right);
            let mut payoff = Payoff::default();
            made.run(&mut payoff, 400, |_, _| 1.0);
            let (sizes, each) = made.run(&mut payoff, 10_000, |_, _| 1.0);
            let tried = sizes.iter().filter(|size| **size > 0).count();
            assert!(tried < 300, "{slope}, {right}: {tried} of 10000");
            assert!(each < 10.0 * 1.012, "{slope}, {right}: {each}");
        }
    }

    #[test]
    fn trials_cost_a_hundredth_at_most_whatever_they_meet() {
        // Each trial takes longer than the last, so that no estimate is right.
        let mut payoff = Payoff::default();
        Made::steps(2.0, MOST).run(&mut payoff, 400, |_, _| 1.0);
        let (mut all, mut lost, mut trials) = (0.0, 0.0, 0);
        let mut took_last = 200.0;
        for _ in 0..50_000 {
            let count = payoff.choose(32, MOST);
            let took = if count == 0 { 10.0 } else { took_last };
            payoff.took(count + 1, Duration::from_secs_f32(took / 1e3));
            all += took;
            if count > 0 {
                trials += 1;
                lost += took - 10.0 * (1 + count) as f32;
                took_last = (took * 1.5).min(2000.0);
            }
        }
        assert!(trials > 3, "{trials}");
        assert!(lost < all * 0.02, "{lost} of {all} by {trials}");
    }

    #[test]
    fn a_machine_that_becomes_quick_is_noticed() {
        let mut payoff = Payoff::default();
        Made::steps(2.0, MOST).run(&mut payoff, 2000, |_, _| 1.0);
        assert_eq!(payoff.worth(32, MOST), 0);
        let quick = Made::steps(0.1, MOST);
        quick.run(&mut payoff, 4000, |_, _| 1.0);
        assert_eq!(payoff.worth(32, MOST), MOST);
        // And one that becomes slow.
        let slow = Made::steps(2.0, 1);
        slow.run(&mut payoff, 400, |_, _| 1.0);
        let (sizes, _) = slow.run(&mut payoff, 1000, |_, _| 1.0);
        assert!(sizes.iter().filter(|size| **size == 0).count() > 950);
    }

    #[test]
    fn the_time_of_one_token_is_looked_at_where_every_step_is_longer() {
        // One that was slow makes guesses look better than they are.
        let made = Made::steps(0.4, 0);
        let mut payoff = Payoff::default();
        payoff.took(1, Duration::from_millis(200));
        made.run(&mut payoff, 1000, |_, _| 1.0);
        let (_, each) = made.run(&mut payoff, 4000, |_, _| 1.0);
        assert!(each < 10.0 * 1.02, "{each}");
    }
}
