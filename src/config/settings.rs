//! The resolved configuration: every field has its value.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ApiKey;

/// Which backends may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Light requests to an inference server or this machine, heavy and failed ones to Claude.
    #[default]
    Auto,
    /// Nothing leaves the machine.
    LocalOnly,
    /// Claude for everything.
    ClaudeOnly,
}

/// What the portable engine computes on. Never chosen silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ComputeDevice {
    /// The processor.
    #[default]
    Cpu,
    /// Apple's GPU, in a build with the feature `metal`.
    Metal,
    /// An NVIDIA GPU, in a build with the feature `cuda`.
    Cuda,
}

impl ComputeDevice {
    /// The name in configuration and reports; that of the build's feature, too.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Metal => "metal",
            Self::Cuda => "cuda",
        }
    }
}

/// What computes a GGUF file on the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ComputeEngine {
    /// Tandem's kernels where they can compute the file on this processor, else candle.
    #[default]
    Auto,
    /// Tandem's kernels; a file or a processor that they are not for is an error.
    Kernels,
    /// candle.
    Candle,
}

/// What runs a bundle for the Apple Neural Engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BundleRuntime {
    /// Core ML, by whichever of its two interfaces is healthy and faster; on macOS alone.
    #[default]
    Auto,
    /// Core ML by its own interface; on macOS alone.
    Coreml,
    /// Core ML through the crate candle-coreml; on macOS alone.
    CandleCoreml,
    /// The processor, from the original weights in the folder `hf` beside the bundle. Slow: to
    /// check a bundle, not to work with.
    Reference,
}

/// How an inference server is asked for completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServerApi {
    /// By `/infill` where it is there; else by `/v1/completions`, where the model's name tells how it
    /// learnt to fill holes; else by `/v1/chat/completions`. Of Ollama: by `/api/generate` where the name
    /// tells; else by `/v1/completions` where `ollama show` says `insert`; else by chat.
    #[default]
    Auto,
    /// By `/infill`, as llama.cpp's server has it.
    Infill,
    /// By `/v1/completions`: for a model that fills holes in its own frame, for any other the text
    /// before the cursor alone. Of Ollama by `/api/generate`, where the model's name tells how it learnt to
    /// fill holes.
    Completions,
    /// By `/v1/chat/completions`.
    Chat,
}

/// Everything that can be configured, resolved.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// Which backends may answer.
    pub mode: Mode,
    /// The on-device model.
    pub local: LocalSettings,
    /// The process that holds the model for all sessions.
    pub daemon: DaemonSettings,
    /// An inference server of the user's.
    pub server: ServerSettings,
    /// Claude.
    pub claude: ClaudeSettings,
    /// Code completion.
    pub completion: CompletionSettings,
    /// What may leave the machine.
    pub privacy: PrivacySettings,
    /// Logs.
    pub log: LogSettings,
}

/// The on-device model.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalSettings {
    /// The name of a model of the catalogue, a GGUF file, a folder with safetensors, tokenizer and
    /// configuration, or a bundle for the Apple Neural Engine. `None`: only the embedded model.
    pub model: Option<PathBuf>,
    /// Whether a session may download the model by itself.
    pub download: bool,
    /// The user's own catalogues.
    pub catalogue: Vec<PathBuf>,
    /// The longest context to use, in tokens; the model's own limit holds besides.
    pub context_tokens: usize,
    /// Threads for arithmetic; `None` takes the physical cores.
    pub threads: Option<usize>,
    /// Bytes of KV cache to keep for reuse, over all cached sequences.
    pub kv_cache_bytes: usize,
    /// The model is unloaded after so long without a request.
    pub idle_unload: Duration,
    /// Whether the embedded model may answer when nothing better may or can.
    pub embedded: bool,
    /// What runs a bundle for the Apple Neural Engine.
    pub runtime: BundleRuntime,
    /// What a GGUF file or a folder with safetensors is computed on.
    pub device: ComputeDevice,
    /// What computes a GGUF file on the processor.
    pub engine: ComputeEngine,
    /// The longest time to the first token of a short prompt with which a model is admitted for
    /// completions.
    pub max_first_token: Duration,
    /// The fewest tokens a second with which it is.
    pub min_tokens_per_second: usize,
}

/// The process that holds the model for all sessions of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSettings {
    /// Whether sessions share their models through it.
    pub enabled: bool,
    /// It ends after so long without a session.
    pub idle_exit: Duration,
}

/// Claude.
#[derive(Clone, PartialEq)]
pub struct ClaudeSettings {
    /// The key, or the command of the user that prints it. Never printed.
    pub api_key: Option<ApiKey>,
    /// Where the Messages API is.
    pub base_url: String,
    /// The model for completions and light work.
    pub fast_model: String,
    /// The model for heavy work.
    pub strong_model: String,
    /// Whether completions that start by themselves while typing may go to Claude.
    pub automatic_completions: bool,
    /// The most that may be spent in one day (UTC), in US dollars.
    pub daily_spend_cap_usd: f64,
    /// The longest answer to heavy work, in tokens.
    pub max_tokens: usize,
    /// Limit for a connection to stand.
    pub connect_timeout: Duration,
    /// Limit for the first byte of an answer.
    pub first_byte_timeout: Duration,
    /// Limit for a pause within an answer.
    pub idle_timeout: Duration,
    /// Tries after the first, for failures that may pass.
    pub retries: u32,
}

impl std::fmt::Debug for ClaudeSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClaudeSettings")
            .field("api_key", &self.api_key)
            .field("base_url", &self.base_url)
            .field("fast_model", &self.fast_model)
            .field("strong_model", &self.strong_model)
            .finish_non_exhaustive()
    }
}

/// An inference server of the user's.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSettings {
    /// Where it is; `None`: there is none.
    pub base_url: Option<String>,
    /// The key, or the command of the user that prints it. Never printed.
    pub api_key: Option<ApiKey>,
    /// The model's name there; `None`: the first that the server lists.
    pub model: Option<String>,
    /// How it is asked for completions.
    pub api: ServerApi,
    /// The longest context to use, in tokens; the server's own limit holds besides.
    pub context_tokens: usize,
    /// Whether completions that start by themselves while typing may go there.
    pub automatic_completions: bool,
    /// Limit for a connection to stand.
    pub connect_timeout: Duration,
    /// Limit for the first byte of an answer.
    pub first_byte_timeout: Duration,
    /// Limit for a pause within an answer.
    pub idle_timeout: Duration,
    /// Tries after the first, for failures that may pass.
    pub retries: u32,
}

/// Code completion.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the user's own"
)]
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionSettings {
    /// Whether completions are offered at all.
    pub enabled: bool,
    /// Whether they are offered while typing, without being invoked.
    pub automatic: bool,
    /// Whether the next edit is proposed.
    pub next_edit: bool,
    /// How long typing must rest before an automatic completion is computed; `None` follows how the
    /// person types and how fast the model answers.
    pub debounce: Option<Duration>,
    /// Whether the completion after the one that is shown is computed meanwhile.
    pub ahead: bool,
    /// The longest completion, in tokens.
    pub max_tokens: usize,
    /// How many candidates an invoked completion offers.
    pub candidates: usize,
    /// Languages, by LSP identifier, in which nothing is offered.
    pub languages_off: Vec<String>,
    /// Paths, as globs, in which nothing is offered.
    pub paths_off: Vec<String>,
    /// How many requests may be generated at once in this session.
    pub concurrency: usize,
}

/// What may leave the machine, beyond the mode.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PrivacySettings {
    /// Globs of paths that never leave the machine, besides the built-in ones.
    pub deny: Vec<String>,
    /// Whether files that git ignores may leave the machine.
    pub allow_git_ignored: bool,
    /// Whether text in which a secret is recognised may leave the machine.
    pub allow_secrets: bool,
}

/// Logs.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    /// A `tracing` filter, such as `info` or `tandem=debug`.
    pub filter: String,
    /// Where logs go; `None` is stderr.
    pub file: Option<PathBuf>,
}

impl Default for LocalSettings {
    /// Completions must feel live. After a second people notice that they wait (Nielsen, "Usability
    /// Engineering", 1993, chapter 5), and a model is measured by a short prompt, so one that takes a
    /// second for it takes several for a document. A line of code is about ten tokens: at ten a second
    /// it takes another second to be told.
    fn default() -> Self {
        Self {
            model: None,
            download: false,
            catalogue: Vec::new(),
            context_tokens: 4096,
            threads: None,
            kv_cache_bytes: 256 << 20,
            idle_unload: Duration::from_mins(10),
            embedded: true,
            runtime: BundleRuntime::Auto,
            device: ComputeDevice::Cpu,
            engine: ComputeEngine::Auto,
            max_first_token: Duration::from_secs(1),
            min_tokens_per_second: 10,
        }
    }
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            idle_exit: Duration::from_mins(10),
        }
    }
}

impl Default for ClaudeSettings {
    fn default() -> Self {
        Self {
            api_key: None,
            base_url: "https://api.anthropic.com".to_owned(),
            fast_model: "claude-haiku-5-5".to_owned(),
            strong_model: "claude-opus-5-5".to_owned(),
            automatic_completions: false,
            daily_spend_cap_usd: 5.0,
            max_tokens: 4096,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(20),
            retries: 2,
        }
    }
}

impl Default for ServerSettings {
    /// A server of one's own is near, and somebody else answers where it does not: so its limits are
    /// shorter than Claude's.
    fn default() -> Self {
        Self {
            base_url: None,
            api_key: None,
            model: None,
            api: ServerApi::Auto,
            context_tokens: 32_768,
            automatic_completions: true,
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(20),
            retries: 2,
        }
    }
}

impl Default for CompletionSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            automatic: true,
            next_edit: true,
            debounce: None,
            ahead: true,
            max_tokens: 64,
            candidates: 3,
            languages_off: Vec::new(),
            paths_off: Vec::new(),
            concurrency: 4,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            filter: "warn".to_owned(),
            file: None,
        }
    }
}
