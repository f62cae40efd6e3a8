//! What happened lately, for people: the last routes and their outcome.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::inference::{
    Attribution, BackendKind, EmptyReason, ErrorKind, RequestId, RouteReason, Usage,
};

/// How many decisions are remembered: a screenful and more, chosen arbitrarily.
const REMEMBERED: usize = 200;

/// One request and what became of it. Holds no text of the user's.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// The request.
    pub id: RequestId,
    /// When it ended; written as milliseconds since 1970 (UTC).
    #[serde(rename = "at_unix_ms", serialize_with = "unix_ms")]
    pub at: SystemTime,
    /// `complete`, `chat` or `edit`.
    pub task: &'static str,
    /// Whether it started by itself, while typing.
    pub automatic: bool,
    /// Whether nobody was asked, since an answer that was given before still held: its author is
    /// named then, and it took no time worth counting.
    pub cached: bool,
    /// Who answered and why, or who was asked last; `None` if nobody was asked.
    pub attribution: Option<Attribution>,
    /// What it came to.
    pub outcome: Outcome,
    /// What went wrong, ending with the next step; `None` where nothing did.
    pub why: Option<String>,
    /// Who was asked before and failed.
    pub failed_attempts: Vec<FailedAttempt>,
    /// From its arrival to its end; written in milliseconds.
    #[serde(rename = "took_ms", serialize_with = "ms")]
    pub took: Duration,
    /// From its arrival to the first text; written in milliseconds.
    #[serde(rename = "first_token_ms", serialize_with = "optional_ms")]
    pub first_token: Option<Duration>,
    /// Tokens, as the backend counted them.
    #[serde(rename = "tokens")]
    pub usage: Usage,
}

/// A backend that was asked and failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedAttempt {
    /// The engine.
    pub backend: BackendKind,
    /// Its model.
    pub model: String,
    /// Why it was asked.
    pub reason: RouteReason,
    /// Whose fault the failure was.
    pub error: ErrorKind,
    /// What happened, ending with the next step.
    pub message: String,
}

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Text.
    Answered,
    /// No text, for a reason.
    Empty(EmptyReason),
    /// An error.
    Failed(ErrorKind),
}

/// The last decisions, newest last.
#[derive(Debug, Default)]
pub struct Decisions(Mutex<VecDeque<Decision>>);

impl Decisions {
    /// Adds one and forgets the oldest beyond the limit.
    pub fn record(&self, decision: Decision) {
        let mut all = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if all.len() == REMEMBERED {
            all.pop_front();
        }
        all.push_back(decision);
    }

    /// A copy, newest last.
    #[must_use]
    pub fn all(&self) -> Vec<Decision> {
        let all = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        all.iter().cloned().collect()
    }
}

#[cfg_attr(
    windows,
    expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes fields by reference; only on Windows is a time that small"
    )
)]
fn unix_ms<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    // A clock set before 1970 has nothing better to say than zero.
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    to.serialize_u64(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn ms<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(rounded_ms(*duration))
}

#[expect(
    clippy::ref_option,
    reason = "serde's `serialize_with` passes the field by reference"
)]
fn optional_ms<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match duration {
        None => to.serialize_none(),
        Some(duration) => to.serialize_some(&rounded_ms(*duration)),
    }
}

/// Milliseconds to the microsecond: more digits are noise.
fn rounded_ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
