//! The composition root: which backends there are, and what is built from the settings.
//!
//! Building is cheap by design, since `initialize` waits for it: models load and connections open
//! on first need.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::backend::claude::ClaudeBackend;
use crate::backend::local::{LocalBackend, ModelSource};
use crate::backend::scripted::{Script, ScriptedBackend};
use crate::config::{Configuration, Layers};
use crate::inference::{Backend, BackendKind};
use crate::router::{Backends, Router};

/// What a session is made of.
#[derive(Clone)]
pub struct App {
    /// The levels of the configuration and the settings that come of them.
    pub configuration: Arc<Configuration>,
    /// Where requests go.
    pub router: Arc<Router>,
    /// The router's backends.
    pub backends: Backends,
}

/// One answer for everything, for benches and tests that measure all but the model.
#[derive(Debug, Clone)]
pub struct ScriptedAnswer {
    /// The text.
    pub text: String,
    /// The pause before it.
    pub pause: Duration,
}

impl App {
    /// Builds a session. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn build(
        layers: Layers,
        state_folder: Option<PathBuf>,
        scripted: Option<ScriptedAnswer>,
    ) -> anyhow::Result<Self> {
        let configuration = Arc::new(Configuration::new(layers));
        let backends = match scripted {
            Some(answer) => answer.backends(),
            None => backends(&configuration, state_folder)?,
        };
        let router = Arc::new(Router::new(configuration.settings(), backends.clone()));
        Ok(Self {
            configuration,
            router,
            backends,
        })
    }
}

impl ScriptedAnswer {
    fn backends(self) -> Backends {
        let backend = ScriptedBackend::new(BackendKind::Scripted, move |_| Script {
            pause: self.pause,
            ..Script::text(self.text.clone())
        });
        Backends {
            local: Some(Arc::new(backend)),
            ..Backends::default()
        }
    }
}

fn backends(
    configuration: &Configuration,
    state_folder: Option<PathBuf>,
) -> anyhow::Result<Backends> {
    let settings = configuration.settings();
    let local = settings.borrow().local.clone();
    let open = |source: ModelSource| -> anyhow::Result<Arc<dyn Backend>> {
        let backend = LocalBackend::open(source, &local)
            .context("the system refuses a thread for the model")?;
        Ok(Arc::new(backend))
    };
    Ok(Backends {
        local: local
            .model
            .as_deref()
            .map(|path| open(ModelSource::at(path)))
            .transpose()?,
        embedded: local
            .embedded
            .then(|| open(ModelSource::embedded()))
            .transpose()?,
        claude: Some(Arc::new(ClaudeBackend::new(settings, state_folder))),
    })
}
