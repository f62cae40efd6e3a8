//! Options to settings, and back.

use super::options::{
    ClaudeOptions, CompletionOptions, DaemonOptions, LocalOptions, LogOptions, Options,
    PrivacyOptions, ServerOptions,
};
use super::texts::{BaseUrl, LogFilter, ModelName, PathGlob, Program};
use super::values::{AutoSpan, Bytes, Count, Dollars, Span};
use super::{
    ApiKey, ClaudeSettings, CompletionSettings, DaemonSettings, LocalSettings, LogSettings,
    PrivacySettings, ServerSettings, Settings,
};

impl From<Options> for Settings {
    /// The options, with the defaults where they say nothing. Options are checked when they are read,
    /// so nothing can fail here.
    fn from(options: Options) -> Self {
        Self {
            mode: options.mode.unwrap_or_default(),
            local: local(options.local),
            daemon: daemon(&options.daemon),
            server: server(options.server),
            claude: claude(options.claude),
            completion: completion(options.completion),
            privacy: PrivacySettings {
                deny: texts(options.privacy.deny),
                allow_git_ignored: options.privacy.allow_git_ignored.unwrap_or(false),
                allow_secrets: options.privacy.allow_secrets.unwrap_or(false),
            },
            log: LogSettings {
                filter: options
                    .log
                    .filter
                    .map_or(LogSettings::default().filter, LogFilter::into_string),
                file: options.log.file,
            },
        }
    }
}

fn local(options: LocalOptions) -> LocalSettings {
    let default = LocalSettings::default();
    LocalSettings {
        model: options.model,
        download: options.download.unwrap_or(default.download),
        catalogue: options.catalogue,
        context_tokens: options
            .context_tokens
            .map_or(default.context_tokens, Count::get),
        threads: options.threads.map(Count::get),
        kv_cache_bytes: options.kv_cache.map_or(default.kv_cache_bytes, Bytes::get),
        idle_unload: options.idle_unload.map_or(default.idle_unload, Span::get),
        embedded: options.embedded.unwrap_or(default.embedded),
        runtime: options.runtime.unwrap_or(default.runtime),
        device: options.device.unwrap_or(default.device),
        engine: options.engine.unwrap_or(default.engine),
        max_first_token: options
            .max_first_token
            .map_or(default.max_first_token, Span::get),
        min_tokens_per_second: options
            .min_tokens_per_second
            .map_or(default.min_tokens_per_second, Count::get),
    }
}

fn daemon(options: &DaemonOptions) -> DaemonSettings {
    let default = DaemonSettings::default();
    DaemonSettings {
        enabled: options.enabled.unwrap_or(default.enabled),
        idle_exit: options.idle_exit.map_or(default.idle_exit, Span::get),
    }
}

fn claude(options: ClaudeOptions) -> ClaudeSettings {
    let default = ClaudeSettings::default();
    ClaudeSettings {
        api_key: options
            .api_key
            .or_else(|| ApiKey::from_command(options.api_key_command?.into_argv())),
        base_url: options
            .base_url
            .map_or(default.base_url, BaseUrl::into_string),
        fast_model: options
            .fast_model
            .map_or(default.fast_model, ModelName::into_string),
        strong_model: options
            .strong_model
            .map_or(default.strong_model, ModelName::into_string),
        automatic_completions: options
            .automatic_completions
            .unwrap_or(default.automatic_completions),
        daily_spend_cap_usd: options
            .daily_spend_cap_usd
            .map_or(default.daily_spend_cap_usd, Dollars::get),
        max_tokens: options.max_tokens.map_or(default.max_tokens, Count::get),
        connect_timeout: options
            .connect_timeout
            .map_or(default.connect_timeout, Span::get),
        first_byte_timeout: options
            .first_byte_timeout
            .map_or(default.first_byte_timeout, Span::get),
        idle_timeout: options.idle_timeout.map_or(default.idle_timeout, Span::get),
        retries: options
            .retries
            .map_or(default.retries, |retries| retries.get() as u32),
    }
}

fn server(options: ServerOptions) -> ServerSettings {
    let default = ServerSettings::default();
    ServerSettings {
        base_url: options.base_url.map(BaseUrl::into_string),
        api_key: options
            .api_key
            .or_else(|| ApiKey::from_command(options.api_key_command?.into_argv())),
        model: options.model.map(ModelName::into_string),
        api: options.api.unwrap_or(default.api),
        context_tokens: options
            .context_tokens
            .map_or(default.context_tokens, Count::get),
        automatic_completions: options
            .automatic_completions
            .unwrap_or(default.automatic_completions),
        connect_timeout: options
            .connect_timeout
            .map_or(default.connect_timeout, Span::get),
        first_byte_timeout: options
            .first_byte_timeout
            .map_or(default.first_byte_timeout, Span::get),
        idle_timeout: options.idle_timeout.map_or(default.idle_timeout, Span::get),
        retries: options
            .retries
            .map_or(default.retries, |retries| retries.get() as u32),
    }
}

fn completion(options: CompletionOptions) -> CompletionSettings {
    let default = CompletionSettings::default();
    CompletionSettings {
        enabled: options.enabled.unwrap_or(default.enabled),
        automatic: options.automatic.unwrap_or(default.automatic),
        next_edit: options.next_edit.unwrap_or(default.next_edit),
        debounce: options.debounce.map_or(default.debounce, AutoSpan::get),
        ahead: options.ahead.unwrap_or(default.ahead),
        max_tokens: options.max_tokens.map_or(default.max_tokens, Count::get),
        candidates: options.candidates.map_or(default.candidates, Count::get),
        languages_off: options.languages_off,
        paths_off: texts(options.paths_off),
        concurrency: options.concurrency.map_or(default.concurrency, Count::get),
    }
}

fn texts(globs: Vec<PathGlob>) -> Vec<String> {
    globs.into_iter().map(PathGlob::into_string).collect()
}

fn globs(texts: &[String]) -> Vec<PathGlob> {
    texts
        .iter()
        .filter_map(|text| PathGlob::new(text))
        .collect()
}

fn command(key: Option<&ApiKey>) -> Option<Program> {
    let argv = key.and_then(ApiKey::command)?;
    Program::new(argv.to_vec())
}

impl From<&Settings> for Options {
    /// The settings as one would write them, every key said. Without the keys for Claude and the server.
    fn from(settings: &Settings) -> Self {
        let Settings {
            mode,
            local,
            daemon,
            server,
            claude,
            completion,
            privacy,
            log,
        } = settings;
        Self {
            mode: Some(*mode),
            local: LocalOptions {
                model: local.model.clone(),
                download: Some(local.download),
                catalogue: local.catalogue.clone(),
                context_tokens: Count::new(local.context_tokens),
                threads: local.threads.and_then(Count::new),
                kv_cache: Some(local.kv_cache_bytes.into()),
                idle_unload: Some(local.idle_unload.into()),
                embedded: Some(local.embedded),
                runtime: Some(local.runtime),
                device: Some(local.device),
                engine: Some(local.engine),
                max_first_token: Some(local.max_first_token.into()),
                min_tokens_per_second: Count::new(local.min_tokens_per_second),
            },
            daemon: DaemonOptions {
                enabled: Some(daemon.enabled),
                idle_exit: Some(daemon.idle_exit.into()),
            },
            server: ServerOptions {
                base_url: server.base_url.as_deref().and_then(BaseUrl::new),
                api_key: None,
                api_key_command: command(server.api_key.as_ref()),
                model: server.model.as_deref().and_then(ModelName::new),
                api: Some(server.api),
                context_tokens: Count::new(server.context_tokens),
                automatic_completions: Some(server.automatic_completions),
                connect_timeout: Some(server.connect_timeout.into()),
                first_byte_timeout: Some(server.first_byte_timeout.into()),
                idle_timeout: Some(server.idle_timeout.into()),
                retries: Count::new(server.retries as usize),
            },
            claude: ClaudeOptions {
                api_key: None,
                api_key_command: command(claude.api_key.as_ref()),
                base_url: BaseUrl::new(&claude.base_url),
                fast_model: ModelName::new(&claude.fast_model),
                strong_model: ModelName::new(&claude.strong_model),
                automatic_completions: Some(claude.automatic_completions),
                daily_spend_cap_usd: Some(claude.daily_spend_cap_usd.into()),
                max_tokens: Count::new(claude.max_tokens),
                connect_timeout: Some(claude.connect_timeout.into()),
                first_byte_timeout: Some(claude.first_byte_timeout.into()),
                idle_timeout: Some(claude.idle_timeout.into()),
                retries: Count::new(claude.retries as usize),
            },
            completion: CompletionOptions {
                enabled: Some(completion.enabled),
                automatic: Some(completion.automatic),
                next_edit: Some(completion.next_edit),
                debounce: Some(completion.debounce.into()),
                ahead: Some(completion.ahead),
                max_tokens: Count::new(completion.max_tokens),
                candidates: Count::new(completion.candidates),
                languages_off: completion.languages_off.clone(),
                paths_off: globs(&completion.paths_off),
                concurrency: Count::new(completion.concurrency),
            },
            privacy: PrivacyOptions {
                deny: globs(&privacy.deny),
                allow_git_ignored: Some(privacy.allow_git_ignored),
                allow_secrets: Some(privacy.allow_secrets),
            },
            log: LogOptions {
                filter: LogFilter::new(&log.filter),
                file: log.file.clone(),
            },
        }
    }
}
