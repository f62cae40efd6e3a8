//! The socket of a place, and who is at its other end, by the kernel's word.

use std::io;

use rustix::process::{Pid, Signal};
use tokio::net::UnixStream;

use super::NotConnected;
use crate::daemon::Place;

/// A connection that nothing has been said over.
pub type Stream = UnixStream;

/// The process at the other end. It is of our user: no other comes this far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pid: Option<i32>,
}

/// Connects to whoever listens in `place`, whose folder was checked, and checks the user.
pub async fn connect(place: &Place) -> Result<(Stream, Peer), NotConnected> {
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
pub fn kill(peer: Peer) -> bool {
    let pid = peer.pid.and_then(Pid::from_raw);
    // A daemon inside this very process is one of the tests'.
    pid.is_some_and(|pid| {
        pid != rustix::process::getpid() && rustix::process::kill_process(pid, Signal::KILL).is_ok()
    })
}
