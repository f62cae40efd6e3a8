//! The grammars of the bench of completions.

use super::measure::syntax::{Language, errors};

#[test]
fn what_does_not_parse_is_counted() {
    for (language, text, expected) in [
        (Language::Rust, "fn f() { g(1); }\n", 0),
        (Language::Rust, "fn f() { g(1; }\n", 1),
        (Language::Python, "def f():\n    return 1\n", 0),
        (Language::Python, "def f(:\n    return 1\n", 1),
        (Language::TypeScript, "const a: number = f(1);\n", 0),
        (Language::TypeScript, "const a: number = f(1;\n", 1),
        (Language::Go, "package a\n\nfunc f() int { return 1 }\n", 0),
        (Language::Go, "package a\n\nfunc f( int { return 1 }\n", 1),
    ] {
        assert_eq!(
            errors(language, text).min(1),
            expected,
            "{language:?} {text}"
        );
    }
}
