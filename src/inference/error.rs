//! Why a generation failed: whose fault it is, and what to do next.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose fault a failure is, which decides about fallback and breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request makes no sense to any backend.
    InvalidRequest,
    /// The request is sound and does not fit this backend's context, or its answer not into the tokens
    /// that it may have.
    TooLong,
    /// Not ready: absent, loading or switched off.
    Unavailable,
    /// The backend refused the credentials, or has none.
    Unauthorized,
    /// Too many requests; see [`GenerateError::retry_after`].
    RateLimited,
    /// The day's spend cap is reached.
    SpendCap,
    /// What the user allows to leave the machine does not cover this request.
    Denied,
    /// The model declined to answer.
    Refused,
    /// The backend took longer than its limits allow.
    Timeout,
    /// The backend failed: a crash, a bad answer, a broken connection, numbers that are not finite.
    Backend,
    /// The caller went away.
    Cancelled,
}

/// A failure that can be shown to a person: what happened, then the next step to take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}. {next_step}")]
pub struct GenerateError {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// What happened, without a closing full stop. Never holds a key or the user's text.
    pub message: String,
    /// The next step, as a sentence.
    pub next_step: String,
    /// When the backend asked to be tried again.
    pub retry_after: Option<Duration>,
}

impl GenerateError {
    /// An error of `kind`, with what happened and the next step.
    pub fn new(kind: ErrorKind, message: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            next_step: next_step.into(),
            retry_after: None,
        }
    }

    /// The caller went away; nobody reads this.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(
            ErrorKind::Cancelled,
            "the request was cancelled",
            "Nothing needs to be done.",
        )
    }

    /// Whether another backend may be asked instead, provided no text was sent yet.
    #[must_use]
    pub fn may_fall_back(&self) -> bool {
        match self.kind {
            ErrorKind::TooLong
            | ErrorKind::Unavailable
            | ErrorKind::Unauthorized
            | ErrorKind::RateLimited
            | ErrorKind::SpendCap
            | ErrorKind::Timeout
            | ErrorKind::Backend => true,
            ErrorKind::InvalidRequest
            | ErrorKind::Denied
            | ErrorKind::Refused
            | ErrorKind::Cancelled => false,
        }
    }

    /// Whether a breaker counts this against the backend.
    #[must_use]
    pub fn is_backend_fault(&self) -> bool {
        match self.kind {
            ErrorKind::Timeout | ErrorKind::Backend | ErrorKind::RateLimited => true,
            ErrorKind::InvalidRequest
            | ErrorKind::TooLong
            | ErrorKind::Unavailable
            | ErrorKind::Unauthorized
            | ErrorKind::SpendCap
            | ErrorKind::Denied
            | ErrorKind::Refused
            | ErrorKind::Cancelled => false,
        }
    }
}
