//! Options: the configuration as written, in the user's own file and wherever only the user writes.

use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{self, Refusal};
use super::texts::{BaseUrl, LogFilter, ModelName, PathGlob, Program};
use super::values::{AutoSpan, Bytes, Count, Dollars, Span};
use super::{ApiKey, BundleRuntime, ComputeDevice, ComputeEngine, ConfigError, Mode, ServerApi};

/// Milliseconds in a second, for the ranges below.
const SECOND: u64 = 1000;
/// As [`SECOND`].
const DAY: u64 = 24 * 3600 * SECOND;

/// The configuration of Tandem, as written in the user's own file. Every key may be left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Which backends may answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The on-device model.
    pub local: LocalOptions,
    /// The process that holds the model for all sessions.
    pub daemon: DaemonOptions,
    /// An inference server of yours, such as vLLM, SGLang, llama-server or Ollama.
    pub server: ServerOptions,
    /// Claude.
    pub claude: ClaudeOptions,
    /// Code completion.
    pub completion: CompletionOptions,
    /// What may leave the machine.
    pub privacy: PrivacyOptions,
    /// Logs.
    pub log: LogOptions,
}

/// The on-device model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LocalOptions {
    /// A model of the catalogue by its name (`tandem model list`), a GGUF file, a folder with
    /// safetensors, tokenizer and configuration, or a bundle for the Apple Neural Engine. A path
    /// begins with `~/`, is absolute, or is relative to the file it is written in. Default: only the
    /// embedded model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// Whether a session may download `local.model` by itself when it is first needed. It is hundreds
    /// of megabytes; `tandem model pull` does the same when you say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download: Option<bool>,
    /// Files with models of your own, written like the built-in catalogue (`tandem schema
    /// catalogue`). Lists of all levels add up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub catalogue: Vec<PathBuf>,
    /// The longest context to use, in tokens; the model's own limit holds besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<Count<256, 1_048_576>>,
    /// Threads for arithmetic. Default: as many as there are physical cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<Count<1, 1024>>,
    /// KV cache to keep for reuse, over all cached sequences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<Bytes>,
    /// The model is unloaded after so long without a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_unload: Option<Span<{ SECOND }, { 30 * DAY }>>,
    /// Whether the embedded model may answer when nothing better may or can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedded: Option<bool>,
    /// What runs a bundle for the Apple Neural Engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<BundleRuntime>,
    /// What a GGUF file or a folder with safetensors is computed on. The GPUs need a build with the
    /// feature of their name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<ComputeDevice>,
    /// What computes a GGUF file on the processor. The embedded model is not concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<ComputeEngine>,
    /// The longest time to the first token of a short prompt with which a model answers completions,
    /// measured when it is loaded. A slower one does only where nobody else may or can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_first_token: Option<Span<1, { 600 * SECOND }>>,
    /// The fewest tokens a second with which it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tokens_per_second: Option<Count<0, 1_000_000>>,
}

/// The process that holds the model for all sessions of the user.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DaemonOptions {
    /// Whether sessions share one loaded model, in a process that the first of them starts. Without
    /// it each session loads its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// That process ends after so long without a session. What holds is what the session that
    /// started it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_exit: Option<Span<{ SECOND }, { 30 * DAY }>>,
}

/// Claude.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClaudeOptions {
    /// The key itself: from `ANTHROPIC_API_KEY` only, never from a file.
    #[serde(skip)]
    #[schemars(skip)]
    pub api_key: Option<ApiKey>,
    /// A program and its arguments that print the key, such as `[pass, show, anthropic]`. Run without
    /// a shell, on first need and once. `ANTHROPIC_API_KEY` wins over it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_command: Option<Program>,
    /// Where the Messages API is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<BaseUrl>,
    /// The model for completions and light work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_model: Option<ModelName>,
    /// The model for heavy work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strong_model: Option<ModelName>,
    /// Whether completions that start by themselves while typing may go to Claude.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_completions: Option<bool>,
    /// The most that may be spent in one day (UTC), in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_spend_cap_usd: Option<Dollars>,
    /// The longest answer to heavy work, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<Count<1, 128_000>>,
    /// Limit for a connection to stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Span<100, { 600 * SECOND }>>,
    /// Limit for the first byte of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_timeout: Option<Span<100, { 600 * SECOND }>>,
    /// Limit for a pause within an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span<100, { 600 * SECOND }>>,
    /// Tries after the first, for failures that may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Count<0, 10>>,
}

/// An inference server of yours, such as vLLM, SGLang, llama-server or Ollama: anything that speaks OpenAI's
/// completions or chat. It counts as another machine wherever it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerOptions {
    /// Where it is, without `/v1`. Default: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<BaseUrl>,
    /// The key itself: from `TANDEM_SERVER_API_KEY` only, never from a file.
    #[serde(skip)]
    #[schemars(skip)]
    pub api_key: Option<ApiKey>,
    /// A program and its arguments that print the key, where the server wants one. Run without a shell,
    /// on first need and once. `TANDEM_SERVER_API_KEY` wins over it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_command: Option<Program>,
    /// The model's name there. Default: the first that the server lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// How it is asked for completions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ServerApi>,
    /// The longest context to use, in tokens; the server's own limit holds besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<Count<256, 1_048_576>>,
    /// Whether completions that start by themselves while typing may go there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic_completions: Option<bool>,
    /// Limit for a connection to stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Span<100, { 600 * SECOND }>>,
    /// Limit for the first byte of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_timeout: Option<Span<100, { 600 * SECOND }>>,
    /// Limit for a pause within an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span<100, { 600 * SECOND }>>,
    /// Tries after the first, for failures that may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Count<0, 10>>,
}

/// Code completion.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CompletionOptions {
    /// Whether completions are offered at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether they are offered while typing, without being invoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automatic: Option<bool>,
    /// Whether the next edit is proposed: a rename or a change that goes on elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_edit: Option<bool>,
    /// How long typing must rest before an automatic completion is computed. `auto` follows how you
    /// type and how fast the model answers: 20 to 500 ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debounce: Option<AutoSpan<0, { 5 * SECOND }>>,
    /// Whether the completion that comes after the one shown is computed meanwhile, so that it is
    /// there when you accept. By models on this machine only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<bool>,
    /// The longest completion, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<Count<1, 1024>>,
    /// How many candidates an invoked completion offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Count<1, 10>>,
    /// Languages, by LSP identifier, in which nothing is offered. Lists of all levels add up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub languages_off: Vec<String>,
    /// Paths, as globs, in which nothing is offered. Lists of all levels add up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths_off: Vec<PathGlob>,
    /// How many requests may be generated at once in a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Count<1, 64>>,
}

/// What may leave the machine, beyond the mode.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyOptions {
    /// Paths, as globs, that never leave the machine, besides the built-in ones. Lists of all levels
    /// add up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<PathGlob>,
    /// Whether files that git ignores may leave the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_git_ignored: Option<bool>,
    /// Whether text in which a secret is recognised may leave the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_secrets: Option<bool>,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or levels for modules such as
    /// `warn,tandem::router=debug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<LogFilter>,
    /// The file that logs are appended to. Default: standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

impl Options {
    /// Reads the user's own file.
    ///
    /// # Errors
    /// Every mistake, in order: each names the file, the line, the key and the next step. What is no
    /// YAML is one mistake.
    pub fn from_yaml(text: &str, place: &str) -> Result<Self, Vec<ConfigError>> {
        decode::yaml(text, place, &Refusal::NONE)
    }

    /// Reads one key from text without types, as variables and flags hold it. Lists part at commas.
    ///
    /// # Errors
    /// A key that does not exist, a value that does not fit it; and the key command, which only the
    /// user's own file may name.
    pub fn from_text(key: &str, text: &str, place: &str) -> Result<Self, ConfigError> {
        let options: Self = decode::text(key, text, place)?;
        for (named, key) in [
            (&options.claude.api_key_command, "claude"),
            (&options.server.api_key_command, "server"),
        ] {
            if named.is_some() {
                return Err(ConfigError::new(
                    place,
                    format!("`{key}.api_key_command` names a program to run"),
                    "Write it in your own configuration file; `tandem config path` says where that is.",
                ));
            }
        }
        Ok(options)
    }

    /// Every key of the user's own file, dotted.
    #[must_use]
    pub fn keys() -> Vec<String> {
        decode::keys::<Self>()
    }

    /// Makes paths absolute: `~/` is the home folder, others are relative to `folder`.
    #[must_use]
    pub fn anchored(mut self, folder: &Path, home: Option<&Path>) -> Self {
        let anchor = |path: PathBuf| match (path.strip_prefix("~"), home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => folder.join(path),
        };
        self.local.model = self.local.model.map(|model| {
            // A plain word is the name of a model, unless a file of that name stands there.
            if is_model_name(&model) && !folder.join(&model).exists() {
                model
            } else {
                anchor(model)
            }
        });
        self.local.catalogue = self.local.catalogue.into_iter().map(anchor).collect();
        self.log.file = self.log.file.map(anchor);
        self
    }

    /// These options, with `lower` where they say nothing. Lists add up.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            mode: self.mode.or(lower.mode),
            local: self.local.over(lower.local),
            daemon: DaemonOptions {
                enabled: self.daemon.enabled.or(lower.daemon.enabled),
                idle_exit: self.daemon.idle_exit.or(lower.daemon.idle_exit),
            },
            server: self.server.over(lower.server),
            claude: self.claude.over(lower.claude),
            completion: self.completion.over(lower.completion),
            privacy: PrivacyOptions {
                deny: joined(self.privacy.deny, lower.privacy.deny),
                allow_git_ignored: self
                    .privacy
                    .allow_git_ignored
                    .or(lower.privacy.allow_git_ignored),
                allow_secrets: self.privacy.allow_secrets.or(lower.privacy.allow_secrets),
            },
            log: LogOptions {
                filter: self.log.filter.or(lower.log.filter),
                file: self.log.file.or(lower.log.file),
            },
        }
    }
}

impl LocalOptions {
    fn over(self, lower: Self) -> Self {
        Self {
            model: self.model.or(lower.model),
            download: self.download.or(lower.download),
            catalogue: joined(self.catalogue, lower.catalogue),
            context_tokens: self.context_tokens.or(lower.context_tokens),
            threads: self.threads.or(lower.threads),
            kv_cache: self.kv_cache.or(lower.kv_cache),
            idle_unload: self.idle_unload.or(lower.idle_unload),
            embedded: self.embedded.or(lower.embedded),
            runtime: self.runtime.or(lower.runtime),
            device: self.device.or(lower.device),
            engine: self.engine.or(lower.engine),
            max_first_token: self.max_first_token.or(lower.max_first_token),
            min_tokens_per_second: self.min_tokens_per_second.or(lower.min_tokens_per_second),
        }
    }
}

impl ClaudeOptions {
    fn over(self, lower: Self) -> Self {
        Self {
            api_key: self.api_key.or(lower.api_key),
            api_key_command: self.api_key_command.or(lower.api_key_command),
            base_url: self.base_url.or(lower.base_url),
            fast_model: self.fast_model.or(lower.fast_model),
            strong_model: self.strong_model.or(lower.strong_model),
            automatic_completions: self.automatic_completions.or(lower.automatic_completions),
            daily_spend_cap_usd: self.daily_spend_cap_usd.or(lower.daily_spend_cap_usd),
            max_tokens: self.max_tokens.or(lower.max_tokens),
            connect_timeout: self.connect_timeout.or(lower.connect_timeout),
            first_byte_timeout: self.first_byte_timeout.or(lower.first_byte_timeout),
            idle_timeout: self.idle_timeout.or(lower.idle_timeout),
            retries: self.retries.or(lower.retries),
        }
    }
}

impl ServerOptions {
    fn over(self, lower: Self) -> Self {
        Self {
            base_url: self.base_url.or(lower.base_url),
            api_key: self.api_key.or(lower.api_key),
            api_key_command: self.api_key_command.or(lower.api_key_command),
            model: self.model.or(lower.model),
            api: self.api.or(lower.api),
            context_tokens: self.context_tokens.or(lower.context_tokens),
            automatic_completions: self.automatic_completions.or(lower.automatic_completions),
            connect_timeout: self.connect_timeout.or(lower.connect_timeout),
            first_byte_timeout: self.first_byte_timeout.or(lower.first_byte_timeout),
            idle_timeout: self.idle_timeout.or(lower.idle_timeout),
            retries: self.retries.or(lower.retries),
        }
    }
}

impl CompletionOptions {
    fn over(self, lower: Self) -> Self {
        Self {
            enabled: self.enabled.or(lower.enabled),
            automatic: self.automatic.or(lower.automatic),
            next_edit: self.next_edit.or(lower.next_edit),
            debounce: self.debounce.or(lower.debounce),
            ahead: self.ahead.or(lower.ahead),
            max_tokens: self.max_tokens.or(lower.max_tokens),
            candidates: self.candidates.or(lower.candidates),
            languages_off: joined(self.languages_off, lower.languages_off),
            paths_off: joined(self.paths_off, lower.paths_off),
            concurrency: self.concurrency.or(lower.concurrency),
        }
    }
}

/// Whether `local.model` can be the name of a model rather than a path: one word, and no GGUF file.
#[must_use]
pub fn is_model_name(model: &Path) -> bool {
    let mut parts = model.components();
    let is_word = matches!(parts.next(), Some(Component::Normal(word)) if word != "~");
    is_word && parts.next().is_none() && model.extension().is_none_or(|end| end != "gguf")
}

/// Both lists, `lower` first, each item once.
pub(super) fn joined<T: PartialEq>(upper: Vec<T>, mut lower: Vec<T>) -> Vec<T> {
    for item in upper {
        if !lower.contains(&item) {
            lower.push(item);
        }
    }
    lower
}
