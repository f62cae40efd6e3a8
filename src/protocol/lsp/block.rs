//! The definition around a line, by indentation alone: good enough to choose what an action is
//! about, in any language, without a parser.

use std::ops::Range;

use ropey::Rope;

/// A block longer than this is cut: no local model reads more, and no action is about more.
const MAX_LINES: usize = 400;

/// Spaces that a tab counts for. Chosen arbitrarily: lines are compared within one file, which
/// seldom mixes them.
const TAB: usize = 4;

/// Words that begin a definition in common languages.
const DEFINITIONS: [&str; 21] = [
    "async",
    "class",
    "const",
    "def",
    "defp",
    "enum",
    "export",
    "fn",
    "fun",
    "func",
    "function",
    "impl",
    "interface",
    "module",
    "private",
    "protected",
    "pub",
    "public",
    "static",
    "struct",
    "trait",
];

/// The lines of the innermost definition that holds `line`, with the comments and attributes that
/// belong to it; the innermost block where nothing looks like a definition, and the line alone where
/// there is no block.
#[must_use]
pub fn around(text: &Rope, line: usize) -> Range<usize> {
    let lines = Lines(text);
    let count = text.len_lines();
    let line = line.min(count.saturating_sub(1));
    let Some(at) = (line..count)
        .chain((0..line).rev())
        .find(|line| lines.indent(*line).is_some())
    else {
        return line..line + 1;
    };
    let mut header = lines.header(at);
    let innermost = header;
    while let Some(found) = header {
        if lines.defines(found) {
            break;
        }
        header = lines.above(found);
    }
    let header = header.or(innermost).unwrap_or(at);
    let end = lines.end(header);
    lines.first(header)..end
}

struct Lines<'a>(&'a Rope);

impl Lines<'_> {
    fn text(&self, line: usize) -> String {
        // Enough of a line to tell its indentation and its first words.
        self.0.line(line).chars().take(200).collect()
    }

    /// `None` for a blank line.
    fn indent(&self, line: usize) -> Option<usize> {
        let mut indent = 0;
        for character in self.0.line(line).chars() {
            match character {
                ' ' => indent += 1,
                '\t' => indent += TAB,
                '\r' | '\n' => return None,
                _ => return Some(indent),
            }
        }
        None
    }

    fn closes(&self, line: usize) -> bool {
        let text = self.text(line);
        let text = text.trim_start();
        text.starts_with(['}', ')', ']']) || text.split_whitespace().next() == Some("end")
    }

    fn defines(&self, line: usize) -> bool {
        let text = self.text(line);
        let mut words = text.split(|character: char| !character.is_alphanumeric());
        words
            .find(|word| !word.is_empty())
            .is_some_and(|word| DEFINITIONS.contains(&word))
    }

    /// The line that opens the block that `at` is in or opens itself.
    fn header(&self, at: usize) -> Option<usize> {
        let own = self.indent(at)?;
        let opens = (at + 1..self.0.len_lines())
            .find_map(|line| self.indent(line))
            .is_some_and(|next| next > own);
        if opens && !self.closes(at) || self.defines(at) {
            return Some(at);
        }
        if self.closes(at) {
            return self.opened_by(at, own);
        }
        self.above(at)
    }

    /// The nearest line above that is indented less.
    fn above(&self, at: usize) -> Option<usize> {
        let own = self.indent(at)?;
        let found = (0..at)
            .rev()
            .find(|line| self.indent(*line).is_some_and(|indent| indent < own))?;
        if self.closes(found) {
            let indent = self.indent(found)?;
            return self.opened_by(found, indent);
        }
        Some(found)
    }

    /// The line that a closing line at `indent` belongs to.
    fn opened_by(&self, closing: usize, indent: usize) -> Option<usize> {
        (0..closing)
            .rev()
            .find(|line| self.indent(*line) == Some(indent) && !self.closes(*line))
    }

    /// The line after the last one of the block that `header` opens.
    fn end(&self, header: usize) -> usize {
        let own = self.indent(header).unwrap_or(0);
        let mut end = header + 1;
        for line in header + 1..self.0.len_lines().min(header + MAX_LINES) {
            match self.indent(line) {
                None => {}
                Some(indent) if indent > own => end = line + 1,
                Some(indent) if indent == own && self.closes(line) => end = line + 1,
                Some(_) => break,
            }
        }
        end
    }

    /// The first of the comments and attributes right above `header`.
    fn first(&self, header: usize) -> usize {
        let own = self.indent(header);
        let belongs = |line: &usize| {
            let text = self.text(*line);
            let text = text.trim_start();
            self.indent(*line).is_some()
                && (self.indent(*line) == own || text.starts_with('*'))
                && ["//", "#", "@", "/*", "*", "--", "\"\"\""]
                    .iter()
                    .any(|mark| text.starts_with(mark))
        };
        (0..header)
            .rev()
            .take_while(belongs)
            .last()
            .unwrap_or(header)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines marked with `|` are the block around the line marked with `>`.
    fn check(marked: &str) {
        let mut text = String::new();
        let mut at = 0;
        let mut expected = Vec::new();
        for (number, line) in marked.lines().enumerate() {
            let (mark, line) = line.split_at(1);
            if mark == ">" {
                at = number;
            }
            if mark != "." {
                expected.push(number);
            }
            text.push_str(line);
            text.push('\n');
        }
        let found: Vec<_> = around(&Rope::from_str(&text), at).collect();
        assert_eq!(found, expected, "{marked}");
    }

    #[test]
    fn the_definition_is_found() {
        check(
            ".use a;\n\
             .\n\
             |/// Adds.\n\
             |#[must_use]\n\
             |pub fn add(a: u8) -> u8 {\n\
             |    if a > 1 {\n\
             >        a + 1\n\
             |    } else {\n\
             |        a\n\
             |    }\n\
             |}\n\
             .\n\
             .fn other() {}\n",
        );
        check(
            ".class A:\n\
             .    x = 1\n\
             .\n\
             |    @property\n\
             |    def f(self):\n\
             |        # why\n\
             |        for a in b:\n\
             >            print(a)\n\
             |        return 1\n\
             .\n\
             .    def g(self):\n\
             .        pass\n",
        );
        check(
            "|function f(\n\
             |  a,\n\
             |  b,\n\
             |) {\n\
             >  return a;\n\
             |}\n\
             .f();\n",
        );
        // On the closing line, on the header, and outside of everything.
        check("|fn f() {\n|    g();\n>}\n");
        check(">fn f() {\n|    g();\n|}\n");
        check(".a = 1\n>b = 2\n.c = 3\n");
        check("|if x:\n>    y\n.z\n");
    }

    proptest! {
        #[test]
        fn any_text_has_a_block_that_holds_its_line(
            text in "([ \t]{0,5}[a-z}){#@ ]{0,6}\r?\n){0,12}",
            line in 0usize..14,
        ) {
            let rope = Rope::from_str(&text);
            let found = around(&rope, line);
            prop_assert!(found.start < found.end);
            prop_assert!(found.end <= rope.len_lines());
        }
    }
}
