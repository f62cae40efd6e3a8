//! What `.gitignore` and `.tandemignore` files say about a path, without walking the tree.
//!
//! The rules are those of gitignore(5): the files of all folders from the repository's root down to
//! the path's own count, the deeper ones more; then `.git/info/exclude`; then the user's global
//! excludes. Within a file the last pattern that matches decides, and nothing below an ignored
//! folder can be taken back. Unlike git, a file that is ignored and yet tracked counts as ignored:
//! saying otherwise would need the index, and a mistake here sends nothing it should not.
//!
//! What was read is kept, and read again when a file's time or size changes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ignore::gitignore::{Gitignore, GitignoreBuilder, gitconfig_excludes_path};

/// How many ignore files are kept. More than the folders of any set of open documents; past it all
/// are forgotten and read anew.
const KEPT: usize = 4096;

/// Who ignores a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IgnoredBy {
    Git,
    Tandem,
}

/// Ignore files, read once as long as they stay the same.
#[derive(Debug, Default)]
pub(super) struct Ignores(Mutex<HashMap<(PathBuf, PathBuf), Kept>>);

#[derive(Debug)]
struct Kept {
    stamp: Option<Stamp>,
    rules: Option<Arc<Gitignore>>,
}

/// By which a change of a file is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

impl Ignores {
    /// Whether and by whom `file`, an absolute path, is ignored. `.tandemignore` files count from
    /// the outermost of the workspace and the repository.
    pub(super) fn ignored(&self, file: &Path, workspace: Option<&Path>) -> Option<IgnoredBy> {
        let repository = file
            .ancestors()
            .skip(1)
            .find(|folder| folder.join(".git").exists());
        let outermost = match (
            repository,
            workspace.filter(|folder| file.starts_with(folder)),
        ) {
            (Some(one), Some(other)) if one.starts_with(other) => Some(other),
            (Some(one), _) => Some(one),
            (None, other) => other,
        };
        if let Some(root) = outermost
            && self.chain_ignores(file, root, ".tandemignore", &[])
        {
            return Some(IgnoredBy::Tandem);
        }
        let root = repository?;
        let exclude = common_git_dir(root).join("info").join("exclude");
        let global = gitconfig_excludes_path();
        let rest: Vec<_> = [Some(exclude), global]
            .into_iter()
            .flatten()
            .filter_map(|at| self.rules(&at, root))
            .collect();
        self.chain_ignores(file, root, ".gitignore", &rest)
            .then_some(IgnoredBy::Git)
    }

    /// Whether `file` is ignored by the files called `name` from `root` down, or by `rest`, which
    /// matter less, in this order.
    fn chain_ignores(&self, file: &Path, root: &Path, name: &str, rest: &[Arc<Gitignore>]) -> bool {
        let Ok(relative) = file.strip_prefix(root) else {
            return false;
        };
        let mut rules: Vec<Arc<Gitignore>> = Vec::new();
        let mut at = root.to_path_buf();
        let mut components = relative.components().peekable();
        // From the root down: what ignores a folder ignores all that is in it.
        while let Some(component) = components.next() {
            rules.extend(self.rules(&at.join(name), &at));
            at.push(component);
            let is_folder = components.peek().is_some();
            let verdict = rules
                .iter()
                .rev()
                .chain(rest)
                .map(|rules| rules.matched(&at, is_folder))
                .find(|verdict| !verdict.is_none());
            if verdict.is_some_and(|verdict| verdict.is_ignore()) {
                return true;
            }
        }
        false
    }

    /// The rules in the file `at`, which are about paths in `folder`; `None` if there is no file.
    fn rules(&self, at: &Path, folder: &Path) -> Option<Arc<Gitignore>> {
        let stamp = fs::metadata(at).ok().map(|metadata| Stamp {
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
        });
        let key = (at.to_path_buf(), folder.to_path_buf());
        if let Some(kept) = self.lock().get(&key)
            && kept.stamp == stamp
        {
            return kept.rules.clone();
        }
        let rules = stamp.is_some().then(|| {
            let mut builder = GitignoreBuilder::new(folder);
            // A file that is partly wrong counts as far as it is right, as in git.
            let wrong = builder.add(at);
            if let Some(wrong) = wrong {
                tracing::warn!("an ignore file is partly unreadable: {wrong}");
            }
            Arc::new(builder.build().unwrap_or_else(|_| Gitignore::empty()))
        });
        let mut kept = self.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(
            key,
            Kept {
                stamp,
                rules: rules.clone(),
            },
        );
        rules
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(PathBuf, PathBuf), Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folder with `info/exclude`: `.git` itself, or for a worktree or submodule what its `.git`
/// file points to (gitrepository-layout(5): `gitdir:` and `commondir`).
fn common_git_dir(root: &Path) -> PathBuf {
    let git = root.join(".git");
    let Ok(pointer) = fs::read_to_string(&git) else {
        return git;
    };
    let Some(target) = pointer.strip_prefix("gitdir:") else {
        return git;
    };
    let own = root.join(target.trim());
    match fs::read_to_string(own.join("commondir")) {
        Ok(common) => own.join(common.trim()),
        Err(_) => own,
    }
}
