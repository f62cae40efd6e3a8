//! Somebody types a passage of a real file, and an editor asks the server at every key.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use serde::Serialize;
use serde_json::{Value, json};

use crate::corpus::Source;
use crate::filling::place;
use crate::measure::holes;
use crate::measure::person::{Ghost, next_key};
use crate::measure::random;
use crate::server::{Answer, Document, Server};

/// A passage has so many bytes at least; shorter ones end before anything has been suggested.
const LEAST_PASSAGE: usize = 200;

/// The editor asks by itself.
const AUTOMATIC: u8 = 2;

/// What came of a replay.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Tally {
    /// Characters of the passages, blanks apart.
    pub characters: usize,
    pub keystrokes: usize,
    /// Requests that the editor sent: one a key, and one after each acceptance.
    pub requests: usize,
    /// Those that reached a model of this machine; `None` where nobody counts.
    pub reached_model: Option<u64>,
    /// Requests taken back since the next key came before their answer.
    pub cancels: usize,
    /// Suggestions that appeared.
    pub shown: usize,
    /// Those of them that were there when the next key came and began with it.
    pub still_valid: usize,
    /// Suggestions that were right so far when the next answer took them away or changed them.
    pub replaced_while_right: usize,
    pub accepted: usize,
    /// Characters of the accepted suggestions, blanks apart.
    pub accepted_characters: usize,
    /// Those of them that did not have to be taken away again.
    pub retained_characters: usize,
    /// Why answers were empty.
    pub reasons: BTreeMap<String, usize>,
    /// From request to suggestion, in milliseconds.
    #[serde(skip)]
    pub latencies: Vec<f64>,
}

/// A passage to type: a source and the bytes of it.
pub struct Passage<'a> {
    pub source: &'a Source,
    pub bytes: std::ops::Range<usize>,
}

/// `count` passages of up to `most` bytes, each from another source.
pub fn passages(sources: &[Source], count: usize, most: usize, seed: u64) -> Vec<Passage<'_>> {
    let mut random = random(seed, "passages");
    let mut shuffled: Vec<&Source> = sources.iter().collect();
    shuffled.shuffle(&mut random);
    let passages = shuffled.into_iter().filter_map(|source| {
        let mut blocks = holes::long_blocks(source.language, &source.text, LEAST_PASSAGE);
        blocks.shuffle(&mut random);
        let mut bytes = blocks.pop()?;
        if bytes.len() > most {
            // To the end of a line.
            let cut = source.text.floor_char_boundary(bytes.start + most);
            let line = source.text[bytes.start..cut].rfind('\n')?;
            bytes.end = bytes.start + line;
        }
        (bytes.len() >= LEAST_PASSAGE).then_some(Passage { source, bytes })
    });
    passages.take(count).collect()
}

/// Types `passage`, in real time.
pub fn replay(server: &mut Server, passage: &Passage<'_>, seed: u64) -> anyhow::Result<Tally> {
    let Passage { source, bytes } = passage;
    let mut random = random(seed, &format!("typing {}", place(source)));
    let (before, after) = (&source.text[..bytes.start], &source.text[bytes.end..]);
    let document = server.document(&place(source), [before, after].concat());
    server.open(&document, source.language.id())?;
    let reached = server.reached()?.unwrap_or(0);
    let mut typing = Typing {
        server,
        document,
        cursor: bytes.start,
        started: Instant::now(),
        ghost: None,
        pending: None,
        tally: Tally::default(),
    };
    let mut rest = &source.text[bytes.clone()];
    typing.tally.characters = letters(rest);
    let mut last: Option<String> = None;
    let mut next = typing.started;
    while let Some(key) = next_key(rest, last.as_deref(), &mut random) {
        next += key.pause;
        typing.listen(next)?;
        if let Some(right) = typing.accept(rest)? {
            rest = &rest[right..];
        } else {
            typing.press(&key.text)?;
            rest = &rest[key.text.len()..];
        }
        last = Some(key.text);
    }
    // What is still on its way is not seen by anybody.
    typing.take_back()?;
    let Typing {
        server,
        document,
        mut tally,
        ..
    } = typing;
    server.close(&document)?;
    tally.reached_model = server.reached()?.map(|now| now - reached);
    Ok(tally)
}

struct Typing<'a> {
    server: &'a mut Server,
    document: Document,
    cursor: usize,
    started: Instant,
    /// The suggestion that is seen.
    ghost: Option<(Ghost, Value)>,
    /// The request that is not answered yet, and when it was sent.
    pending: Option<(u64, Instant)>,
    tally: Tally,
}

impl Typing<'_> {
    /// Listens until it is time for the next key.
    fn listen(&mut self, until: Instant) -> anyhow::Result<()> {
        while let Some(heard) = self.server.client().hear(until)? {
            let at = heard.at;
            // Also without a request it may be the reason of an answer.
            let id = self.pending.map_or(0, |(id, _)| id);
            if !heard.answers(id) && !heard.message["method"].is_string() {
                // The answer to a request that was taken back.
                continue;
            }
            let answer = self.server.answer(heard, id, &self.document, self.cursor)?;
            if let (Some(answer), Some((_, sent))) = (answer, self.pending) {
                self.pending = None;
                self.show(answer, at, at - sent)?;
            }
        }
        Ok(())
    }

    fn show(&mut self, answer: Answer, at: Instant, took: Duration) -> anyhow::Result<()> {
        if let Some((ghost, _)) = &self.ghost {
            if ghost.text == answer.text {
                return Ok(());
            }
            self.tally.replaced_while_right += 1;
        }
        self.ghost = None;
        if let Some(reason) = answer.reason {
            *self.tally.reasons.entry(reason).or_default() += 1;
        }
        if let Some(item) = answer.item {
            self.tally.shown += 1;
            self.tally.latencies.push(took.as_secs_f64() * 1e3);
            let shown = json!({"item": item});
            self.server
                .client()
                .notify("textDocument/didShowCompletion", &shown)?;
            let ghost = Ghost {
                text: answer.text,
                since: at - self.started,
            };
            self.ghost = Some((ghost, item));
        }
        Ok(())
    }

    /// Accepts the suggestion, if the person would, and takes away what of it is wrong. Gives how many
    /// bytes of `rest` are there now.
    fn accept(&mut self, rest: &str) -> anyhow::Result<Option<usize>> {
        let now = self.started.elapsed();
        let Some((ghost, item)) = &self.ghost else {
            return Ok(None);
        };
        let Some(right) = ghost.accepted(rest, now) else {
            return Ok(None);
        };
        let (text, command) = (ghost.text.clone(), item["command"].clone());
        self.ghost = None;
        self.tally.accepted += 1;
        self.tally.accepted_characters += letters(&text);
        self.tally.retained_characters += letters(&rest[..right]);
        self.take_back()?;
        let at = self.cursor;
        self.server.change(&mut self.document, at..at, &text)?;
        self.server
            .client()
            .send("workspace/executeCommand", &command)?;
        if right < text.len() {
            self.server
                .change(&mut self.document, at + right..at + text.len(), "")?;
        }
        self.cursor = at + right;
        self.ask()?;
        Ok(Some(right))
    }

    fn press(&mut self, key: &str) -> anyhow::Result<()> {
        self.tally.keystrokes += 1;
        if let Some((ghost, item)) = self.ghost.take()
            && let Some(ghost) = ghost.after(key)
        {
            self.tally.still_valid += 1;
            self.ghost = Some((ghost, item));
        }
        self.take_back()?;
        let at = self.cursor;
        self.server.change(&mut self.document, at..at, key)?;
        self.cursor = at + key.len();
        self.ask()
    }

    fn ask(&mut self) -> anyhow::Result<()> {
        self.tally.requests += 1;
        let sent = Instant::now();
        let id = self.server.ask(&self.document, self.cursor, AUTOMATIC)?;
        self.pending = Some((id, sent));
        Ok(())
    }

    fn take_back(&mut self) -> anyhow::Result<()> {
        if let Some((id, _)) = self.pending.take() {
            self.tally.cancels += 1;
            let params = json!({"id": id});
            self.server.client().notify("$/cancelRequest", &params)?;
        }
        Ok(())
    }
}

impl Tally {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.characters += other.characters;
        self.keystrokes += other.keystrokes;
        self.requests += other.requests;
        self.reached_model = match (self.reached_model, other.reached_model) {
            (Some(one), Some(another)) => Some(one + another),
            (one, another) => one.or(another),
        };
        self.cancels += other.cancels;
        self.shown += other.shown;
        self.still_valid += other.still_valid;
        self.replaced_while_right += other.replaced_while_right;
        self.accepted += other.accepted;
        self.accepted_characters += other.accepted_characters;
        self.retained_characters += other.retained_characters;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        self.latencies.extend(other.latencies);
    }
}

fn letters(text: &str) -> usize {
    text.chars().filter(|one| !one.is_whitespace()).count()
}
