//! What stands for the socket on Windows: a named pipe, and the notice in the daemon's folder that says
//! which.
//!
//! All of this is type-checked for Windows and has never been run there; under Wine 8 a daemon with a
//! scripted model and its sessions have run, and went through handover, loss and a hung daemon.
//!
//! The pipe has a new random name each time, which nobody can take before us, and which is free while
//! an older daemon still answers over pipes of its own. Its descriptor lets this user in and nobody
//! else; both sides ask the kernel on top of that whose process is at the other end.

mod notice;
#[cfg(windows)]
mod win32;

#[cfg(windows)]
pub(super) use notice::{LONGEST as LONGEST_NOTICE, Notice};
#[cfg(windows)]
pub use win32::leave_standard_handles;
#[cfg(windows)]
pub(super) use win32::{
    APART, DETACHED, Examined, KEPT_BY_NAME, PIPE_BUSY, Process, create, is_elevated,
    keep_standard_handles, process_of_client, process_of_server,
};
