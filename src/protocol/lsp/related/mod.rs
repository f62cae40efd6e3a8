//! Pieces of other open documents that are like the cursor's surroundings, the most similar first.
//!
//! They stand at the head of a prompt, so a change in them computes the whole prompt anew. A choice
//! therefore stays while the cursor is about where it was when it was made, and what was chosen has an
//! advantage over what is new. What words a document's windows hold is kept until it has changed; so
//! many bytes are read anew for one request at most, and the rest for the next ones.

mod words;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use ropey::Rope;
use tower_lsp::lsp_types::Url;

use super::context;
use super::documents::{Documents, Snapshot, State as DocumentState};
use words::{WINDOW, Windows, Words};

/// Pieces that are offered at most.
const PIECES: usize = 3;

/// The size of a piece, in bytes.
const PIECE_BYTES: usize = 2 << 10;

/// Pieces of one document at most, lest one that says the same everywhere takes all places.
const OF_ONE: usize = 2;

/// A choice stays while the cursor is within so many lines of where it was made: half a window.
const REGION: usize = WINDOW / 2;

/// What is compared with other documents: so many lines before the cursor, and after it.
const BEFORE: usize = 24;
const AFTER: usize = 8;

/// And not more of it than this on either side.
const AROUND_BYTES: usize = 4 << 10;

/// Pieces that are less similar than this tell nothing.
const LEAST: f32 = 0.05;

/// By how much more similar than what was chosen something new must be.
const ADVANTAGE: f32 = 1.3;

/// How much a document counts that was changed or opened as one of the last [`RECENT`].
const RECENCY: f32 = 1.2;
const RECENT: usize = 3;

/// How much another language counts.
const OTHER_LANGUAGE: f32 = 0.5;

/// Bytes of documents whose words are read for one request: a millisecond or two. Larger documents are
/// not looked at.
const BYTES: usize = 512 << 10;

/// After so many changes a document's words are read again, where its lines are as many as before.
const CHANGES: u32 = 16;

/// Documents that have changed since a choice was made, of which so many are looked at.
const CHANGED: usize = 8;

/// What is known of the open documents, and what was chosen for each.
#[derive(Debug, Default)]
pub struct Related(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: HashMap<Url, Known>,
    choices: HashMap<Url, Choice>,
}

/// The words of a document.
#[derive(Debug)]
struct Known {
    version: i32,
    lines: usize,
    windows: Windows,
}

/// What was chosen for a document.
#[derive(Debug, Clone, Default)]
struct Choice {
    /// The cursor's line.
    line: usize,
    /// The last revision that was looked at.
    revision: u64,
    /// Whether some documents could not be looked at yet.
    unfinished: bool,
    /// The best first.
    pieces: Vec<Place>,
}

/// A window of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    uri: Url,
    line: usize,
}

/// A piece of another document.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The document, as it is now.
    pub document: Snapshot,
    /// Whole lines, as far as [`PIECE_BYTES`] allow.
    pub text: Arc<str>,
}

impl Related {
    /// What is most like the surroundings of the character `cursor` in `document`.
    #[must_use]
    pub fn pieces(&self, documents: &Documents, document: &Snapshot, cursor: usize) -> Vec<Piece> {
        let line = document
            .text
            .char_to_line(cursor.min(document.text.len_chars()));
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.choices.remove(&document.uri);
        let choice = match before {
            Some(before) if before.stays(line, documents) => {
                let changed = documents.changed_since(document, before.revision, CHANGED);
                if changed.is_empty() {
                    before
                } else {
                    // Those that may take a place, and those that have one.
                    let mut candidates = changed;
                    for place in &before.pieces {
                        let is_among = |other: &Snapshot| other.uri == place.uri;
                        if !candidates.iter().any(is_among) {
                            candidates.extend(documents.get(&place.uri));
                        }
                    }
                    state.choose(document, line, &candidates, &before)
                }
            }
            before => {
                let candidates = documents.others(document);
                state.forget_all_but(&candidates, document);
                let before = before.unwrap_or_default();
                state.choose(document, line, &candidates, &before)
            }
        };
        let pieces = choice.pieces.iter().filter_map(|place| {
            let document = documents.get(&place.uri)?;
            let text = lines(&document.text, place.line);
            (!text.trim().is_empty()).then_some(Piece { document, text })
        });
        let pieces = pieces.collect();
        state.choices.insert(document.uri.clone(), choice);
        pieces
    }
}

impl Choice {
    fn stays(&self, line: usize, documents: &Documents) -> bool {
        let is_there = |place: &Place| {
            let document = documents.get(&place.uri);
            document.is_some_and(|document| document.state == DocumentState::Good)
        };
        line.abs_diff(self.line) <= REGION && !self.unfinished && self.pieces.iter().all(is_there)
    }
}

impl State {
    /// Chooses among `candidates`, of which the first ones are looked at first.
    fn choose(
        &mut self,
        document: &Snapshot,
        line: usize,
        candidates: &[Snapshot],
        before: &Choice,
    ) -> Choice {
        let around = Words::of(&surroundings(&document.text, line));
        let mut revisions: Vec<u64> = candidates.iter().map(|other| other.revision).collect();
        revisions.sort_unstable_by(|one, other| other.cmp(one));
        let recent = revisions.get(RECENT.min(revisions.len()).saturating_sub(1));
        let mut bytes = 0;
        let mut unfinished = false;
        let mut best: Vec<(f32, Place)> = Vec::new();
        for other in candidates {
            if other.text.len_bytes() > BYTES {
                continue;
            }
            if !self.knows(other) {
                if bytes >= BYTES {
                    unfinished = true;
                    continue;
                }
                bytes += other.text.len_bytes();
                self.read(other);
            }
            let Some(known) = self.known.get(&other.uri) else {
                continue;
            };
            let mut weight = 1.0;
            if other.language != document.language {
                weight *= OTHER_LANGUAGE;
            }
            if recent.is_some_and(|recent| other.revision >= *recent) {
                weight *= RECENCY;
            }
            let has_place = |line: usize| {
                let is = |place: &Place| place.line == line && place.uri == other.uri;
                before.pieces.iter().any(is)
            };
            let scored = known.windows.similar(&around).map(|(line, similarity)| {
                let advantage = if has_place(line) { ADVANTAGE } else { 1.0 };
                (similarity * weight * advantage, line)
            });
            for (score, line) in best_of(scored.collect()) {
                let uri = other.uri.clone();
                best.push((score, Place { uri, line }));
            }
        }
        // What was looked at first comes first among equals.
        best.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        best.truncate(PIECES);
        let mut pieces: Vec<Place> = best.into_iter().map(|(_, place)| place).collect();
        // The same pieces in another order would be another prompt.
        let same = pieces.len() == before.pieces.len()
            && pieces.iter().all(|place| before.pieces.contains(place));
        if same {
            pieces.clone_from(&before.pieces);
        }
        Choice {
            line,
            revision: revisions.first().copied().unwrap_or(0).max(before.revision),
            unfinished,
            pieces,
        }
    }

    /// Whether the words of a document are known, but for what was typed lately.
    fn knows(&self, document: &Snapshot) -> bool {
        self.known.get(&document.uri).is_some_and(|known| {
            known.lines == document.text.len_lines()
                && known.version.abs_diff(document.version) < CHANGES
        })
    }

    fn read(&mut self, document: &Snapshot) {
        let known = Known {
            version: document.version,
            lines: document.text.len_lines(),
            windows: Windows::of(&String::from(&document.text)),
        };
        self.known.insert(document.uri.clone(), known);
    }

    /// Forgets the documents that are not open any more.
    fn forget_all_but(&mut self, others: &[Snapshot], document: &Snapshot) {
        if self.known.len() + self.choices.len() > 2 * others.len() {
            let open: HashSet<&Url> = others.iter().map(|other| &other.uri).collect();
            let is_open = |uri: &Url| *uri == document.uri || open.contains(uri);
            self.known.retain(|uri, _| is_open(uri));
            self.choices.retain(|uri, _| is_open(uri));
        }
    }
}

/// Of a document's windows the best, which do not overlap.
fn best_of(mut scored: Vec<(f32, usize)>) -> Vec<(f32, usize)> {
    scored.retain(|(score, _)| *score >= LEAST);
    scored.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let mut best: Vec<(f32, usize)> = Vec::new();
    for (score, line) in scored {
        if best.len() < OF_ONE && best.iter().all(|(_, other)| other.abs_diff(line) >= WINDOW) {
            best.push((score, line));
        }
    }
    best
}

/// The text around a line.
fn surroundings(text: &Rope, line: usize) -> String {
    let first = text.line_to_char(line.saturating_sub(BEFORE));
    let last = (line + AFTER + 1).min(text.len_lines());
    let before = context::before(text, text.line_to_char(line), AROUND_BYTES);
    let from = first.max(text.line_to_char(line) - before.chars().count());
    let after = context::after(text, text.line_to_char(line), AROUND_BYTES);
    let to = text
        .line_to_char(last)
        .min(text.line_to_char(line) + after.chars().count());
    text.slice(from..to).to_string()
}

/// The window that begins at `line`, or what fits of it.
fn lines(text: &Rope, line: usize) -> Arc<str> {
    let count = text.len_lines();
    let start = text.line_to_char(line.min(count));
    let end = text.line_to_char((line + WINDOW).min(count));
    let whole = context::after(text, start, PIECE_BYTES);
    let characters = end - start;
    match whole.char_indices().nth(characters) {
        Some((at, _)) => whole[..at].into(),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::lsp::position::Encoding;

    fn open(documents: &Documents, name: &str, language: &str, text: &str) {
        documents
            .open(json!({"textDocument": {
                "uri": uri(name), "languageId": language, "version": 1, "text": text,
            }}))
            .unwrap();
    }

    fn uri(name: &str) -> Url {
        Url::parse(&format!("file:///{name}")).unwrap()
    }

    /// Types `text` at the start of a line.
    fn type_in(documents: &Documents, name: &str, version: i32, line: u32, text: &str) {
        let at = json!({"line": line, "character": 0});
        documents
            .change(
                json!({
                    "textDocument": {"uri": uri(name), "version": version},
                    "contentChanges": [{"range": {"start": at, "end": at}, "text": text}],
                }),
                Encoding::Utf16,
            )
            .unwrap();
    }

    /// Lines about a subject.
    fn about(subject: &str, lines: usize) -> String {
        let line = |line| format!("call_{subject}({subject}_{}, {subject});\n", line % 7);
        (0..lines).map(line).collect::<Vec<_>>().concat()
    }

    /// The documents that the pieces for a line of `name` are from, and where they begin.
    fn chosen(related: &Related, documents: &Documents, name: &str, line: usize) -> Vec<String> {
        let document = documents.get(&uri(name)).unwrap();
        let cursor = document.text.line_to_char(line);
        related
            .pieces(documents, &document, cursor)
            .iter()
            .map(|piece| {
                let first = piece.text.lines().next().unwrap_or_default();
                format!("{} {first}", piece.document.uri.path())
            })
            .collect()
    }

    #[test]
    fn the_most_similar_window_comes_first_and_one_of_the_same_language_before_another() {
        let documents = Documents::default();
        let far = about("river", 40);
        open(&documents, "a.rs", "rust", &about("apple", 10));
        open(
            &documents,
            "b.rs",
            "rust",
            &(far.clone() + &about("apple", 32)),
        );
        open(&documents, "c.py", "python", &about("apple", 32));
        open(&documents, "d.rs", "rust", &about("stone", 32));
        let found = chosen(&Related::default(), &documents, "a.rs", 5);
        assert!(found[0].starts_with("/b.rs"), "{found:?}");
        assert!(found.iter().any(|piece| piece.starts_with("/c.py")));
        assert!(!found.iter().any(|piece| piece.starts_with("/d.rs")));
        assert!(found.iter().all(|piece| !piece.starts_with("/a.rs")));
    }

    #[test]
    fn a_choice_stays_while_someone_types_and_follows_who_moves_on() {
        let documents = Documents::default();
        let text = about("apple", 40) + &about("river", 60);
        open(&documents, "a.rs", "rust", &text);
        open(&documents, "b.rs", "rust", &about("apple", 32));
        open(&documents, "c.rs", "rust", &about("river", 32));
        let related = Related::default();
        let first = chosen(&related, &documents, "a.rs", 20);
        assert!(first[0].starts_with("/b.rs"), "{first:?}");
        for version in 2..14 {
            type_in(&documents, "a.rs", version, 20, "river_1(river);\n");
            let line = 20 + version as usize - 1;
            assert_eq!(chosen(&related, &documents, "a.rs", line), first);
        }
        let later = chosen(&related, &documents, "a.rs", 90);
        assert!(later[0].starts_with("/c.rs"), "{later:?}");
    }

    #[test]
    fn what_was_chosen_shows_its_text_as_it_is_now_and_goes_when_it_is_closed() {
        let documents = Documents::default();
        open(&documents, "a.rs", "rust", &about("apple", 10));
        open(&documents, "b.rs", "rust", &about("apple", 32));
        let related = Related::default();
        assert_eq!(chosen(&related, &documents, "a.rs", 5).len(), 1);
        type_in(&documents, "b.rs", 2, 0, "new ");
        let found = chosen(&related, &documents, "a.rs", 5);
        assert!(found[0].starts_with("/b.rs new call_apple"), "{found:?}");
        let close = json!({"textDocument": {"uri": uri("b.rs")}});
        documents.close(close).unwrap();
        assert!(chosen(&related, &documents, "a.rs", 5).is_empty());
        open(&documents, "c.rs", "rust", &about("apple", 32));
        assert_eq!(chosen(&related, &documents, "a.rs", 5).len(), 1);
    }

    #[test]
    fn many_documents_are_read_over_several_requests() {
        let documents = Documents::default();
        open(&documents, "a.rs", "rust", &about("apple", 10));
        open(&documents, "like.rs", "rust", &about("apple", 32));
        let large = about("stone", 4000);
        for number in 0..12 {
            open(&documents, &format!("{number}.rs"), "rust", &large);
        }
        let related = Related::default();
        assert!(12 * large.len() > 2 * BYTES);
        assert!(chosen(&related, &documents, "a.rs", 5).is_empty());
        let found = (0..12).find_map(|_| {
            let found = chosen(&related, &documents, "a.rs", 5);
            (!found.is_empty()).then_some(found)
        });
        assert!(found.unwrap()[0].starts_with("/like.rs"));
    }

    #[test]
    fn a_document_of_one_long_line_is_cut() {
        let documents = Documents::default();
        open(&documents, "a.rs", "rust", "apple banana cherry");
        open(
            &documents,
            "b.rs",
            "rust",
            &"apple banana cherry é ".repeat(9000),
        );
        let document = documents.get(&uri("a.rs")).unwrap();
        let pieces = Related::default().pieces(&documents, &document, 3);
        assert_eq!(pieces.len(), 1);
        assert!(pieces[0].text.len() <= PIECE_BYTES);
    }
}
