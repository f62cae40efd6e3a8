//! `tandem`, `tandem lsp`, `tandem mcp`: one session over standard input and output.

use super::edge::Surroundings;
use super::exit::{Exit, Failure};
use crate::app::App;

/// Serves whatever the client speaks.
pub async fn detected(app: App, surroundings: Surroundings) -> Result<Exit, Failure> {
    drop((app, surroundings));
    Err(Failure::failed("protocols are on their way"))
}

/// Serves an editor.
pub async fn lsp(app: App, surroundings: Surroundings) -> Result<Exit, Failure> {
    drop((app, surroundings));
    Err(Failure::failed("protocols are on their way"))
}

/// Serves a host.
pub async fn mcp(app: App, surroundings: Surroundings) -> Result<Exit, Failure> {
    drop((app, surroundings));
    Err(Failure::failed("protocols are on their way"))
}
