//! The command that writes a commit message for a diff; the client puts it where its user commits.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower_lsp::lsp_types::{ProgressToken, Url};

use crate::inference::{
    ChatTask, ClientId, Effort, GenerateRequest, Message, Priority, RequestId, Role, Sampling, Task,
};
use crate::protocol::commit;
use crate::router::{Origin, RouteRequest};

use super::edit::{self, Trouble};
use super::progress::Bar;
use super::server::Server;

/// The command.
pub const COMMIT_MESSAGE: &str = "tandem.commitMessage";

const TITLE: &str = "Write a commit message with Tandem";

/// The one argument of the command.
#[derive(Debug, Deserialize)]
pub struct Change {
    /// The change, as `git diff --staged` prints it.
    pub diff: String,
    /// The files that it changes: what the privacy policy says of each of them holds for the whole.
    pub files: Vec<Url>,
}

/// Asks for the message.
///
/// # Errors
/// [`Trouble`], for the user to read.
pub async fn message(
    server: &Server,
    change: Change,
    progress: Option<ProgressToken>,
) -> Result<Value, Trouble> {
    if change.diff.trim().is_empty() {
        return Err(Trouble::NoAnswer(
            "there is no change to describe. Change something, or stage it.".to_owned(),
        ));
    }
    if change.diff.len() > commit::LONGEST_DIFF {
        return Err(Trouble::NoAnswer(
            "the diff is larger than 1 MiB. Stage less.".to_owned(),
        ));
    }
    let files = change.files.iter().map(Url::to_file_path);
    let Ok(files) = files.collect::<Result<Vec<_>, ()>>() else {
        return Err(Trouble::NoAnswer(
            "the diff changes files that are not on this machine. Stage those that are.".to_owned(),
        ));
    };
    let request = RouteRequest {
        generate: GenerateRequest {
            client: ClientId::default(),
            id: RequestId::next(),
            task: Task::Chat(ChatTask {
                system: Some(commit::RULES.to_owned()),
                messages: vec![Message {
                    role: Role::User,
                    text: commit::question(&change.diff),
                }],
                schema: None,
            }),
            sampling: Sampling::GREEDY,
            max_tokens: commit::MAX_TOKENS,
            stop: Vec::new(),
            effort: Effort::Low,
            priority: Priority::Tool,
        },
        origin: Origin {
            workspace: files.first().and_then(|file| server.workspace_of(file)),
            also: files,
            automatic: false,
            ..Origin::default()
        },
    };
    let bar = Bar::create(server, TITLE.to_owned(), progress).await;
    let answer = server
        .session
        .router
        .route(request, &CancellationToken::new())
        .collect_within(edit::ACTION_LIMIT, |_| {})
        .await;
    if let Some(bar) = bar {
        bar.end(String::new()).await;
    }
    let answer = answer.map_err(edit::no_answer)?;
    Ok(json!({
        "text": commit::unfence(&answer.text),
        "backend": answer.attribution.backend,
        "model": answer.attribution.model,
        "reason": answer.attribution.reason,
    }))
}
