//! `workspace/executeCommand`.

use serde_json::{Value, json};
use tower_lsp::jsonrpc::{Error, Result};
use tower_lsp::lsp_types::ExecuteCommandParams;

use super::accept::ACCEPTED;
use super::server::Server;

/// The commands that a client may send.
pub const COMMANDS: [&str; 4] = [ACCEPTED, PAUSE, RESUME, STATUS];

const PAUSE: &str = "tandem.pause";
const RESUME: &str = "tandem.resume";
const STATUS: &str = "tandem.status";

/// Does what a command says.
///
/// # Errors
/// Invalid parameters, for a command that is not ours or arguments that are not its own.
pub async fn execute(server: &Server, params: ExecuteCommandParams) -> Result<Option<Value>> {
    match params.command.as_str() {
        ACCEPTED => {
            let known = server.acceptance.accepted(&params.arguments);
            Ok(Some(json!({ "known": known })))
        }
        PAUSE | RESUME => {
            server.status.pause(params.command == PAUSE).await;
            Ok(None)
        }
        STATUS => serde_json::to_value(server.status.report(&server.acceptance))
            .map(Some)
            .map_err(|_| Error::internal_error()),
        unknown => Err(Error::invalid_params(format!(
            "there is no command {unknown:?}; there are {}",
            COMMANDS.join(", ")
        ))),
    }
}
