//! The session's one connection: opened on first need, opened again when lost, left alone when the
//! daemon keeps dying.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::Instant;

use super::LinkOptions;
use super::connection::{Connection, Listener};
use super::dial::{self, Need, Reached};
use super::hail::{Caller, Greeted, NotGreeted};
use super::losses::Losses;
use super::reach;
use crate::daemon::ModelSpec;
use crate::daemon::wire::ReportedBackend;

/// A connection that lived for less is not opened again before it is needed: it would be lost again.
const SHORT_LIVED: Duration = Duration::from_secs(1);

/// Ways to a daemon that are tried for one request. Each but the last is one that was lost at once.
const ATTEMPTS: usize = 4;

/// What a link tells the models behind it.
pub(super) trait Served: Listener {
    /// There is no connection, and none is on its way.
    fn rest(&self);
    /// The daemon is left alone until then.
    fn pause(&self, until: Instant);
    /// It may be asked again.
    fn resume(&self);
}

/// Where a request can go.
pub(super) enum Way {
    /// To the daemon.
    Daemon(Arc<Connection>),
    /// There will be no daemon for this session.
    Here,
    /// The daemon crashes again and again and is left alone until then.
    Paused(Instant),
    /// Nowhere, this time: why, ending with the next step.
    Nowhere(Arc<str>),
}

/// See the module.
pub struct Link {
    options: LinkOptions,
    caller: Caller,
    runtime: tokio::runtime::Handle,
    /// Itself, for its tasks.
    this: Weak<Self>,
    state: Mutex<State>,
}

struct State {
    current: Option<Arc<Connection>>,
    dialling: Option<Shared<BoxFuture<'static, Dialled>>>,
    losses: Losses,
    /// When a daemon may be started after one has left.
    not_before: Instant,
    /// There will be no daemon for this session.
    alone: bool,
    models: Vec<Model>,
    report: Option<Vec<ReportedBackend>>,
}

#[derive(Clone)]
struct Model {
    number: u32,
    spec: ModelSpec,
    served: Weak<dyn Served>,
}

#[derive(Clone)]
enum Dialled {
    Connected(Arc<Connection>),
    NoneRuns,
    Alone,
    Failed(Arc<str>),
}

impl Link {
    /// A link that is not connected yet. To be made inside a tokio runtime, which then does its work.
    ///
    /// # Panics
    /// Outside of one.
    #[must_use]
    pub fn new(options: LinkOptions) -> Arc<Self> {
        let limits = &options.limits;
        let losses = Losses::new(limits.window, limits.pause.0, limits.pause.1);
        let caller = Caller {
            place: options.place.clone(),
            build: options.build.clone(),
            name: options.name.clone(),
            works: true,
            patience: limits.hello,
        };
        Arc::new_cyclic(|this| Self {
            options,
            caller,
            runtime: tokio::runtime::Handle::current(),
            this: this.clone(),
            state: Mutex::new(State {
                current: None,
                dialling: None,
                losses,
                not_before: Instant::now(),
                alone: false,
                models: Vec::new(),
                report: None,
            }),
        })
    }

    /// Connects in the background if a daemon runs, so that the models' health is known. Starts none.
    pub fn attach(&self) {
        self.look_until(Instant::now());
    }

    /// Tells the daemon how the session's backends are, now and at each connection from now on.
    pub fn report(&self, backends: Vec<ReportedBackend>) {
        let mut state = self.state();
        state.report = Some(backends.clone());
        if let Some(connection) = state.live() {
            connection.report(backends);
        }
    }

    pub(super) fn options(&self) -> &LinkOptions {
        &self.options
    }

    pub(super) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// Adds a model; says its number.
    pub(super) fn add(&self, spec: ModelSpec, served: Weak<dyn Served>) -> u32 {
        let mut state = self.state();
        // Those that are gone stay: their numbers must not be given again.
        let number = state.models.len() as u32;
        let model = Model {
            number,
            spec,
            served,
        };
        state.models.push(model);
        number
    }

    /// Opens the models that are not open yet over the connection, if there is one: of a model that is
    /// being made nothing can be told.
    pub(super) fn open_added(&self) {
        let state = self.state();
        if let Some(connection) = state.live() {
            state.open_all(&connection);
        }
    }

    /// The connection, if there is one.
    pub(super) fn live(&self) -> Option<Arc<Connection>> {
        self.state().live()
    }

    /// Where a request can go; connects, and starts a daemon, if need be and allowed.
    pub(super) async fn way(&self) -> Way {
        for _ in 0..ATTEMPTS {
            let dialling = {
                let mut state = self.state();
                if let Some(connection) = state.live() {
                    return Way::Daemon(connection);
                }
                if state.alone {
                    return Way::Here;
                }
                if let Some(until) = state.losses.paused(Instant::now()) {
                    return Way::Paused(until);
                }
                let not_before = state.not_before;
                // One that only looks is waited for; if it finds nobody, the next one starts one.
                self.dialling(&mut state, Need::Start { not_before })
            };
            match dialling.await {
                Dialled::Connected(connection) if connection.is_live() => {
                    return Way::Daemon(connection);
                }
                Dialled::Connected(_) | Dialled::NoneRuns => {}
                Dialled::Alone => return Way::Here,
                Dialled::Failed(why) => return Way::Nowhere(why),
            }
        }
        Way::Nowhere(Arc::from(
            "each connection to the daemon is lost at once. Look at `tandem daemon logs`.",
        ))
    }

    /// Counts the loss of a connection, once, however many hear of it.
    pub(super) fn lost(&self, connection: &Arc<Connection>) {
        let Some(end) = connection.take_end() else {
            return;
        };
        let mut state = self.state();
        let was_current = state.forget(connection);
        let mut paused = None;
        if end.busy && !connection.is_draining() {
            tracing::warn!(
                fault = end.fault.as_deref().unwrap_or("it hung up"),
                "the daemon was lost while it was at work"
            );
            paused = state.losses.note(Instant::now());
        }
        let models = state.models.clone();
        let may_look = paused.is_none() && connection.age() >= SHORT_LIVED;
        drop(state);
        if let Some(until) = paused {
            self.pause(&models, until);
        } else if was_current {
            for_each(&models, |served| served.rest());
            if may_look {
                self.attach();
            }
        }
    }

    /// The connection if it takes requests, or the way to one.
    fn dialling(&self, state: &mut State, need: Need) -> Shared<BoxFuture<'static, Dialled>> {
        if let Some(dialling) = &state.dialling {
            return dialling.clone();
        }
        let this = self.this.clone();
        let caller = self.caller.clone();
        let start = self.options.start.clone();
        let limits = self.options.limits.clone();
        let dialling = async move {
            let reached = dial::dial(&caller, start.as_ref(), &limits, need).await;
            match this.upgrade() {
                Some(link) => link.dialled(reached, need),
                None => Dialled::Alone,
            }
        };
        let dialling = dialling.boxed().shared();
        state.dialling = Some(dialling.clone());
        // On its own, so that it goes on when all who wait are gone.
        self.runtime.spawn(dialling.clone().map(drop));
        dialling
    }

    /// Connects in the background, if a daemon runs or comes to run by `until`.
    fn look_until(&self, until: Instant) {
        let mut state = self.state();
        if state.live().is_none() && !state.alone {
            let _on_its_own = self.dialling(&mut state, Need::Running { until });
        }
    }

    fn dialled(&self, reached: Reached, need: Need) -> Dialled {
        let mut state = self.state();
        state.dialling = None;
        let started = matches!(need, Need::Start { .. });
        match reached {
            Reached::Greeted(greeted) => Dialled::Connected(self.adopt(&mut state, *greeted)),
            // Whoever only looked leaves it to the need to find out what is wrong.
            Reached::NoneRuns | Reached::Impossible(_) | Reached::Failed(_) if !started => {
                Dialled::NoneRuns
            }
            Reached::NoneRuns => {
                state.alone = true;
                Dialled::Alone
            }
            Reached::Impossible(why) => {
                tracing::warn!("this session goes without the daemon: {why}");
                state.alone = true;
                Dialled::Alone
            }
            Reached::Failed(why) => {
                tracing::warn!("the daemon was not reached: {why}");
                let paused = state.losses.note(Instant::now());
                let models = state.models.clone();
                drop(state);
                for_each(&models, |served| served.rest());
                if let Some(until) = paused {
                    self.pause(&models, until);
                }
                Dialled::Failed(why.into())
            }
        }
    }

    /// Makes a daemon that has greeted us the one that is asked from now on.
    fn adopt(&self, state: &mut State, greeted: Greeted) -> Arc<Connection> {
        let Greeted {
            stream,
            peer,
            daemon,
        } = greeted;
        tracing::debug!(pid = daemon.pid, build = %daemon.build, "connected to the daemon");
        let connection = Connection::start(stream, peer, daemon);
        state.open_all(&connection);
        if let Some(backends) = state.report.clone() {
            connection.report(backends);
        }
        state.current = Some(Arc::clone(&connection));
        self.runtime
            .spawn(attend(self.this.clone(), Arc::clone(&connection)));
        connection
    }

    /// The daemon ends: what is in flight stays with it, the rest goes to the next one.
    fn drained(&self, connection: &Arc<Connection>) {
        let now = Instant::now();
        let mut state = self.state();
        let was_current = state.forget(connection);
        // Whoever made it leave comes first, unless that was us.
        let settled = if self.options.build <= connection.daemon.build {
            now + self.options.limits.settle
        } else {
            now
        };
        state.not_before = settled;
        let models = state.models.clone();
        drop(state);
        connection.retire();
        if was_current {
            for_each(&models, |served| served.rest());
            self.look_until(settled);
        }
    }

    /// Nothing has come over `connection` for too long: is the daemon there at all?
    async fn doubt(&self, connection: &Arc<Connection>) {
        let silence = self.options.limits.silence;
        let hailed = self.caller.hail().await;
        if !connection.is_silent(silence) {
            return;
        }
        match hailed {
            Ok(greeted) => {
                {
                    let mut state = self.state();
                    if state.forget(connection) {
                        self.adopt(&mut state, greeted);
                    }
                }
                connection.retire();
                connection.forgive();
                tokio::select! {
                    () = connection.ended() => return,
                    () = connection.silent(silence) => {}
                }
            }
            Err(NotGreeted::Silent(peer)) if peer == connection.peer => {
                if reach::kill(peer) {
                    tracing::warn!("the daemon did not react and was ended");
                }
            }
            Err(_) => {}
        }
        connection.end(Some("it did not react".to_owned()));
    }

    fn pause(&self, models: &[Model], until: Instant) {
        tracing::warn!(
            seconds = (until - Instant::now()).as_secs(),
            "the daemon was lost three times and is left alone"
        );
        for_each(models, |served| served.pause(until));
        let this = self.this.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep_until(until).await;
            if let Some(link) = this.upgrade() {
                let models = link.state().models.clone();
                for_each(&models, |served| served.resume());
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(connection) = self.state().current.take() {
            connection.end(None);
        }
    }
}

impl State {
    fn live(&self) -> Option<Arc<Connection>> {
        let current = self.current.as_ref();
        current.filter(|current| current.is_live()).cloned()
    }

    fn open_all(&self, connection: &Connection) {
        for model in &self.models {
            model.open(connection);
        }
    }

    /// Whether `connection` was the current one; there is none then.
    fn forget(&mut self, connection: &Arc<Connection>) -> bool {
        let current = self.current.as_ref();
        let is_current = current.is_some_and(|current| Arc::ptr_eq(current, connection));
        if is_current {
            self.current = None;
        }
        is_current
    }
}

impl Model {
    fn open(&self, connection: &Connection) {
        if self.served.strong_count() > 0 {
            connection.open(self.number, &self.spec, self.served.clone());
        }
    }
}

fn for_each(models: &[Model], tell: impl Fn(&dyn Served)) {
    for served in models.iter().filter_map(|model| model.served.upgrade()) {
        tell(&*served);
    }
}

/// Watches a connection to its end.
async fn attend(link: Weak<Link>, connection: Arc<Connection>) {
    let Some(silence) = link.upgrade().map(|link| link.options.limits.silence) else {
        return;
    };
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            () = connection.ended() => break,
            () = connection.drained(), if !draining => {
                draining = true;
                if let Some(link) = link.upgrade() {
                    link.drained(&connection);
                }
            }
            () = connection.silent(silence) => {
                if let Some(link) = link.upgrade() {
                    link.doubt(&connection).await;
                }
            }
        }
    }
    if let Some(link) = link.upgrade() {
        link.lost(&connection);
    }
}
