//! When a daemon that keeps dying is left alone, and for how long.

use std::time::Duration;

use tokio::time::Instant;

/// A loss more, and it is a crash loop.
const MANY: usize = 3;

/// The losses of late. Pure: the time is handed in.
#[derive(Debug)]
pub(super) struct Losses {
    window: Duration,
    shortest: Duration,
    longest: Duration,
    recent: Vec<Instant>,
    pause: Duration,
    until: Option<Instant>,
}

impl Losses {
    /// Three losses within `window` make a pause of `shortest`; each pause soon after another is twice
    /// as long, up to `longest`.
    pub(super) fn new(window: Duration, shortest: Duration, longest: Duration) -> Self {
        Self {
            window,
            shortest,
            longest,
            recent: Vec::new(),
            pause: shortest,
            until: None,
        }
    }

    /// Counts a loss. When it begins a pause: its end.
    pub(super) fn note(&mut self, now: Instant) -> Option<Instant> {
        if self.paused(now).is_some() {
            return None;
        }
        self.recent.retain(|at| now - *at < self.window);
        self.recent.push(now);
        if self.recent.len() < MANY {
            return None;
        }
        self.recent.clear();
        // Long after the last pause all is forgiven.
        if self.until.is_none_or(|until| now - until > self.longest) {
            self.pause = self.shortest;
        }
        let until = now + self.pause;
        self.pause = (self.pause * 2).min(self.longest);
        self.until = Some(until);
        Some(until)
    }

    /// The end of the pause that is on.
    pub(super) fn paused(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn losses() -> Losses {
        Losses::new(60 * SECOND, 30 * SECOND, 100 * SECOND)
    }

    fn three(losses: &mut Losses, now: Instant) -> Option<Duration> {
        assert_eq!(losses.note(now), None);
        assert_eq!(losses.note(now), None);
        losses.note(now).map(|until| until - now)
    }

    #[test]
    fn three_within_the_window_pause_and_each_pause_is_longer() {
        let (mut losses, mut now) = (losses(), Instant::now());
        for pause in [30, 60, 100, 100] {
            assert_eq!(three(&mut losses, now), Some(pause * SECOND));
            assert!(losses.paused(now).is_some());
            assert_eq!(losses.note(now), None, "what is lost in a pause adds none");
            now += pause * SECOND;
            assert_eq!(losses.paused(now), None);
        }
    }

    #[test]
    fn losses_far_apart_never_pause() {
        let (mut losses, mut now) = (losses(), Instant::now());
        for _ in 0..10 {
            assert_eq!(losses.note(now), None);
            now += 31 * SECOND;
        }
    }

    #[test]
    fn long_after_a_pause_the_next_one_is_short_again() {
        let (mut losses, now) = (losses(), Instant::now());
        assert_eq!(three(&mut losses, now), Some(30 * SECOND));
        let later = now + 200 * SECOND;
        assert_eq!(three(&mut losses, later), Some(30 * SECOND));
    }
}
