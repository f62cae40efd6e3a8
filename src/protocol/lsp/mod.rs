//! LSP, on tower-lsp: what comes in over a pipe becomes requests to the router.

mod accept;
mod actions;
mod adaptor;
mod agree;
mod ahead;
mod block;
mod capabilities;
mod client;
mod commands;
mod commit;
mod completion;
mod configuration;
mod context;
mod documents;
mod edit;
mod explain;
mod framing;
mod generate;
mod inline;
mod message;
mod next_edit;
mod pace;
mod position;
mod progress;
mod related;
mod server;
mod status;
mod suggestions;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncBufRead, AsyncWrite};

use crate::config::Configuration;
use crate::router::Router;

use adaptor::Adaptor;
use client::Client;
use server::Server;

/// What a session needs from the rest of the program.
#[derive(Clone)]
pub struct Session {
    /// Where requests go.
    pub router: Arc<Router>,
    /// Takes the editor's settings and the workspace's folders. The router follows it.
    pub configuration: Arc<Configuration>,
    /// A folder of the user's own for documents that are shown once, such as explanations. Made on
    /// first need.
    pub cache: PathBuf,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// `exit` after `shutdown`: LSP wants the exit code 0.
    ByProtocol,
    /// `exit` or the end of the input without `shutdown`: LSP wants the exit code 1.
    Abruptly,
}

impl Ended {
    /// The process's exit code, as LSP 3.17 says under Exit Notification.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::ByProtocol => 0,
            Self::Abruptly => 1,
        }
    }
}

/// Serves one client until it says `exit` or closes the input.
pub async fn serve<I, O>(input: I, output: O, session: Session) -> Ended
where
    I: AsyncBufRead + Unpin,
    O: AsyncWrite + Unpin + Send + 'static,
{
    let (client, outbox) = Client::new();
    let server = Arc::new(Server::new(session, client.clone()));
    let adaptor = Adaptor::new(Arc::clone(&server));
    transport::run(input, output, adaptor, client, outbox).await;
    server.stop();
    if server.shut_down() {
        Ended::ByProtocol
    } else {
        Ended::Abruptly
    }
}
