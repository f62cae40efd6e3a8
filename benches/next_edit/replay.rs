//! Types commits, and asks for the next edit after each step.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Result;
use tandem::next_edit::{Edits, Here, Kind, Proposal, candidates, propose};

use crate::figures::Tally;
use crate::git::{self, Commit, Texts};
use crate::measure::fit::Case;
use crate::measure::judge::{Verdict, judge};
use crate::measure::occurrence::{self, Last};
use crate::measure::steps::Typed;

/// Commits of more code files than this are somebody's script at work.
const MAX_FILES: usize = 8;

/// As are commits of more steps.
const MAX_STEPS: usize = 60;

/// Larger files are left out, in bytes: they are generated.
const MAX_TEXT: usize = 300_000;

/// Files beside the commit's that are opened after it, in which nothing is to be edited.
const BYSTANDERS: usize = 3;

/// Candidates of one question that weights are fitted to.
const MAX_CASES: usize = 60;

/// Who proposes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Author {
    /// Tandem, from this confidence on.
    Tandem(f32),
    /// A control: what was replaced last is replaced where it stands next.
    NextOccurrence,
    /// A control: never anything.
    Nobody,
}

/// How commits are typed.
#[derive(Debug)]
pub struct Replay {
    /// How many, spread over the history.
    pub commits: usize,
    /// Begin anywhere in a file.
    pub anywhere: bool,
    /// Print what was not right.
    pub show: bool,
    /// Who proposes.
    pub author: Author,
}

/// A commit being typed.
struct Session<'a> {
    replay: &'a Replay,
    commit: &'a Commit,
    edits: Edits,
    last: Option<Last>,
    /// Proposals that were counted: one that stays on the screen is one.
    counted: HashSet<(String, String, String)>,
    tally: &'a mut Tally,
    note: &'a mut dyn FnMut(Kind, Case),
}

/// What somebody proposes.
struct Guess {
    kind: String,
    line: usize,
    before: String,
    after: String,
    proposal: Option<Proposal>,
}

impl Replay {
    /// Types the commits of a repository; `note` sees all candidates.
    pub fn run(&self, repository: &Path, note: &mut dyn FnMut(Kind, Case)) -> Result<Tally> {
        let commits = git::commits(repository)?;
        let every = (commits.len() / self.commits).max(1);
        let mut texts = Texts::of(repository)?;
        let mut tally = Tally::default();
        for commit in commits.iter().step_by(every).take(self.commits) {
            let Some(files) = files(commit, &mut texts)? else {
                continue;
            };
            let steps: usize = files.iter().map(|(_, typed)| typed.remaining.len()).sum();
            if !(1..=MAX_STEPS).contains(&steps) {
                continue;
            }
            tally.commits += 1;
            tally.steps += steps - 1;
            let mut session = Session {
                replay: self,
                commit,
                edits: Edits::default(),
                last: None,
                counted: HashSet::new(),
                tally: &mut tally,
                note: &mut *note,
            };
            for (path, typed) in files {
                session.type_in(&path, typed);
            }
            session.look_around(repository, &mut texts)?;
        }
        Ok(tally)
    }
}

/// The commit's texts before and after; `None` of one that touches too many files.
fn files(commit: &Commit, texts: &mut Texts) -> Result<Option<Vec<(String, Typed)>>> {
    if commit.files.len() > MAX_FILES {
        return Ok(None);
    }
    let mut files = Vec::new();
    for file in &commit.files {
        let [old, new] = &file.blobs;
        if let (Some(old), Some(new)) = (texts.get(old)?, texts.get(new)?)
            && old.len().max(new.len()) <= MAX_TEXT
        {
            files.push((file.path.clone(), Typed::new(&old, &new)));
        }
    }
    Ok(Some(files))
}

impl Session<'_> {
    /// Types a file's steps. Whoever proposes one exactly saves the typing.
    fn type_in(&mut self, path: &str, mut typed: Typed) {
        let mut line = 0;
        let mut begin = self.replay.anywhere;
        loop {
            while let Some(step) = self.ask(path, &typed, line) {
                line = self.make(path, &mut typed, step);
            }
            if typed.remaining.is_empty() {
                return;
            }
            let step = if begin {
                // As random as the commit's id, and the same each time.
                let digits = self.commit.id.get(..6).unwrap_or_default();
                usize::from_str_radix(digits, 16).unwrap_or(0) % typed.remaining.len()
            } else if self.replay.anywhere {
                let below = typed.remaining.iter().position(|step| step.line > line);
                below.unwrap_or(0)
            } else {
                0
            };
            begin = false;
            line = self.make(path, &mut typed, step);
        }
    }

    fn make(&mut self, path: &str, typed: &mut Typed, step: usize) -> usize {
        let Self { edits, last, .. } = self;
        typed.step(step, |change| {
            edits.change(path, change);
            *last = Last::of(change);
        })
    }

    /// Asks; gives the step that an exact proposal makes.
    fn ask(&mut self, path: &str, typed: &Typed, line: usize) -> Option<usize> {
        let here = Here {
            document: path,
            language: git::language(path).unwrap_or("plaintext"),
            text: &typed.text,
            line,
        };
        self.tally.asked += 1;
        let guess = match self.replay.author {
            Author::Nobody => {
                self.note_candidates(here, typed);
                None
            }
            Author::Tandem(least) => propose(&self.edits, here, least).map(Guess::from),
            Author::NextOccurrence => {
                let last = self.last.as_ref()?;
                let (line, before, after) = occurrence::next(last, &typed.text, line)?;
                Some(Guess {
                    kind: "next occurrence".to_owned(),
                    line,
                    before,
                    after,
                    proposal: None,
                })
            }
        }?;
        let one = (path.to_owned(), guess.before.clone(), guess.after.clone());
        if !self.counted.insert(one) {
            return None;
        }
        let verdict = judge(typed, guess.line, &guess.before, &guess.after);
        self.tally.count(&guess.kind, verdict);
        if let Verdict::Exact(step) = verdict {
            return step;
        }
        if self.replay.show {
            let Guess {
                kind,
                line,
                before,
                after,
                ..
            } = &guess;
            let commit = &self.commit.id;
            println!(
                "{commit} {path}:{} {kind} {verdict:?}\n-{before}\n+{after}",
                line + 1
            );
        }
        if verdict != Verdict::Part
            && let Some(proposal) = &guess.proposal
        {
            self.edits.reject(proposal);
        }
        None
    }

    fn note_candidates(&mut self, here: Here<'_>, typed: &Typed) {
        let mut found = candidates(&self.edits, here);
        found.truncate(MAX_CASES);
        // A question with many candidates does not count for as much more.
        let weight = 1.0 / (found.len() as f64).sqrt();
        for one in &found {
            let right = match judge(typed, one.line, &one.before, &one.after) {
                Verdict::Exact(_) => true,
                // Neither what was wanted nor what was not.
                Verdict::Part => continue,
                Verdict::Place | Verdict::Wrong => false,
            };
            (self.note)(
                one.kind,
                Case {
                    features: one.features,
                    right,
                    weight,
                },
            );
        }
    }

    /// Opens files that the commit leaves alone.
    fn look_around(&mut self, repository: &Path, texts: &mut Texts) -> Result<()> {
        let Some(first) = self.commit.files.first() else {
            return Ok(());
        };
        // A commit without a parent has nothing beside it.
        let beside = git::beside(repository, &self.commit.id, &first.path).unwrap_or_default();
        let others = beside.into_iter().filter(|(path, _)| {
            git::language(path) == git::language(&first.path)
                && self.commit.files.iter().all(|file| file.path != *path)
        });
        for (path, blob) in others.take(BYSTANDERS).collect::<Vec<_>>() {
            if let Some(text) = texts.get(&blob)?
                && text.len() <= MAX_TEXT
            {
                self.ask(&path, &Typed::new(&text, &text), 0);
            }
        }
        Ok(())
    }
}

impl From<Proposal> for Guess {
    fn from(proposal: Proposal) -> Self {
        let kind = match proposal.kind {
            Kind::Rename => "rename",
            Kind::Repeat => "repeat",
        };
        let whence = if proposal.elsewhere {
            ", from another file"
        } else {
            ""
        };
        Self {
            kind: format!("{kind}{whence}"),
            line: proposal.line,
            before: proposal.before.clone(),
            after: proposal.after.clone(),
            proposal: Some(proposal),
        }
    }
}
