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
