//! `tandem install` and `tandem uninstall`: an entry for Tandem in the configuration of a program that
//! starts it.

mod claude_desktop;
mod edit;
mod file;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use similar::TextDiff;

use self::edit::Broken;
use self::file::ConfigFile;
use super::args::HostCommand;
use super::edge::Surroundings;
use super::exit::{Exit, Failure};
use super::output;

/// Tells a program of Tandem.
pub fn install(surroundings: &Surroundings, host: &HostCommand) -> Result<Exit, Failure> {
    match host {
        HostCommand::ClaudeDesktop(args) => claude_desktop::install(surroundings, args),
    }
}

/// Takes that back.
pub fn uninstall(surroundings: &Surroundings, host: &HostCommand) -> Result<Exit, Failure> {
    match host {
        HostCommand::ClaudeDesktop(args) => claude_desktop::uninstall(surroundings, args),
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

/// Whether a program lies where a build put it, and the next may remove it.
fn is_built_in_place(program: &Path) -> bool {
    let is_target = |folder: &Path| {
        // Cargo marks its folder so, whatever its name is.
        folder.file_name().is_some_and(|name| name == "target")
            || folder.join("CACHEDIR.TAG").is_file()
    };
    program.ancestors().skip(1).any(is_target)
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
