//! Prompts: a task, a model's template and a token budget become tokens or text. Pure.

#[cfg(test)]
mod bytes;
pub mod chat;
pub mod chatml;
pub mod completion;
pub mod context;
mod extract;
pub mod fim;
pub mod fit;
#[cfg(test)]
mod golden;
pub mod healing;
pub mod infill;
pub mod outline;
pub mod profile;

pub use extract::Extractor;

use crate::inference::{ErrorKind, GenerateError};

/// What a prompt needs of a tokenizer.
pub trait Vocabulary {
    /// The tokens of `text`, in which special tokens are not looked for.
    ///
    /// # Errors
    /// When the tokenizer fails.
    fn encode(&self, text: &str) -> Result<Vec<u32>, GenerateError>;

    /// The id of a special token, by its text.
    fn special(&self, text: &str) -> Option<u32>;
}

/// The room for a prompt and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Prompt and answer together, in tokens.
    pub context_tokens: usize,
    /// The longest answer, in tokens.
    pub max_tokens: usize,
}

impl Budget {
    /// Tokens for the prompt. The answer gets what it asks for up to half of the context.
    #[must_use]
    pub fn prompt_tokens(self) -> usize {
        self.context_tokens - self.max_tokens.min(self.context_tokens / 2)
    }
}

fn too_long(budget: Budget) -> GenerateError {
    GenerateError::new(
        ErrorKind::TooLong,
        format!(
            "the request does not fit the local model's context of {} tokens",
            budget.context_tokens
        ),
        "Send less text, raise `local.context_tokens` if the model allows it, or let Claude answer.",
    )
}
