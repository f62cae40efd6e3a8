//! What is asked of a backend: a task, never a rendered prompt.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AnswerSchema;

/// Names one request in logs, for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct RequestId(pub u64);

impl RequestId {
    /// The next number.
    #[must_use]
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whose request it is, among all that share one model: work is shared out between clients, not
/// between requests. Within one process all are of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// A request that a protocol has checked: what follows may trust it.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// Its number.
    pub id: RequestId,
    /// Whose it is. Only whoever serves several sessions has anything to say here.
    pub client: ClientId,
    /// What to do.
    pub task: Task,
    /// How to choose among tokens.
    pub sampling: Sampling,
    /// The longest answer, in tokens.
    pub max_tokens: usize,
    /// The answer ends before any of these.
    pub stop: Vec<String>,
    /// How much thought the task deserves.
    pub effort: Effort,
    /// Who waits for it.
    pub priority: Priority,
}

/// The three kinds of work.
#[derive(Debug, Clone)]
pub enum Task {
    /// Text to be inserted at a cursor.
    Complete(CompleteTask),
    /// An answer in a conversation.
    Chat(ChatTask),
    /// A replacement for a piece of a document.
    Edit(EditTask),
}

/// A cursor in a document.
#[derive(Debug, Clone)]
pub struct CompleteTask {
    /// The document's path as the model is to see it, relative to its workspace where there is one.
    pub path: Option<String>,
    /// The language by its LSP identifier (`rust`, `typescriptreact`); empty where unknown.
    pub language: String,
    /// The document before the cursor, whole or cut at the far end.
    pub prefix: Arc<str>,
    /// The document after the cursor, whole or cut at the far end.
    pub suffix: Arc<str>,
    /// Pieces of other documents, best first.
    pub snippets: Vec<Snippet>,
    /// How far the completion should go.
    pub shape: CompletionShape,
}

/// How far a completion should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CompletionShape {
    /// To the end of the line or of the block, as the place suggests.
    #[default]
    Auto,
    /// To the end of the line.
    OneLine,
    /// As many lines as belong together.
    Lines,
}

/// A piece of another document.
#[derive(Debug, Clone)]
pub struct Snippet {
    /// Where it comes from, for the model.
    pub path: String,
    /// Where it lies, for the privacy policy; `None` for text that is in no file.
    pub file: Option<PathBuf>,
    /// The text.
    pub text: Arc<str>,
}

/// A conversation that waits for its next answer.
#[derive(Debug, Clone)]
pub struct ChatTask {
    /// Standing instructions.
    pub system: Option<String>,
    /// The turns so far; the last one is the user's.
    pub messages: Vec<Message>,
    /// The answer is JSON, and valid by this.
    pub schema: Option<AnswerSchema>,
}

/// One turn.
#[derive(Debug, Clone)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What they say.
    pub text: String,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// A piece of a document to be replaced as an instruction says. The answer is the new piece alone.
#[derive(Debug, Clone)]
pub struct EditTask {
    /// As in [`CompleteTask::path`].
    pub path: Option<String>,
    /// As in [`CompleteTask::language`].
    pub language: String,
    /// The document before the piece.
    pub before: Arc<str>,
    /// The piece.
    pub selection: Arc<str>,
    /// The document after the piece.
    pub after: Arc<str>,
    /// What to do to the piece.
    pub instruction: String,
}

/// How much thought a task deserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effort {
    /// Fast, on the device where possible.
    #[default]
    Low,
    /// Long or deep work: asks for the heavy route.
    High,
}

/// Who waits, in the order they are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A person with the cursor in a document.
    Inline,
    /// A tool call or a command.
    Tool,
    /// Nobody yet: work ahead of need.
    Background,
}

/// How to choose the next token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token always; the other fields are then unused.
    pub temperature: f32,
    /// Keep the k most likely; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probability reaches p; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides the logits of tokens seen lately; 1 changes nothing. Applies to greedy choice too.
    pub repetition_penalty: f32,
    /// How many of the last tokens count as seen lately.
    pub repeat_last_n: usize,
    /// Makes a sampled answer repeatable.
    pub seed: u64,
}

impl Sampling {
    /// The most likely token, always.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        repeat_last_n: 64,
        seed: 0,
    };
}
