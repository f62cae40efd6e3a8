//! Names from outside that become paths, identities or addresses: checked once, here.

use std::path::PathBuf;

/// The longest path of a file within a model, in bytes.
const LONGEST_PATH: usize = 512;

/// Names that Windows gives to devices, whatever follows the first dot.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// The same, with a digit behind.
const NUMBERED_DEVICES: [&str; 2] = ["com", "lpt"];

/// The path of a model's file below the model's folder, if `name` can not leave it and can be a
/// file's name on every system.
#[must_use]
pub fn file_path(name: &str) -> Option<PathBuf> {
    if name.is_empty() || name.len() > LONGEST_PATH {
        return None;
    }
    let sound = |part: &str| {
        let stem = part.split('.').next().unwrap_or_default();
        let is = |name: &str, devices: &[&str]| {
            let mut devices = devices.iter();
            devices.any(|device| name.eq_ignore_ascii_case(device))
        };
        let unnumbered = stem.strip_suffix(|c: char| c.is_ascii_digit());
        let is_device =
            is(stem, &DEVICES) || unnumbered.is_some_and(|stem| is(stem, &NUMBERED_DEVICES));
        !part.is_empty()
            && part.trim_end_matches(['.', ' ']).len() == part.len()
            && !part.contains(|c: char| c.is_control() || "\\:*?\"<>|".contains(c))
            && !is_device
            // What is ours beside the model's own files.
            && !part.to_ascii_lowercase().ends_with(".part")
    };
    name.split('/')
        .all(sound)
        .then(|| name.split('/').collect::<PathBuf>())
}

/// Whether `text` can name a model: what is safe as a folder's name and on a command line.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c))
        && file_path(text).is_some()
}

/// Whether `text` is a repository on a hub: an owner and a name.
#[must_use]
pub fn is_repository(text: &str) -> bool {
    let sound = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
    };
    text.len() <= 128
        && text
            .split_once('/')
            .is_some_and(|(owner, name)| sound(owner) && sound(name))
}

/// Whether `text` is a whole commit id.
#[must_use]
pub fn is_commit(text: &str) -> bool {
    is_lower_hex(text, 40)
}

/// Whether `text` is a SHA-256 in hexadecimal.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    is_lower_hex(text, 64)
}

/// Whether `text` can name a branch, a tag or a commit.
#[must_use]
pub fn is_revision(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with(['-', '.', '/'])
        && !text.contains("..")
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._/".contains(c))
}

fn is_lower_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_stays_below_its_folder_on_every_system() {
        for name in [
            "model.gguf",
            "qwen_embeddings.mlmodelc/weights/weight.bin",
            ".gitattributes",
            "com.apple/x",
            "a b",
        ] {
            assert_eq!(file_path(name), Some(PathBuf::from(name)), "{name}");
        }
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/./b",
            "a//b",
            "a/",
            "..",
            "C:/x",
            "a\\..\\x",
            "x:stream",
            "nul",
            "a/COM1.txt",
            "x.",
            "x ",
            "a\nb",
            "x.part",
            &"x".repeat(600),
        ] {
            assert_eq!(file_path(name), None, "{name:?}");
        }
    }

    #[test]
    fn ids_repositories_and_revisions_are_plain() {
        for (check, good, bad) in [
            (
                is_id as fn(&str) -> bool,
                &["qwen3-0.6b", "a"][..],
                &["", ".a", "A", "a/b", "..", "nul", "a b", "-a"][..],
            ),
            (
                is_repository,
                &["Qwen/Qwen3-0.6B-GGUF", "a/b_c"],
                &[
                    "", "a", "a/b/c", "../b", "a/..", "a/b?c", "a/b#c", "http://x",
                ],
            ),
            (
                is_revision,
                &["main", "refs/pr/1", "v1.0"],
                &["", "..", "a/../b", "-x", "a b", "a?b", "/x"],
            ),
            (
                is_commit,
                &["23749fefcc72300e3a2ad315e1317431b06b590a"],
                &["23749FEFcc72300e3a2ad315e1317431b06b590a", "23749f", "main"],
            ),
        ] {
            for text in good {
                assert!(check(text), "{text}");
            }
            for text in bad {
                assert!(!check(text), "{text}");
            }
        }
    }
}
