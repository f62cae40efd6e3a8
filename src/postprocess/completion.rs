//! Completions: how much of an answer is inserted at the cursor.

use super::circles;
use super::place::{Place, indentation, is_distinctive};
use super::stop::{Found, StopSequences};
use super::{Progress, is_crlf, to_document};
use crate::inference::{CompleteTask, EmptyReason};

/// The most bytes of an answer that are looked at: far more than any completion that is kept.
const MOST_BYTES: usize = 16 * 1024;

/// The least length at which the beginning of the cursor's line is recognised at the beginning of
/// an answer: shorter ones repeat by right (`foo(foo(x))`).
const LEAST_ECHO: usize = 8;

/// What opens and closes a Markdown fence. Only seen where a line begins: doc comments hold it too.
const FENCE: &str = "```";

/// What a line that goes on with the cursor's block begins with, besides brackets.
const CONTINUATIONS: &[&str] = &[
    "else", "elif", "elsif", "elseif", "except", "finally", "catch", "rescue", "ensure", "end",
    "then", "do", "fi", "done", "esac", "until",
];

/// Gathers a completion as it comes, and says as soon as the rest would be cut anyway.
#[derive(Debug)]
pub struct CompletionFilter {
    stops: StopSequences,
    fence: StopSequences,
    place: Place,
    crlf: bool,
    text: String,
    enough: bool,
    cut_off: bool,
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
            fence: StopSequences::new(&[format!("\n{FENCE}")]),
            place: Place::of(task),
            crlf: is_crlf(&[&task.prefix, &task.suffix]),
            text: String::new(),
            enough: false,
            cut_off: false,
        }
    }

    /// Adds a piece of the answer.
    pub fn push(&mut self, text: &str) -> Progress {
        if !self.enough {
            let before = self.text.len();
            self.text.extend(text.chars().filter(|c| *c != '\r'));
            self.enough = self.is_enough(&self.text);
            if self.enough {
                self.text.truncate(self.first_enough(before));
            }
        }
        if self.enough {
            Progress::Enough
        } else {
            Progress::More
        }
    }

    /// Notes that the answer has ended since it became too long, wherever that was.
    pub fn cut_off(&mut self) {
        self.cut_off = true;
    }

    /// Whether all that may follow `text` would be cut. What is enough stays enough, whatever
    /// follows.
    fn is_enough(&self, text: &str) -> bool {
        text.len() > MOST_BYTES
            || match self.stops.find(text) {
                Found::StopAt(_) => true,
                // What may turn out to be a stop sequence is not judged yet.
                Found::ClearTo(at) => self.keep(&text[..at], false).ended_by != EndedBy::Nothing,
            }
    }

    /// The least length at which the text, which is enough, was enough; more than `before`. What
    /// came after it in the same piece might else be judged too, and the pieces would matter.
    fn first_enough(&self, before: usize) -> usize {
        let ends: Vec<usize> = self.text[before..]
            .char_indices()
            .map(|(at, character)| before + at + character.len_utf8())
            .collect();
        let first = ends.partition_point(|end| !self.is_enough(&self.text[..*end]));
        ends.get(first).copied().unwrap_or(self.text.len())
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
        let kept = self.keep(&self.text, true);
        let text = &self.text[kept.start..kept.end];
        if text.trim().is_empty() {
            return Err(match kept.ended_by {
                EndedBy::Suffix => EmptyReason::RepeatsSuffix,
                EndedBy::Prefix => EmptyReason::RepeatsPrefix,
                EndedBy::Shape | EndedBy::Nothing => EmptyReason::OnlyWhitespace,
            });
        }
        let text = &text[..self.whole(text, kept.ended_by)];
        // White space before text that follows on the line is part of that line.
        let text = if self.place.line_after.trim().is_empty() {
            text.trim_end()
        } else {
            text.trim_end_matches('\n')
        };
        Ok(to_document(text.to_owned(), self.crlf))
    }

    /// How much of `text`, of several lines, is whole: without a last line that was cut off, and without
    /// lines that open what no line closes any more. Of one line, all.
    fn whole(&self, text: &str, ended_by: EndedBy) -> usize {
        let mut end = text.len();
        let cut = |end: usize, at: Option<usize>| match at {
            Some(at) if !text[..at].trim().is_empty() => at,
            _ => end,
        };
        if self.cut_off && ended_by == EndedBy::Nothing {
            end = cut(end, text.rfind('\n'));
        }
        end = cut(end, self.place.brackets.last_closed(&text[..end]));
        // A body that is still to come is opened by what stands last.
        let lines = text[..end].trim_end();
        let last = lines.rfind('\n').map_or(0, |at| at + 1);
        if self.place.opens_without_body(&lines[last..]) {
            end = cut(end, last.checked_sub(1));
        }
        end
    }

    /// What of `whole` is kept. `ended` says that nothing more comes, so that a last line without
    /// its end is a line.
    fn keep(&self, whole: &str, ended: bool) -> Kept {
        let (whole, mut ended_by) = match self.stops.find(whole) {
            Found::StopAt(at) => (&whole[..at], EndedBy::Shape),
            Found::ClearTo(_) => (whole, EndedBy::Nothing),
        };
        let whole = match self.fence_end(whole) {
            Some(Found::StopAt(at)) => {
                ended_by = EndedBy::Shape;
                &whole[..at]
            }
            Some(Found::ClearTo(at)) if !ended => &whole[..at],
            Some(Found::ClearTo(_)) | None => whole,
        };
        let whole = match whole.find(is_unprintable) {
            Some(at) => {
                ended_by = EndedBy::Shape;
                &whole[..at]
            }
            None => whole,
        };
        let mut ended = ended || ended_by != EndedBy::Nothing;
        let start = self.start(whole, ended);
        let mut kept = &whole[start..];
        // Within lines first, so that the lines are judged as they are left.
        if let Some((at, by)) = self.within_lines(kept, ended) {
            (kept, ended_by, ended) = (&kept[..at], by, true);
        }
        let by_lines = self.by_lines(kept, ended).into_iter();
        let circles = circles::by_lines(kept, ended)
            .into_iter()
            .chain(circles::within_line(kept));
        let cut = by_lines.chain(circles.map(|at| (at, EndedBy::Prefix)));
        if let Some((at, by)) = cut.min_by_key(|(at, _)| *at) {
            (kept, ended_by) = (&kept[..at], by);
        }
        if (ended || ended_by != EndedBy::Nothing)
            && let Some(at) = self.overlap(kept)
        {
            (kept, ended_by) = (&kept[..at], EndedBy::Suffix);
        }
        Kept {
            start,
            end: start + kept.len(),
            ended_by,
        }
    }

    /// Where the Markdown fence around the answer ends, `None` where there is no fence.
    fn fence_end(&self, whole: &str) -> Option<Found> {
        let opening = self.fence_line(whole)?;
        let found = self.fence.find(&whole[opening..]);
        Some(match found {
            Found::StopAt(at) => Found::StopAt(opening + at),
            Found::ClearTo(at) => Found::ClearTo(opening + at),
        })
    }

    /// The length of the line that opens a Markdown fence around the answer, without its end;
    /// `None` where there is no such line yet.
    fn fence_line(&self, whole: &str) -> Option<usize> {
        (!self.place.markdown && whole.starts_with(FENCE))
            .then(|| whole.find('\n'))
            .flatten()
    }

    /// Where the answer ends within a line: before what the text after the cursor closes itself, or
    /// all that follows on the cursor's line. `ended` says that nothing follows `text`.
    fn within_lines(&self, text: &str, ended: bool) -> Option<(usize, EndedBy)> {
        let place = &self.place;
        let excess = place.brackets.first_excess(text, ended).map(|at| {
            let by = if place.brackets.suffix_closes() {
                EndedBy::Suffix
            } else {
                EndedBy::Shape
            };
            (at, by)
        });
        let follows = place.line_after.trim_end();
        let quote = place
            .brackets
            .end_of_string(text)
            .filter(|at| follows.chars().next() == text[*at..].chars().next());
        let line = text.split('\n').next().unwrap_or(text);
        let again = (follows.trim().len() >= 3)
            .then(|| line.find(follows.trim_start()))
            .flatten()
            .filter(|at| self.is_apart(&line[..*at], follows));
        let suffix = quote.into_iter().chain(again).min();
        let suffix = suffix.map(|at| (at, EndedBy::Suffix));
        excess.into_iter().chain(suffix).min_by_key(|(at, _)| *at)
    }

    /// Where the answer begins: after a Markdown fence, a repeated beginning of the cursor's line,
    /// and a space that is there already. At its end where more must come to tell; `ended` says that
    /// nothing does.
    fn start(&self, whole: &str, ended: bool) -> usize {
        if !self.place.markdown && !ended && FENCE.starts_with(whole) {
            return whole.len();
        }
        let mut start = self
            .fence_line(whole)
            .map_or(0, |line| (line + 1).min(whole.len()));
        if start == 0 && !self.place.markdown && whole.starts_with(FENCE) {
            // The opening line is not complete.
            return whole.len();
        }
        let echo = self.place.line_before.trim_start();
        if echo.trim_end().len() >= LEAST_ECHO && echo.contains(' ') {
            let text = whole[start..].trim_start();
            if let Some(rest) = text.strip_prefix(echo) {
                start = whole.len() - rest.len();
            } else if !ended && echo.starts_with(text) {
                return whole.len();
            }
        }
        if self.place.line_before.ends_with([' ', '\t']) {
            let text = &whole[start..];
            start += text.len() - text.trim_start_matches([' ', '\t']).len();
        }
        start
    }

    /// Where the answer ends by its lines: by shape, by a repetition of the next lines, or of the
    /// previous one.
    fn by_lines(&self, text: &str, ended: bool) -> Option<(usize, EndedBy)> {
        let place = &self.place;
        if place.one_line {
            let (line, ended) = match text.split_once('\n') {
                Some((line, _)) => (line, true),
                None => (text, ended),
            };
            let full = format!("{}{line}", place.line_before);
            let repeats = ended.then(|| self.repeats(&full, 0)).flatten();
            let at_end = (line.len() < text.len()).then_some((line.len(), EndedBy::Shape));
            return repeats.map(|by| (0, by)).or(at_end);
        }
        let mut begun = !place.line_before.trim().is_empty();
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
            if number > 0 && number >= place.most_lines {
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
            if base.is_some_and(|base| width < base)
                && self.place.brackets.judges()
                && is_closing(&full)
            {
                // It closes what is open around the cursor, and what is beyond belongs elsewhere.
                base = Some(width);
                begun = true;
            }
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
        None
    }

    /// Whether a line is one of those around the cursor come again.
    fn repeats(&self, line: &str, number: usize) -> Option<EndedBy> {
        let line = line.trim_end();
        let next = self.place.next.first();
        // Brackets are judged by what they close, where that can be told.
        let tells = !is_closing(line) || !self.place.brackets.judges();
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

    /// Where the end of `text` is the beginning of what follows on the cursor's line.
    fn overlap(&self, text: &str) -> Option<usize> {
        let text = text.trim_end();
        let follows = self.place.line_after.trim_end();
        if text.contains('\n') {
            return None;
        }
        let lengths = follows.char_indices().map(|(at, c)| at + c.len_utf8());
        lengths.rev().find_map(|length| {
            let (again, beyond) = follows.split_at(length);
            let at = text.strip_suffix(again)?.len();
            let splits_word = again.ends_with(is_word) && beyond.starts_with(is_word);
            let within_word = again.starts_with(is_word) && text[..at].ends_with(is_word);
            let apart = self.is_apart(&text[..at], again) && !self.closes_more(again);
            (!splits_word && !within_word && apart).then_some(at)
        })
    }

    /// Whether `rest` closes nothing that `text` before it opens.
    fn is_apart(&self, text: &str, rest: &str) -> bool {
        if !self.place.brackets.judges() {
            return true;
        }
        let (open, _) = depth(text);
        let (_, lowest) = depth(rest);
        open <= 0 || lowest >= 0
    }

    /// Whether `again`, the end of an answer, closes what the document leaves open: an answer has been
    /// cut before the first bracket that closes more.
    fn closes_more(&self, again: &str) -> bool {
        let (_, lowest) = depth(again);
        self.place.brackets.judges() && lowest < 0
    }
}

/// How many brackets are open at the end of `text`, and at the least within it.
fn depth(text: &str) -> (i64, i64) {
    text.chars().fold((0, 0), |(depth, least), character| {
        let depth = match character {
            '(' | '[' | '{' => depth + 1,
            ')' | ']' | '}' => depth - 1,
            _ => depth,
        };
        (depth, least.min(depth))
    })
}

/// Whether a character has no place in source that a person is to read: control characters, and
/// those that turn the order of the text around them so that it reads other than it runs
/// (CVE-2021-42574, "Trojan Source").
fn is_unprintable(character: char) -> bool {
    let turns = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (character.is_control() && !matches!(character, '\n' | '\t'))
}

/// Whether a line only closes brackets.
fn is_closing(line: &str) -> bool {
    line.trim().chars().all(|c| ")]};,".contains(c))
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
