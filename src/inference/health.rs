//! The states a backend goes through, as published to sessions and shown to the user.

use std::time::Duration;

use serde::Serialize;

/// What was measured when a model was probed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speed {
    /// Time to first token, in milliseconds.
    pub first_token_ms: f64,
    /// Decoded tokens a second, after the first.
    pub tokens_per_second: f64,
}

/// The hardware that a model was asked to run on, and what it was seen to do. Two things: Core ML
/// takes a wish and decides for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// What was asked for: `cpu`, `cpu-and-neural-engine`.
    pub requested: String,
    /// What was seen, once the model was loaded; `None` before, and where nothing can be seen.
    pub observed: Option<String>,
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let observed = self.observed.as_deref().unwrap_or("nothing yet");
        write!(f, "requested {}, observed {observed}", self.requested)
    }
}

/// The state of a backend. A model is healthy when it has generated, not when it has loaded.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Health {
    /// There is no model, or no key.
    Absent {
        /// What is missing and how to get it.
        why: String,
    },
    /// The model is on its way.
    Downloading {
        /// Bytes that have arrived.
        bytes: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// Ready to be loaded on first need.
    Unloaded,
    /// Being loaded.
    Loading,
    /// Loaded, now proving that it generates.
    Probing,
    /// Has generated what it should, fast enough.
    Healthy {
        /// As measured by the probe; `None` for a backend that is not measured.
        speed: Option<Speed>,
    },
    /// Generates, but not as it should.
    Degraded {
        /// What is wrong.
        why: String,
    },
    /// Does not generate.
    Failed {
        /// What went wrong, ending with the next step.
        error: String,
        /// When it will be tried again by itself.
        retry_after: Option<Duration>,
    },
}

impl Health {
    /// Whether a request sent now would be generated, perhaps after a load.
    #[must_use]
    pub fn can_serve(&self) -> bool {
        match self {
            Self::Unloaded
            | Self::Loading
            | Self::Probing
            | Self::Healthy { .. }
            | Self::Degraded { .. } => true,
            Self::Absent { .. } | Self::Downloading { .. } | Self::Failed { .. } => false,
        }
    }

    /// What keeps the backend from answering as it should, for people; ends with the next step.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        match self {
            Self::Absent { why } | Self::Degraded { why } => Some(why),
            Self::Failed { error, .. } => Some(error),
            Self::Downloading { .. }
            | Self::Unloaded
            | Self::Loading
            | Self::Probing
            | Self::Healthy { .. } => None,
        }
    }

    /// How far a download is, for people.
    #[must_use]
    pub fn progress(&self) -> Option<String> {
        let Self::Downloading {
            bytes,
            total: Some(total),
        } = self
        else {
            return None;
        };
        let megabytes = |bytes: &u64| *bytes as f64 / 1e6;
        Some(format!(
            "{:.1} of {:.1} MB so far",
            megabytes(bytes),
            megabytes(total)
        ))
    }

    /// One word for status lines.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "absent",
            Self::Downloading { .. } => "downloading",
            Self::Unloaded => "unloaded",
            Self::Loading => "loading",
            Self::Probing => "probing",
            Self::Healthy { .. } => "healthy",
            Self::Degraded { .. } => "degraded",
            Self::Failed { .. } => "failed",
        }
    }
}
