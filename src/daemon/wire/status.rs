//! What the daemon tells `tandem status` about itself.

use serde::{Deserialize, Serialize};

use super::{WireHealth, WirePlacement};
use crate::daemon::{Build, ModelSpec};
use crate::inference::{BackendKind, Statistics};

/// The daemon, its models and its sessions. Holds no text of anybody's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its build.
    pub build: Build,
    /// Its process.
    pub pid: u32,
    /// Milliseconds since it began to serve.
    pub uptime_ms: u64,
    /// Resident memory, in bytes; `None` where the system does not say.
    pub resident_bytes: Option<u64>,
    /// Whether it takes no new requests.
    pub draining: bool,
    /// The models that were opened.
    pub models: Vec<ModelStatus>,
    /// The sessions that are connected, the asking one left out.
    pub sessions: Vec<SessionStatus>,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelStatus {
    /// Which, and how it is loaded.
    pub spec: ModelSpec,
    /// The engine.
    pub kind: BackendKind,
    /// Its name.
    pub name: String,
    /// Its health.
    pub health: WireHealth,
    /// Where it runs.
    pub placement: Option<WirePlacement>,
    /// What it has done; `None` for an engine that does not count.
    pub statistics: Option<Statistics>,
    /// Sessions that have it open.
    pub sessions: usize,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// What it is: `lsp`, `mcp`, `complete`.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Its build.
    pub build: Build,
    /// Milliseconds since it connected.
    pub connected_ms: u64,
    /// Requests of it that are not answered yet.
    pub in_flight: usize,
    /// Requests of it so far.
    pub requests: u64,
    /// How its own backends are, as it last said.
    pub backends: Vec<ReportedBackend>,
}

/// A backend of a session, as the session sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedBackend {
    /// The engine.
    pub kind: BackendKind,
    /// Its model.
    pub model: String,
    /// Its health, in one word.
    pub health: String,
    /// Its breaker: `closed`, `open` or `half-open`.
    pub breaker: String,
}
