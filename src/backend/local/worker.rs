//! The one thread that touches the model.
//!
//! It loads on first need, generates for one request at a time in short steps, turns to a more
//! urgent request between two steps, unloads after a while without requests, and survives whatever
//! the model does, panics included.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::continuation::FIRST_BLOCK;
use super::decode::{Decoding, Step};
use super::error::{LoadError, LoadErrorKind};
use super::kv_cache::KvCache;
use super::loader::Loaded;
use super::probe::{Floor, Verdict, probe};
use super::queue::{Active, Clock, FIRST_RETRY, Shared, Submission};
use super::sampler::Scores;
use super::watchdog::{self, LOAD_LIMIT, PROBE_LIMIT, STEP_LIMIT, Watched, unexpected};
use crate::inference::{
    ErrorKind, Event, EventSender, Finish, GenerateError, GenerateRequest, Health, Placement,
    Priority,
};

/// Requests that may wait. More than a person and their tools can have open at once, so a full
/// queue means that something sends without listening.
const MAX_WAITING: usize = 64;

/// Answers in the making at once, most of them waiting for their readers.
const MAX_ACTIVE: usize = 8;

/// How often to look whether a reader that was behind has caught up.
const READER_POLL: Duration = Duration::from_millis(2);

/// What the thread is told when it starts.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Bytes of keys and values to keep between requests.
    pub kv_cache_bytes: usize,
    /// Unload after so long without a request.
    pub idle_unload: Duration,
    /// Slower than this, a model is degraded.
    pub floor: Floor,
    /// Where it is asked to run, as far as that is known before it is loaded.
    pub placement: Placement,
    /// Where the time comes from.
    pub clock: Clock,
}

/// Loads the model, on the thread that will compute with it; called again after each unload.
pub type Load = Arc<dyn Fn() -> Result<Loaded, LoadError> + Send + Sync>;

/// A handle to the thread, which ends within one step of the handle's drop.
pub struct Worker {
    shared: Arc<Shared>,
    health: watch::Receiver<Health>,
}

impl Worker {
    /// Starts the thread. `health` is what is known before anything was loaded.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(load: Load, options: WorkerOptions, health: Health) -> std::io::Result<Self> {
        let (health, receiver) = watch::channel(health);
        let placement = options.placement.clone();
        let shared = Arc::new(Shared::new(options.clock.clone(), health, placement));
        spawn_engine(&shared, &load, &options, 0)?;
        let watched = Arc::clone(&shared);
        // Ends when the handle is dropped, like the other, and is not joined for the same reason.
        thread::Builder::new()
            .name("tandem-watchdog".to_owned())
            .spawn(move || {
                watchdog::watch(&watched, |era| spawn_engine(&watched, &load, &options, era));
            })
            .inspect_err(|_| shared.lock().stop = true)?;
        Ok(Self {
            shared,
            health: receiver,
        })
    }

    /// The model's state now and from now on.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Where the model was asked to run, and where it was seen to.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.shared.lock().placement.clone()
    }

    /// Has the threads look at the clock again: for whoever moved it.
    pub fn look_at_clock(&self) {
        self.shared.notify();
    }

    /// Asks for the model to be loaded.
    pub fn warm_up(&self) {
        self.shared.lock().warm_up = true;
        self.shared.wake.notify_all();
    }

    /// Queues a request; its events come through `sender`.
    pub fn submit(&self, request: GenerateRequest, cancel: CancellationToken, sender: EventSender) {
        let mut queue = self.shared.lock();
        if queue.stop {
            drop(queue);
            let _ = sender.try_send(Event::Failed(watchdog::closed()));
            return;
        }
        queue.waiting.retain(|other| !other.cancel.is_cancelled());
        if queue.waiting.len() >= MAX_WAITING {
            drop(queue);
            let error = GenerateError::new(
                ErrorKind::Unavailable,
                format!("{MAX_WAITING} requests already wait for the local model"),
                "Wait for answers, or cancel requests that nobody needs any more.",
            );
            let _ = sender.try_send(Event::Failed(error));
            return;
        }
        queue.arrivals += 1;
        let arrival = queue.arrivals;
        queue.waiting.push(Submission {
            request,
            cancel,
            sender,
            arrival,
        });
        drop(queue);
        self.shared.wake.notify_all();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.notify();
    }
}

/// Starts the thread of `era`. Not joined: a load may take seconds, and whoever drops the handle is
/// about to end the process.
fn spawn_engine(
    shared: &Arc<Shared>,
    load: &Load,
    options: &WorkerOptions,
    era: u64,
) -> std::io::Result<()> {
    let watched = Watched {
        shared: Arc::clone(shared),
        era,
    };
    let load = Arc::clone(load);
    let options = options.clone();
    let run = move || {
        // Made here, since a model never leaves its thread.
        let engine = Engine {
            last_used: watched.shared.clock.now(),
            watched,
            load,
            options,
            resident: None,
            active: Vec::new(),
        };
        engine.run();
    };
    let name = "tandem-model".to_owned();
    thread::Builder::new().name(name).spawn(run).map(drop)
}

/// What lives on the thread.
struct Engine {
    watched: Watched,
    load: Load,
    options: WorkerOptions,
    resident: Option<Resident>,
    /// Started and not ended.
    active: Vec<Active>,
    last_used: Instant,
}

struct Resident {
    loaded: Loaded,
    cache: KvCache,
    /// What the next token is chosen by, used again for each.
    scores: Scores,
    /// Tokens of a prompt to compute at once, as its speed was last seen.
    block: usize,
}

enum Next {
    Stop,
    Start(Box<Submission>),
    Step(usize),
    WarmUp,
    Unload,
    Recover,
}

impl Engine {
    fn run(mut self) {
        loop {
            match self.next() {
                Next::Stop => return,
                Next::Start(submission) => self.start(*submission),
                Next::Step(index) => self.step(index),
                Next::WarmUp => {
                    let _ = self.ensure_loaded();
                }
                Next::Unload => {
                    self.resident = None;
                    self.publish(Health::Unloaded);
                }
                Next::Recover => {
                    self.shared().lock().failure = None;
                    self.publish(Health::Unloaded);
                }
            }
        }
    }

    /// The most urgent thing to do; waits until there is one.
    fn next(&mut self) -> Next {
        let shared = Arc::clone(&self.watched.shared);
        let mut queue = shared.lock();
        loop {
            if queue.stop || queue.era != self.watched.era {
                return Next::Stop;
            }
            for (arrival, sender, error) in queue.orphans.drain(..) {
                self.active.push(Active {
                    rank: (Priority::Background, arrival),
                    cancel: CancellationToken::new(),
                    sender,
                    decoding: None,
                    unsent: VecDeque::from([Event::Failed(error)]),
                });
            }
            queue
                .waiting
                .retain(|waiting| !waiting.cancel.is_cancelled());
            for active in &mut self.active {
                active.flush();
            }
            self.active.retain(|active| !active.has_ended());
            let active = &self.active;
            queue
                .in_hand
                .retain(|(arrival, _)| active.iter().any(|active| active.rank.1 == *arrival));
            let step = (0..self.active.len())
                .filter(|index| self.active[*index].unsent.is_empty())
                .min_by_key(|index| self.active[*index].rank);
            let start = (0..queue.waiting.len()).min_by_key(|index| queue.waiting[*index].rank());
            match (step, start) {
                (Some(step), Some(start))
                    if queue.waiting[start].request.priority >= self.active[step].rank.0 =>
                {
                    return Next::Step(step);
                }
                (_, Some(start)) if self.may_start(queue.waiting[start].request.priority) => {
                    let next = queue.waiting.swap_remove(start);
                    queue.in_hand.push((next.arrival, next.sender.clone()));
                    return Next::Start(Box::new(next));
                }
                (Some(step), _) => return Next::Step(step),
                (None, _) => {}
            }
            if std::mem::take(&mut queue.warm_up) && self.resident.is_none() {
                return Next::WarmUp;
            }
            let now = shared.clock.now();
            let deadline = if !self.active.is_empty() {
                Some(now + READER_POLL)
            } else if let Some(failure) = &queue.failure {
                if failure.until <= now {
                    return Next::Recover;
                }
                Some(failure.until)
            } else if self.resident.is_some() {
                let unload = self.last_used + self.options.idle_unload;
                if unload <= now {
                    return Next::Unload;
                }
                Some(unload)
            } else {
                None
            };
            queue = if let Some(deadline) = deadline {
                let wait = shared.wake.wait_timeout(queue, deadline - now);
                wait.unwrap_or_else(PoisonError::into_inner).0
            } else {
                let wait = shared.wake.wait(queue);
                wait.unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// Of each priority one answer at a time is in the making, besides those whose readers are
    /// behind; all in all few, since each holds a sequence outside the cache.
    fn may_start(&self, priority: Priority) -> bool {
        let busy = |active: &Active| active.rank.0 == priority && active.unsent.is_empty();
        self.active.len() < MAX_ACTIVE && !self.active.iter().any(busy)
    }

    fn start(&mut self, submission: Submission) {
        let Submission {
            request,
            cancel,
            sender,
            arrival,
        } = submission;
        let mut active = Active {
            rank: (request.priority, arrival),
            cancel,
            sender,
            decoding: None,
            unsent: VecDeque::new(),
        };
        match self.ensure_loaded().and_then(|()| self.begin(request)) {
            Ok(decoding) => active.decoding = Some(decoding),
            Err(error) => active.unsent.push_back(Event::Failed(error)),
        }
        self.last_used = self.shared().clock.now();
        self.active.push(active);
    }

    fn begin(&mut self, request: GenerateRequest) -> Result<Decoding, GenerateError> {
        let Some(resident) = &mut self.resident else {
            return Err(unexpected("it is not loaded"));
        };
        let begun = self.watched.run(STEP_LIMIT, || {
            let request = resident.loaded.prompt(request)?;
            let model = resident.loaded.model.as_mut();
            let seen = model.window().start(0, request.prompt.len());
            let sequence = resident.cache.acquire(&request.prompt[seen..], model)?;
            Ok(Decoding::new(request, model, sequence, resident.block))
        });
        begun.unwrap_or_else(|error| Err(self.fail(error)))
    }

    fn step(&mut self, index: usize) {
        let active = &mut self.active[index];
        let Some(resident) = &mut self.resident else {
            active.end(Event::Failed(unexpected("it is not loaded")));
            return;
        };
        let Some(decoding) = &mut active.decoding else {
            return;
        };
        self.last_used = self.watched.shared.clock.now();
        if active.cancel.is_cancelled() || active.sender.is_disconnected() {
            if let Some(decoding) = active.decoding.take() {
                resident.cache.release(decoding.into_sequence());
            }
            self.active.remove(index);
            return;
        }
        let Loaded {
            model, tokenizer, ..
        } = &mut resident.loaded;
        let step = self.watched.run(STEP_LIMIT, || {
            decoding.step(model.as_mut(), tokenizer, &mut resident.scores)
        });
        resident.block = decoding.block();
        match step {
            Ok(Ok(Step::Text(text))) => {
                active.sender.count(decoding.usage());
                active.text(text);
            }
            Ok(Ok(Step::Finished(text, reason))) => {
                let usage = decoding.usage();
                active.text(text);
                if let Some(decoding) = active.decoding.take() {
                    resident.cache.release(decoding.into_sequence());
                }
                active.end(Event::Done(Finish {
                    reason,
                    usage,
                    model: None,
                }));
            }
            Ok(Err(error)) => active.end(Event::Failed(error)),
            Err(error) => {
                self.fail(error);
            }
        }
    }

    fn ensure_loaded(&mut self) -> Result<(), GenerateError> {
        if self.resident.is_some() {
            return Ok(());
        }
        let shared = Arc::clone(&self.watched.shared);
        let now = shared.clock.now();
        let failure = shared.lock();
        if let Some(failure) = failure.failure.as_ref().filter(|it| it.until > now) {
            return Err(failure.error.clone());
        }
        drop(failure);
        self.publish(Health::Loading);
        let load = &self.load;
        let mut loaded = match self.watched.run(LOAD_LIMIT, || Ok(load())) {
            Ok(Ok(Ok(loaded))) => loaded,
            Ok(Ok(Err(error))) if error.kind == LoadErrorKind::Absent => {
                let why = error.to_string();
                self.publish(Health::Absent { why });
                return Err(error.into());
            }
            Ok(Ok(Err(error))) => return Err(self.fail(error.into())),
            Ok(Err(error)) | Err(error) => return Err(self.fail(error)),
        };
        self.publish(Health::Probing);
        let floor = self.options.floor;
        let probed = self
            .watched
            .run(PROBE_LIMIT, || probe(&mut loaded, floor, &shared.clock));
        let Verdict { speed, degraded } = match probed {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) | Err(error) => return Err(self.fail(error)),
        };
        let mut queue = shared.lock();
        queue.failure = None;
        queue.retry = FIRST_RETRY;
        queue.placement = loaded.placement.clone();
        drop(queue);
        self.resident = Some(Resident {
            loaded,
            cache: KvCache::new(self.options.kv_cache_bytes),
            scores: Scores::default(),
            block: FIRST_BLOCK,
        });
        self.last_used = shared.clock.now();
        self.publish(match degraded {
            None => Health::Healthy { speed: Some(speed) },
            Some(why) => Health::Degraded { why },
        });
        Ok(())
    }

    /// The model cannot be trusted any more: everything in the making fails with it.
    fn fail(&mut self, error: GenerateError) -> GenerateError {
        self.resident = None;
        self.shared().fail(self.watched.era, &error);
        for active in &mut self.active {
            if active.decoding.is_some() {
                active.end(Event::Failed(error.clone()));
            }
        }
        error
    }

    fn publish(&self, health: Health) {
        self.shared().publish(self.watched.era, health);
    }

    fn shared(&self) -> &Shared {
        &self.watched.shared
    }
}
