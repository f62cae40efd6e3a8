//! The closed lists of reasons: why a request went where it went, and why an answer is empty.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BackendKind;

/// Why a request went to the backend that answered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RouteReason {
    /// A light request, and the local model is healthy.
    LocalHealthy,
    /// An inference server is configured: for a light request, and for a heavy one that Claude must not
    /// or cannot have.
    ServerConfigured,
    /// A heavy request: it asks for long or deep work.
    HeavyEffort,
    /// The request does not fit the local model's context.
    DoesNotFitLocal,
    /// A heavy request that only the local model may serve, and that fits it.
    HeavyButLocalOnly,
    /// The local model is being loaded or downloaded.
    LocalLoading,
    /// The local model generates, but not as it should.
    LocalDegraded,
    /// The local model failed, or its breaker is open.
    LocalFailed,
    /// There is no local model besides the embedded one.
    NoLocalModel,
    /// The mode is `local-only`.
    ModeLocalOnly,
    /// The mode is `claude-only`.
    ModeClaudeOnly,
    /// The last resort: the embedded model, since nothing better may or can serve.
    LastResort,
    /// The backend that was tried before failed before it had sent anything.
    FellBack,
}

/// Why a completion is empty. Every empty completion has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EmptyReason {
    /// Completions are switched off in the configuration.
    Disabled,
    /// Paused by the user.
    Paused,
    /// Switched off for this language.
    LanguageOff,
    /// Switched off for this path.
    PathOff,
    /// The document is not open, or too large to serve.
    DocumentUnavailable,
    /// The position is past the end of the document or inside a character.
    PositionInvalid,
    /// The cursor is inside a word or a selection, where a suggestion would disturb.
    CursorInsideWord,
    /// The last key only took something away, where a suggestion would put it back.
    AfterDeletion,
    /// A newer request for the same document took its place.
    Superseded,
    /// The client cancelled.
    Cancelled,
    /// Too many requests at once.
    Busy,
    /// The model is loading and nothing else may answer.
    Loading,
    /// No backend may or can serve this request.
    NoBackend,
    /// What the user allows to leave the machine does not cover this document.
    Denied,
    /// The day's spend cap is reached.
    SpendCap,
    /// The backend failed.
    BackendFailed,
    /// The model ended its answer at once.
    ModelSilent,
    /// The answer held nothing but white space.
    OnlyWhitespace,
    /// The answer repeats what already follows the cursor.
    RepeatsSuffix,
    /// The answer repeats what stands just before the cursor.
    RepeatsPrefix,
}

impl EmptyReason {
    /// What happened, without a closing full stop, and the next step as a sentence.
    #[must_use]
    pub fn explanation(self) -> (&'static str, &'static str) {
        match self {
            Self::Disabled => (
                "completions are switched off",
                "Set `completion.enabled` to true in the configuration.",
            ),
            Self::Paused => ("completions are paused", "Resume them in the editor."),
            Self::LanguageOff => (
                "completions are switched off for this language",
                "Take it out of `completion.languages_off` in the configuration.",
            ),
            Self::PathOff => (
                "completions are switched off for this path",
                "Take it out of `completion.paths_off` in the configuration.",
            ),
            Self::DocumentUnavailable => (
                "the document is not open, or too large",
                "Open it in the editor, or complete in a smaller file.",
            ),
            Self::PositionInvalid => (
                "the position is not inside the document",
                "Ask again with a position inside the document.",
            ),
            Self::CursorInsideWord => ("the cursor is inside a word", "Move it to the word's end."),
            Self::AfterDeletion => (
                "the last key only took something away",
                "Type on, or ask for a completion.",
            ),
            Self::Superseded => (
                "a newer request for this document took its place",
                "Nothing needs to be done.",
            ),
            Self::Cancelled => ("the request was cancelled", "Nothing needs to be done."),
            Self::Busy => (
                "too many requests run at once",
                "Try again in a moment, or raise `completion.concurrency`.",
            ),
            Self::Loading => (
                "the model is loading and nothing else may answer",
                "Try again in a moment.",
            ),
            Self::NoBackend => (
                "no model may or can serve this request",
                "Set `local.model` to a model file, `server.base_url` to an inference server, or \
                 ANTHROPIC_API_KEY and a `mode` that allows Claude; `tandem status` shows what is \
                 missing.",
            ),
            Self::Denied => (
                "the model on this machine cannot serve it, and this text may not leave the machine",
                "See `privacy` in the configuration and `.tandemignore`.",
            ),
            Self::SpendCap => (
                "the day's spend cap for Claude is reached",
                "Raise `claude.daily_spend_cap_usd`, or wait for the next day (UTC).",
            ),
            Self::BackendFailed => (
                "the model failed",
                "Try again; if it happens twice, run `tandem status` and look at the log.",
            ),
            Self::ModelSilent => (
                "the model had nothing to add",
                "Ask again with more context, or go on writing.",
            ),
            Self::OnlyWhitespace => (
                "the answer was white space only",
                "Ask again with more context, or go on writing.",
            ),
            Self::RepeatsSuffix => (
                "the answer only repeated what already follows the cursor",
                "Ask again with more context, or go on writing.",
            ),
            Self::RepeatsPrefix => (
                "the answer only repeated what stands before the cursor",
                "Ask again with more context, or go on writing.",
            ),
        }
    }
}

/// Who gave an answer, and why they were asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attribution {
    /// The engine.
    pub backend: BackendKind,
    /// The model, by the name its backend gives it.
    pub model: String,
    /// Why this backend was asked.
    pub reason: RouteReason,
}
