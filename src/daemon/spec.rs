//! Which model a session wants, and how: what the daemon tells its models apart by.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{BundleRuntime, ComputeDevice, LocalSettings};

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
            idle_unload_ms: u64::try_from(settings.idle_unload.as_millis()).unwrap_or(u64::MAX),
            runtime: settings.runtime,
            device: settings.device,
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
            ..LocalSettings::default()
        }
    }
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
