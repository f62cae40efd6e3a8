//! The search for places where the lessons of the edits may go on.

use std::collections::HashSet;

use super::history::Edit;
use super::lesson::{Lesson, Rename};
use super::lexical::{declares_word, is_keyword, is_member, is_prose};
use super::places::{Likeness, Line, fit, key, likeness, lines_with, renamed};
use super::score::{self, RenameFacts, RepeatFacts};
use super::tokens::tokens;
use super::{Here, Kind, Proposal};

/// Lessons older than this many edits are not looked at.
const MAX_AGE: usize = 16;

/// A proposal, and how it is made.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The proposal.
    pub proposal: Proposal,
    /// How.
    pub apply: Apply<'a>,
}

/// How a line becomes another.
#[derive(Debug, Clone, Copy)]
pub enum Apply<'a> {
    /// By another name.
    Rename(Rename<'a>),
    /// As another line did.
    Repeat(&'a Lesson<'a>),
}

impl Apply<'_> {
    /// What a line becomes, if this fits it.
    #[must_use]
    pub fn to(&self, line: &str) -> Option<String> {
        let tokens = tokens(line);
        match self {
            Self::Rename(rename) => renamed(&tokens, *rename),
            Self::Repeat(lesson) => fit(lesson, &tokens).map(|(text, _)| text),
        }
    }
}

/// All that may be edited next in a document.
#[must_use]
pub fn search<'a>(
    standing: &[&Edit],
    lessons: &'a [Lesson<'a>],
    here: Here<'_>,
) -> Vec<Candidate<'a>> {
    let mut newest = lessons
        .iter()
        .rev()
        .take_while(|lesson| lesson.age <= MAX_AGE)
        .peekable();
    if newest.peek().is_none() {
        return Vec::new();
    }
    let whole = here.text.to_string();
    let edited = standing
        .iter()
        .filter(|edit| *edit.document == *here.document)
        .filter_map(|edit| edit.lines.clone())
        .flatten()
        .collect();
    let mut search = Search {
        here,
        whole: &whole,
        lessons,
        edited,
        found: Vec::new(),
    };
    let mut renames: HashSet<Rename<'_>> = HashSet::new();
    let mut tried: Vec<&Lesson<'_>> = Vec::new();
    for lesson in newest {
        for rename in lesson.renames() {
            if renames.insert(rename) {
                search.renames(lesson, rename);
            }
        }
        if !lesson.only_renames() && !tried.iter().any(|other| other.same_change(lesson)) {
            tried.push(lesson);
            search.repeats(lesson);
        }
    }
    search.found
}

struct Search<'s, 'a> {
    here: Here<'s>,
    /// The text in one piece.
    whole: &'s str,
    lessons: &'a [Lesson<'a>],
    /// Lines that the user has edited: what they were to become they are.
    edited: HashSet<usize>,
    found: Vec<Candidate<'a>>,
}

impl<'a> Search<'_, 'a> {
    /// The lines that have `word` and were not edited.
    fn lines(&self, word: &str) -> Vec<Line> {
        let mut lines = lines_with(self.here.text, self.whole, word);
        lines.retain(|line| !self.edited.contains(&line.number));
        lines
    }

    fn is_here(&self, lesson: &Lesson<'_>) -> bool {
        *lesson.edit.document == *self.here.document
    }

    /// How far a line is from where the lesson was learned.
    fn distance(&self, lesson: &Lesson<'_>, line: &Line) -> Option<usize> {
        let from = lesson.line.filter(|_| self.is_here(lesson))?;
        Some(from.abs_diff(line.number))
    }

    /// How many of the fitting lines lie between the first and the last edit that made the change:
    /// the user passed them over.
    fn passed<'l>(
        &self,
        supporters: &[&Lesson<'_>],
        fitting: impl Iterator<Item = &'l Line>,
    ) -> usize {
        let lines: Vec<usize> = supporters
            .iter()
            .filter(|lesson| self.is_here(lesson))
            .filter_map(|lesson| lesson.line)
            .collect();
        let (Some(first), Some(last)) = (lines.iter().min(), lines.iter().max()) else {
            return 0;
        };
        fitting
            .filter(|line| (first..=last).contains(&&line.number))
            .count()
    }

    fn renames(&mut self, lesson: &'a Lesson<'a>, rename: Rename<'a>) {
        if is_keyword(rename.old) || is_keyword(rename.new) {
            return;
        }
        let lines = self.lines(rename.old);
        if lines.is_empty() {
            return;
        }
        let supporters: Vec<&Lesson<'_>> = self
            .lessons
            .iter()
            .filter(|lesson| lesson.renames().contains(&rename))
            .collect();
        let passed = self.passed(&supporters, lines.iter());
        let declared_by_edit = supporters
            .iter()
            .any(|lesson| declares_word(&lesson.before, rename.old));
        let declared = lines
            .iter()
            .any(|line| declares_word(&tokens(&line.text), rename.old));
        let known = !self.lines(rename.new).is_empty();
        let member_in_edit = supporters.iter().any(|lesson| {
            let mut names = lesson.before.iter();
            names
                .position(|token| token.text == rename.old)
                .is_some_and(|at| is_member(&lesson.before, at))
        });
        for line in &lines {
            let tokens = tokens(&line.text);
            let Some(after) = renamed(&tokens, rename) else {
                continue;
            };
            let Some(at) = tokens.iter().position(|token| token.text == rename.old) else {
                continue;
            };
            let alike = supporters
                .iter()
                .flat_map(|lesson| lesson.blocks.iter().map(move |block| (lesson, block)))
                .filter(|(lesson, block)| {
                    let old = &lesson.before[block.old.clone()];
                    old.len() == 1 && old[0].text == rename.old
                })
                .map(|(lesson, block)| likeness(lesson, block, &tokens, at))
                .max_by_key(Likeness::weight)
                .unwrap_or_default();
            let features = score::rename(&RenameFacts {
                rename,
                support: supporters.len(),
                declared_by_edit,
                declared,
                declares: declares_word(&tokens, rename.old),
                known,
                lines: lines.len(),
                passed,
                elsewhere: !self.is_here(lesson),
                prose: is_prose(&tokens, tokens[at].at, self.here.language),
                alike,
                other_access: is_member(&tokens, at) != member_in_edit,
                alone: lesson.blocks.len() == 1,
                age: lesson.age,
                distance: self.distance(lesson, line),
                below: line.number >= self.here.line,
            });
            self.found.push(Candidate {
                apply: Apply::Rename(rename),
                proposal: Proposal {
                    kind: Kind::Rename,
                    line: line.number,
                    before: line.text.clone(),
                    after,
                    change: (rename.old.to_owned(), rename.new.to_owned()),
                    confidence: score::confidence(&features, &score::RENAME),
                    features,
                    elsewhere: !self.is_here(lesson),
                },
            });
        }
    }

    fn repeats(&mut self, lesson: &'a Lesson<'a>) {
        let Some(key) = key(lesson) else { return };
        let supporters: Vec<&Lesson<'_>> = self
            .lessons
            .iter()
            .filter(|other| other.same_change(lesson))
            .collect();
        let fitting: Vec<(Line, String, Likeness)> = self
            .lines(key)
            .into_iter()
            .filter_map(|line| {
                let tokens = tokens(&line.text);
                let (after, alike) = supporters
                    .iter()
                    .filter_map(|supporter| fit(supporter, &tokens))
                    .max_by_key(|(_, alike)| alike.weight())?;
                Some((line, after, alike))
            })
            .collect();
        let passed = self.passed(&supporters, fitting.iter().map(|(line, ..)| line));
        // How alike the lines are in which the change was made already.
        let among = supporters
            .iter()
            .filter(|other| !std::ptr::eq(**other, lesson))
            .filter_map(|other| fit(lesson, &other.before))
            .map(|(_, alike)| alike)
            .reduce(Likeness::least);
        let lines = fitting.len();
        for (line, after, alike) in fitting {
            // Where the line begins to differ.
            let at = line
                .text
                .bytes()
                .zip(after.bytes())
                .take_while(|(a, b)| a == b)
                .count();
            let features = score::repeat(&RepeatFacts {
                support: supporters.len(),
                alike,
                among,
                old: lesson.ink(|lesson, block| &lesson.before[block.old.clone()]),
                new: lesson.ink(|lesson, block| &lesson.after[block.new.clone()]),
                blocks: lesson.blocks.len(),
                lines,
                passed,
                elsewhere: !self.is_here(lesson),
                prose: is_prose(&tokens(&line.text), at, self.here.language),
                age: lesson.age,
                distance: self.distance(lesson, &line),
                below: line.number >= self.here.line,
            });
            let texts = |of: &dyn Fn(&super::tokens::Block) -> String| {
                let texts: Vec<String> = lesson.blocks.iter().map(of).collect();
                texts.join(" … ")
            };
            self.found.push(Candidate {
                apply: Apply::Repeat(lesson),
                proposal: Proposal {
                    kind: Kind::Repeat,
                    line: line.number,
                    before: line.text,
                    after,
                    change: (
                        texts(&|block| lesson.old_text(block)),
                        texts(&|block| lesson.new_text(block)),
                    ),
                    confidence: score::confidence(&features, &score::REPEAT),
                    features,
                    elsewhere: !self.is_here(lesson),
                },
            });
        }
    }
}
