//! Whether a file is the one that was meant: SHA-256, and Git's own hash for the small files of a
//! repository, of which the hub knows no other.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::names;

/// Read at once. Large enough that calls do not count, small enough for a cache.
const BLOCK: usize = 256 << 10;

/// What a file's content is held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256, in hexadecimal.
    Sha256(String),
    /// The id that Git gives to the content (SHA-1 over a header and the content), in hexadecimal.
    GitBlob(String),
}

/// Both hashes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    git_blob: String,
    /// The size.
    pub bytes: u64,
}

impl Digest {
    /// What an ETag of the hub, or the name of a blob in its cache, says about the content.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        if names::is_sha256(name) {
            Some(Self::Sha256(name.to_owned()))
        } else if names::is_commit(name) {
            Some(Self::GitBlob(name.to_owned()))
        } else {
            None
        }
    }
}

impl Hashed {
    /// Reads a whole file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut sha256 = Sha256::new();
        let mut git = Sha1::new();
        git.update(format!("blob {length}\0"));
        let mut block = vec![0; BLOCK];
        let mut bytes = 0;
        loop {
            let count = file.read(&mut block)?;
            if count == 0 {
                break;
            }
            sha256.update(&block[..count]);
            git.update(&block[..count]);
            bytes += count as u64;
        }
        Ok(Self {
            sha256: hex(&sha256.finalize()),
            git_blob: hex(&git.finalize()),
            bytes,
        })
    }

    /// Whether this is what was meant.
    #[must_use]
    pub fn is(&self, digest: &Digest) -> bool {
        match digest {
            Digest::Sha256(expected) => self.sha256 == *expected,
            Digest::GitBlob(expected) => self.git_blob == *expected,
        }
    }
}

/// The SHA-256 of `bytes`, in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum_and_git_hash_object() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello\n").unwrap();
        let hashed = Hashed::of(file.path()).unwrap();
        assert_eq!(hashed.bytes, 6);
        for (name, expected) in [
            (
                "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
                true,
            ),
            ("ce013625030ba8dba906f756967f9e9ca394464a", true),
            ("ce013625030ba8dba906f756967f9e9ca394464b", false),
            (
                "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be04",
                false,
            ),
        ] {
            assert_eq!(
                hashed.is(&Digest::of_name(name).unwrap()),
                expected,
                "{name}"
            );
        }
        assert_eq!(Digest::of_name("W/abc"), None);
    }
}
