//! Counts, and the table they make.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::measure::judge::Verdict;

/// What came of the proposals of one author.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// Commits that were typed.
    pub commits: usize,
    /// Steps that could have been proposed: all but the first of each commit.
    pub steps: usize,
    /// How often the next edit was asked for.
    pub asked: usize,
    /// By kind of proposal.
    pub kinds: BTreeMap<String, Counts>,
}

/// Verdicts.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counts {
    /// The commit has this line, character for character.
    pub exact: usize,
    /// A part of what the commit does to this line.
    pub part: usize,
    /// The right line with another text.
    pub place: usize,
    /// Not in the commit.
    pub wrong: usize,
}

impl Tally {
    /// Counts a verdict.
    pub fn count(&mut self, kind: &str, verdict: Verdict) {
        let counts = self.kinds.entry(kind.to_owned()).or_default();
        match verdict {
            Verdict::Exact(_) => counts.exact += 1,
            Verdict::Part => counts.part += 1,
            Verdict::Place => counts.place += 1,
            Verdict::Wrong => counts.wrong += 1,
        }
    }

    /// Adds those of another repository.
    pub fn add(&mut self, other: &Self) {
        self.commits += other.commits;
        self.steps += other.steps;
        self.asked += other.asked;
        for (kind, counts) in &other.kinds {
            let own = self.kinds.entry(kind.clone()).or_default();
            *own = own.plus(*counts);
        }
    }

    fn all(&self) -> Counts {
        let all = self.kinds.values().copied();
        all.fold(Counts::default(), Counts::plus)
    }
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            exact: self.exact + other.exact,
            part: self.part + other.part,
            place: self.place + other.place,
            wrong: self.wrong + other.wrong,
        }
    }

    fn proposed(&self) -> usize {
        self.exact + self.part + self.place + self.wrong
    }
}

/// The table, with the control that knows one trick and the one that proposes nothing.
pub fn table(tandem: &Tally, next_occurrence: &Tally) -> String {
    let mut table = format!(
        "{} commits, {} steps after their first, asked {} times\n\n| | proposed | exact | with a part of \
         the line | right line, other text | wrong | of the steps |\n|---|---|---|---|---|---|---|\n",
        tandem.commits, tandem.steps, tandem.asked
    );
    for (kind, counts) in &tandem.kinds {
        row(&mut table, kind, counts, tandem.steps);
    }
    row(&mut table, "**Tandem**", &tandem.all(), tandem.steps);
    let control = next_occurrence.all();
    row(
        &mut table,
        "control: the next occurrence",
        &control,
        next_occurrence.steps,
    );
    row(
        &mut table,
        "control: never",
        &Counts::default(),
        tandem.steps,
    );
    table
}

fn row(table: &mut String, name: &str, counts: &Counts, steps: usize) {
    let part = |count: usize, of: usize| 100.0 * count as f64 / of.max(1) as f64;
    let proposed = counts.proposed();
    // Writing to a string does not fail.
    let _ = writeln!(
        table,
        "| {name} | {proposed} | {:.1} % | {:.1} % | {} | {} | {:.1} % |",
        part(counts.exact, proposed),
        part(counts.exact + counts.part, proposed),
        counts.place,
        counts.wrong,
        part(counts.exact, steps),
    );
}
