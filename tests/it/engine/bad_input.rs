//! Model files that are cut short, damaged or lie: each is told by a clear error, none costs a panic
//! or more memory than its size warrants.

use std::fs;
use std::io::Cursor;

use proptest::prelude::*;
use tandem::backend::local::ModelSource;
use tandem::backend::local::error::{LoadError, LoadErrorKind};
use tandem::backend::local::gguf::Gguf;
use tandem::backend::local::loader::load;
use tandem::config::ComputeDevice;

use super::{CONTEXT, fixture};

fn bytes() -> Vec<u8> {
    fs::read(fixture("qwen3-tiny-q8_0.gguf")).unwrap()
}

/// Loads a file with these bytes the whole way.
fn load_bytes(bytes: &[u8]) -> Result<(), LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    fs::write(&path, bytes).unwrap();
    load(&ModelSource::Gguf(path), CONTEXT, ComputeDevice::Cpu).map(drop)
}

fn assert_tells(error: &LoadError) {
    let text = error.to_string();
    assert!(text.contains(&error.file) && text.ends_with('.'), "{text}");
    assert!(!error.fact.is_empty() && !error.next_step.is_empty());
}

#[test]
fn a_gguf_cut_short_anywhere_says_so() {
    let whole = bytes();
    load_bytes(&whole).unwrap();
    let mut lengths: Vec<usize> = (0..64).collect();
    lengths.extend((64..whole.len()).step_by(997));
    lengths.extend(whole.len() - 40..whole.len());
    for length in lengths {
        let error = Gguf::open(Cursor::new(&whole[..length]), "cut.gguf").unwrap_err();
        assert_eq!(error.kind, LoadErrorKind::CutShort, "{length}: {error}");
        assert_tells(&error);
    }
}

#[test]
fn other_files_are_not_taken_for_models() {
    let mut old = bytes();
    old[4] = 1;
    let mut big_endian = bytes();
    big_endian[4..8].copy_from_slice(&3u32.to_be_bytes());
    for (what, bytes) in [
        ("text", b"#!/bin/sh\necho hello".to_vec()),
        ("an old version", old),
        ("big-endian", big_endian),
    ] {
        let error = load_bytes(&bytes).unwrap_err();
        assert_eq!(error.kind, LoadErrorKind::Unsupported, "{what}: {error}");
        assert_tells(&error);
    }
}

#[test]
fn absurd_sizes_are_refused_before_anything_is_allocated() {
    let huge = [u64::MAX, 1 << 62, 1 << 40, u64::from(u32::MAX)];
    // The number of tensors, of metadata entries, and the length of the first key.
    for at in [8, 16, 24] {
        for size in huge {
            let mut bytes = bytes();
            bytes[at..at + 8].copy_from_slice(&size.to_le_bytes());
            let error = load_bytes(&bytes).unwrap_err();
            assert_tells(&error);
        }
    }
    // A dimension and the offset of the first tensor's description.
    let whole = bytes();
    let name = b"token_embd.weight";
    let at = whole.windows(name.len()).position(|w| w == name).unwrap() + name.len();
    for field in [at, at + 4, at + 12, at + 24] {
        for size in huge {
            let mut bytes = whole.clone();
            bytes[field..field + 8].copy_from_slice(&size.to_le_bytes());
            let error = load_bytes(&bytes).unwrap_err();
            assert_tells(&error);
        }
    }
}

/// Replaces one stretch of bytes with another of the same length.
fn replaced(from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes();
    let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn a_model_that_does_not_fit_itself_is_told_by_what_is_wrong() {
    for (bytes, fact) in [
        (
            replaced(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"),
            "blk.1.ffn_up.weight is missing",
        ),
        (
            replaced(b"qwen3.block_count", b"qwen3.xxxxx_count"),
            "qwen3.block_count is missing",
        ),
        (
            replaced(b"general.architecture", b"general.architextxxx"),
            "architecture",
        ),
        (
            replaced(b"tokenizer.ggml.merges", b"tokenizer.ggml.mergex"),
            "tokenizer.ggml.merges is missing",
        ),
        (
            replaced(
                b"\x05\x00\x00\x00\x00\x00\x00\x00qwen2",
                b"\x05\x00\x00\x00\x00\x00\x00\x00llama",
            ),
            "llama",
        ),
    ] {
        let error = load_bytes(&bytes).unwrap_err();
        assert!(error.fact.contains(fact), "{error}");
        assert_tells(&error);
    }
}

#[test]
fn a_folder_whose_parts_do_not_fit_is_told_by_what_is_wrong() {
    let copy_with = |file: &str, change: &dyn Fn(String) -> String| {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(fixture("qwen3-tiny")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let path = folder.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(text)).unwrap();
        let error = load(
            &ModelSource::Folder(folder.path().into()),
            CONTEXT,
            ComputeDevice::Cpu,
        )
        .map(drop)
        .unwrap_err();
        assert_tells(&error);
        error.fact
    };
    let fact = copy_with("config.json", &|text| text.replace(": 384", ": 300"));
    assert!(fact.contains("does not fit the model"), "{fact}");
    let fact = copy_with("config.json", &|text| text.replace(": 96", ": 97"));
    assert!(fact.contains("shape"), "{fact}");
    let fact = copy_with("config.json", &|text| {
        text.replace("\"qwen3\"", "\"llama\"")
    });
    assert!(fact.contains("llama"), "{fact}");
    let fact = copy_with("tokenizer.json", &|text| text[..text.len() / 2].to_owned());
    assert!(fact.contains("tokenizer"), "{fact}");
    let fact = copy_with("generation_config.json", &|_| {
        "{\"eos_token_id\": 9999}".into()
    });
    assert!(fact.contains("9999"), "{fact}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever a few bytes of the header say, loading ends with a model or a clear error.
    #[test]
    fn a_damaged_header_never_panics(
        changes in proptest::collection::vec((0usize..9000, any::<u8>()), 1..6),
        size in prop_oneof![Just(None), (0usize..160_000).prop_map(Some)],
    ) {
        let mut bytes = bytes();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Some(size) = size {
            bytes.truncate(size);
        }
        if let Err(error) = load_bytes(&bytes) {
            assert_tells(&error);
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_model(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"GGUF\x03\x00\x00\x00".to_vec();
        bytes.extend(tail);
        prop_assert!(Gguf::open(Cursor::new(bytes), "noise.gguf").is_err());
    }
}
