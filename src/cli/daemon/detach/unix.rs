//! Parting from whoever started the process.

use std::fs::OpenOptions;

use rustix::process::{Resource, Rlimit, setrlimit, setsid};
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
