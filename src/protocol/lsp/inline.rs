//! `textDocument/inlineCompletion` of LSP 3.18, with types of our own: lsp-types 0.94 has none.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tower_lsp::lsp_types::{Command, Position, Range, TextDocumentIdentifier};

use super::ahead;
use super::generate::{self, Place, Selected};
use super::server::Server;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineCompletionParams {
    /// In which document.
    pub text_document: TextDocumentIdentifier,
    /// Where.
    pub position: Position,
    /// Why.
    pub context: InlineCompletionContext,
}

/// Why it is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineCompletionContext {
    /// 1: the user asked. 2: the editor asks while the user types.
    pub trigger_kind: u8,
    /// The entry of the editor's own popup that is selected.
    pub selected_completion_info: Option<SelectedCompletionInfo>,
}

/// The selected entry of the editor's own popup.
#[derive(Debug, Deserialize)]
pub struct SelectedCompletionInfo {
    /// What it replaces.
    pub range: Range,
    /// By what.
    pub text: String,
}

/// The answer.
#[derive(Debug, Default, Serialize)]
pub struct InlineCompletionList {
    /// Best first.
    pub items: Vec<InlineCompletionItem>,
}

/// One suggestion.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineCompletionItem {
    /// The text that takes the place of `range`; begins with what is typed there.
    pub insert_text: String,
    /// What the client compares to what is typed.
    pub filter_text: String,
    /// On one line.
    pub range: Range,
    /// Run after the insertion.
    pub command: Command,
}

const INVOKED: u8 = 1;

/// Answers the request. Never fails: an empty list has its reason in the status.
pub async fn inline_completion(
    server: &Arc<Server>,
    params: InlineCompletionParams,
) -> InlineCompletionList {
    let automatic = params.context.trigger_kind != INVOKED;
    let candidates = if automatic {
        1
    } else {
        server.session.router.settings().completion.candidates
    };
    let place = Place {
        uri: params.text_document.uri,
        position: params.position,
        selected: params
            .context
            .selected_completion_info
            .map(|selected| Selected {
                range: selected.range,
                text: selected.text,
            }),
        automatic,
        typing: automatic,
        candidates,
    };
    let Some((cursor, suggestions)) = generate::complete(server, place).await else {
        return InlineCompletionList::default();
    };
    if let Some(first) = suggestions.first().filter(|_| automatic) {
        ahead::start(server, &cursor, first);
    }
    let range = cursor.range();
    let items = suggestions
        .into_iter()
        .map(|suggestion| {
            let insert_text = format!("{}{}", cursor.typed, suggestion.text);
            InlineCompletionItem {
                filter_text: insert_text.clone(),
                insert_text,
                range,
                command: suggestion.command,
            }
        })
        .collect();
    InlineCompletionList { items }
}
