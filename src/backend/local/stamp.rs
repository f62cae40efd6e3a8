//! Notices that a model's files have changed, and waits until nobody writes to them any more.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::ModelSource;

/// Looked at no more often than this; and files that are alike in two looks stand still.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Files that are not there are looked for so often: soon enough for who has just put them there.
pub const ABSENCE: Duration = Duration::from_secs(2);

/// What tells a version of a model's files from another, without reading them: of a file its length,
/// age and number, of a folder those of what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Vec<(OsString, u64, Option<SystemTime>, u64)>);

impl Stamp {
    /// The stamp now; `None` where nothing is there, and for a model inside the binary.
    #[must_use]
    pub fn of(source: &ModelSource) -> Option<Self> {
        match source {
            ModelSource::Gguf(path) => {
                Some(Self(vec![entry(OsString::new(), &path.metadata().ok()?)]))
            }
            ModelSource::Folder(path) => Self::of_folder(path),
            ModelSource::Bundle(bundle) => Self::of_folder(&bundle.folder),
            ModelSource::Embedded { .. } => None,
        }
    }

    fn of_folder(folder: &Path) -> Option<Self> {
        let mut entries = Vec::new();
        for file in fs::read_dir(folder).ok()? {
            let file = file.ok()?;
            // What starts with a dot is no part of a model, and file managers write such.
            if file.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            // Through links: caches of models are made of them.
            entries.push(entry(file.file_name(), &fs::metadata(file.path()).ok()?));
        }
        entries.sort();
        Some(Self(entries))
    }
}

fn entry(name: OsString, metadata: &Metadata) -> (OsString, u64, Option<SystemTime>, u64) {
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let number = 0;
    (name, metadata.len(), metadata.modified().ok(), number)
}

/// How the worker looks at the files of its model.
#[derive(Clone)]
pub struct Files(Arc<dyn Fn() -> Option<Stamp> + Send + Sync>);

impl Files {
    /// The files of `source`.
    #[must_use]
    pub fn of(source: ModelSource) -> Self {
        Self::new(move || Stamp::of(&source))
    }

    /// Files whose stamp is what `look` says.
    pub fn new(look: impl Fn() -> Option<Stamp> + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    /// Their stamp now.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        (self.0)()
    }
}

impl Default for Files {
    /// None that could change.
    fn default() -> Self {
        Self(Arc::new(|| None))
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files")
    }
}

/// What was loaded, and what has been seen since.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The stamp of what was loaded or tried.
    loaded: Option<Stamp>,
    /// Another, as seen in the last look.
    seen: Option<Stamp>,
    looked: Option<Instant>,
    /// It stood still.
    settled: bool,
}

impl Changes {
    /// Files with this stamp are loaded now.
    pub fn loading(&mut self, stamp: Option<Stamp>) {
        *self = Self {
            loaded: stamp,
            ..Self::default()
        };
    }

    /// Whether the files are others than were loaded and nobody writes to them. Files that are gone
    /// are no change: there is nothing to load instead.
    pub fn settled(&mut self, now: Instant, files: &Files) -> bool {
        let Some(loaded) = &self.loaded else {
            return false;
        };
        if self.looked.is_some_and(|looked| now < looked + LOOK) {
            return self.settled;
        }
        self.looked = Some(now);
        let changed = files.stamp().filter(|stamp| stamp != loaded);
        self.settled = changed.is_some() && changed == self.seen;
        self.seen = changed;
        self.settled
    }

    /// Whether files stand where none did that could be loaded, and nobody writes to them.
    pub fn appeared(&mut self, now: Instant, files: &Files) -> bool {
        self.looked = Some(now);
        let tried = self.loaded.as_ref();
        let there = files.stamp().filter(|stamp| Some(stamp) != tried);
        let appeared = there.is_some() && there == self.seen;
        self.seen = there;
        appeared
    }

    /// When to look whether files that were not there have come.
    pub fn look_for(&self, now: Instant) -> Instant {
        self.looked.map_or(now, |looked| looked + ABSENCE)
    }

    /// When to look again, where something was seen to change.
    pub fn again(&self) -> Option<Instant> {
        self.seen.as_ref()?;
        self.looked.map(|looked| looked + LOOK)
    }
}
