//! What a proposal is worth, by the commit it is held against.

use serde::Serialize;
use similar::{Algorithm, capture_diff_slices};

use super::steps::Typed;

/// What a proposal turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The commit has this line, character for character.
    Exact(Option<usize>),
    /// A part of what the commit does to this line, and nothing else.
    Part,
    /// The commit changes this line otherwise.
    Place,
    /// The commit does not change this line, or not any more.
    Wrong,
}

/// Holds a line's new text against what remains of a commit. An exact one that makes a step whole
/// says which.
#[must_use]
pub fn judge(typed: &Typed, line: usize, before: &str, after: &str) -> Verdict {
    let here = |step: &super::steps::Step| (step.line..step.line + step.old).contains(&line);
    let Some(at) = typed.remaining.iter().position(here) else {
        return Verdict::Wrong;
    };
    let step = &typed.remaining[at];
    let from_start = line - step.line;
    let from_end = step.old - from_start;
    let aligned = [
        step.new.get(from_start),
        step.new
            .len()
            .checked_sub(from_end)
            .and_then(|at| step.new.get(at)),
    ];
    if aligned
        .iter()
        .flatten()
        .any(|new| without_end(new) == after)
    {
        return Verdict::Exact((step.old == 1 && step.new.len() == 1).then_some(at));
    }
    let part = step.new.iter().any(|new| {
        let new = without_end(new);
        let (whole, first, second) = (
            distance(before, new),
            distance(before, after),
            distance(after, new),
        );
        first > 0 && whole == first + second && 2 * whole < words(before).len() + words(new).len()
    });
    if part { Verdict::Part } else { Verdict::Place }
}

fn without_end(line: &str) -> &str {
    line.trim_end_matches(['\n', '\r'])
}

/// How many words and marks are deleted and inserted between two lines.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (words(a), words(b));
    capture_diff_slices(Algorithm::Myers, &a, &b)
        .iter()
        .map(|op| match op {
            similar::DiffOp::Equal { .. } => 0,
            op => op.old_range().len() + op.new_range().len(),
        })
        .sum()
}

fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (head, tail) = rest.split_at(length);
        if !head.trim().is_empty() {
            words.push(head);
        }
        rest = tail;
    }
    words
}
