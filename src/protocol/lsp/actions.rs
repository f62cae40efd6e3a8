//! `textDocument/codeAction` and `codeAction/resolve`: which actions there are here, at once and
//! without a model; and their edits, when one is chosen.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tower_lsp::jsonrpc::{Error, ErrorCode, Result};
use tower_lsp::lsp_types::{
    CodeAction, CodeActionKind, CodeActionOrCommand, CodeActionParams, CodeActionTriggerKind,
    Command, Diagnostic, MessageType, ProgressToken, Range, Url,
};

use super::documents::State;
use super::edit::{self, Trouble};
use super::server::Server;
use super::transport::REQUEST_FAILED;

/// More diagnostics than this in one place get no action each: menus are short.
const MAX_FIXES: usize = 3;

/// How much of a diagnostic is in an action's title.
const MAX_TITLE_CHARS: usize = 60;

/// What an action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Shows an explanation.
    Explain,
    /// Mends what a diagnostic says.
    Fix,
    /// Adds documentation.
    Document,
    /// Adds a test.
    Test,
    /// Does what the user says.
    Rewrite,
}

/// What an action is about; the one argument of its command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The document.
    pub uri: Url,
    /// The selection, or the cursor.
    pub range: Range,
    /// The version that `range` is for; the current one if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// For [`Kind::Fix`]: what is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostic: Option<String>,
    /// For [`Kind::Rewrite`]: what to do. The user is asked if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
}

/// What an unresolved action carries.
#[derive(Debug, Serialize, Deserialize)]
struct Data {
    kind: Kind,
    target: Target,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Explain,
        Self::Fix,
        Self::Document,
        Self::Test,
        Self::Rewrite,
    ];

    /// The command that does it.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Self::Explain => "tandem.explain",
            Self::Fix => "tandem.fix",
            Self::Document => "tandem.document",
            Self::Test => "tandem.test",
            Self::Rewrite => "tandem.rewrite",
        }
    }

    /// What the user reads.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Explain => "Explain with Tandem",
            Self::Fix => "Fix with Tandem",
            Self::Document => "Document with Tandem",
            Self::Test => "Write a test with Tandem",
            Self::Rewrite => "Rewrite with Tandem…",
        }
    }

    fn kind(self) -> CodeActionKind {
        match self {
            Self::Fix => CodeActionKind::QUICKFIX,
            Self::Explain | Self::Test => CodeActionKind::REFACTOR,
            Self::Document | Self::Rewrite => CodeActionKind::REFACTOR_REWRITE,
        }
    }

    /// Whether it ends in an edit that is known without asking the user anything.
    fn is_plain_edit(self) -> bool {
        match self {
            Self::Fix | Self::Document | Self::Test => true,
            Self::Explain | Self::Rewrite => false,
        }
    }
}

/// Answers `textDocument/codeAction`.
#[must_use]
pub fn list(server: &Server, params: &CodeActionParams) -> Vec<CodeActionOrCommand> {
    let Some(document) = server.documents.get(&params.text_document.uri) else {
        return Vec::new();
    };
    if document.state != State::Good || document.text.len_chars() == 0 {
        return Vec::new();
    }
    let context = &params.context;
    let target = Target {
        uri: document.uri,
        range: params.range,
        version: Some(document.version),
        diagnostic: None,
        instruction: None,
    };
    let fixes = context.diagnostics.iter().take(MAX_FIXES);
    let mut actions: Vec<_> = fixes
        .map(|diagnostic| {
            let target = Target {
                range: diagnostic.range,
                diagnostic: Some(diagnostic.message.clone()),
                ..target.clone()
            };
            (Kind::Fix, target, Some(diagnostic))
        })
        .collect();
    // An editor asks at every move of the cursor; a menu that is always full says nothing.
    let asked = context.trigger_kind != Some(CodeActionTriggerKind::AUTOMATIC)
        || params.range.start != params.range.end;
    if asked {
        let kinds = [Kind::Explain, Kind::Document, Kind::Test, Kind::Rewrite];
        actions.extend(kinds.map(|kind| (kind, target.clone(), None)));
    }
    actions
        .into_iter()
        .filter(|(kind, _, _)| wanted(&kind.kind(), context.only.as_deref()))
        .map(|(kind, target, diagnostic)| action(server, kind, target, diagnostic))
        .collect()
}

/// A kind is wanted if one in `only` is it or holds it: `refactor` holds `refactor.rewrite`.
#[must_use]
pub fn wanted(kind: &CodeActionKind, only: Option<&[CodeActionKind]>) -> bool {
    only.is_none_or(|only| {
        only.iter().any(|only| {
            let rest = kind.as_str().strip_prefix(only.as_str());
            rest.is_some_and(|rest| {
                only.as_str().is_empty() || rest.is_empty() || rest.starts_with('.')
            })
        })
    })
}

fn action(
    server: &Server,
    kind: Kind,
    target: Target,
    diagnostic: Option<&Diagnostic>,
) -> CodeActionOrCommand {
    let title = match diagnostic {
        Some(diagnostic) => format!("{}: {}", kind.title(), first_line(&diagnostic.message)),
        None => kind.title().to_owned(),
    };
    let capabilities = server.capabilities();
    let lazily = capabilities.resolve_edit && kind.is_plain_edit();
    let command = Command {
        title: title.clone(),
        command: kind.command().to_owned(),
        arguments: Some(vec![json!(target)]),
    };
    if !capabilities.code_action_literals {
        return command.into();
    }
    let (command, data) = if lazily {
        (None, Some(json!(Data { kind, target })))
    } else {
        (Some(command), None)
    };
    CodeAction {
        title,
        kind: Some(kind.kind()),
        diagnostics: diagnostic.map(|diagnostic| vec![diagnostic.clone()]),
        command,
        data,
        ..CodeAction::default()
    }
    .into()
}

fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let mut title: String = line.chars().take(MAX_TITLE_CHARS).collect();
    if title.len() < line.len() {
        title.push('…');
    }
    title
}

/// Answers `codeAction/resolve`.
///
/// # Errors
/// Invalid parameters for an action that is not ours; what went wrong, as the user was told, where
/// there is no edit.
pub async fn resolve(server: &Server, mut action: CodeAction) -> Result<CodeAction> {
    let Some(data) = action.data.clone() else {
        // Carries a command, which does it all.
        return Ok(action);
    };
    let Data { kind, target } = serde_json::from_value(data)
        .map_err(|error| Error::invalid_params(format!("the action is not Tandem's: {error}")))?;
    match edit::propose(server, kind, &target, None::<ProgressToken>).await {
        Ok(proposal) => {
            action.edit = Some(proposal.workspace_edit(server));
            Ok(action)
        }
        Err(trouble) => {
            let message = trouble.to_string();
            server
                .client
                .show(MessageType::WARNING, format!("Tandem: {message}"))
                .await;
            Err(failed(&trouble, message))
        }
    }
}

fn failed(trouble: &Trouble, message: String) -> Error {
    let code = match trouble {
        Trouble::Changed => ErrorCode::ContentModified,
        _ => ErrorCode::ServerError(REQUEST_FAILED),
    };
    let mut error = Error::new(code);
    error.message = message.into();
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_hold_what_is_under_them() {
        let check = |kind: CodeActionKind, only: &'static str, expected: bool| {
            assert_eq!(wanted(&kind, Some(&[only.into()])), expected, "{only}");
        };
        check(CodeActionKind::REFACTOR_REWRITE, "refactor", true);
        check(CodeActionKind::REFACTOR_REWRITE, "refactor.rewrite", true);
        check(CodeActionKind::REFACTOR, "refactor.rewrite", false);
        check(CodeActionKind::REFACTOR, "refac", false);
        check(CodeActionKind::QUICKFIX, "", true);
        assert!(wanted(&CodeActionKind::QUICKFIX, None));
        assert!(!wanted(&CodeActionKind::QUICKFIX, Some(&[])));
    }
}
