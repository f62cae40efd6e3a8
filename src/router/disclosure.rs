//! What is known about the text of a request that would leave the machine: whether its files are
//! private and whether secrets are recognised in it. It gathers evidence and decides nothing; the
//! policy decides.

mod diffs;
mod ignores;
mod names;
mod projects;
mod secrets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use self::ignores::{IgnoredBy, Ignores};
use self::projects::Projects;
use super::Origin;
use crate::config::PrivacySettings;
use crate::inference::{GenerateRequest, Task};

/// Why a text must not leave the machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Git ignores the file.
    #[error("git ignores this file")]
    GitIgnored,
    /// A `.tandemignore` names the file.
    #[error("a `.tandemignore` names this file")]
    TandemIgnored,
    /// Files of this name hold secrets.
    #[error("files of this name hold secrets")]
    SensitiveName,
    /// A glob of the user's names the file.
    #[error("`privacy.deny` names this file (`{glob}`)")]
    DeniedByUser {
        /// The glob as written.
        glob: String,
    },
    /// The file is not in the workspace.
    #[error("this file is outside the workspace")]
    OutsideWorkspace,
    /// A secret was recognised in the text.
    #[error("a secret is recognised in the text (rule `{rule}`)")]
    Secret {
        /// The rule that recognised it.
        rule: String,
    },
    /// A project's file keeps the file on the machine.
    #[error("`{file}` keeps this file on the machine")]
    KeptByProject {
        /// The project's file.
        file: String,
    },
    /// A project's file cannot be read, and may have kept the file on the machine.
    #[error("a project's file is wrong: {why}")]
    ProjectUnreadable {
        /// Where and what.
        why: String,
    },
    /// Nobody could look.
    #[error("it could not be examined")]
    Unexaminable,
}

impl Denial {
    /// What the user can do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::GitIgnored => {
                "Set `local.model`, or set `privacy.allow_git_ignored: true` in your own \
                 configuration."
            }
            Self::TandemIgnored => "Set `local.model`, or take the file out of `.tandemignore`.",
            Self::DeniedByUser { .. } => {
                "Set `local.model`, or take the glob out of `privacy.deny`."
            }
            Self::SensitiveName | Self::OutsideWorkspace | Self::KeptByProject { .. } => {
                "Set `local.model`: a model on this machine may see it."
            }
            Self::Secret { .. } => {
                "Take the secret out of the text, set `local.model`, or set \
                 `privacy.allow_secrets: true` in your own configuration."
            }
            Self::ProjectUnreadable { .. } => "Correct the project's file.",
            Self::Unexaminable => "Try again; if it happens twice, look at the log.",
        }
        .to_owned()
    }
}

/// What was found about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Against the request as a whole.
    pub request: Option<Denial>,
    /// Against each of its pieces of other documents, in their order.
    pub snippets: Vec<Option<Denial>>,
}

impl Evidence {
    /// What must be assumed where nobody could look.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            request: Some(Denial::Unexaminable),
            snippets: Vec::new(),
        }
    }
}

/// Looks at requests. Keeps what it read of ignore files for the next.
#[derive(Debug, Default)]
pub struct Examiner {
    ignores: Ignores,
}

impl Examiner {
    /// Looks at everything in `request` that would leave the machine.
    #[must_use]
    pub fn examine(
        &self,
        request: &GenerateRequest,
        origin: &Origin,
        privacy: &PrivacySettings,
    ) -> Evidence {
        let place = Place::new(origin.workspace.as_deref(), privacy);
        let of_file = |file: Option<&Path>| file.and_then(|file| self.file(file, &place));
        let of_text = |text: &str| {
            if privacy.allow_secrets {
                return None;
            }
            match secrets::find(text) {
                Ok(rule) => rule.map(|rule| Denial::Secret { rule }),
                Err(secrets::Unreadable) => Some(Denial::Unexaminable),
            }
        };
        // Text that is in no file may still be called by the name of one that holds secrets.
        let of_name = |name: Option<&str>| {
            name.filter(|name| names::is_sensitive(Path::new(name)))
                .map(|_| Denial::SensitiveName)
        };
        let name = match &request.task {
            Task::Complete(task) => task.path.as_deref(),
            Task::Edit(task) => task.path.as_deref(),
            Task::Chat(_) => None,
        };
        // The parts of a document are joined as they stand in it, so that a secret with the cursor
        // in its middle is one.
        let (text, snippets) = match &request.task {
            Task::Complete(task) => {
                let snippets = task.snippets.iter().map(|snippet| {
                    of_file(snippet.file.as_deref())
                        .or_else(|| of_name(Some(&snippet.path)))
                        .or_else(|| of_text(&snippet.text))
                });
                (
                    format!("{}{}", task.prefix, task.suffix),
                    snippets.collect(),
                )
            }
            Task::Chat(task) => {
                let messages = task.messages.iter().map(|message| message.text.as_str());
                let schema = task.schema.as_ref().map(|schema| schema.json().to_string());
                let parts = task.system.as_deref().into_iter().chain(messages);
                let parts: Vec<&str> = parts.chain(schema.as_deref()).collect();
                (parts.join("\n"), Vec::new())
            }
            Task::Edit(task) => {
                let parts = [
                    &*task.before,
                    &*task.selection,
                    &*task.after,
                    "\n",
                    &task.instruction,
                ];
                (parts.concat(), Vec::new())
            }
        };
        let of_diffs = || {
            let Task::Chat(task) = &request.task else {
                return None;
            };
            let base = diff_base(origin.workspace.as_deref())?;
            let files = task.messages.iter().flat_map(|one| diffs::files(&one.text));
            let files: BTreeSet<String> = files.collect();
            files
                .iter()
                .find_map(|file| of_file(Some(&base.join(file))))
        };
        Evidence {
            request: origin
                .file
                .iter()
                .chain(&origin.also)
                .find_map(|file| of_file(Some(file)))
                .or_else(|| of_name(name).or_else(|| of_name(origin.name.as_deref())))
                .or_else(of_diffs)
                .or_else(|| of_text(&text)),
            snippets,
        }
    }

    /// What is said against a file, by the name it is known by and by where it really lies.
    fn file(&self, file: &Path, place: &Place) -> Option<Denial> {
        let Ok(known_as) = std::path::absolute(file) else {
            return Some(Denial::Unexaminable);
        };
        let really = resolve(&known_as);
        self.path(&known_as, place).or_else(|| {
            (really != known_as)
                .then(|| self.path(&really, place))
                .flatten()
        })
    }

    fn path(&self, file: &Path, place: &Place) -> Option<Denial> {
        if names::is_sensitive(file) {
            return Some(Denial::SensitiveName);
        }
        if let Some(glob) = place.denied_by(file) {
            return Some(Denial::DeniedByUser { glob });
        }
        if !place.contains(file) {
            return Some(Denial::OutsideWorkspace);
        }
        let projects = match Projects::of(file) {
            Ok(projects) => projects,
            Err(denial) => return Some(denial),
        };
        let allow_git_ignored = place.allow_git_ignored && !projects.keep_git_ignored;
        match self.ignores.ignored(file, place.workspace.as_deref()) {
            Some(IgnoredBy::Tandem) => Some(Denial::TandemIgnored),
            Some(IgnoredBy::Git) if !allow_git_ignored => Some(Denial::GitIgnored),
            Some(IgnoredBy::Git) | None => None,
        }
    }
}

/// What the paths of one request are held against.
struct Place {
    /// The workspace as it is named.
    workspace: Option<PathBuf>,
    /// And as it really lies.
    really: Option<PathBuf>,
    globs: Result<GlobSet, globset::Error>,
    written: Vec<String>,
    allow_git_ignored: bool,
}

impl Place {
    fn new(workspace: Option<&Path>, privacy: &PrivacySettings) -> Self {
        let workspace = workspace.and_then(|folder| std::path::absolute(folder).ok());
        let mut globs = GlobSetBuilder::new();
        let mut broken = None;
        for glob in &privacy.deny {
            match GlobBuilder::new(glob).build() {
                Ok(glob) => {
                    globs.add(glob);
                }
                Err(error) => broken = Some(error),
            }
        }
        Self {
            really: workspace.as_deref().map(resolve),
            workspace,
            globs: match broken {
                Some(error) => Err(error),
                None => globs.build(),
            },
            written: privacy.deny.clone(),
            allow_git_ignored: privacy.allow_git_ignored,
        }
    }

    /// The user's glob that names `file`: by its name, its path in the workspace, or its whole
    /// path. A glob that cannot be read names every file, so that a slip of the pen opens nothing.
    fn denied_by(&self, file: &Path) -> Option<String> {
        let globs = match &self.globs {
            Ok(globs) => globs,
            Err(error) => return Some(error.glob().unwrap_or("unreadable").to_owned()),
        };
        let relative = [&self.workspace, &self.really]
            .into_iter()
            .flatten()
            .find_map(|workspace| file.strip_prefix(workspace).ok());
        let name = file.file_name().map(Path::new);
        // A glob that names a folder names what is in it.
        let folders = relative
            .into_iter()
            .flat_map(|path| path.ancestors().skip(1));
        [Some(file), relative, name]
            .into_iter()
            .flatten()
            .chain(folders)
            .find_map(|path| globs.matches(path).first().copied())
            .and_then(|index| self.written.get(index).cloned())
    }

    fn contains(&self, file: &Path) -> bool {
        let mut workspaces = [&self.workspace, &self.really].into_iter().flatten();
        self.workspace.is_none() || workspaces.any(|workspace| file.starts_with(workspace))
    }
}

/// What the names in a diff start from: the workspace, or the repository around the current folder.
fn diff_base(workspace: Option<&Path>) -> Option<PathBuf> {
    if let Some(workspace) = workspace {
        return Some(workspace.to_path_buf());
    }
    let here = std::env::current_dir().ok()?;
    let repository = here
        .ancestors()
        .find(|folder| folder.join(".git").exists())
        .map(Path::to_path_buf);
    Some(repository.unwrap_or(here))
}

/// Where a path really lies. For one that does not exist (a document that was never saved), its
/// nearest folder that does is resolved.
fn resolve(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(really) = ancestor.canonicalize() {
            return match path.strip_prefix(ancestor) {
                Ok(rest) if rest.as_os_str().is_empty() => really,
                Ok(rest) => really.join(rest),
                Err(_) => really,
            };
        }
    }
    path.to_path_buf()
}
