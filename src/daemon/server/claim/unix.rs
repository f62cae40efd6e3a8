//! The right to serve a folder, and the socket in it: a lock that one process holds.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tokio::net::UnixListener;

use super::{ClaimError, Presence, hold};
use crate::daemon::Place;

/// A connection of a session.
pub type Connection = tokio::net::UnixStream;

/// The folder is ours to serve until this is dropped: the lock is held, and the socket is ours.
#[derive(Debug)]
pub struct Claim {
    place: Place,
    listener: UnixListener,
    socket: Identity,
    lock: File,
}

/// What tells a file from another one under the same name: device and number.
type Identity = (u64, u64);

impl Claim {
    /// Takes the lock of `place` and listens there. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ClaimError::Another`] where somebody else holds the lock.
    pub fn take(place: &Place) -> Result<Self, ClaimError> {
        place.prepare()?;
        let lock = hold(&place.lock(), OpenOptions::new().mode(0o600))?;
        let path = place.socket();
        let (listener, socket) = bind(&path).map_err(|error| ClaimError::io(&path, error))?;
        Ok(Self {
            place: place.clone(),
            listener,
            socket,
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
    /// When the system has no room for a connection.
    pub async fn accept(&self) -> io::Result<Connection> {
        let ours = rustix::process::geteuid().as_raw();
        loop {
            let (connection, _) = self.listener.accept().await?;
            match connection.peer_cred() {
                Ok(peer) if peer.uid() == ours => return Ok(connection),
                Ok(peer) => {
                    tracing::warn!(user = peer.uid(), "another user's connection is closed");
                }
                Err(error) => tracing::warn!(%error, "a connection of an unknown user is closed"),
            }
        }
    }

    /// Looks whether others still find us, and listens anew where the socket was removed or replaced.
    pub fn look(&mut self) -> Presence {
        if identity(&self.place.lock()) != self.lock.metadata().ok().as_ref().map(identify) {
            // The lock that others would take is another one, so ours keeps nobody away any more.
            return match Self::take(&self.place) {
                Ok(claim) => {
                    *self = claim;
                    Presence::Restored
                }
                Err(ClaimError::Another) => Presence::Lost,
                Err(error) => hidden(&error),
            };
        }
        let path = self.place.socket();
        if identity(&path) == Some(self.socket) {
            return Presence::Kept;
        }
        match bind(&path) {
            Ok((listener, socket)) => {
                (self.listener, self.socket) = (listener, socket);
                Presence::Restored
            }
            Err(error) => hidden(&error),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Only while the lock is ours under its name is the socket's name ours to remove.
        let path = self.place.socket();
        if identity(&path) == Some(self.socket) {
            // Whoever starts next removes what stays.
            let _ = fs::remove_file(path);
        }
        // Closing the file would release it too, but not before the listener is gone.
        let _ = self.lock.unlock();
    }
}

fn hidden(error: &dyn std::fmt::Display) -> Presence {
    tracing::debug!(%error, "the socket cannot be made");
    Presence::Hidden
}

/// Listens at `path`, whatever stood there. For the holder of the lock.
fn bind(path: &Path) -> io::Result<(UnixListener, Identity)> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // The folder keeps others out already; this is for those who look at the socket alone.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let identity = identify(&path.symlink_metadata()?);
    Ok((listener, identity))
}

fn identity(path: &Path) -> Option<Identity> {
    path.symlink_metadata().ok().as_ref().map(identify)
}

fn identify(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}
