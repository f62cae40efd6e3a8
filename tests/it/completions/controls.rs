//! The controls of the bench of completions.

use super::measure::controls::Control;
use super::measure::holes::{Hole, Kind};
use super::measure::score::Case;
use super::measure::syntax::Language;

#[test]
fn an_earlier_line_is_repeated_from_where_the_cursor_is() {
    for (prefix, suffix, expected) in [
        ("let a = f(1);\nlet b = f(2);\nlet c = ", "\n", "f(2);"),
        ("let a = f(1);\nlet b = g(2);\nlet a = f(", ")\n", "1"),
        ("x.go();\nx.", "\n", "go();"),
        ("open(a);\nread(a);\nopen(b);\n", "\n", "read(a);"),
        ("    q", "", ""),
        ("", "", ""),
    ] {
        let text = format!("{prefix}{suffix}");
        let hole = Hole {
            kind: Kind::RestOfLine,
            start: prefix.len(),
            end: prefix.len(),
        };
        let case = Case::new(Language::Rust, &text, &hole);
        assert_eq!(Control::Repeat.answer(&case), expected, "{prefix:?}");
    }
}

#[test]
fn the_oracles_know_what_stood_there() {
    let text = "fn f() {\n    g(1);\n    h(2);\n}\n";
    let start = text.find("g(1);").unwrap();
    let hole = Hole {
        kind: Kind::WholeLine,
        start,
        end: start + "g(1);".len(),
    };
    let case = Case::new(Language::Rust, text, &hole);
    let answers = Control::ALL.map(|control| control.answer(&case));
    assert_eq!(answers, ["", "", "g(1);", "g(1);"]);
}
