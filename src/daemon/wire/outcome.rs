//! What comes of a request, and how a model is, as the wire says it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::inference::{
    ErrorKind, Finish, FinishReason, GenerateError, Health, Placement, Speed, Usage,
};

/// A [`GenerateError`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
    /// The next step.
    pub next_step: String,
    /// When to try again, in milliseconds.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
}

/// A [`Finish`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireFinish {
    /// Whether it was cut at the longest allowed length.
    pub cut: bool,
    /// What it cost.
    pub usage: WireUsage,
    /// The model, where it is not the one that was opened.
    #[serde(default)]
    pub model: Option<String>,
}

/// A [`Usage`], in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireUsage {
    /// Of the prompt.
    pub prompt: usize,
    /// Those of them that were not computed again.
    pub cached: usize,
    /// Of the answer.
    pub completion: usize,
}

/// A [`Health`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is the state of that name in `Health`")]
pub enum WireHealth {
    Absent {
        why: String,
    },
    Downloading {
        bytes: u64,
        total: Option<u64>,
    },
    Unloaded,
    Loading,
    Probing,
    Healthy {
        first_token_ms: Option<f64>,
        tokens_per_second: Option<f64>,
    },
    Degraded {
        why: String,
    },
    Failed {
        error: String,
        retry_after_ms: Option<u64>,
    },
}

/// A [`Placement`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WirePlacement {
    /// What was asked for.
    pub requested: String,
    /// What was seen.
    pub observed: Option<String>,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<GenerateError> for WireError {
    fn from(error: GenerateError) -> Self {
        Self {
            kind: error.kind,
            message: error.message,
            next_step: error.next_step,
            retry_after_ms: error.retry_after.map(ms),
        }
    }
}

impl From<WireError> for GenerateError {
    fn from(error: WireError) -> Self {
        Self {
            retry_after: error.retry_after_ms.map(Duration::from_millis),
            ..Self::new(error.kind, error.message, error.next_step)
        }
    }
}

impl From<Finish> for WireFinish {
    fn from(finish: Finish) -> Self {
        Self {
            cut: finish.reason == FinishReason::Length,
            usage: finish.usage.into(),
            model: finish.model,
        }
    }
}

impl From<WireFinish> for Finish {
    fn from(finish: WireFinish) -> Self {
        Self {
            reason: if finish.cut {
                FinishReason::Length
            } else {
                FinishReason::Stop
            },
            usage: finish.usage.into(),
            model: finish.model,
        }
    }
}

impl From<Usage> for WireUsage {
    fn from(usage: Usage) -> Self {
        Self {
            prompt: usage.prompt_tokens,
            cached: usage.cached_tokens,
            completion: usage.completion_tokens,
        }
    }
}

impl From<WireUsage> for Usage {
    fn from(usage: WireUsage) -> Self {
        Self {
            prompt_tokens: usage.prompt,
            cached_tokens: usage.cached,
            completion_tokens: usage.completion,
        }
    }
}

impl From<Health> for WireHealth {
    fn from(health: Health) -> Self {
        match health {
            Health::Absent { why } => Self::Absent { why },
            Health::Downloading { bytes, total } => Self::Downloading { bytes, total },
            Health::Unloaded => Self::Unloaded,
            Health::Loading => Self::Loading,
            Health::Probing => Self::Probing,
            Health::Healthy { speed } => Self::Healthy {
                first_token_ms: speed.map(|speed| speed.first_token_ms),
                tokens_per_second: speed.map(|speed| speed.tokens_per_second),
            },
            Health::Degraded { why } => Self::Degraded { why },
            Health::Failed { error, retry_after } => Self::Failed {
                error,
                retry_after_ms: retry_after.map(ms),
            },
        }
    }
}

impl From<WireHealth> for Health {
    fn from(health: WireHealth) -> Self {
        match health {
            WireHealth::Absent { why } => Self::Absent { why },
            WireHealth::Downloading { bytes, total } => Self::Downloading { bytes, total },
            WireHealth::Unloaded => Self::Unloaded,
            WireHealth::Loading => Self::Loading,
            WireHealth::Probing => Self::Probing,
            WireHealth::Healthy {
                first_token_ms,
                tokens_per_second,
            } => Self::Healthy {
                speed: first_token_ms.zip(tokens_per_second).map(
                    |(first_token_ms, tokens_per_second)| Speed {
                        first_token_ms,
                        tokens_per_second,
                    },
                ),
            },
            WireHealth::Degraded { why } => Self::Degraded { why },
            WireHealth::Failed {
                error,
                retry_after_ms,
            } => Self::Failed {
                error,
                retry_after: retry_after_ms.map(Duration::from_millis),
            },
        }
    }
}

impl From<Placement> for WirePlacement {
    fn from(placement: Placement) -> Self {
        Self {
            requested: placement.requested,
            observed: placement.observed,
        }
    }
}

impl From<WirePlacement> for Placement {
    fn from(placement: WirePlacement) -> Self {
        Self {
            requested: placement.requested,
            observed: placement.observed,
        }
    }
}
