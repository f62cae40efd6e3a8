//! The on-device engine: Qwen models on the processor, through candle.

pub mod anemll;
pub mod continuation;
pub mod decode;
pub mod detokenizer;
pub mod device;
pub mod drafting;
pub mod embedded;
mod engine;
pub mod error;
pub mod gguf;
pub mod grammar;
pub mod greedy;
pub mod guide;
pub mod infinigram;
pub mod kv_cache;
pub mod loader;
pub mod lookup;
pub mod model_config;
mod named;
pub mod packed;
pub mod payoff;
pub mod probe;
mod prompting;
pub mod queue;
pub mod qwen;
mod read_at;
pub mod sampler;
mod schedule;
pub mod sequence;
pub mod stamp;
pub mod stop;
pub mod threads;
pub mod tokenizer;
pub mod watchdog;
pub mod weights;
pub mod window;
pub mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::anemll::bundle::AnemllBundle;
use self::anemll::loading::BundleSource;
use self::error::LoadErrorKind;
use self::loader::Arithmetic;
pub use self::named::{NamedBackend, Open};
use self::probe::Floor;
use self::queue::Clock;
use self::sampler::Scores;
use self::sequence::Sequence;
use self::stamp::Files;
use self::window::Window;
use self::worker::{Worker, WorkerOptions};
use crate::config::{BundleRuntime, ComputeEngine, LocalSettings};
use crate::inference::{
    Backend, BackendKind, Descriptor, GenerateError, GenerateRequest, Health, Placement,
    Statistics, TokenStream,
};

/// How a prompt is computed by a model that insists on batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefill {
    /// In its batches.
    Batched,
    /// Token by token: slower, and the last resort where the batches give other results.
    TokenByToken,
}

/// A model that continues a sequence of tokens.
///
/// It is made, used and dropped on one thread, so it need not be `Send`: Core ML's objects are not.
pub trait LanguageModel {
    /// A sequence without tokens.
    ///
    /// # Errors
    /// When the runtime has no room for another.
    fn sequence(&mut self) -> Result<Sequence, GenerateError>;

    /// Computes `tokens` (not empty) behind those in `sequence`, which this model made, and adds
    /// them to it. Where `scores` are given they become those of the last token; a model that does
    /// not fill one of their fields leaves it empty.
    ///
    /// With [`Self::block`], `tokens` are either whole batches that start on a multiple of it, or lie
    /// within one batch.
    ///
    /// # Errors
    /// When the arithmetic fails; `sequence` then holds what it held before.
    fn forward(
        &mut self,
        tokens: &[u32],
        sequence: &mut Sequence,
        scores: Option<&mut Scores>,
    ) -> Result<(), GenerateError>;

    /// Has it give up what it computes as soon as it can once `cancel` is cancelled, from now on. What was
    /// given up fails as cancelled, and `sequence` then holds what it held before, and of the new tokens those
    /// that were computed.
    fn heed(&mut self, cancel: Option<&CancellationToken>) {
        let _ = cancel;
    }

    /// Does a little (milliseconds) of what makes it faster and can wait until nothing is asked of it. Returns
    /// whether there is more.
    fn settle(&mut self) -> bool {
        false
    }

    /// How many tokens it sees at once, and what happens when there are more.
    fn window(&self) -> Window;

    /// The batch of tokens in which it computes prompts, where it insists on one.
    fn block(&self) -> Option<usize> {
        None
    }

    /// Whether it gives the logits of all tokens, and not just the most likely one.
    fn gives_logits(&self) -> bool {
        true
    }

    /// How many tokens behind one whose scores are wanted it can score together with it; 0 where that
    /// is not faster than one after another.
    fn ahead(&self) -> usize {
        0
    }

    /// As [`Self::forward`], with the logits of all `tokens` (at most one more than [`Self::ahead`]): a row
    /// for each in `logits`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    fn forward_all(
        &mut self,
        tokens: &[u32],
        sequence: &mut Sequence,
        logits: &mut Vec<f32>,
    ) -> Result<(), GenerateError> {
        let before = sequence.len();
        let mut scores = Scores::default();
        logits.clear();
        for token in tokens {
            self.forward(&[*token], sequence, Some(&mut scores))
                .inspect_err(|_| sequence.truncate(before))?;
            logits.extend_from_slice(&scores.logits);
        }
        Ok(())
    }

    /// Has it compute prompts in batches (as it does at first) or token by token. Models without
    /// [`Self::block`] have no choice.
    fn set_prefill(&mut self, prefill: Prefill) {
        let _ = prefill;
    }
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A GGUF file.
    Gguf(PathBuf),
    /// A folder with config.json, tokenizer.json and safetensors.
    Folder(PathBuf),
    /// A bundle for the Apple Neural Engine: a folder with meta.yaml.
    Bundle(BundleSource),
    /// A GGUF file inside the binary.
    Embedded {
        /// The file.
        bytes: &'static [u8],
        /// The model's name.
        name: &'static str,
    },
}

impl ModelSource {
    /// A bundle, a folder or a GGUF file, whichever stands at `path`. `runtime` is what runs a bundle.
    #[must_use]
    pub fn at(path: &Path, runtime: BundleRuntime) -> Self {
        if AnemllBundle::is_at(path) {
            Self::Bundle(BundleSource {
                folder: path.to_owned(),
                runtime: runtime.into(),
                weights: None,
            })
        } else if path.is_dir() {
            Self::Folder(path.to_owned())
        } else {
            Self::Gguf(path.to_owned())
        }
    }

    /// `tandem-mini`.
    #[must_use]
    pub fn embedded() -> Self {
        Self::Embedded {
            bytes: embedded::TANDEM_MINI,
            name: embedded::NAME,
        }
    }

    /// How `engine` has it computed: the setting is about models of the user's.
    fn arithmetic(&self, engine: ComputeEngine) -> Arithmetic {
        match self {
            Self::Gguf(_) | Self::Folder(_) => engine.into(),
            Self::Bundle(_) | Self::Embedded { .. } => Arithmetic::Auto,
        }
    }

    fn kind(&self) -> BackendKind {
        match self {
            Self::Gguf(_) | Self::Folder(_) => BackendKind::Candle,
            Self::Bundle(_) => BackendKind::CoreMl,
            Self::Embedded { .. } => BackendKind::Embedded,
        }
    }

    /// The model's name: a file's stem or a folder's name.
    #[must_use]
    pub fn name(&self) -> String {
        let name = match self {
            Self::Gguf(path) => path.file_stem(),
            Self::Folder(path) => path.file_name(),
            Self::Bundle(bundle) => bundle.folder.file_name(),
            Self::Embedded { name, .. } => return (*name).to_owned(),
        };
        name.map_or_else(
            || "local".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    }
}

/// What is known of a model before it is loaded.
#[derive(Debug, Clone)]
pub struct Described {
    /// What it is.
    pub descriptor: Descriptor,
    /// `Unloaded` where it can be loaded as far as is known; otherwise what stands against it.
    pub health: Health,
    /// Where it will be asked to run.
    pub placement: Placement,
}

/// A model on this machine as a [`Backend`].
pub struct LocalBackend {
    descriptor: Descriptor,
    worker: Worker,
}

impl LocalBackend {
    /// What the model at `source` is and how it is, without loading it: of a file its beginning is
    /// read. Whether the model is there at all shows in its health, so that everything else works
    /// without it.
    #[must_use]
    pub fn describe(source: &ModelSource, settings: &LocalSettings) -> Described {
        let (context_tokens, health) = match loader::context_tokens(source) {
            Ok(tokens) => (tokens, Health::Unloaded),
            Err(error) if error.kind == LoadErrorKind::Absent => {
                let why = error.to_string();
                (usize::MAX, Health::Absent { why })
            }
            Err(error) => {
                let failed = Health::Failed {
                    error: error.to_string(),
                    retry_after: None,
                };
                (usize::MAX, failed)
            }
        };
        let context_tokens = context_tokens.min(settings.context_tokens);
        let descriptor = Descriptor {
            kind: source.kind(),
            model: source.name(),
            context_tokens,
        };
        let placement = match descriptor.kind {
            BackendKind::CoreMl => Placement {
                requested: "cpu-and-neural-engine".to_owned(),
                observed: None,
            },
            BackendKind::Candle => device::requested(settings.device),
            _ => threads::requested(),
        };
        Described {
            descriptor,
            health,
            placement,
        }
    }

    /// A backend for the model at `source`, which is loaded on first need.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn open(source: ModelSource, settings: &LocalSettings) -> std::io::Result<Self> {
        let Described {
            descriptor,
            health,
            placement,
        } = Self::describe(&source, settings);
        let options = WorkerOptions {
            kv_cache_bytes: settings.kv_cache_bytes,
            idle_unload: settings.idle_unload,
            floor: Floor::from(settings),
            placement,
            clock: Clock::default(),
            files: Files::of(source.clone()),
        };
        let (device, context_tokens) = (settings.device, descriptor.context_tokens);
        let arithmetic = source.arithmetic(settings.engine);
        let load = Arc::new(move || loader::load_by(&source, context_tokens, device, arithmetic));
        Ok(Self {
            descriptor,
            worker: Worker::start(load, options, health)?,
        })
    }
}

impl Backend for LocalBackend {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.worker.health()
    }

    fn placement(&self) -> Option<Placement> {
        Some(self.worker.placement())
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.worker.statistics())
    }

    fn warm_up(&self) {
        self.worker.warm_up();
    }

    fn generate(&self, request: GenerateRequest, cancel: CancellationToken) -> TokenStream {
        let (sender, stream) = TokenStream::channel(cancel.clone());
        self.worker.submit(request, cancel, sender);
        stream
    }
}
