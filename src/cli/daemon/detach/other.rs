//! Parting from whoever started the process, on systems where no daemon runs.

/// Nothing to be done.
pub fn keep_memory_private() {}

/// Nothing to be done.
pub fn make_room() {}

/// Nothing to be done.
pub fn leave_session() {}

/// Nothing to be done.
pub fn leave_pipes() {}
