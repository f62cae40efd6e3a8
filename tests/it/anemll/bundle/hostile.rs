//! Files that are cut short, huge, of the wrong kind or made of anything: an error, never a panic.

use std::fs::{self, File};

use proptest::prelude::*;
use tandem::backend::local::anemll::bundle::AnemllBundle;
use tandem::backend::local::error::LoadErrorKind;

use super::draft::{Draft, EMBEDDINGS, FFN};

#[test]
fn a_folder_that_is_not_there_is_absent() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("gone");
    assert!(!AnemllBundle::is_at(&inside));
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [folder.path(), &inside, &file] {
        let error = AnemllBundle::open(path).unwrap_err();
        assert_eq!(error.kind(), LoadErrorKind::Absent, "{error}");
        assert!(
            error.to_string().contains("meta.yaml: it is missing"),
            "{error}"
        );
        assert!(
            error.to_string().ends_with("download the model again."),
            "{error}"
        );
    }
}

#[test]
fn a_folder_that_disappears_is_told_by_its_files() {
    let draft = Draft::tiny();
    draft.open().unwrap();
    // What a deletion in progress leaves.
    fs::remove_dir_all(draft.file(FFN)).unwrap();
    fs::remove_file(draft.file("tokenizer.json")).unwrap();
    let error = draft.open().unwrap_err();
    assert_eq!(
        (error.kind(), error.faults.len()),
        (LoadErrorKind::Absent, 2),
        "{error}"
    );
    fs::remove_dir_all(draft.path()).unwrap();
    let error = draft.open().unwrap_err();
    assert_eq!(
        (error.kind(), error.faults.len()),
        (LoadErrorKind::Absent, 1),
        "{error}"
    );
    fs::create_dir(draft.path()).unwrap();
}

#[test]
fn huge_files_are_refused_unread() {
    for (name, kilobytes) in [
        ("meta.yaml".to_owned(), 64),
        (format!("{FFN}/metadata.json"), 8 << 10),
        ("tokenizer.json".to_owned(), 64 << 10),
        ("tokenizer_config.json".to_owned(), 8 << 10),
        ("generation_config.json".to_owned(), 8 << 10),
    ] {
        let draft = Draft::tiny();
        // Sparse: it takes no room, and would take this much memory.
        let file = File::create(draft.file(&name)).unwrap();
        file.set_len(1 << 42).unwrap();
        let error = draft.open().unwrap_err().to_string();
        let fact = format!("{name}: it is larger than {kilobytes} KiB");
        assert!(error.contains(&fact), "{error}");
    }
}

#[test]
fn things_that_are_no_files_are_refused() {
    for name in ["meta.yaml", "tokenizer.json", "config.json"] {
        let draft = Draft::tiny();
        fs::remove_file(draft.file(name)).unwrap();
        fs::create_dir(draft.file(name)).unwrap();
        let error = draft.open().unwrap_err().to_string();
        assert!(
            error.contains(&format!("{name}: it is not a file")),
            "{error}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
    let draft = Draft::tiny();
    fs::remove_file(draft.file("meta.yaml")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(draft.file("meta.yaml"))
        .status();
    assert!(made.unwrap().success());
    let error = draft.open().unwrap_err().to_string();
    assert!(error.contains("meta.yaml: it is not a file"), "{error}");
}

#[cfg(unix)]
#[test]
fn files_that_may_not_be_read_are_told() {
    use std::os::unix::fs::PermissionsExt;

    let draft = Draft::tiny();
    let path = draft.file(&format!("{EMBEDDINGS}/metadata.json"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser reads anything.
    if File::open(&path).is_ok() {
        draft.open().unwrap();
        return;
    }
    let error = draft.open().unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Unreadable, "{error}");
    assert!(error.to_string().contains("permissions"), "{error}");
}

#[test]
fn metadata_cut_short_anywhere_says_so() {
    let draft = Draft::tiny();
    let name = format!("{EMBEDDINGS}/metadata.json");
    let whole = fs::read(draft.file(&name)).unwrap();
    let end = whole.iter().rposition(|byte| *byte == b']').unwrap();
    for length in (0..end).step_by(23).chain([end]) {
        draft.write(&name, &whole[..length]);
        let error = draft.open().unwrap_err();
        assert_eq!(error.kind(), LoadErrorKind::CutShort, "{length}: {error}");
    }
}

#[test]
fn meta_yaml_cut_short_anywhere_never_panics() {
    let draft = Draft::tiny();
    let whole = fs::read(draft.file("meta.yaml")).unwrap();
    // Up to the key from which the names of components could be put together.
    let end = String::from_utf8(whole.clone())
        .unwrap()
        .find("    model_prefix:")
        .unwrap();
    for length in (0..end).step_by(5) {
        draft.write("meta.yaml", &whole[..length]);
        let error = draft.open().unwrap_err();
        assert!(error.to_string().ends_with('.'), "{error}");
    }
}

#[test]
fn yaml_bombs_are_refused() {
    let draft = Draft::tiny();
    let mut bomb = vec!["a0: &a0 [x, x, x, x, x, x, x, x, x, x]".to_owned()];
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        let list = [before.as_str(); 10].join(", ");
        bomb.push(format!("a{level}: &a{level} [{list}]"));
    }
    bomb.push("model_info: {name: *a11, parameters: {}}\n".to_owned());
    draft.write("meta.yaml", bomb.join("\n"));
    let error = draft.open().unwrap_err().to_string();
    assert!(error.contains("meta.yaml: it makes no sense"), "{error}");

    for deep in [
        "[".repeat(60_000),
        "{a: ".repeat(15_000),
        "- ".repeat(30_000),
        "? ".repeat(30_000),
    ] {
        draft.write("meta.yaml", format!("model_info:\n  {deep}"));
        let error = draft.open().unwrap_err().to_string();
        assert!(error.contains("meta.yaml: it makes no sense"), "{error}");
    }
    draft.write("tokenizer.json", "[".repeat(1_000_000));
    draft.open().unwrap_err();
}

#[test]
fn several_models_or_none_are_refused() {
    let draft = Draft::tiny();
    let name = format!("{FFN}/metadata.json");
    for (text, fact) in [
        ("[]", "it describes 0 models, not one"),
        ("[{}, {}]", "it describes 2 models, not one"),
        ("{}", "it makes no sense"),
        ("null", "it makes no sense"),
        ("[{\"inputSchema\": {}}]", "it makes no sense"),
        ("[{\"functions\": [{\"name\": 3}]}]", "it makes no sense"),
    ] {
        draft.write(&name, text);
        let error = draft.open().unwrap_err().to_string();
        assert!(error.contains(fact), "{text}: {error}");
    }
}

/// Any JSON value, more often one of those that the readers look for.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[\\[\\]0-9, -]{0,20}".prop_map(Into::into),
        prop_oneof![
            "Float16",
            "Int32",
            "hidden_states",
            "logits1",
            "infer",
            "prefill"
        ]
        .prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    let key = prop_oneof![
        Just("name"),
        Just("shape"),
        Just("dataType"),
        Just("enumeratedShapes"),
        Just("isOptional"),
        Just("functions"),
        Just("inputSchema"),
        Just("outputSchema"),
        Just("stateSchema"),
        Just("userDefinedMetadata"),
        Just("com.anemll.chunk_no"),
        Just("vocab"),
        Just("model"),
        Just("added_tokens"),
        Just("id"),
        Just("content"),
        Just("eos_token_id"),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|entries| {
                let entries = entries
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value));
                serde_json::Value::Object(entries.collect())
            }),
        ]
    })
}

/// Opens the tiny bundle with one file replaced; whatever comes, it ends with the next step.
fn survives(name: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
    let draft = Draft::tiny();
    draft.write(name, bytes);
    if let Err(error) = draft.open() {
        prop_assert!(!error.faults.is_empty());
        prop_assert!(error.to_string().ends_with('.'), "{error}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..400), which in 0_usize..5) {
        let metadata = format!("{FFN}/metadata.json");
        let names = ["meta.yaml", &metadata, "tokenizer.json", "config.json", "tokenizer_config.json"];
        survives(names[which], &bytes)?;
    }

    #[test]
    fn any_json_is_answered(value in json(), which in 0_usize..4) {
        let metadata = format!("{FFN}/metadata.json");
        let names = [metadata.as_str(), "tokenizer.json", "generation_config.json", "tokenizer_config.json"];
        let value = if which == 0 { serde_json::json!([value]) } else { value };
        survives(names[which], &serde_json::to_vec(&value).unwrap())?;
    }

    #[test]
    fn any_parameters_are_answered(value in json()) {
        // JSON is YAML.
        let text = format!("model_info: {{parameters: {value}}}");
        survives("meta.yaml", text.as_bytes())?;
    }

    #[test]
    fn any_changed_byte_is_answered(at in any::<prop::sample::Index>(), byte in any::<u8>(), which in 0_usize..3) {
        let metadata = format!("{FFN}/metadata.json");
        let name = ["meta.yaml", &metadata, "tokenizer_config.json"][which];
        let mut bytes = fs::read(Draft::tiny().file(name)).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        survives(name, &bytes)?;
    }
}
