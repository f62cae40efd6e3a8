//! The server with the scripted backend: this program, started by itself.

use std::sync::Arc;

use tandem::backend::scripted::ScriptedBackend;
use tandem::config::{Configuration, Layer, Layers, Options};
use tandem::inference::BackendKind;
use tandem::protocol::lsp::{Session, serve as serve_lsp};
use tandem::router::{Backends, Router};
use tokio::io::BufReader;

use crate::mock::ANSWER;

/// Serves one client over standard input and output, from a backend that answers at once.
pub fn serve() -> anyhow::Result<()> {
    let at_once = Options::from_text("completion.debounce", "0", "the bench")?;
    let configuration = Arc::new(Configuration::new(Layers {
        flags: vec![Layer::new("the bench", at_once)],
        ..Layers::default()
    }));
    let backends = Backends {
        local: Some(Arc::new(ScriptedBackend::saying(
            BackendKind::Candle,
            ANSWER,
        ))),
        ..Backends::default()
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let session = Session {
            router: Arc::new(Router::new(configuration.settings(), backends)),
            configuration,
            cache: std::env::temp_dir(),
        };
        serve_lsp(
            BufReader::new(tokio::io::stdin()),
            tokio::io::stdout(),
            session,
        )
        .await;
    });
    // The reader of standard input sits in a thread that only the end of the input ends.
    runtime.shutdown_background();
    Ok(())
}
