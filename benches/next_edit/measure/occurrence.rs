//! A control: what was replaced last is replaced where it stands next.

use ropey::Rope;
use tandem::next_edit::Change;

/// The words that were replaced last, and those that took their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    old: String,
    new: String,
}

impl Last {
    /// What a change within a line replaced, whole words. `None` if it only inserts, or more than a
    /// line.
    #[must_use]
    pub fn of(change: &Change<'_>) -> Option<Self> {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let (mut start, mut end) = (change.replaced.start, change.replaced.end);
        let before = change.before;
        while start > 0 && word(before.char(start - 1)) {
            start -= 1;
        }
        while end < before.len_chars() && word(before.char(end)) {
            end += 1;
        }
        let old = before.slice(start..end).to_string();
        let longer = change.replaced.start - start + end - change.replaced.end;
        let new_end = start + longer + change.inserted;
        let new = change.after.slice(start..new_end).to_string();
        let one_line = |text: &str| !text.contains(['\n', '\r']);
        (!old.trim().is_empty() && one_line(&old) && one_line(&new)).then_some(Self { old, new })
    }
}

/// The next line below, or from the top, in which the words stand, and what it becomes.
#[must_use]
pub fn next(last: &Last, text: &Rope, line: usize) -> Option<(usize, String, String)> {
    let lines = text.len_lines();
    (line + 1..lines)
        .chain(0..(line + 1).min(lines))
        .find_map(|number| {
            let mut before = text.line(number).to_string();
            before.truncate(before.trim_end_matches(['\n', '\r']).len());
            let after = before.replacen(&last.old, &last.new, 1);
            (after != before).then_some((number, before, after))
        })
}
