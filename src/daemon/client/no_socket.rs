//! [`socket`](super::socket) where there is none yet: nobody listens anywhere.

use std::io;

use crate::daemon::{Place, PlaceError};

pub(super) type Stream = tokio::io::DuplexStream;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer;

#[derive(Debug)]
#[expect(dead_code, reason = "the same cases as where there are sockets")]
pub(super) enum NotConnected {
    NoneRuns,
    Busy(Option<Peer>),
    Place(PlaceError),
    Foreign { holder: String },
    Io(io::Error),
}

#[expect(
    clippy::unused_async,
    reason = "the same signature as where there are sockets"
)]
pub(super) async fn connect(_: &Place) -> Result<(Stream, Peer), NotConnected> {
    Err(NotConnected::Place(PlaceError::Unsupported))
}

pub(super) fn kill(_: Peer) -> bool {
    false
}
