//! `workspace/executeCommand`.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower_lsp::jsonrpc::{Error, Result};
use tower_lsp::lsp_types::request::{ApplyWorkspaceEdit, ShowMessageRequest};
use tower_lsp::lsp_types::{
    ApplyWorkspaceEditParams, ExecuteCommandParams, MessageActionItem, MessageType, ProgressToken,
    ShowMessageRequestParams,
};

use crate::inference::Attribution;

use super::accept::ACCEPTED;
use super::actions::{Kind, Target};
use super::commit::{self, COMMIT_MESSAGE};
use super::edit::{self, Proposal, Trouble};
use super::explain;
use super::next_edit;
use super::server::Server;

const PAUSE: &str = "tandem.pause";
const RESUME: &str = "tandem.resume";
const STATUS: &str = "tandem.status";
/// The last routes, the newest first, without any text of the user's.
const DECISIONS: &str = "tandem.decisions";

/// What a user without a line to type in may choose to have rewritten.
const REWRITES: [&str; 4] = [
    "Simplify it",
    "Handle the errors",
    "Make it faster",
    "Improve the names",
];

/// The commands that a client may send.
#[must_use]
pub fn all() -> Vec<String> {
    let edits = [next_edit::ACCEPTED, next_edit::REJECTED];
    [ACCEPTED, PAUSE, RESUME, STATUS, DECISIONS, COMMIT_MESSAGE]
        .into_iter()
        .chain(edits)
        .chain(Kind::ALL.map(Kind::command))
        .map(str::to_owned)
        .collect()
}

/// Does what a command says.
///
/// # Errors
/// Invalid parameters, for a command that is not ours or arguments that are not its own. An action
/// that fails tells the user why, and says so in its result.
pub async fn execute(server: &Server, params: ExecuteCommandParams) -> Result<Option<Value>> {
    match params.command.as_str() {
        ACCEPTED => {
            let known = server.acceptance.accepted(&params.arguments);
            Ok(Some(json!({ "known": known })))
        }
        next_edit::ACCEPTED | next_edit::REJECTED => {
            let accepted = params.command == next_edit::ACCEPTED;
            Ok(Some(next_edit::judge(server, &params.arguments, accepted)))
        }
        PAUSE | RESUME => {
            // What comes after the pause is to be new.
            server.suggestions.forget_all();
            server.status.pause(params.command == PAUSE).await;
            Ok(None)
        }
        STATUS => serde_json::to_value(server.status.report(&server.acceptance))
            .map(Some)
            .map_err(|_| Error::internal_error()),
        DECISIONS => {
            let mut decisions = server.session.router.decisions();
            decisions.reverse();
            serde_json::to_value(decisions)
                .map(Some)
                .map_err(|_| Error::internal_error())
        }
        COMMIT_MESSAGE => {
            let progress = params.work_done_progress_params.work_done_token;
            let change = argument(&params.command, "diff and files", params.arguments)?;
            let outcome = commit::message(server, change, progress).await;
            Ok(Some(told(server, outcome).await))
        }
        name => {
            let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.command() == name) else {
                return Err(Error::invalid_params(format!(
                    "there is no command {name:?}; there are {}",
                    all().join(", ")
                )));
            };
            let progress = params.work_done_progress_params.work_done_token;
            act(server, kind, params.arguments, progress)
                .await
                .map(Some)
        }
    }
}

async fn act(
    server: &Server,
    kind: Kind,
    arguments: Vec<Value>,
    progress: Option<ProgressToken>,
) -> Result<Value> {
    let mut target: Target = argument(kind.command(), "uri and range", arguments)?;
    if kind == Kind::Rewrite && blank(target.instruction.as_deref()) {
        match choose_rewrite(server).await {
            Some(instruction) => target.instruction = Some(instruction),
            None => return Ok(json!({ "applied": false })),
        }
    }
    let outcome = if kind == Kind::Explain {
        explain::explain(server, &target, progress)
            .await
            .map(|answer| {
                let mut result = from(&answer.attribution);
                result["text"] = json!(answer.text);
                result
            })
    } else {
        edit(server, kind, &target, progress).await
    };
    Ok(told(server, outcome).await)
}

/// The one argument of a command.
fn argument<T: DeserializeOwned>(
    command: &str,
    members: &str,
    mut arguments: Vec<Value>,
) -> Result<T> {
    let argument = match arguments.len() {
        0 => Value::Null,
        _ => arguments.swap_remove(0),
    };
    serde_json::from_value(argument).map_err(|error| {
        Error::invalid_params(format!(
            "{command} takes one object with {members}: {error}"
        ))
    })
}

/// A command's result; the user is told what went wrong.
async fn told(server: &Server, outcome: std::result::Result<Value, Trouble>) -> Value {
    match outcome {
        Ok(result) => result,
        Err(trouble) => {
            let message = trouble.to_string();
            server
                .client
                .show(MessageType::WARNING, format!("Tandem: {message}"))
                .await;
            json!({ "applied": false, "message": message })
        }
    }
}

fn blank(instruction: Option<&str>) -> bool {
    instruction.is_none_or(|instruction| instruction.trim().is_empty())
}

async fn choose_rewrite(server: &Server) -> Option<String> {
    let actions = REWRITES.map(|title| MessageActionItem {
        title: title.to_owned(),
        properties: std::collections::HashMap::new(),
    });
    let params = ShowMessageRequestParams {
        typ: MessageType::INFO,
        message: "How should Tandem rewrite this?".to_owned(),
        actions: Some(actions.to_vec()),
    };
    server
        .client
        .request::<ShowMessageRequest>(params)
        .await
        .inspect_err(|error| tracing::debug!(%error, "nobody chose a rewrite"))
        .ok()?
        .map(|chosen| chosen.title)
}

async fn edit(
    server: &Server,
    kind: Kind,
    target: &Target,
    progress: Option<ProgressToken>,
) -> std::result::Result<Value, Trouble> {
    if !server.capabilities().apply_edit {
        return Err(Trouble::NoAnswer(
            "this editor does not let a server edit. Use the action from the editor's own menu."
                .to_owned(),
        ));
    }
    let proposal = edit::propose(server, kind, target, progress).await?;
    apply(server, kind, &proposal).await?;
    let mut result = from(&proposal.attribution);
    result["applied"] = json!(true);
    Ok(result)
}

async fn apply(
    server: &Server,
    kind: Kind,
    proposal: &Proposal,
) -> std::result::Result<(), Trouble> {
    let params = ApplyWorkspaceEditParams {
        label: Some(format!("{} ({})", kind.title(), proposal.attribution.model)),
        edit: proposal.workspace_edit(server),
    };
    let answer = server.client.request::<ApplyWorkspaceEdit>(params).await;
    let why = match answer {
        Ok(answer) if answer.applied => return Ok(()),
        Ok(answer) => answer.failure_reason,
        Err(error) => Some(error.to_string()),
    };
    // A client refuses most often because the user typed while the edit was on its way.
    edit::still_current(server, &proposal.document)?;
    let why = why.unwrap_or_else(|| "it gave no reason".to_owned());
    Err(Trouble::NoAnswer(format!(
        "the editor did not apply the edit: {why}. Nothing was changed; run the action again."
    )))
}

fn from(attribution: &Attribution) -> Value {
    json!({
        "backend": attribution.backend,
        "model": attribution.model,
        "reason": attribution.reason,
    })
}
