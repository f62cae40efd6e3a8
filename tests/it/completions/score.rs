//! What the bench of completions says of an answer.

use super::measure::holes::{Hole, Kind};
use super::measure::score::{Case, Score, common};
use super::measure::syntax::Language;

const TEXT: &str = "fn f(a: u32) -> u32 {\n    let b = a.pow(2);\n    b.wrapping_add(a)\n}\n";

fn scored(missing: &str, answer: &str) -> Score {
    let start = TEXT.find(missing).unwrap();
    let hole = Hole {
        kind: Kind::RestOfLine,
        start,
        end: start + missing.len(),
    };
    Case::new(Language::Rust, TEXT, &hole).score(answer)
}

#[test]
fn the_truth_is_right_in_everything() {
    let score = scored("a.pow(2);", "a.pow(2);");
    assert!(score.exact && score.first_line && score.parses);
    assert!(!score.empty && !score.repeats_suffix);
    assert_eq!((score.saved, score.missing, score.errors_added), (9, 9, 0));
    assert!((score.similarity - 1.0).abs() < f64::EPSILON);
}

#[test]
fn nothing_is_nothing() {
    let score = scored("a.pow(2);", "");
    assert!(score.empty && !score.exact && !score.first_line && !score.repeats_suffix);
    assert_eq!((score.saved, score.missing, score.errors_added), (0, 9, 0));
    assert!(score.similarity < f64::EPSILON);
}

#[test]
fn what_is_saved_are_whole_words() {
    for (answer, truth, expected) in [
        ("a.pow(3);", "a.pow(2);", 6),
        ("a.power(2);", "a.pow(2);", 2),
        ("b", "a", 0),
        ("größer", "größe", 0),
        ("größe + 1", "größe", "größe".len()),
        ("", "a", 0),
    ] {
        assert_eq!(common(answer, truth), expected, "{answer}");
    }
}

#[test]
fn a_first_line_may_be_right_alone() {
    let score = scored(
        "let b = a.pow(2);\n    b.wrapping_add(a)",
        "let b = a.pow(2);\n    b + a",
    );
    assert!(score.first_line && !score.exact);
}

#[test]
fn errors_count_where_the_answer_brings_them() {
    let line = "let b = a.pow(2);";
    assert_eq!(scored(line, "let b = a.pow(2;").errors_added.min(1), 1);
    assert_eq!(scored(line, "let b = a;").errors_added, 0);
    // With the hole it does not parse either.
    let score = scored("a.pow(2);", "a.pow(2;");
    assert!(score.errors_added == 0 && !score.parses);
}

#[test]
fn what_follows_is_recognised() {
    let repeats = |missing, answer| scored(missing, answer).repeats_suffix;
    assert!(repeats("a.pow(2);", "a.pow(2);\n    b.wrapping_add(a)"));
    assert!(repeats("a.pow(2", "a.pow(3);"));
    assert!(!repeats("a.pow(2", "a.pow(3"));
    assert!(!repeats("a.pow(2);", "a.pow(2);\n}"));
}
