//! Post-processing: the cases in `tests/data/postprocess`, and what holds for any text at all.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tandem::inference::{CompleteTask, CompletionShape, EditTask, EmptyReason};
use tandem::postprocess::{CompletionFilter, Progress, TextFilter};

/// The cursor in a case's document.
const CURSOR: char = '▮';

#[derive(Debug, Default)]
struct Case {
    name: String,
    language: String,
    shape: CompletionShape,
    stop: Vec<String>,
    cut_off: bool,
    document: String,
    model: String,
    expected: Option<String>,
    empty: Option<String>,
}

/// The cases of a file, as its folder's README describes them.
fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut part = String::new();
    let mut lines: Vec<&str> = Vec::new();
    let close = |part: &str, lines: &mut Vec<&str>, cases: &mut Vec<Case>| {
        let Some(case) = cases.last_mut() else {
            return;
        };
        let text = lines.join("\n");
        match part {
            "document" => case.document = text,
            "model" => case.model = text,
            "expected" => case.expected = Some(text),
            "empty" => case.empty = Some(text.trim().to_owned()),
            _ => {
                for line in lines.iter().filter(|line| !line.trim().is_empty()) {
                    let (key, value) = line.split_once(": ").unwrap();
                    match key {
                        "language" => value.clone_into(&mut case.language),
                        "cut-off" => case.cut_off = value == "yes",
                        "stop" => case.stop.push(value.replace("\\n", "\n")),
                        "shape" => {
                            case.shape = match value {
                                "auto" => CompletionShape::Auto,
                                "one-line" => CompletionShape::OneLine,
                                "lines" => CompletionShape::Lines,
                                other => panic!("no such shape: {other}"),
                            }
                        }
                        other => panic!("no such key: {other}"),
                    }
                }
            }
        }
        lines.clear();
    };
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("### ") {
            // The blank line between two cases belongs to neither.
            if lines.last() == Some(&"") {
                lines.pop();
            }
            close(&part, &mut lines, &mut cases);
            part.clear();
            cases.push(Case {
                name: name.to_owned(),
                language: "rust".to_owned(),
                ..Case::default()
            });
        } else if let Some(next) = line.strip_prefix("--- ") {
            close(&part, &mut lines, &mut cases);
            next.clone_into(&mut part);
        } else {
            lines.push(line);
        }
    }
    close(&part, &mut lines, &mut cases);
    cases
}

fn task(language: &str, shape: CompletionShape, prefix: &str, suffix: &str) -> CompleteTask {
    CompleteTask {
        path: None,
        language: language.to_owned(),
        prefix: prefix.into(),
        suffix: suffix.into(),
        snippets: Vec::new(),
        shape,
    }
}

/// Runs the model's text through in pieces of so many characters. Stops feeding when told.
fn run(
    task: &CompleteTask,
    stop: &[String],
    model: &str,
    piece: usize,
) -> Result<String, EmptyReason> {
    run_to_the_end(task, stop, model, piece, false)
}

/// As [`run`]; `cut_off` says that the answer ended since it became too long.
fn run_to_the_end(
    task: &CompleteTask,
    stop: &[String],
    model: &str,
    piece: usize,
    cut_off: bool,
) -> Result<String, EmptyReason> {
    let mut filter = CompletionFilter::new(task, stop);
    let characters: Vec<char> = model.chars().collect();
    for piece in characters.chunks(piece.max(1)) {
        if filter.push(&piece.iter().collect::<String>()) == Progress::Enough {
            return filter.finish();
        }
    }
    if cut_off {
        filter.cut_off();
    }
    filter.finish()
}

fn check(case: &Case) {
    let (prefix, suffix) = case
        .document
        .split_once(CURSOR)
        .unwrap_or_else(|| panic!("{}: no cursor", case.name));
    let expected = match (&case.expected, &case.empty) {
        (Some(text), None) => Ok(text.clone()),
        (None, Some(reason)) => Err(reason.clone()),
        _ => panic!("{}: neither or both of expected and empty", case.name),
    };
    for piece in [1, 2, 5, usize::MAX] {
        for windows in [false, true] {
            let ends = |text: &str| {
                if windows {
                    text.replace('\n', "\r\n")
                } else {
                    text.to_owned()
                }
            };
            if windows && !case.document.contains('\n') {
                continue;
            }
            let task = task(&case.language, case.shape, &ends(prefix), &ends(suffix));
            let model = ends(&case.model);
            let found = run_to_the_end(&task, &case.stop, &model, piece, case.cut_off);
            let found = found.map_err(|reason| {
                let reason = serde_json::to_value(reason).unwrap();
                reason.as_str().unwrap().to_owned()
            });
            assert_eq!(
                found,
                expected.clone().map(|text| ends(&text)),
                "{} (pieces of {piece}, windows: {windows})",
                case.name
            );
        }
    }
}

#[test]
fn every_case_comes_out_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/postprocess");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let cases = cases(&fs::read_to_string(&path).unwrap());
            count += cases.len();
            cases.iter().for_each(check);
        }
    }
    assert!(count >= 35, "only {count} cases were found");
}

#[test]
fn a_backend_is_stopped_as_soon_as_the_rest_would_be_cut() {
    let check = |task: &CompleteTask, stop: &[&str], model: &str, needed: &str| {
        let stop: Vec<String> = stop.iter().map(|&stop| stop.to_owned()).collect();
        let mut filter = CompletionFilter::new(task, &stop);
        let mut read = String::new();
        for character in model.chars() {
            read.push(character);
            if filter.push(&character.to_string()) == Progress::Enough {
                break;
            }
        }
        assert_eq!(read, needed);
    };
    let one = task("rust", CompletionShape::OneLine, "let a = ", "");
    check(&one, &[], "1;\nlet b = 2;\n", "1;\n");
    let auto = task("rust", CompletionShape::Auto, "fn f() {\n    ", "\n}\n");
    check(&auto, &[], "g();\n}\n\nfn h() {}", "g();\n}");
    check(&auto, &["<|"], "g();<|end|>", "g();<|");
    let next = task(
        "python",
        CompletionShape::Auto,
        "def f():\n    ",
        "\n    return 1\n",
    );
    check(
        &next,
        &[],
        "x = 1\n    return 1\ny",
        "x = 1\n    return 1\n",
    );
}

fn edit(selection: &str, model: &str, piece: usize) -> String {
    let task = EditTask {
        path: None,
        language: "rust".into(),
        before: "".into(),
        selection: selection.into(),
        after: "".into(),
        instruction: String::new(),
    };
    let mut filter = TextFilter::edit(&task, &[]);
    let mut text = String::new();
    let characters: Vec<char> = model.chars().collect();
    for piece in characters.chunks(piece.max(1)) {
        let progress = filter.push(&piece.iter().collect::<String>());
        text.push_str(&filter.take());
        if progress == Progress::Enough {
            break;
        }
    }
    text + &filter.finish()
}

#[test]
fn an_edit_loses_the_markdown_around_it_and_keeps_its_last_line_break() {
    for (selection, model, expected) in [
        ("a", "b", "b"),
        ("a\n", "b", "b\n"),
        ("a", "b\n", "b"),
        ("a\n", "```rust\nb\nc\n```\n", "b\nc\n"),
        ("a", "```rust\nb\n```\nThis is b.", "b"),
        ("a", "\n\n```\nb\n```", "b"),
        ("a", "~~~\nb\n~~~", "b"),
        ("a", "````md\n```rust\nb\n```\n````", "```rust\nb\n```"),
        ("a", "```md\n```rust\nb\n```\nc\n```", "```rust\nb\n```\nc"),
        ("```rust\na\n```", "```rust\nb\n```", "```rust\nb\n```"),
        ("a", "let x = `b`;", "let x = `b`;"),
        ("a", "b\n\n\nc\n\n", "b\n\n\nc"),
        ("a", "  b", "  b"),
        ("a\r\nb\r\n", "c\nd\n", "c\r\nd\r\n"),
        ("a", "```rust\nunfinished", "unfinished"),
        ("a", "", ""),
        ("a", "```", ""),
    ] {
        for piece in [1, 2, 3, usize::MAX] {
            assert_eq!(
                edit(selection, model, piece),
                expected,
                "{model:?} by {piece}"
            );
        }
    }
}

/// Text like code: brackets, quotes, indentation, repetition, both line ends and any character.
fn code() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => proptest::sample::select(vec![
            "\n", "\n    ", "\n\t", "\r\n", "(", ")", "[", "]", "{", "}", "\"", "'", "`", "\\",
            ";", ",", " ", "    ", "let a = 1;", "return value;", "foo(bar)", "else", "end",
            "// note", "/*", "*/", "#", "'a", "```", "```rust\n", "é", "日本", "🦀", "<end>",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn languages() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "rust",
        "python",
        "javascript",
        "markdown",
        "lua",
        "",
        "x",
    ])
}

fn shapes() -> impl Strategy<Value = CompletionShape> {
    proptest::sample::select(vec![
        CompletionShape::Auto,
        CompletionShape::OneLine,
        CompletionShape::Lines,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the model says: no panic, what is offered is a piece of it, is more than white
    /// space, has the document's line ends, and ends before any stop sequence.
    #[test]
    fn what_is_offered_is_a_piece_of_what_was_said(
        language in languages(), shape in shapes(),
        prefix in code(), suffix in code(), model in code(), piece in 1..6_usize,
    ) {
        let task = task(language, shape, &prefix, &suffix);
        let stop = vec!["<end>".to_owned()];
        match run(&task, &stop, &model, piece) {
            Ok(text) => {
                let plain = text.replace('\r', "");
                prop_assert!(model.replace('\r', "").contains(&plain));
                prop_assert!(!text.trim().is_empty());
                prop_assert!(!text.contains("<end>"));
                if shape == CompletionShape::OneLine {
                    prop_assert!(!text.contains('\n'), "{:?}", text);
                }
                if text.contains("\r\n") {
                    prop_assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
                }
            }
            Err(EmptyReason::ModelSilent) => prop_assert!(model.replace('\r', "").is_empty()),
            Err(EmptyReason::OnlyWhitespace | EmptyReason::RepeatsSuffix
                | EmptyReason::RepeatsPrefix) => {}
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }

    /// How the text is cut into pieces makes no difference.
    #[test]
    fn pieces_make_no_difference(
        language in languages(), shape in shapes(),
        prefix in code(), suffix in code(), model in code(), piece in 1..6_usize,
    ) {
        let task = task(language, shape, &prefix, &suffix);
        let stop = vec!["<end>".to_owned(), "let a".to_owned()];
        prop_assert_eq!(
            run(&task, &stop, &model, piece),
            run(&task, &stop, &model, usize::MAX)
        );
    }

    /// A conversation passes through unchanged up to the first stop sequence.
    #[test]
    fn a_conversation_ends_before_the_first_stop_sequence(
        model in code(), piece in 1..6_usize, first in "[<;a-e\n]{1,4}", second in "[(){}]{1,2}",
    ) {
        let mut filter = TextFilter::chat(&[first.clone(), second.clone(), String::new()]);
        let mut found = String::new();
        let characters: Vec<char> = model.chars().collect();
        for piece in characters.chunks(piece) {
            let progress = filter.push(&piece.iter().collect::<String>());
            found.push_str(&filter.take());
            if progress == Progress::Enough {
                break;
            }
        }
        found.push_str(&filter.finish());
        let end = [&first, &second].into_iter().filter_map(|stop| model.find(stop)).min();
        prop_assert_eq!(found, &model[..end.unwrap_or(model.len())]);
    }

    /// Edits: no panic, and pieces make no difference.
    #[test]
    fn an_edit_is_the_same_however_it_comes(
        selection in code(), model in code(), piece in 1..6_usize,
    ) {
        prop_assert_eq!(
            edit(&selection, &model, piece),
            edit(&selection, &model, usize::MAX)
        );
    }
}
