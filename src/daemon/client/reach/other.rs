//! Where there is no way yet: nobody listens anywhere.

use super::NotConnected;
use crate::daemon::{Place, PlaceError};

/// Never made.
pub type Stream = tokio::io::DuplexStream;

/// Never made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer;

/// Never connects.
#[expect(
    clippy::unused_async,
    reason = "the same signature as where there are sockets"
)]
pub async fn connect(_: &Place) -> Result<(Stream, Peer), NotConnected> {
    Err(NotConnected::Place(PlaceError::Unsupported))
}

/// Ends nothing.
pub fn kill(_: Peer) -> bool {
    false
}
