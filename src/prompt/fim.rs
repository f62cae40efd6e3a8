//! The special tokens of models that fill in the middle.
//!
//! Two orders are known. Suffix first (SPM) is what tandem-mini learnt, and its GGUF says so:
//! `<|file_sep|>path\n<|fim_prefix|><|fim_suffix|>after<|fim_middle|>before`. The suffix stays as it
//! is while someone types, so a keystroke costs its own tokens only. Prefix first (PSM) is
//! Qwen2.5-Coder's: `<|file_sep|>path\n<|fim_prefix|>before<|fim_suffix|>after<|fim_middle|>`. There a
//! keystroke computes the suffix again, but a model answers badly in an order it never saw; a short
//! suffix keeps that cheap.

use super::Vocabulary;

/// The ids of a model's special tokens for filling in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FimTokens {
    /// `<|fim_prefix|>`.
    pub prefix: u32,
    /// `<|fim_suffix|>`.
    pub suffix: u32,
    /// `<|fim_middle|>`.
    pub middle: u32,
    /// `<|file_sep|>`, before a file's path.
    pub file_separator: Option<u32>,
    /// `<|repo_name|>`, before all files, where the model learnt it.
    pub repository: Option<u32>,
    /// What the model expects first.
    pub order: FimOrder,
}

/// What stands first in a prompt with a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FimOrder {
    /// The text before the cursor (PSM).
    #[default]
    PrefixFirst,
    /// The text after it (SPM).
    SuffixFirst,
}

impl FimTokens {
    /// Those of `vocabulary`, if it has them, for a model that was trained in `order`, and with the
    /// names of repositories or without.
    #[must_use]
    pub fn find(vocabulary: &dyn Vocabulary, order: FimOrder, repository: bool) -> Option<Self> {
        let repository = repository.then(|| vocabulary.special("<|repo_name|>"));
        Some(Self {
            prefix: vocabulary.special("<|fim_prefix|>")?,
            suffix: vocabulary.special("<|fim_suffix|>")?,
            middle: vocabulary.special("<|fim_middle|>")?,
            file_separator: vocabulary.special("<|file_sep|>"),
            repository: repository.flatten(),
            order,
        })
    }
}
