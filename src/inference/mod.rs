//! The contract between those who ask for text and those who generate it.
//!
//! A protocol turns what it was sent into a [`GenerateRequest`], the router picks a [`Backend`],
//! and the backend answers with a [`TokenStream`]. Nothing in this module knows a protocol, a
//! prompt template or a model.

mod error;
mod health;
mod reason;
mod request;
mod schema;
mod statistics;
mod stream;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use error::{ErrorKind, GenerateError};
pub use health::{Health, Placement, Speed};
pub use reason::{Attribution, EmptyReason, RouteReason};
pub use request::{
    ChatTask, ClientId, CompleteTask, CompletionShape, EditTask, Effort, GenerateRequest, Message,
    Priority, RequestId, Role, Sampling, Snippet, Task,
};
pub use schema::AnswerSchema;
pub use statistics::Statistics;
pub use stream::{
    Disconnected, Event, EventSender, Finish, FinishReason, Generation, NotSent, TokenStream, Usage,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which engine an answer came from.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    /// A Qwen model through Core ML, on the Neural Engine.
    CoreMl,
    /// A Qwen model through candle (GGUF or safetensors), on the processor or a graphics card.
    Candle,
    /// `tandem-mini`, the model inside the binary.
    Embedded,
    /// Claude over the Messages API.
    Claude,
    /// An OpenAI-compatible inference server that the user configured. It counts as another machine, as
    /// Claude's does, wherever it is.
    Server,
    /// The deterministic backend of the tests and benches.
    Scripted,
}

impl BackendKind {
    /// The name in configuration, logs and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CoreMl => "core-ml",
            Self::Candle => "candle",
            Self::Embedded => "embedded",
            Self::Claude => "claude",
            Self::Server => "server",
            Self::Scripted => "scripted",
        }
    }
}

impl std::fmt::Display for BackendKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a backend is, fixed for its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The engine.
    pub kind: BackendKind,
    /// The model as the user knows it: a model id, or a file's stem. May be overridden for one
    /// answer by [`Finish::model`], where the backend chooses among several.
    pub model: String,
    /// Prompt and answer together, in tokens of this model.
    pub context_tokens: usize,
}

/// Something that generates text for a task.
///
/// A backend renders the prompt for its own template and budget, so it takes the task and never a
/// prompt. `generate` returns at once; all work happens behind the stream. Dropping the stream, or
/// cancelling the token, stops the work within one token.
pub trait Backend: Send + Sync + 'static {
    /// What this backend is.
    fn descriptor(&self) -> &Descriptor;

    /// Its state now and from now on. A borrow of it must not be held while the backend is asked
    /// anything: it may publish under a lock of its own.
    fn health(&self) -> watch::Receiver<Health>;

    /// Where its model runs; `None` for a backend that has none on this machine.
    fn placement(&self) -> Option<Placement> {
        None
    }

    /// What it has done so far and holds now; `None` for a backend that does not count.
    fn statistics(&self) -> Option<Statistics> {
        None
    }

    /// Asks the backend to load what it needs, without waiting. Backends that have nothing to load
    /// ignore it.
    fn warm_up(&self) {}

    /// Starts to generate. The stream ends with exactly one terminal event.
    fn generate(&self, request: GenerateRequest, cancel: CancellationToken) -> TokenStream;
}
