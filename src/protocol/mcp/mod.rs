//! MCP, on rmcp: tools, resources and prompts over any pair of byte streams.
//!
//! Both lifecycles share the one pipe: `initialize` (2024-11-05 to 2025-11-25) and the stateless
//! `server/discover` (2026-07-28). The handshake is answered from constants; no model is touched
//! before a tool is called.

mod answer;
mod catalogue;
mod framing;
mod progress;
mod prompts;
mod resources;
mod server;
mod task;
mod types;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rmcp::service::ServerInitializeError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::router::Router;

pub use catalogue::schemas;

/// A tool call ends within this with what there is. Claude Desktop cuts a call at 60 s, and the
/// reply has to be written and read before that.
pub const CALL_LIMIT: Duration = Duration::from_secs(45);

/// How long the last lines may take to be written once the session is over; a host that does not
/// read any more must not keep the process.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// What an MCP session works with.
#[derive(Clone)]
pub struct Session {
    /// Who answers.
    pub router: Arc<Router>,
    /// The folder that relative paths in tool calls mean; for a process on stdio its own.
    pub workspace: Option<PathBuf>,
    /// A tool call ends within this; see [`CALL_LIMIT`].
    pub call_limit: Duration,
}

impl Session {
    /// A session with the usual limit. A file system's root is no workspace: hosts without a
    /// project start their servers there, and a path from it would tell a model whose machine this
    /// is.
    #[must_use]
    pub fn new(router: Arc<Router>, workspace: Option<PathBuf>) -> Self {
        Self {
            router,
            workspace: workspace.filter(|folder| folder.parent().is_some()),
            call_limit: CALL_LIMIT,
        }
    }
}

/// Serves one client until it closes `input`. Must be called within a tokio runtime.
///
/// Calls that still run when the client leaves are given a moment to end and are then cancelled,
/// so this returns within seconds of the end of `input`.
///
/// # Errors
/// When the session ended by a defect rather than by the client's leaving.
pub async fn serve<R, W>(input: R, output: W, session: Session) -> std::io::Result<()>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let hung_up = CancellationToken::new();
    let (wire, mut writer) = wire::Wire::new(input, output, hung_up.clone());
    let server = server::Server::new(session, hung_up);
    let ended = match rmcp::serve_server(server, wire).await {
        Ok(running) => running
            .waiting()
            .await
            .map(drop)
            .map_err(std::io::Error::other),
        // The client left before it had opened a session: hosts probe like that.
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(std::io::Error::other(error)),
    };
    if tokio::time::timeout(FLUSH_LIMIT, &mut writer)
        .await
        .is_err()
    {
        writer.abort();
    }
    ended
}
