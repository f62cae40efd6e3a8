//! Answers that stream straight through: conversations as they are, edits without the Markdown
//! around them.

use super::stop::{Found, StopSequences};
use super::{Progress, is_crlf};
use crate::inference::EditTask;

/// Passes an answer on piece by piece.
#[derive(Debug)]
pub struct TextFilter {
    stops: StopSequences,
    /// Text in which a stop sequence may still begin.
    held: String,
    edit: Option<EditFilter>,
    ready: String,
    ended: bool,
}

/// Takes the Markdown fence off a replacement, and gives it the line ends and the last line break
/// that the replaced piece has.
#[derive(Debug)]
struct EditFilter {
    /// The line that is not complete yet, or may still turn out to be a fence.
    line: String,
    /// Line breaks that may turn out to be the last ones.
    breaks: usize,
    fence: Fence,
    started: bool,
    crlf: bool,
    /// Whether the replaced piece ends with a line break.
    ends_with_break: bool,
}

/// Where an answer is with respect to the fence around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fence {
    /// Nothing but blank lines so far.
    Undecided,
    /// There is none.
    None,
    /// Inside one of this mark and length, with so many fences opened within.
    Inside {
        mark: char,
        length: usize,
        depth: usize,
    },
    /// After its end.
    Closed,
}

impl TextFilter {
    /// For an answer in a conversation.
    #[must_use]
    pub fn chat(stops: &[String]) -> Self {
        Self {
            stops: StopSequences::new(stops),
            held: String::new(),
            edit: None,
            ready: String::new(),
            ended: false,
        }
    }

    /// For the replacement that `task` asks for.
    #[must_use]
    pub fn edit(task: &EditTask, stops: &[String]) -> Self {
        let filter = EditFilter {
            line: String::new(),
            breaks: 0,
            // A piece that starts with a fence is Markdown, and its replacement keeps its fences.
            fence: match fence_of(task.selection.trim_start()) {
                Some(_) => Fence::None,
                None => Fence::Undecided,
            },
            started: false,
            crlf: is_crlf(&[&task.selection, &task.before, &task.after]),
            ends_with_break: task.selection.ends_with('\n'),
        };
        Self {
            edit: Some(filter),
            ..Self::chat(stops)
        }
    }

    /// Adds a piece of the answer.
    pub fn push(&mut self, text: &str) -> Progress {
        if self.ended {
            return Progress::Enough;
        }
        self.held.push_str(text);
        match self.stops.find(&self.held) {
            Found::StopAt(at) => {
                self.held.truncate(at);
                let held = std::mem::take(&mut self.held);
                self.forward(&held);
                self.ended = true;
            }
            Found::ClearTo(at) => {
                let rest = self.held.split_off(at);
                let clear = std::mem::replace(&mut self.held, rest);
                self.forward(&clear);
            }
        }
        if self.ended {
            Progress::Enough
        } else {
            Progress::More
        }
    }

    /// What can be passed on by now.
    #[must_use]
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.ready)
    }

    /// What is left at the end.
    #[must_use]
    pub fn finish(mut self) -> String {
        if !self.ended {
            let held = std::mem::take(&mut self.held);
            self.forward(&held);
        }
        if let Some(edit) = &mut self.edit {
            edit.finish(&mut self.ready);
        }
        self.ready
    }

    fn forward(&mut self, text: &str) {
        match &mut self.edit {
            None => self.ready.push_str(text),
            Some(edit) => {
                for character in text.chars() {
                    edit.push(character, &mut self.ready);
                }
                self.ended |= edit.fence == Fence::Closed;
            }
        }
    }
}

impl EditFilter {
    fn push(&mut self, character: char, ready: &mut String) {
        match character {
            // Line ends are written as the document has them.
            '\r' => {}
            '\n' => self.end_line(ready),
            _ => {
                self.line.push(character);
                if !self.may_be_fence() {
                    self.release(ready);
                }
            }
        }
    }

    /// Whether the line so far could still turn out to be a fence.
    fn may_be_fence(&self) -> bool {
        if self.fence == Fence::None {
            return false;
        }
        let line = self.line.trim_start();
        match line.chars().next() {
            None => true,
            Some(mark @ ('`' | '~')) => {
                let run = line.chars().take_while(|c| *c == mark).count();
                run >= 3 || run == line.chars().count()
            }
            Some(_) => false,
        }
    }

    fn end_line(&mut self, ready: &mut String) {
        if self.fence == Fence::Undecided && self.line.trim().is_empty() {
            self.line.clear();
            return;
        }
        if self.decide_line() {
            return;
        }
        self.release(ready);
        self.breaks += 1;
    }

    /// Takes the line away if it is a fence around the answer.
    fn decide_line(&mut self) -> bool {
        if !self.may_be_fence() {
            return false;
        }
        let Some((mark, length, info)) = fence_of(self.line.trim()) else {
            return false;
        };
        match self.fence {
            Fence::Undecided => {
                self.fence = Fence::Inside {
                    mark,
                    length,
                    depth: 0,
                };
                self.line.clear();
                true
            }
            Fence::Inside {
                mark: open,
                length: least,
                depth,
            } => {
                let depth = match (info, depth) {
                    (true, _) => depth + 1,
                    (false, 0) if mark == open && length >= least => {
                        self.fence = Fence::Closed;
                        self.line.clear();
                        return true;
                    }
                    (false, _) => depth.saturating_sub(1),
                };
                self.fence = Fence::Inside {
                    mark: open,
                    length: least,
                    depth,
                };
                false
            }
            Fence::None | Fence::Closed => false,
        }
    }

    /// Passes on what is known to belong to the answer.
    fn release(&mut self, ready: &mut String) {
        if self.line.is_empty() || self.fence == Fence::Closed {
            return;
        }
        if self.fence == Fence::Undecided {
            self.fence = Fence::None;
        }
        let line_break = if self.crlf { "\r\n" } else { "\n" };
        for _ in 0..std::mem::take(&mut self.breaks) {
            ready.push_str(line_break);
        }
        ready.push_str(&self.line);
        self.line.clear();
        self.started = true;
    }

    fn finish(&mut self, ready: &mut String) {
        if self.fence != Fence::Closed && !self.decide_line() && !self.line.trim().is_empty() {
            self.release(ready);
        }
        if self.started && self.ends_with_break {
            ready.push_str(if self.crlf { "\r\n" } else { "\n" });
        }
    }
}

/// The mark of a fence, its length, and whether an info string follows; `None` for other lines.
fn fence_of(line: &str) -> Option<(char, usize, bool)> {
    let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let length = line.chars().take_while(|c| *c == mark).count();
    let info = line[length..].lines().next().unwrap_or("").trim();
    (length >= 3 && !info.contains('`')).then_some((mark, length, !info.is_empty()))
}
