//! Where configuration files are, and how they are read.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::document::LARGEST_BYTES;

/// A project's file.
pub const PROJECT_FILE: &str = ".tandem.yaml";

/// What a project's file is easily misnamed. Passing it over would leave open what it closes.
const MISNAMED: &str = ".tandem.yml";

/// The user's own file below the folder for configurations, which is `$XDG_CONFIG_HOME` or
/// `~/.config`, on macOS too: the file is written by hand, and that is where people who write such
/// files look for them (`~/Library` is hidden in the Finder). On Windows it is `%APPDATA%`.
#[must_use]
pub fn user_file(config_folder: &Path) -> PathBuf {
    config_folder.join("tandem").join("config.yaml")
}

/// The projects' files that govern `folder`: its own and those of the folders above it, up to the
/// one that holds `.git`. Without one, only its own counts: what lies above is nobody's project.
///
/// # Errors
/// A file with almost the right name.
pub fn project_files(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let root = folder
        .ancestors()
        .find(|folder| folder.join(".git").exists())
        .unwrap_or(folder);
    let mut files = Vec::new();
    for folder in folder.ancestors() {
        // `exists` follows links and says no to a broken one, which must not pass in silence.
        let stands = |name: &str| folder.join(name).symlink_metadata().is_ok();
        let file = folder.join(PROJECT_FILE);
        if stands(PROJECT_FILE) {
            files.push(file);
        } else if stands(MISNAMED) {
            return Err(ConfigError::new(
                folder.join(MISNAMED).display().to_string(),
                "not the name of a project's file",
                format!("Rename it to `{PROJECT_FILE}`."),
            ));
        }
        if folder == root {
            break;
        }
    }
    Ok(files)
}

/// Reads a file that may be missing.
///
/// # Errors
/// When it is there and cannot be read, is no plain file, is too large or is not UTF-8.
pub fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    let error = |message: String, next_step: &str| {
        ConfigError::new(path.display().to_string(), message, next_step)
    };
    let unreadable = |cause: std::io::Error| {
        error(
            format!("cannot be read: {cause}"),
            "Correct its permissions, or remove it.",
        )
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(cause)
            if cause.kind() == std::io::ErrorKind::NotFound && path.symlink_metadata().is_err() =>
        {
            return Ok(None);
        }
        Err(cause) => return Err(unreadable(cause)),
    };
    // Opening a pipe would wait for its writer.
    if !metadata.is_file() {
        return Err(error(
            "not a plain file".to_owned(),
            "Replace it by one, or remove it.",
        ));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(LARGEST_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| error("not UTF-8".to_owned(), "Save it as UTF-8."))
}
