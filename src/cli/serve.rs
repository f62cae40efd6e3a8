//! `tandem`, `tandem lsp`, `tandem mcp`: one session over standard input and output.

use tokio::io::{AsyncBufRead, BufReader};

use super::args::McpArgs;
use super::edge::Surroundings;
use super::exit::{Exit, Failure};
use crate::app::App;
use crate::protocol::detect::{Protocol, detect};
use crate::protocol::lsp::{self, Ended};
use crate::protocol::mcp;

/// Bytes read at once: a didOpen of a usual document in one piece.
const INPUT_BUFFER: usize = 64 << 10;

fn stdin() -> impl AsyncBufRead + Unpin + Send + 'static {
    BufReader::with_capacity(INPUT_BUFFER, tokio::io::stdin())
}

/// Serves whatever the client speaks.
pub async fn detected(app: App, surroundings: Surroundings) -> Result<Exit, Failure> {
    let mut input = stdin();
    match detect(&mut input).await {
        Ok(Protocol::Lsp) => serve_lsp(input, app, surroundings).await,
        Ok(Protocol::Mcp) => serve_mcp(input, app, surroundings, McpArgs::default()).await,
        Err(error) => Err(Failure::usage(error.to_string())),
    }
}

/// Serves an editor.
pub async fn lsp(app: App, surroundings: Surroundings) -> Result<Exit, Failure> {
    serve_lsp(stdin(), app, surroundings).await
}

/// Serves a host.
pub async fn mcp(app: App, surroundings: Surroundings, args: McpArgs) -> Result<Exit, Failure> {
    serve_mcp(stdin(), app, surroundings, args).await
}

async fn serve_lsp(
    input: impl AsyncBufRead + Unpin,
    app: App,
    surroundings: Surroundings,
) -> Result<Exit, Failure> {
    let session = lsp::Session {
        router: app.router,
        configuration: app.configuration,
        cache: surroundings.cache_folder,
    };
    match lsp::serve(input, tokio::io::stdout(), session).await {
        Ended::ByProtocol => Ok(Exit::Done),
        Ended::Abruptly => Ok(Exit::Abrupt),
    }
}

async fn serve_mcp(
    input: impl AsyncBufRead + Unpin + Send + 'static,
    app: App,
    surroundings: Surroundings,
    args: McpArgs,
) -> Result<Exit, Failure> {
    if let Some(settings) = args.editor_settings {
        let settings = serde_json::from_str(&settings).map_err(|error| {
            Failure::usage(format!(
                "--editor-settings is not JSON: {error}. Pass one object, such as \
                 '{{\"mode\": \"local-only\"}}'."
            ))
        })?;
        // As over LSP: an editor's mistake ends nothing, and closes the way out.
        if let Err(problem) = app.configuration.set_editor(&settings) {
            tracing::error!("{problem} Nothing leaves this machine until then.");
        }
    }
    let folder = surroundings.folder;
    // The host gave this process its folder; a mistake there is logged and closes the way out.
    for problem in app
        .configuration
        .set_folders(std::slice::from_ref(&folder))
        .err()
        .into_iter()
        .flatten()
    {
        tracing::error!("{problem} Nothing leaves this machine until then.");
    }
    let session = mcp::Session::new(app.router, Some(folder));
    mcp::serve(input, tokio::io::stdout(), session)
        .await
        .map_err(|error| {
            Failure::failed(format!(
                "the MCP session broke: {error}. Start it again; if it happens twice, report it \
                 with the log (`--log debug`)."
            ))
        })?;
    Ok(Exit::Done)
}
