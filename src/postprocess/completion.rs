//! Completions: how much of an answer is inserted at the cursor.

use super::place::{Place, indentation, is_distinctive};
use super::stop::{Found, StopSequences};
use super::{Progress, is_crlf, to_document};
use crate::inference::{CompleteTask, EmptyReason};

/// The most bytes of an answer that are looked at: far more than any completion that is kept.
const MOST_BYTES: usize = 16 * 1024;

/// The longest cycle of lines that is recognised as going round in circles.
const LONGEST_CYCLE: usize = 4;

/// The least length at which the beginning of the cursor's line is recognised at the beginning of
/// an answer: shorter ones repeat by right (`foo(foo(x))`).
const LEAST_ECHO: usize = 8;

/// What a line that goes on with the cursor's block begins with, besides brackets.
const CONTINUATIONS: &[&str] = &[
    "else", "elif", "elsif", "elseif", "except", "finally", "catch", "rescue", "ensure", "end",
    "then", "do", "fi", "done", "esac", "until",
];

/// Gathers a completion as it comes, and says as soon as the rest would be cut anyway.
#[derive(Debug)]
pub struct CompletionFilter {
    stops: StopSequences,
    place: Place,
    crlf: bool,
    text: String,
    enough: bool,
}

/// What of an answer is kept, in bytes, and what ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    start: usize,
    end: usize,
    ended_by: EndedBy,
}

/// Why an answer is cut where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndedBy {
    /// It is not: what comes is kept.
    Nothing,
    /// A stop sequence, or the end of what was asked for.
    Shape,
    /// From here on it repeats what follows the cursor.
    Suffix,
    /// It repeats what stands before the cursor, or itself.
    Prefix,
}

impl CompletionFilter {
    /// For the cursor of `task`; the answer ends before any of `stops`.
    #[must_use]
    pub fn new(task: &CompleteTask, stops: &[String]) -> Self {
        Self {
            stops: StopSequences::new(stops),
            place: Place::of(task),
            crlf: is_crlf(&[&task.prefix, &task.suffix]),
            text: String::new(),
            enough: false,
        }
    }

    /// Adds a piece of the answer.
    pub fn push(&mut self, text: &str) -> Progress {
        if !self.enough {
            self.text.extend(text.chars().filter(|c| *c != '\r'));
            self.enough = self.text.len() > MOST_BYTES
                || self.keep(&self.text, false).ended_by != EndedBy::Nothing;
        }
        if self.enough {
            Progress::Enough
        } else {
            Progress::More
        }
    }

    /// What may be inserted.
    ///
    /// # Errors
    /// The reason why nothing is left.
    pub fn finish(self) -> Result<String, EmptyReason> {
        if self.text.is_empty() {
            return Err(EmptyReason::ModelSilent);
        }
        if self.text.trim().is_empty() {
            return Err(EmptyReason::OnlyWhitespace);
        }
        let kept = self.keep(&self.text, !self.enough);
        let text = &self.text[kept.start..kept.end];
        if text.trim().is_empty() {
            return Err(match kept.ended_by {
                EndedBy::Suffix => EmptyReason::RepeatsSuffix,
                EndedBy::Prefix => EmptyReason::RepeatsPrefix,
                EndedBy::Shape | EndedBy::Nothing => EmptyReason::OnlyWhitespace,
            });
        }
        // White space before text that follows on the line is part of that line.
        let text = if self.place.line_after.trim().is_empty() {
            text.trim_end()
        } else {
            text.trim_end_matches('\n')
        };
        Ok(to_document(text.to_owned(), self.crlf))
    }

    /// What of `whole` is kept. `ended` says that nothing more comes, so that a last line without
    /// its end is a line.
    fn keep(&self, whole: &str, ended: bool) -> Kept {
        let start = self.start(whole);
        let text = &whole[start..];
        let stop = match self.stops.find(text) {
            Found::StopAt(at) => Some((at, EndedBy::Shape)),
            Found::ClearTo(_) => None,
        };
        let fence = (start > 0 && is_fence(whole))
            .then(|| text.find("```"))
            .flatten()
            .map(|at| (at, EndedBy::Shape));
        let excess = self.place.brackets.first_excess(text).map(|at| {
            let by = if self.place.brackets.suffix_closes() {
                EndedBy::Suffix
            } else {
                EndedBy::Shape
            };
            (at, by)
        });
        let quote = self
            .place
            .line_after
            .chars()
            .next()
            .zip(self.place.brackets.end_of_string(text))
            .filter(|(quote, at)| text[*at..].starts_with(*quote))
            .map(|(_, at)| (at, EndedBy::Suffix));
        let cuts = [
            stop,
            fence,
            excess,
            quote,
            self.by_lines(text, ended),
            self.by_cycles(text, ended),
        ];
        let (mut end, mut ended_by) = cuts
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
            .unwrap_or((text.len(), EndedBy::Nothing));
        if let Some(at) = self.overlap(&text[..end], ended || ended_by != EndedBy::Nothing) {
            (end, ended_by) = (at, EndedBy::Suffix);
        }
        Kept {
            start,
            end: start + end,
            ended_by,
        }
    }

    /// Where the answer begins: after a Markdown fence, a repeated beginning of the cursor's line,
    /// and a space that is there already.
    fn start(&self, whole: &str) -> usize {
        let mut start = 0;
        if !self.place.markdown && is_fence(whole) {
            match whole.find('\n') {
                Some(line) => start = line + 1,
                None => return whole.len(),
            }
        }
        let echo = self.place.line_before.trim_start();
        if echo.trim_end().len() >= LEAST_ECHO && echo.contains(' ') {
            let text = whole[start..].trim_start();
            if let Some(rest) = text.strip_prefix(echo) {
                start = whole.len() - rest.len();
            }
        }
        if echo.ends_with([' ', '\t']) {
            let text = &whole[start..];
            start += text.len() - text.trim_start_matches([' ', '\t']).len();
        }
        start
    }

    /// Where the answer ends by its lines: by shape, by a repetition of the next lines, or of the
    /// previous one.
    fn by_lines(&self, text: &str, ended: bool) -> Option<(usize, EndedBy)> {
        let place = &self.place;
        let begun = !place.line_before.trim().is_empty();
        let mut base = begun.then(|| indentation(&place.line_before));
        let mut after_blank = false;
        let mut kept_any = false;
        let mut at = 0;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            // Where the cut falls if it falls before this line.
            let cut = at;
            at += line.len();
            let whole = line.ends_with('\n') || ended;
            let line = line.trim_end_matches('\n');
            if number > 0 && (place.one_line || number >= place.most_lines) {
                return Some((cut, EndedBy::Shape));
            }
            let full = if number == 0 {
                format!("{}{line}", place.line_before)
            } else {
                line.to_owned()
            };
            if full.trim().is_empty() {
                after_blank |= number > 0;
                continue;
            }
            let width = indentation(&full);
            let base = *base.get_or_insert(width);
            if number > 0 && kept_any {
                let sibling = width == base && !continues(&full);
                // Its first characters tell whether it continues, once they are a word.
                let told = whole || width != base || full.trim().len() > 8;
                if width < base || (told && sibling && !place.siblings && (begun || after_blank)) {
                    return Some((cut, EndedBy::Shape));
                }
            }
            if whole && let Some(by) = self.repeats(&full, number) {
                return Some((cut, by));
            }
            kept_any = true;
            after_blank = false;
        }
        // At the first line's end nothing more of one line can come.
        (place.one_line && text.contains('\n'))
            .then(|| text.find('\n').map(|at| (at, EndedBy::Shape)))
            .flatten()
    }

    /// Whether a line is one of those around the cursor come again.
    fn repeats(&self, line: &str, number: usize) -> Option<EndedBy> {
        let line = line.trim_end();
        let next = self.place.next.first();
        let brackets_only = line.trim().chars().all(|c| "()[]{};,".contains(c));
        // Brackets are judged by what they close, where that can be told.
        let tells = !brackets_only || !self.place.brackets.judges();
        if let Some(next) = next
            && tells
            && self.place.line_after.trim().is_empty()
            && (line == next || (is_distinctive(line) && line.trim() == next.trim()))
        {
            return Some(EndedBy::Suffix);
        }
        let previous = self.place.previous.as_ref().filter(|_| number == 0);
        if let Some(previous) = previous
            && self.place.line_before.trim().is_empty()
            && is_distinctive(line)
            && line.trim() == previous.trim()
        {
            return Some(EndedBy::Prefix);
        }
        None
    }

    /// Where the answer starts to go round in circles.
    fn by_cycles(&self, text: &str, ended: bool) -> Option<(usize, EndedBy)> {
        let mut lines: Vec<(usize, &str)> = Vec::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if line.ends_with('\n') || ended {
                lines.push((at, line.trim_end()));
            }
            at += line.len();
        }
        for end in 1..=lines.len() {
            let seen = &lines[..end];
            for cycle in 1..=LONGEST_CYCLE {
                // A single line may come twice by right; not three times, nor several lines twice.
                let times = if cycle == 1 { 3 } else { 2 };
                let Some(from) = end.checked_sub(cycle * times) else {
                    continue;
                };
                let (first, rest) = seen[from..].split_at(cycle);
                let again = rest
                    .chunks(cycle)
                    .all(|one| one.iter().map(|(_, l)| l).eq(first.iter().map(|(_, l)| l)));
                if again && first.iter().any(|(_, line)| is_distinctive(line)) {
                    return Some((rest[0].0, EndedBy::Prefix));
                }
            }
        }
        None
    }

    /// Where the end of `text` is the beginning of what follows on the cursor's line.
    fn overlap(&self, text: &str, ended: bool) -> Option<usize> {
        let follows = self.place.line_after.trim_end();
        if follows.is_empty() || text.contains('\n') {
            return None;
        }
        // All that follows comes again: whatever the model says after that is beyond the line.
        if follows.trim().len() >= 3
            && let Some(at) = text
                .find(follows)
                .or_else(|| text.find(follows.trim_start()))
            && self.is_apart(&text[..at], &text[at..])
        {
            return Some(at);
        }
        if !ended {
            return None;
        }
        let text = text.trim_end();
        let lengths = follows.char_indices().map(|(at, c)| at + c.len_utf8());
        lengths.rev().find_map(|length| {
            let (again, beyond) = follows.split_at(length);
            let at = text.strip_suffix(again)?.len();
            let splits_word = again.ends_with(is_word) && beyond.starts_with(is_word);
            let within_word = again.starts_with(is_word) && text[..at].ends_with(is_word);
            (!splits_word && !within_word && self.is_apart(&text[..at], again)).then_some(at)
        })
    }

    /// Whether `rest` closes nothing that `text` before it opens.
    fn is_apart(&self, text: &str, rest: &str) -> bool {
        if !self.place.brackets.judges() {
            return true;
        }
        let depth = |text: &str| {
            text.chars().fold((0_i64, 0_i64), |(depth, least), c| {
                let depth = match c {
                    '(' | '[' | '{' => depth + 1,
                    ')' | ']' | '}' => depth - 1,
                    _ => depth,
                };
                (depth, least.min(depth))
            })
        };
        let (open, _) = depth(text);
        let (_, lowest) = depth(rest);
        open <= 0 || lowest >= 0
    }
}

/// Whether an answer begins with a Markdown fence.
fn is_fence(text: &str) -> bool {
    text.starts_with("```")
}

/// Whether a line at a block's own indentation goes on with the block.
fn continues(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with(['}', ')', ']', '{', '|', '&', '.', '?', '+'])
        || CONTINUATIONS.iter().any(|word| {
            line.strip_prefix(word)
                .is_some_and(|rest| !rest.starts_with(is_word))
        })
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}
