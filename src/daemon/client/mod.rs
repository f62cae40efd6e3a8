//! The session's side: a backend that is reached over the daemon's socket.
//!
//! A [`Link`] is the session's one connection, opened on first need and again when lost; each
//! [`SharedBackend`] is a model behind it. `dial` finds or starts the daemon, `request` carries one
//! request to its one end.

mod backend;
mod connection;
mod dial;
mod hail;
mod link;
mod losses;
mod once;
mod reach;
mod request;

use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use backend::SharedBackend;
pub use link::Link;
pub use once::{ClientError, drain, status};

use super::{Build, Place, StartCommand};
use crate::inference::Backend;

/// Opens the same model inside this process.
pub type OpenHere = Box<dyn Fn() -> io::Result<Arc<dyn Backend>> + Send + Sync>;

/// What becomes of a model's requests while the daemon crashes again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCrash {
    /// They fail, with the next step, and the router asks somebody else: for a model that is large
    /// enough to be the reason.
    Fail,
    /// The model is opened in this process meanwhile: for one that costs next to nothing.
    ServeHere,
}

/// How a session reaches the daemon.
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// Where it is.
    pub place: Place,
    /// The session's build.
    pub build: Build,
    /// What the session is, for people: `lsp`, `mcp`, `complete`.
    pub name: String,
    /// How to start one; `None` to use one that runs and start none.
    pub start: Option<StartCommand>,
    /// How long things may take.
    pub limits: Limits,
}

/// How long things may take. The defaults are what sessions use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Until a daemon says who it is.
    pub hello: Duration,
    /// Without a word from the daemon while requests are outstanding; it gives a sign of life each
    /// second.
    pub silence: Duration,
    /// Until another session has started the daemon.
    pub lock: Duration,
    /// Until a daemon that was started listens.
    pub ready: Duration,
    /// That a newer build is given to start its daemon, after an older one's has left.
    pub settle: Duration,
    /// Before a request is tried again: between the one and the other.
    pub retry: (Duration, Duration),
    /// Within which three losses are a crash loop.
    pub window: Duration,
    /// That a daemon in a crash loop is left alone: at first, and at most.
    pub pause: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(3),
            silence: Duration::from_secs(5),
            lock: Duration::from_secs(10),
            ready: Duration::from_secs(10),
            settle: Duration::from_millis(500),
            retry: (Duration::from_millis(50), Duration::from_millis(250)),
            window: Duration::from_mins(1),
            pause: (Duration::from_secs(30), Duration::from_mins(10)),
        }
    }
}
