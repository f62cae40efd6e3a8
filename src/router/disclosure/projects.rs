//! What projects' files say about a file that lies deeper than the workspace's root. Those of the
//! root itself are in the settings; a nested project keeps its own too.

use std::path::Path;

use globset::GlobBuilder;

use super::Denial;
use crate::config::{ProjectOptions, governing};

/// What the projects' files between a file and its repository's root keep.
pub(super) struct Projects {
    /// Whether files that git ignores stay.
    pub keep_git_ignored: bool,
}

impl Projects {
    /// Asks them. They are read anew each time: this happens only before text would leave, next to
    /// which a few small files cost nothing.
    pub(super) fn of(file: &Path) -> Result<Self, Denial> {
        let Some(folder) = file.parent() else {
            return Err(Denial::Unexaminable);
        };
        let mut keep_git_ignored = false;
        for layer in governing(folder).map_err(|mistakes| Denial::ProjectUnreadable {
            why: mistakes
                .first()
                .map(ToString::to_string)
                .unwrap_or_default(),
        })? {
            if keeps(&layer.options, &layer.place, file) {
                return Err(Denial::KeptByProject { file: layer.place });
            }
            keep_git_ignored |= layer.options.privacy.allow_git_ignored.is_some();
        }
        Ok(Self { keep_git_ignored })
    }
}

/// Whether the project's file at `place` keeps `file`. Its globs name whole paths, paths within the
/// project, names and folders, as those of the user do.
fn keeps(project: &ProjectOptions, place: &str, file: &Path) -> bool {
    if project.mode.is_some() {
        return true;
    }
    let root = Path::new(place).parent();
    let relative = root.and_then(|root| file.strip_prefix(root).ok());
    let folders = relative
        .into_iter()
        .flat_map(|path| path.ancestors().skip(1));
    let names: Vec<&Path> = [Some(file), relative, file.file_name().map(Path::new)]
        .into_iter()
        .flatten()
        .chain(folders)
        .collect();
    project.privacy.deny.iter().any(|glob| {
        match GlobBuilder::new(glob.as_str()).build() {
            Ok(glob) => {
                let matcher = glob.compile_matcher();
                names.iter().any(|name| matcher.is_match(name))
            }
            // It was checked when it was read; if in doubt, it keeps.
            Err(_) => true,
        }
    })
}
