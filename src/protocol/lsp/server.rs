//! The state of a session, and the table of what it answers.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::task::JoinSet;
use tower_lsp::LanguageServer;
use tower_lsp::jsonrpc::Result;
use tower_lsp::lsp_types::{
    CodeAction, CodeActionParams, CodeActionResponse, CompletionParams, CompletionResponse,
    DidChangeConfigurationParams, DidChangeWorkspaceFoldersParams, DidSaveTextDocumentParams,
    ExecuteCommandParams, InitializeParams, InitializeResult, InitializedParams, ServerInfo, Url,
};

use super::Session;
use super::accept::{Acceptance, PartialAcceptParams, ShownParams};
use super::ahead::Ahead;
use super::capabilities::Capabilities;
use super::client::Client;
use super::documents::Documents;
use super::generate::PathsOff;
use super::inline::{InlineCompletionList, InlineCompletionParams};
use super::next_edit::{self, InlineEditList, InlineEditParams, Offers};
use super::pace::Pace;
use super::related::Related;
use super::status::{Status, StatusReport};
use super::suggestions::Suggestions;
use super::{actions, commands, completion, configuration, inline, progress};

/// What the handlers of a session share.
pub struct Server {
    /// What the rest of the program gave.
    pub session: Session,
    /// The way to the client.
    pub client: Client,
    /// The open documents.
    pub documents: Documents,
    /// What the user is told about us.
    pub status: Status,
    /// What became of the suggestions.
    pub acceptance: Acceptance,
    /// The next edits that were offered.
    pub next_edits: Offers,
    /// The suggestions that may still hold.
    pub suggestions: Suggestions,
    /// What is computed before it is asked for.
    pub ahead: Ahead,
    /// How the person types and how fast they are answered.
    pub pace: Pace,
    /// What of them is like what.
    pub related: Related,
    /// Where completions are switched off.
    pub paths_off: PathsOff,
    /// How far the handshake has come.
    pub lifecycle: Lifecycle,
    /// Held while the client is asked for its settings.
    pub pulling: tokio::sync::Mutex<()>,
    introduced: Mutex<Introduced>,
    /// Work that belongs to the session and to no request.
    background: Mutex<JoinSet<()>>,
}

/// How far the handshake has come.
#[derive(Debug, Default)]
pub struct Lifecycle {
    /// `initialize` was answered.
    pub initialized: AtomicBool,
    /// `shutdown` was answered.
    pub shut_down: AtomicBool,
}

/// What the client said of itself.
#[derive(Debug, Default)]
struct Introduced {
    capabilities: Capabilities,
    folders: Vec<PathBuf>,
    /// Settings that came with `initialize`.
    options: Option<Value>,
}

impl Server {
    /// A session that nothing was said in yet.
    #[must_use]
    pub fn new(session: Session, client: Client) -> Self {
        Self {
            status: Status::new(client.clone(), session.clone()),
            session,
            client,
            documents: Documents::default(),
            acceptance: Acceptance::default(),
            next_edits: Offers::default(),
            suggestions: Suggestions::default(),
            ahead: Ahead::default(),
            pace: Pace::default(),
            related: Related::default(),
            paths_off: PathsOff::default(),
            lifecycle: Lifecycle::default(),
            pulling: tokio::sync::Mutex::default(),
            introduced: Mutex::default(),
            background: Mutex::default(),
        }
    }

    /// Takes the `params` of `initialize`.
    pub fn introduce(&self, capabilities: Capabilities, params: &Value) {
        let mut folders: Vec<_> = params["workspaceFolders"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|folder| to_path(folder["uri"].as_str()?))
            .collect();
        if folders.is_empty() {
            folders.extend(params["rootUri"].as_str().and_then(to_path));
        }
        *self.introduced() = Introduced {
            capabilities,
            folders,
            options: None,
        };
    }

    /// What the client can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.introduced().capabilities
    }

    /// The workspace's folders.
    #[must_use]
    pub fn workspace_folders(&self) -> Vec<PathBuf> {
        self.introduced().folders.clone()
    }

    /// The innermost workspace folder that holds `file`.
    #[must_use]
    pub fn workspace_of(&self, file: &Path) -> Option<PathBuf> {
        self.introduced()
            .folders
            .iter()
            .filter(|folder| file.starts_with(folder))
            .max_by_key(|folder| folder.components().count())
            .cloned()
    }

    /// Whether `initialize` was answered.
    #[must_use]
    pub fn initialized(&self) -> bool {
        self.lifecycle.initialized.load(Ordering::Acquire)
    }

    /// Whether `shutdown` was answered.
    #[must_use]
    pub fn shut_down(&self) -> bool {
        self.lifecycle.shut_down.load(Ordering::Acquire)
    }

    /// Starts work that ends with the session.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut background = self
            .background
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while background.try_join_next().is_some() {}
        background.spawn(work);
    }

    /// Ends the work of the session.
    pub fn stop(&self) {
        self.background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
    }

    fn introduced(&self) -> MutexGuard<'_, Introduced> {
        self.introduced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn to_path(uri: &str) -> Option<PathBuf> {
    Url::parse(uri).ok()?.to_file_path().ok()
}

/// The methods of the protocol, each in its own file.
pub struct Handlers(pub Arc<Server>);

#[tower_lsp::async_trait]
impl LanguageServer for Handlers {
    async fn initialize(&self, params: InitializeParams) -> Result<InitializeResult> {
        self.0.introduced().options = params.initialization_options;
        Ok(InitializeResult {
            capabilities: self.0.capabilities().server(),
            server_info: Some(ServerInfo {
                name: "tandem".to_owned(),
                version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            }),
        })
    }

    async fn initialized(&self, _: InitializedParams) {
        // Not before: until `initialize` is answered, a client takes no messages of ours.
        let known = configuration::known_problems(&self.0);
        configuration::take_folders(&self.0).await;
        configuration::tell(&self.0, &known).await;
        let options = self.0.introduced().options.take();
        if let Some(options) = options {
            configuration::apply(&self.0, &options).await;
        }
        self.0.spawn(progress::follow(Arc::clone(&self.0)));
        configuration::start(&self.0).await;
    }

    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }

    async fn did_save(&self, params: DidSaveTextDocumentParams) {
        configuration::saved(&self.0, &params.text_document.uri).await;
    }

    async fn did_change_configuration(&self, params: DidChangeConfigurationParams) {
        configuration::changed(&self.0, params.settings).await;
    }

    async fn completion(&self, params: CompletionParams) -> Result<Option<CompletionResponse>> {
        Ok(Some(completion::completion(&self.0, params).await))
    }

    async fn code_action(&self, params: CodeActionParams) -> Result<Option<CodeActionResponse>> {
        // Without a wait before it: both are for the documents as they are now.
        let mut actions = actions::list(&self.0, &params);
        if let Some(next) = next_edit::action(&self.0, &params).await {
            actions.insert(0, next);
        }
        Ok(Some(actions))
    }

    async fn code_action_resolve(&self, action: CodeAction) -> Result<CodeAction> {
        actions::resolve(&self.0, action).await
    }

    async fn execute_command(&self, params: ExecuteCommandParams) -> Result<Option<Value>> {
        commands::execute(&self.0, params).await
    }

    async fn did_change_workspace_folders(&self, params: DidChangeWorkspaceFoldersParams) {
        {
            let folders = &mut self.0.introduced().folders;
            for removed in params.event.removed {
                let path = removed.uri.to_file_path().ok();
                folders.retain(|folder| Some(folder) != path.as_ref());
            }
            let added = params.event.added.into_iter();
            folders.extend(added.filter_map(|folder| folder.uri.to_file_path().ok()));
        }
        configuration::take_folders(&self.0).await;
    }
}

#[expect(
    clippy::unused_async,
    reason = "tower-lsp takes only async functions for custom methods"
)]
impl Handlers {
    /// `textDocument/inlineCompletion`.
    pub async fn inline_completion(
        &self,
        params: InlineCompletionParams,
    ) -> Result<InlineCompletionList> {
        Ok(inline::inline_completion(&self.0, params).await)
    }

    /// [`next_edit::METHODS`].
    pub async fn inline_edit(&self, params: InlineEditParams) -> Result<InlineEditList> {
        Ok(next_edit::inline_edit(&self.0, params).await)
    }

    /// `textDocument/didShowInlineEdit`.
    pub async fn did_show_edit(&self, params: ShownParams) {
        next_edit::shown(&params);
    }

    /// `textDocument/didShowCompletion`.
    pub async fn did_show(&self, params: ShownParams) {
        self.0.acceptance.shown(&params);
    }

    /// `textDocument/didPartiallyAcceptCompletion`.
    pub async fn did_partially_accept(&self, params: PartialAcceptParams) {
        self.0.acceptance.partially_accepted(&params);
    }

    /// `tandem/status`.
    pub async fn status(&self, _: Option<Value>) -> Result<StatusReport> {
        Ok(self.0.status.report(&self.0.acceptance))
    }
}
