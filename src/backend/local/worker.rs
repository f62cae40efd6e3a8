//! A handle to the one thread that touches the model.
//!
//! It loads on first need, generates for one request at a time in short steps, turns to a more
//! urgent request between two steps, unloads after a while without requests, and survives whatever
//! the model does, panics included.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::error::LoadError;
use super::loader::Loaded;
use super::probe::Floor;
use super::queue::{Clock, Shared, Submission};
use super::stamp::Files;
use super::watchdog::{self, Watched};
use crate::inference::{
    ErrorKind, Event, EventSender, GenerateError, GenerateRequest, Health, Placement, Statistics,
};

/// Requests that may wait. More than a person and all their sessions can have open at once (fifty of
/// which may ask for three candidates in the same moment), so a full queue means that something sends
/// without listening: whoever that is, and nobody else, has its requests refused.
pub const MAX_WAITING: usize = 512;

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
    /// Where the model is read from: loaded anew when that has changed.
    pub files: Files,
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
            queue.counted.failed += 1;
            drop(queue);
            let _ = sender.try_send(Event::Failed(watchdog::closed()));
            return;
        }
        queue.drop_cancelled();
        queue.arrivals += 1;
        let arrival = queue.arrivals;
        queue.waiting.push(Submission {
            request,
            cancel,
            sender,
            arrival,
        });
        let refused = queue.refuse_beyond(MAX_WAITING);
        drop(queue);
        if let Some(refused) = refused {
            let error = GenerateError::new(
                ErrorKind::Unavailable,
                format!("{MAX_WAITING} requests already wait for the local model"),
                "Wait for answers, or cancel requests that nobody needs any more.",
            );
            // Nothing was said on it before, so there is room.
            let _ = refused.sender.try_send(Event::Failed(error));
        }
        self.shared.wake.notify_all();
    }

    /// What was done so far, and what is held now. Never waits for the model.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.lock().statistics()
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
    let run = move || Engine::new(watched, load, options).run();
    let name = "tandem-model".to_owned();
    thread::Builder::new().name(name).spawn(run).map(drop)
}
