//! What was suggested lately, so that a key that agrees with it needs no model.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tower_lsp::lsp_types::{Command, Url};

use crate::config::Settings;
use crate::inference::{Attribution, EmptyReason, RouteReason};
use crate::router::Answer;

use super::accept::Acceptance;
use super::agree::{self, Seen};
use super::status::Nothing;

/// How many answers are kept, over all documents: what a person has come by in the last minute.
const KEPT: usize = 64;

/// The texts that kept answers are for, in bytes, as if they shared nothing. They share nearly all of
/// it, unless a client sends whole texts.
const KEPT_BYTES: usize = 64 << 20;

/// A suggestion as it goes to the client.
#[derive(Debug, Clone)]
pub struct Suggestion {
    /// What is inserted at the cursor.
    pub text: String,
    /// Who gave it.
    pub attribution: Attribution,
    /// By which its fate will be known. What is left of it after a key has the same.
    pub command: Command,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// In which document.
    pub uri: Url,
    /// Where.
    pub seen: Seen,
    /// Whether the editor asks by itself.
    pub automatic: bool,
    /// How many candidates are wanted at most.
    pub candidates: usize,
    /// What holds.
    pub settings: Arc<Settings>,
}

/// The answers of a session that may still hold.
#[derive(Debug, Default)]
pub struct Suggestions(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The one used last at the end.
    answers: VecDeque<Given>,
    bytes: usize,
}

#[derive(Debug)]
struct Given {
    to: Asked,
    what: Result<Vec<Candidate>, Nothing>,
}

#[derive(Debug)]
struct Candidate {
    text: String,
    attribution: Attribution,
    /// `None` until it is sent.
    command: Option<Command>,
}

impl Suggestions {
    /// Keeps what was suggested.
    pub fn keep(&self, to: Asked, suggestions: Vec<Suggestion>) {
        let candidates = suggestions.into_iter().map(|suggestion| Candidate {
            text: suggestion.text,
            attribution: suggestion.attribution,
            command: Some(suggestion.command),
        });
        self.push(to, Ok(candidates.collect()));
    }

    /// Keeps what may be suggested once it is asked for.
    pub fn keep_for_later(&self, to: Asked, answer: Answer) {
        let candidate = Candidate {
            text: answer.text,
            attribution: answer.attribution,
            command: None,
        };
        self.push(to, Ok(vec![candidate]));
    }

    /// Whether [`Self::recall`] would give an answer.
    #[must_use]
    pub fn has(&self, asked: &Asked) -> bool {
        let kept = self.lock();
        kept.answers.iter().any(|given| given.answers(asked))
    }

    /// Keeps that there is nothing to suggest, where that is what a model said of the text. Other
    /// reasons pass.
    pub fn keep_nothing(&self, to: Asked, nothing: &Nothing) {
        if matches!(
            nothing.reason,
            EmptyReason::ModelSilent
                | EmptyReason::OnlyWhitespace
                | EmptyReason::RepeatsSuffix
                | EmptyReason::RepeatsPrefix
        ) {
            self.push(to, Err(nothing.clone()));
        }
    }

    /// The answer to what is asked now, if one that was given holds. `acceptance` is told of what is
    /// sent for the first time.
    pub fn recall(
        &self,
        asked: &Asked,
        acceptance: &Acceptance,
    ) -> Option<Result<Vec<Suggestion>, Nothing>> {
        let mut kept = self.lock();
        let newest_first = (0..kept.answers.len()).rev();
        let (at, answer) = newest_first.into_iter().find_map(|at| {
            let answer = kept.answers.get_mut(at)?.holds(asked, acceptance)?;
            Some((at, answer))
        })?;
        if let Some(given) = kept.answers.remove(at) {
            kept.answers.push_back(given);
        }
        Some(answer)
    }

    /// Forgets what was suggested in a document.
    pub fn forget(&self, uri: &Url) {
        self.lock().retain(|given| given.to.uri != *uri);
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        self.lock().retain(|_| false);
    }

    /// Forgets what somebody said who stood in for another: that may have changed.
    pub fn forget_stopgaps(&self) {
        self.lock().retain(|given| match &given.what {
            Ok(candidates) => candidates
                .iter()
                .all(|candidate| is_first_choice(&candidate.attribution)),
            Err(nothing) => nothing.attribution.as_ref().is_some_and(is_first_choice),
        });
    }

    fn push(&self, to: Asked, what: Result<Vec<Candidate>, Nothing>) {
        let mut kept = self.lock();
        kept.bytes += to.seen.text.len_bytes();
        kept.answers.push_back(Given { to, what });
        while kept.answers.len() > KEPT || kept.bytes > KEPT_BYTES {
            let Some(oldest) = kept.answers.pop_front() else {
                return;
            };
            kept.bytes -= oldest.to.seen.text.len_bytes();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn retain(&mut self, keep: impl FnMut(&Given) -> bool) {
        self.answers.retain(keep);
        let bytes = |given: &Given| given.to.seen.text.len_bytes();
        self.bytes = self.answers.iter().map(bytes).sum();
    }
}

impl Asked {
    /// Whether an answer to this may answer `asked`, as far as that is not for the text to say.
    fn covers(&self, asked: &Self) -> bool {
        // Who asks by hand may be answered by others than who asks while typing, and wants more.
        let enough = asked.candidates <= self.candidates && (asked.automatic || !self.automatic);
        enough
            && self.uri == asked.uri
            && (Arc::ptr_eq(&self.settings, &asked.settings) || self.settings == asked.settings)
    }

    /// Whether an answer to this answers `asked`, whatever it is.
    #[must_use]
    pub fn is(&self, asked: &Self) -> bool {
        self.covers(asked) && self.seen.is(&asked.seen)
    }
}

impl Given {
    /// Whether this answers what is asked now.
    fn answers(&self, asked: &Asked) -> bool {
        let to = &self.to;
        match &self.what {
            Err(_) => to.is(asked),
            Ok(candidates) => {
                let agrees = |candidate: &Candidate| {
                    agree::rest(&candidate.text, &to.seen, &asked.seen).is_some()
                };
                to.covers(asked) && candidates.iter().any(agrees)
            }
        }
    }

    /// What of this answer answers what is asked now.
    fn holds(
        &mut self,
        asked: &Asked,
        acceptance: &Acceptance,
    ) -> Option<Result<Vec<Suggestion>, Nothing>> {
        let to = &self.to;
        if !to.covers(asked) {
            return None;
        }
        let candidates = match &mut self.what {
            Ok(candidates) => candidates,
            Err(nothing) => return to.seen.is(&asked.seen).then(|| Err(nothing.clone())),
        };
        let mut suggestions = Vec::new();
        for candidate in candidates {
            if suggestions.len() == asked.candidates {
                break;
            }
            let Some(rest) = agree::rest(&candidate.text, &to.seen, &asked.seen) else {
                continue;
            };
            let command = candidate.command.get_or_insert_with(|| acceptance.offer());
            suggestions.push(Suggestion {
                text: rest.to_owned(),
                attribution: candidate.attribution.clone(),
                command: command.clone(),
            });
        }
        (!suggestions.is_empty()).then_some(Ok(suggestions))
    }
}

/// Whether somebody was asked because they are to be asked, and not in the place of another.
pub fn is_first_choice(attribution: &Attribution) -> bool {
    match attribution.reason {
        RouteReason::LocalHealthy
        | RouteReason::ServerConfigured
        | RouteReason::HeavyEffort
        | RouteReason::DoesNotFitLocal
        | RouteReason::HeavyButLocalOnly
        | RouteReason::ModeLocalOnly
        | RouteReason::ModeClaudeOnly => true,
        RouteReason::LocalLoading
        | RouteReason::LocalDegraded
        | RouteReason::LocalFailed
        | RouteReason::NoLocalModel
        | RouteReason::LastResort
        | RouteReason::FellBack => false,
    }
}
