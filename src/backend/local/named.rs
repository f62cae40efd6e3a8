//! A model of the catalogue as a backend: opened where it is there, downloaded on first need where
//! the user said that it may be, and told how to get it where not.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::inference::{
    Backend, BackendKind, Descriptor, ErrorKind, Event, GenerateError, GenerateRequest, Health,
    Placement, Statistics, TokenStream,
};
use crate::model::{self, Installed, Kind, ModelError, Models, Step};

/// A download that failed is tried again on need after so long: what passes does so in a minute,
/// and a full disk may have room by then.
const RETRY: Duration = Duration::from_mins(1);

/// The progress is told in so many steps. Readers draw each of them.
const STEPS: u64 = 200;

/// Opens a model that is there with the engine for its kind.
pub type Open = Box<dyn Fn(&Installed) -> std::io::Result<Arc<dyn Backend>> + Send + Sync>;

/// See the module.
pub struct NamedBackend {
    descriptor: Descriptor,
    shared: Arc<Shared>,
    /// Ends the download when the backend is dropped; what has arrived is kept.
    stop: CancellationToken,
}

struct Shared {
    id: String,
    /// `None`: nothing may be downloaded.
    download: Option<Models>,
    open: Open,
    engine: OnceLock<Arc<dyn Backend>>,
    health: watch::Sender<Health>,
    /// Whether a thread downloads, or did and follows the engine's health now.
    busy: Mutex<bool>,
}

impl NamedBackend {
    /// A backend for the model called `id`, with at most `context_tokens`. Without `download` a
    /// model that is not there stays so.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn open(
        id: &str,
        models: Models,
        context_tokens: usize,
        download: bool,
        open: Open,
    ) -> std::io::Result<Self> {
        let entry = models.catalogue.find(id).cloned();
        let known = entry.as_ref().ok();
        let mut descriptor = Descriptor {
            kind: match known.map(|entry| entry.kind) {
                Some(Kind::Anemll) => BackendKind::CoreMl,
                Some(Kind::Gguf | Kind::Safetensors) | None => BackendKind::Candle,
            },
            model: id.to_owned(),
            context_tokens: known.map_or(context_tokens, |entry| {
                entry.context_tokens.min(context_tokens)
            }),
        };
        let engine = OnceLock::new();
        let health = match models.installed(id) {
            Ok(installed) => {
                let backend = open(&installed)?;
                descriptor.kind = backend.descriptor().kind;
                descriptor.context_tokens = backend.descriptor().context_tokens;
                let _ = engine.set(backend);
                Health::Unloaded
            }
            // Loading on first need is what it does: the download is a part of that.
            Err(_) if download && entry.is_ok() => Health::Unloaded,
            Err(error) => Health::Absent {
                why: absent(&error, entry.is_ok()),
            },
        };
        Ok(Self {
            descriptor,
            shared: Arc::new(Shared {
                id: id.to_owned(),
                download: (download && entry.is_ok()).then_some(models),
                open,
                engine,
                health: watch::Sender::new(health),
                busy: Mutex::new(false),
            }),
            stop: CancellationToken::new(),
        })
    }

    /// A backend for a model that cannot be looked for, because of `error`.
    #[must_use]
    pub fn unknown(id: &str, error: &ModelError) -> Self {
        Self {
            descriptor: Descriptor {
                kind: BackendKind::Candle,
                model: id.to_owned(),
                context_tokens: usize::MAX,
            },
            shared: Arc::new(Shared {
                id: id.to_owned(),
                download: None,
                open: Box::new(|_| Err(std::io::ErrorKind::NotFound.into())),
                engine: OnceLock::new(),
                health: watch::Sender::new(Health::Absent {
                    why: error.to_string(),
                }),
                busy: Mutex::new(false),
            }),
            stop: CancellationToken::new(),
        }
    }

    /// Starts the download, unless one runs or none may.
    fn fetch(&self) {
        let Some(models) = self.shared.download.clone() else {
            return;
        };
        let mut busy = self.shared.busy();
        if *busy {
            return;
        }
        self.shared.health.send_replace(Health::Downloading {
            bytes: 0,
            total: None,
        });
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        // On a thread of its own: hashes and disks must not hold up a protocol. It ends when the
        // backend is dropped.
        let started = thread::Builder::new()
            .name("tandem-download".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => {
                        runtime.block_on(stop.run_until_cancelled(shared.supply(&models)));
                    }
                    Err(error) => {
                        shared.fail(format!("the system refuses it: {error}. Try again."));
                    }
                }
                *shared.busy() = false;
            });
        match started {
            Ok(_) => *busy = true,
            Err(error) => {
                drop(busy);
                let told = format!("the system refuses a thread: {error}. Try again.");
                self.shared.fail(told);
            }
        }
    }
}

impl Backend for NamedBackend {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn health(&self) -> watch::Receiver<Health> {
        match self.shared.engine.get() {
            // Nothing stands between, unless the engine came later: then who asked before goes on
            // listening to us, and so may all.
            Some(engine) if self.shared.download.is_none() => engine.health(),
            Some(engine) if !*self.shared.busy() => engine.health(),
            _ => self.shared.health.subscribe(),
        }
    }

    fn placement(&self) -> Option<Placement> {
        self.shared.engine.get()?.placement()
    }

    fn statistics(&self) -> Option<Statistics> {
        self.shared.engine.get()?.statistics()
    }

    fn warm_up(&self) {
        match self.shared.engine.get() {
            Some(engine) => engine.warm_up(),
            None => self.fetch(),
        }
    }

    fn generate(&self, request: GenerateRequest, cancel: CancellationToken) -> TokenStream {
        if let Some(engine) = self.shared.engine.get() {
            return engine.generate(request, cancel);
        }
        self.fetch();
        let error = match &*self.shared.health.borrow() {
            Health::Absent { why } => absent_error(why),
            Health::Failed { error, .. } => absent_error(error),
            health => GenerateError::new(
                ErrorKind::Unavailable,
                match health.progress() {
                    Some(progress) => format!(
                        "the model `{}` is still being downloaded ({progress})",
                        self.shared.id
                    ),
                    None => format!("the model `{}` is still being downloaded", self.shared.id),
                },
                "Ask again when it is there.",
            ),
        };
        let (sender, stream) = TokenStream::channel(cancel);
        let _ = sender.try_send(Event::Failed(error));
        stream
    }
}

impl Drop for NamedBackend {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn busy(&self) -> std::sync::MutexGuard<'_, bool> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Downloads the model, opens it, loads it, and follows its health from then on.
    async fn supply(&self, models: &Models) {
        let engine = match self.download(models).await {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!(%error, "the model cannot be downloaded");
                self.fail(error);
                tokio::time::sleep(RETRY).await;
                self.health.send_replace(Health::Unloaded);
                return;
            }
        };
        let mut health = engine.health();
        // It was needed, or it would not have been fetched.
        engine.warm_up();
        let mut begun = false;
        loop {
            let now = health.borrow_and_update().clone();
            begun |= now != Health::Unloaded;
            // It has been asked to load: that it has not begun yet is no news for a reader's bar.
            self.health
                .send_replace(if begun { now } else { Health::Loading });
            if health.changed().await.is_err() {
                return;
            }
        }
    }

    async fn download(&self, models: &Models) -> Result<Arc<dyn Backend>, String> {
        let entry = models.catalogue.find(&self.id);
        let entry = entry.map_err(|error| error.to_string())?;
        let told = Mutex::new((None, 0));
        let observer = |step| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let (total, last) = &mut *told;
            let bytes = match step {
                Step::Started { total: known } => {
                    *total = Some(known);
                    0
                }
                Step::Advanced { done } => {
                    let size = total.unwrap_or(1).max(1);
                    let share = (u128::from(done) * u128::from(STEPS) / u128::from(size)) as u64;
                    if share == *last {
                        return;
                    }
                    *last = share;
                    done
                }
                Step::Waiting | Step::Again { .. } => return,
            };
            let total = *total;
            self.health
                .send_replace(Health::Downloading { bytes, total });
        };
        let installed = model::pull(&models.store, &models.hub, entry, &observer).await;
        let installed = installed.map_err(|error| error.to_string())?;
        let engine = (self.open)(&installed)
            .map_err(|error| format!("the system refuses a thread: {error}. Try again."))?;
        Ok(Arc::clone(self.engine.get_or_init(|| engine)))
    }

    fn fail(&self, error: String) {
        self.health.send_replace(Health::Failed {
            error,
            retry_after: Some(RETRY),
        });
    }
}

fn absent(error: &ModelError, known: bool) -> String {
    if known {
        format!(
            "{error} Sessions that start after that use it; with `local.download: true` a session \
             does it by itself."
        )
    } else {
        error.to_string()
    }
}

/// `told` ends with the next step, which an error keeps apart.
fn absent_error(told: &str) -> GenerateError {
    GenerateError::new(
        ErrorKind::Unavailable,
        "the configured model is not there",
        told,
    )
}
