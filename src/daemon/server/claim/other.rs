//! The right to serve a folder, on systems where nobody does yet.

use std::convert::Infallible;
use std::io;

use super::{ClaimError, Presence};
use crate::daemon::{Place, PlaceError};

/// A connection of a session.
pub type Connection = tokio::io::DuplexStream;

/// Cannot be had.
#[derive(Debug)]
pub struct Claim(Infallible);

impl Claim {
    /// Fails.
    ///
    /// # Errors
    /// [`PlaceError::Unsupported`], always.
    pub fn take(_: &Place) -> Result<Self, ClaimError> {
        Err(PlaceError::Unsupported.into())
    }

    /// The folder.
    #[must_use]
    pub fn place(&self) -> &Place {
        match self.0 {}
    }

    /// The next connection of this user.
    ///
    /// # Errors
    /// Never, since it is never called.
    #[expect(clippy::unused_async, reason = "as it is where there is a socket")]
    pub async fn accept(&self) -> io::Result<Connection> {
        match self.0 {}
    }

    /// Looks whether others still find us.
    pub fn look(&mut self) -> Presence {
        match self.0 {}
    }
}
