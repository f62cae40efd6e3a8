//! The composition root: which backends there are, and what is built from the settings.
//!
//! Building is cheap by design, since `initialize` waits for it: models load and connections open
//! on first need.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context as _;

use crate::backend::claude::ClaudeBackend;
use crate::backend::local::stamp::ABSENCE;
use crate::backend::local::{Described, LocalBackend, ModelSource, NamedBackend};
use crate::backend::scripted::{Script, ScriptedBackend};
use crate::backend::server::ServerBackend;
use crate::config::{Configuration, Layers, LocalSettings, is_model_name};
use crate::daemon::client::{self, Link, LinkOptions, OnCrash, SharedBackend};
use crate::daemon::server::OpenModel;
use crate::daemon::wire::ReportedBackend;
use crate::daemon::{Build, ModelSpec, Place, StartCommand};
use crate::inference::{Backend, BackendKind, Health};
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
        sharing: Option<Sharing>,
    ) -> anyhow::Result<Self> {
        let configuration = Arc::new(Configuration::new(layers));
        let enabled = configuration.settings().borrow().daemon.enabled;
        let link = sharing
            .filter(|_| enabled && scripted.is_none())
            .map(Sharing::link);
        let backends = match scripted {
            Some(answer) => answer.backends(),
            None => backends(&configuration, places, link.as_ref())?,
        };
        let router = Arc::new(Router::new(configuration.settings(), backends.clone()));
        if let Some(link) = link {
            // Where one runs, its models' health is told from the start.
            link.attach();
            // Ends with the process, as the router does.
            tokio::spawn(report(Arc::downgrade(&router), link));
        }
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

/// How a process shares its models with the user's others.
#[derive(Debug, Clone)]
pub struct Sharing {
    /// Where the daemon is.
    pub place: Place,
    /// This program's build.
    pub build: Build,
    /// What this process is, for people: `lsp`, `mcp`, `complete`.
    pub name: &'static str,
    /// How to start a daemon; `None` to use one that runs and start none.
    pub start: Option<StartCommand>,
}

impl Sharing {
    fn link(self) -> Arc<Link> {
        Link::new(LinkOptions {
            place: self.place,
            build: self.build,
            name: self.name.to_owned(),
            start: self.start,
            limits: client::Limits::default(),
        })
    }
}

/// Tells the daemon how the session's backends are, for `tandem status` in a terminal.
async fn report(router: Weak<Router>, link: Arc<Link>) {
    let Some(mut changes) = router.upgrade().map(|router| router.watch_status()) else {
        return;
    };
    while let Some(router) = router.upgrade() {
        let backends = router.status().into_iter();
        link.report(
            backends
                .map(|backend| ReportedBackend {
                    kind: backend.kind,
                    model: backend.model,
                    health: backend.health.word().to_owned(),
                    breaker: backend.breaker.to_owned(),
                })
                .collect(),
        );
        drop(router);
        changes.changed().await;
    }
}

/// How the daemon opens a model: here, from its file or from inside the program.
#[must_use]
pub fn open_model() -> OpenModel {
    Arc::new(|spec| open_here(spec.path().as_deref(), &spec.settings()))
}

/// The model at `path`, or the embedded one, inside this process.
fn open_here(path: Option<&Path>, settings: &LocalSettings) -> io::Result<Arc<dyn Backend>> {
    let backend = LocalBackend::open(source(path, settings), settings)?;
    Ok(Arc::new(backend))
}

fn source(path: Option<&Path>, settings: &LocalSettings) -> ModelSource {
    path.map_or_else(ModelSource::embedded, |path| {
        ModelSource::at(path, settings.runtime)
    })
}

/// The model at `path`, or the embedded one: the daemon's where there is a `link` to one, else of
/// this process. A path that the wire cannot say is opened here.
fn open_shared(
    path: Option<&Path>,
    settings: &LocalSettings,
    link: Option<&Arc<Link>>,
) -> io::Result<Arc<dyn Backend>> {
    let here = {
        let (path, settings) = (path.map(Path::to_owned), settings.clone());
        move || open_here(path.as_deref(), &settings)
    };
    let Some((link, spec)) = link.zip(ModelSpec::new(path, settings)) else {
        return here();
    };
    let Described {
        descriptor,
        health,
        placement,
    } = LocalBackend::describe(&source(path, settings), settings);
    // A model that is large may be what the daemon dies of; tandem-mini is not.
    let crash = path.map_or(OnCrash::ServeHere, |_| OnCrash::Fail);
    let absent = matches!(health, Health::Absent { .. });
    let backend = Arc::new(SharedBackend::new(
        Arc::clone(link),
        spec,
        descriptor,
        health,
        Some(placement),
        Box::new(here),
        crash,
    ));
    if absent {
        // Nobody asks a daemon for a model that is absent, so the session looks for it itself.
        let found = appearance(path.map(Path::to_owned), settings.clone());
        let waiting = Arc::downgrade(&backend);
        tokio::spawn(async move {
            found.await;
            if let Some(backend) = waiting.upgrade() {
                backend.appeared();
            }
        });
    }
    Ok(backend)
}

/// Waits until the model at `path` can be loaded, as far as that can be told without loading it. Ends
/// with the session, as what waits for it does.
async fn appearance(path: Option<PathBuf>, settings: LocalSettings) {
    loop {
        tokio::time::sleep(ABSENCE).await;
        let (path, settings) = (path.clone(), settings.clone());
        // What stands there may be another kind of model than what was meant to.
        let look = move || {
            let described = LocalBackend::describe(&source(path.as_deref(), &settings), &settings);
            !matches!(described.health, Health::Absent { .. })
        };
        if tokio::task::spawn_blocking(look).await.unwrap_or(true) {
            return;
        }
    }
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

fn backends(
    configuration: &Configuration,
    places: Places,
    link: Option<&Arc<Link>>,
) -> anyhow::Result<Backends> {
    let settings = configuration.settings();
    let local = settings.borrow().local.clone();
    let Places {
        state_folder,
        data_folder,
        hub,
    } = places;
    let open = |path: Option<&Path>| -> anyhow::Result<Arc<dyn Backend>> {
        open_shared(path, &local, link).context("the system refuses a thread for the model")
    };
    Ok(Backends {
        local: local
            .model
            .as_deref()
            .map(|model| match named(model) {
                Some(id) => by_name(id, data_folder.as_deref(), hub, &local, link),
                None => open(Some(model)),
            })
            .transpose()?,
        embedded: local.embedded.then(|| open(None)).transpose()?,
        server: ServerBackend::new(settings.clone()).map(|server| Arc::new(server) as _),
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
    link: Option<&Arc<Link>>,
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
    let (settings, link) = (local.clone(), link.cloned());
    // Downloaded in the session, which may speak to the hub; opened by whoever holds the models.
    let open = Box::new(move |installed: &Installed| {
        open_shared(Some(&installed.path), &settings, link.as_ref())
    });
    let backend = NamedBackend::open(id, models, local.context_tokens, local.download, open)
        .context("the system refuses a thread for the model")?;
    Ok(Arc::new(backend))
}
