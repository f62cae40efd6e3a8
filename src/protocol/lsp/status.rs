//! What the user is told: who answers, in what state they are, why nothing was suggested.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tower_lsp::lsp_types::notification::Notification;

use crate::config::Mode;
use crate::inference::{Attribution, BackendKind, EmptyReason, RouteReason};
use crate::router::{BackendStatus, NoAnswer};

use super::Session;
use super::accept::{Acceptance, AcceptanceCounts};
use super::client::Client;

/// The `tandem/status` notification.
pub enum StatusNotification {}

impl Notification for StatusNotification {
    type Params = StatusParams;
    const METHOD: &'static str = "tandem/status";
}

/// What `tandem/status` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusParams {
    /// `paused`, `disabled`, or the health of the backend that is asked first.
    pub state: Cow<'static, str>,
    /// Who answered last, or will be asked first.
    pub backend: Option<BackendKind>,
    /// Its model.
    pub model: Option<String>,
    /// Why the last answer came from there.
    pub reason: Option<RouteReason>,
    /// Whether the last completion was there already and nobody was asked; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// Why the last completion is empty; absent if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_reason: Option<EmptyReason>,
    /// What a person should know, ending with the next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The answer to a `tandem/status` request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    /// As in the notification.
    #[serde(flatten)]
    pub now: StatusParams,
    /// Which backends may answer.
    pub mode: Mode,
    /// All backends, the first choice first.
    pub backends: Vec<BackendStatus>,
    /// What became of the suggestions of this session.
    pub completions: AcceptanceCounts,
}

/// Where a completion's text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A model was asked.
    Model,
    /// It was there already.
    Cache,
}

/// Keeps the status and tells the client when it changes.
pub struct Status {
    client: Client,
    session: Session,
    paused: AtomicBool,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    attribution: Option<Attribution>,
    cached: bool,
    empty: Option<EmptyReason>,
    message: Option<String>,
    /// What the client was told.
    told: Option<StatusParams>,
}

impl Status {
    /// The status of a session that nothing was asked of yet.
    #[must_use]
    pub fn new(client: Client, session: Session) -> Self {
        Self {
            client,
            session,
            paused: AtomicBool::new(false),
            last: Mutex::default(),
        }
    }

    /// Whether the user paused completions.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Pauses or resumes completions, and says so.
    pub async fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        {
            let mut last = self.lock();
            last.empty = None;
            last.message = None;
        }
        self.announce().await;
    }

    /// Says how things are, if that is news.
    pub async fn announce(&self) {
        if let Some(news) = self.news(false) {
            self.client.notify::<StatusNotification>(news).await;
        }
    }

    /// A completion has text.
    pub async fn answered(&self, attribution: &Attribution, source: Source) {
        {
            let mut last = self.lock();
            last.attribution = Some(attribution.clone());
            last.cached = source == Source::Cache;
            last.empty = None;
            last.message = None;
        }
        self.announce().await;
    }

    /// A completion is empty.
    pub async fn empty(&self, nothing: &Nothing) {
        if let Some(news) = self.note_empty(nothing) {
            self.client.notify::<StatusNotification>(news).await;
        }
    }

    /// [`Self::empty`] where nothing can be awaited.
    pub fn empty_now(&self, nothing: &Nothing) {
        if let Some(news) = self.note_empty(nothing) {
            self.client.notify_now::<StatusNotification>(news);
        }
    }

    /// All there is to know.
    #[must_use]
    pub fn report(&self, acceptance: &Acceptance) -> StatusReport {
        StatusReport {
            now: self.current(&self.lock()),
            mode: self.session.router.settings().mode,
            backends: self.session.router.status(),
            completions: acceptance.counts(),
        }
    }

    fn note_empty(&self, nothing: &Nothing) -> Option<StatusParams> {
        let mut last = self.lock();
        if let Some(attribution) = &nothing.attribution {
            last.attribution = Some(attribution.clone());
        }
        last.cached = false;
        last.empty = Some(nothing.reason);
        last.message = Some(nothing.message());
        drop(last);
        self.news(true)
    }

    /// What to tell, if it is different from what was told, or `always`.
    fn news(&self, always: bool) -> Option<StatusParams> {
        let mut last = self.lock();
        let current = self.current(&last);
        // That an answer was there already is worth telling along, and no news of its own.
        let told = last.told.as_ref().is_some_and(|told| {
            let cached = current.cached;
            let told = StatusParams {
                cached,
                ..told.clone()
            };
            told == current
        });
        if !always && told {
            return None;
        }
        last.told = Some(current.clone());
        Some(current)
    }

    fn current(&self, last: &Last) -> StatusParams {
        let settings = self.session.router.settings();
        let mut backends = self.session.router.status().into_iter();
        let first = backends.find(|backend| may_answer(backend.kind, settings.mode));
        let state = if self.paused() {
            "paused"
        } else if !settings.completion.enabled {
            "disabled"
        } else {
            first.as_ref().map_or("absent", |first| first.health.word())
        };
        let (backend, model) = match (&last.attribution, &first) {
            (Some(last), _) => (Some(last.backend), Some(last.model.clone())),
            (None, Some(first)) => (Some(first.kind), Some(first.model.clone())),
            (None, None) => (None, None),
        };
        let trouble = || first.as_ref()?.health.trouble().map(str::to_owned);
        StatusParams {
            state: Cow::Borrowed(state),
            backend,
            model,
            reason: last.attribution.as_ref().map(|last| last.reason),
            cached: last.cached,
            empty_reason: last.empty,
            message: last.message.clone().or_else(trouble),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a backend of this kind may be asked at all.
fn may_answer(kind: BackendKind, mode: Mode) -> bool {
    match mode {
        Mode::Auto => true,
        Mode::LocalOnly => !matches!(kind, BackendKind::Claude | BackendKind::Server),
        Mode::ClaudeOnly => kind == BackendKind::Claude,
    }
}

/// An empty completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Nothing {
    /// Why.
    pub reason: EmptyReason,
    /// Who was asked, if anybody was.
    pub attribution: Option<Attribution>,
    /// What failed, where it says more than the reason does.
    pub detail: Option<String>,
}

impl From<EmptyReason> for Nothing {
    fn from(reason: EmptyReason) -> Self {
        Self {
            reason,
            attribution: None,
            detail: None,
        }
    }
}

impl From<NoAnswer> for Nothing {
    fn from(answer: NoAnswer) -> Self {
        Self {
            // The router gives every empty completion its reason.
            reason: answer.empty.unwrap_or(EmptyReason::BackendFailed),
            attribution: answer.attribution,
            detail: answer.error.map(|error| error.to_string()),
        }
    }
}

impl Nothing {
    fn message(&self) -> String {
        self.detail
            .clone()
            .unwrap_or_else(|| explain(self.reason).to_owned())
    }
}

/// Each reason in a sentence, with the next step where there is one to take.
fn explain(reason: EmptyReason) -> &'static str {
    match reason {
        EmptyReason::Disabled => {
            "Completions are switched off. Set `completion.enabled` or `completion.automatic` to \
             true to have them."
        }
        EmptyReason::Paused => "Completions are paused. Run the command `tandem.resume`.",
        EmptyReason::LanguageOff => {
            "Completions are off for this language. Take it out of `completion.languages_off`."
        }
        EmptyReason::PathOff => {
            "Completions are off for this path. Take it out of `completion.paths_off`."
        }
        EmptyReason::DocumentUnavailable => {
            "The document is not open here, larger than 10 MiB, or out of step. Close and open it."
        }
        EmptyReason::PositionInvalid => {
            "The editor asked about a position that the document does not have. Close and open it."
        }
        EmptyReason::CursorInsideWord => {
            "Nothing is suggested inside a word. Ask for a completion to get one here."
        }
        EmptyReason::AfterDeletion => {
            "Nothing is suggested where something was just deleted. Type on, or ask for a completion."
        }
        EmptyReason::Superseded => "You kept typing, and a newer request took its place.",
        EmptyReason::Cancelled => "The editor took the request back.",
        EmptyReason::Busy => "Too many requests at once. Try again in a moment.",
        EmptyReason::Loading => "The model is being loaded. Go on typing, it will come.",
        EmptyReason::NoBackend => {
            "No model may or can answer. Run `tandem status` to see which there are."
        }
        EmptyReason::Denied => {
            "This document must not leave the machine, and no local model can answer. Run `tandem \
             status` to see which there are."
        }
        EmptyReason::SpendCap => {
            "Today's spend cap is reached. Raise `claude.daily_spend_cap_usd`, or wait for tomorrow."
        }
        EmptyReason::BackendFailed => "The model failed. Run `tandem status` to see why.",
        EmptyReason::ModelSilent => "The model has nothing to add here.",
        EmptyReason::OnlyWhitespace => "The model has only blanks to add here.",
        EmptyReason::RepeatsSuffix => "The model only repeats what follows.",
        EmptyReason::RepeatsPrefix => "The model only repeats what comes before.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_names_nobody_whom_the_mode_rules_out() {
        for (mode, kind, expected) in [
            (Mode::Auto, BackendKind::Claude, true),
            (Mode::Auto, BackendKind::Embedded, true),
            (Mode::LocalOnly, BackendKind::Claude, false),
            (Mode::LocalOnly, BackendKind::Server, false),
            (Mode::LocalOnly, BackendKind::Candle, true),
            (Mode::ClaudeOnly, BackendKind::Claude, true),
            (Mode::ClaudeOnly, BackendKind::Embedded, false),
        ] {
            assert_eq!(may_answer(kind, mode), expected, "{mode:?} {kind}");
        }
    }
}
