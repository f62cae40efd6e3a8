//! The daemon's side: it takes connections, keeps the models that they ask for, and leaves in time.

mod answer;
mod claim;
mod connection;
mod models;
mod outgoing;
mod status;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use self::claim::{Claim, ClaimError, Presence};
pub use self::models::OpenModel;

use self::claim::Connection;
use self::models::Models;
use super::Build;
use super::wire::{ReportedBackend, SessionHello};

/// After the system had no room for a connection, none is taken for so long.
const NO_ROOM: Duration = Duration::from_secs(1);

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// This program's, which was to be asked for early.
    pub build: Build,
    /// The daemon ends after so long without a session that works.
    pub idle_exit: Duration,
    /// What sessions may take.
    pub limits: Limits,
}

/// What sessions may take of the daemon: generous to all that behave.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the connection to the end of the hello.
    pub hello: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Requests of one connection that are not answered yet.
    pub in_flight: usize,
    /// Models that are open at once, over all sessions.
    pub models: usize,
    /// How long a session may read nothing while there is something to read.
    pub stalled: Duration,
    /// Between two signs of life.
    pub beat: Duration,
    /// Between two looks whether the socket is still there.
    pub look: Duration,
    /// What is in flight has so long to end when the daemon leaves.
    pub drain: Duration,
    /// What was said last has so long to be read then.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(2),
            connections: 256,
            in_flight: 32,
            models: 16,
            stalled: Duration::from_secs(30),
            beat: Duration::from_secs(1),
            look: Duration::from_secs(1),
            drain: Duration::from_mins(1),
            farewell: Duration::from_secs(2),
        }
    }
}

/// Why a daemon has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to leave, or a newer build came, or another daemon took its place.
    Drained,
    /// No session worked with it for long enough.
    Idle,
    /// It was told to end at once.
    Stopped,
}

/// What all connections share.
struct Shared {
    build: Build,
    limits: Limits,
    started: Instant,
    models: Arc<Models>,
    /// Nothing new is taken.
    draining: CancellationToken,
    /// The last words are being said.
    closing: CancellationToken,
    /// Requests that are not answered yet.
    in_flight: watch::Sender<usize>,
    /// Sessions that work.
    working: watch::Sender<usize>,
    sessions: Mutex<HashMap<u64, Arc<Session>>>,
}

/// A session, from its hello on.
struct Session {
    hello: SessionHello,
    connected: Instant,
    in_flight: watch::Sender<usize>,
    requests: AtomicU64,
    backends: Mutex<Vec<ReportedBackend>>,
}

/// Serves until `drain` or a reason of its own: then the claim is given up at once, what is in flight
/// is answered, and this returns. `stop` ends it without that, at any time. Must be called within a
/// tokio runtime.
pub async fn serve(
    claim: Claim,
    open: OpenModel,
    options: ServerOptions,
    drain: CancellationToken,
    stop: CancellationToken,
) -> Ended {
    let ServerOptions {
        build,
        idle_exit,
        limits,
    } = options;
    let shared = Arc::new(Shared {
        build,
        limits,
        started: Instant::now(),
        models: Models::new(open, limits.models),
        draining: drain.child_token(),
        closing: CancellationToken::new(),
        in_flight: watch::Sender::new(0),
        working: watch::Sender::new(0),
        sessions: Mutex::default(),
    });
    let mut connections = JoinSet::new();
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => Ended::Stopped,
        () = shared.draining.cancelled() => Ended::Drained,
        () = idle(&shared, idle_exit) => Ended::Idle,
        // Drops the claim with it in every case: whoever comes next may have the folder now.
        () = take_connections(claim, &shared, &mut connections) => Ended::Drained,
    };
    tracing::info!(?ended, "takes no new requests");
    shared.draining.cancel();
    let leave = async {
        let mut in_flight = shared.in_flight.subscribe();
        let answered = in_flight.wait_for(|requests| *requests == 0);
        if timeout(limits.drain, answered).await.is_err() {
            tracing::warn!("ends although not all is answered");
        }
        shared.closing.cancel();
        let farewell = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(limits.farewell, farewell).await;
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => Ended::Stopped,
        () = leave => ended,
    }
}

/// Returns when another daemon has taken our place.
async fn take_connections(mut claim: Claim, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    let mut look = interval(shared.limits.look);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    let mut hidden = false;
    loop {
        tokio::select! {
            accepted = claim.accept() => match accepted {
                Ok(connection) => {
                    number += 1;
                    take(connection, number, shared, connections);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be taken");
                    sleep(NO_ROOM).await;
                }
            },
            // A panic was logged, and cost its own session only.
            Some(_) = connections.join_next() => {}
            _ = look.tick() => match claim.look() {
                Presence::Kept => {}
                Presence::Restored => {
                    hidden = false;
                    tracing::warn!("the socket was gone; it is there again");
                }
                // Told once, since it is looked for every second.
                Presence::Hidden if hidden => {}
                Presence::Hidden => {
                    hidden = true;
                    tracing::warn!("the socket is gone and cannot be made; tried again every second");
                }
                Presence::Lost => return,
            },
        }
    }
}

fn take(connection: Connection, number: u64, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    if connections.len() < shared.limits.connections {
        connections.spawn(connection::serve(connection, number, Arc::clone(shared)));
    } else {
        tracing::warn!("too many sessions; one is refused");
        connection::refuse_now(
            connection,
            "too many sessions are connected to the daemon",
            "Close some editors.",
        );
    }
}

/// Returns when no session has worked with the daemon, and nothing was in flight, for `long_enough`.
async fn idle(shared: &Shared, long_enough: Duration) {
    let mut working = shared.working.subscribe();
    let mut in_flight = shared.in_flight.subscribe();
    loop {
        // The senders are in `shared`.
        let _ = working.wait_for(|sessions| *sessions == 0).await;
        let _ = in_flight.wait_for(|requests| *requests == 0).await;
        tokio::select! {
            biased;
            _ = working.changed() => {}
            _ = in_flight.changed() => {}
            () = sleep(long_enough) => return,
        }
    }
}

impl Shared {
    fn sessions(&self) -> MutexGuard<'_, HashMap<u64, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn backends(&self) -> MutexGuard<'_, Vec<ReportedBackend>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
