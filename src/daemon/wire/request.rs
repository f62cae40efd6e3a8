//! A request, as the wire says it.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::inference::{
    AnswerSchema, ChatTask, ClientId, CompleteTask, CompletionShape, EditTask, Effort,
    GenerateError, GenerateRequest, Message, Priority, RequestId, Role, Sampling, Snippet, Task,
};

/// A [`GenerateRequest`]: the task, never a rendered prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WireRequest {
    /// The task.
    pub task: WireTask,
    /// How to choose among tokens.
    pub sampling: WireSampling,
    /// The longest answer, in tokens.
    pub max_tokens: usize,
    /// The answer ends before any of these.
    #[serde(default)]
    pub stop: Vec<String>,
    /// How much thought it deserves.
    #[serde(default)]
    pub effort: Effort,
    /// Who waits for it.
    pub priority: WirePriority,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireTask {
    /// Text at a cursor.
    Complete {
        /// As the model is to see it.
        path: Option<String>,
        /// By its LSP identifier.
        language: String,
        /// Before the cursor.
        prefix: Arc<str>,
        /// After it.
        suffix: Arc<str>,
        /// Pieces of other documents, best first.
        #[serde(default)]
        snippets: Vec<WireSnippet>,
        /// How far it should go.
        shape: CompletionShape,
    },
    /// The next answer in a conversation.
    Chat {
        /// Standing instructions.
        system: Option<String>,
        /// The turns so far.
        messages: Vec<WireMessage>,
        /// The JSON Schema that the answer has to be valid by.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schema: Option<Value>,
    },
    /// A replacement for a piece of a document.
    Edit {
        /// As the model is to see it.
        path: Option<String>,
        /// By its LSP identifier.
        language: String,
        /// Before the piece.
        before: Arc<str>,
        /// The piece.
        selection: Arc<str>,
        /// After it.
        after: Arc<str>,
        /// What to do to it.
        instruction: String,
    },
}

/// A piece of another document. Where it lies on this machine stays in the session: that is for the
/// privacy policy, which has spoken by now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WireSnippet {
    /// As the model is to see it.
    pub path: String,
    /// The text.
    pub text: Arc<str>,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WireMessage {
    /// Who speaks.
    pub role: WireRole,
    /// What they say.
    pub text: String,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireRole {
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WirePriority {
    /// A person with the cursor in a document.
    Inline,
    /// A tool call or a command.
    Tool,
    /// Nobody yet.
    Background,
}

/// How to choose the next token; fields as in [`Sampling`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the field of that name in `Sampling`")]
pub struct WireSampling {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub repeat_last_n: usize,
    pub seed: u64,
}

impl From<&GenerateRequest> for WireRequest {
    fn from(request: &GenerateRequest) -> Self {
        Self {
            task: (&request.task).into(),
            sampling: request.sampling.into(),
            max_tokens: request.max_tokens,
            stop: request.stop.clone(),
            effort: request.effort,
            priority: match request.priority {
                Priority::Inline => WirePriority::Inline,
                Priority::Tool => WirePriority::Tool,
                Priority::Background => WirePriority::Background,
            },
        }
    }
}

impl WireRequest {
    /// The request of `client`, with a number of its own in this process.
    ///
    /// # Errors
    /// For a schema that is none, as in [`AnswerSchema::new`].
    pub fn of(self, client: ClientId) -> Result<GenerateRequest, GenerateError> {
        Ok(GenerateRequest {
            id: RequestId::next(),
            client,
            task: self.task.try_into()?,
            sampling: self.sampling.into(),
            max_tokens: self.max_tokens,
            stop: self.stop,
            effort: self.effort,
            priority: match self.priority {
                WirePriority::Inline => Priority::Inline,
                WirePriority::Tool => Priority::Tool,
                WirePriority::Background => Priority::Background,
            },
        })
    }
}

impl From<&Task> for WireTask {
    fn from(task: &Task) -> Self {
        match task {
            Task::Complete(task) => Self::Complete {
                path: task.path.clone(),
                language: task.language.clone(),
                prefix: Arc::clone(&task.prefix),
                suffix: Arc::clone(&task.suffix),
                snippets: task.snippets.iter().map(WireSnippet::from).collect(),
                shape: task.shape,
            },
            Task::Chat(task) => Self::Chat {
                system: task.system.clone(),
                messages: task.messages.iter().map(WireMessage::from).collect(),
                schema: task.schema.as_ref().map(|schema| schema.json().clone()),
            },
            Task::Edit(task) => Self::Edit {
                path: task.path.clone(),
                language: task.language.clone(),
                before: Arc::clone(&task.before),
                selection: Arc::clone(&task.selection),
                after: Arc::clone(&task.after),
                instruction: task.instruction.clone(),
            },
        }
    }
}

impl TryFrom<WireTask> for Task {
    type Error = GenerateError;

    fn try_from(task: WireTask) -> Result<Self, GenerateError> {
        Ok(match task {
            WireTask::Complete {
                path,
                language,
                prefix,
                suffix,
                snippets,
                shape,
            } => Self::Complete(CompleteTask {
                path,
                language,
                prefix,
                suffix,
                snippets: snippets.into_iter().map(Snippet::from).collect(),
                shape,
            }),
            WireTask::Chat {
                system,
                messages,
                schema,
            } => Self::Chat(ChatTask {
                system,
                messages: messages.into_iter().map(Message::from).collect(),
                schema: schema.map(AnswerSchema::new).transpose()?,
            }),
            WireTask::Edit {
                path,
                language,
                before,
                selection,
                after,
                instruction,
            } => Self::Edit(EditTask {
                path,
                language,
                before,
                selection,
                after,
                instruction,
            }),
        })
    }
}

impl From<&Snippet> for WireSnippet {
    fn from(snippet: &Snippet) -> Self {
        Self {
            path: snippet.path.clone(),
            text: Arc::clone(&snippet.text),
        }
    }
}

impl From<WireSnippet> for Snippet {
    fn from(snippet: WireSnippet) -> Self {
        Self {
            path: snippet.path,
            file: None::<PathBuf>,
            text: snippet.text,
        }
    }
}

impl From<&Message> for WireMessage {
    fn from(message: &Message) -> Self {
        Self {
            role: match message.role {
                Role::User => WireRole::User,
                Role::Assistant => WireRole::Assistant,
            },
            text: message.text.clone(),
        }
    }
}

impl From<WireMessage> for Message {
    fn from(message: WireMessage) -> Self {
        Self {
            role: match message.role {
                WireRole::User => Role::User,
                WireRole::Assistant => Role::Assistant,
            },
            text: message.text,
        }
    }
}

impl From<Sampling> for WireSampling {
    fn from(sampling: Sampling) -> Self {
        Self {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            repeat_last_n: sampling.repeat_last_n,
            seed: sampling.seed,
        }
    }
}

impl From<WireSampling> for Sampling {
    fn from(sampling: WireSampling) -> Self {
        Self {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            repeat_last_n: sampling.repeat_last_n,
            seed: sampling.seed,
        }
    }
}
