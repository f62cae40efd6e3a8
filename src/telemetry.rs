//! What happened lately, for people: the last routes and their outcome.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::inference::{Attribution, EmptyReason, ErrorKind, RequestId, Usage};

/// How many decisions are remembered: a screenful and more, chosen arbitrarily.
const REMEMBERED: usize = 200;

/// One request and what became of it. Holds no text of the user's.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// The request.
    pub id: RequestId,
    /// When it ended.
    #[serde(skip)]
    pub at: SystemTime,
    /// `complete`, `chat` or `edit`.
    pub task: &'static str,
    /// Who answered and why; `None` if nobody was asked.
    pub attribution: Option<Attribution>,
    /// What it came to.
    pub outcome: Outcome,
    /// From admission to the end.
    #[serde(skip)]
    pub took: Duration,
    /// From admission to the first text.
    #[serde(skip)]
    pub first_token: Option<Duration>,
    /// Tokens, as the backend counted them.
    #[serde(skip)]
    pub usage: Usage,
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
