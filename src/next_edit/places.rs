//! Where a change may go on: lines of a document that an edit's lesson fits.

use ropey::Rope;

use super::history::without_end;
use super::lesson::{Lesson, Rename};
use super::tokens::{Block, Class, Token, is_word};

/// Lines longer than this are not looked at.
const MAX_LINE_BYTES: usize = 1000;

/// What stands in more lines than this is too common to say where the next edit is.
const MAX_LINES: usize = 300;

/// A line of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub number: usize,
    /// Its text, without its end.
    pub text: String,
}

/// How much of a line's surroundings a place shares with a lesson's, in tokens that are no blanks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Likeness {
    /// Before the change.
    pub left: usize,
    /// After it.
    pub right: usize,
    /// Up to the line's start.
    pub to_start: bool,
    /// Up to the line's end.
    pub to_end: bool,
    /// Whether both are arguments of a function of the same name.
    pub callee: bool,
}

impl Likeness {
    /// How much it is.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.left + self.right
    }

    /// What both have.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            right: self.right.min(other.right),
            to_start: self.to_start && other.to_start,
            to_end: self.to_end && other.to_end,
            callee: self.callee && other.callee,
        }
    }
}

/// The lines of `text` in which `word` stands as a whole word; nothing if it is in too many.
/// `whole` is the same text in one piece.
#[must_use]
pub fn lines_with(text: &Rope, whole: &str, word: &str) -> Vec<Line> {
    let mut found: Vec<Line> = Vec::new();
    let mut looked_at = None;
    for (at, _) in whole.match_indices(word) {
        let before = whole[..at].chars().next_back().is_some_and(is_word);
        let after = whole[at + word.len()..].chars().next().is_some_and(is_word);
        if before || after {
            continue;
        }
        let number = text.byte_to_line(at);
        if looked_at.replace(number) == Some(number) {
            continue;
        }
        let line = text.line(number);
        if line.len_bytes() > MAX_LINE_BYTES {
            continue;
        }
        if found.len() == MAX_LINES {
            return Vec::new();
        }
        found.push(Line {
            number,
            text: without_end(line.to_string()),
        });
    }
    found
}

/// A line with a name exchanged wherever it is a whole word. `None` if it is not there.
#[must_use]
pub fn renamed(line: &[Token<'_>], rename: Rename<'_>) -> Option<String> {
    let mut any = false;
    let text = line
        .iter()
        .map(|token| {
            let here = token.class == Class::Word && token.text == rename.old;
            any |= here;
            if here { rename.new } else { token.text }
        })
        .collect();
    any.then_some(text)
}

/// The word that a line must have for the lesson to fit: the longest that was replaced, or the
/// nearest one before or after.
#[must_use]
pub fn key<'a>(lesson: &Lesson<'a>) -> Option<&'a str> {
    let words = |tokens: &[Token<'a>]| {
        tokens
            .iter()
            .filter(|token| matches!(token.class, Class::Word | Class::Number))
            .map(|token| token.text)
            .collect::<Vec<_>>()
    };
    let replaced = lesson
        .blocks
        .iter()
        .flat_map(|block| words(&lesson.before[block.old.clone()]))
        .max_by_key(|word| word.len());
    if replaced.is_some() {
        return replaced;
    }
    let block = lesson.blocks.first()?;
    if let Some(callee) = callee(&lesson.before, block.old.start) {
        return Some(callee);
    }
    let left = words(&lesson.before[..block.old.start]);
    let right = words(&lesson.before[block.old.end..]);
    left.last().or(right.first()).copied()
}

/// Fits a lesson to a line: the line after the change, and the least likeness over the lesson's
/// blocks. Each block is put where its surroundings are most like the lesson's.
#[must_use]
pub fn fit(lesson: &Lesson<'_>, line: &[Token<'_>]) -> Option<(String, Likeness)> {
    let mut places: Vec<(usize, &Block)> = Vec::new();
    let mut least: Option<Likeness> = None;
    let mut from = 0;
    for block in &lesson.blocks {
        let (at, likeness) = best_place(lesson, block, line, from)?;
        from = at + block.old.len();
        places.push((at, block));
        least = Some(least.map_or(likeness, |least| least.least(likeness)));
    }
    let mut text = String::new();
    let mut from = 0;
    for (at, block) in places {
        text.extend(line[from..at].iter().map(|token| token.text));
        text.push_str(&lesson.new_text(block));
        from = at + block.old.len();
    }
    text.extend(line[from..].iter().map(|token| token.text));
    Some((text, least?))
}

fn best_place(
    lesson: &Lesson<'_>,
    block: &Block,
    line: &[Token<'_>],
    from: usize,
) -> Option<(usize, Likeness)> {
    let old = &lesson.before[block.old.clone()];
    let new = &lesson.after[block.new.clone()];
    let mut best: Option<(usize, Likeness)> = None;
    for at in from..=line.len().checked_sub(old.len())? {
        if !starts_with(&line[at..], old) {
            continue;
        }
        // The change may be there already.
        if starts_with(&line[at..], new) && new.len() > old.len() || ends_with(&line[..at], new) {
            continue;
        }
        let likeness = likeness(lesson, block, line, at);
        if old.is_empty() {
            let left = likeness.left > 0 || likeness.to_start || likeness.callee;
            let right = likeness.right > 0 || likeness.to_end;
            if !left || !right {
                continue;
            }
        }
        if best.is_none_or(|(_, best)| likeness.weight() > best.weight()) {
            best = Some((at, likeness));
        }
    }
    best
}

fn starts_with(line: &[Token<'_>], with: &[Token<'_>]) -> bool {
    line.len() >= with.len() && line.iter().zip(with).all(|(a, b)| a.same(b))
}

fn ends_with(line: &[Token<'_>], with: &[Token<'_>]) -> bool {
    !with.is_empty()
        && line.len() >= with.len()
        && starts_with(&line[line.len() - with.len()..], with)
}

/// How alike the surroundings of a block and of a place in a line are.
#[must_use]
pub fn likeness(lesson: &Lesson<'_>, block: &Block, line: &[Token<'_>], at: usize) -> Likeness {
    let (own_left, own_right) = (
        &lesson.before[..block.old.start],
        &lesson.before[block.old.end..],
    );
    let after = at + block.old.len();
    let (left, to_start) = shared(own_left.iter().rev(), line[..at].iter().rev());
    let (right, to_end) = shared(own_right.iter(), line[after..].iter());
    let callee_here = callee(line, at);
    Likeness {
        left,
        right,
        to_start,
        to_end,
        callee: callee_here.is_some() && callee_here == callee(&lesson.before, block.old.start),
    }
}

/// How many tokens with ink two sequences begin with alike, and whether that is all of them.
fn shared<'a>(
    a: impl Iterator<Item = &'a Token<'a>>,
    b: impl Iterator<Item = &'a Token<'a>>,
) -> (usize, bool) {
    let ink = |token: &&Token<'_>| token.is_ink();
    let (mut a, mut b) = (a.filter(ink), b.filter(ink));
    let mut count = 0;
    loop {
        match (a.next(), b.next()) {
            (Some(x), Some(y)) if x.same(y) => count += 1,
            (None, None) => return (count, true),
            _ => return (count, false),
        }
    }
}

/// The name before the parenthesis that is open at a place of a line.
#[must_use]
pub fn callee<'a>(line: &[Token<'a>], at: usize) -> Option<&'a str> {
    let mut depth = 0_usize;
    for (index, token) in line[..at].iter().enumerate().rev() {
        match token.text {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" if depth > 0 => depth -= 1,
            "(" => {
                let name = line[..index].last()?;
                return (name.class == Class::Word).then_some(name.text);
            }
            "[" | "{" => return None,
            _ => {}
        }
    }
    None
}
