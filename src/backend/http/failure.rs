//! What goes wrong on the way to a server, whoever's it is. Pure.
//!
//! No text of a server's gets into an error as it is: a server may repeat what it was sent.

use std::time::Duration;

use crate::inference::{ErrorKind, GenerateError};

use super::Peer;

/// A failed try.
#[derive(Debug)]
pub struct Failure {
    /// What to tell.
    pub error: GenerateError,
    /// Whether the same request may succeed later.
    pub may_pass: bool,
}

impl Failure {
    /// One that the next try may not meet.
    pub fn passing(error: GenerateError) -> Self {
        Self {
            error,
            may_pass: true,
        }
    }

    /// One that every try meets.
    pub fn lasting(error: GenerateError) -> Self {
        Self {
            error,
            may_pass: false,
        }
    }
}

/// The base URL cannot be used.
pub fn bad_url(peer: &Peer) -> GenerateError {
    GenerateError::new(
        ErrorKind::Unavailable,
        format!("the address of {} is not an http or https URL", peer.name),
        peer.check_url,
    )
}

/// TLS cannot be set up.
pub fn no_tls() -> GenerateError {
    GenerateError::new(
        ErrorKind::Unavailable,
        "no secure connection can be made, since the system's certificates cannot be read",
        "Install your system's CA certificates (the package `ca-certificates` on Linux).",
    )
}

/// The server cannot be reached, or went away.
pub fn connection(peer: &Peer, host: &str, error: reqwest::Error) -> GenerateError {
    if error.is_timeout() {
        return GenerateError::new(
            ErrorKind::Timeout,
            format!(
                "no connection to {host} within `{}.connect_timeout`",
                peer.group
            ),
            peer.unreachable,
        );
    }
    let what = if error.is_connect() {
        "cannot be reached"
    } else {
        "broke the connection"
    };
    // The URL may hold a password.
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    GenerateError::new(
        ErrorKind::Backend,
        format!("{host} {what} ({cause})"),
        peer.unreachable,
    )
}

/// A limit of time passed. `what` says without what.
pub fn too_slow(peer: &Peer, what: &str, limit: Duration) -> GenerateError {
    // A limit is a round number; what was measured is not.
    let seconds = (limit.as_secs_f64() * 10.0).round() / 10.0;
    GenerateError::new(
        ErrorKind::Timeout,
        format!("{} sent {what} within {seconds} s", peer.name),
        "Try again, or ask for less at once.",
    )
}

/// The answer stopped before its end.
pub fn cut_off(peer: &Peer) -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        format!("{}'s answer broke off before its end", peer.name),
        peer.try_again,
    )
}

/// The server speaks something else.
pub fn not_the_api(peer: &Peer, what: impl std::fmt::Display) -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        format!(
            "{}'s answer is not what {} sends: {what}",
            peer.name, peer.api
        ),
        peer.check_url,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_to_a_tenth_of_a_second() {
        let peer = Peer {
            name: "it",
            group: "it",
            api: "it",
            check_url: "Check it.",
            unreachable: "Start it.",
            try_again: "Try it.",
        };
        for (millis, told) in [(20_001, "within 20 s"), (1_260, "within 1.3 s")] {
            let error = too_slow(&peer, "nothing more", Duration::from_millis(millis));
            assert!(error.message.ends_with(told), "{error}");
        }
    }
}
