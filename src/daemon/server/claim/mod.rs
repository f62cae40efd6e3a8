//! Who may serve a folder: one process at a time.

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
#[cfg_attr(not(any(unix, windows)), path = "other.rs")]
mod system;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

pub use self::system::{Claim, Connection};
use crate::daemon::PlaceError;

/// Why a folder is not ours to serve.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another daemon serves it.
    #[error("another daemon serves this folder already. `tandem status` shows it.")]
    Another,
    /// The folder is not fit for it.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The lock or the socket cannot be made.
    #[error(
        "{}: {error}. Make room for it and make it writable, or set `daemon.enabled: false` to load \
         the model in each session.", path.display()
    )]
    Io {
        /// Which of them.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl ClaimError {
    /// What the system said of the file at `path`.
    fn io(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        Self::Io { path, error }
    }
}

/// Holds the lock at `path`, which is made with `options` where it is missing.
fn hold(path: &Path, options: &mut OpenOptions) -> Result<File, ClaimError> {
    let opened = options.create(true).truncate(false).write(true).open(path);
    let lock = opened.map_err(|error| ClaimError::io(path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ClaimError::Another),
        Err(TryLockError::Error(error)) => Err(ClaimError::io(path, error)),
    }
}

/// Whether sessions still find us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// As before.
    Kept,
    /// Again, at a socket that was made anew.
    Restored,
    /// Not now: the socket is gone and cannot be made.
    Hidden,
    /// No more: another daemon serves the folder by now.
    Lost,
}
