//! Why a model could not be loaded: which file, what is wrong with it, and the next step.

use crate::inference::{ErrorKind, GenerateError};

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadErrorKind {
    /// There is no such file.
    Absent,
    /// The file could not be read.
    Unreadable,
    /// The file ends before what it announces.
    CutShort,
    /// The file contradicts itself or its format.
    Malformed,
    /// The file is sound, and of a kind this engine does not know.
    Unsupported,
}

/// A failure to load, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {fact}. {next_step}")]
pub struct LoadError {
    /// What kind of thing is wrong.
    pub kind: LoadErrorKind,
    /// The file, as the user named it.
    pub file: String,
    /// What is wrong, without a closing full stop.
    pub fact: String,
    /// The next step, as a sentence.
    pub next_step: String,
}

impl LoadError {
    fn new(kind: LoadErrorKind, file: &str, fact: impl Into<String>, next_step: &str) -> Self {
        Self {
            kind,
            file: file.to_owned(),
            fact: fact.into(),
            next_step: next_step.to_owned(),
        }
    }

    /// There is no such file.
    #[must_use]
    pub fn absent(file: &str, fact: impl Into<String>) -> Self {
        Self::new(
            LoadErrorKind::Absent,
            file,
            fact,
            "Check `local.model` in the configuration, or download the model.",
        )
    }

    /// The file could not be read.
    #[must_use]
    pub fn io(file: &str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::absent(file, "there is no such file"),
            std::io::ErrorKind::UnexpectedEof => {
                Self::cut_short(file, "it ended while it was read")
            }
            _ => Self::new(
                LoadErrorKind::Unreadable,
                file,
                format!("it could not be read ({error})"),
                "Check the file's permissions and the disk.",
            ),
        }
    }

    /// The file ends before what it announces.
    #[must_use]
    pub fn cut_short(file: &str, fact: impl Into<String>) -> Self {
        Self::new(
            LoadErrorKind::CutShort,
            file,
            fact,
            "The download was cut short: download the model again.",
        )
    }

    /// The file contradicts itself or its format.
    #[must_use]
    pub fn malformed(file: &str, fact: impl Into<String>) -> Self {
        Self::new(
            LoadErrorKind::Malformed,
            file,
            fact,
            "The file is damaged or was converted wrongly: download or convert the model again.",
        )
    }

    /// The file is sound, and of a kind this engine does not know.
    #[must_use]
    pub fn unsupported(file: &str, fact: impl Into<String>) -> Self {
        Self::new(
            LoadErrorKind::Unsupported,
            file,
            fact,
            "Use a Qwen3, Qwen2.5 or Qwen2 model, as a GGUF file or a folder with safetensors.",
        )
    }

    /// Our kernels were asked for by hand, and cannot compute the model.
    #[must_use]
    pub fn not_by_kernels(file: &str, why: impl std::fmt::Display) -> Self {
        Self::new(
            LoadErrorKind::Unsupported,
            file,
            format!("Tandem's kernels cannot compute it: {why}"),
            "Set `local.engine` to auto, or use a GGUF file of Q4_0, Q8_0, Q4_K or Q6_K on the processor.",
        )
    }

    /// A failure inside candle while `doing` something to the file.
    #[must_use]
    pub fn candle(file: &str, doing: &str, error: &candle_core::Error) -> Self {
        Self::malformed(file, format!("{doing} failed ({})", first_line(error)))
    }
}

impl From<LoadError> for GenerateError {
    fn from(error: LoadError) -> Self {
        let kind = match error.kind {
            LoadErrorKind::Absent => ErrorKind::Unavailable,
            LoadErrorKind::Unreadable
            | LoadErrorKind::CutShort
            | LoadErrorKind::Malformed
            | LoadErrorKind::Unsupported => ErrorKind::Backend,
        };
        Self::new(
            kind,
            format!("{}: {}", error.file, error.fact),
            error.next_step,
        )
    }
}

/// A failure of the arithmetic on a loaded model.
#[must_use]
pub fn arithmetic(error: &candle_core::Error) -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        format!(
            "the local model's arithmetic failed ({})",
            first_line(error)
        ),
        "Try again; if it happens twice, download the model again.",
    )
}

/// candle's errors carry a backtrace after their first line.
pub(super) fn first_line(error: &candle_core::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
