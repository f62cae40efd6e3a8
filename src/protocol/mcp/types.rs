//! What goes into the tools and what comes out of them, as JSON.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Mode;
use crate::inference::{
    BackendKind, Effort, EmptyReason, ErrorKind, FinishReason, Health, RouteReason, Usage,
};
use crate::router::BackendStatus;
use crate::telemetry::{Decision, Outcome};

/// What `complete_code` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CompleteCode {
    /// The code before the cursor, as much of the file as matters, exactly as written.
    pub prefix: String,
    /// The code after the cursor, exactly as written. Leave out at the end of a file.
    pub suffix: Option<String>,
    /// The programming language, such as `rust` or `python`.
    pub language: Option<String>,
    /// The file's path, best absolute: it helps the model, and files that the user has denied stay
    /// on this machine.
    pub path: Option<String>,
    /// The longest completion, in tokens (1 to 4096). The user's setting when left out.
    #[schemars(range(min = 1, max = 4096))]
    pub max_tokens: Option<u32>,
}

/// What `edit_code` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EditCode {
    /// The piece of code to change, exactly as written.
    pub code: String,
    /// What to change, in plain words.
    pub instruction: String,
    /// The programming language, such as `rust` or `python`.
    pub language: Option<String>,
    /// The file's path, best absolute: it helps the model, and files that the user has denied stay
    /// on this machine.
    pub path: Option<String>,
    /// The code that stands before the piece in its file, for context; it is not changed.
    pub before: Option<String>,
    /// The code that stands after the piece in its file, for context; it is not changed.
    pub after: Option<String>,
}

/// What `explain_code` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainCode {
    /// The code to explain.
    pub code: String,
    /// The programming language, such as `rust` or `python`.
    pub language: Option<String>,
    /// The file's path, best absolute: files that the user has denied stay on this machine.
    pub path: Option<String>,
    /// What to explain about it. Without this, what the code does and why.
    pub question: Option<String>,
}

/// What `summarize` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Summarize {
    /// The text to summarize: prose, a log, a document, code.
    pub text: String,
    /// What the summary should look out for, such as `errors and their causes`.
    pub focus: Option<String>,
    /// How long the summary should be. A paragraph when left out.
    pub length: Option<SummaryLength>,
}

/// How long a summary should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SummaryLength {
    Sentence,
    #[default]
    Paragraph,
    Bullets,
}

/// What `commit_message` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CommitMessage {
    /// The change, as `git diff --staged` prints it.
    pub diff: String,
    /// The style of the message. Plain when left out.
    pub style: Option<CommitStyle>,
}

/// The style of a commit message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum CommitStyle {
    /// A subject in the imperative, and a body where the reason is not plain.
    #[default]
    Plain,
    /// Conventional Commits: `type(scope): subject`.
    Conventional,
}

/// What `ask` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    /// The question, or the task, in plain words.
    pub question: String,
    /// Text that the answer should rest on: code, an error message, a document.
    pub context: Option<String>,
    /// `low` for a fast answer, on the device where possible; `high` for long or deep work, which
    /// goes to Claude where the user allows it.
    pub effort: Option<Effort>,
    /// A JSON Schema. The answer is then JSON that is valid by it, also in `value`.
    pub schema: Option<Map<String, Value>>,
    /// The longest answer, in tokens (1 to 32768).
    #[schemars(range(min = 1, max = 32768))]
    pub max_tokens: Option<u32>,
}

/// `status` takes nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// An answer, who gave it, and what it cost.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Answer {
    /// The answer itself.
    pub text: String,
    /// The engine that answered. `claude` and `server` count as outside this machine.
    pub backend: BackendKind,
    /// The model that answered.
    pub model: String,
    /// Why this backend was asked.
    pub route_reason: RouteReason,
    /// Tokens as the backend counted them; absent when the answer was cut before it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// How long it took.
    pub milliseconds: Milliseconds,
    /// Why the answer is not whole; absent when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
    /// For completions, which show it as [`CompletionAnswer::empty`].
    #[serde(skip)]
    pub empty: Option<EmptyReason>,
}

/// A completion; everything else as in the other tools.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CompletionAnswer {
    #[serde(flatten)]
    pub answer: Answer,
    /// Why `text` is empty; absent when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty: Option<EmptyReason>,
}

/// An answer to a question; everything else as in the other tools.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AskAnswer {
    #[serde(flatten)]
    pub answer: Answer,
    /// The answer as JSON, where a schema was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// A commit message in its parts; everything else as in the other tools.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CommitMessageAnswer {
    /// The first line.
    pub subject: String,
    /// What follows the subject; absent when there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(flatten)]
    pub answer: Answer,
}

/// Tokens, as the backend counted them.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Tokens {
    /// Of the prompt.
    pub prompt: usize,
    /// Those of the prompt that did not have to be computed again.
    pub cached: usize,
    /// Of the answer.
    pub completion: usize,
}

/// How long an answer took, from the call.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Milliseconds {
    /// Until the first text; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token: Option<u64>,
    /// Until the end.
    pub total: u64,
}

/// Why an answer is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Truncated {
    /// It reached the longest allowed length.
    Length,
    /// A tool call must end in time, and this is what there was.
    Deadline,
}

/// The state of Tandem.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Status {
    /// Tandem's version.
    pub version: &'static str,
    /// Which backends may answer.
    pub mode: Mode,
    /// Whether text may leave this machine at all: Claude or an inference server is configured, and the
    /// mode allows it.
    pub may_leave_machine: bool,
    /// The backends, the first choice for a light request first.
    pub backends: Vec<BackendState>,
    /// The newest route, absent before the first request. All of them: `tandem://decisions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_route: Option<RoutedRequest>,
}

/// The state of one backend.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct BackendState {
    /// The engine.
    pub backend: BackendKind,
    /// Its model.
    pub model: String,
    /// `absent`, `downloading`, `unloaded`, `loading`, `probing`, `healthy`, `degraded` or `failed`.
    pub state: &'static str,
    /// Whether a request sent now would be answered, perhaps after a load.
    pub can_serve: bool,
    /// What is wrong and what to do, where something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// `closed` (in use), `open` (left alone after failures) or `half-open` (being tried again).
    pub breaker: &'static str,
    /// The hardware that the model was asked to run on, for one on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware_requested: Option<String>,
    /// The hardware that it was seen to run on, once it was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware_observed: Option<String>,
    /// Milliseconds to the first token, as probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_milliseconds: Option<f64>,
    /// Tokens a second after the first, as probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Bytes of the model that have arrived, while it is downloaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downloaded_bytes: Option<u64>,
    /// Bytes of the model in all, while it is downloaded and where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
}

/// The last routes.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Routes {
    /// Newest first.
    pub decisions: Vec<RoutedRequest>,
}

/// One request, where it went, why, and what became of it. Holds no text of the user's.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RoutedRequest {
    /// The request's number in this process and its log.
    pub id: u64,
    /// `complete`, `chat` or `edit`.
    pub task: &'static str,
    /// The engine; absent if nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendKind>,
    /// The model; absent if nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Why this backend was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_reason: Option<RouteReason>,
    /// `answered`, `empty` or `failed`.
    pub outcome: &'static str,
    /// Why there was nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty: Option<EmptyReason>,
    /// What kind of failure it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<ErrorKind>,
    /// How long it took.
    pub milliseconds: Milliseconds,
    /// Tokens as the backend counted them.
    pub tokens: Tokens,
    /// When it ended, in milliseconds since 1970 (UTC).
    pub ended_at_unix_milliseconds: u64,
}

impl From<Usage> for Tokens {
    fn from(usage: Usage) -> Self {
        Self {
            prompt: usage.prompt_tokens,
            cached: usage.cached_tokens,
            completion: usage.completion_tokens,
        }
    }
}

impl From<FinishReason> for Option<Truncated> {
    fn from(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Stop => None,
            FinishReason::Length => Some(Truncated::Length),
        }
    }
}

impl From<BackendStatus> for BackendState {
    fn from(status: BackendStatus) -> Self {
        let state = status.health.word();
        let can_serve = status.health.can_serve();
        let (hardware_requested, hardware_observed) = match status.placement {
            Some(placement) => (Some(placement.requested), placement.observed),
            None => (None, None),
        };
        let mut backend = Self {
            backend: status.kind,
            model: status.model,
            state,
            can_serve,
            detail: None,
            breaker: status.breaker,
            hardware_requested,
            hardware_observed,
            first_token_milliseconds: None,
            tokens_per_second: None,
            downloaded_bytes: None,
            total_bytes: None,
        };
        match status.health {
            Health::Absent { why } | Health::Degraded { why } => backend.detail = Some(why),
            Health::Failed { error, .. } => backend.detail = Some(error),
            Health::Downloading { bytes, total } => {
                backend.downloaded_bytes = Some(bytes);
                backend.total_bytes = total;
            }
            Health::Healthy { speed: Some(speed) } => {
                backend.first_token_milliseconds = Some(speed.first_token_ms);
                backend.tokens_per_second = Some(speed.tokens_per_second);
            }
            Health::Unloaded
            | Health::Loading
            | Health::Probing
            | Health::Healthy { speed: None } => {}
        }
        backend
    }
}

impl From<Decision> for RoutedRequest {
    fn from(decision: Decision) -> Self {
        let (outcome, empty, failure) = match decision.outcome {
            Outcome::Answered => ("answered", None, None),
            Outcome::Empty(reason) => ("empty", Some(reason), None),
            Outcome::Failed(kind) => ("failed", None, Some(kind)),
        };
        let ended_at = decision
            .at
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let (backend, model, route_reason) = match decision.attribution {
            Some(who) => (Some(who.backend), Some(who.model), Some(who.reason)),
            None => (None, None, None),
        };
        Self {
            id: decision.id.0,
            task: decision.task,
            backend,
            model,
            route_reason,
            outcome,
            empty,
            failure,
            milliseconds: Milliseconds {
                first_token: decision.first_token.map(|took| took.as_millis() as u64),
                total: decision.took.as_millis() as u64,
            },
            tokens: decision.usage.into(),
            ended_at_unix_milliseconds: ended_at.as_millis() as u64,
        }
    }
}
