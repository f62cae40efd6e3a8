//! What Hugging Face's own tools have downloaded already, taken over without a second download.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::catalogue::Entry;
use super::digest::{Digest, Hashed};
use super::hub::{Plan, Wanted};
use super::names;

/// The cached file, if there is one of the right size. Its content is yet to be held to its hash.
pub(super) fn find(
    cache: &Cache,
    repository: &str,
    commit: &str,
    wanted: &Wanted,
) -> Option<PathBuf> {
    let path = names::file_path(&wanted.path)?;
    let file = repo(cache, repository, commit)
        .pointer_path(commit)
        .join(path);
    let metadata = fs::metadata(&file).ok()?;
    (metadata.is_file() && metadata.len() == wanted.bytes).then_some(file)
}

/// Gives the cached file a second name at `target`, or copies it where the two are on different
/// disks, and holds it to its hash. `None` where the content is not what its name promises.
pub(super) fn adopt(file: &Path, target: &Path, digest: &Digest) -> io::Result<Option<Hashed>> {
    let content = fs::canonicalize(file)?;
    let hashed = Hashed::of(&content)?;
    if !hashed.is(digest) {
        return Ok(None);
    }
    if fs::hard_link(&content, target).is_err() {
        fs::copy(&content, target)?;
        if !Hashed::of(target)?.is(digest) {
            fs::remove_file(target)?;
            return Ok(None);
        }
    }
    Ok(Some(hashed))
}

/// The files of a model as the cache alone describes them, where it has all of them: for when the
/// hub may not be asked. The cache names content by its hash. Models whose files are globs are not
/// among them: nothing says whether the cache has all.
pub(super) fn describe(cache: &Cache, entry: &Entry) -> Option<Plan> {
    let repo = repo(cache, &entry.repository, &entry.revision);
    let first = entry.files.first()?;
    let commit = if names::is_commit(&entry.revision) {
        entry.revision.clone()
    } else {
        // Through the ref of the branch: `snapshots/COMMIT/path/of/file`.
        let file = repo.get(&first.path)?;
        let depth = names::file_path(&first.path)?.components().count();
        file.ancestors()
            .nth(depth)?
            .file_name()?
            .to_str()?
            .to_owned()
    };
    let folder = repo.pointer_path(&commit);
    let mut files = Vec::new();
    for known in &entry.files {
        let content = fs::canonicalize(folder.join(names::file_path(&known.path)?)).ok()?;
        let bytes = fs::metadata(&content).ok()?.len();
        let digest = match &known.sha256 {
            Some(sha256) => Digest::Sha256(sha256.clone()),
            None => Digest::of_name(content.file_name()?.to_str()?)?,
        };
        files.push(Wanted {
            path: known.path.clone(),
            bytes,
            digest,
        });
    }
    names::is_commit(&commit).then_some(Plan { commit, files })
}

fn repo(cache: &Cache, repository: &str, revision: &str) -> CacheRepo {
    cache.repo(Repo::with_revision(
        repository.to_owned(),
        RepoType::Model,
        revision.to_owned(),
    ))
}
