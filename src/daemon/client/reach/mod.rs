//! The way to the process that serves a place, and who that is, by the kernel's word.

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
#[cfg_attr(not(any(unix, windows)), path = "other.rs")]
mod system;

use std::io;

pub use self::system::{Peer, Stream, kill};
use crate::daemon::{Place, PlaceError};

/// Why there is no connection.
#[derive(Debug)]
pub enum NotConnected {
    /// Nobody listens.
    NoneRuns,
    /// The daemon takes no connection now. Who it is, where that is known without one.
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
pub async fn connect(place: &Place) -> Result<(Stream, Peer), NotConnected> {
    match place.check() {
        Ok(()) => system::connect(place).await,
        Err(PlaceError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            Err(NotConnected::NoneRuns)
        }
        Err(error) => Err(NotConnected::Place(error)),
    }
}
