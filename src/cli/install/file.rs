//! Another program's configuration file: read with care, backed up once, replaced in one step.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::edit::Broken;
use crate::cli::exit::Failure;

/// Larger than any configuration that people or programs write; chosen arbitrarily.
const LARGEST: u64 = 16 * 1024 * 1024;

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// A file as it was read.
#[derive(Debug)]
pub struct ConfigFile {
    /// Where its bytes are: past any symbolic link.
    pub path: PathBuf,
    /// `None` where there is no file.
    read: Option<Contents>,
}

#[derive(Debug)]
struct Contents {
    text: String,
    permissions: Permissions,
}

impl ConfigFile {
    /// Reads it.
    ///
    /// # Errors
    /// It is there and cannot be read as text.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let told = |error: &io::Error| {
            Failure::failed(format!(
                "{shown}: cannot be read: {error}. Check its permissions, and those of its folder."
            ))
        };
        let followed = if path.is_symlink() {
            fs::canonicalize(path)
        } else {
            // As people write it: Windows's canonical form is for programs.
            fs::metadata(path).map(|_| path.to_owned())
        };
        let real = match followed {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.is_symlink() {
                    return Err(Failure::failed(format!(
                        "{shown}: is a link to a file that is not there. Correct or remove the link."
                    )));
                }
                let path = path.to_owned();
                return Ok(Self { path, read: None });
            }
            Err(error) => return Err(told(&error)),
        };
        // Before it is opened: a pipe would keep us waiting.
        let metadata = fs::metadata(&real).map_err(|error| told(&error))?;
        if !metadata.is_file() {
            return Err(Failure::usage(format!(
                "{shown}: is no file. Name the file itself with --file."
            )));
        }
        let mut bytes = Vec::new();
        File::open(&real)
            .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
            .map_err(|error| told(&error))?;
        if bytes.len() as u64 > LARGEST {
            return Err(Failure::usage(format!(
                "{shown}: is larger than 16 MiB. Name the right file with --file."
            )));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let valid = String::from_utf8_lossy(valid);
            let broken = Broken::at(&valid, valid.len(), "this is not UTF-8");
            Failure::usage(format!(
                "{shown}: {broken}. Nothing was changed. Save the file as UTF-8 in an editor, then run \
                 this again."
            ))
        })?;
        let permissions = metadata.permissions();
        Ok(Self {
            path: real,
            read: Some(Contents { text, permissions }),
        })
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.read.is_some()
    }

    /// All of it.
    pub fn whole(&self) -> &str {
        self.read
            .as_ref()
            .map_or("", |contents| contents.text.as_str())
    }

    /// What it holds, without a byte order mark.
    pub fn text(&self) -> &str {
        let text = self.whole();
        text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
    }

    /// `text` with the byte order mark that the file has.
    pub fn with_mark(&self, text: &str) -> String {
        let has_mark = self.whole().starts_with(BYTE_ORDER_MARK);
        let mark = if has_mark { BYTE_ORDER_MARK } else { "" };
        format!("{mark}{text}")
    }

    /// Where its first state is kept.
    pub fn backup_path(&self) -> PathBuf {
        let mut name = OsString::from(self.path.file_name().unwrap_or_default());
        name.push(".tandem-backup");
        self.path.with_file_name(name)
    }

    /// What is kept of its first state, if anything is and can be read.
    pub fn backup(&self) -> Option<Self> {
        let file = Self::open(&self.backup_path()).ok()?;
        file.is_there().then_some(file)
    }

    /// Keeps the file as it was read beside it, unless something is kept there already. Says whether
    /// it did.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn keep_backup(&self) -> Result<bool, Failure> {
        let Some(contents) = &self.read else {
            return Ok(false);
        };
        let path = self.backup_path();
        let written = self.written(&contents.text).map_err(|e| self.told(&e))?;
        match written.persist_noclobber(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.told(&error.error)),
        }
    }

    /// Removes a backup that holds no more than the file does now.
    pub fn drop_backup(&self) {
        // One that stays does no harm.
        let _ = fs::remove_file(self.backup_path());
    }

    /// Refuses a file that its owner does not want written.
    ///
    /// # Errors
    /// It is read-only.
    pub fn writable(&self) -> Result<(), Failure> {
        match &self.read {
            Some(contents) if contents.permissions.readonly() => Err(Failure::failed(format!(
                "{}: is read-only. Make it writable, then run this again; --dry-run shows what would \
                 change.",
                self.path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Puts `whole` in its place, in one step and with the same permissions.
    ///
    /// # Errors
    /// The folder or the file cannot be written, or someone else wrote the file since it was read.
    pub fn replace(&self, whole: &str) -> Result<(), Failure> {
        let written = self.written(whole).map_err(|error| self.told(&error))?;
        let now = match fs::read(&self.path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(self.told(&error)),
        };
        let read = self.read.as_ref().map(|contents| contents.text.as_bytes());
        if now.as_deref() != read {
            return Err(Failure::failed(format!(
                "{}: another program wrote it just now. Nothing was changed. Run this again.",
                self.path.display()
            )));
        }
        written
            .persist(&self.path)
            .map_err(|error| self.told(&error.error))?;
        Ok(())
    }

    /// `whole` in a new file beside this one.
    fn written(&self, whole: &str) -> io::Result<NamedTempFile> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut written = NamedTempFile::new_in(folder)?;
        written.write_all(whole.as_bytes())?;
        if let Some(contents) = &self.read {
            fs::set_permissions(written.path(), contents.permissions.clone())?;
        }
        written.as_file().sync_all()?;
        Ok(written)
    }

    fn told(&self, error: &io::Error) -> Failure {
        Failure::failed(format!(
            "{}: cannot be written: {error}. Check the permissions of the file and of its folder, and \
             that no other program holds it; --dry-run shows what would change.",
            self.path.display()
        ))
    }
}
