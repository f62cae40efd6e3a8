//! The way to a daemon: the one that runs, or one that is started, by one session at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::Limits;
use super::hail::{Caller, Greeted, NotGreeted};
use super::reach::{self, NotConnected, Peer};
use crate::daemon::{Build, Place, PlaceError, Readiness, StartCommand};

/// Between two looks at whether a daemon is there by now. A connection attempt costs microseconds.
const LOOK: Duration = Duration::from_millis(20);

/// Looks at a daemon that does not want us: one of an older build refuses us and leaves.
const REFUSALS: usize = 3;

/// Daemons that this session started and that left at once, since they are older than it: the program's
/// file is not what it was.
const STARTED: usize = 2;

/// Between two starts, while one daemon leaves or another comes. A start costs tens of milliseconds.
const AGAIN: Duration = Duration::from_millis(100);

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// Only to a daemon that runs, or comes to run by `until`.
    Running {
        /// When to stop looking; the past for one look.
        until: Instant,
    },
    /// To one that is started, if need be, but not before this.
    Start {
        /// Somebody else comes first until then.
        not_before: Instant,
    },
}

/// What came of it.
pub(super) enum Reached {
    /// A daemon.
    Greeted(Box<Greeted>),
    /// None runs, and none was to be started.
    NoneRuns,
    /// There will be none for us: why, ending with the next step.
    Impossible(String),
    /// Not this time: why, ending with the next step.
    Failed(String),
}

/// What a look at the socket said.
enum Look {
    Reached(Reached),
    /// Nobody there, or nobody any more.
    Nobody,
    /// One that ends.
    Draining(Build),
    /// One that does not speak.
    Silent(Peer),
    /// One that does not want us: why.
    Refused(String),
}

/// Reaches a daemon.
pub(super) async fn dial(
    caller: &Caller,
    start: Option<&StartCommand>,
    limits: &Limits,
    need: Need,
) -> Reached {
    let (start, not_before) = match (need, start) {
        (Need::Running { until }, _) => return look_until(caller, until).await,
        (Need::Start { not_before }, None) => return look_until(caller, not_before).await,
        (Need::Start { not_before }, Some(start)) => (start, not_before),
    };
    let mut way = Way {
        caller,
        limits,
        not_before,
        silent: None,
        refusals: 0,
        older: 0,
    };
    if let Some(reached) = way.look().await {
        return reached;
    }
    if let Err(error) = caller.place.prepare() {
        return Reached::Impossible(error.to_string());
    }
    let lock = match lock_file(&caller.place) {
        Ok(lock) => lock,
        Err(error) => return Reached::Impossible(unwritable(&caller.place, error)),
    };
    let give_up = Instant::now() + limits.lock;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Reached::Impossible(unwritable(&caller.place, error));
            }
        }
        tokio::time::sleep(LOOK).await;
        if let Some(reached) = way.look().await {
            return reached;
        }
        if Instant::now() > give_up {
            return Reached::Failed(
                "another session has been starting the daemon for too long. Try again; if it stays \
                 so, look at `tandem daemon logs`."
                    .to_owned(),
            );
        }
    }
    // Let go of when `lock` is dropped, however this ends.
    way.start(start).await
}

/// Looks until somebody is there or the time is over.
async fn look_until(caller: &Caller, until: Instant) -> Reached {
    loop {
        match look(caller).await {
            Look::Reached(reached) => return reached,
            Look::Refused(why) => return Reached::Impossible(why),
            Look::Nobody | Look::Draining(_) | Look::Silent(_) => {}
        }
        if Instant::now() >= until {
            return Reached::NoneRuns;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(caller: &Caller) -> Look {
    match caller.hail().await {
        Ok(greeted) => Look::Reached(Reached::Greeted(Box::new(greeted))),
        Err(NotGreeted::Vanished) => Look::Nobody,
        Err(NotGreeted::Draining(build)) => Look::Draining(build),
        Err(NotGreeted::Silent(peer)) => Look::Silent(peer),
        Err(NotGreeted::Refused { why, next_step }) => Look::Refused(format!("{why}. {next_step}")),
        Err(NotGreeted::NotConnected(error)) => match error {
            NotConnected::NoneRuns | NotConnected::Busy(_) => Look::Nobody,
            NotConnected::Place(error) => Look::Reached(Reached::Impossible(error.to_string())),
            NotConnected::Foreign { holder } => Look::Reached(Reached::Impossible(format!(
                "{} is held by {holder}. Remove it; the daemon makes it anew.",
                caller.place.socket().display()
            ))),
            NotConnected::Io(error) => {
                Look::Reached(Reached::Impossible(unwritable(&caller.place, error)))
            }
        },
    }
}

/// The search of one session that may start a daemon.
struct Way<'a> {
    caller: &'a Caller,
    limits: &'a Limits,
    not_before: Instant,
    /// Who was silent when last looked at.
    silent: Option<Peer>,
    refusals: usize,
    /// Daemons that left at once since they are older than this session.
    older: usize,
}

impl Way<'_> {
    /// Looks, and remembers what bears on starting one.
    async fn look(&mut self) -> Option<Reached> {
        match look(self.caller).await {
            Look::Reached(reached) => return Some(reached),
            Look::Nobody => self.silent = None,
            Look::Refused(why) => {
                self.silent = None;
                self.refusals += 1;
                if self.refusals >= REFUSALS {
                    return Some(Reached::Impossible(why));
                }
                tokio::time::sleep(AGAIN).await;
            }
            Look::Draining(build) => {
                self.silent = None;
                // Who made it leave comes first, unless that was us.
                if self.caller.build <= build {
                    self.not_before = self.not_before.max(Instant::now() + self.limits.settle);
                } else {
                    self.older += 1;
                }
            }
            // Silent twice, with somebody waiting for it: it would keep all sessions out for ever.
            Look::Silent(peer) if self.silent == Some(peer) => {
                self.silent = None;
                if reach::kill(peer) {
                    tracing::warn!("the daemon did not react and was ended");
                }
            }
            Look::Silent(peer) => self.silent = Some(peer),
        }
        None
    }

    /// Starts daemons until one of them, or of anybody's, answers.
    async fn start(mut self, start: &StartCommand) -> Reached {
        let mut give_up = Instant::now() + self.limits.ready;
        let mut started = 0;
        loop {
            if let Some(reached) = self.look().await {
                return reached;
            }
            if Instant::now() < self.not_before {
                give_up = give_up.max(self.not_before + self.limits.ready);
                tokio::time::sleep(LOOK).await;
                continue;
            }
            match start.start(self.limits.ready).await {
                Ok(Some(Readiness::Ready)) => started += 1,
                // One that leaves still holds the lock, or one that comes does not listen yet.
                Ok(Some(Readiness::Another)) => tokio::time::sleep(AGAIN).await,
                // A machine with much to do. It may come yet, and others are not kept waiting for it.
                Ok(None) => {}
                Ok(Some(Readiness::Failed(error))) => return Reached::Impossible(error),
                Err(error) => {
                    return Reached::Impossible(format!(
                        "the daemon cannot be started: {}: {error}. Start the editor again with a \
                         whole installation, or set `daemon.enabled: false`.",
                        start.program.display()
                    ));
                }
            }
            if let Some(reached) = self.look().await {
                return reached;
            }
            if started >= STARTED && self.older >= STARTED {
                return Reached::Impossible(format!(
                    "the daemon that {} runs is older than this session. Restart the editor.",
                    start.program.display()
                ));
            }
            if Instant::now() > give_up {
                return Reached::Failed(
                    "the daemon was started and cannot be reached. Try again; `tandem daemon logs` \
                     may say more."
                        .to_owned(),
                );
            }
        }
    }
}

fn lock_file(place: &Place) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(place.start_lock())
}

fn unwritable(place: &Place, error: io::Error) -> String {
    let folder = place.folder().to_owned();
    PlaceError::Io { folder, error }.to_string()
}
