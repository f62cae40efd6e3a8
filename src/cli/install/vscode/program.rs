//! VS Code and the programs made from it: how they are found, run, and where they keep their settings.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::edge::Surroundings;
use crate::cli::exit::Failure;
use crate::cli::output;

/// How much of what a failed program said is told, in characters; chosen arbitrarily.
const LONGEST_COMPLAINT: usize = 600;

/// A program as it is known.
struct Known {
    /// The command that it is started with.
    command: &'static str,
    /// Its folders among those that applications have for their configuration, the usual one first.
    folders: &'static [&'static str],
    /// Where macOS has the command, which is on nobody's `PATH` until somebody puts it there.
    bundle: Option<&'static str>,
}

const KNOWN: [Known; 5] = [
    Known {
        command: "code",
        // The second is what Linux distributions build themselves.
        folders: &["Code", "Code - OSS"],
        bundle: Some("Visual Studio Code.app/Contents/Resources/app/bin/code"),
    },
    Known {
        command: "code-insiders",
        folders: &["Code - Insiders"],
        bundle: Some("Visual Studio Code - Insiders.app/Contents/Resources/app/bin/code"),
    },
    Known {
        command: "codium",
        folders: &["VSCodium"],
        bundle: Some("VSCodium.app/Contents/Resources/app/bin/codium"),
    },
    Known {
        command: "cursor",
        folders: &["Cursor"],
        bundle: Some("Cursor.app/Contents/Resources/app/bin/cursor"),
    },
    Known {
        command: CODE_SERVER,
        folders: &[],
        bundle: None,
    },
];

/// VS Code in a browser. Its settings for a machine are on the server, and beside our own data.
const CODE_SERVER: &str = "code-server";

/// A program that is there.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// Its full path.
    pub path: PathBuf,
    /// The settings that it reads `tandem.path` from; `None` where we do not know.
    pub settings: Option<PathBuf>,
}

impl Program {
    /// The one that is `named`, or the first of those that we know.
    ///
    /// # Errors
    /// It is not there.
    pub fn find(surroundings: &Surroundings, named: Option<&Path>) -> Result<Self, Failure> {
        if let Some(name) = named {
            let path = surroundings.program(name).ok_or_else(|| {
                Failure::usage(format!(
                    "{}: there is no such program. Correct --program: the name of a command on your \
                     PATH, or a full path.",
                    name.display()
                ))
            })?;
            let settings = settings(&path, surroundings);
            return Ok(Self { path, settings });
        }
        for known in &KNOWN {
            let in_bundle = known.bundle.filter(|_| cfg!(target_os = "macos"));
            let in_bundle = in_bundle.map(|path| Path::new("/Applications").join(path));
            let path = surroundings
                .program(known.command)
                .or_else(|| in_bundle.filter(|path| path.is_file()));
            if let Some(path) = path {
                let settings = settings_of(known, &path, surroundings);
                return Ok(Self { path, settings });
            }
        }
        let commands: Vec<_> = KNOWN.iter().map(|known| known.command).collect();
        Err(Failure::failed(format!(
            "VS Code seems not to be installed: none of {} is on your PATH. In VS Code, run the command \
             \"Shell Command: Install 'code' command in PATH\", or name the program with --program.",
            commands.join(", ")
        )))
    }

    /// A run of it, as people would type it.
    pub fn line(&self, arguments: &[&OsStr]) -> String {
        let path = self.path.as_os_str();
        let words: Vec<_> = std::iter::once(path)
            .chain(arguments.iter().copied())
            .map(|word| {
                let word = word.to_string_lossy();
                if word.contains(char::is_whitespace) {
                    format!("'{word}'")
                } else {
                    word.into_owned()
                }
            })
            .collect();
        words.join(" ")
    }

    /// Runs it to its end and returns what it printed.
    ///
    /// # Errors
    /// It cannot be started, or ends with an error, which is told with what it said.
    pub fn run(
        &self,
        arguments: &[&OsStr],
        surroundings: &Surroundings,
    ) -> Result<String, Failure> {
        let line = self.line(arguments);
        let ran = Command::new(&self.path)
            .args(arguments)
            .env_clear()
            .envs(surroundings.without_secrets())
            .current_dir(&surroundings.folder)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| {
                Failure::failed(format!(
                    "`{line}` cannot be started: {error}. Correct --program, or mend the program."
                ))
            })?;
        let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
        if ran.status.success() {
            return Ok(printed);
        }
        let complaint = String::from_utf8_lossy(&ran.stderr);
        let said = if complaint.trim().is_empty() {
            printed.as_str()
        } else {
            &complaint
        };
        // The reason comes first, and then a trace of the program's own calls.
        let said: String = said.trim().chars().take(LONGEST_COMPLAINT).collect();
        Err(Failure::failed(format!(
            "`{line}` failed ({}):\n{}\nMend that, then run this again.",
            ran.status,
            output::harmless(&said)
        )))
    }
}

/// The settings of a program that was named by hand.
fn settings(path: &Path, surroundings: &Surroundings) -> Option<PathBuf> {
    // `code.cmd` on Windows.
    let command = path.file_stem()?.to_str()?;
    let known = KNOWN.iter().find(|known| known.command == command)?;
    settings_of(known, path, surroundings)
}

fn settings_of(known: &Known, path: &Path, surroundings: &Surroundings) -> Option<PathBuf> {
    if let Some(folder) = server_folder(path) {
        return Some(folder.join("data").join("Machine").join("settings.json"));
    }
    if known.command == CODE_SERVER {
        let ours = surroundings
            .data_folder
            .as_ref()
            .filter(|_| !cfg!(windows))?;
        let folder = ours.with_file_name(CODE_SERVER);
        return Some(folder.join("Machine").join("settings.json"));
    }
    let folder = surroundings.application_folder()?;
    let there = known.folders.iter().find(|name| folder.join(name).is_dir());
    let name = there.or(known.folders.first())?;
    Some(folder.join(name).join("User").join("settings.json"))
}

/// The folder of the server that VS Code has on a machine that it reaches over SSH, in WSL or in a
/// container, where `code` is that server's own command.
fn server_folder(command: &Path) -> Option<&Path> {
    let mut folders = command.ancestors().skip(1);
    if !folders.next()?.ends_with("remote-cli") {
        return None;
    }
    folders.find(|folder| {
        let name = folder.file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| name.starts_with('.') && name.contains("-server"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_of_a_remote_server_is_told_from_one_of_this_machine() {
        for (command, folder) in [
            (
                "/home/a/.vscode-server/cli/servers/Stable-1/server/bin/remote-cli/code",
                Some("/home/a/.vscode-server"),
            ),
            (
                "/home/a/.vscode-server-insiders/bin/1/bin/remote-cli/code-insiders",
                Some("/home/a/.vscode-server-insiders"),
            ),
            ("/usr/bin/code", None),
            ("/home/a/.vscode-server/bin/code", None),
            ("/opt/remote-cli/code", None),
        ] {
            assert_eq!(
                server_folder(Path::new(command)),
                folder.map(Path::new),
                "{command}"
            );
        }
    }
}
