//! Where models are kept: a folder for each, and a manifest, written last, that makes it a model.
//!
//! ```text
//! models/qwen3-0.6b/manifest.json         which commit counts, its files, their sizes and hashes
//! models/qwen3-0.6b/COMMIT/…              the files
//! models/qwen3-0.6b/COMMIT.partial/…      files on their way; the unfinished one ends with `.part`
//! models/.locks/qwen3-0.6b                held by who changes any of these
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::catalogue::{Entry, Kind, Template};
use super::digest::Hashed;
use super::error::{ModelError, ModelErrorKind};
use super::names;

const MANIFEST: &str = "manifest.json";
const PARTIAL: &str = ".partial";

/// Raised when a manifest changes so that older programs would misread it.
const FORMAT: u32 = 1;

/// How often to look whether another process has finished. There is no event to wait for.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// All models of a user.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What a model in the store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// Its name.
    pub id: String,
    /// The form of its files.
    pub kind: Kind,
    /// Where it came from.
    pub repository: String,
    /// The commit it is, whatever the repository does later.
    pub commit: String,
    /// Its licence, where known.
    pub licence: Option<String>,
    /// How a conversation is written down for it.
    pub template: Template,
    /// Prompt and answer together, in tokens.
    pub context_tokens: usize,
    /// Its files.
    pub files: Vec<KeptFile>,
}

/// A file in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// Its path below the model's folder, with forward slashes.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A model that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// What it is.
    pub manifest: Manifest,
    /// What an engine opens: the GGUF file, or the folder.
    pub path: PathBuf,
    folder: PathBuf,
}

/// Held while a model's files are changed. The system takes it back when a process ends, however.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "unlocked when it is closed")] File);

impl Store {
    /// The store below `root`, which need not be there.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The model of this name, if it is there: its manifest, and every file with its size. Hashes
    /// were checked when it came; [`Self::verify`] checks them again.
    ///
    /// # Errors
    /// [`ModelErrorKind::Damaged`] when there is a manifest and something else is missing; and when
    /// the disk refuses.
    pub fn installed(&self, id: &str) -> Result<Option<Installed>, ModelError> {
        if !names::is_id(id) {
            return Ok(None);
        }
        let file = self.manifest_file(id);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ModelError::disk(&file, &error)),
        };
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| damaged(id, &format!("its manifest makes no sense ({error})")))?;
        if manifest.format != FORMAT || !names::is_commit(&manifest.commit) {
            return Err(damaged(id, "its manifest is of another version of Tandem"));
        }
        let folder = self.folder(id).join(&manifest.commit);
        for kept in &manifest.files {
            let path = names::file_path(&kept.path)
                .ok_or_else(|| damaged(id, "its manifest names a file outside its folder"))?;
            match fs::metadata(folder.join(path)) {
                Ok(found) if found.len() == kept.bytes => {}
                Ok(_) => return Err(damaged(id, &format!("`{}` has another size", kept.path))),
                Err(_) => return Err(damaged(id, &format!("`{}` is gone", kept.path))),
            }
        }
        let path = match (manifest.kind, manifest.files.as_slice()) {
            (Kind::Gguf, [file]) => folder.join(&file.path),
            _ => folder.clone(),
        };
        Ok(Some(Installed {
            manifest,
            path,
            folder,
        }))
    }

    /// Reads every byte of a model and says which files are not what they were.
    ///
    /// # Errors
    /// [`ModelErrorKind::Absent`] and [`ModelErrorKind::Damaged`]; and when the disk refuses.
    pub fn verify(&self, id: &str) -> Result<Installed, ModelError> {
        let installed = self.installed(id)?.ok_or_else(|| absent(id))?;
        let mut wrong = Vec::new();
        for kept in &installed.manifest.files {
            let path = installed.folder.join(&kept.path);
            let hashed = Hashed::of(&path).map_err(|error| ModelError::disk(&path, &error))?;
            if hashed.sha256 != kept.sha256 {
                wrong.push(format!("`{}`", kept.path));
            }
        }
        if wrong.is_empty() {
            return Ok(installed);
        }
        let what = format!("the content of {} has changed", wrong.join(", "));
        Err(damaged(id, &what))
    }

    /// Removes a model and what is left of downloads of it; gives the bytes that became free.
    ///
    /// # Errors
    /// [`ModelErrorKind::Absent`] when nothing of it is there; and when the disk refuses.
    pub async fn remove(&self, id: &str) -> Result<u64, ModelError> {
        let folder = self.folder(id);
        if !names::is_id(id) || !folder.is_dir() {
            return Err(absent(id));
        }
        let _lock = self.lock(id, || ()).await?;
        let bytes = size(&folder);
        let gone = |path: &Path, outcome: io::Result<()>| match outcome {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ModelError::disk(path, &error))
            }
            _ => Ok(()),
        };
        // Without its manifest it is no model any more, whatever happens next.
        let manifest = self.manifest_file(id);
        gone(&manifest, fs::remove_file(&manifest))?;
        gone(&folder, fs::remove_dir_all(&folder))?;
        Ok(bytes)
    }

    /// Bytes of unfinished downloads of a model.
    #[must_use]
    pub fn unfinished(&self, id: &str) -> u64 {
        let Ok(entries) = fs::read_dir(self.folder(id)) else {
            return 0;
        };
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(PARTIAL))
            .map(|entry| size(&entry.path()))
            .sum()
    }

    /// The names of the models that are there, whatever the catalogue says.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|id| names::is_id(id) && self.manifest_file(id).is_file())
            .collect();
        ids.sort();
        ids
    }

    /// Waits until nobody else changes the model; `waiting` is called once if it takes a while.
    pub(super) async fn lock(&self, id: &str, waiting: impl FnOnce()) -> Result<Lock, ModelError> {
        let folder = self.root.join(".locks");
        let path = folder.join(id);
        let failed = |error: io::Error| ModelError::disk(&path, &error);
        fs::create_dir_all(&folder).map_err(failed)?;
        // Never removed: a second process may hold the same file open.
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(failed)?;
        let mut waiting = Some(waiting);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    /// Where the files of a commit arrive.
    pub(super) fn partial(&self, id: &str, commit: &str) -> PathBuf {
        self.folder(id).join(format!("{commit}{PARTIAL}"))
    }

    /// Makes the files that arrived a model: the folder gets its name, then the manifest is written.
    pub(super) fn commit(
        &self,
        entry: &Entry,
        commit: &str,
        files: Vec<KeptFile>,
    ) -> Result<(), ModelError> {
        let folder = self.folder(&entry.id);
        let partial = self.partial(&entry.id, commit);
        let target = folder.join(commit);
        let failed = |path: &Path, error: io::Error| ModelError::disk(path, &error);
        if target.exists() {
            // Left by a process that ended between the two steps, or found damaged.
            fs::remove_dir_all(&target).map_err(|error| failed(&target, error))?;
        }
        fs::rename(&partial, &target).map_err(|error| failed(&target, error))?;
        let manifest = Manifest {
            format: FORMAT,
            id: entry.id.clone(),
            kind: entry.kind,
            repository: entry.repository.clone(),
            commit: commit.to_owned(),
            licence: entry.licence.clone(),
            template: entry.template,
            context_tokens: entry.context_tokens,
            files,
        };
        let path = self.manifest_file(&entry.id);
        write_whole(&folder, &path, &manifest).map_err(|error| failed(&path, error))?;
        self.drop_others(&entry.id, commit);
        Ok(())
    }

    /// Takes a damaged model out of use and makes its sound files the beginning of a new download.
    /// Gives the commit that it was.
    pub(super) fn demote(&self, id: &str) -> Result<Option<String>, ModelError> {
        let path = self.manifest_file(id);
        let Ok(text) = fs::read(&path) else {
            return Ok(None);
        };
        fs::remove_file(&path).map_err(|error| ModelError::disk(&path, &error))?;
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else {
            return Ok(None);
        };
        if !names::is_commit(&manifest.commit) {
            return Ok(None);
        }
        let folder = self.folder(id).join(&manifest.commit);
        for kept in &manifest.files {
            let Some(file) = names::file_path(&kept.path).map(|path| folder.join(path)) else {
                continue;
            };
            if Hashed::of(&file).is_ok_and(|hashed| hashed.sha256 == kept.sha256) {
                continue;
            }
            let _ = fs::remove_file(&file);
        }
        let partial = self.partial(id, &manifest.commit);
        let _ = fs::remove_dir_all(&partial);
        // What cannot be kept is fetched again.
        let _ = fs::rename(&folder, &partial);
        Ok(Some(manifest.commit))
    }

    /// Removes what is of other commits: nobody asks for it any more.
    fn drop_others(&self, id: &str, commit: &str) {
        let Ok(entries) = fs::read_dir(self.folder(id)) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let other = name.strip_suffix(PARTIAL).unwrap_or(&name);
            if names::is_commit(other) && *name != *commit {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    fn manifest_file(&self, id: &str) -> PathBuf {
        self.folder(id).join(MANIFEST)
    }
}

/// Nobody ever sees a half of it.
fn write_whole(folder: &Path, path: &Path, manifest: &Manifest) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mut text = serde_json::to_vec_pretty(manifest)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn size(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

pub(super) fn absent(id: &str) -> ModelError {
    ModelError::new(
        ModelErrorKind::Absent,
        format!("the model `{}` is not on this machine", id.escape_debug()),
        format!("`tandem model pull {}` downloads it.", id.escape_debug()),
    )
}

fn damaged(id: &str, what: &str) -> ModelError {
    ModelError::new(
        ModelErrorKind::Damaged,
        format!("the model `{id}` is damaged: {what}"),
        format!("`tandem model pull {id}` fetches again what is missing."),
    )
}
