//! How a command ends: exit codes that scripts can use, and messages that end with the next step.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::inference::{EmptyReason, ErrorKind, GenerateError};
use crate::model::{ModelError, ModelErrorKind};

/// The exit codes. `--help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It is done.
    Done,
    /// It failed: a backend, a file, a protocol.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// A completion came to nothing; standard error says why.
    Empty,
    /// No backend may or can serve the request; standard error says what to do.
    Unavailable,
    /// A language server's client left without saying `shutdown`; LSP wants 1 for it.
    Abrupt,
    /// A signal ended it.
    Signal(u8),
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed | Self::Abrupt => 1,
            Self::Usage => 2,
            Self::Empty => 3,
            Self::Unavailable => 4,
            // As shells report a process that a signal ended.
            Self::Signal(number) => 128 + number,
        }
    }

    /// For a failed generation.
    #[must_use]
    pub fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Unavailable
            | ErrorKind::Unauthorized
            | ErrorKind::SpendCap
            | ErrorKind::Denied
            | ErrorKind::TooLong => Self::Unavailable,
            ErrorKind::InvalidRequest
            | ErrorKind::RateLimited
            | ErrorKind::Refused
            | ErrorKind::Timeout
            | ErrorKind::Backend
            | ErrorKind::Cancelled => Self::Failed,
        }
    }

    /// For an empty completion.
    #[must_use]
    pub fn of_empty(reason: EmptyReason) -> Self {
        match reason {
            EmptyReason::Disabled
            | EmptyReason::Paused
            | EmptyReason::LanguageOff
            | EmptyReason::PathOff
            | EmptyReason::Loading
            | EmptyReason::NoBackend
            | EmptyReason::Denied
            | EmptyReason::SpendCap => Self::Unavailable,
            EmptyReason::BackendFailed => Self::Failed,
            _ => Self::Empty,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// To be told on standard error.
    Told(Exit, String),
    /// Whoever read standard output has left, as `head` does: nothing to say.
    Unread,
}

impl Failure {
    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Told(Exit::Usage, message.into())
    }

    /// The configuration is wrong, in all these places.
    pub fn configuration(mistakes: &[ConfigError]) -> Self {
        let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        // Each mistake is a message of its own.
        Self::usage(told.join("\n").replace('\n', "\ntandem: "))
    }

    /// Something failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Told(Exit::Failed, message.into())
    }

    /// Writing failed.
    pub fn write(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Unread
        } else {
            Self::failed(format!(
                "standard output cannot be written: {error}. Check where it leads."
            ))
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(_, message) => f.write_str(message),
            Self::Unread => Ok(()),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let exit = match error.kind {
            ModelErrorKind::Unknown => Exit::Usage,
            ModelErrorKind::Absent | ModelErrorKind::Offline => Exit::Unavailable,
            _ => Exit::Failed,
        };
        Self::Told(exit, error.to_string())
    }
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        Self::Told(Exit::of(error.kind), error.to_string())
    }
}
