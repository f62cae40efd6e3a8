//! Components that come as `.mlmodelc.zip`, unpacked once and safely.
//!
//! What an archive claims is not believed: names that leave the folder, links and bombs are refused,
//! and the finished folder appears under its name in one step or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use zip::ZipArchive;
use zip::result::ZipError;

use super::error::{Fault, io_fault, malformed};
use super::files::stays_inside;
use crate::backend::local::error::LoadErrorKind;

/// A compiled component has about ten files.
const MOST_ENTRIES: usize = 4096;

/// More than the largest component of an 8B model.
const MOST_BYTES: u64 = 16 << 30;

/// Weights hardly shrink, and the text of a program by about thirty; beyond this it is a bomb.
const LARGEST_RATIO: u64 = 200;

/// A small file may shrink by any ratio.
const SMALL_FILE: u64 = 1 << 20;

/// What macOS adds to archives.
const LEFTOVERS: [&str; 2] = ["__MACOSX", ".DS_Store"];

/// The bits of a Unix mode that tell a file's type, and those of a symbolic link.
const MODE_TYPE: u32 = 0o170_000;
const MODE_LINK: u32 = 0o120_000;

/// The folder that `archive` holds, unpacked at `target` beside it; where that cannot be written, in
/// `cache`. Several processes may do this at once.
pub(super) fn unpacked(
    archive: &Path,
    target: &Path,
    cache: Option<&Path>,
) -> Result<PathBuf, Fault> {
    let place = file_name(archive);
    let beside = archive.parent().unwrap_or(Path::new(""));
    match unpack_below(archive, beside, target, &place) {
        Err(fault) if fault.kind == LoadErrorKind::Unreadable => match cache {
            Some(cache) => {
                let home = cache.join(key(archive).map_err(|error| io_fault(&place, &error))?);
                let target = home.join(file_name(target));
                if target.is_dir() {
                    return Ok(target);
                }
                fs::create_dir_all(&home).map_err(|error| io_fault(&place, &error))?;
                unpack_below(archive, &home, &target, &place)
            }
            None => Err(fault),
        },
        other => other,
    }
}

/// A name for what this archive unpacks to, which another archive at the same path does not share.
fn key(archive: &Path) -> io::Result<String> {
    let about = fs::metadata(archive)?;
    let changed = about
        .modified()?
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let name = archive.parent().map(file_name).unwrap_or_default();
    let nanoseconds = changed.as_nanos();
    Ok(format!("{name}-{:x}-{nanoseconds:x}", about.len()))
}

fn unpack_below(archive: &Path, home: &Path, target: &Path, place: &str) -> Result<PathBuf, Fault> {
    let failed = |error: io::Error| io_fault(place, &error);
    // Ends with the scope: whatever stops us, nothing half unpacked stays.
    let temporary = tempfile::Builder::new()
        .prefix(".unpacking-")
        .tempdir_in(home)
        .map_err(failed)?;
    let content = temporary.path().join("content");
    fs::create_dir(&content).map_err(failed)?;
    let file = File::open(archive).map_err(failed)?;
    unpack(file, &content, place)?;
    let root = root(&content, place)?;
    match fs::rename(&root, target) {
        Ok(()) => Ok(target.to_owned()),
        // Somebody else was faster, with the same archive.
        Err(_) if target.is_dir() => Ok(target.to_owned()),
        Err(error) => Err(failed(error)),
    }
}

/// Archives hold the component's folder or what is in it.
fn root(content: &Path, place: &str) -> Result<PathBuf, Fault> {
    if content.join("metadata.json").is_file() {
        return Ok(content.to_owned());
    }
    let entries = fs::read_dir(content).map_err(|error| io_fault(place, &error))?;
    let folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    match folders.as_slice() {
        [only] if only.join("metadata.json").is_file() => Ok(only.clone()),
        _ => Err(malformed(place, "it holds no compiled component")),
    }
}

fn unpack(file: impl Read + Seek, into: &Path, place: &str) -> Result<(), Fault> {
    let damaged = |error: ZipError| match error {
        ZipError::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
            io_fault(place, &error)
        }
        ZipError::UnsupportedArchive(why) => Fault {
            kind: LoadErrorKind::Unsupported,
            ..malformed(
                place,
                format!("it is packed in a way that is not known ({why})"),
            )
        },
        other => malformed(place, format!("it is no sound archive ({other})")),
    };
    let mut archive = ZipArchive::new(file).map_err(damaged)?;
    if archive.len() > MOST_ENTRIES {
        let what = format!("it has {} entries, more than any component", archive.len());
        return Err(malformed(place, what));
    }
    let mut left = MOST_BYTES;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(damaged)?;
        let name = entry.name().map_err(damaged)?.into_owned();
        let relative = name.strip_suffix('/').unwrap_or(&name);
        if LEFTOVERS.contains(&relative.split('/').next().unwrap_or_default())
            || relative.ends_with("/.DS_Store")
        {
            continue;
        }
        if !stays_inside(relative) {
            return Err(malformed(
                place,
                format!("{name:?} would lie outside the folder"),
            ));
        }
        if entry
            .unix_mode()
            .is_some_and(|mode| mode & MODE_TYPE == MODE_LINK)
        {
            return Err(malformed(place, format!("{name:?} is a link")));
        }
        let (packed, size) = (entry.compressed_size(), entry.size());
        if size > SMALL_FILE && size / packed.max(1) > LARGEST_RATIO {
            let what = format!("{name:?} would grow from {packed} to {size} bytes");
            return Err(malformed(place, what));
        }
        if size > left {
            let what = format!("it would unpack to more than {} GiB", MOST_BYTES >> 30);
            return Err(malformed(place, what));
        }
        let path = into.join(relative);
        let failed = |error: io::Error| io_fault(place, &error);
        if entry.is_dir() {
            fs::create_dir_all(&path).map_err(failed)?;
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        // `create_new`: no entry writes into what another one made.
        let mut out = File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(failed)?;
        // An entry may hold more than it says. Errors of the stream are the archive's fault.
        let copied = io::copy(&mut (&mut entry).take(size + 1), &mut out).map_err(|error| {
            match error.kind() {
                io::ErrorKind::InvalidData
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::UnexpectedEof => {
                    malformed(place, format!("{name:?} is damaged ({error})"))
                }
                _ => io_fault(place, &error),
            }
        })?;
        if copied != size {
            let what = format!("{name:?} has not the {size} bytes that it announces");
            return Err(malformed(place, what));
        }
        left -= size;
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
