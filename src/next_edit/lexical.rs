//! What can be told of a line without a grammar: comments, strings, declarations.

use super::tokens::{Class, Token};

/// Words that come before a name where it is declared, in the languages that have such words.
const DECLARES: &[&str] = &[
    "fn",
    "let",
    "mut",
    "const",
    "static",
    "struct",
    "enum",
    "trait",
    "type",
    "mod",
    "def",
    "class",
    "func",
    "var",
    "function",
    "interface",
    "namespace",
    "val",
    "fun",
    "import",
    "as",
    "for",
    "package",
    "lambda",
    "macro_rules",
    "record",
    "using",
    "local",
    "sub",
    "module",
    "new",
];

/// Words of the languages themselves, which nobody renames.
const KEYWORDS: &[&str] = &[
    "abstract",
    "and",
    "any",
    "as",
    "assert",
    "async",
    "await",
    "bool",
    "boolean",
    "break",
    "case",
    "catch",
    "char",
    "class",
    "const",
    "continue",
    "crate",
    "declare",
    "def",
    "default",
    "defer",
    "del",
    "delete",
    "do",
    "double",
    "dyn",
    "elif",
    "else",
    "enum",
    "except",
    "export",
    "extends",
    "extern",
    "false",
    "False",
    "final",
    "finally",
    "float",
    "fn",
    "for",
    "from",
    "func",
    "function",
    "global",
    "go",
    "goto",
    "if",
    "impl",
    "implements",
    "import",
    "in",
    "instanceof",
    "int",
    "interface",
    "is",
    "lambda",
    "let",
    "long",
    "loop",
    "match",
    "mod",
    "module",
    "move",
    "mut",
    "namespace",
    "never",
    "new",
    "nil",
    "None",
    "nonlocal",
    "not",
    "null",
    "number",
    "object",
    "of",
    "or",
    "package",
    "pass",
    "private",
    "protected",
    "pub",
    "public",
    "raise",
    "range",
    "readonly",
    "ref",
    "return",
    "select",
    "self",
    "Self",
    "short",
    "static",
    "str",
    "string",
    "String",
    "struct",
    "super",
    "switch",
    "this",
    "throw",
    "throws",
    "trait",
    "true",
    "True",
    "try",
    "type",
    "typeof",
    "undefined",
    "unknown",
    "unsafe",
    "use",
    "using",
    "var",
    "virtual",
    "void",
    "where",
    "while",
    "with",
    "yield",
];

/// Whether a word belongs to a language and not to the program.
#[must_use]
pub fn is_keyword(word: &str) -> bool {
    KEYWORDS.contains(&word)
}

/// Whether the token at `at` is declared there, as far as its line tells.
fn declares(line: &[Token<'_>], at: usize) -> bool {
    let ink = |token: &&Token<'_>| token.is_ink();
    let before = line[..at].iter().rev().find(ink);
    let mut after = line.get(at + 1..).unwrap_or_default().iter().filter(ink);
    let (next, second) = (after.next(), after.next());
    let mark =
        |token: Option<&Token<'_>>, text: &str| token.is_some_and(|token| token.text == text);
    if before.is_some_and(|token| DECLARES.contains(&token.text)) {
        return true;
    }
    // `name = …` at the line's start, `name := …`, `name: Type`; not `name == …`, not `a.name = …`.
    let first = before.is_none();
    let assigned = mark(next, "=") && !mark(second, "=") && !mark(second, ">");
    let walrus = mark(next, ":") && mark(second, "=");
    let typed = mark(next, ":")
        && !mark(second, ":")
        && before.is_none_or(|token| matches!(token.text, "(" | "," | "pub" | "readonly"));
    first && assigned || walrus || typed
}

/// Whether the byte `at` of a line is in a comment or a string, as far as its line tells.
#[must_use]
pub fn is_prose(line: &[Token<'_>], at: usize, language: &str) -> bool {
    let hash = matches!(
        language,
        "python" | "ruby" | "shellscript" | "yaml" | "toml" | "perl" | "r" | "elixir" | "makefile"
    );
    let mut quote: Option<&str> = None;
    let mut escaped = false;
    let mut previous: Option<&Token<'_>> = None;
    for token in line {
        if token.at >= at {
            break;
        }
        let text = token.text;
        if let Some(open) = quote {
            if text == open && !escaped {
                quote = None;
            }
            escaped = text == "\\" && !escaped;
        } else {
            let after = |mark: &str| {
                previous.is_some_and(|before| before.text == mark && before.end() == token.at)
            };
            let begins = previous.is_none_or(|before| !before.is_ink() && before.at == 0);
            if text == "/" && after("/")
                || text == "*" && (after("/") || begins)
                || text == "#" && hash
                || text == "-" && after("-") && matches!(language, "lua" | "sql" | "haskell")
            {
                return true;
            }
            // In Rust an apostrophe is a lifetime as often as a character.
            if text == "\"" || text == "`" || text == "'" && language != "rust" {
                quote = Some(text);
            }
        }
        previous = Some(token);
    }
    quote.is_some()
}

/// Whether a name is its own: long, or of several words.
#[must_use]
pub fn is_distinctive(name: &str) -> bool {
    name.len() >= 8
        || name.trim_matches('_').contains('_')
        || name
            .chars()
            .zip(name.chars().skip(1))
            .any(|(a, b)| a.is_lowercase() && b.is_uppercase())
}

/// Whether the token at `at` is a member of what stands before it.
#[must_use]
pub fn is_member(line: &[Token<'_>], at: usize) -> bool {
    at.checked_sub(1)
        .and_then(|before| line.get(before))
        .is_some_and(|before| matches!(before.text, "." | ">"))
}

/// Whether a line declares a word, as far as the line tells.
#[must_use]
pub fn declares_word(line: &[Token<'_>], word: &str) -> bool {
    line.iter()
        .enumerate()
        .any(|(at, token)| token.class == Class::Word && token.text == word && declares(line, at))
}
