//! The plugin's folder: which of its files we wrote, and what is to be done to them. A record lies among
//! them, with the hash of each file, so that an update replaces and removal removes what is as we left it
//! and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plugin;
use crate::cli::exit::Failure;
use crate::cli::install::file::ConfigFile;
use crate::cli::install::{Change, make_folder};
use crate::cli::output;
use crate::model::sha256;

/// The record's name.
const RECORD: &str = "tandem-installed.json";

/// What was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The program's version.
    version: String,
    /// Each file, by its path with forward slashes, and its SHA-256 in hexadecimal digits.
    files: BTreeMap<String, String>,
}

/// The folder as it was found.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    record: Option<Record>,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// Files, as they are, and what they become.
    writes: Vec<(ConfigFile, String)>,
    removals: Vec<ConfigFile>,
    /// What stays because somebody changed it.
    pub kept: Vec<String>,
}

/// What lies under a name that may be ours.
enum Found {
    Nothing,
    /// A file as we wrote it, now or before.
    Ours(ConfigFile),
    /// Anything else.
    Changed,
}

impl Folder {
    /// Looks at it. A folder that is not there is empty.
    ///
    /// # Errors
    /// Something else is there, or the record cannot be read.
    pub fn open(path: PathBuf) -> Result<Self, Failure> {
        if path.exists() && !path.is_dir() {
            return Err(Failure::usage(format!(
                "{}: is no folder. Move it away, or name another with --folder.",
                path.display()
            )));
        }
        let file = ConfigFile::open(&path.join(RECORD))?;
        let record = file.is_there().then(|| parsed(&file)).transpose()?;
        Ok(Self { path, record })
    }

    /// Whether there is a plugin that was installed as this does it.
    pub fn is_installed(&self) -> bool {
        self.record.is_some()
    }

    /// Whether anything is there.
    pub fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// What makes it the plugin whose `files` these are.
    ///
    /// # Errors
    /// A file that is to be written is there and not as we wrote it, or nothing of it may be written.
    pub fn installation(&self, files: &BTreeMap<&str, String>) -> Result<Plan, Failure> {
        let mut plan = Plan::default();
        let mut in_the_way = Vec::new();
        for (path, text) in files {
            match self.look(path, Some(text))? {
                Found::Nothing => plan.write(ConfigFile::open(&self.path.join(path))?, text),
                Found::Ours(file) => plan.write(file, text),
                Found::Changed => in_the_way.push(*path),
            }
        }
        if !in_the_way.is_empty() {
            return Err(Failure::failed(format!(
                "{}: these files are not as Tandem installs them: {}. Nothing was changed. Move them \
                 away, then run this again.",
                self.path.display(),
                in_the_way.join(", ")
            )));
        }
        for path in self.recorded().filter(|path| !files.contains_key(path)) {
            plan.remove_if_ours(self.look(path, None)?, path);
        }
        let record = Record {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            files: files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), sha256(text.as_bytes())))
                .collect(),
        };
        // Last, so that what stops half-way is not taken for installed.
        let record_file = ConfigFile::open(&self.path.join(RECORD))?;
        plan.write(record_file, &in_json(&record)?);
        Ok(plan)
    }

    /// What takes the plugin away.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn removal(&self) -> Result<Plan, Failure> {
        let mut plan = Plan::default();
        for path in self.recorded() {
            plan.remove_if_ours(self.look(path, None)?, path);
        }
        for path in [plugin::HELP_TAGS, RECORD] {
            let file = ConfigFile::open(&self.path.join(path))?;
            plan.removals.extend(file.is_there().then_some(file));
        }
        Ok(plan)
    }

    /// Removes what is empty of it, and of the folders above as far as `top`.
    pub fn tidy(&self, top: &Path) {
        let mut folders = Vec::new();
        for path in self.recorded() {
            let inside = Path::new(path).ancestors().skip(1);
            folders.extend(inside.map(|folder| self.path.join(folder)));
        }
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
        let above = self.path.ancestors().skip(1);
        folders.extend(
            above
                .take_while(|folder| folder.starts_with(top))
                .map(Path::to_owned),
        );
        for folder in folders {
            // One that is not empty stays; so does a link.
            let _ = fs::remove_dir(folder);
        }
    }

    fn recorded(&self) -> impl Iterator<Item = &str> {
        let files = self.record.iter().flat_map(|record| record.files.keys());
        files.map(String::as_str)
    }

    /// `text` is what is to be written there.
    fn look(&self, path: &str, text: Option<&str>) -> Result<Found, Failure> {
        // The last is the folder itself. What is in it must lead nowhere else.
        let mut inside = Path::new(path).ancestors();
        if inside.any(|part| part != Path::new("") && self.path.join(part).is_symlink()) {
            return Ok(Found::Changed);
        }
        let whole = self.path.join(path);
        match fs::symlink_metadata(&whole) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => {
                return Err(Failure::failed(format!(
                    "{}: cannot be read: {error}. Check it, and the folders above.",
                    whole.display()
                )));
            }
            Ok(metadata) if !metadata.is_file() => return Ok(Found::Changed),
            Ok(_) => {}
        }
        let file = ConfigFile::open(&whole)?;
        let recorded = self
            .record
            .as_ref()
            .and_then(|record| record.files.get(path));
        let is_ours =
            text == Some(file.whole()) || recorded == Some(&sha256(file.whole().as_bytes()));
        Ok(if is_ours {
            Found::Ours(file)
        } else {
            Found::Changed
        })
    }
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.removals.is_empty()
    }

    fn write(&mut self, file: ConfigFile, text: &str) {
        if !file.is_there() || file.whole() != text {
            self.writes.push((file, text.to_owned()));
        }
    }

    fn remove_if_ours(&mut self, found: Found, path: &str) {
        match found {
            Found::Nothing => {}
            Found::Ours(file) => self.removals.push(file),
            Found::Changed => self.kept.push(path.to_owned()),
        }
    }

    /// Prints what would happen.
    pub fn show(self) -> Result<(), Failure> {
        for (file, after) in self.writes {
            if file.is_there() {
                Change { file: &file, after }.show()?;
            } else {
                let lines = after.lines().count();
                let shown = file.path.display();
                output::print_bytes(format!("New: {shown} ({lines} lines)\n").as_bytes())?;
            }
        }
        for file in self.removals {
            output::print_bytes(format!("Removed: {}\n", file.path.display()).as_bytes())?;
        }
        Ok(())
    }

    /// Does it.
    ///
    /// # Errors
    /// A file or folder cannot be written or removed. What was done stays done: once that is mended,
    /// the same command goes on from there.
    pub fn carry_out(&self) -> Result<(), Failure> {
        let written = self.writes.iter().map(|(file, _)| file);
        for file in written.chain(&self.removals) {
            file.writable()?;
        }
        for (file, text) in &self.writes {
            if let Some(folder) = file.path.parent() {
                make_folder(folder)?;
            }
            file.replace(text)?;
        }
        for file in &self.removals {
            fs::remove_file(&file.path).map_err(|error| {
                Failure::failed(format!(
                    "{}: cannot be removed: {error}. Check the permissions of its folder, then run \
                     this again.",
                    file.path.display()
                ))
            })?;
        }
        Ok(())
    }
}

fn parsed(file: &ConfigFile) -> Result<Record, Failure> {
    let record: Result<Record, _> = serde_json::from_str(file.text());
    let trouble = match record {
        Ok(record) => match record.files.keys().find(|path| !plugin::stays_inside(path)) {
            None => return Ok(record),
            Some(path) => format!("`{path}` leads out of the folder"),
        },
        Err(error) => error.to_string(),
    };
    Err(Failure::usage(format!(
        "{}: {trouble}. Nothing was changed. This file says what was installed there: remove its folder \
         yourself, then run this again.",
        file.path.display()
    )))
}

fn in_json(record: &Record) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(record)
        .map_err(|error| Failure::failed(format!("{RECORD}: {error}.")))?;
    Ok(text + "\n")
}
