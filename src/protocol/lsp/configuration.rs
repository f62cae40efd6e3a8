//! The editor's settings: asked for at the start and whenever they change.

use std::sync::Arc;

use serde_json::{Value, json};
use tower_lsp::lsp_types::notification::{DidChangeConfiguration, Notification};
use tower_lsp::lsp_types::request::{RegisterCapability, WorkspaceConfiguration};
use tower_lsp::lsp_types::{
    ConfigurationItem, ConfigurationParams, MessageType, Registration, RegistrationParams, Url,
};

use crate::config::{ConfigError, PROJECT_FILE};

use super::server::Server;

/// The name of our section in an editor's settings.
const SECTION: &str = "tandem";

/// Asks for the settings and to be told when they change, as far as the client can.
pub async fn start(server: &Arc<Server>) {
    let capabilities = server.capabilities();
    if capabilities.register_configuration {
        let registration = Registration {
            id: "tandem-configuration".to_owned(),
            method: DidChangeConfiguration::METHOD.to_owned(),
            register_options: Some(json!({ "section": SECTION })),
        };
        let asked = server
            .client
            .request::<RegisterCapability>(RegistrationParams {
                registrations: vec![registration],
            })
            .await;
        if let Err(error) = asked {
            tracing::warn!(%error, "changes of the settings will not be told");
        }
    }
    if capabilities.configuration {
        pull(server).await;
    }
}

/// Takes `workspace/didChangeConfiguration`. Clients that can be asked send anything or nothing
/// with it; others send all settings, or our section alone.
pub async fn changed(server: &Arc<Server>, mut settings: Value) {
    if server.capabilities().configuration {
        let server = Arc::clone(server);
        // Its answer comes through the loop that waits for this handler's first poll.
        server.clone().spawn(async move { pull(&server).await });
    } else if !settings.is_null() {
        let section = match settings.get_mut(SECTION) {
            Some(section) => section.take(),
            None => settings,
        };
        apply(server, &section).await;
    }
}

/// Puts settings in force, or tells the user what is wrong with them.
pub async fn apply(server: &Server, section: &Value) {
    if section.is_null() {
        return;
    }
    match server.session.configuration.set_editor(section) {
        Ok(()) => server.status.announce().await,
        Err(why) => warn(server, &why).await,
    }
}

/// What was wrong with the configuration before the editor said anything.
pub fn known_problems(server: &Server) -> Vec<ConfigError> {
    server.session.configuration.layers().problems
}

/// Tells the user what is wrong.
pub async fn tell(server: &Server, problems: &[ConfigError]) {
    for why in problems {
        warn(server, why).await;
    }
}

/// Takes the workspace's folders, or tells the user what is wrong with their files.
pub async fn take_folders(server: &Server) {
    // A file or two of a few lines: read before the next message is looked at, so that no request
    // leaves the machine that a project's file keeps on it.
    let taken = server
        .session
        .configuration
        .set_folders(&server.workspace_folders());
    tell(server, &taken.err().unwrap_or_default()).await;
}

/// Takes `textDocument/didSave`: a project's file is in force once it is saved.
pub async fn saved(server: &Server, uri: &Url) {
    if uri.path().rsplit('/').next() == Some(PROJECT_FILE) {
        take_folders(server).await;
        server.status.announce().await;
    }
}

async fn warn(server: &Server, why: &ConfigError) {
    tracing::warn!(%why, "a level of the configuration is wrong");
    server
        .client
        .show(MessageType::WARNING, format!("Tandem: {why}"))
        .await;
}

async fn pull(server: &Server) {
    // One at a time: an answer that overtakes a newer one would put old settings in force.
    let _one = server.pulling.lock().await;
    let params = ConfigurationParams {
        items: vec![ConfigurationItem {
            scope_uri: None,
            section: Some(SECTION.to_owned()),
        }],
    };
    match server
        .client
        .request::<WorkspaceConfiguration>(params)
        .await
    {
        Ok(sections) => {
            if let Some(section) = sections.first() {
                apply(server, section).await;
            }
        }
        Err(error) => tracing::warn!(%error, "the editor's settings were not told"),
    }
}
