//! What is wrong with a configuration: where, what, and the next step.

/// A mistake in the configuration. Displays as `place: message. Next step.`
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}. {next_step}")]
pub struct ConfigError {
    /// Where: a file and line, a variable, a flag, the editor.
    pub place: String,
    /// What, without a closing full stop. Never holds a key.
    pub message: String,
    /// The next step, as a sentence.
    pub next_step: String,
}

impl ConfigError {
    /// A mistake at `place`.
    pub fn new(
        place: impl Into<String>,
        message: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
            next_step: next_step.into(),
        }
    }
}
