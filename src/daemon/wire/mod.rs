//! What sessions and the daemon say to each other: one JSON object a frame.
//!
//! Types of their own, so that nothing elsewhere changes the wire by accident: a test holds every
//! message to its text. A new optional field needs no new protocol number, since both sides pass over
//! fields and messages that they do not know; everything else does.

mod outcome;
mod request;
mod status;

use serde::{Deserialize, Serialize};

pub use outcome::{WireError, WireFinish, WireHealth, WirePlacement, WireUsage};
pub use request::{
    WireMessage, WirePriority, WireRequest, WireRole, WireSampling, WireSnippet, WireTask,
};
pub use status::{DaemonStatus, ModelStatus, ReportedBackend, SessionStatus};

use super::{Build, ModelSpec};

/// The protocols that one side speaks, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocols {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

/// The protocols that this program speaks.
pub const PROTOCOLS: Protocols = Protocols { min: 1, max: 1 };

impl Protocols {
    /// The newest that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min && newest >= other.min).then_some(newest)
    }
}

/// What a session says. The hello comes first, within two seconds of the connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum ToDaemon {
    /// Who it is.
    Hello(SessionHello),
    /// It will use this model. From then on it is told the model's health, at first at once.
    Open {
        /// The session's number for it.
        model: u32,
        /// Which.
        spec: ModelSpec,
    },
    /// Load it.
    WarmUp {
        /// As opened.
        model: u32,
    },
    /// Generate. Answered by any number of `count` and `delta`, then `done` or `failed`.
    Generate {
        /// The session's number for the request, used once in a connection.
        id: u64,
        /// As opened.
        model: u32,
        /// What.
        request: Box<WireRequest>,
    },
    /// Nobody waits for the answer any more. It is still ended by `done` or `failed`.
    Cancel {
        /// As given.
        id: u64,
    },
    /// How the session's own backends are, for `tandem status`.
    Report {
        /// All of them.
        backends: Vec<ReportedBackend>,
    },
    /// Asks for one `status`.
    Status,
    /// Answer what is in flight, take nothing new, and end. Answered by `draining`.
    Drain,
    /// Said by a newer build; passed over.
    #[serde(other)]
    Unknown,
}

/// What the daemon says. The hello, or a refusal, comes first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum FromDaemon {
    /// Who it is.
    Hello(DaemonHello),
    /// It serves this connection no longer, and closes it.
    Refused {
        /// What happened, without a closing full stop.
        why: String,
        /// The next step, as a sentence.
        next_step: String,
    },
    /// How a model is: at its opening, and at every change.
    Health {
        /// As opened.
        model: u32,
        /// Its health.
        health: WireHealth,
        /// Where it runs.
        placement: Option<WirePlacement>,
    },
    /// What the answer has cost so far; before the text that it has cost.
    Count {
        /// Of the request.
        id: u64,
        /// Tokens.
        usage: WireUsage,
    },
    /// More text.
    Delta {
        /// Of the request.
        id: u64,
        /// Whole characters.
        text: String,
    },
    /// The end, as wanted.
    Done {
        /// Of the request.
        id: u64,
        /// How.
        finish: WireFinish,
    },
    /// The end, by failure.
    Failed {
        /// Of the request.
        id: u64,
        /// Why.
        error: WireError,
    },
    /// A sign of life: once a second while requests of this connection are outstanding.
    Beat,
    /// The answer to `status`.
    Status(Box<DaemonStatus>),
    /// It takes no new requests: those go to another daemon, over a new connection. What is in flight
    /// is answered here.
    Draining,
    /// Said by a newer build; passed over.
    #[serde(other)]
    Unknown,
}

/// Who a session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionHello {
    /// The protocols it speaks.
    pub protocols: Protocols,
    /// Its build.
    pub build: Build,
    /// Its process.
    pub pid: u32,
    /// What it is, for people: `lsp`, `mcp`, `complete`.
    pub name: String,
    /// Whether it asks for models. One that does not, such as `tandem status`, keeps no daemon from
    /// its idle exit and makes none leave.
    pub works: bool,
}

/// Who the daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonHello {
    /// The protocol spoken from now on.
    pub protocol: u32,
    /// Its build.
    pub build: Build,
    /// Its process.
    pub pid: u32,
    /// Whether it takes no new requests. A daemon of an older build than the session's drains from
    /// this moment; the session closes the connection and starts its own build's.
    pub draining: bool,
}

#[cfg(test)]
mod tests;
