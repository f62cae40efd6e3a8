//! Parting from whoever started the process, on Windows, where most of it was done at the start: no
//! console, no Ctrl-C, another folder. Type-checked, and never run on Windows itself.

use crate::daemon::leave_standard_handles;

/// Nothing to be done: Windows writes no image of a process unless it was set up to.
pub fn keep_memory_private() {}

/// Nothing to be done: a process may have as many handles as there is memory for.
pub fn make_room() {}

/// Nothing to be done: whoever starts a detached process gives it no console.
pub fn leave_session() {}

/// Lets go of the pipes of whoever started the process, who may wait for their end.
pub fn leave_pipes() {
    leave_standard_handles();
}
