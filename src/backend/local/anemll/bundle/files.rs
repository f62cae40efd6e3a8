//! The files of a bundle as they are on disk: read within bounds, components found under the names
//! they really have.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::archive;
use super::error::{Fault, io_fault, malformed};
use crate::backend::local::error::LoadErrorKind;

/// Largest meta.yaml: real ones have 1 to 3 KiB.
pub(super) const META_BYTES: u64 = 1 << 16;

/// Largest metadata.json of a component: real ones have some 10 KiB a function.
pub(super) const METADATA_BYTES: u64 = 8 << 20;

/// Largest tokenizer.json: Qwen's has 11 MiB.
pub(super) const TOKENIZER_BYTES: u64 = 64 << 20;

/// Largest of the small files beside it: configurations and templates.
pub(super) const SMALL_BYTES: u64 = 8 << 20;

/// How a compiled component's folder ends.
const COMPILED: &str = ".mlmodelc";

/// Reads `path`, which is called `place` in faults, if it is a file of at most `limit` bytes.
pub(super) fn read(path: &Path, place: &str, limit: u64) -> Result<Vec<u8>, Fault> {
    // Asked before it is opened: opening a pipe would wait for its other end.
    let about = fs::metadata(path).map_err(|error| io_fault(place, &error))?;
    if !about.is_file() {
        return Err(malformed(place, "it is not a file"));
    }
    let too_large = || malformed(place, format!("it is larger than {} KiB", limit >> 10));
    if about.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| io_fault(place, &error))?;
    // It may have grown since.
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Like [`read`], `None` where there is no such file.
pub(super) fn read_optional(
    path: &Path,
    place: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, Fault> {
    match read(path, place, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(fault) if fault.kind == LoadErrorKind::Absent => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Where components are looked for, and where archives are unpacked if not beside themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a> {
    /// The bundle's folder.
    pub(super) folder: &'a Path,
    /// Where archives go when the folder cannot be written to.
    pub(super) cache: Option<&'a Path>,
}

impl Places<'_> {
    /// The folder of the component that meta.yaml calls `name`.
    pub(super) fn component(self, name: &str) -> Result<PathBuf, Fault> {
        self.first_of(name, &[stem(name).to_owned()])
    }

    /// The folder of chunk `chunk` of `of` of the component that meta.yaml calls `name`: the name as
    /// it is written only if it can mean this chunk, then with the chunk's suffix, which meta.yaml
    /// leaves out.
    pub(super) fn chunk(self, name: &str, chunk: usize, of: usize) -> Result<PathBuf, Fault> {
        let written = stem(name);
        let suffix = format!("_chunk_{chunk:02}of{of:02}");
        let base = without_chunk(written);
        let mut stems = Vec::new();
        if written.ends_with(&suffix) || (of == 1 && base == written) {
            stems.push(written.to_owned());
        }
        stems.push(format!("{base}{suffix}"));
        self.first_of(name, &stems)
    }

    /// The first of `stems` that stands in the folder, as a folder or an archive of one.
    fn first_of(self, name: &str, stems: &[String]) -> Result<PathBuf, Fault> {
        if !stays_inside(name) {
            let what = format!("the component {name:?} would lie outside the folder");
            return Err(malformed("meta.yaml", what));
        }
        for stem in stems {
            let compiled = self.folder.join(format!("{stem}{COMPILED}"));
            if compiled.is_dir() {
                return Ok(compiled);
            }
            let archive = self.folder.join(format!("{stem}{COMPILED}.zip"));
            if archive.is_file() {
                return archive::unpacked(&archive, &compiled, self.cache);
            }
        }
        let last = stems.last().map_or(name, String::as_str);
        let place = format!("{last}{COMPILED}");
        let package = self.folder.join(format!("{last}.mlpackage"));
        if package.exists() {
            return Err(Fault {
                kind: LoadErrorKind::Unsupported,
                place,
                what: "only the .mlpackage is there, which is not compiled".to_owned(),
            });
        }
        Err(Fault {
            kind: LoadErrorKind::Absent,
            place,
            what: format!("it is missing{}", self.what_is_there()),
        })
    }

    /// The components that are there, for a person who looks for another.
    fn what_is_there(self) -> String {
        /// More would hide the fact they are told with.
        const NAMED: usize = 8;
        let Ok(entries) = fs::read_dir(self.folder) else {
            return String::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.contains(COMPILED))
            .collect();
        if names.is_empty() {
            return "; the folder has no .mlmodelc at all".to_owned();
        }
        names.sort();
        names.truncate(NAMED);
        format!("; the folder has {}", names.join(", "))
    }
}

/// The name without what follows the component's own name.
fn stem(name: &str) -> &str {
    let name = name.strip_suffix(".zip").unwrap_or(name);
    name.strip_suffix(COMPILED).unwrap_or(name)
}

/// The name without `_chunk_01of02`.
fn without_chunk(stem: &str) -> &str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match stem.rsplit_once("_chunk_") {
        Some((base, numbers))
            if numbers
                .split_once("of")
                .is_some_and(|(chunk, of)| digits(chunk) && digits(of)) =>
        {
            base
        }
        _ => stem,
    }
}

/// Whether a relative name can only mean something below the folder it is relative to.
pub(super) fn stays_inside(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', '\0', ':'])
        && Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_seen() {
        for (name, inside) in [
            ("qwen_embeddings.mlmodelc", true),
            ("parts/qwen_embeddings", true),
            ("../qwen_embeddings", false),
            ("parts/../../qwen", false),
            ("/etc/passwd", false),
            ("./qwen", false),
            ("..\\qwen", false),
            ("C:qwen", false),
            ("a\0b", false),
            ("", false),
        ] {
            assert_eq!(stays_inside(name), inside, "{name:?}");
        }
    }

    #[test]
    fn a_chunk_is_found_under_the_name_on_disk() {
        let check = |on_disk: &[&str], name: &str, chunk, of, expected: Option<&str>| {
            let folder = tempfile::tempdir().unwrap();
            for name in on_disk {
                fs::create_dir(folder.path().join(name)).unwrap();
            }
            let places = Places {
                folder: folder.path(),
                cache: None,
            };
            let found = places.chunk(name, chunk, of);
            let found = found.as_ref().map(|path| path.file_name().unwrap());
            match expected {
                Some(expected) => assert_eq!(found, Ok(expected.as_ref()), "{name} {chunk}"),
                None => assert_eq!(found.unwrap_err().kind, LoadErrorKind::Absent, "{name}"),
            }
        };
        let one = ["q_lut6_chunk_01of01.mlmodelc"];
        check(&one, "q_lut6.mlmodelc", 1, 1, Some(one[0]));
        check(&one, "q_lut6", 1, 1, Some(one[0]));
        check(&one, "q_lut6_chunk_01of01.mlmodelc", 1, 1, Some(one[0]));
        check(&one, "q_lut4", 1, 1, None);
        check(&["q.mlmodelc"], "q.mlmodelc", 1, 1, Some("q.mlmodelc"));
        let two = ["q_chunk_01of02.mlmodelc", "q_chunk_02of02.mlmodelc"];
        for name in ["q", "q.mlmodelc", "q_chunk_01of02.mlmodelc"] {
            check(&two, name, 1, 2, Some(two[0]));
            check(&two, name, 2, 2, Some(two[1]));
        }
        check(&two, "q", 1, 1, None);
        // Without a suffix on disk there is no telling which chunk it is.
        check(&["q.mlmodelc"], "q", 1, 2, None);
        check(
            &["q_chunk_10of12.mlmodelc"],
            "q",
            10,
            12,
            Some("q_chunk_10of12.mlmodelc"),
        );
    }
}
