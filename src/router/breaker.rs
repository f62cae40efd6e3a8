//! The breaker in front of a backend: closed, open, half-open.
//!
//! It counts the backend's own faults and nothing else. After several in a row, or too large a
//! share of the last outcomes, it opens: nobody is let through until a hold has passed. Then one
//! probe is let through; its outcome closes the breaker or opens it for longer. The terms are those
//! of Nygard, "Release It!", chapter 5.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where the time and the jitter come from.
pub trait Clock: Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Instant;

    /// A number in `0.0..1.0`, another one each time.
    fn jitter(&self) -> f64;
}

/// The process's clock. It follows tokio's, which tests may pause.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn jitter(&self) -> f64 {
        rand::random()
    }
}

/// When a breaker opens and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Faults in a row that open it.
    pub consecutive: u32,
    /// How many outcomes the rate looks back on.
    pub window: usize,
    /// Outcomes that must be known before the rate counts.
    pub window_least: usize,
    /// The share of faults in the window that opens it, in `0.0..=1.0`.
    pub rate: f64,
    /// The first hold.
    pub hold: Duration,
    /// The longest hold that doubling may reach.
    pub hold_cap: Duration,
    /// The longest hold that a backend may ask for by `retry_after`.
    pub retry_after_cap: Duration,
}

impl Default for Limits {
    /// Three faults in a row are a pattern and not chance; five seconds is about what a person
    /// waits before trying again; two minutes keeps a repaired backend from being shunned for
    /// long. Half of the last twenty outcomes catches a backend that fails every other time.
    fn default() -> Self {
        Self {
            consecutive: 3,
            window: 20,
            window_least: 10,
            rate: 0.5,
            hold: Duration::from_secs(5),
            hold_cap: Duration::from_mins(2),
            retry_after_cap: Duration::from_hours(1),
        }
    }
}

/// What a breaker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everybody passes.
    Closed,
    /// Nobody passes.
    Open,
    /// The hold is over: one probe passes, and nobody else until it has ended.
    HalfOpen,
}

impl BreakerState {
    /// The word for status lines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// See the module.
pub struct Breaker {
    clock: Arc<dyn Clock>,
    limits: Limits,
    inner: Mutex<Inner>,
}

/// Leave to try the backend once. Dropped without an outcome (cancelled, or a failure that is not
/// the backend's), it counts as nothing and frees a probe's place.
pub struct Pass {
    breaker: Arc<Breaker>,
    /// The breaker's era in which it was given: outcomes of an earlier era are stale.
    era: u64,
    settled: bool,
}

struct Inner {
    phase: Phase,
    /// Grows with each change between closed, open and half-open.
    era: u64,
    /// Holds since the breaker was last closed; doubles the next one.
    holds: u32,
}

enum Phase {
    Closed {
        consecutive: u32,
        /// The last outcomes, `true` for a fault.
        recent: VecDeque<bool>,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        probing: bool,
    },
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            clock,
            limits,
            inner: Mutex::new(Inner {
                phase: Phase::closed(),
                era: 0,
                holds: 0,
            }),
        })
    }

    /// What it is doing now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self.lock().phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until } if self.clock.now() < until => BreakerState::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether [`Self::try_pass`] would say yes now.
    #[must_use]
    pub fn would_pass(&self) -> bool {
        match self.lock().phase {
            Phase::Closed { .. } => true,
            Phase::Open { until } => self.clock.now() >= until,
            Phase::HalfOpen { probing } => !probing,
        }
    }

    /// Leave to try the backend once, or `None` while it is being left alone.
    #[must_use]
    pub fn try_pass(self: &Arc<Self>) -> Option<Pass> {
        let mut inner = self.lock();
        match &mut inner.phase {
            Phase::Closed { .. } => {}
            Phase::Open { until } => {
                if self.clock.now() < *until {
                    return None;
                }
                inner.enter(Phase::HalfOpen { probing: true });
            }
            Phase::HalfOpen { probing: true } => return None,
            Phase::HalfOpen { probing } => *probing = true,
        }
        Some(Pass {
            breaker: Arc::clone(self),
            era: inner.era,
            settled: false,
        })
    }

    fn succeeded(&self, era: u64) {
        let mut inner = self.lock();
        if inner.era != era {
            return;
        }
        match &mut inner.phase {
            Phase::Closed {
                consecutive,
                recent,
            } => {
                *consecutive = 0;
                remember(recent, false, self.limits.window);
            }
            Phase::HalfOpen { .. } => {
                inner.holds = 0;
                inner.enter(Phase::closed());
            }
            Phase::Open { .. } => {}
        }
    }

    fn faulted(&self, era: u64, retry_after: Option<Duration>) {
        let mut inner = self.lock();
        if inner.era != era {
            return;
        }
        let opens = match &mut inner.phase {
            Phase::Closed {
                consecutive,
                recent,
            } => {
                *consecutive += 1;
                remember(recent, true, self.limits.window);
                let faults = recent.iter().filter(|fault| **fault).count();
                let share = faults as f64 / recent.len() as f64;
                *consecutive >= self.limits.consecutive
                    || (recent.len() >= self.limits.window_least && share >= self.limits.rate)
                    // Whoever names a time is believed at once.
                    || retry_after.is_some()
            }
            Phase::HalfOpen { .. } => true,
            Phase::Open { .. } => false,
        };
        if opens {
            let hold = self.hold(inner.holds).max(
                retry_after
                    .unwrap_or_default()
                    .min(self.limits.retry_after_cap),
            );
            inner.holds = inner.holds.saturating_add(1);
            let until = self.clock.now() + hold;
            inner.enter(Phase::Open { until });
        }
    }

    fn abandoned(&self, era: u64) {
        let mut inner = self.lock();
        if inner.era != era {
            return;
        }
        if let Phase::HalfOpen { probing } = &mut inner.phase {
            *probing = false;
        }
    }

    /// Doubles with each hold up to the cap, and is shortened by up to a fifth, so that sessions
    /// that failed together do not come back together.
    fn hold(&self, holds: u32) -> Duration {
        let doubled = self
            .limits
            .hold
            .saturating_mul(2_u32.saturating_pow(holds))
            .min(self.limits.hold_cap);
        doubled.mul_f64(1.0 - 0.2 * self.clock.jitter().clamp(0.0, 1.0))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.era += 1;
    }
}

impl Phase {
    fn closed() -> Self {
        Self::Closed {
            consecutive: 0,
            recent: VecDeque::new(),
        }
    }
}

impl Pass {
    /// The backend did its work.
    pub fn succeeded(mut self) {
        self.settled = true;
        self.breaker.succeeded(self.era);
    }

    /// The backend failed by its own fault, and may have said when to come back.
    pub fn faulted(mut self, retry_after: Option<Duration>) {
        self.settled = true;
        self.breaker.faulted(self.era, retry_after);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.settled {
            self.breaker.abandoned(self.era);
        }
    }
}

fn remember(recent: &mut VecDeque<bool>, fault: bool, window: usize) {
    if recent.len() == window {
        recent.pop_front();
    }
    recent.push_back(fault);
}

#[cfg(test)]
mod tests;
