//! Starting a daemon: the process, what it inherits (next to nothing), and what it says of itself.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::Readiness;
use super::readiness::LONGEST;

/// What the daemon is told of the session's environment: where this user's folders are, how to find
/// libraries, and which GPU may be used. No key, no token, no proxy. From `SystemRoot` on, these are
/// Windows's, without which no program starts or finds a folder there.
const ALLOWED: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "PATH",
    "TMPDIR",
    "LANG",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "SystemRoot",
    "SystemDrive",
    "USERPROFILE",
    "APPDATA",
    "LOCALAPPDATA",
    "TEMP",
    "TMP",
];

/// The program that runs, on Linux: the very file, also after another took its name.
const OURSELVES: &str = "/proc/self/exe";

/// How to start a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
}

impl StartCommand {
    /// This program with `arguments`, and of `variables` (the process's) those that a daemon needs.
    ///
    /// # Errors
    /// When the system does not say which file this program is.
    pub fn of_this_program(
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> io::Result<Self> {
        // Windows would look on its current drive.
        let program = if cfg!(unix) && Path::new(OURSELVES).exists() {
            PathBuf::from(OURSELVES)
        } else {
            std::env::current_exe()?
        };
        Ok(Self {
            program,
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: variables
                .into_iter()
                .filter(|(name, _)| ALLOWED.iter().any(|allowed| is_same_name(name, allowed)))
                .collect(),
        })
    }

    /// Starts the process and waits until it says how it stands, at most `patience` long; `None` if it
    /// has not said by then.
    ///
    /// It runs on whatever happens to this one; it is waited for, so that it never lingers as a zombie.
    ///
    /// # Errors
    /// When the system refuses to start it.
    pub(super) async fn start(&self, patience: Duration) -> io::Result<Option<Readiness>> {
        let mut command = Command::new(path_of(&self.program));
        // Where a process list shows it, it is what it is.
        #[cfg(unix)]
        if self.program == Path::new(OURSELVES) {
            command.arg0("tandem");
        }
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = spawn(&mut command)?;
        let said = child.stdout.take();
        tokio::spawn(async move { child.wait().await });
        let mut bytes = Vec::new();
        if let Some(said) = said {
            // Of what is longer, or comes later, the beginning counts.
            let mut said = said.take(LONGEST as u64 + 1);
            let read = tokio::time::timeout(patience, said.read_to_end(&mut bytes)).await;
            if read.is_err() && bytes.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(Readiness::read(&bytes)))
    }
}

#[cfg(not(windows))]
fn spawn(command: &mut Command) -> io::Result<Child> {
    command.spawn()
}

/// Starts the process outside of the job of whoever started this one, which may end with an editor; in
/// it, where the job insists.
#[cfg(windows)]
fn spawn(command: &mut Command) -> io::Result<Child> {
    use super::pipe::{APART, DETACHED, keep_standard_handles};

    keep_standard_handles();
    match command.creation_flags(DETACHED | APART).spawn() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            command.creation_flags(DETACHED).spawn()
        }
        spawned => spawned,
    }
}

/// Where `program` is our own file and still has a name, the name: process lists show it.
fn path_of(program: &Path) -> PathBuf {
    if program == Path::new(OURSELVES)
        && let Ok(named) = std::env::current_exe()
        && is_same_file(&named, program)
    {
        return named;
    }
    program.to_owned()
}

#[cfg(unix)]
fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let identity = |path: &Path| {
        let metadata = path.metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    identity(one).is_some_and(|identity_of_one| Some(identity_of_one) == identity(other))
}

#[cfg(not(unix))]
fn is_same_file(_: &Path, _: &Path) -> bool {
    false
}

/// Windows makes no difference between large and small letters there.
fn is_same_name(one: &OsStr, other: &str) -> bool {
    if cfg!(windows) {
        one.eq_ignore_ascii_case(other)
    } else {
        one == other
    }
}

/// A folder that stays where it is, with nothing to be unmounted or removed around it.
fn root() -> PathBuf {
    let windows = std::env::var_os("SystemRoot").filter(|_| cfg!(windows));
    windows.map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(names: &[&str]) -> Vec<(OsString, OsString)> {
        names
            .iter()
            .map(|name| (name.into(), "value".into()))
            .collect()
    }

    #[test]
    fn no_key_and_no_token_reaches_the_daemon() {
        let variables = pairs(&[
            "HOME",
            "ANTHROPIC_API_KEY",
            "HF_TOKEN",
            "HTTPS_PROXY",
            "LD_PRELOAD",
            "XDG_RUNTIME_DIR",
            "SystemRoot",
        ]);
        let command = StartCommand::of_this_program(["daemon", "run"], variables).unwrap();
        assert_eq!(
            command.environment,
            pairs(&["HOME", "XDG_RUNTIME_DIR", "SystemRoot"])
        );
        assert_eq!(command.arguments, ["daemon", "run"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn our_own_file_goes_by_its_name_while_it_has_one() {
        let named = path_of(Path::new(OURSELVES));
        assert_eq!(named, std::env::current_exe().unwrap());
        assert_eq!(path_of(Path::new("/bin/other")), Path::new("/bin/other"));
    }

    #[cfg(unix)]
    mod processes {
        use super::*;

        /// What a shell that does `script` says, as a daemon's first words.
        async fn said(script: &str, patience: Duration) -> Option<Readiness> {
            let command = StartCommand {
                program: "/bin/sh".into(),
                arguments: vec!["-c".into(), script.into()],
                environment: pairs(&["ONLY"]),
            };
            command.start(patience).await.unwrap()
        }

        const LONG: Duration = Duration::from_mins(1);

        #[tokio::test]
        async fn what_it_says_is_heard() {
            assert_eq!(said("printf R", LONG).await, Some(Readiness::Ready));
            assert_eq!(said("printf A", LONG).await, Some(Readiness::Another));
            assert_eq!(
                said("printf 'Eno room'; exit 1", LONG).await,
                Some(Readiness::Failed("no room".to_owned()))
            );
            let silent = said("exit 1", LONG).await;
            assert!(matches!(silent, Some(Readiness::Failed(_))), "{silent:?}");
        }

        #[tokio::test]
        async fn it_inherits_the_listed_environment_and_no_folder() {
            let script = "printf \"E$ONLY $(pwd) ${HOME-no home}\"";
            assert_eq!(
                said(script, LONG).await,
                Some(Readiness::Failed("value / no home".to_owned()))
            );
        }

        #[tokio::test]
        async fn one_that_says_nothing_is_not_waited_for_without_end() {
            // It ends by itself.
            let heard = said("exec sleep 2", Duration::ZERO).await;
            assert_eq!(heard, None);
        }

        #[tokio::test]
        async fn what_is_too_long_is_cut() {
            let heard = said("printf E; yes | head -c 100000", LONG).await;
            let Some(Readiness::Failed(text)) = heard else {
                panic!("{heard:?}")
            };
            assert_eq!(text.len(), LONGEST);
        }

        #[tokio::test]
        async fn a_program_that_is_not_there_is_an_error() {
            let command = StartCommand {
                program: "/nowhere/tandem".into(),
                arguments: Vec::new(),
                environment: Vec::new(),
            };
            assert!(command.start(LONG).await.is_err());
        }
    }
}
