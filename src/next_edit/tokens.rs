//! Words, numbers, blanks and marks of one line: what changes are compared by.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A name or a keyword.
    Word,
    /// Digits and what is written with them.
    Number,
    /// Blanks.
    Space,
    /// One character of anything else.
    Mark,
}

/// A token of a line.
#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    /// What it is.
    pub class: Class,
    /// Its text.
    pub text: &'a str,
    /// Where it begins, in bytes of the line.
    pub at: usize,
}

impl Token<'_> {
    /// Whether two tokens mean the same. Blanks do, however many.
    #[must_use]
    pub fn same(&self, other: &Token<'_>) -> bool {
        self.class == other.class && (self.class == Class::Space || self.text == other.text)
    }

    /// Where it ends, in bytes of the line.
    #[must_use]
    pub fn end(&self) -> usize {
        self.at + self.text.len()
    }

    /// Whether it is anything but blanks.
    #[must_use]
    pub fn is_ink(&self) -> bool {
        self.class != Class::Space
    }
}

/// Whether a character goes on in a word.
#[must_use]
pub fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The tokens of a line. Their texts, one after another, are the line.
#[must_use]
pub fn tokens(line: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let class = class(first);
        let length = match class {
            Class::Mark => first.len_utf8(),
            Class::Space => run(rest, char::is_whitespace),
            Class::Word | Class::Number => run(rest, is_word),
        };
        let (text, after) = rest.split_at(length);
        found.push(Token {
            class,
            text,
            at: line.len() - rest.len(),
        });
        rest = after;
    }
    found
}

fn class(first: char) -> Class {
    if first.is_whitespace() {
        Class::Space
    } else if first.is_numeric() {
        Class::Number
    } else if is_word(first) {
        Class::Word
    } else {
        Class::Mark
    }
}

/// How many bytes `text` begins with of characters that `belong`.
fn run(text: &str, belong: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belong(c)).unwrap_or(text.len())
}

/// A part of a line that was replaced: tokens of the line before, and those that took their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// In the tokens of the line before.
    pub old: Range<usize>,
    /// In the tokens of the line after.
    pub new: Range<usize>,
}

/// Lines with more tokens than this between their common ends are compared by these ends alone.
const MAX_COMPARED: usize = 96;

/// How one line became another: the blocks that differ, first to last. Differences with nothing but
/// blanks or one mark between them are one.
#[must_use]
pub fn blocks(before: &[Token<'_>], after: &[Token<'_>]) -> Vec<Block> {
    let start = before
        .iter()
        .zip(after)
        .take_while(|(a, b)| a.same(b))
        .count();
    let end = before[start..]
        .iter()
        .rev()
        .zip(after[start..].iter().rev())
        .take_while(|(a, b)| a.same(b))
        .count();
    let (a, b) = (
        &before[start..before.len() - end],
        &after[start..after.len() - end],
    );
    if a.is_empty() && b.is_empty() {
        return Vec::new();
    }
    let whole = Block {
        old: start..start + a.len(),
        new: start..start + b.len(),
    };
    if a.is_empty() || b.is_empty() || a.len() > MAX_COMPARED || b.len() > MAX_COMPARED {
        return vec![whole];
    }
    let mut found: Vec<Block> = Vec::new();
    let mut at = (0, 0);
    let mut close = |from: (usize, usize), to: (usize, usize)| {
        if from == to {
            return;
        }
        let (old, new) = (start + from.0..start + to.0, start + from.1..start + to.1);
        if let Some(last) = found.last_mut() {
            let between = &before[last.old.end..old.start];
            let one = |range: &Range<usize>| range.len() == 1;
            let names = one(&last.old) && one(&last.new) && one(&old) && one(&new);
            let weak = between.iter().all(|token| !token.is_ink())
                || between.len() == 1 && between[0].class == Class::Mark && !names;
            if weak {
                last.old.end = old.end;
                last.new.end = new.end;
                return;
            }
        }
        found.push(Block { old, new });
    };
    for (i, j) in common(a, b) {
        close(at, (i, j));
        at = (i + 1, j + 1);
    }
    close(at, (a.len(), b.len()));
    found
}

/// A longest common subsequence, as pairs of indices.
fn common(a: &[Token<'_>], b: &[Token<'_>]) -> Vec<(usize, usize)> {
    let width = b.len() + 1;
    let mut longest = vec![0_u16; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * width + j] = if a[i].same(&b[j]) {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut pairs = Vec::new();
    while i < a.len() && j < b.len() {
        if a[i].same(&b[j]) {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if longest[(i + 1) * width + j] >= longest[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, after: &str, expected: &[(&str, &str)]) {
        let (a, b) = (tokens(before), tokens(after));
        let text = |tokens: &[Token<'_>]| tokens.iter().map(|token| token.text).collect::<String>();
        let found: Vec<_> = blocks(&a, &b)
            .into_iter()
            .map(|block| (text(&a[block.old]), text(&b[block.new])))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(old, new)| ((*old).to_owned(), (*new).to_owned()))
            .collect();
        assert_eq!(found, expected, "{before:?} {after:?}");
    }

    #[test]
    fn lines_differ_in_blocks() {
        check("let a = b;", "let a = b;", &[]);
        check("  a", "a", &[("  ", "")]);
        check("    a;", "\ta;", &[]);
        check("foo(a, b)", "foo(a, b, c)", &[("", ", c")]);
        check("x.unwrap();", "x?;", &[(".unwrap()", "?")]);
        check(
            "a.old(old)",
            "a.new(new)",
            &[("old", "new"), ("old", "new")],
        );
        check("f(x)", "Some(f(x))", &[("", "Some("), ("", ")")]);
        check("", "x", &[("", "x")]);
        check("let é = 😀;", "let é = 😀😀;", &[("", "😀")]);
    }

    #[test]
    fn tokens_are_the_line() {
        for line in ["", "  a_b + 12px", "é😀\u{301}x", "a\u{200d}b\t"] {
            let all: String = tokens(line).iter().map(|token| token.text).collect();
            assert_eq!(all, line);
        }
    }
}
