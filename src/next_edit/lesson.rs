//! What an edit teaches: how each of its lines became another.

use super::history::Edit;
use super::tokens::{Block, Class, Token, blocks, tokens};

/// Longer lines teach nothing: nobody writes them by hand.
const MAX_LINE: usize = 400;

/// A line that became another.
#[derive(Debug)]
pub struct Lesson<'a> {
    /// The edit.
    pub edit: &'a Edit,
    /// Where the line is now.
    pub line: Option<usize>,
    /// How many edits are newer.
    pub age: usize,
    /// The tokens before.
    pub before: Vec<Token<'a>>,
    /// The tokens after.
    pub after: Vec<Token<'a>>,
    /// Where they differ; never empty.
    pub blocks: Vec<Block>,
}

/// One name for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rename<'a> {
    /// The old name.
    pub old: &'a str,
    /// The new one.
    pub new: &'a str,
}

/// All that the standing edits teach, the oldest first.
#[must_use]
pub fn lessons<'a>(edits: &[&'a Edit]) -> Vec<Lesson<'a>> {
    let mut found = Vec::new();
    for (at, edit) in edits.iter().enumerate() {
        let Some(before) = &edit.before else { continue };
        let after = &edit.after;
        if before.len() != after.len() {
            continue;
        }
        for (offset, (old, new)) in before.iter().zip(after).enumerate() {
            if old == new || old.len().max(new.len()) > MAX_LINE || old.trim().is_empty() {
                continue;
            }
            let (before, after) = (tokens(old), tokens(new));
            let blocks = blocks(&before, &after);
            if blocks.is_empty() || new.trim().is_empty() {
                continue;
            }
            found.push(Lesson {
                edit,
                line: edit.lines.as_ref().map(|lines| lines.start + offset),
                age: edits.len() - 1 - at,
                before,
                after,
                blocks,
            });
        }
    }
    found
}

impl<'a> Lesson<'a> {
    /// The text that a block replaced.
    #[must_use]
    pub fn old_text(&self, block: &Block) -> String {
        self.before[block.old.clone()]
            .iter()
            .map(|token| token.text)
            .collect()
    }

    /// The text that took its place.
    #[must_use]
    pub fn new_text(&self, block: &Block) -> String {
        self.after[block.new.clone()]
            .iter()
            .map(|token| token.text)
            .collect()
    }

    /// The names that were exchanged for others, each once, where the line has the old one no more.
    #[must_use]
    pub fn renames(&self) -> Vec<Rename<'a>> {
        let mut found: Vec<Rename<'a>> = Vec::new();
        for block in &self.blocks {
            let ([old], [new]) = (
                &self.before[block.old.clone()],
                &self.after[block.new.clone()],
            ) else {
                continue;
            };
            if old.class != Class::Word || new.class != Class::Word {
                continue;
            }
            let rename = Rename {
                old: old.text,
                new: new.text,
            };
            let stays = self.after.iter().any(|token| token.text == rename.old);
            let other = found.iter().any(|known| known.old == rename.old);
            if !stays && !other {
                found.push(rename);
            }
        }
        found
    }

    /// Whether all that changed is names for names.
    #[must_use]
    pub fn only_renames(&self) -> bool {
        self.blocks.iter().all(|block| {
            block.old.len() == 1
                && block.new.len() == 1
                && self.before[block.old.start].class == Class::Word
                && self.after[block.new.start].class == Class::Word
        })
    }

    /// How many tokens that are no blanks the blocks have of `side`.
    pub fn ink<'s>(&'s self, side: impl Fn(&'s Self, &Block) -> &'s [Token<'a>]) -> usize
    where
        'a: 's,
    {
        let sides = self.blocks.iter().flat_map(|block| side(self, block));
        sides.filter(|token| token.is_ink()).count()
    }

    /// Whether another line changed in the same way.
    #[must_use]
    pub fn same_change(&self, other: &Lesson<'_>) -> bool {
        self.blocks.len() == other.blocks.len()
            && self.blocks.iter().zip(&other.blocks).all(|(a, b)| {
                same(&self.before[a.old.clone()], &other.before[b.old.clone()])
                    && same(&self.after[a.new.clone()], &other.after[b.new.clone()])
            })
    }
}

fn same(a: &[Token<'_>], b: &[Token<'_>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b))
}
