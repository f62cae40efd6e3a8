//! What was edited lately: typing at one place becomes one edit, and what is taken back is none.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use ropey::Rope;

use super::Proposal;

/// Edits that are remembered, over all documents.
const MAX_EDITS: usize = 48;

/// Edits of more lines than this are remembered without their text: they are new code, not a change
/// that repeats.
const MAX_LINES: usize = 24;

/// Edits of more bytes than this are remembered without their text as well.
const MAX_BYTES: usize = 4096;

/// A change goes on with an edit that was last touched so many changes ago: several cursors type in
/// turn.
const SAME_TYPING: u64 = 8;

/// Judged proposals that are remembered.
const MAX_JUDGED: usize = 64;

/// A change is proposed nowhere any more once so many of its proposals were rejected.
const MAX_STRIKES: usize = 2;

/// One edit: the lines that stood there, and those that stand there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The document.
    pub document: Arc<str>,
    /// Where its lines are now; `None` once they were edited anew.
    pub lines: Option<Range<usize>>,
    /// The lines before, without their ends. `None` for an edit too large to learn from.
    pub before: Option<Vec<String>>,
    /// The lines after.
    pub after: Vec<String>,
    touched: u64,
}

/// The edits of a session, and what became of the proposals that were made from them. Bounded in number
/// and size, so that a copy costs little.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    recent: VecDeque<Edit>,
    /// Changes so far.
    clock: u64,
    /// Edits so far.
    made: u64,
    rejected: VecDeque<Judged>,
    accepted: VecDeque<Judged>,
}

/// What the user made of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Judged {
    change: (String, String),
    before: String,
    after: String,
}

/// A change of a document, in characters.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// The document before.
    pub before: &'a Rope,
    /// What was replaced, in `before`.
    pub replaced: Range<usize>,
    /// The document after.
    pub after: &'a Rope,
    /// How many characters took its place.
    pub inserted: usize,
}

impl<'a> Change<'a> {
    /// The smallest change between two texts, for a client that sends the whole text.
    ///
    /// The texts are read once, which costs less than taking the new one in.
    #[must_use]
    pub fn between(before: &'a Rope, after: &'a Rope) -> Self {
        let shorter = before.len_bytes().min(after.len_bytes());
        let prefix = alike(
            &mut before.chunks(),
            &mut after.chunks(),
            |a, b| {
                let length = a.len().min(b.len());
                ((&a[..length], &a[length..]), (&b[..length], &b[length..]))
            },
            |a, b| a.iter().zip(b).take_while(|(a, b)| a == b).count(),
        );
        let from_end = |text: &'a Rope| text.chunks_at_byte(text.len_bytes()).0.reversed();
        let suffix = alike(
            &mut from_end(before),
            &mut from_end(after),
            |a, b| {
                let length = a.len().min(b.len());
                let (a_rest, a) = a.split_at(a.len() - length);
                let (b_rest, b) = b.split_at(b.len() - length);
                ((a, a_rest), (b, b_rest))
            },
            |a, b| {
                let ends = a.iter().rev().zip(b.iter().rev());
                ends.take_while(|(a, b)| a == b).count()
            },
        )
        .min(shorter - prefix);
        // Bytes that are alike may begin or end inside a character: the start rounds down, the end up.
        let start = before.byte_to_char(prefix);
        let end = before.len_bytes() - suffix;
        let mut kept = before.len_chars() - before.byte_to_char(end);
        if before.char_to_byte(before.len_chars() - kept) < end {
            kept -= 1;
        }
        let kept = kept.min(before.len_chars().min(after.len_chars()) - start);
        Self {
            before,
            replaced: start..before.len_chars() - kept,
            after,
            inserted: after.len_chars() - kept - start,
        }
    }
}

type Cut<'t> = (&'t [u8], &'t [u8]);

/// How many bytes two texts in chunks have in common from one end. `cut` takes from two chunks what is
/// to be compared, of equal length, and leaves the rest; `common` counts where they differ.
fn alike<'t>(
    a: &mut dyn Iterator<Item = &'t str>,
    b: &mut dyn Iterator<Item = &'t str>,
    cut: impl Fn(&'t [u8], &'t [u8]) -> (Cut<'t>, Cut<'t>),
    common: impl Fn(&[u8], &[u8]) -> usize,
) -> usize {
    let (mut left, mut right): (&[u8], &[u8]) = (&[], &[]);
    let mut count = 0;
    loop {
        if left.is_empty() {
            match a.next() {
                Some(chunk) => left = chunk.as_bytes(),
                None => return count,
            }
        }
        if right.is_empty() {
            match b.next() {
                Some(chunk) => right = chunk.as_bytes(),
                None => return count,
            }
        }
        let ((x, left_rest), (y, right_rest)) = cut(left, right);
        if x != y {
            return count + common(x, y);
        }
        count += x.len();
        (left, right) = (left_rest, right_rest);
    }
}

impl Edits {
    /// Takes a change in. The work does not depend on the document's size.
    pub fn change(&mut self, document: &str, change: &Change<'_>) {
        self.clock += 1;
        let (before, after) = (change.before, change.after);
        let first = before.char_to_line(change.replaced.start.min(before.len_chars()));
        let last = before.char_to_line(change.replaced.end.min(before.len_chars()));
        let end = (change.replaced.start + change.inserted).min(after.len_chars());
        let whole = is_line_start(before, change.replaced.start)
            && is_line_start(before, change.replaced.end)
            && is_line_start(after, end);
        // Whole lines that come or go do not touch the line after them.
        let more = usize::from(!whole);
        let touched = first..last + more;
        let becomes = first..after.char_to_line(end) + more;
        let clock = self.clock;
        let goes_on = self.recent.iter().rposition(|edit| {
            *edit.document == *document
                && clock - edit.touched <= SAME_TYPING
                && edit.lines.as_ref().is_some_and(|at| meet(at, &touched))
        });
        if !self.accepted.is_empty() {
            let was = lines(before, touched.clone()).unwrap_or_default();
            let is = lines(after, becomes.clone()).unwrap_or_default();
            self.note_undone(&was, &is);
        }
        let mut edit = if let Some(mut edit) = goes_on.and_then(|at| self.recent.remove(at)) {
            edit.widen(before, &touched);
            edit
        } else {
            self.made += 1;
            Edit {
                document: document.into(),
                lines: Some(touched.clone()),
                before: lines(before, touched.clone()),
                after: Vec::new(),
                touched: clock,
            }
        };
        for other in &mut self.recent {
            if *other.document == *document {
                other.move_along(&touched, &becomes);
            }
        }
        edit.touched = clock;
        let at = edit.lines.take().unwrap_or_default();
        // The edit's lines hold the touched ones.
        let at = at.start..at.end + becomes.len() - touched.len();
        match lines(after, at.clone()) {
            Some(text) if edit.before.is_some() => edit.after = text,
            _ => {
                edit.before = None;
                edit.after = Vec::new();
            }
        }
        edit.lines = Some(at);
        self.recent.push_back(edit);
        // An edit that came to nothing is forgotten once something else is edited.
        let newest = self.recent.len() - 1;
        let mut at = 0;
        self.recent.retain(|edit| {
            at += 1;
            at > newest || clock - edit.touched <= SAME_TYPING || !edit.is_nothing()
        });
        while self.recent.len() > MAX_EDITS {
            self.recent.pop_front();
        }
    }

    /// The edits that stand, the oldest first: what was taken back is not among them.
    #[must_use]
    pub fn standing(&self) -> Vec<&Edit> {
        let mut standing: Vec<&Edit> = Vec::new();
        for edit in &self.recent {
            if edit.is_nothing() {
                continue;
            }
            let undone = standing.iter().rposition(|other| {
                other.document == edit.document
                    && other.before.as_ref() == Some(&edit.after)
                    && edit.before.as_ref() == Some(&other.after)
            });
            match undone {
                Some(at) => {
                    standing.remove(at);
                }
                None => standing.push(edit),
            }
        }
        standing
    }

    /// A document was closed: its edits stay, since they may go on elsewhere, but are at no place.
    pub fn close(&mut self, document: &str) {
        for edit in &mut self.recent {
            if *edit.document == *document {
                edit.lines = None;
            }
        }
    }

    /// How many edits were made so far, those that are forgotten included.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made
    }

    /// The user did not want a proposal: it is not made again, nor is another like it for long.
    pub fn reject(&mut self, proposal: &Proposal) {
        remember(&mut self.rejected, Judged::from(proposal));
    }

    /// The user took a proposal.
    pub fn accept(&mut self, proposal: &Proposal) {
        let judged = Judged::from(proposal);
        self.rejected.retain(|other| other.change != judged.change);
        remember(&mut self.accepted, judged);
    }

    /// Whether a proposal was rejected, or its change too often.
    #[must_use]
    pub fn is_rejected(&self, proposal: &Proposal) -> bool {
        let mut strikes = 0;
        self.rejected.iter().any(|rejected| {
            let same = rejected.before == proposal.before && rejected.after == proposal.after;
            strikes += usize::from(rejected.change == proposal.change);
            same || strikes >= MAX_STRIKES
        })
    }

    /// An accepted proposal that was taken back is rejected.
    fn note_undone(&mut self, was: &[String], is: &[String]) {
        let undone = self.accepted.iter().position(|accepted| {
            was.contains(&accepted.after)
                && is.contains(&accepted.before)
                && !is.contains(&accepted.after)
        });
        if let Some(judged) = undone.and_then(|at| self.accepted.remove(at)) {
            remember(&mut self.rejected, judged);
        }
    }
}

impl From<&Proposal> for Judged {
    fn from(proposal: &Proposal) -> Self {
        Self {
            change: proposal.change.clone(),
            before: proposal.before.clone(),
            after: proposal.after.clone(),
        }
    }
}

fn remember(all: &mut VecDeque<Judged>, one: Judged) {
    if all.len() == MAX_JUDGED {
        all.pop_front();
    }
    all.push_back(one);
}

impl Edit {
    /// Whether the lines are what they were.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.before.as_ref() == Some(&self.after)
    }

    /// Takes in those of the `touched` lines of `text` that are beside its own.
    fn widen(&mut self, text: &Rope, touched: &Range<usize>) {
        let Some(at) = self.lines.clone() else {
            return;
        };
        let wide = at.start.min(touched.start)..at.end.max(touched.end);
        let above = lines(text, wide.start..at.start);
        let below = lines(text, at.end..wide.end);
        self.lines = Some(wide);
        self.before = match (above, self.before.take(), below) {
            (Some(mut all), Some(own), Some(below)) => {
                all.extend(own);
                all.extend(below);
                Some(all)
            }
            _ => None,
        };
    }

    /// Another place of the document has changed.
    fn move_along(&mut self, touched: &Range<usize>, becomes: &Range<usize>) {
        let Some(at) = &mut self.lines else {
            return;
        };
        if at.start >= touched.end {
            let length = at.len();
            at.start = at.start - touched.end + becomes.end;
            at.end = at.start + length;
        } else if at.end > touched.start {
            self.lines = None;
        }
    }
}

fn is_line_start(text: &Rope, at: usize) -> bool {
    text.try_char_to_line(at)
        .is_ok_and(|line| text.line_to_char(line) == at)
}

fn meet(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The text of lines, without their ends; `None` if it is too much.
fn lines(text: &Rope, range: Range<usize>) -> Option<Vec<String>> {
    if range.len() > MAX_LINES {
        return None;
    }
    let mut bytes = 0;
    range
        .map(|line| {
            let line = text.get_line(line)?;
            bytes += line.len_bytes();
            (bytes <= MAX_BYTES).then(|| without_end(line.to_string()))
        })
        .collect()
}

/// A line without its end.
#[must_use]
pub fn without_end(mut line: String) -> String {
    if line.ends_with('\n') {
        line.pop();
    }
    if line.ends_with('\r') {
        line.pop();
    }
    line
}
