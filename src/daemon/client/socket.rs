//! The socket of a place, and who is at its other end, by the kernel's word.

use std::io;

use rustix::process::{Pid, Signal};
use tokio::net::UnixStream;

use crate::daemon::{Place, PlaceError};

/// A connection that nothing has been said over.
pub(super) type Stream = UnixStream;

/// The process at the other end. It is of our user: no other comes this far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pid: Option<i32>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NotConnected {
    /// Nobody listens.
    NoneRuns,
    /// Too many call at once. Whom they call, where that is known without a connection.
    Busy(Option<Peer>),
    /// The folder is not safe, or cannot be looked at.
    Place(PlaceError),
    /// Somebody of another user listens.
    Foreign {
        /// Who, for people.
        holder: String,
    },
    /// The system refuses.
    Io(io::Error),
}

/// Connects to whoever listens in `place`, after the folder and the user were checked.
pub(super) async fn connect(place: &Place) -> Result<(Stream, Peer), NotConnected> {
    match place.check() {
        Ok(()) => {}
        Err(PlaceError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            return Err(NotConnected::NoneRuns);
        }
        Err(error) => return Err(NotConnected::Place(error)),
    }
    let stream = UnixStream::connect(place.socket())
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => NotConnected::NoneRuns,
            // What Linux says of a full backlog.
            io::ErrorKind::WouldBlock => NotConnected::Busy(None),
            _ => NotConnected::Io(error),
        })?;
    let credentials = stream.peer_cred().map_err(NotConnected::Io)?;
    if credentials.uid() != rustix::process::geteuid().as_raw() {
        return Err(NotConnected::Foreign {
            holder: format!("the user number {}", credentials.uid()),
        });
    }
    let pid = credentials.pid();
    Ok((stream, Peer { pid }))
}

/// Ends a process that does not react. Says whether it was told to.
pub(super) fn kill(peer: Peer) -> bool {
    let pid = peer.pid.and_then(Pid::from_raw);
    // A daemon inside this very process is one of the tests'.
    pid.is_some_and(|pid| {
        pid != rustix::process::getpid() && rustix::process::kill_process(pid, Signal::KILL).is_ok()
    })
}
