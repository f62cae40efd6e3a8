//! What the client can do, resolved once; and what we say we can.

use serde_json::{Value, json};
use tower_lsp::lsp_types::{
    CodeActionKind, CodeActionOptions, CodeActionProviderCapability, CompletionOptions,
    ExecuteCommandOptions, OneOf, ServerCapabilities, TextDocumentSyncCapability,
    TextDocumentSyncKind, TextDocumentSyncOptions, TextDocumentSyncSaveOptions,
    WorkDoneProgressOptions, WorkspaceFoldersServerCapabilities, WorkspaceServerCapabilities,
};

use super::commands;
use super::next_edit;
use super::position::Encoding;

/// The client's capabilities, as far as they matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a capability of LSP's, independent of the others"
)]
pub struct Capabilities {
    /// What positions count.
    pub encoding: Encoding,
    /// `textDocument/inlineCompletion`.
    pub inline_completion: bool,
    /// `workspace/configuration`.
    pub configuration: bool,
    /// Registration of `workspace/didChangeConfiguration` after the start.
    pub register_configuration: bool,
    /// `window/workDoneProgress/create`.
    pub progress: bool,
    /// `window/showDocument`.
    pub show_document: bool,
    /// `workspace/applyEdit`.
    pub apply_edit: bool,
    /// Edits that name the version of the document they are for.
    pub versioned_edits: bool,
    /// Code actions that are more than commands.
    pub code_action_literals: bool,
    /// `codeAction/resolve` may bring the edit.
    pub resolve_edit: bool,
    /// The documentation of a completion may be Markdown.
    pub markdown_documentation: bool,
}

impl Capabilities {
    /// Reads the `params` of `initialize`. lsp-types 0.94 knows no inline completion, so the JSON
    /// itself is read.
    #[must_use]
    pub fn resolve(initialize: &Value) -> Self {
        let client = &initialize["capabilities"];
        let yes = |pointer: &str| client.pointer(pointer).and_then(Value::as_bool) == Some(true);
        let has = |pointer: &str| {
            client
                .pointer(pointer)
                .is_some_and(|value| !value.is_null())
        };
        let lists = |pointer: &str, name: &str| {
            client
                .pointer(pointer)
                .and_then(Value::as_array)
                .is_some_and(|all| all.iter().any(|value| value == name))
        };
        let encodings = client
            .pointer("/general/positionEncodings")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        Self {
            encoding: Encoding::negotiate(encodings),
            inline_completion: has("/textDocument/inlineCompletion"),
            configuration: yes("/workspace/configuration"),
            register_configuration: yes("/workspace/didChangeConfiguration/dynamicRegistration"),
            progress: yes("/window/workDoneProgress"),
            show_document: yes("/window/showDocument/support"),
            apply_edit: yes("/workspace/applyEdit"),
            versioned_edits: yes("/workspace/workspaceEdit/documentChanges"),
            code_action_literals: has("/textDocument/codeAction/codeActionLiteralSupport"),
            markdown_documentation: lists(
                "/textDocument/completion/completionItem/documentationFormat",
                "markdown",
            ),
            resolve_edit: lists("/textDocument/codeAction/resolveSupport/properties", "edit")
                && yes("/textDocument/codeAction/dataSupport"),
        }
    }

    /// What we answer to `initialize`, but for `inlineCompletionProvider`, which the adaptor adds.
    #[must_use]
    pub fn server(self) -> ServerCapabilities {
        // A client with inline completion would show every suggestion twice.
        let completion = (!self.inline_completion).then(|| CompletionOptions {
            trigger_characters: Some([".", "(", ",", "=", ">"].map(str::to_owned).to_vec()),
            ..CompletionOptions::default()
        });
        ServerCapabilities {
            position_encoding: Some(self.encoding.kind()),
            text_document_sync: Some(TextDocumentSyncCapability::Options(
                TextDocumentSyncOptions {
                    open_close: Some(true),
                    change: Some(TextDocumentSyncKind::INCREMENTAL),
                    // For the project's file alone.
                    save: Some(TextDocumentSyncSaveOptions::Supported(true)),
                    ..TextDocumentSyncOptions::default()
                },
            )),
            completion_provider: completion,
            code_action_provider: Some(CodeActionProviderCapability::Options(CodeActionOptions {
                code_action_kinds: Some(vec![
                    CodeActionKind::QUICKFIX,
                    CodeActionKind::REFACTOR,
                    CodeActionKind::REFACTOR_REWRITE,
                ]),
                resolve_provider: Some(true),
                work_done_progress_options: WorkDoneProgressOptions {
                    work_done_progress: Some(true),
                },
            })),
            execute_command_provider: Some(ExecuteCommandOptions {
                commands: commands::all(),
                work_done_progress_options: WorkDoneProgressOptions {
                    work_done_progress: Some(true),
                },
            }),
            workspace: Some(WorkspaceServerCapabilities {
                workspace_folders: Some(WorkspaceFoldersServerCapabilities {
                    supported: Some(true),
                    change_notifications: Some(OneOf::Left(true)),
                }),
                file_operations: None,
            }),
            // LSP has no such request yet. This is how a client of ours knows that it is answered.
            experimental: Some(json!({ "inlineEdit": { "methods": next_edit::METHODS } })),
            ..ServerCapabilities::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_that_says_nothing_can_nothing() {
        for params in [json!({}), json!(null), json!({"capabilities": 3})] {
            assert_eq!(Capabilities::resolve(&params), Capabilities::default());
        }
    }

    #[test]
    fn popups_are_for_clients_without_inline_completion() {
        let mut client = Capabilities::default();
        assert!(client.server().completion_provider.is_some());
        client.inline_completion = true;
        assert!(client.server().completion_provider.is_none());
    }

    #[test]
    fn nested_capabilities_are_found() {
        let params = json!({"capabilities": {
            "general": {"positionEncodings": ["utf-32"]},
            "window": {"workDoneProgress": true, "showDocument": {"support": true}},
            "workspace": {"applyEdit": true, "workspaceEdit": {"documentChanges": true}},
            "textDocument": {
                "inlineCompletion": {},
                "completion": {"completionItem": {
                    "documentationFormat": ["markdown", "plaintext"],
                }},
                "codeAction": {
                    "dataSupport": true,
                    "resolveSupport": {"properties": ["edit"]},
                    "codeActionLiteralSupport": {"codeActionKind": {"valueSet": []}},
                },
            },
        }});
        let expected = Capabilities {
            encoding: Encoding::Utf32,
            inline_completion: true,
            configuration: false,
            register_configuration: false,
            progress: true,
            show_document: true,
            apply_edit: true,
            versioned_edits: true,
            code_action_literals: true,
            resolve_edit: true,
            markdown_documentation: true,
        };
        assert_eq!(Capabilities::resolve(&params), expected);
    }
}
