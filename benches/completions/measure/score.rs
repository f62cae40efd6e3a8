//! What can be said of an answer when what really stood there is known.

use serde::Serialize;

use super::holes::{Hole, is_word};
use super::syntax::{self, Language};

/// Lines after the hole that an answer is compared with.
const NEXT_LINES: usize = 3;

/// A source with a hole, and what it is like before anybody fills it.
#[derive(Debug)]
pub struct Case<'a> {
    pub language: Language,
    /// The whole source, as it was.
    pub text: &'a str,
    pub hole: &'a Hole,
    errors: usize,
}

/// What is said of one answer.
#[derive(Debug, Clone, Default, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a figure of its own, independent of the others"
)]
pub struct Score {
    /// Nothing was offered.
    pub empty: bool,
    /// All that was missing, and nothing else; blanks at the end do not count.
    pub exact: bool,
    /// The same of the first line.
    pub first_line: bool,
    /// 1 less the edits from the answer to what was missing, as a share of the longer one.
    pub similarity: f64,
    /// Error nodes that the source has with the answer and did not have with the hole.
    pub errors_added: usize,
    /// With the answer the source has no error node.
    pub parses: bool,
    /// The answer says again what follows the hole, where the source itself does not.
    pub repeats_suffix: bool,
    /// Characters that need not be typed: the whole words at the answer's start that are right.
    /// Blanks do not count.
    pub saved: usize,
    /// Characters that were missing, blanks apart.
    pub missing: usize,
}

impl<'a> Case<'a> {
    pub fn new(language: Language, text: &'a str, hole: &'a Hole) -> Self {
        let mut case = Self {
            language,
            text,
            hole,
            errors: 0,
        };
        case.errors = syntax::errors(language, &case.with(""));
        case
    }

    /// What stands before the cursor.
    pub fn prefix(&self) -> &'a str {
        &self.text[..self.hole.start]
    }

    /// What follows it.
    pub fn suffix(&self) -> &'a str {
        &self.text[self.hole.end..]
    }

    /// What is missing.
    pub fn truth(&self) -> &'a str {
        &self.text[self.hole.start..self.hole.end]
    }

    /// The source with an answer in its hole.
    pub fn with(&self, answer: &str) -> String {
        [self.prefix(), answer, self.suffix()].concat()
    }

    pub fn score(&self, answer: &str) -> Score {
        let truth = self.truth();
        let right = common(answer, truth);
        let errors = syntax::errors(self.language, &self.with(answer));
        Score {
            empty: answer.is_empty(),
            exact: answer.trim_end() == truth.trim_end(),
            first_line: !answer.is_empty() && first_line(answer) == first_line(truth),
            similarity: strsim::normalized_levenshtein(answer, truth),
            errors_added: errors.saturating_sub(self.errors),
            parses: errors == 0,
            repeats_suffix: repeats(answer, self.suffix()) && !repeats(truth, self.suffix()),
            saved: letters(&truth[..right]),
            missing: letters(truth),
        }
    }
}

/// How many bytes of `truth` an answer has right from its start, whole words only.
pub fn common(answer: &str, truth: &str) -> usize {
    let same = answer
        .chars()
        .zip(truth.chars())
        .take_while(|(one, other)| one == other);
    let mut right: usize = same.map(|(one, _)| one.len_utf8()).sum();
    let splits =
        |text: &str, at: usize| text[..at].ends_with(is_word) && text[at..].starts_with(is_word);
    while splits(truth, right) || splits(answer, right) {
        right -= truth[..right].chars().next_back().map_or(0, char::len_utf8);
    }
    right
}

fn first_line(text: &str) -> &str {
    text.split('\n').next().unwrap_or_default().trim_end()
}

fn letters(text: &str) -> usize {
    text.chars().filter(|one| !one.is_whitespace()).count()
}

/// Whether `answer` says again what follows it: the rest of the cursor's line at its own end, or a
/// telling line of the next few.
fn repeats(answer: &str, suffix: &str) -> bool {
    let (rest, after) = suffix.split_once('\n').unwrap_or((suffix, ""));
    let rest = rest.trim();
    let again = |line: &str| rest.len() > 1 && line.trim_end().ends_with(rest);
    if answer.split('\n').next_back().is_some_and(again) {
        return true;
    }
    let next: Vec<&str> = after
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take(NEXT_LINES)
        .filter(|line| is_telling(line))
        .collect();
    answer.lines().any(|line| next.contains(&line.trim()))
}

/// Whether a line is recognised when it comes again: `}` and `return` are not.
fn is_telling(line: &str) -> bool {
    line.chars().filter(|one| one.is_alphanumeric()).count() >= 5 && line.len() >= 8
}
