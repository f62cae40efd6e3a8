//! The composition root: which backends there are, and what is built from the settings.
//!
//! Building is cheap by design, since `initialize` waits for it: models load and connections open
//! on first need.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::backend::claude::ClaudeBackend;
use crate::backend::local::{LocalBackend, ModelSource, NamedBackend};
use crate::backend::scripted::{Script, ScriptedBackend};
use crate::config::{Configuration, Layers, LocalSettings, is_model_name};
use crate::daemon::server::OpenModel;
use crate::inference::{Backend, BackendKind};
use crate::model::{HubEnvironment, Installed, Limits, ModelError, ModelErrorKind, Models};
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
        places: Places,
        scripted: Option<ScriptedAnswer>,
    ) -> anyhow::Result<Self> {
        let configuration = Arc::new(Configuration::new(layers));
        let backends = match scripted {
            Some(answer) => answer.backends(),
            None => backends(&configuration, places)?,
        };
        let router = Arc::new(Router::new(configuration.settings(), backends.clone()));
        Ok(Self {
            configuration,
            router,
            backends,
        })
    }
}

/// Where things are on this machine, as the edge found them.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Where what is spent is kept.
    pub state_folder: Option<PathBuf>,
    /// Where models are kept.
    pub data_folder: Option<PathBuf>,
    /// Where models come from.
    pub hub: HubEnvironment,
}

/// How the daemon opens a model: here, from its file or from inside the program.
#[must_use]
pub fn open_model() -> OpenModel {
    Arc::new(|spec| {
        let source = match spec.path() {
            Some(path) => ModelSource::at(&path, spec.runtime),
            None => ModelSource::embedded(),
        };
        let backend = LocalBackend::open(source, &spec.settings())?;
        Ok(Arc::new(backend) as Arc<dyn Backend>)
    })
}

impl ScriptedAnswer {
    /// How a daemon opens a model that always answers this.
    #[must_use]
    pub fn open_model(self) -> OpenModel {
        Arc::new(move |_| Ok(self.backend()))
    }

    fn backends(&self) -> Backends {
        Backends {
            local: Some(self.backend()),
            ..Backends::default()
        }
    }

    fn backend(&self) -> Arc<dyn Backend> {
        let script = Script {
            pause: self.pause,
            ..Script::text(self.text.clone())
        };
        let backend = ScriptedBackend::new(BackendKind::Scripted, move |_| script.clone());
        Arc::new(backend)
    }
}

fn backends(configuration: &Configuration, places: Places) -> anyhow::Result<Backends> {
    let settings = configuration.settings();
    let local = settings.borrow().local.clone();
    let Places {
        state_folder,
        data_folder,
        hub,
    } = places;
    let open = |source: ModelSource| -> anyhow::Result<Arc<dyn Backend>> {
        let backend = LocalBackend::open(source, &local)
            .context("the system refuses a thread for the model")?;
        Ok(Arc::new(backend))
    };
    Ok(Backends {
        local: local
            .model
            .as_deref()
            .map(|model| match named(model) {
                Some(id) => by_name(id, data_folder.as_deref(), hub, &local),
                None => open(ModelSource::at(model, local.runtime)),
            })
            .transpose()?,
        embedded: local
            .embedded
            .then(|| open(ModelSource::embedded()))
            .transpose()?,
        claude: Some(Arc::new(ClaudeBackend::new(settings, state_folder))),
    })
}

/// The name, where `model` is one and no path: the configuration leaves a word alone only if no file
/// stands there.
fn named(model: &Path) -> Option<&str> {
    let name = model.to_str()?;
    (is_model_name(model) && !model.exists()).then_some(name)
}

fn by_name(
    id: &str,
    data_folder: Option<&Path>,
    hub: HubEnvironment,
    local: &LocalSettings,
) -> anyhow::Result<Arc<dyn Backend>> {
    let homeless = || {
        ModelError::new(
            ModelErrorKind::Absent,
            "there is no home folder to keep models in",
            "Set HOME or XDG_DATA_HOME.",
        )
    };
    let models = data_folder
        .ok_or_else(homeless)
        .and_then(|folder| Models::open(folder, hub, local, Limits::default()));
    let models = match models {
        Ok(models) => models,
        Err(error) => return Ok(Arc::new(NamedBackend::unknown(id, &error))),
    };
    let settings = local.clone();
    let open = Box::new(move |installed: &Installed| {
        let backend = LocalBackend::open(
            ModelSource::at(&installed.path, settings.runtime),
            &settings,
        )?;
        Ok(Arc::new(backend) as Arc<dyn Backend>)
    });
    let backend = NamedBackend::open(id, models, local.context_tokens, local.download, open)
        .context("the system refuses a thread for the model")?;
    Ok(Arc::new(backend))
}
