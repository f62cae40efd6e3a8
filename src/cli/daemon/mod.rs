//! `tandem daemon`: the process that holds the models for all sessions.

pub mod control;
#[cfg_attr(unix, path = "detach/unix.rs")]
#[cfg_attr(windows, path = "detach/windows.rs")]
#[cfg_attr(not(any(unix, windows)), path = "detach/other.rs")]
pub mod detach;
pub mod run;
