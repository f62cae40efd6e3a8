//! What is wrong with a bundle: every fault found, where it is, and the next step.

use std::fmt;
use std::io;
use std::path::Path;

use crate::backend::local::error::{LoadError, LoadErrorKind};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind of thing it is.
    pub kind: LoadErrorKind,
    /// The file, or the component and its function.
    pub place: String,
    /// What is wrong there, without a closing full stop.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.what)
    }
}

/// Why a bundle is refused. All faults that could be found are named, in the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleError {
    /// The folder, as the user named it.
    pub folder: String,
    /// What is wrong; never empty.
    pub faults: Vec<Fault>,
}

impl BundleError {
    /// A bundle with one fault.
    #[must_use]
    pub fn single(folder: &Path, fault: Fault) -> Self {
        Self {
            folder: folder.display().to_string(),
            faults: vec![fault],
        }
    }

    /// The kind of the whole: what cannot be mended by a download counts most.
    #[must_use]
    pub fn kind(&self) -> LoadErrorKind {
        let has = |kind| self.faults.iter().any(|fault| fault.kind == kind);
        [
            LoadErrorKind::Unsupported,
            LoadErrorKind::Unreadable,
            LoadErrorKind::Malformed,
            LoadErrorKind::CutShort,
            LoadErrorKind::Absent,
        ]
        .into_iter()
        .find(|kind| has(*kind))
        .unwrap_or(LoadErrorKind::Malformed)
    }

    /// The next step, as a sentence.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        match self.kind() {
            LoadErrorKind::Absent => {
                "Check `local.model` in the configuration, or download the model again."
            }
            LoadErrorKind::Unreadable => {
                "Check the folder's permissions and the disk, or copy the model to another folder."
            }
            LoadErrorKind::CutShort => "The download was cut short: download the model again.",
            LoadErrorKind::Malformed => {
                "Download the model again; if it stays so, convert it again with a current ANEMLL."
            }
            LoadErrorKind::Unsupported => {
                "Use a Qwen bundle of ANEMLL with the functions infer and prefill, or a GGUF file."
            }
        }
    }

    /// What is wrong, as one line without a closing full stop.
    #[must_use]
    pub fn facts(&self) -> String {
        if let [only] = self.faults.as_slice() {
            return only.to_string();
        }
        let numbered = self.faults.iter().enumerate();
        let told: Vec<String> = numbered
            .map(|(index, fault)| format!("({}) {fault}", index + 1))
            .collect();
        format!("it is wrong in {} places: {}", told.len(), told.join("; "))
    }

    /// The same as an error of the engine's loader. A method and no `From`: a second source of
    /// [`LoadError`] would leave closures elsewhere without a type for their `?`.
    #[must_use]
    pub fn into_load_error(self) -> LoadError {
        LoadError {
            kind: self.kind(),
            fact: self.facts(),
            next_step: self.next_step().to_owned(),
            file: self.folder,
        }
    }
}

impl fmt::Display for BundleError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}: {}. {}",
            self.folder,
            self.facts(),
            self.next_step()
        )
    }
}

impl std::error::Error for BundleError {}

/// The faults found so far. Checks add to it and go on.
#[derive(Debug, Default)]
pub(super) struct Faults {
    found: Vec<Fault>,
}

impl Faults {
    /// Adds one.
    pub(super) fn add(&mut self, kind: LoadErrorKind, place: &str, what: impl Into<String>) {
        let fault = Fault {
            kind,
            place: place.to_owned(),
            what: what.into(),
        };
        if !self.found.contains(&fault) {
            self.found.push(fault);
        }
    }

    /// Something that contradicts something else, or its format.
    pub(super) fn malformed(&mut self, place: &str, what: impl Into<String>) {
        self.add(LoadErrorKind::Malformed, place, what);
    }

    /// Something sound that this engine does not know.
    pub(super) fn unsupported(&mut self, place: &str, what: impl Into<String>) {
        self.add(LoadErrorKind::Unsupported, place, what);
    }

    /// Adds one that was made elsewhere, and gives what came without a fault.
    pub(super) fn keep<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(fault) => {
                self.add(fault.kind, &fault.place, fault.what);
                None
            }
        }
    }

    /// Whether none was found.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The error for `folder`.
    pub(super) fn into_error(self, folder: &Path) -> BundleError {
        BundleError {
            folder: folder.display().to_string(),
            faults: self.found,
        }
    }
}

/// A fault of the file system.
pub(super) fn io_fault(place: &str, error: &io::Error) -> Fault {
    let (kind, what) = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            (LoadErrorKind::Absent, "it is missing".to_owned())
        }
        io::ErrorKind::UnexpectedEof => (
            LoadErrorKind::CutShort,
            "it ended while it was read".to_owned(),
        ),
        _ => (
            LoadErrorKind::Unreadable,
            format!("it could not be read ({error})"),
        ),
    };
    Fault {
        kind,
        place: place.to_owned(),
        what,
    }
}

/// A fault of a file's content.
pub(super) fn malformed(place: &str, what: impl Into<String>) -> Fault {
    Fault {
        kind: LoadErrorKind::Malformed,
        place: place.to_owned(),
        what: what.into(),
    }
}
