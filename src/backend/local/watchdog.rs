//! Watches the model's thread: a prediction that never returns costs the thread, not the answers.
//!
//! Core ML has been seen to hang inside a prediction, and no call can be taken back. So whatever
//! touches the model does so within a limit. When the limit passes, everything in hand fails at once
//! (so that others can answer), a new thread takes the queue over, and the old one is left alone: if
//! its call ever returns, it finds that its era is over, drops all it has and ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::queue::{InHand, Queue, Shared};
use crate::inference::{ErrorKind, Event, GenerateError, NotSent};

/// One block of a prompt or one token. A block takes tens of milliseconds, on a machine that swaps
/// perhaps seconds.
pub const STEP_LIMIT: Duration = Duration::from_secs(20);
/// The canary and the comparison of both ways of prefill: some hundred steps, the first of which
/// may compile.
pub const PROBE_LIMIT: Duration = Duration::from_mins(3);
/// Loading: the first time Core ML compiles for the Neural Engine, for minutes.
pub const LOAD_LIMIT: Duration = Duration::from_mins(15);

/// The model's thread, as it reports to the watchdog.
pub(super) struct Watched {
    pub shared: Arc<Shared>,
    /// This thread's era.
    pub era: u64,
}

impl Watched {
    /// Does what touches the model, within `limit`. A panic there costs the model, never the thread.
    ///
    /// # Errors
    /// The outer one when it panicked, or came back after the thread was given up; the inner one is
    /// the work's own.
    pub fn run<T>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> Result<T, GenerateError>,
    ) -> Result<Result<T, GenerateError>, GenerateError> {
        let until = self.shared.clock.now() + limit;
        let mut queue = self.shared.lock();
        if queue.era != self.era {
            return Err(unexpected("its thread was given up"));
        }
        queue.busy_until = Some(until);
        if std::mem::take(&mut queue.watchdog_idle) {
            self.shared.watch.notify_all();
        }
        drop(queue);
        let done = catch_unwind(AssertUnwindSafe(work));
        let mut queue = self.shared.lock();
        if queue.era != self.era {
            return Err(unexpected("its thread was given up"));
        }
        queue.busy_until = None;
        drop(queue);
        done.map_err(|panic| {
            let reason = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(reason, "a panic in the local engine");
            unexpected("it panicked")
        })
    }
}

/// Watches until the worker is dropped. `replace` starts a thread of the given era.
pub(super) fn watch(shared: &Shared, replace: impl Fn(u64) -> std::io::Result<()>) {
    let mut queue = shared.lock();
    while !queue.stop {
        let now = shared.clock.now();
        queue = match queue.busy_until {
            Some(until) if until <= now => {
                give_up(shared, &mut queue);
                if let Err(error) = replace(queue.era) {
                    tracing::error!(%error, "the system refuses a thread for the model");
                    close(&mut queue);
                }
                shared.wake.notify_all();
                queue
            }
            Some(until) => {
                let waited = shared.watch.wait_timeout(queue, until - now);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                queue.watchdog_idle = true;
                let waited = shared.watch.wait(queue);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
    }
}

/// Ends the era of the thread that does not come back.
fn give_up(shared: &Shared, queue: &mut Queue) {
    let error = GenerateError::new(
        ErrorKind::Timeout,
        "the local model does not come back from a computation",
        "It is loaded anew by itself; if it happens again, run `tandem doctor`.",
    );
    queue.era += 1;
    queue.busy_until = None;
    // They go with the model, even if its thread cannot let go of them yet.
    queue.counted.kv_sequences = 0;
    queue.counted.kv_bytes = 0;
    shared.fail_locked(queue, &error);
    for InHand {
        arrival,
        sender,
        ended,
    } in std::mem::take(&mut queue.in_hand)
    {
        queue.counted.failed += u64::from(!ended);
        if let Err(NotSent::Full(_)) = sender.try_send(Event::Failed(error.clone())) {
            queue.orphans.push((arrival, sender, error.clone()));
        }
    }
}

/// Nobody will serve the queue any more.
fn close(queue: &mut Queue) {
    queue.stop = true;
    queue.counted.failed += queue.waiting.len() as u64;
    for submission in queue.waiting.drain(..) {
        let _ = submission.sender.try_send(Event::Failed(closed()));
    }
}

/// What is said to those who ask when nobody serves.
pub(super) fn closed() -> GenerateError {
    GenerateError::new(
        ErrorKind::Unavailable,
        "the local engine has stopped",
        "Restart Tandem; end other programs if the system has too many threads.",
    )
}

pub(super) fn unexpected(what: &str) -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        format!("the local engine failed: {what}"),
        "It is tried again by itself; if it fails again, report it with the log.",
    )
}
