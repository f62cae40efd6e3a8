//! What Claude and an inference server have in common: connections, limits of time and size, tries,
//! streams of events, and words for what goes wrong on the way.

pub mod client;
pub mod failure;
pub mod lines;
pub mod read;
pub mod retry;
pub mod sse;
pub mod stop;

use std::time::Duration;

/// The longest a whole answer may take: what the Messages API and its official SDKs set.
pub const ANSWER_LIMIT: Duration = Duration::from_mins(10);

/// Who is spoken to, in words for people.
#[derive(Debug)]
pub struct Peer {
    /// As a subject within a sentence.
    pub name: &'static str,
    /// Its group in the configuration.
    pub group: &'static str,
    /// What is spoken there, as the subject of "sends".
    pub api: &'static str,
    /// The next step where something else is spoken.
    pub check_url: &'static str,
    /// The next step where nobody answers.
    pub unreachable: &'static str,
    /// The next step after a failure that may pass.
    pub try_again: &'static str,
}

/// A limit as configured, which may be longer than any clock goes.
#[must_use]
pub fn bounded(limit: Duration) -> Duration {
    limit.min(ANSWER_LIMIT)
}
