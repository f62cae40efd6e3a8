//! `tandem install` and `tandem uninstall`: Tandem in the programs that start it, by an entry in their
//! configuration, a plugin or an extension.

mod claude_desktop;
mod edit;
mod file;
mod neovim;
#[cfg(test)]
mod tests;
mod vscode;

use std::path::{Path, PathBuf};

use similar::TextDiff;

use self::edit::Broken;
use self::file::ConfigFile;
use super::args::{InstallCommand, UninstallCommand};
use super::edge::Surroundings;
use super::exit::{Exit, Failure};
use super::output;

/// Puts Tandem into a program.
pub fn install(surroundings: &Surroundings, into: &InstallCommand) -> Result<Exit, Failure> {
    match into {
        InstallCommand::ClaudeDesktop(args) => claude_desktop::install(surroundings, args),
        InstallCommand::Neovim(args) => neovim::install(surroundings, args),
        InstallCommand::Vscode(args) => vscode::install(surroundings, args),
    }
}

/// Takes that back.
pub fn uninstall(surroundings: &Surroundings, from: &UninstallCommand) -> Result<Exit, Failure> {
    match from {
        UninstallCommand::ClaudeDesktop(args) => claude_desktop::uninstall(surroundings, args),
        UninstallCommand::Neovim(args) => neovim::uninstall(surroundings, args),
        UninstallCommand::Vscode(args) => vscode::uninstall(surroundings, args),
    }
}

/// This program's own file, as another program's configuration can name it.
///
/// # Errors
/// The system does not say which it is, or JSON cannot hold its name.
fn program() -> Result<String, Failure> {
    let path = std::env::current_exe().map_err(|error| {
        Failure::failed(format!(
            "the system does not say which file this program is: {error}. Start it by its full path."
        ))
    })?;
    path.into_os_string().into_string().map_err(|path| {
        Failure::failed(format!(
            "{}: this program's path is not Unicode, so that no configuration can name it. Move the \
             program.",
            path.display()
        ))
    })
}

/// Says so where a program lies where a build put it, and the next may remove it.
fn note_if_built_in_place(program: &str) {
    let is_target = |folder: &Path| {
        // Cargo marks its folder so, whatever its name is.
        folder.file_name().is_some_and(|name| name == "target")
            || folder.join("CACHEDIR.TAG").is_file()
    };
    if Path::new(program).ancestors().skip(1).any(is_target) {
        output::note(&format!(
            "{program} lies in a build folder, where the next build or `cargo clean` replaces or \
             removes it. Copy it to where it can stay, and install from there."
        ));
    }
}

/// Whether who looks for `tandem` on `PATH` finds this program.
fn is_on_path(surroundings: &Surroundings, program: &str) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let found = surroundings.program("tandem");
    found.is_some_and(|found| real(&found).is_some() && real(&found) == real(Path::new(program)))
}

/// Makes a folder and those above it.
fn make_folder(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|error| {
        Failure::failed(format!(
            "{}: cannot be made: {error}. Check the permissions of the folder above.",
            folder.display()
        ))
    })
}

/// `text` without the member at `entry`; `None` where it has none. Where `add`ing it to `backup` gives
/// `text`, that is what comes back, to the byte.
fn without(
    text: &str,
    entry: &[&str],
    backup: Option<&str>,
    add: impl FnOnce(&str) -> Result<String, Broken>,
) -> Result<Option<String>, Broken> {
    let Some(removed) = edit::remove(text, entry)? else {
        return Ok(None);
    };
    if let Some(backup) = backup {
        let is_without = edit::read(backup, entry).is_ok_and(|entry| entry.is_none());
        if is_without && add(backup).is_ok_and(|added| added == text) {
            return Ok(Some(backup.to_owned()));
        }
    }
    Ok(Some(removed))
}

/// What is to be done to a file.
struct Change<'a> {
    file: &'a ConfigFile,
    /// All of it, with its byte order mark.
    after: String,
}

impl Change<'_> {
    /// Prints what would change.
    fn show(&self) -> Result<(), Failure> {
        let shown = self.file.path.display().to_string();
        let diff = TextDiff::from_lines(self.file.whole(), &self.after);
        let diff = diff.unified_diff().header(&shown, &shown).to_string();
        output::print_bytes(output::harmless(&diff).as_bytes())
    }

    /// Does it. Returns where the first state is kept, if it was this time.
    fn make(&self) -> Result<Option<PathBuf>, Failure> {
        self.file.writable()?;
        let kept = self.file.keep_backup()?;
        self.file.replace(&self.after)?;
        Ok(kept.then(|| self.file.backup_path()))
    }
}

/// What is said of a file that cannot be edited.
fn broken(file: &ConfigFile, broken: &Broken) -> Failure {
    Failure::usage(format!(
        "{}: {broken}. Nothing was changed. Correct it there, then run this again.",
        file.path.display()
    ))
}
