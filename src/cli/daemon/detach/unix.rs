//! Parting from whoever started the process.

use std::fs::OpenOptions;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

/// No image of this process's memory, with everybody's text in it, is ever written to a disk.
pub fn keep_memory_private() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::debug!(%error, "a crash may leave a core file");
    }
}

/// Files that may be open at once: each session has one, and macOS begins with 256 in all.
const OPEN_FILES: u64 = 1024;

/// Makes room for as many sessions as are served.
pub fn make_room() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < OPEN_FILES) {
        let most = limit.maximum.unwrap_or(OPEN_FILES);
        let wanted = Rlimit {
            current: Some(OPEN_FILES.min(most)),
            ..limit
        };
        // Without it, sessions beyond the limit wait until others have gone.
        let _ = setrlimit(Resource::Nofile, wanted);
    }
}

/// Leaves the terminal, the process group and the folder of whoever started the process.
pub fn leave_session() {
    // Fails only for the leader of a process group, which a child is not unless it was made one.
    let _ = setsid();
    let _ = std::env::set_current_dir("/");
}

/// Lets go of the pipes of whoever started the process, who may wait for their end.
pub fn leave_pipes() {
    let Ok(nothing) = OpenOptions::new().read(true).write(true).open("/dev/null") else {
        return;
    };
    let _ = dup2_stdin(&nothing);
    let _ = dup2_stdout(&nothing);
    let _ = dup2_stderr(&nothing);
}
