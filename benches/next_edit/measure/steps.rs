//! A file's change as steps, each typed at one place, top to bottom.

use ropey::Rope;
use similar::{Algorithm, DiffOp, capture_diff_slices};
use tandem::next_edit::Change;

/// One place that a commit changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The first of its lines, in the document as it is now.
    pub line: usize,
    /// How many lines it replaces.
    pub old: usize,
    /// The lines that take their place, with their ends.
    pub new: Vec<String>,
}

/// The document of a commit while it is being typed.
#[derive(Debug, Clone)]
pub struct Typed {
    /// The text as it is now.
    pub text: Rope,
    /// What remains to be typed, top to bottom.
    pub remaining: Vec<Step>,
}

/// Lines with their ends, by the document's own idea of lines.
fn lines(text: &Rope) -> Vec<String> {
    let lines = text.lines().map(|line| line.to_string());
    lines.filter(|line| !line.is_empty()).collect()
}

impl Typed {
    /// What turns `old` into `new`. Hunks that have as many lines after as before are a step for
    /// each line that differs.
    #[must_use]
    pub fn new(old: &str, new: &str) -> Self {
        let text = Rope::from_str(old);
        let (a, b) = (lines(&text), lines(&Rope::from_str(new)));
        let mut remaining = Vec::new();
        for op in capture_diff_slices(Algorithm::Myers, &a, &b) {
            let DiffOp::Equal { .. } = op else {
                let (from, to) = (op.old_range(), op.new_range());
                if from.len() == to.len() {
                    for (line, new) in from.zip(&b[to]) {
                        if a[line] != *new {
                            remaining.push(Step {
                                line,
                                old: 1,
                                new: vec![new.clone()],
                            });
                        }
                    }
                } else {
                    remaining.push(Step {
                        line: from.start,
                        old: from.len(),
                        new: b[to].to_vec(),
                    });
                }
                continue;
            };
        }
        Self { text, remaining }
    }

    /// Types one step: the text before and what was replaced by how much, for the history. Gives
    /// the line where the cursor is afterwards.
    pub fn step(&mut self, at: usize, mut typed: impl FnMut(&Change<'_>)) -> usize {
        let step = self.remaining.remove(at);
        let before = self.text.clone();
        let line = |line: usize| before.line_to_char(line.min(before.len_lines()));
        let (start, end) = (line(step.line), line(step.line + step.old));
        let old: Vec<char> = before.slice(start..end).chars().collect();
        let new: Vec<char> = step.new.concat().chars().collect();
        // A person types within a line what differs, and whole lines whole.
        let within = step.old == 1 && step.new.len() == 1;
        let (mut prefix, mut suffix) = (0, 0);
        if within {
            let longest = old.len().min(new.len());
            prefix = (0..longest).take_while(|&i| old[i] == new[i]).count();
            suffix = (0..longest - prefix)
                .take_while(|&i| old[old.len() - 1 - i] == new[new.len() - 1 - i])
                .count();
        }
        let replaced = start + prefix..end - suffix;
        let inserted: String = new[prefix..new.len() - suffix].iter().collect();
        self.text.remove(replaced.clone());
        self.text.insert(replaced.start, &inserted);
        typed(&Change {
            before: &before,
            replaced,
            after: &self.text,
            inserted: inserted.chars().count(),
        });
        for later in &mut self.remaining {
            if later.line >= step.line + step.old {
                later.line = later.line - step.old + step.new.len();
            }
        }
        (step.line + step.new.len()).saturating_sub(1)
    }
}
