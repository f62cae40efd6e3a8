//! `tandem/inlineEdit`, the step past completion: where the user is likely to edit next, and what. The
//! same in the shape, and under the name, that clients of Copilot's language server know
//! (`textDocument/copilotInlineEdit`), and as a code action for all others.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_lsp::lsp_types::{
    CodeAction, CodeActionKind, CodeActionOrCommand, CodeActionParams, Command,
    OptionalVersionedTextDocumentIdentifier, Position, Range, Url,
};

use crate::next_edit::{Here, Kind, LEAST_CONFIDENCE, Proposal, propose};

use super::accept::ShownParams;
use super::actions::wanted;
use super::documents::{Snapshot, State};
use super::edit::workspace_edit;
use super::position;
use super::server::Server;

/// The requests that are answered.
pub const METHODS: [&str; 2] = ["tandem/inlineEdit", "textDocument/copilotInlineEdit"];

/// The command that an accepted edit runs.
pub const ACCEPTED: &str = "tandem.acceptedEdit";
/// The command by which a client says that the user does not want an edit.
pub const REJECTED: &str = "tandem.rejectedEdit";

/// Under `refactor.rewrite`, so that menus show it with what else changes code.
const ACTION_KIND: &str = "refactor.rewrite.nextEdit";

/// Offers that may still be judged.
const REMEMBERED: usize = 64;

/// Who was shown an edit and has begun so many others since does not want it.
const IGNORED_AFTER: u64 = 3;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineEditParams {
    /// In which document.
    pub text_document: OptionalVersionedTextDocumentIdentifier,
    /// Where the cursor is.
    pub position: Position,
}

/// The answer.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineEditList {
    /// One edit or none.
    pub edits: Vec<InlineEdit>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_reason: Option<NoEdit>,
}

/// An edit, anywhere in the document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineEdit {
    /// What takes the place of `range`.
    pub text: String,
    /// On one line.
    pub range: Range,
    /// The document, and the version that it is for.
    pub text_document: OptionalVersionedTextDocumentIdentifier,
    /// Run after the edit.
    pub command: Command,
    /// `rename` or `repeat`.
    pub kind: &'static str,
    /// What it does, for a person to read.
    pub title: String,
    /// How sure it is, from 0 to 1.
    pub confidence: f32,
}

/// Why no edit is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoEdit {
    /// `completion.enabled` or `completion.next_edit` is false.
    Disabled,
    /// The user paused Tandem.
    Paused,
    /// The language is in `completion.languages_off`.
    LanguageOff,
    /// The path is in `completion.paths_off`.
    PathOff,
    /// The document is not open here, too large, or out of step.
    DocumentUnavailable,
    /// The document has another version than the one asked about.
    DocumentChanged,
    /// The document has no such position.
    PositionInvalid,
    /// Nothing is likely enough.
    NothingLikely,
}

/// The edits that were offered.
#[derive(Debug, Default)]
pub struct Offers(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    offered: VecDeque<Offer>,
}

#[derive(Debug)]
struct Offer {
    id: u64,
    proposal: Proposal,
    /// How many edits the user had made when it was first asked for by a client that shows it.
    shown: Option<u64>,
}

/// An edit that is proposed in a document.
struct Found {
    document: Snapshot,
    proposal: Proposal,
}

impl Offers {
    /// The command for an offer, by which its fate will be known. The same offer keeps its command.
    fn offer(&self, proposal: &Proposal, shown: Option<u64>) -> Command {
        let mut inner = self.lock();
        let known = inner
            .offered
            .iter_mut()
            .rfind(|offer| same(&offer.proposal, proposal));
        let id = if let Some(offer) = known {
            offer.shown = offer.shown.or(shown);
            offer.id
        } else {
            inner.next += 1;
            let id = inner.next;
            if inner.offered.len() == REMEMBERED {
                inner.offered.pop_front();
            }
            inner.offered.push_back(Offer {
                id,
                proposal: proposal.clone(),
                shown,
            });
            id
        };
        Command {
            title: "Tell Tandem that this was accepted".to_owned(),
            command: ACCEPTED.to_owned(),
            arguments: Some(vec![json!({ "id": id })]),
        }
    }

    /// Whether the user was shown a proposal and went elsewhere.
    fn ignored(&self, proposal: &Proposal, made: u64) -> bool {
        self.lock()
            .offered
            .iter()
            .rfind(|offer| same(&offer.proposal, proposal))
            .and_then(|offer| offer.shown)
            .is_some_and(|shown| made >= shown + IGNORED_AFTER)
    }

    /// Takes out what a command is about.
    fn take(&self, arguments: &[Value]) -> Option<Proposal> {
        let id = arguments.first()?["id"].as_u64()?;
        let mut inner = self.lock();
        let at = inner.offered.iter().position(|offer| offer.id == id)?;
        inner.offered.remove(at).map(|offer| offer.proposal)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same(a: &Proposal, b: &Proposal) -> bool {
    (a.line, &a.before, &a.after) == (b.line, &b.before, &b.after)
}

/// Answers the request. Never fails: an empty list has its reason.
pub async fn inline_edit(server: &Server, params: InlineEditParams) -> InlineEditList {
    let InlineEditParams {
        text_document,
        position,
    } = params;
    loop {
        let found = find(server, &text_document, position).await;
        let Found { document, proposal } = match found {
            Ok(found) => found,
            Err(nothing) => {
                return InlineEditList {
                    empty_reason: Some(nothing),
                    ..InlineEditList::default()
                };
            }
        };
        let made = server.documents.edits().made();
        if server.next_edits.ignored(&proposal, made) {
            // What is rejected is not found again, so this ends.
            server.documents.judge_edit(&proposal, false);
            continue;
        }
        let Some((range, text)) = place(server, &document, &proposal) else {
            return InlineEditList::default();
        };
        return InlineEditList {
            edits: vec![InlineEdit {
                text,
                range,
                command: server.next_edits.offer(&proposal, Some(made)),
                text_document: OptionalVersionedTextDocumentIdentifier {
                    uri: document.uri,
                    version: Some(document.version),
                },
                kind: match proposal.kind {
                    Kind::Rename => "rename",
                    Kind::Repeat => "repeat",
                },
                title: proposal.title(),
                confidence: proposal.confidence,
            }],
            empty_reason: None,
        };
    }
}

/// The code action, where there is an edit to propose and the client can take an edit.
pub async fn action(server: &Server, params: &CodeActionParams) -> Option<CodeActionOrCommand> {
    let kind = CodeActionKind::new(ACTION_KIND);
    if !wanted(&kind, params.context.only.as_deref()) || !server.capabilities().code_action_literals
    {
        return None;
    }
    let text_document = OptionalVersionedTextDocumentIdentifier {
        uri: params.text_document.uri.clone(),
        version: None,
    };
    let Found { document, proposal } = find(server, &text_document, params.range.start)
        .await
        .ok()?;
    let (range, text) = place(server, &document, &proposal)?;
    Some(
        CodeAction {
            title: format!("Next edit: {}", proposal.title()),
            kind: Some(kind),
            edit: Some(workspace_edit(server, &document, range, text)),
            command: Some(server.next_edits.offer(&proposal, None)),
            ..CodeAction::default()
        }
        .into(),
    )
}

/// What became of an offer. Says whether it was one of ours.
pub fn judge(server: &Server, arguments: &[Value], accepted: bool) -> Value {
    let proposal = server.next_edits.take(arguments);
    if let Some(proposal) = &proposal {
        server.documents.judge_edit(proposal, accepted);
    }
    json!({ "known": proposal.is_some() })
}

/// Takes `textDocument/didShowInlineEdit`, after the convention of Copilot's language server. That an
/// edit is shown is what its request is for, so there is nothing to learn.
pub fn shown(params: &ShownParams) {
    tracing::trace!(?params, "a next edit is shown");
}

async fn find(
    server: &Server,
    text_document: &OptionalVersionedTextDocumentIdentifier,
    position: Position,
) -> Result<Found, NoEdit> {
    // All that is looked at is taken before the first wait: what comes later on the pipe is for
    // later requests.
    let edits = server.documents.edits();
    let document = gate(server, &text_document.uri)?;
    if text_document
        .version
        .is_some_and(|version| version != document.version)
    {
        return Err(NoEdit::DocumentChanged);
    }
    let encoding = server.capabilities().encoding;
    let cursor = position::to_char(&document.text, position, encoding)
        .map_err(|_| NoEdit::PositionInvalid)?;
    if edits.made() == 0 {
        return Err(NoEdit::NothingLikely);
    }
    let revision = document.revision;
    let uri = document.uri.clone();
    // Some milliseconds for documents of megabytes, which the session's one thread does not have.
    let found = tokio::task::spawn_blocking(move || {
        let here = Here {
            document: document.uri.as_str(),
            language: &document.language,
            text: &document.text,
            line: document.text.char_to_line(cursor),
        };
        let proposal = propose(&edits, here, LEAST_CONFIDENCE)?;
        Some(Found { document, proposal })
    });
    let found = found.await.ok().flatten().ok_or(NoEdit::NothingLikely)?;
    match server.documents.get(&uri) {
        Some(now) if now.revision == revision => Ok(found),
        _ => Err(NoEdit::DocumentChanged),
    }
}

/// Whether anything is proposed in this document, cheapest check first.
fn gate(server: &Server, uri: &Url) -> Result<Snapshot, NoEdit> {
    let settings = server.session.router.settings();
    let completion = &settings.completion;
    if !completion.enabled || !completion.next_edit {
        return Err(NoEdit::Disabled);
    }
    if server.status.paused() {
        return Err(NoEdit::Paused);
    }
    let document = server
        .documents
        .get(uri)
        .filter(|document| document.state == State::Good)
        .ok_or(NoEdit::DocumentUnavailable)?;
    if completion.languages_off.contains(&document.language) {
        return Err(NoEdit::LanguageOff);
    }
    if let Some(file) = document.file() {
        let workspace = server.workspace_of(&file);
        let relative = workspace
            .as_deref()
            .and_then(|folder| file.strip_prefix(folder).ok());
        let path = relative.unwrap_or(&file);
        if server.paths_off.matches(&completion.paths_off, path) {
            return Err(NoEdit::PathOff);
        }
    }
    Ok(document)
}

/// A proposal's range and text, as the client counts.
fn place(server: &Server, document: &Snapshot, proposal: &Proposal) -> Option<(Range, String)> {
    let (chars, text) = proposal.replacement(&document.text)?;
    let encoding = server.capabilities().encoding;
    let at = |index| position::to_position(&document.text, index, encoding);
    Some((Range::new(at(chars.start), at(chars.end)), text.to_owned()))
}
