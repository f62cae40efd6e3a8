//! What the model's thread shares with those who ask, and with whoever watches over it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::decode::Decoding;
use super::schedule::{self, Rank, Turns};
use crate::inference::{
    ClientId, Event, EventSender, GenerateError, GenerateRequest, Health, NotSent, Placement,
    Priority, Statistics,
};

/// A model that failed is tried again after so long, and after twice as long each further time.
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(30);
const LONGEST_RETRY: Duration = Duration::from_mins(10);

/// Where the time comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Instant + Send + Sync>);

impl Clock {
    /// A clock that says what `now` says.
    pub fn new(now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(Instant::now)
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// There is something to do for the model's thread.
    pub wake: Condvar,
    /// There is something to watch, or to stop watching.
    pub watch: Condvar,
    pub clock: Clock,
    health: watch::Sender<Health>,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a thing of its own that a thread looks at"
)]
pub(super) struct Queue {
    pub waiting: Vec<Submission>,
    pub arrivals: u64,
    pub warm_up: bool,
    pub stop: bool,
    /// Grows when a thread is given up: one of an earlier era has nothing more to say.
    pub era: u64,
    /// When what the thread is doing now has taken too long.
    pub busy_until: Option<Instant>,
    /// The watchdog waits for something to watch.
    pub watchdog_idle: bool,
    /// The answers that the thread has in hand.
    pub in_hand: Vec<InHand>,
    /// Answers of a thread that was given up whose end their readers have no room for yet.
    pub orphans: Vec<(u64, EventSender, GenerateError)>,
    pub failure: Option<Failure>,
    pub retry: Duration,
    pub placement: Placement,
    /// Who is next.
    pub turns: Turns,
    /// What was done so far; what waits and is in hand is counted when somebody asks.
    pub counted: Statistics,
    /// The model is not there, as was last published.
    pub absent: bool,
}

/// An answer that the thread has in hand, until its last event was read.
pub(super) struct InHand {
    pub arrival: u64,
    pub sender: EventSender,
    /// Its end was counted.
    pub ended: bool,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Answered,
    Failed,
    Cancelled,
}

impl Queue {
    /// Drops the requests that nobody waits for any more.
    pub fn drop_cancelled(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|it| !it.cancel.is_cancelled());
        self.counted.cancelled += (before - self.waiting.len()) as u64;
    }

    /// Takes one request out where more than `places` wait: whose, see [`schedule::to_give_up`].
    pub fn refuse_beyond(&mut self, places: usize) -> Option<Submission> {
        if self.waiting.len() <= places {
            return None;
        }
        self.waiting.sort_unstable_by_key(|it| it.arrival);
        let waiting = self.waiting.iter();
        let waiting: Vec<_> = waiting
            .map(|it| (it.request.client, it.request.priority))
            .collect();
        let index = schedule::to_give_up(&waiting)?;
        self.counted.failed += 1;
        Some(self.waiting.remove(index))
    }

    /// The request that is next, of those whose client `may_start` another, and its rank.
    pub fn next(&self, may_start: impl Fn(ClientId) -> bool) -> Option<(usize, Rank)> {
        let rank = |it: &Submission| {
            let (client, priority) = (it.request.client, it.request.priority);
            (priority, self.turns.of(client, priority), it.arrival)
        };
        let waiting = self.waiting.iter().enumerate();
        waiting
            .filter(|(_, it)| may_start(it.request.client))
            .map(|(index, it)| (index, rank(it)))
            .min_by_key(|(_, rank)| *rank)
    }

    /// Takes the request at `index` out of the queue and its turn, which is the rank it goes on with.
    pub fn take(&mut self, index: usize) -> (Submission, Rank) {
        let next = self.waiting.swap_remove(index);
        let (client, priority) = (next.request.client, next.request.priority);
        let rank = (priority, self.turns.take(client, priority), next.arrival);
        self.in_hand.push(InHand {
            arrival: next.arrival,
            sender: next.sender.clone(),
            ended: false,
        });
        (next, rank)
    }

    /// Counts the end of an answer, once: that of one which was taken out of the thread's hands was
    /// counted there.
    pub fn count(&mut self, arrival: u64, outcome: Outcome) {
        let in_hand = self.in_hand.iter_mut().find(|it| it.arrival == arrival);
        let Some(in_hand) = in_hand.filter(|it| !it.ended) else {
            return;
        };
        in_hand.ended = true;
        match outcome {
            Outcome::Answered => self.counted.answered += 1,
            Outcome::Failed => self.counted.failed += 1,
            Outcome::Cancelled => self.counted.cancelled += 1,
        }
    }

    /// What was done so far, what waits and what is in hand.
    pub fn statistics(&self) -> Statistics {
        let waiting = self.waiting.iter();
        Statistics {
            waiting: waiting.filter(|it| !it.cancel.is_cancelled()).count(),
            active: self.in_hand.iter().filter(|it| !it.ended).count(),
            ..self.counted
        }
    }
}

pub(super) struct Failure {
    pub error: GenerateError,
    pub until: Instant,
}

pub(super) struct Submission {
    pub request: GenerateRequest,
    pub cancel: CancellationToken,
    pub sender: EventSender,
    pub arrival: u64,
}

impl Shared {
    pub fn new(clock: Clock, health: watch::Sender<Health>, placement: Placement) -> Self {
        let absent = matches!(*health.borrow(), Health::Absent { .. });
        Self {
            queue: Mutex::new(Queue {
                waiting: Vec::new(),
                arrivals: 0,
                warm_up: false,
                stop: false,
                era: 0,
                busy_until: None,
                watchdog_idle: false,
                in_hand: Vec::new(),
                orphans: Vec::new(),
                failure: None,
                retry: FIRST_RETRY,
                placement,
                turns: Turns::default(),
                counted: Statistics::default(),
                absent,
            }),
            wake: Condvar::new(),
            watch: Condvar::new(),
            clock,
            health,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds the lock; if something did, the queue is still a queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everybody, so that they look at the queue and the clock again.
    pub fn notify(&self) {
        // Under the lock, so that nobody is between looking and waiting.
        let queue = self.lock();
        self.wake.notify_all();
        self.watch.notify_all();
        drop(queue);
    }

    /// Says how the model is, unless the thread of `era` was given up.
    pub fn publish(&self, era: u64, health: Health) {
        let mut queue = self.lock();
        if queue.era == era {
            queue.absent = matches!(health, Health::Absent { .. });
            self.health.send_replace(health);
        }
    }

    /// Notes that the model failed and when it is tried again, unless the thread of `era` was given
    /// up.
    pub fn fail(&self, era: u64, error: &GenerateError) {
        let mut queue = self.lock();
        if queue.era == era {
            self.fail_locked(&mut queue, error);
        }
    }

    pub fn fail_locked(&self, queue: &mut Queue, error: &GenerateError) {
        tracing::error!(%error, "the local model failed");
        let retry = queue.retry;
        queue.failure = Some(Failure {
            error: error.clone(),
            until: self.clock.now() + retry,
        });
        queue.retry = (retry * 2).min(LONGEST_RETRY);
        self.health.send_replace(Health::Failed {
            error: error.to_string(),
            retry_after: Some(retry),
        });
    }
}

/// An answer that has been started and has not ended.
pub(super) struct Active {
    pub rank: Rank,
    pub client: ClientId,
    pub cancel: CancellationToken,
    pub sender: EventSender,
    /// `None` once the answer has ended and only its last events wait to be read.
    pub decoding: Option<Decoding>,
    pub unsent: VecDeque<Event>,
    /// Its reader was behind when it was looked at last.
    pub behind: bool,
    /// How long the model computed for the answer's tokens after the first.
    pub spent: Duration,
}

impl Active {
    pub fn text(&mut self, text: String) {
        if !text.is_empty() {
            self.unsent.push_back(Event::Delta(text));
            self.flush();
        }
    }

    pub fn end(&mut self, event: Event) {
        self.decoding = None;
        self.unsent.push_back(event);
        self.flush();
    }

    /// The priority, which does not change.
    pub fn priority(&self) -> Priority {
        self.rank.0
    }

    /// The number that it came with.
    pub fn arrival(&self) -> u64 {
        self.rank.2
    }

    /// Sends what the reader has room for.
    pub fn flush(&mut self) {
        while let Some(event) = self.unsent.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(NotSent::Full(event)) => {
                    self.unsent.push_front(event);
                    return;
                }
                Err(NotSent::Disconnected) => self.unsent.clear(),
            }
        }
    }

    pub fn has_ended(&self) -> bool {
        self.decoding.is_none() && self.unsent.is_empty()
    }
}
