//! How sure a proposal is: facts about it, weighed.
//!
//! The weights are a logistic regression's. `cargo bench --bench next_edit -- --fit` types the commits
//! of repositories, notes of each candidate whether the commit has it, and prints the tables below.

use super::lesson::Rename;
use super::lexical::is_distinctive;
use super::places::Likeness;

/// How many numbers describe a proposal.
pub const FEATURES: usize = 27;

/// What is known of a proposal, as numbers of about the size of one; the first is always one.
pub type Features = [f32; FEATURES];

/// What is known of a proposed rename.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and all go into one sum"
)]
pub struct RenameFacts<'a> {
    /// The names.
    pub rename: Rename<'a>,
    /// In how many lines the user has made it.
    pub support: usize,
    /// Whether one of these lines declares the old name.
    pub declared_by_edit: bool,
    /// Whether one that was not edited declares it.
    pub declared: bool,
    /// Whether the proposed line does.
    pub declares: bool,
    /// Whether the new name stands in lines that were not edited.
    pub known: bool,
    /// In how many lines the old name still stands.
    pub lines: usize,
    /// How many of them the user passed over.
    pub passed: usize,
    /// Whether the edit was in another document.
    pub elsewhere: bool,
    /// Whether the place is in a comment or a string.
    pub prose: bool,
    /// What the place has in common with the edit's.
    pub alike: Likeness,
    /// Whether one is a member of something and the other is not.
    pub other_access: bool,
    /// Whether the edit changed nothing else in its line.
    pub alone: bool,
    /// How many edits are newer.
    pub age: usize,
    /// How many lines away, in the same document.
    pub distance: Option<usize>,
    /// Whether it is not above the cursor.
    pub below: bool,
}

/// What is known of a change that is proposed again.
#[derive(Debug)]
pub struct RepeatFacts {
    /// In how many lines the user has made it.
    pub support: usize,
    /// What the place has in common with the most similar of them.
    pub alike: Likeness,
    /// What these have in common with each other.
    pub among: Option<Likeness>,
    /// Tokens replaced.
    pub old: usize,
    /// Tokens that take their place.
    pub new: usize,
    /// Into how many parts they fall.
    pub blocks: usize,
    /// How many lines it fits.
    pub lines: usize,
    /// How many of them the user passed over.
    pub passed: usize,
    /// Whether the edit was in another document.
    pub elsewhere: bool,
    /// Whether the place is in a comment or a string.
    pub prose: bool,
    /// How many edits are newer.
    pub age: usize,
    /// How many lines away, in the same document.
    pub distance: Option<usize>,
    /// Whether it is not above the cursor.
    pub below: bool,
}

/// The weights of [`rename`].
pub const RENAME: Features = [
    -3.62, -0.25, 0.34, 0.27, 0.33, 0.53, -0.24, -0.3, 0.19, 0.95, -0.69, 0.26, -0.7, -0.83, 1.38,
    1.07, -0.19, 2.11, -0.38, -1.08, 1.33, 1.12, -0.06, -0.8, 0.55, 0.97, 0.81,
];

/// The weights of [`repeat`].
pub const REPEAT: Features = [
    -2.04, -0.4, 0.42, 0.45, 2.14, 1.42, 0.73, 0.55, -0.45, 0.06, 0.83, 0.48, -0.15, -0.49, 0.99,
    -0.66, -0.61, 0.32, -0.39, -1.03, 1.23, -0.68, 0.46, -0.94, 0.54, -0.17, 0.72,
];

/// A rename as numbers.
#[must_use]
pub fn rename(facts: &RenameFacts<'_>) -> Features {
    let Rename { old, new } = facts.rename;
    [
        1.0,
        yes(facts.support >= 2),
        yes(facts.support >= 3),
        log(facts.support.saturating_sub(3)),
        yes(facts.declared_by_edit),
        yes(facts.declared),
        yes(facts.declares),
        yes(facts.known),
        yes(is_distinctive(old)),
        part(old.len(), 12),
        log(facts.lines),
        log(facts.passed),
        yes(facts.elsewhere),
        yes(facts.prose),
        part(facts.alike.left, 4),
        part(facts.alike.right, 4),
        yes(facts.other_access),
        yes(facts.alone),
        log(facts.age),
        far(facts.distance),
        yes(facts.below),
        in_common(old, new),
        // What is still declared elsewhere was not renamed, one thing was used in another's place.
        yes(facts.support == 1 && facts.declared && !facts.declared_by_edit),
        yes(facts.passed > 0),
        // Made again and again, and nowhere left out.
        yes(facts.support >= 2 && facts.passed == 0),
        yes(facts.declared_by_edit && facts.passed == 0 && !facts.declared),
        yes(facts.support >= 2 && facts.alike.left > 0 && facts.alike.right > 0),
    ]
}

/// A repeated change as numbers.
#[must_use]
pub fn repeat(facts: &RepeatFacts) -> Features {
    let as_alike =
        |among: Likeness| facts.alike.left >= among.left && facts.alike.right >= among.right;
    [
        1.0,
        yes(facts.support >= 2),
        yes(facts.support >= 3),
        log(facts.support.saturating_sub(3)),
        part(facts.alike.left, 6),
        part(facts.alike.right, 6),
        yes(facts.alike.to_start),
        yes(facts.alike.to_end),
        yes(facts.alike.to_start && facts.alike.to_end),
        yes(facts.alike.callee),
        yes(facts.among.is_some_and(as_alike)),
        log(facts.passed),
        yes(facts.elsewhere),
        yes(facts.prose),
        part(facts.old, 6),
        yes(facts.old == 0),
        part(facts.new, 6),
        yes(facts.new == 0),
        log(facts.age),
        far(facts.distance),
        yes(facts.below),
        log(facts.lines),
        yes(facts.blocks > 1),
        yes(facts.passed > 0),
        // Made again and again, and nowhere left out.
        yes(facts.support >= 2 && facts.passed == 0),
        yes(facts.among.is_some_and(as_alike) && facts.passed == 0),
        yes(facts.among.is_some_and(as_alike) && facts.passed == 0 && facts.old + facts.new >= 4),
    ]
}

/// How likely something with these features is what the user types next.
#[must_use]
pub fn confidence(features: &Features, weights: &Features) -> f32 {
    let sum: f32 = features.iter().zip(weights).map(|(a, b)| a * b).sum();
    1.0 / (1.0 + (-sum).exp())
}

fn yes(fact: bool) -> f32 {
    f32::from(u8::from(fact))
}

fn log(count: usize) -> f32 {
    (count as f32).ln_1p()
}

fn part(count: usize, of: usize) -> f32 {
    count.min(of) as f32 / of as f32
}

fn far(distance: Option<usize>) -> f32 {
    // 400 lines away is about as far as another document.
    distance.map_or(1.0, |lines| log(lines) / 6.0)
}

/// The longer of what two names begin and end with alike, as a part of the longer name.
fn in_common(a: &str, b: &str) -> f32 {
    let alike = |(a, b): &(char, char)| a == b;
    let start = a.chars().zip(b.chars()).take_while(alike).count();
    let ends = a.chars().rev().zip(b.chars().rev());
    let end = ends.take_while(alike).count();
    let longer = a.chars().count().max(b.chars().count());
    start.max(end) as f32 / longer.max(1) as f32
}
