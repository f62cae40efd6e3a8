//! The rules of the architecture, as tests: who may import whom, and how a file begins.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our modules each module may name. A module may always name itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("inference", &[]),
    ("config", &[]),
    ("prompt", &["inference"]),
    ("postprocess", &["inference"]),
    ("next_edit", &[]),
    ("model", &["config"]),
    // No backend and no model: what it hosts is given to it.
    ("daemon", &["inference", "config"]),
    ("telemetry", &["config", "inference"]),
    ("backend", &["inference", "prompt", "model", "config"]),
    (
        "router",
        &["inference", "postprocess", "config", "telemetry"],
    ),
    (
        "protocol",
        &[
            "inference",
            "router",
            "config",
            "telemetry",
            "postprocess",
            "next_edit",
        ],
    ),
];

/// Where Objective-C is spoken, and with it nearly all that is unsafe.
const CORE_ML: &[&str] = &[
    "src/backend/local/anemll/coreml/",
    "src/backend/local/anemll/candle_coreml.rs",
];

/// Crates that only one folder may name, so that the rest of the tree can outlive them.
const CRATE_STAYS_IN: &[(&str, &[&str])] = &[
    ("tower_lsp", &["src/protocol/lsp/"]),
    ("rmcp", &["src/protocol/mcp/"]),
    ("candle_core", &["src/backend/local/"]),
    ("candle_nn", &["src/backend/local/"]),
    (
        "candle_core_09",
        &["src/backend/local/anemll/candle_coreml.rs"],
    ),
    ("objc2", CORE_ML),
    ("objc2_core_ml", CORE_ML),
    ("objc2_core_video", CORE_ML),
    ("objc2_foundation", CORE_ML),
    ("tokenizers", &["src/backend/local/"]),
    ("llguidance", &["src/backend/local/grammar.rs"]),
    ("toktrie", &["src/backend/local/grammar.rs"]),
    ("jsonschema", &["src/inference/schema.rs"]),
    // Windows's C interface, all of which is unsafe.
    ("windows_sys", &["src/daemon/pipe/win32.rs"]),
    // Claude, the user's inference server and the hub are all that the program talks to.
    (
        "reqwest",
        &[
            "src/backend/claude",
            "src/backend/http",
            "src/backend/server",
            "src/model/",
        ],
    ),
    ("hf_hub", &["src/model/"]),
];

/// Past this many lines a file asks for a second room.
const LONGEST_FILE: usize = 600;

struct Source {
    /// Relative to the repository, with forward slashes.
    path: String,
    text: String,
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_string_lossy()
                    .replace('\\', "/");
                files.push(Source { path, text });
            }
        }
    }
    assert!(
        files.len() > 5,
        "found only {} files under {folder}",
        files.len()
    );
    files
}

/// The lines that are code: comments and the text after `//` are dropped.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
}

/// The first segments of all `crate::…` paths in a line, grouped imports included.
fn modules_named(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0_usize;
            let mut segment = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.push(std::mem::take(&mut segment));
                    }
                    _ if depth == 0 => segment.push(c),
                    _ => {}
                }
            }
            found.push(segment);
        } else {
            found.push(rest.to_owned());
        }
    }
    found
        .into_iter()
        .map(|path| {
            path.trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        })
        .filter(|module| module.starts_with(char::is_lowercase))
        .collect()
}

#[test]
fn grouped_and_plain_imports_are_both_read() {
    assert_eq!(
        modules_named("use crate::{config::Settings, inference::{Task, Event}};"),
        ["config", "inference"]
    );
    assert_eq!(
        modules_named("let x = crate::router::Router::new(crate::config::a());"),
        ["router", "config"]
    );
    assert_eq!(
        modules_named("use other_crate::thing;"),
        Vec::<String>::new()
    );
}

#[test]
fn modules_import_only_what_the_architecture_allows() {
    let mut broken = BTreeSet::new();
    for source in sources("src") {
        let inside = source.path.trim_start_matches("src/");
        let module = inside.split(['/', '.']).next().unwrap_or_default();
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            continue;
        };
        // Imports may be spread over lines, so a statement is read as one line.
        let mut statement = String::new();
        for (number, line) in code(&source.text) {
            statement.push_str(line);
            if statement.contains("crate::{") && !statement.contains(';') {
                continue;
            }
            for named in modules_named(&statement) {
                if named != module && !allowed.contains(&named.as_str()) {
                    broken.insert(format!(
                        "{}:{number}: {module} may not name {named}",
                        source.path
                    ));
                }
            }
            statement.clear();
        }
    }
    assert!(
        broken.is_empty(),
        "{}",
        broken.into_iter().collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn crates_stay_in_their_folder() {
    let mut broken = Vec::new();
    for source in sources("src") {
        for (name, folders) in CRATE_STAYS_IN {
            if folders.iter().any(|folder| source.path.starts_with(folder)) {
                continue;
            }
            for (number, line) in code(&source.text) {
                if line.contains(&format!("{name}::")) {
                    broken.push(format!(
                        "{}:{number}: {name} belongs in {}",
                        source.path,
                        folders.join(" or ")
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_the_policy_asks_a_backend() {
    // Everyone else goes through its gates, which take what the policy has cleared. The daemon is
    // behind them: it has models of this machine only, and the policy has spoken in the session.
    let mut asking = BTreeSet::new();
    for source in sources("src") {
        let asks = |line: &str| line.contains(".generate(") && !line.contains("gate.generate(");
        let behind = ["src/backend/", "src/daemon/"];
        let before = !behind.iter().any(|folder| source.path.starts_with(folder));
        if before && code(&source.text).any(|(_, line)| asks(line)) {
            asking.insert(source.path);
        }
    }
    assert_eq!(asking, BTreeSet::from(["src/router/policy.rs".to_owned()]));
}

#[test]
fn every_file_says_its_job_and_keeps_to_one_room() {
    let mut broken = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        if !source.text.starts_with("//!") {
            broken.push(format!("{}: does not begin with //!", source.path));
        }
        let lines = source.text.lines().count();
        if lines > LONGEST_FILE {
            broken.push(format!(
                "{}: {lines} lines, more than {LONGEST_FILE}",
                source.path
            ));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn nothing_is_ignored_or_left_undone() {
    // Spelled in two halves, so that this file does not find itself.
    let marks = [
        ["#[ign", "ore"],
        ["tod", "o!("],
        ["unimple", "mented!("],
        ["dbg", "!("],
        ["FIX", "ME"],
    ];
    let mut broken = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        for mark in &marks {
            let mark = mark.concat();
            for (number, line) in source.text.lines().enumerate() {
                if line.contains(&mark) {
                    broken.push(format!("{}:{}: {mark}", source.path, number + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
