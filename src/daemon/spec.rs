//! Which model a session wants, and how: what the daemon tells its models apart by.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{BundleRuntime, ComputeDevice, ComputeEngine, LocalSettings};

/// A model and all settings that it is loaded with. Sessions that want the same share it; one that
/// wants anything else gets its own, so that no session's settings reach another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelSpec {
    /// The model.
    pub source: SpecSource,
    /// The longest context to use, in tokens.
    pub context_tokens: usize,
    /// Bytes of KV cache to keep for reuse.
    pub kv_cache_bytes: usize,
    /// Milliseconds without a request after which the model is unloaded.
    pub idle_unload_ms: u64,
    /// What runs a bundle.
    pub runtime: BundleRuntime,
    /// What anything but a bundle is computed on.
    pub device: ComputeDevice,
    /// What computes a GGUF file on the processor.
    #[serde(default)]
    pub engine: ComputeEngine,
    /// The longest time to the first token that is fast enough, in milliseconds.
    #[serde(default = "max_first_token_ms")]
    pub max_first_token_ms: u64,
    /// The fewest tokens a second that are.
    #[serde(default = "min_tokens_per_second")]
    pub min_tokens_per_second: usize,
}

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpecSource {
    /// Inside the program.
    Embedded,
    /// A file or folder, by its absolute path.
    Path(String),
}

impl ModelSpec {
    /// The model at `path` (the embedded one where there is none), as `settings` want it. `None` for a
    /// path that the wire cannot say, since it is not UTF-8.
    #[must_use]
    pub fn new(path: Option<&Path>, settings: &LocalSettings) -> Option<Self> {
        let source = match path {
            None => SpecSource::Embedded,
            Some(path) => SpecSource::Path(path.to_str()?.to_owned()),
        };
        Some(Self {
            source,
            context_tokens: settings.context_tokens,
            kv_cache_bytes: settings.kv_cache_bytes,
            idle_unload_ms: milliseconds(settings.idle_unload),
            runtime: settings.runtime,
            device: settings.device,
            engine: settings.engine,
            max_first_token_ms: milliseconds(settings.max_first_token),
            min_tokens_per_second: settings.min_tokens_per_second,
        })
    }

    /// The model's path; `None` for the embedded one.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match &self.source {
            SpecSource::Embedded => None,
            SpecSource::Path(path) => Some(PathBuf::from(path)),
        }
    }

    /// The settings to load it with.
    #[must_use]
    pub fn settings(&self) -> LocalSettings {
        LocalSettings {
            model: self.path(),
            context_tokens: self.context_tokens,
            kv_cache_bytes: self.kv_cache_bytes,
            idle_unload: Duration::from_millis(self.idle_unload_ms),
            runtime: self.runtime,
            device: self.device,
            engine: self.engine,
            max_first_token: Duration::from_millis(self.max_first_token_ms),
            min_tokens_per_second: self.min_tokens_per_second,
            ..LocalSettings::default()
        }
    }
}

/// What sessions of an older build, which do not say it, went by.
fn max_first_token_ms() -> u64 {
    milliseconds(LocalSettings::default().max_first_token)
}

/// As [`max_first_token_ms`].
fn min_tokens_per_second() -> usize {
    LocalSettings::default().min_tokens_per_second
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_is_loaded_with_comes_through() {
        let settings = LocalSettings {
            context_tokens: 777,
            kv_cache_bytes: 1234,
            idle_unload: Duration::from_millis(4321),
            runtime: BundleRuntime::Reference,
            device: ComputeDevice::Cuda,
            engine: ComputeEngine::Kernels,
            max_first_token: Duration::from_millis(123),
            min_tokens_per_second: 45,
            ..LocalSettings::default()
        };
        let spec = ModelSpec::new(Some(Path::new("/models/a.gguf")), &settings).unwrap();
        let expected = LocalSettings {
            model: Some(PathBuf::from("/models/a.gguf")),
            ..settings.clone()
        };
        assert_eq!(spec.settings(), expected);
        let embedded = ModelSpec::new(None, &settings).unwrap();
        assert_eq!(embedded.settings(), settings);
    }
}
