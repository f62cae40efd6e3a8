//! What of a document is worth keeping of the part that a cut takes away: its imports, and the
//! signatures that the cut falls into. Pure.
//!
//! Read from the text alone, by keywords and indentation, so that it works in any language and in
//! files that do not parse. It depends on the cut and what stands before it and not on the cursor:
//! as long as the cut stays, so does the outline, and with it all that was computed for the prompt.
//! The scopes that enclose the cursor begin behind the cut, or they enclose the cut as well.

use super::Vocabulary;
use crate::inference::GenerateError;

/// Imports are looked for in so many lines from the beginning.
const IMPORT_LINES: usize = 400;
/// An import goes on for so many lines at most.
const LONGEST_IMPORT: usize = 24;
/// A signature has so many lines at most.
const LONGEST_SIGNATURE: usize = 8;
/// So many scopes within each other are told.
const MOST_SCOPES: usize = 6;
/// Lines longer than this say too much.
const LONGEST_LINE: usize = 240;

/// What a line begins with that brings names of other files. In most languages one of these.
const IMPORTS: &[&str] = &[
    "import ",
    "import(",
    "import{",
    "from ",
    "use ",
    "pub use ",
    "pub(crate) use ",
    "extern crate ",
    "#include",
    "#import",
    "@import",
    "using ",
    "require ",
    "require(",
    "require_relative ",
    "package ",
    "namespace ",
    "module ",
    "open ",
    "alias ",
    "library(",
    "load(",
    "source ",
    "export * from",
    "export {",
];

/// What an import by a call has in it.
const REQUIRES: &[&str] = &["= require(", "= await import(", "= importlib"];

/// Prose and markup have no imports and no signatures.
const PROSE: &[&str] = &[
    "plaintext",
    "markdown",
    "mdx",
    "restructuredtext",
    "latex",
    "tex",
    "html",
    "xml",
    "svg",
    "git-commit",
    "git-rebase",
    "log",
    "diff",
    "csv",
    "json",
    "jsonc",
];

/// The lines above a cut that tell what the text below it belongs to, each with its line break.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outline<'a> {
    /// In the order of the document.
    pub imports: Vec<&'a str>,
    /// The scopes that the cut falls into, the outermost first, as lines of the document.
    pub signatures: Vec<&'a str>,
}

/// The outline of `text` before `cut`, the byte at which a line starts, in `language`.
#[must_use]
pub fn above<'a>(text: &'a str, cut: usize, language: &str) -> Outline<'a> {
    if cut == 0 || PROSE.contains(&language) {
        return Outline::default();
    }
    let above = &text[..cut];
    Outline {
        imports: imports(above),
        signatures: signatures(above, &text[cut..]),
    }
}

impl Outline<'_> {
    /// At most `room` tokens: the innermost signatures in half of it, then imports from the first on.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn tokens(
        &self,
        room: usize,
        vocabulary: &dyn Vocabulary,
    ) -> Result<Vec<u32>, GenerateError> {
        let mut signatures: Vec<Vec<u32>> = Vec::new();
        let mut taken = 0;
        for line in self.signatures.iter().rev() {
            let tokens = vocabulary.encode(line)?;
            if taken + tokens.len() > room / 2 {
                break;
            }
            taken += tokens.len();
            signatures.push(tokens);
        }
        let mut outline = Vec::new();
        let gap = vocabulary.encode("\n")?;
        for line in &self.imports {
            let tokens = vocabulary.encode(line)?;
            if taken + gap.len() + tokens.len() > room {
                break;
            }
            taken += tokens.len();
            outline.extend(tokens);
        }
        if !outline.is_empty() {
            outline.extend(gap);
        }
        outline.extend(signatures.into_iter().rev().flatten());
        Ok(outline)
    }
}

fn imports(above: &str) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    let mut lines = above.split_inclusive('\n').take(IMPORT_LINES).peekable();
    while let Some(line) = lines.next() {
        if !is_import(line) || line.len() > LONGEST_LINE {
            continue;
        }
        found.push(line);
        // What opens a bracket goes on until it is closed.
        let mut open = depth(line);
        let mut more = 1;
        while open > 0 && more < LONGEST_IMPORT {
            let Some(next) = lines.next_if(|next| next.len() <= LONGEST_LINE) else {
                break;
            };
            open += depth(next);
            more += 1;
            found.push(next);
        }
    }
    found
}

fn is_import(line: &str) -> bool {
    IMPORTS.iter().any(|word| line.starts_with(word))
        || (!line.starts_with([' ', '\t']) && REQUIRES.iter().any(|word| line.contains(word)))
}

/// How many brackets more a line opens than it closes.
fn depth(line: &str) -> i32 {
    line.chars().fold(0, |depth, character| match character {
        '(' | '[' | '{' => depth + 1,
        ')' | ']' | '}' => depth - 1,
        _ => depth,
    })
}

/// The lines before the cut that are indented less than all between them and the cut.
fn signatures<'a>(above: &'a str, below: &str) -> Vec<&'a str> {
    let Some(first) = below.lines().find(|line| !line.trim().is_empty()) else {
        return Vec::new();
    };
    let mut inner = indentation(first);
    // A line that closes a scope is indented as the one that opened it.
    if closes(first) {
        inner += 1;
    }
    let lines: Vec<&str> = above.split_inclusive('\n').collect();
    let mut scopes: Vec<&[&str]> = Vec::new();
    let mut end = lines.len();
    while inner > 0 && end > 0 && scopes.len() < MOST_SCOPES {
        end -= 1;
        let line = lines[end];
        let width = indentation(line);
        if line.trim().is_empty() || width >= inner || line.len() > LONGEST_LINE {
            continue;
        }
        inner = width;
        // The last line of a signature, such as `) -> u32 {`: its first stands above it.
        let mut start = end;
        if closes(line) {
            let least = end.saturating_sub(LONGEST_SIGNATURE - 1);
            let opener = (least..end).rev().find(|at| {
                let opener = lines[*at];
                !opener.trim().is_empty() && indentation(opener) == width && !closes(opener)
            });
            match opener {
                Some(at) => start = at,
                // The end of some other scope.
                None => continue,
            }
        }
        scopes.push(&lines[start..=end]);
        end = start;
    }
    scopes.into_iter().rev().flatten().copied().collect()
}

fn closes(line: &str) -> bool {
    line.trim_start().starts_with([')', ']', '}'])
}

/// The width of a line's indentation, a tab to the next multiple of four: only compared with each
/// other, and files that mix both mostly mean four.
fn indentation(line: &str) -> usize {
    line.chars()
        .take_while(|character| matches!(character, ' ' | '\t'))
        .fold(0, |width, character| match character {
            '\t' => width / 4 * 4 + 4,
            _ => width + 1,
        })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::prompt::bytes::{Bytes, text_of};

    /// The outline of a text that is cut at the line with the mark.
    fn check(language: &str, text: &str, expected: &Expect) {
        let mark = text.find('▮').unwrap();
        let cut = text[..mark].rfind('\n').unwrap() + 1;
        let text = text.replace('▮', "");
        let outline = above(&text, cut, language);
        let parts = [outline.imports.concat(), outline.signatures.concat()];
        expected.assert_eq(&parts.join("----\n"));
    }

    #[test]
    fn a_rust_file_keeps_its_uses_and_the_signature_of_what_is_cut() {
        check(
            "rust",
            "//! About.\n\nuse std::fmt;\nuse super::a::{\n    B,\n    C,\n};\n\nstruct D;\n\n\
             impl D {\n    fn other() {\n        x();\n    }\n\n    fn name(\n        &self,\n    ) -> u32 {\n        \
             let a = 1;\n        ▮let b = 2;\n",
            &expect![[r"
                use std::fmt;
                use super::a::{
                    B,
                    C,
                };
                ----
                impl D {
                    fn name(
                        &self,
                    ) -> u32 {
            "]],
        );
    }

    #[test]
    fn other_languages_are_read_by_the_same_rules() {
        check(
            "python",
            "\"\"\"About.\"\"\"\nimport os\nfrom a import (\n    b,\n)\n\nclass C:\n    def d(self):\n        \
             if True:\n            x()\n            ▮y()\n",
            &expect![[r"
                import os
                from a import (
                    b,
                )
                ----
                class C:
                    def d(self):
                        if True:
            "]],
        );
        check(
            "go",
            "package a\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc b() {\n\tfmt.Println()\n}\n\n\
             func c() {\n\td()\n\t▮e()\n",
            &expect![[r#"
                package a
                import (
                	"fmt"
                	"os"
                )
                ----
                func c() {
            "#]],
        );
        check(
            "typescript",
            "import { a } from \"b\";\nconst c = require(\"d\");\n\nfunction e() {\n  f();\n  ▮}\n",
            &expect![[r#"
                import { a } from "b";
                const c = require("d");
                ----
                function e() {
                  f();
            "#]],
        );
    }

    #[test]
    fn between_two_functions_there_is_nothing_to_tell() {
        check(
            "rust",
            "fn a() {\n    b();\n}\n\n▮fn c() {\n",
            &expect!["----\n"],
        );
        check(
            "markdown",
            "use it\nfrom time\n\n  ▮x\n",
            &expect!["----\n"],
        );
    }

    #[test]
    fn where_room_is_short_the_innermost_signature_stays() {
        let text = "use a;\nuse b;\nmod c {\n  fn d() {\n    x();\n";
        let outline = above(text, text.rfind("    x").unwrap(), "rust");
        let shown = |room| text_of(&outline.tokens(room, &Bytes).unwrap());
        assert_eq!(shown(100), "use a;\nuse b;\n\nmod c {\n  fn d() {\n");
        assert_eq!(shown(25), "use a;\n\n  fn d() {\n");
        assert_eq!(shown(10), "use a;\n\n");
        assert_eq!(shown(0), "");
    }

    proptest! {
        #[test]
        fn an_outline_is_lines_of_the_document_and_fits(
            text in "((use |import \\(|    |\t|fn a\\(|\\) \\{|\\}|é){0,4}\n){0,20}",
            cut in 0usize..20,
            room in 0usize..60,
        ) {
            let starts: Vec<usize> = std::iter::once(0)
                .chain(text.match_indices('\n').map(|(at, _)| at + 1))
                .collect();
            let cut = starts[cut.min(starts.len() - 1)];
            let outline = above(&text, cut, "rust");
            let lines: Vec<&str> = text[..cut].split_inclusive('\n').collect();
            for line in outline.imports.iter().chain(&outline.signatures) {
                prop_assert!(lines.contains(line));
            }
            prop_assert!(outline.tokens(room, &Bytes).unwrap().len() <= room);
        }
    }
}
