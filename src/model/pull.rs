//! Pulling a model: what is missing is taken from the cache or the hub, checked, and kept.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::cache;
use super::catalogue::Entry;
use super::digest::Digest;
use super::error::{ModelError, ModelErrorKind};
use super::hub::{Hub, Plan, Wanted};
use super::names;
use super::store::{Installed, KeptFile, Store, absent};
use super::transfer::{Patience, Transfer, on_disk};

/// Room that must be left on the disk: a full one breaks more than a download.
const SPARE_BYTES: u64 = 64 << 20;

/// What happens while a model is pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Another process pulls it, too, and is waited for.
    Waiting,
    /// Its size is known.
    Started {
        /// Bytes of the whole model.
        total: u64,
    },
    /// So much of it is there.
    Advanced {
        /// Bytes of the whole model.
        done: u64,
    },
    /// Something failed that may pass.
    Again {
        /// What, without a closing full stop.
        why: String,
        /// The pause before the next try.
        pause: Duration,
    },
}

/// Who is told. Called often: once for each piece that arrives.
pub type Observer<'a> = &'a (dyn Fn(Step) + Send + Sync);

/// What is there of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// All of it.
    Installed(Installed),
    /// All of it once, and now something is missing.
    Damaged(ModelError),
    /// A beginning.
    Unfinished {
        /// Bytes that are there.
        bytes: u64,
    },
    /// All of it, in the cache of Hugging Face's tools.
    Cached,
    /// Nothing.
    Absent,
}

/// What is there of a model, at a glance: sizes, not hashes.
#[must_use]
pub fn state(store: &Store, hub: &Hub, entry: &Entry) -> State {
    match store.installed(&entry.id) {
        Ok(Some(installed)) => return State::Installed(installed),
        Err(error) => return State::Damaged(error),
        Ok(None) => {}
    }
    let cached = hub
        .cache
        .as_ref()
        .and_then(|folder| Some((folder, cache::describe(folder, entry)?)));
    if let Some((folder, plan)) = cached {
        let there = |wanted: &Wanted| {
            let known = entry.files.iter().find(|file| file.path == wanted.path);
            let fits = known
                .and_then(|file| file.bytes)
                .is_none_or(|bytes| bytes == wanted.bytes);
            fits && cache::find(folder, &entry.repository, &plan.commit, wanted).is_some()
        };
        if plan.files.iter().all(there) {
            return State::Cached;
        }
    }
    match store.unfinished(&entry.id) {
        0 => State::Absent,
        bytes => State::Unfinished { bytes },
    }
}

/// Makes sure that a model is there and sound, and gives it. Of several processes one does the work
/// and the others wait for it. Dropping the future stops it; what has arrived is kept.
///
/// # Errors
/// [`ModelError`], with the next step.
pub async fn pull(
    store: &Store,
    hub: &Hub,
    entry: &Entry,
    observer: Observer<'_>,
) -> Result<Installed, ModelError> {
    let _lock = store.lock(&entry.id, || observer(Step::Waiting)).await?;
    let (checked, id) = (store.clone(), entry.id.clone());
    let found = on_disk(store.root(), move || Ok(checked.verify(&id))).await?;
    let mut known_commit = None;
    match found {
        Ok(installed) if is_wanted(entry, &installed) => return Ok(installed),
        // The catalogue names another commit by now.
        Ok(_) => {}
        Err(error) if error.kind == ModelErrorKind::Absent => {}
        Err(error) if error.kind == ModelErrorKind::Damaged => {
            tracing::warn!(%error, "fetched again");
            let (store, id) = (store.clone(), entry.id.clone());
            let root = store.root().to_owned();
            known_commit = on_disk(&root, move || Ok(store.demote(&id))).await??;
        }
        Err(error) => return Err(error),
    }
    let plan = plan(hub, entry, known_commit.as_deref(), observer).await?;
    let folder = store.partial(&entry.id, &plan.commit);
    fs::create_dir_all(&folder).map_err(|error| ModelError::disk(&folder, &error))?;
    let total = plan.files.iter().map(|file| file.bytes).sum();
    observer(Step::Started { total });
    let room = fs4::available_space(&folder).map_err(|error| ModelError::disk(&folder, &error))?;
    enough_room(
        &folder,
        total.saturating_sub(store.unfinished(&entry.id)),
        room,
    )?;

    let mut kept = Vec::new();
    let mut before = 0;
    for wanted in &plan.files {
        let file = Fetch {
            hub,
            entry,
            commit: &plan.commit,
            folder: &folder,
            wanted,
            before,
            observer,
        };
        kept.push(file.run().await?);
        before += wanted.bytes;
        observer(Step::Advanced { done: before });
    }
    store.commit(entry, &plan.commit, kept)?;
    store.installed(&entry.id)?.ok_or_else(|| absent(&entry.id))
}

/// Whether what is there is what the catalogue names. A branch was looked up once, and holds.
fn is_wanted(entry: &Entry, installed: &Installed) -> bool {
    let manifest = &installed.manifest;
    manifest.repository == entry.repository
        && (!names::is_commit(&entry.revision) || manifest.commit == entry.revision)
        && entry.files.iter().all(|file| {
            manifest.files.iter().any(|kept| {
                kept.path == file.path
                    && file
                        .sha256
                        .as_ref()
                        .is_none_or(|sha256| *sha256 == kept.sha256)
            })
        })
}

/// Which files of which commit: from the catalogue where it says all, else from the hub, or from
/// the cache where the hub may not be asked.
async fn plan(
    hub: &Hub,
    entry: &Entry,
    known_commit: Option<&str>,
    observer: Observer<'_>,
) -> Result<Plan, ModelError> {
    if let Some(plan) = plan_of_catalogue(entry) {
        return Ok(plan);
    }
    let cached = hub.cache.as_ref().filter(|_| hub.offline);
    if let Some(plan) = cached.and_then(|folder| cache::describe(folder, entry)) {
        return Ok(plan);
    }
    let revision = known_commit.unwrap_or(&entry.revision);
    let mut patience = Patience::new(hub.limits);
    loop {
        match hub.describe(entry, revision).await {
            Ok(plan) => return Ok(plan),
            Err(error) => patience.again(error, observer).await?,
        }
    }
}

fn plan_of_catalogue(entry: &Entry) -> Option<Plan> {
    if !names::is_commit(&entry.revision) || entry.files.is_empty() {
        return None;
    }
    let files = entry.files.iter().map(|file| {
        Some(Wanted {
            path: file.path.clone(),
            bytes: file.bytes?,
            digest: Digest::Sha256(file.sha256.clone()?),
        })
    });
    Some(Plan {
        commit: entry.revision.clone(),
        files: files.collect::<Option<_>>()?,
    })
}

fn enough_room(folder: &Path, missing: u64, room: u64) -> Result<(), ModelError> {
    if missing == 0 || room >= missing.saturating_add(SPARE_BYTES) {
        return Ok(());
    }
    Err(ModelError::new(
        ModelErrorKind::Full,
        format!(
            "{}: the model needs {} MiB more and the disk has room for {} MiB",
            folder.display(),
            missing.div_ceil(1 << 20),
            room >> 20
        ),
        "Make room, or let XDG_DATA_HOME name a folder on another disk.",
    ))
}

/// One file on its way into the store.
struct Fetch<'a> {
    hub: &'a Hub,
    entry: &'a Entry,
    commit: &'a str,
    folder: &'a Path,
    wanted: &'a Wanted,
    before: u64,
    observer: Observer<'a>,
}

impl Fetch<'_> {
    async fn run(&self) -> Result<KeptFile, ModelError> {
        let Self { hub, wanted, .. } = self;
        let outside = || ModelError::malformed(&self.entry.repository, "a file leaves its folder");
        let target = self
            .folder
            .join(names::file_path(&wanted.path).ok_or_else(outside)?);
        let part = target.with_file_name(format!(
            "{}.part",
            target.file_name().unwrap_or_default().to_string_lossy()
        ));
        let parent = target.parent().unwrap_or(self.folder);
        fs::create_dir_all(parent).map_err(|error| ModelError::disk(parent, &error))?;
        let hashed = if let Some(hashed) = self.found(&target, &part).await? {
            hashed
        } else {
            let transfer = Transfer {
                hub,
                url: hub.file_url(&self.entry.repository, self.commit, &wanted.path)?,
                wanted,
                part: &part,
                before: self.before,
                observer: self.observer,
            };
            let hashed = transfer.run().await?;
            fs::rename(&part, &target).map_err(|error| ModelError::disk(&target, &error))?;
            hashed
        };
        Ok(KeptFile {
            path: wanted.path.clone(),
            bytes: wanted.bytes,
            sha256: hashed.sha256,
        })
    }

    /// The file, where an earlier download finished it or the cache has it.
    async fn found(
        &self,
        target: &Path,
        part: &Path,
    ) -> Result<Option<super::digest::Hashed>, ModelError> {
        let (digest, there) = (self.wanted.digest.clone(), target.to_owned());
        let cached = self.hub.cache.as_ref().and_then(|folder| {
            cache::find(folder, &self.entry.repository, self.commit, self.wanted)
        });
        let part = part.to_owned();
        on_disk(target, move || {
            if there.exists() {
                let hashed = super::digest::Hashed::of(&there)?;
                if hashed.is(&digest) {
                    return Ok(Some(hashed));
                }
                fs::remove_file(&there)?;
            }
            let Some(cached) = cached else {
                return Ok(None);
            };
            let adopted = cache::adopt(&cached, &there, &digest)?;
            if adopted.is_some() {
                let _ = fs::remove_file(part);
            }
            Ok(adopted)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_told_before_the_first_byte() {
        let folder = Path::new("/models");
        for (missing, room, enough) in [
            (0, 0, true),
            (1 << 20, 65 << 20, true),
            (1 << 20, (65 << 20) - 1, false),
            (u64::MAX, u64::MAX - 1, false),
        ] {
            let outcome = enough_room(folder, missing, room);
            assert_eq!(outcome.is_ok(), enough, "{missing} {room}");
            if let Err(error) = outcome {
                assert_eq!(error.kind, ModelErrorKind::Full);
                assert!(error.to_string().contains("MiB"), "{error}");
            }
        }
    }

    #[test]
    fn a_pinned_model_needs_no_question_to_the_hub() {
        let catalogue = crate::model::Catalogue::built_in().unwrap();
        let plan = plan_of_catalogue(catalogue.find("qwen3-0.6b").unwrap()).unwrap();
        assert_eq!(plan.files[0].bytes, 639_446_688);
        assert_eq!(
            plan_of_catalogue(catalogue.find("qwen3-0.6b-ane").unwrap()),
            None
        );
    }
}
