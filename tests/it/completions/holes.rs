//! Where the bench of completions makes holes.

use super::measure::holes::{Hole, Kind, holes, long_blocks};
use super::measure::random;
use super::measure::syntax::Language;

const RUST: &str = "\
//! A comment about total.

/// Adds.
fn total(items: &[Item], start: u64) -> u64 {
    let mut result = start;
    for item in items {
        // Not code.
        result += item.count * price(item.kind, 2);
    }
    result
}
";

fn found(language: Language, text: &str, kind: Kind) -> Vec<&str> {
    let mut random = random(1, "test");
    let mut found: Vec<Hole> = holes(language, text, 100, &mut random)
        .into_iter()
        .filter(|hole| hole.kind == kind)
        .collect();
    found.sort_by_key(|hole| (hole.start, hole.end));
    found
        .iter()
        .map(|hole| &text[hole.start..hole.end])
        .collect()
}

#[test]
fn whole_lines_are_code_without_their_indentation() {
    assert_eq!(
        found(Language::Rust, RUST, Kind::WholeLine),
        [
            "fn total(items: &[Item], start: u64) -> u64 {",
            "let mut result = start;",
            "for item in items {",
            "result += item.count * price(item.kind, 2);",
        ]
    );
}

#[test]
fn blocks_are_what_stands_between_their_brackets() {
    assert_eq!(
        found(Language::Rust, RUST, Kind::Block),
        [
            "let mut result = start;\n    for item in items {\n        // Not code.\n        \
          result += item.count * price(item.kind, 2);\n    }\n    result"
        ]
    );
    let python = "def f(a):\n    if a:\n        return 1\n    return 2\n";
    assert_eq!(
        found(Language::Python, python, Kind::Block),
        ["if a:\n        return 1\n    return 2", "return 1"]
    );
    let go = "package a\n\nfunc f() int {\n\treturn 1\n}\n\nfunc g() { f() }\n";
    assert_eq!(found(Language::Go, go, Kind::Block), ["return 1"]);
    let typescript = "function f(): number {\n  return 1;\n}\n";
    assert_eq!(
        found(Language::TypeScript, typescript, Kind::Block),
        ["return 1;"]
    );
}

#[test]
fn expressions_have_the_rest_of_their_line_behind_them() {
    for text in found(Language::Rust, RUST, Kind::Expression) {
        let whole = ["item.count", "price(item.kind, 2)", "item.kind"];
        assert!(whole.iter().any(|one| one.ends_with(text)), "{text}");
    }
}

#[test]
fn ends_of_lines_end_with_their_line() {
    for kind in [Kind::EndOfLine, Kind::RestOfLine] {
        let found = found(Language::Rust, RUST, kind);
        assert!(!found.is_empty());
        for text in found {
            assert!(
                RUST.contains(&format!("{text}\n")) && text.len() > 1,
                "{text:?}"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_holes_and_any_character_is_whole() {
    let text = "fn f() {\n    let größe = \"日本\".len() + übergröße(größe, 1);\n    größe\n}\n";
    let twice: Vec<Vec<Hole>> = (0..2)
        .map(|_| holes(Language::Rust, text, 9, &mut random(7, "test")))
        .collect();
    assert_eq!(twice[0], twice[1]);
    for seed in 0..200 {
        for hole in holes(Language::Rust, text, 9, &mut random(seed, "test")) {
            assert!(text.is_char_boundary(hole.start) && text.is_char_boundary(hole.end));
            assert!(hole.start < hole.end);
        }
    }
}

#[test]
fn a_passage_to_type_is_long() {
    assert_eq!(long_blocks(Language::Rust, RUST, 100).len(), 1);
    assert_eq!(long_blocks(Language::Rust, RUST, 600).len(), 0);
}
