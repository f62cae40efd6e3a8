//! The folder that the daemon and its sessions meet in: where it is, and that nobody else can reach it.

use std::fs::{self, DirBuilder};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes that the path of a socket may have, the closing zero left out: 104 with it on macOS and the
/// BSDs, 108 on Linux.
const LONGEST_SOCKET: usize = 103;

/// The folder, and the names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    folder: PathBuf,
    log: PathBuf,
}

/// Why there is no safe folder to meet in. Ends with the next step.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is neither a folder for the runtime nor a home.
    #[error(
        "there is no folder for the daemon's socket. Set XDG_RUNTIME_DIR or HOME to a folder of \
         your own."
    )]
    Homeless,
    /// It cannot be made or looked at.
    #[error(
        "{}: {error}. Make it writable for you, or set `daemon.enabled: false` to load the model in \
         each session.", folder.display()
    )]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is there, and it is not ours alone.
    #[error("{}: {fault}. Remove it; Tandem makes it anew with the right owner and mode.", folder.display())]
    Unsafe {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// This system has no daemon yet.
    #[error("on this system each session loads its own model. Nothing needs to be done.")]
    Unsupported,
}

impl Place {
    /// The folder below the user's folder for the runtime (`$XDG_RUNTIME_DIR`), or else below the one
    /// for state; one in `/tmp` with the user's number where both are too long for a socket. The log
    /// is kept with the state where there is such a folder, since the runtime's is memory.
    ///
    /// On Windows, which closes a user's folder for state to others, always below that one; and what
    /// runs with an administrator's rights has a folder of its own, since the rest of the user's
    /// programs must not tell it what to do.
    ///
    /// # Errors
    /// [`PlaceError::Homeless`], [`PlaceError::Unsupported`].
    pub fn choose(runtime: Option<&Path>, state: Option<&Path>) -> Result<Self, PlaceError> {
        if cfg!(not(any(unix, windows))) {
            return Err(PlaceError::Unsupported);
        }
        let candidates = [
            runtime
                .filter(|_| cfg!(not(windows)))
                .map(|folder| folder.join("tandem")),
            state.map(|folder| folder.join(in_state())),
        ];
        let mut candidates = candidates.into_iter().flatten().peekable();
        if candidates.peek().is_none() {
            return Err(PlaceError::Homeless);
        }
        let folder = candidates
            .find(|folder| cfg!(windows) || socket_in(folder).as_os_str().len() <= LONGEST_SOCKET)
            .unwrap_or_else(short);
        let log = state.unwrap_or(&folder).join("daemon.log");
        Ok(Self { folder, log })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The socket; on Windows the file that names the pipe that stands for it. Only the holder of
    /// [`Self::lock`] may remove and make it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.folder)
    }

    /// Held by the daemon for as long as it takes requests. Never removed.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.folder.join("daemon.lock")
    }

    /// Held by a session while it starts a daemon. Never removed.
    #[must_use]
    pub fn start_lock(&self) -> PathBuf {
        self.folder.join("start.lock")
    }

    /// What a daemon that sessions started writes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Makes the folder if need be, and checks it.
    ///
    /// # Errors
    /// [`PlaceError::Io`], [`PlaceError::Unsafe`].
    pub fn prepare(&self) -> Result<(), PlaceError> {
        let io = |error| self.io(error);
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        match builder().create(&self.folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(self.io(error)),
        }
        self.check()
    }

    /// Checks that the folder is one, is no link to one, belongs to this user, and is closed to all
    /// others.
    ///
    /// # Errors
    /// [`PlaceError::Unsafe`], or [`PlaceError::Io`] where it is not there.
    pub fn check(&self) -> Result<(), PlaceError> {
        let metadata = self
            .folder
            .symlink_metadata()
            .map_err(|error| self.io(error))?;
        let fault = if metadata.is_symlink() {
            Some("a link, where a folder of your own is needed".to_owned())
        } else if metadata.is_dir() {
            foreign(&metadata)
        } else {
            Some("no folder".to_owned())
        };
        match fault {
            None => Ok(()),
            Some(fault) => Err(PlaceError::Unsafe {
                folder: self.folder.clone(),
                fault,
            }),
        }
    }

    fn io(&self, error: io::Error) -> PlaceError {
        PlaceError::Io {
            folder: self.folder.clone(),
            error,
        }
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join(if cfg!(windows) {
        "daemon.pipe"
    } else {
        "daemon.sock"
    })
}

/// What the folder is called below the one for state.
fn in_state() -> &'static str {
    #[cfg(windows)]
    if super::pipe::is_elevated() {
        return "daemon-elevated";
    }
    "daemon"
}

#[cfg(unix)]
fn builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

#[cfg(not(unix))]
fn builder() -> DirBuilder {
    DirBuilder::new()
}

#[cfg(unix)]
fn foreign(metadata: &fs::Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt;

    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Some(format!(
            "it belongs to the user number {}, not to {user}",
            metadata.uid()
        ));
    }
    let mode = metadata.mode() & 0o777;
    (mode & 0o077 != 0).then(|| format!("others may enter it (its mode is {mode:o}, not 700)"))
}

#[cfg(not(unix))]
fn foreign(_: &fs::Metadata) -> Option<String> {
    None
}

#[cfg(unix)]
fn short() -> PathBuf {
    PathBuf::from(format!(
        "/tmp/tandem-{}",
        rustix::process::geteuid().as_raw()
    ))
}

#[cfg(not(unix))]
fn short() -> PathBuf {
    std::env::temp_dir().join("tandem")
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn place(folder: &Path) -> Place {
        Place::choose(Some(folder), None).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_folder_that_a_socket_fits_in_is_taken() {
        let (runtime, state) = (Path::new("/run/user/7"), Path::new("/home/a/state/tandem"));
        let choose = |runtime, state| Place::choose(runtime, state).unwrap();
        assert_eq!(
            choose(Some(runtime), Some(state)).socket(),
            Path::new("/run/user/7/tandem/daemon.sock")
        );
        assert_eq!(
            choose(None, Some(state)).socket(),
            Path::new("/home/a/state/tandem/daemon/daemon.sock")
        );
        let long = PathBuf::from(format!("/{}", "x".repeat(90)));
        assert_eq!(
            choose(Some(&long), Some(state)).folder(),
            state.join("daemon")
        );
        let tmp = choose(Some(&long), Some(&long));
        assert!(tmp.folder().starts_with("/tmp"), "{tmp:?}");
        assert!(matches!(
            Place::choose(None, None),
            Err(PlaceError::Homeless)
        ));
    }

    #[test]
    fn the_folder_is_made_for_its_user_alone() {
        let home = tempfile::tempdir().unwrap();
        let place = place(&home.path().join("deep"));
        place.prepare().unwrap();
        assert_eq!(mode(place.folder()), 0o700);
        place.prepare().unwrap();
    }

    /// What stands where the folder should be is refused with a text that holds `fault`.
    fn refused(fault: &str, make: impl FnOnce(&Path)) {
        let home = tempfile::tempdir().unwrap();
        let place = place(home.path());
        make(place.folder());
        let error = place.prepare().unwrap_err();
        assert!(matches!(error, PlaceError::Unsafe { .. }), "{error}");
        assert!(error.to_string().contains(fault), "{error}");
        assert!(place.check().is_err());
    }

    #[test]
    fn a_folder_that_others_can_reach_is_refused() {
        refused("its mode is 750", |folder| {
            fs::create_dir(folder).unwrap();
            fs::set_permissions(folder, fs::Permissions::from_mode(0o750)).unwrap();
        });
        refused("a link", |folder| {
            symlink(folder.parent().unwrap(), folder).unwrap();
        });
        refused("no folder", |folder| fs::write(folder, "").unwrap());
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        let error = place(&file).prepare().unwrap_err();
        assert!(matches!(error, PlaceError::Io { .. }), "{error}");
        assert!(error.to_string().contains("daemon.enabled"), "{error}");
    }
}
