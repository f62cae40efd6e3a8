//! Pure: from what was edited lately to what is likely to be edited next. It rests on the edits and on
//! likeness alone; no model is asked, and nothing leaves the machine.

mod history;
mod lesson;
mod lexical;
mod places;
mod score;
mod search;
mod tokens;

pub use history::{Change, Edits};
pub use score::{FEATURES, Features};

use std::ops::Range;

use ropey::Rope;

use lesson::lessons;
use search::{Candidate, search};

/// A proposal less sure than this is not made: better none than a wrong one. At this value four of
/// five are, to the letter, what commits have there, by `cargo bench --bench next_edit`.
pub const LEAST_CONFIDENCE: f32 = 0.85;

/// A second change of a proposed line comes along from this confidence on. The user looks at that
/// line anyway, and loses less by a mistake in it.
const ALONG: f32 = 0.5;

/// What kind of edit is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A name is exchanged for another where it still stands.
    Rename,
    /// A change is made again in a line that is like the one it was made in.
    Repeat,
}

/// A line, and what it is likely to become.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// What kind it is.
    pub kind: Kind,
    /// The line's number, from 0.
    pub line: usize,
    /// The line as it is, without its end.
    pub before: String,
    /// As it would be.
    pub after: String,
    /// What is exchanged for what. Rejected changes are known by it.
    pub change: (String, String),
    /// How sure it is, from 0 to 1.
    pub confidence: f32,
    /// What the confidence was computed from.
    pub features: Features,
    /// Whether the edit that it follows was made in another document.
    pub elsewhere: bool,
}

/// Where a proposal is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// The document's name, as in the edits.
    pub document: &'a str,
    /// Its language, by LSP identifier.
    pub language: &'a str,
    /// Its text.
    pub text: &'a Rope,
    /// The cursor's line, from 0.
    pub line: usize,
}

/// All that may be edited next here, however unlikely.
#[must_use]
pub fn candidates(edits: &Edits, here: Here<'_>) -> Vec<Proposal> {
    let standing = edits.standing();
    let lessons = lessons(&standing);
    search(&standing, &lessons, here)
        .into_iter()
        .map(|candidate| candidate.proposal)
        .collect()
}

/// What is most likely to be edited next here, if its confidence is at least `least` and the user
/// has not rejected it.
#[must_use]
pub fn propose(edits: &Edits, here: Here<'_>, least: f32) -> Option<Proposal> {
    let standing = edits.standing();
    let lessons = lessons(&standing);
    let mut found = search(&standing, &lessons, here);
    found.retain(|candidate| !edits.is_rejected(&candidate.proposal));
    // Stable, so that of equally likely places the first one found comes first.
    found.sort_by(|a, b| b.proposal.confidence.total_cmp(&a.proposal.confidence));
    let mut found = found.into_iter();
    let Candidate { mut proposal, .. } = found.next()?;
    if proposal.confidence < least {
        return None;
    }
    for other in found {
        if other.proposal.confidence < ALONG {
            break;
        }
        if other.proposal.line == proposal.line
            && let Some(further) = other.apply.to(&proposal.after)
        {
            proposal.after = further;
        }
    }
    let changes = proposal.after != proposal.before;
    (changes && !edits.is_rejected(&proposal)).then_some(proposal)
}

impl Proposal {
    /// The characters of `text` that are replaced, and by what: what differs of the line. `None` if
    /// `text` does not have the line.
    #[must_use]
    pub fn replacement(&self, text: &Rope) -> Option<(Range<usize>, &str)> {
        let line = text.get_line(self.line)?;
        let start = text.line_to_char(self.line);
        let before: Vec<char> = self.before.chars().collect();
        if line.len_chars() < before.len() || !line.chars().zip(&before).all(|(a, b)| a == *b) {
            return None;
        }
        let prefix = self
            .before
            .chars()
            .zip(self.after.chars())
            .take_while(|(a, b)| a == b)
            .count();
        let longest = before.len().min(self.after.chars().count()) - prefix;
        let suffix = before
            .iter()
            .rev()
            .zip(self.after.chars().rev())
            .take(longest)
            .take_while(|(a, b)| **a == *b)
            .count();
        let bytes = |chars: usize| {
            self.after
                .char_indices()
                .nth(chars)
                .map_or(self.after.len(), |(at, _)| at)
        };
        let (from, to) = (bytes(prefix), bytes(self.after.chars().count() - suffix));
        let range = start + prefix..start + before.len() - suffix;
        Some((range, &self.after[from..to]))
    }

    /// What it does, for a person to read.
    #[must_use]
    pub fn title(&self) -> String {
        let line = self.line + 1;
        let (old, new) = (shortened(&self.change.0), shortened(&self.change.1));
        match self.kind {
            Kind::Rename => format!("rename {old} to {new} in line {line}"),
            Kind::Repeat if new.is_empty() => format!("delete {old} in line {line}"),
            Kind::Repeat if old.is_empty() => format!("insert {new} in line {line}"),
            Kind::Repeat => format!("{old} becomes {new} in line {line}"),
        }
    }
}

/// How much of a change is in a title.
const MAX_TITLE_CHARS: usize = 30;

fn shortened(text: &str) -> String {
    let text = text.trim();
    let mut title: String = text.chars().take(MAX_TITLE_CHARS).collect();
    if title.len() < text.len() {
        title.push('…');
    }
    title
}

#[cfg(test)]
mod tests;
