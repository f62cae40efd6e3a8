//! What a bug report needs, as one file: the report, the configuration and the end of the log.
//!
//! Keys are in none of the three: the configuration is what `tandem config show` prints, and logs
//! hold neither keys nor text. The home folder's name is left out as well.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::Value;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::cli::exit::Failure;

/// Of a log, the end is what tells; as much as a report can carry.
const LOG_BYTES: u64 = 1 << 20;

/// What goes in.
pub struct Contents<'a> {
    /// What doctor saw.
    pub report: &'a Value,
    /// What is configured, and where each value comes from.
    pub configuration: &'a Value,
    /// The log file, where there is one.
    pub log: Option<&'a Path>,
    /// The home folder, which is written as `~`.
    pub home: Option<&'a Path>,
}

/// Writes the archive; a file that is there already is left alone.
///
/// # Errors
/// When the file is there, or cannot be written.
pub fn write(place: &Path, contents: &Contents<'_>) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).open(place);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::usage(format!(
            "{} is there already. Name another file.",
            place.display()
        )),
        _ => unwritable(place, &error),
    })?;
    fill(file, contents).map_err(|error| unwritable(place, &error))
}

fn unwritable(place: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!(
        "{} cannot be written: {error}. Name a file in a folder of your own.",
        place.display()
    ))
}

fn fill(file: File, contents: &Contents<'_>) -> io::Result<()> {
    let mut archive = ZipWriter::new(file);
    let mut add = |name: &str, text: &str| {
        archive.start_file(name, SimpleFileOptions::default())?;
        archive.write_all(anonymous(text, contents.home).as_bytes())
    };
    add("doctor.json", &format!("{:#}\n", contents.report))?;
    add(
        "configuration.json",
        &format!("{:#}\n", contents.configuration),
    )?;
    if let Some(log) = contents.log {
        // A log that is not there yet is no reason to give up.
        add(
            "log.txt",
            &end_of(log).unwrap_or_else(|error| format!("not readable: {error}\n")),
        )?;
    }
    archive.finish()?;
    Ok(())
}

/// The last part of a log, whole characters.
fn end_of(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `text` without the home folder's name, also as JSON writes it.
fn anonymous(text: &str, home: Option<&Path>) -> String {
    let Some(home) = home.and_then(Path::to_str).filter(|home| home.len() > 1) else {
        return text.to_owned();
    };
    let escaped = home.replace('\\', "\\\\");
    text.replace(&escaped, "~").replace(home, "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_folder_is_not_named() {
        let home = Path::new("/home/somebody");
        let text = "model: /home/somebody/models/a.gguf";
        assert_eq!(anonymous(text, Some(home)), "model: ~/models/a.gguf");
        assert_eq!(anonymous(text, Some(Path::new("/"))), text);
        assert_eq!(anonymous(text, None), text);
    }
}
