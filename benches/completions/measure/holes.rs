//! Where the holes are: places in real source at which somebody could stand and want the rest.

use std::ops::Range;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::syntax::{self, Language};

/// What is missing at a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The last one to three tokens of a line.
    EndOfLine,
    /// All of a line from any character on, also within a word.
    RestOfLine,
    /// A line but for its indentation.
    WholeLine,
    /// The inside of a block of up to [`BLOCK_LINES`] lines; what closes it is there.
    Block,
    /// An expression, or its end, with the rest of the line behind it.
    Expression,
}

/// Longer blocks than this are written in steps.
const BLOCK_LINES: usize = 12;

/// Lines from so many bytes on say something, and up to so many are read.
const LINE_BYTES: Range<usize> = 8..161;

/// Expressions of so many bytes: names that a suggestion is worth, and what is still one thought.
const EXPRESSION_BYTES: Range<usize> = 3..61;

/// The nodes whose children are expressions that somebody writes one after another.
const HOLD_EXPRESSIONS: &[&str] = &[
    "arguments",
    "argument_list",
    "array",
    "array_expression",
    "binary_expression",
    "binary_operator",
    "boolean_operator",
    "comparison_operator",
    "conditional_expression",
    "index_expression",
    "keyword_argument",
    "list",
    "literal_element",
    "pair",
    "parenthesized_expression",
    "subscript",
    "subscript_expression",
    "ternary_expression",
    "tuple",
    "tuple_expression",
];

/// A hole: the bytes of the text that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// What is missing.
    pub kind: Kind,
    /// Where the cursor stands.
    pub start: usize,
    /// Where the text goes on.
    pub end: usize,
}

impl Kind {
    /// In the order of the tables.
    pub const ALL: [Self; 5] = [
        Self::EndOfLine,
        Self::RestOfLine,
        Self::WholeLine,
        Self::Block,
        Self::Expression,
    ];

    /// In words, for the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfLine => "end of line",
            Self::RestOfLine => "rest of line",
            Self::WholeLine => "whole line",
            Self::Block => "block",
            Self::Expression => "in an expression",
        }
    }
}

/// What of a source is made of code.
#[derive(Default)]
struct Outline {
    tokens: Vec<Range<usize>>,
    blocks: Vec<Range<usize>>,
    expressions: Vec<Range<usize>>,
}

/// Up to `most` holes of each kind in `text`, as chance will have it.
pub fn holes(language: Language, text: &str, most: usize, random: &mut StdRng) -> Vec<Hole> {
    let outline = outline(language, text);
    let lines = code_lines(text, &outline.tokens);
    let mut found = Vec::new();
    for kind in Kind::ALL {
        let mut of_kind: Vec<Hole> = match kind {
            Kind::EndOfLine => lines
                .iter()
                .filter_map(|line| end_of_line(&outline.tokens[line.tokens.clone()], random))
                .collect(),
            Kind::RestOfLine => lines
                .iter()
                .filter_map(|line| rest_of_line(text, &line.bytes, random))
                .collect(),
            Kind::WholeLine => lines.iter().map(|line| line.bytes.clone()).collect(),
            Kind::Block => outline.blocks.clone(),
            Kind::Expression => outline
                .expressions
                .iter()
                .map(|bytes| within(text, bytes, random))
                .collect(),
        }
        .into_iter()
        .map(|bytes| Hole {
            kind,
            start: bytes.start,
            end: bytes.end,
        })
        .collect();
        of_kind.shuffle(random);
        of_kind.truncate(most);
        found.extend(of_kind);
    }
    found
}

/// The blocks of `text` of at least `least` bytes, for whoever types one.
pub fn long_blocks(language: Language, text: &str, least: usize) -> Vec<Range<usize>> {
    let tree = syntax::parse(language, text);
    let mut found = Vec::new();
    syntax::walk(&mut tree.walk(), &mut |node| {
        if language.blocks().contains(&node.kind())
            && let Some(inside) = inside(text, node.byte_range())
            && inside.len() >= least
        {
            found.push(inside);
        }
        true
    });
    found
}

fn outline(language: Language, text: &str) -> Outline {
    let tree = syntax::parse(language, text);
    let mut outline = Outline::default();
    syntax::walk(&mut tree.walk(), &mut |node| {
        let (kind, bytes) = (node.kind(), node.byte_range());
        if kind.contains("comment") {
            return false;
        }
        let literal = kind.contains("string") || kind.contains("char_literal");
        if language.blocks().contains(&kind)
            && let Some(inside) = inside(text, bytes.clone())
            && text[inside.clone()].lines().count() <= BLOCK_LINES
            && !begins_with_prose(&text[inside.clone()])
        {
            outline.blocks.push(inside);
        }
        let held = node
            .parent()
            .is_some_and(|parent| HOLD_EXPRESSIONS.contains(&parent.kind()));
        if held && node.is_named() && !literal && is_expression(text, &bytes) {
            outline.expressions.push(bytes.clone());
        }
        if (literal || node.child_count() == 0) && !bytes.is_empty() {
            outline.tokens.push(bytes);
            return false;
        }
        true
    });
    outline
}

/// The inside of a block from its first character to its last, where it begins on a line of its own
/// and what closes it, if anything does, stands on another.
fn inside(text: &str, block: Range<usize>) -> Option<Range<usize>> {
    let whole = &text[block.clone()];
    let inner = match whole.strip_prefix('{') {
        Some(rest) => {
            let inner = rest.strip_suffix('}')?;
            let closed_alone = inner.trim_end_matches([' ', '\t']).ends_with('\n');
            let opened_alone = inner.trim_start_matches([' ', '\t']).starts_with('\n');
            (closed_alone && opened_alone).then_some(inner)?
        }
        None => whole,
    };
    let start =
        block.end - usize::from(whole.ends_with('}') && whole.starts_with('{')) - inner.len()
            + (inner.len() - inner.trim_start().len());
    let end = start + inner.trim().len();
    let line = text[..start].rfind('\n').map_or(0, |at| at + 1);
    (start < end && text[line..start].trim().is_empty()).then_some(start..end)
}

/// Whether the first thing is a comment or a text: nobody is to guess those.
fn begins_with_prose(text: &str) -> bool {
    text.starts_with("//")
        || text.starts_with("/*")
        || text.starts_with(['#', '"', '\''])
        || text.starts_with("r\"")
}

/// Whether these bytes are an expression in the middle of its line.
fn is_expression(text: &str, bytes: &Range<usize>) -> bool {
    let rest = text[bytes.end..].split('\n').next().unwrap_or_default();
    EXPRESSION_BYTES.contains(&bytes.len())
        && !text[bytes.clone()].contains('\n')
        && !rest.trim().is_empty()
        && !rest.starts_with(is_word)
}

/// A line that is code from its first character to its last.
struct CodeLine {
    /// Without its indentation, and without blanks at its end.
    bytes: Range<usize>,
    /// Which tokens are on it.
    tokens: Range<usize>,
}

fn code_lines(text: &str, tokens: &[Range<usize>]) -> Vec<CodeLine> {
    let mut lines = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at + line.len() - line.trim_start().len();
        let end = start.max(at + line.trim_end().len());
        at += line.len();
        let first = tokens.partition_point(|token| token.start < start);
        let last = tokens.partition_point(|token| token.end <= end);
        let is_code = last > first + 1
            && tokens[first].start == start
            && tokens[last - 1].end == end
            && LINE_BYTES.contains(&(end - start));
        if is_code {
            lines.push(CodeLine {
                bytes: start..end,
                tokens: first..last,
            });
        }
    }
    lines
}

fn end_of_line(tokens: &[Range<usize>], random: &mut StdRng) -> Option<Range<usize>> {
    let end = tokens.last()?.end;
    let missing = random.random_range(1..tokens.len().min(4));
    let first = tokens.len() - missing;
    // Half of the time the blank before the next token is typed already.
    let start = if random.random() {
        tokens[first].start
    } else {
        tokens[first - 1].end
    };
    (end - tokens[first].start >= 2).then_some(start..end)
}

fn rest_of_line(text: &str, line: &Range<usize>, random: &mut StdRng) -> Option<Range<usize>> {
    // At least three bytes are missing and one is typed.
    let start = text.floor_char_boundary(random.random_range(line.start + 1..line.end - 2));
    (start > line.start).then_some(start..line.end)
}

fn within(text: &str, bytes: &Range<usize>, random: &mut StdRng) -> Range<usize> {
    let start = if random.random() {
        bytes.start
    } else {
        text.floor_char_boundary(random.random_range(bytes.start..bytes.end - 1))
    };
    start..bytes.end
}

/// Whether a character belongs to a word.
pub fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}
