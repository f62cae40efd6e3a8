//! The one thread that touches the model.
//!
//! It loads on first need, generates for one request at a time in short steps, turns to a more
//! urgent request between two steps, unloads after a while without requests, and survives whatever
//! the model does, panics included.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::continuation::FIRST_BLOCK;
use super::decode::{DecodeRequest, Decoding, Step};
use super::error::{LoadError, LoadErrorKind};
use super::kv_cache::KvCache;
use super::loader::Loaded;
use super::probe::probe;
use super::sampler::Scores;
use crate::inference::{
    CompletionShape, ErrorKind, Event, EventSender, Finish, GenerateError, GenerateRequest, Health,
    NotSent, Priority, Task,
};
use crate::prompt::{Budget, chatml::ChatTemplate, fim};

/// Requests that may wait. More than a person and their tools can have open at once, so a full
/// queue means that something sends without listening.
const MAX_WAITING: usize = 64;

/// Answers in the making at once, most of them waiting for their readers.
const MAX_ACTIVE: usize = 8;

/// How often to look whether a reader that was behind has caught up.
const READER_POLL: Duration = Duration::from_millis(2);

/// A model that failed is tried again after so long, and after twice as long each further time.
const FIRST_RETRY: Duration = Duration::from_secs(30);
const LONGEST_RETRY: Duration = Duration::from_mins(10);

/// What the thread is told when it starts.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Bytes of keys and values to keep between requests.
    pub kv_cache_bytes: usize,
    /// Unload after so long without a request.
    pub idle_unload: Duration,
}

/// Loads the model, on the thread that will compute with it; called again after each unload.
pub type Load = Arc<dyn Fn() -> Result<Loaded, LoadError> + Send + Sync>;

/// A handle to the thread, which ends within one step of the handle's drop.
pub struct Worker {
    shared: Arc<Shared>,
    health: watch::Receiver<Health>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Submission>,
    arrivals: u64,
    warm_up: bool,
    stop: bool,
}

struct Submission {
    request: GenerateRequest,
    cancel: CancellationToken,
    sender: EventSender,
    arrival: u64,
}

impl Submission {
    fn rank(&self) -> (Priority, u64) {
        (self.request.priority, self.arrival)
    }
}

impl Worker {
    /// Starts the thread. `health` is what is known before anything was loaded.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(load: Load, options: WorkerOptions, health: Health) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
        });
        let (health, receiver) = watch::channel(health);
        let queue = Arc::clone(&shared);
        // Ends when the handle is dropped. Not joined: a load may take seconds, and whoever drops
        // the handle is about to end the process.
        thread::Builder::new()
            .name("tandem-model".to_owned())
            .spawn(move || {
                // Made here, since a model never leaves its thread.
                let engine = Engine {
                    shared: queue,
                    load,
                    options,
                    health,
                    resident: None,
                    active: Vec::new(),
                    failure: None,
                    retry: FIRST_RETRY,
                    last_used: Instant::now(),
                };
                engine.run();
            })?;
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

    /// Asks for the model to be loaded.
    pub fn warm_up(&self) {
        self.shared.lock().warm_up = true;
        self.shared.wake.notify_all();
    }

    /// Queues a request; its events come through `sender`.
    pub fn submit(&self, request: GenerateRequest, cancel: CancellationToken, sender: EventSender) {
        let mut queue = self.shared.lock();
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
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds the lock; if something did, the queue is still a queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lives on the thread.
struct Engine {
    shared: Arc<Shared>,
    load: Load,
    options: WorkerOptions,
    health: watch::Sender<Health>,
    resident: Option<Resident>,
    /// Started and not ended.
    active: Vec<Active>,
    failure: Option<Failure>,
    retry: Duration,
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

struct Failure {
    error: GenerateError,
    until: Instant,
}

struct Active {
    rank: (Priority, u64),
    cancel: CancellationToken,
    sender: EventSender,
    /// `None` once the answer has ended and only its last events wait to be read.
    decoding: Option<Decoding>,
    unsent: VecDeque<Event>,
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
                    self.health.send_replace(Health::Unloaded);
                }
                Next::Recover => {
                    self.failure = None;
                    self.health.send_replace(Health::Unloaded);
                }
            }
        }
    }

    /// The most urgent thing to do; waits until there is one.
    fn next(&mut self) -> Next {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.lock();
        loop {
            if queue.stop {
                return Next::Stop;
            }
            queue
                .waiting
                .retain(|waiting| !waiting.cancel.is_cancelled());
            for active in &mut self.active {
                active.flush();
            }
            self.active.retain(|active| !active.has_ended());
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
                    return Next::Start(Box::new(queue.waiting.swap_remove(start)));
                }
                (Some(step), _) => return Next::Step(step),
                (None, _) => {}
            }
            if std::mem::take(&mut queue.warm_up) && self.resident.is_none() {
                return Next::WarmUp;
            }
            let now = Instant::now();
            let deadline = if !self.active.is_empty() {
                Some(now + READER_POLL)
            } else if let Some(failure) = &self.failure {
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
        self.last_used = Instant::now();
        self.active.push(active);
    }

    fn begin(&mut self, request: GenerateRequest) -> Result<Decoding, GenerateError> {
        let Some(resident) = &mut self.resident else {
            return Err(unexpected("it is not loaded"));
        };
        let begun = guarded(|| {
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
        self.last_used = Instant::now();
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
        let step = guarded(|| decoding.step(model.as_mut(), tokenizer, &mut resident.scores));
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
        if let Some(failure) = self
            .failure
            .as_ref()
            .filter(|failure| failure.until > Instant::now())
        {
            return Err(failure.error.clone());
        }
        self.health.send_replace(Health::Loading);
        let mut loaded = match guarded(|| Ok((self.load)())) {
            Ok(Ok(Ok(loaded))) => loaded,
            Ok(Ok(Err(error))) if error.kind == LoadErrorKind::Absent => {
                let why = error.to_string();
                self.health.send_replace(Health::Absent { why });
                return Err(error.into());
            }
            Ok(Ok(Err(error))) => return Err(self.fail(error.into())),
            Ok(Err(error)) | Err(error) => return Err(self.fail(error)),
        };
        self.health.send_replace(Health::Probing);
        match guarded(|| probe(&mut loaded)) {
            Ok(Ok(speed)) => {
                self.resident = Some(Resident {
                    loaded,
                    cache: KvCache::new(self.options.kv_cache_bytes),
                    scores: Scores::default(),
                    block: FIRST_BLOCK,
                });
                self.failure = None;
                self.retry = FIRST_RETRY;
                self.last_used = Instant::now();
                self.health
                    .send_replace(Health::Healthy { speed: Some(speed) });
                Ok(())
            }
            Ok(Err(error)) | Err(error) => Err(self.fail(error)),
        }
    }

    /// The model cannot be trusted any more: everything in the making fails with it.
    fn fail(&mut self, error: GenerateError) -> GenerateError {
        tracing::error!(%error, "the local model failed");
        self.resident = None;
        self.health.send_replace(Health::Failed {
            error: error.to_string(),
            retry_after: Some(self.retry),
        });
        self.failure = Some(Failure {
            error: error.clone(),
            until: Instant::now() + self.retry,
        });
        self.retry = (self.retry * 2).min(LONGEST_RETRY);
        for active in &mut self.active {
            if active.decoding.is_some() {
                active.end(Event::Failed(error.clone()));
            }
        }
        error
    }
}

impl Active {
    fn text(&mut self, text: String) {
        if !text.is_empty() {
            self.unsent.push_back(Event::Delta(text));
            self.flush();
        }
    }

    fn end(&mut self, event: Event) {
        self.decoding = None;
        self.unsent.push_back(event);
        self.flush();
    }

    /// Sends what the reader has room for.
    fn flush(&mut self) {
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

    fn has_ended(&self) -> bool {
        self.decoding.is_none() && self.unsent.is_empty()
    }
}

impl Loaded {
    /// What decoding a request needs.
    fn prompt(&self, request: GenerateRequest) -> Result<DecodeRequest, GenerateError> {
        let budget = Budget {
            context_tokens: self.context_tokens,
            max_tokens: self.model.window().answer_room(request.max_tokens),
        };
        let mut stop = request.stop;
        let mut ends = &self.ends;
        let mut prompt = match &request.task {
            Task::Complete(task) => {
                ends = &self.completion_ends;
                if task.shape == CompletionShape::OneLine {
                    stop.push("\n".to_owned());
                }
                fim::render(task, &self.tokenizer, self.fim, budget)?
            }
            Task::Chat(task) => self.chat()?.chat(task, &self.tokenizer, budget)?,
            Task::Edit(task) => self.chat()?.edit(task, &self.tokenizer, budget)?,
        };
        if prompt.is_empty() {
            // Nothing stands before the cursor: the model starts a text, as after the end of one.
            prompt.extend(ends.iter().min());
        }
        if prompt.is_empty() {
            return Err(GenerateError::new(
                ErrorKind::InvalidRequest,
                "there is nothing to complete",
                "Type something first.",
            ));
        }
        Ok(DecodeRequest {
            prompt,
            sampling: request.sampling,
            max_tokens: request.max_tokens,
            ends: Arc::clone(ends),
            stop,
        })
    }

    fn chat(&self) -> Result<ChatTemplate, GenerateError> {
        self.chat.ok_or_else(|| {
            GenerateError::new(
                ErrorKind::Unavailable,
                "this local model completes code and holds no conversations",
                "Set `local.model` to a Qwen model with a chat template, or allow Claude.",
            )
        })
    }
}

/// Runs what touches the model. A panic there costs the model, never the thread.
fn guarded<T>(
    work: impl FnOnce() -> Result<T, GenerateError>,
) -> Result<Result<T, GenerateError>, GenerateError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let reason = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        tracing::error!(reason, "a panic in the local engine");
        unexpected("it panicked")
    })
}

fn unexpected(what: &str) -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        format!("the local engine failed: {what}"),
        "It is tried again by itself; if it fails again, report it with the log.",
    )
}
