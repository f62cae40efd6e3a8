//! What runs on the model's thread: what to do next, and doing it.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::continuation::Pace;
use super::decode::{Decoding, Step};
use super::error::LoadErrorKind;
use super::kv_cache::KvCache;
use super::loader::Loaded;
use super::probe::{Verdict, probe};
use super::queue::{Active, FIRST_RETRY, Outcome, Shared, Submission};
use super::sampler::Scores;
use super::schedule::Rank;
use super::stamp::Changes;
use super::watchdog::{LOAD_LIMIT, PROBE_LIMIT, STEP_LIMIT, Watched, unexpected};
use super::worker::{Load, WorkerOptions};
use crate::inference::{
    ClientId, ErrorKind, Event, Finish, GenerateError, GenerateRequest, Health, Priority,
};

/// Answers in the making at once, most of them waiting for their readers. A client that has none may
/// begin one all the same: others' readers that stand still are not its concern.
const MAX_ACTIVE: usize = 8;

/// How often to look whether a reader that was behind has caught up.
const READER_POLL: Duration = Duration::from_millis(2);

/// What lives on the thread.
pub(super) struct Engine {
    watched: Watched,
    load: Load,
    options: WorkerOptions,
    resident: Option<Resident>,
    /// Started and not ended.
    active: Vec<Active>,
    last_used: Instant,
    /// What happens to the model's files.
    changes: Changes,
}

struct Resident {
    loaded: Loaded,
    cache: KvCache,
    /// What the next token is chosen by, used again for each.
    scores: Scores,
    /// Its speed as it was last seen.
    pace: Pace,
    /// Whether it has something to do where nothing is asked of it.
    unsettled: bool,
}

enum Next {
    Stop,
    Start(Box<Submission>, Rank),
    Step(usize),
    WarmUp,
    Settle,
    Unload,
    LookAtFiles,
    LookForFiles,
    Recover,
}

impl Engine {
    /// Made on the thread that runs it, since a model never leaves its thread.
    pub fn new(watched: Watched, load: Load, options: WorkerOptions) -> Self {
        Self {
            last_used: watched.shared.clock.now(),
            watched,
            load,
            options,
            resident: None,
            active: Vec::new(),
            changes: Changes::default(),
        }
    }

    /// Works until the worker is dropped or this thread's era is over.
    pub fn run(mut self) {
        loop {
            match self.next() {
                Next::Stop => return,
                Next::Start(submission, rank) => self.start(*submission, rank),
                Next::Step(index) => self.step(index),
                Next::WarmUp => {
                    let _ = self.ensure_loaded();
                }
                Next::Settle => {
                    if let Some(resident) = &mut self.resident {
                        resident.unsettled = resident.loaded.model.settle();
                    }
                }
                Next::Unload => {
                    self.unload();
                    self.publish(Health::Unloaded);
                }
                Next::LookAtFiles => self.look_at_files(),
                Next::LookForFiles => self.look_for_files(),
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
                    rank: (Priority::Background, 0, arrival),
                    client: ClientId::default(),
                    cancel: CancellationToken::new(),
                    sender,
                    decoding: None,
                    unsent: VecDeque::from([Event::Failed(error)]),
                    behind: true,
                    spent: Duration::ZERO,
                });
            }
            queue.drop_cancelled();
            for active in &mut self.active {
                active.flush();
            }
            self.active.retain(|active| !active.has_ended());
            let active = &self.active;
            queue
                .in_hand
                .retain(|it| active.iter().any(|active| active.arrival() == it.arrival));
            for active in &mut self.active {
                let was_behind = std::mem::replace(&mut active.behind, !active.unsent.is_empty());
                if was_behind && !active.behind {
                    // It stood still while others were served: it goes on in its client's next turn.
                    active.rank.1 = queue.turns.requeue(active.client, active.priority());
                }
            }
            let step = (0..self.active.len())
                .filter(|index| !self.active[*index].behind)
                .map(|index| (index, self.active[index].rank))
                .min_by_key(|(_, rank)| *rank);
            let start = queue.next(|client| self.may_start(client));
            match (step, start) {
                (Some((step, rank)), Some((_, other))) if rank < other => return Next::Step(step),
                (_, Some((start, _))) => {
                    let (next, rank) = queue.take(start);
                    return Next::Start(Box::new(next), rank);
                }
                (Some((step, _)), None) => return Next::Step(step),
                (None, None) => {}
            }
            if std::mem::take(&mut queue.warm_up) && self.resident.is_none() {
                return Next::WarmUp;
            }
            let now = shared.clock.now();
            let again = self.changes.again();
            let idle = self.active.is_empty();
            let loaded = self.resident.is_some() || queue.failure.is_some();
            if idle && loaded && again.is_some_and(|again| again <= now) {
                return Next::LookAtFiles;
            }
            if idle && self.resident.as_ref().is_some_and(|it| it.unsettled) {
                return Next::Settle;
            }
            let deadline = if !idle {
                Some(now + READER_POLL)
            } else if let Some(failure) = &queue.failure {
                if failure.until <= now {
                    return Next::Recover;
                }
                Some(again.map_or(failure.until, |again| again.min(failure.until)))
            } else if self.resident.is_some() {
                let unload = self.last_used + self.options.idle_unload;
                if unload <= now {
                    return Next::Unload;
                }
                Some(again.map_or(unload, |again| again.min(unload)))
            } else if queue.absent {
                let look = self.changes.look_for(now);
                if look <= now {
                    return Next::LookForFiles;
                }
                Some(look)
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

    /// Each answer holds a sequence outside the cache, so there are few. That of one priority is the
    /// only one in the making, besides those whose readers are behind: it ranks before all who wait.
    fn may_start(&self, client: ClientId) -> bool {
        self.active.len() < MAX_ACTIVE || !self.active.iter().any(|it| it.client == client)
    }

    fn start(&mut self, submission: Submission, rank: Rank) {
        let Submission {
            request,
            cancel,
            sender,
            arrival,
        } = submission;
        let mut active = Active {
            rank,
            client: request.client,
            cancel,
            sender,
            decoding: None,
            unsent: VecDeque::new(),
            behind: false,
            spent: Duration::ZERO,
        };
        self.look_at_files();
        match self.ensure_loaded().and_then(|()| self.begin(request)) {
            Ok(decoding) => {
                let usage = decoding.usage();
                active.decoding = Some(decoding);
                let mut queue = self.shared().lock();
                queue.counted.prompt_tokens += usage.prompt_tokens as u64;
                queue.counted.cached_tokens += usage.cached_tokens as u64;
            }
            Err(error) => {
                self.shared().lock().count(arrival, Outcome::Failed);
                active.end(Event::Failed(error));
            }
        }
        self.last_used = self.shared().clock.now();
        self.active.push(active);
        self.count_cache();
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
            Ok(Decoding::new(request, model, sequence, resident.pace))
        });
        begun.unwrap_or_else(|error| Err(self.fail(error)))
    }

    fn step(&mut self, index: usize) {
        let now = self.shared().clock.now();
        self.last_used = now;
        let active = &mut self.active[index];
        let Some(resident) = &mut self.resident else {
            let mut queue = self.watched.shared.lock();
            queue.count(active.arrival(), Outcome::Failed);
            drop(queue);
            active.end(Event::Failed(unexpected("it is not loaded")));
            return;
        };
        let Some(decoding) = &mut active.decoding else {
            return;
        };
        if active.cancel.is_cancelled() || active.sender.is_disconnected() {
            self.remove_cancelled(index);
            return;
        }
        let Loaded {
            model, tokenizer, ..
        } = &mut resident.loaded;
        let before = decoding.usage();
        model.heed(Some(&active.cancel));
        let step = self.watched.run(STEP_LIMIT, || {
            decoding.step(model.as_mut(), tokenizer, &mut resident.scores)
        });
        model.heed(None);
        resident.pace = decoding.pace();
        let usage = decoding.usage();
        let shared = Arc::clone(&self.watched.shared);
        if before.completion_tokens > 0 {
            active.spent += shared.clock.now() - now;
        }
        let computed = usage.completion_tokens - before.completion_tokens;
        shared.lock().counted.completion_tokens += computed as u64;
        match step {
            Ok(Ok(Step::Text(text))) => {
                active.sender.count(usage);
                active.text(text);
            }
            Ok(Ok(Step::Finished(text, reason))) => {
                let further = usage.completion_tokens.saturating_sub(1);
                let drafted = decoding.drafted();
                tracing::debug!(
                    tokens = usage.completion_tokens,
                    offered = drafted.offered,
                    accepted = drafted.accepted,
                    "drafts that were looked up"
                );
                let mut queue = shared.lock();
                if further > 0 && !active.spent.is_zero() {
                    let rate = further as f64 / active.spent.as_secs_f64();
                    queue.counted.tokens_per_second = rate;
                }
                queue.counted.drafted_tokens += drafted.offered as u64;
                queue.counted.accepted_tokens += drafted.accepted as u64;
                queue.count(active.arrival(), Outcome::Answered);
                drop(queue);
                active.text(text);
                let done = Event::Done(Finish {
                    reason,
                    usage,
                    model: None,
                });
                self.give_back(index);
                self.active[index].end(done);
            }
            Ok(Err(error)) if error.kind == ErrorKind::Cancelled => self.remove_cancelled(index),
            Ok(Err(error)) => {
                shared.lock().count(active.arrival(), Outcome::Failed);
                active.end(Event::Failed(error));
            }
            Err(error) => {
                self.fail(error);
            }
        }
    }

    /// Ends an answer that nobody waits for any more.
    fn remove_cancelled(&mut self, index: usize) {
        self.give_back(index);
        let cancelled = self.active.remove(index);
        let mut queue = self.shared().lock();
        queue.count(cancelled.arrival(), Outcome::Cancelled);
    }

    /// Keeps what an answer has computed for later ones.
    fn give_back(&mut self, index: usize) {
        let decoding = self.active[index].decoding.take();
        if let (Some(resident), Some(decoding)) = (&mut self.resident, decoding) {
            resident.cache.release(decoding.into_sequence());
        }
        self.count_cache();
    }

    /// Says what the cache holds now.
    fn count_cache(&self) {
        let cache = self.resident.as_ref().map(|resident| &resident.cache);
        let mut queue = self.shared().lock();
        // The thread that took over has a cache of its own.
        if queue.era == self.watched.era {
            queue.counted.kv_sequences = cache.map_or(0, KvCache::sequences);
            queue.counted.kv_bytes = cache.map_or(0, KvCache::bytes);
        }
    }

    fn unload(&mut self) {
        self.resident = None;
        self.count_cache();
    }

    /// Lets go of the model, or of its failure, where other files stand in its place: they are loaded
    /// when they are needed. While something is in the making the old one goes on.
    fn look_at_files(&mut self) {
        let now = self.shared().clock.now();
        let (changes, files) = (&mut self.changes, &self.options.files);
        let settled = self
            .watched
            .run(STEP_LIMIT, || Ok(changes.settled(now, files)));
        if !matches!(settled, Ok(Ok(true))) || self.active.iter().any(|it| it.decoding.is_some()) {
            return;
        }
        let failed = self.shared().lock().failure.take().is_some();
        if failed || self.resident.is_some() {
            tracing::info!("the model's files have changed");
            self.unload();
            self.publish(Health::Unloaded);
        }
    }

    /// A model that was not there can be asked for once its files have come.
    fn look_for_files(&mut self) {
        let now = self.shared().clock.now();
        let (changes, files) = (&mut self.changes, &self.options.files);
        let appeared = self
            .watched
            .run(STEP_LIMIT, || Ok(changes.appeared(now, files)));
        if matches!(appeared, Ok(Ok(true))) {
            self.publish(Health::Unloaded);
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
        shared.lock().counted.loads += 1;
        self.publish(Health::Loading);
        let files = &self.options.files;
        // Before it is loaded, so that what is written meanwhile is a change.
        if let Ok(Ok(stamp)) = self.watched.run(STEP_LIMIT, || Ok(files.stamp())) {
            self.changes.loading(stamp);
        }
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
            pace: Pace::default(),
            unsettled: true,
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
        self.unload();
        self.shared().fail(self.watched.era, &error);
        let shared = Arc::clone(&self.watched.shared);
        for active in &mut self.active {
            if active.decoding.is_some() {
                shared.lock().count(active.arrival(), Outcome::Failed);
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
