//! A model that all sessions share, as a backend of this one.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::{Connection, Listener};
use super::link::{Link, Served, Way};
use super::{OnCrash, OpenHere, request};
use crate::daemon::ModelSpec;
use crate::inference::{
    Backend, Descriptor, ErrorKind, GenerateError, GenerateRequest, Health, Placement, Statistics,
    TokenStream,
};

/// See the module.
pub struct SharedBackend {
    model: Arc<Model>,
}

/// What requests, which outlive a look at the backend, hold of it.
pub(super) struct Model {
    pub(super) link: Arc<Link>,
    pub(super) number: u32,
    descriptor: Descriptor,
    /// Where nothing is known from elsewhere.
    at_rest: Mutex<Health>,
    health: watch::Sender<Health>,
    placement: Mutex<Option<Placement>>,
    here: OpenHere,
    crash: OnCrash,
    inside: Mutex<Option<Inside>>,
    /// Held while the model is opened in this process.
    opening: tokio::sync::Mutex<()>,
    warming: AtomicBool,
}

/// The model in this process.
struct Inside {
    backend: Arc<dyn Backend>,
    /// There will be no daemon, so it serves to the end.
    for_good: bool,
    /// Ends the task that passes its health on.
    _follow: DropGuard,
}

/// Who serves a request.
pub(super) enum Server {
    Daemon(Arc<Connection>),
    Inside(Arc<dyn Backend>),
    Nobody(GenerateError),
}

impl SharedBackend {
    /// The model `spec` behind `link`. Until the daemon tells, it has `health` and `placement`, as the
    /// session found them itself.
    #[must_use]
    pub fn new(
        link: Arc<Link>,
        spec: ModelSpec,
        descriptor: Descriptor,
        health: Health,
        placement: Option<Placement>,
        here: OpenHere,
        crash: OnCrash,
    ) -> Self {
        let model = Arc::new_cyclic(|model: &Weak<Model>| Model {
            number: link.add(spec, model.clone()),
            link,
            descriptor,
            at_rest: Mutex::new(health.clone()),
            health: watch::Sender::new(health),
            placement: Mutex::new(placement),
            here,
            crash,
            inside: Mutex::new(None),
            opening: tokio::sync::Mutex::new(()),
            warming: AtomicBool::new(false),
        });
        model.link.open_added();
        Self { model }
    }

    /// The model, which was not there when this was made, has come: it can be asked for.
    pub fn appeared(&self) {
        *lock(&self.model.at_rest) = Health::Unloaded;
        self.model.health.send_if_modified(|health| {
            let absent = matches!(health, Health::Absent { .. });
            if absent {
                *health = Health::Unloaded;
            }
            absent
        });
    }
}

impl Backend for SharedBackend {
    fn descriptor(&self) -> &Descriptor {
        &self.model.descriptor
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.model.health.subscribe()
    }

    fn placement(&self) -> Option<Placement> {
        match self.model.serves_inside() {
            Some(inside) => inside.placement(),
            None => lock(&self.model.placement).clone(),
        }
    }

    fn statistics(&self) -> Option<Statistics> {
        self.model.serves_inside()?.statistics()
    }

    fn warm_up(&self) {
        let model = &self.model;
        if let Some(inside) = model.inside_for_good() {
            inside.warm_up();
        } else if let Some(connection) = model.link.live() {
            connection.warm_up(model.number);
        } else if !model.warming.swap(true, Ordering::AcqRel) {
            let model = Arc::clone(model);
            model.link.runtime().clone().spawn(async move {
                match model.server().await {
                    Server::Daemon(connection) => connection.warm_up(model.number),
                    Server::Inside(inside) => inside.warm_up(),
                    // Published as health.
                    Server::Nobody(_) => {}
                }
                model.warming.store(false, Ordering::Release);
            });
        }
    }

    fn generate(&self, request: GenerateRequest, cancel: CancellationToken) -> TokenStream {
        let (events, stream) = TokenStream::channel(cancel.clone());
        let model = Arc::clone(&self.model);
        let runtime = model.link.runtime().clone();
        // Ends with the stream: its end cancels the token.
        runtime.spawn(request::serve(model, request, cancel, events));
        stream
    }
}

impl Model {
    /// Finds out who serves, and has the health say so.
    pub(super) async fn server(&self) -> Server {
        if let Some(inside) = self.inside_for_good() {
            return Server::Inside(inside);
        }
        if self.link.live().is_none() && self.serves_inside().is_none() {
            self.health.send_if_modified(|health| {
                let waits = *health == Health::Unloaded;
                if waits {
                    *health = Health::Loading;
                }
                waits
            });
        }
        match self.link.way().await {
            Way::Daemon(connection) => Server::Daemon(connection),
            Way::Here => self.open_inside(true).await,
            Way::Paused(_) if self.crash == OnCrash::ServeHere => self.open_inside(false).await,
            Way::Paused(until) => {
                let mut error = crashing();
                error.retry_after = Some(left(until));
                Server::Nobody(error)
            }
            Way::Nowhere(why) => Server::Nobody(GenerateError::new(
                ErrorKind::Unavailable,
                "the daemon that holds the model was not reached",
                sentence(&why),
            )),
        }
    }

    /// The model in this process, opened if need be.
    async fn open_inside(&self, for_good: bool) -> Server {
        let _opening = self.opening.lock().await;
        if let Some(inside) = &mut *lock(&self.inside) {
            inside.for_good |= for_good;
            return Server::Inside(Arc::clone(&inside.backend));
        }
        match self.open() {
            Ok(backend) => {
                let follow = CancellationToken::new();
                let stop = follow.clone();
                let (mut health, told) = (backend.health(), self.health.clone());
                self.link.runtime().spawn(async move {
                    loop {
                        let now = health.borrow_and_update().clone();
                        told.send_replace(now);
                        tokio::select! {
                            () = stop.cancelled() => return,
                            changed = health.changed() => if changed.is_err() { return },
                        }
                    }
                });
                *lock(&self.inside) = Some(Inside {
                    backend: Arc::clone(&backend),
                    for_good,
                    _follow: follow.drop_guard(),
                });
                Server::Inside(backend)
            }
            Err(error) => {
                let error =
                    format!("the model cannot be opened in this session: {error}. Try again.");
                self.health.send_replace(Health::Failed {
                    error: error.clone(),
                    retry_after: None,
                });
                Server::Nobody(GenerateError::new(
                    ErrorKind::Unavailable,
                    "the model cannot be opened in this session",
                    error,
                ))
            }
        }
    }

    fn open(&self) -> io::Result<Arc<dyn Backend>> {
        (self.here)()
    }

    fn serves_inside(&self) -> Option<Arc<dyn Backend>> {
        let inside = lock(&self.inside);
        inside.as_ref().map(|inside| Arc::clone(&inside.backend))
    }

    fn inside_for_good(&self) -> Option<Arc<dyn Backend>> {
        let inside = lock(&self.inside);
        let inside = inside.as_ref().filter(|inside| inside.for_good)?;
        Some(Arc::clone(&inside.backend))
    }

    fn publish(&self, now: Health) {
        self.health.send_if_modified(|health| {
            let changed = *health != now;
            if changed {
                *health = now;
            }
            changed
        });
    }
}

impl Listener for Model {
    fn hear(&self, health: Health, placement: Option<Placement>) {
        if let Some(placement) = placement {
            *lock(&self.placement) = Some(placement);
        }
        self.publish(health);
    }
}

impl Served for Model {
    fn rest(&self) {
        if self.serves_inside().is_none() {
            self.publish(lock(&self.at_rest).clone());
        }
    }

    fn pause(&self, until: Instant) {
        match self.crash {
            OnCrash::Fail => self.publish(Health::Failed {
                error: crashing().to_string(),
                retry_after: Some(left(until)),
            }),
            OnCrash::ServeHere => self.rest(),
        }
    }

    fn resume(&self) {
        let mut inside = lock(&self.inside);
        if inside.as_ref().is_some_and(|inside| inside.for_good) {
            return;
        }
        // Answers that are under way keep it until their end.
        let closed = inside.take();
        drop(inside);
        drop(closed);
        self.publish(lock(&self.at_rest).clone());
    }
}

fn crashing() -> GenerateError {
    GenerateError::new(
        ErrorKind::Unavailable,
        "the daemon that holds the model has crashed again and again",
        "It is left alone for a while and then started again by itself; `tandem daemon logs` may say \
         why, and `daemon.enabled: false` does without it.",
    )
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// With a large letter at its beginning.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
