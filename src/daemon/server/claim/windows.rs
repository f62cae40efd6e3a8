//! The right to serve a folder on Windows, and the notice in it that names our pipe: a lock that one
//! process holds. Type-checked, and never run on Windows itself.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem;
use std::os::windows::fs::OpenOptionsExt;
use std::path::Path;

use tokio::net::windows::named_pipe::NamedPipeServer;

use super::{ClaimError, Presence, hold};
use crate::daemon::Place;
use crate::daemon::pipe::{Examined, KEPT_BY_NAME, Notice, Process, create, process_of_client};

/// A connection of a session.
pub type Connection = NamedPipeServer;

/// The folder is ours to serve until this is dropped: the lock is held, and the notice is ours.
#[derive(Debug)]
pub struct Claim {
    place: Place,
    notice: Notice,
    /// The instance of the pipe that the next session connects to. There is always one, since the name
    /// is gone with the last of them.
    waiting: NamedPipeServer,
    lock: File,
}

impl Claim {
    /// Takes the lock of `place`, makes a pipe, and says where. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ClaimError::Another`] where somebody else holds the lock.
    pub fn take(place: &Place) -> Result<Self, ClaimError> {
        place.prepare()?;
        // While it is held, nobody can remove or replace it.
        let lock = hold(&place.lock(), OpenOptions::new().share_mode(KEPT_BY_NAME))?;
        let path = place.socket();
        let io = |error| ClaimError::io(&path, error);
        let process = Process::ours().map_err(io)?;
        let notice = Notice::new(process.pid, process.created);
        let waiting = create(&notice.pipe(), true).map_err(io)?;
        write(&path, &notice).map_err(io)?;
        Ok(Self {
            place: place.clone(),
            notice,
            waiting,
            lock,
        })
    }

    /// The folder.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The next connection of this user. Whoever else comes is left standing.
    ///
    /// # Errors
    /// When the system has no room for a connection; the one that waits keeps waiting.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        loop {
            let connected = self.waiting.connect().await;
            // Before the connected one is handed over or given up: without any instance the name would
            // be gone.
            let next = create(&self.notice.pipe(), false)?;
            let connection = mem::replace(&mut self.waiting, next);
            connected?;
            match process_of_client(&connection) {
                Ok(Examined::Ours(_)) => return Ok(connection),
                Ok(Examined::Foreign) => {
                    tracing::warn!("another user's connection is closed");
                }
                Err(error) => tracing::warn!(%error, "a connection of an unknown user is closed"),
            }
        }
    }

    /// Looks whether others still find us, and writes the notice anew where it was removed or replaced.
    /// The lock needs no look: it cannot be removed while it is open.
    pub fn look(&mut self) -> Presence {
        let path = self.place.socket();
        if is_at(&path, &self.notice) {
            return Presence::Kept;
        }
        match write(&path, &self.notice) {
            Ok(()) => Presence::Restored,
            Err(error) => {
                tracing::debug!(%error, "the notice cannot be written");
                Presence::Hidden
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let path = self.place.socket();
        if is_at(&path, &self.notice) {
            // Emptied, not removed: the name of a removed file cannot be used while somebody reads it.
            let _ = fs::write(path, "");
        }
        // Closing the file would release it too, but Windows does not say when. The next daemon's pipe
        // has another name, so ours may outlive the lock.
        let _ = self.lock.unlock();
    }
}

/// Leaves `notice` at `path`, whatever stood there. Who reads a part of it knows that by itself, so it is
/// written in place: no file can take the name of one that is being read. For the holder of the lock.
fn write(path: &Path, notice: &Notice) -> io::Result<()> {
    fs::write(path, notice.text())
}

fn is_at(path: &Path, notice: &Notice) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text == notice.text())
}
