//! Why a model could not be found, fetched or kept: what happened, and the next step.

use std::io;
use std::path::Path;
use std::time::Duration;

/// What kind of thing went wrong, which decides whether it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelErrorKind {
    /// No catalogue has a model of this name.
    Unknown,
    /// A catalogue, a manifest or the hub's description of a repository makes no sense.
    Malformed,
    /// The model is not there.
    Absent,
    /// Its files are not those that were downloaded.
    Damaged,
    /// The user said that nothing may be fetched.
    Offline,
    /// No connection, or one that broke or fell silent.
    Unreachable,
    /// The hub has too much to do, or trouble of its own.
    Busy,
    /// The hub wants a token, or another one.
    Refused,
    /// The hub has no such repository, revision or file.
    Gone,
    /// What came is not what was announced.
    WrongContent,
    /// The disk has no room.
    Full,
    /// The folder may not be written, or the file not be read.
    Forbidden,
    /// Another failure of the disk.
    Disk,
}

/// A failure, for people. It never holds a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}. {next_step}")]
pub struct ModelError {
    /// What kind of thing went wrong.
    pub kind: ModelErrorKind,
    /// What happened, without a closing full stop.
    pub message: String,
    /// The next step, as a sentence.
    pub next_step: String,
    /// When the hub asked to be tried again.
    pub retry_after: Option<Duration>,
}

impl ModelError {
    /// An error of `kind`.
    pub fn new(
        kind: ModelErrorKind,
        message: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            message: message.into(),
            next_step: next_step.into(),
            retry_after: None,
        }
    }

    /// Whether the same might work in a moment.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self.kind,
            ModelErrorKind::Unreachable | ModelErrorKind::Busy
        )
    }

    /// A failure of the disk at `path`.
    #[must_use]
    pub fn disk(path: &Path, error: &io::Error) -> Self {
        let shown = path.display();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::new(
                ModelErrorKind::Full,
                format!("{shown}: the disk is full ({error})"),
                "Make room and pull again: what has arrived is kept.",
            ),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::new(
                ModelErrorKind::Forbidden,
                format!("{shown}: the system forbids it ({error})"),
                "Correct the folder's owner or permissions, or let XDG_DATA_HOME name another one.",
            ),
            _ => Self::new(
                ModelErrorKind::Disk,
                format!("{shown}: {error}"),
                "Check the disk and try again.",
            ),
        }
    }

    /// Something the hub, a catalogue or a manifest says makes no sense.
    pub fn malformed(place: impl std::fmt::Display, what: impl std::fmt::Display) -> Self {
        Self::new(
            ModelErrorKind::Malformed,
            format!("{place}: {what}"),
            "Correct it; `tandem schema catalogue` describes a catalogue.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_says_what_to_do() {
        use io::ErrorKind as Cause;
        for (cause, kind, told) in [
            (Cause::StorageFull, ModelErrorKind::Full, "Make room"),
            (Cause::QuotaExceeded, ModelErrorKind::Full, "Make room"),
            (
                Cause::PermissionDenied,
                ModelErrorKind::Forbidden,
                "permissions",
            ),
            (
                Cause::ReadOnlyFilesystem,
                ModelErrorKind::Forbidden,
                "XDG_DATA_HOME",
            ),
            (Cause::NotADirectory, ModelErrorKind::Disk, "Check the disk"),
        ] {
            let error = ModelError::disk(Path::new("/models/x"), &cause.into());
            assert_eq!(error.kind, kind);
            assert!(!error.may_pass());
            let text = error.to_string();
            assert!(text.contains("/models/x") && text.contains(told), "{text}");
            assert!(text.ends_with('.'), "{text}");
        }
    }
}
