//! What stands around a cursor, as far as a completion must agree with it.

use super::brackets::Brackets;
use crate::inference::{CompleteTask, CompletionShape};

/// Lines of the document that are compared with a completion: one before, a few after.
const NEXT_LINES: usize = 3;

/// The place of a cursor.
#[derive(Debug)]
pub(super) struct Place {
    /// The cursor's line up to the cursor.
    pub(super) line_before: String,
    /// The cursor's line from the cursor on, without its end.
    pub(super) line_after: String,
    /// The last line before the cursor's that is not blank.
    pub(super) previous: Option<String>,
    /// The first lines after the cursor's that are not blank.
    pub(super) next: Vec<String>,
    pub(super) brackets: Brackets,
    pub(super) one_line: bool,
    /// The most lines of a completion.
    pub(super) most_lines: usize,
    /// Whether lines that belong to the cursor's surroundings, not to what was begun, may follow.
    pub(super) siblings: bool,
    pub(super) markdown: bool,
    /// What opens a block at a line's end, in languages where indentation alone closes it.
    opener: Option<char>,
}

/// The most lines of a completion whose shape the place decides: a screen's third. More is rarely
/// read before it is accepted or refused.
const AUTO_LINES: usize = 16;

/// The most lines where as many were asked for as belong together.
const LINES: usize = 80;

/// Bytes on either side of the cursor that are read: what is open further away closes further away,
/// and reading all of a large document would cost more than the rest of a request.
const NEAR: usize = 16 * 1024;

impl Place {
    pub(super) fn of(task: &CompleteTask) -> Self {
        let prefix = near_end(&task.prefix).replace('\r', "");
        let suffix = near_start(&task.suffix).replace('\r', "");
        let (before, line_before) = prefix.rsplit_once('\n').unwrap_or(("", &prefix));
        let (line_after, after) = suffix.split_once('\n').unwrap_or((&suffix, ""));
        let brackets = Brackets::around(&task.language, &prefix, &suffix);
        let one_line = match task.shape {
            CompletionShape::OneLine => true,
            CompletionShape::Lines => false,
            CompletionShape::Auto => {
                // Text follows on the line, unless it only closes what was opened just before.
                let between = line_before.trim_end().ends_with(['{', '(', '[', ':'])
                    && line_after.trim().chars().all(|c| ")]};,".contains(c));
                !line_after.trim().is_empty() && !between
            }
        };
        Self {
            previous: before
                .lines()
                .next_back()
                .filter(|line| !line.trim().is_empty())
                .map(|line| line.trim_end().to_owned()),
            next: after
                .lines()
                .filter(|line| !line.trim().is_empty())
                .take(NEXT_LINES)
                .map(|line| line.trim_end().to_owned())
                .collect(),
            line_before: line_before.to_owned(),
            line_after: line_after.to_owned(),
            brackets,
            one_line,
            most_lines: match task.shape {
                CompletionShape::Lines => LINES,
                CompletionShape::Auto | CompletionShape::OneLine => AUTO_LINES,
            },
            siblings: task.shape == CompletionShape::Lines,
            markdown: matches!(task.language.as_str(), "markdown" | "mdx"),
            opener: matches!(task.language.as_str(), "python" | "nim" | "gdscript").then_some(':'),
        }
    }

    /// Whether `line`, the last one of a completion, opens a block of which nothing is there.
    pub(super) fn opens_without_body(&self, line: &str) -> bool {
        let has_body = self
            .next
            .first()
            .is_some_and(|next| indentation(next) > indentation(line));
        let opens = self.opener.is_some_and(|opener| line.ends_with(opener));
        opens && self.brackets.judges() && !has_body
    }
}

/// Whether the cursor stands alone on the first line inside a block in which nothing else is: the lines
/// around it that are not blank have less indentation than what is before it, and the one above has some
/// text that can open a block.
#[must_use]
pub fn is_in_empty_block(task: &CompleteTask) -> bool {
    let prefix = near_end(&task.prefix);
    let suffix = near_start(&task.suffix);
    let (before, here) = prefix.rsplit_once('\n').unwrap_or(("", prefix));
    let (rest, after) = suffix.split_once('\n').unwrap_or((suffix, ""));
    if !here.trim().is_empty() || !rest.trim().is_empty() {
        return false;
    }
    let outside = |line: &str| indentation(line) < indentation(here);
    let opens = |line: &str| line.trim_end().ends_with(['{', ':', '(', '[']);
    let above = before.lines().rfind(|line| !line.trim().is_empty());
    let below = after.lines().find(|line| !line.trim().is_empty());
    above.is_some_and(|line| outside(line) && opens(line)) && below.is_none_or(outside)
}

/// The last of a text, from the start of a line where it is not whole.
fn near_end(text: &str) -> &str {
    let Some(mut at) = text.len().checked_sub(NEAR) else {
        return text;
    };
    while !text.is_char_boundary(at) {
        at += 1;
    }
    let near = &text[at..];
    near.split_once('\n').map_or(near, |(_, lines)| lines)
}

/// The first of a text, to the end of a line where it is not whole.
fn near_start(text: &str) -> &str {
    if text.len() <= NEAR {
        return text;
    }
    let mut at = NEAR;
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let near = &text[..at];
    near.rsplit_once('\n').map_or(near, |(lines, _)| lines)
}

/// The width of a line's indentation, a tab to the next multiple of four: only compared with each
/// other, and files that mix both mostly mean four.
pub(super) fn indentation(line: &str) -> usize {
    let mut width = 0;
    for character in line.chars() {
        match character {
            ' ' => width += 1,
            '\t' => width = width / 4 * 4 + 4,
            _ => break,
        }
    }
    width
}

/// Whether a line says enough to be recognised when it comes again.
pub(super) fn is_distinctive(line: &str) -> bool {
    let letters = line.chars().filter(|c| c.is_alphabetic()).count();
    letters >= 4 && line.chars().filter(|c| !c.is_whitespace()).count() >= 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_empty_block(document: &str) -> bool {
        let (prefix, suffix) = document.split_once('|').unwrap();
        is_in_empty_block(&CompleteTask {
            path: None,
            language: String::new(),
            prefix: prefix.into(),
            suffix: suffix.into(),
            snippets: Vec::new(),
            shape: CompletionShape::Auto,
        })
    }

    #[test]
    fn a_block_is_empty_where_nothing_else_is_in_it() {
        for document in [
            "fn a() {\n    |\n}\n",
            "fn a() {\r\n\t|\r\n}\r\n",
            "fn a() {\n\n    |  \n\n}\n",
            "class A:\n    def a(self):\n        |\n    def b(self):\n        pass\n",
            "if a:\n    |",
        ] {
            assert!(is_empty_block(document), "{document:?}");
        }
        for document in [
            "|",
            "    |",
            "fn a() {\n    |\n    b();\n}\n",
            "fn a() {\n    b();\n    |\n}\n",
            "fn a() {\n    b|\n}\n",
            "fn a() {\n    | // b\n}\n",
            "fn a() {\n|\n}\n",
            "let a = b\n    |\nc();\n",
        ] {
            assert!(!is_empty_block(document), "{document:?}");
        }
    }
}
