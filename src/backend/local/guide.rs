//! What bears on the choice of a token besides the model: what the answer has to begin with, what the
//! document says, and the schema that the answer has to be valid by.

use super::grammar::Grammar;
use super::infinigram::InfiniGram;
use super::sampler::Scores;
use super::tokenizer::Tokenizer;
use crate::inference::GenerateError;

/// For tokens that may not come: finite, since arithmetic that is not is taken for a fault.
pub(super) const FORBIDDEN: f32 = -1e30;

/// Guides one answer.
#[derive(Debug, Default)]
pub struct Guide {
    begun: Vec<u8>,
    document: Option<InfiniGram>,
    grammar: Option<Grammar>,
    allowed: Vec<(u32, f32)>,
}

impl Guide {
    /// For an answer that has to begin with `begun`, which is no part of what it adds.
    #[must_use]
    pub fn new(begun: &str, document: Option<InfiniGram>) -> Self {
        Self {
            begun: begun.as_bytes().to_vec(),
            document,
            ..Self::default()
        }
    }

    /// For an answer that `grammar` describes.
    #[must_use]
    pub fn by(grammar: Grammar) -> Self {
        Self {
            grammar: Some(grammar),
            ..Self::default()
        }
    }

    /// Changes the scores of the next token. A model that chooses by itself is not guided.
    ///
    /// # Errors
    /// As in [`Grammar::allow`].
    pub fn apply(
        &mut self,
        scores: &mut Scores,
        tokenizer: &Tokenizer,
    ) -> Result<(), GenerateError> {
        let logits = &mut scores.logits;
        if self.begun.is_empty() && self.document.is_none() && self.grammar.is_none() {
            return Ok(());
        }
        // Numbers that are not finite are a fault, which must not be hidden.
        if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
            return Ok(());
        }
        if let Some(document) = &mut self.document {
            document.mix(logits);
        }
        if !self.begun.is_empty() {
            self.allowed.clear();
            for token in tokenizer.agreeing(&self.begun) {
                if let Some(logit) = logits.get(token as usize) {
                    self.allowed.push((token, *logit));
                }
            }
            logits.fill(FORBIDDEN);
            for (token, logit) in &self.allowed {
                logits[*token as usize] = *logit;
            }
        }
        match &mut self.grammar {
            Some(grammar) => grammar.allow(logits),
            None => Ok(()),
        }
    }

    /// Notes that `token` was chosen; returns what of `bytes`, which it stands for, the answer adds.
    ///
    /// # Errors
    /// As in [`Grammar::accept`].
    pub fn accept<'a>(&mut self, token: u32, bytes: &'a [u8]) -> Result<&'a [u8], GenerateError> {
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(token)?;
        }
        if let Some(document) = &mut self.document {
            document.push(token);
        }
        let begun = bytes.len().min(self.begun.len());
        self.begun.drain(..begun);
        Ok(&bytes[begun..])
    }

    /// Whether the answer is whole and nothing can follow.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.grammar.as_ref().is_some_and(Grammar::is_complete)
    }

    /// Whether all that the answer has to begin with is said.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_empty()
    }
}
