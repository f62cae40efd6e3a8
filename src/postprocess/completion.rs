//! Completions: how much of an answer is inserted at the cursor.

use super::stop::{Found, StopSequences};
use super::{Progress, is_crlf, to_document, to_lf};
use crate::inference::{CompleteTask, CompletionShape, EmptyReason};

/// Gathers a completion as it comes, and says as soon as the rest would be cut anyway.
#[derive(Debug)]
pub struct CompletionFilter {
    stops: StopSequences,
    one_line: bool,
    crlf: bool,
    text: String,
    cut: Option<usize>,
}

impl CompletionFilter {
    /// For the cursor of `task`; the answer ends before any of `stops`.
    #[must_use]
    pub fn new(task: &CompleteTask, stops: &[String]) -> Self {
        let line_after = task.suffix.lines().next().unwrap_or("");
        Self {
            stops: StopSequences::new(stops),
            one_line: match task.shape {
                CompletionShape::OneLine => true,
                CompletionShape::Lines => false,
                CompletionShape::Auto => !line_after.trim().is_empty(),
            },
            crlf: is_crlf(&[&task.prefix, &task.suffix]),
            text: String::new(),
            cut: None,
        }
    }

    /// Adds a piece of the answer.
    pub fn push(&mut self, text: &str) -> Progress {
        if self.cut.is_some() {
            return Progress::Enough;
        }
        self.text.push_str(&to_lf(text));
        let stop = match self.stops.find(&self.text) {
            Found::StopAt(at) => Some(at),
            Found::ClearTo(_) => None,
        };
        let line = self.one_line.then(|| self.text.find('\n')).flatten();
        self.cut = [stop, line].into_iter().flatten().min();
        if self.cut.is_some() {
            Progress::Enough
        } else {
            Progress::More
        }
    }

    /// What may be inserted.
    ///
    /// # Errors
    /// The reason why nothing is left.
    pub fn finish(mut self) -> Result<String, EmptyReason> {
        if self.text.is_empty() {
            return Err(EmptyReason::ModelSilent);
        }
        if let Some(cut) = self.cut {
            self.text.truncate(cut);
        }
        self.text.truncate(self.text.trim_end().len());
        if self.text.is_empty() {
            return Err(EmptyReason::OnlyWhitespace);
        }
        Ok(to_document(self.text, self.crlf))
    }
}
