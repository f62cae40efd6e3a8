//! What is wrong with a configuration: where, what, and the next step.

/// A mistake in the configuration. Displays as `place: message. Next step.`
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}. {next_step}")]
pub struct ConfigError {
    /// Where: a file and line, a variable, a flag, the editor.
    pub place: String,
    /// What, without a closing full stop. Never holds a key.
    pub message: String,
    /// The next step, as a sentence. Further lines are further mistakes of the same source.
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

    /// The mistakes of one source as one, which displays them one a line; `None` without any.
    #[must_use]
    pub fn all(mistakes: Vec<Self>) -> Option<Self> {
        let mut mistakes = mistakes.into_iter();
        let mut all = mistakes.next()?;
        for mistake in mistakes {
            all.next_step.push('\n');
            all.next_step.push_str(&mistake.to_string());
        }
        Some(all)
    }
}
