//! Components that come as archives, sound and hostile.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use tandem::backend::local::anemll::bundle::AnemllBundle;
use tandem::backend::local::error::LoadErrorKind;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::draft::{Draft, LM_HEAD};

const ARCHIVE: &str = "qwen_lm_head_lut6.mlmodelc.zip";

/// Replaces the head's folder by an archive that `fill` writes; it gets the folder's metadata.json.
fn archived(fill: impl FnOnce(&mut ZipWriter<File>, &[u8])) -> Draft {
    let draft = Draft::tiny();
    let metadata = fs::read(draft.file(LM_HEAD).join("metadata.json")).unwrap();
    fs::remove_dir_all(draft.file(LM_HEAD)).unwrap();
    let mut archive = ZipWriter::new(File::create(draft.file(ARCHIVE)).unwrap());
    fill(&mut archive, &metadata);
    archive.finish().unwrap();
    draft
}

fn options() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)
}

fn add(archive: &mut ZipWriter<File>, name: &str, bytes: &[u8]) {
    archive.start_file(name, options()).unwrap();
    archive.write_all(bytes).unwrap();
}

/// What stands in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_archive_is_unpacked_once() {
    let whole = AnemllBundle::open(Draft::tiny().path()).unwrap();
    // With the folder in the archive, and without; with what macOS adds.
    for prefix in ["qwen_lm_head_lut6.mlmodelc/", ""] {
        let draft = archived(|archive, metadata| {
            add(archive, "__MACOSX/._metadata.json", b"leftover");
            if !prefix.is_empty() {
                archive.add_directory(prefix, options()).unwrap();
            }
            add(archive, &format!("{prefix}metadata.json"), metadata);
            add(archive, &format!("{prefix}weights/weight.bin"), &[7; 5000]);
        });
        let bundle = draft.open().unwrap();
        assert_eq!(bundle.logits, whole.logits);
        let weights = draft.file(LM_HEAD).join("weights/weight.bin");
        assert_eq!(fs::read(&weights).unwrap(), [7; 5000]);
        let after = names(draft.path());
        assert!(
            !after.iter().any(|name| name.starts_with(".unpacking")),
            "{after:?}"
        );

        // The second time nothing is unpacked: the archive is not even needed.
        fs::remove_file(draft.file(ARCHIVE)).unwrap();
        assert_eq!(draft.open().unwrap(), bundle);
    }
}

#[test]
fn several_at_once_unpack_the_same_archive() {
    let draft = archived(|archive, metadata| {
        add(archive, "metadata.json", metadata);
        add(archive, "weights/weight.bin", &vec![3; 300_000]);
    });
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..4).map(|_| scope.spawn(|| draft.open())).collect();
        for one in opened {
            one.join().unwrap().unwrap();
        }
    });
    let weights = draft.file(LM_HEAD).join("weights/weight.bin");
    assert_eq!(fs::read(weights).unwrap().len(), 300_000);
    assert!(
        !names(draft.path())
            .iter()
            .any(|name| name.starts_with(".unpacking"))
    );
}

/// Expects a refusal that names `fact`, and nothing left behind.
fn refused(fact: &str, fill: impl FnOnce(&mut ZipWriter<File>, &[u8])) {
    let draft = archived(fill);
    let before = names(draft.path());
    let outside = names(draft.path().parent().unwrap());
    let error = draft.open().unwrap_err();
    assert!(error.to_string().contains(fact), "{error}");
    assert_eq!(names(draft.path()), before);
    let escaped = outside.iter().any(|name| name.contains("tandem-escaped"));
    assert!(
        !escaped
            && !draft
                .path()
                .parent()
                .unwrap()
                .join("tandem-escaped")
                .exists()
    );
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    for name in [
        "../tandem-escaped",
        "a/../../tandem-escaped",
        "/tmp/tandem-escaped",
        "a\\..\\..\\b",
        "c:evil",
    ] {
        refused("would lie outside the folder", |archive, metadata| {
            add(archive, "metadata.json", metadata);
            add(archive, name, b"x");
        });
    }
}

#[test]
fn links_are_refused() {
    refused("is a link", |archive, metadata| {
        add(archive, "metadata.json", metadata);
        archive.add_symlink("weights", "/etc", options()).unwrap();
    });
}

#[test]
fn bombs_are_refused() {
    refused("would grow from", |archive, metadata| {
        add(archive, "metadata.json", metadata);
        add(archive, "weights/weight.bin", &vec![0; 8 << 20]);
    });
    refused("entries, more than any component", |archive, _| {
        for index in 0..5000 {
            add(archive, &format!("file-{index}"), b"");
        }
    });
}

/// Changes the sizes that an archive announces for its entry of this many bytes.
#[test]
fn an_entry_that_holds_more_than_it_says_is_refused() {
    let draft = archived(|archive, metadata| {
        add(archive, "metadata.json", metadata);
        add(archive, "weights/weight.bin", &vec![7; 54_321]);
    });
    let mut bytes = fs::read(draft.file(ARCHIVE)).unwrap();
    let size = 54_321_u32.to_le_bytes();
    let mut changed = 0;
    for at in 0..bytes.len() - 4 {
        if bytes[at..at + 4] == size {
            bytes[at..at + 4].copy_from_slice(&100_u32.to_le_bytes());
            changed += 1;
        }
    }
    assert!(changed > 0);
    draft.write(ARCHIVE, &bytes);
    let error = draft.open().unwrap_err();
    assert!(error.to_string().contains("weight.bin"), "{error}");
    assert!(!draft.file(LM_HEAD).exists());
}

#[test]
fn archives_cut_short_or_damaged_never_panic() {
    let draft = archived(|archive, metadata| {
        add(archive, "metadata.json", metadata);
        add(archive, "weights/weight.bin", &[9; 400]);
    });
    let whole = fs::read(draft.file(ARCHIVE)).unwrap();
    for length in (0..whole.len()).step_by(7) {
        draft.write(ARCHIVE, &whole[..length]);
        let error = draft.open().unwrap_err();
        assert!(error.to_string().contains(ARCHIVE), "{error}");
        assert!(!draft.file(LM_HEAD).exists(), "half unpacked at {length}");
    }
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        draft.write(ARCHIVE, &bytes);
        // Either refused, or the changed byte did not matter.
        if draft.open().is_ok() {
            fs::remove_dir_all(draft.file(LM_HEAD)).unwrap();
        }
    }
}

#[test]
fn an_archive_without_a_component_is_refused() {
    refused("it holds no compiled component", |archive, _| {
        add(archive, "readme.txt", b"nothing");
    });
    let draft = Draft::tiny();
    fs::remove_dir_all(draft.file(LM_HEAD)).unwrap();
    draft.write(ARCHIVE, "<html>404</html>");
    let error = draft.open().unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Malformed, "{error}");
}

#[cfg(unix)]
#[test]
fn archives_in_a_folder_that_cannot_be_written_go_to_the_cache() {
    use std::os::unix::fs::PermissionsExt;

    let draft = archived(|archive, metadata| add(archive, "metadata.json", metadata));
    let cache = tempfile::tempdir().unwrap();
    fs::set_permissions(draft.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let writable = File::create(draft.file("probe")).is_ok();
    let plain = draft.open();
    let cached = AnemllBundle::open_with_cache(draft.path(), Some(cache.path()));
    let again = AnemllBundle::open_with_cache(draft.path(), Some(cache.path()));
    fs::set_permissions(draft.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let cached = cached.unwrap();
    assert_eq!(again.unwrap(), cached);
    let head = &cached.components[2].path;
    // The superuser writes anywhere: for him there is nothing to be seen here.
    if writable {
        assert!(head.starts_with(draft.path()));
        return;
    }
    assert_eq!(plain.unwrap_err().kind(), LoadErrorKind::Unreadable);
    assert!(head.starts_with(cache.path()), "{}", head.display());
}
