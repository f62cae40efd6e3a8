//! The open documents, as the client has them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ropey::Rope;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower_lsp::lsp_types::{
    DidChangeTextDocumentParams, DidCloseTextDocumentParams, DidOpenTextDocumentParams,
    TextDocumentContentChangeEvent, Url,
};

use crate::next_edit::{Change, Edits, Proposal};

use super::position::{self, Encoding};

/// Documents larger than this, in bytes, are kept in step and not served: nobody writes them by
/// hand, and their lines may be as long as they are.
pub const MAX_SERVED_BYTES: usize = 10 << 20;

/// The open documents. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Documents(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    open: HashMap<Url, Document>,
    /// Counts openings and changes over all documents, to tell which was touched last.
    clock: u64,
    /// What the user edited lately.
    edits: Edits,
}

#[derive(Debug)]
struct Document {
    snapshot: Snapshot,
    /// Ends the work for this document when it is closed.
    _close: DropGuard,
}

/// A document at one moment. Cheap to clone: the text is shared.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its name.
    pub uri: Url,
    /// Its language, by LSP identifier.
    pub language: String,
    /// The client's version.
    pub version: i32,
    /// Grows with every change of any document; equal means unchanged.
    pub revision: u64,
    /// The text.
    pub text: Rope,
    /// The character at which it was changed last.
    pub last_change: usize,
    /// Whether the last change only took text away.
    pub shrunk: bool,
    /// Whether it may be served.
    pub state: State,
    /// Cancelled when it is closed.
    pub closed: CancellationToken,
}

/// Whether a document may be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// As the client has it.
    Good,
    /// Larger than [`MAX_SERVED_BYTES`].
    TooLarge,
    /// A change could not be applied, for this reason: our text is not the client's. A change that
    /// brings the whole text heals it.
    OutOfStep(String),
}

/// A change that was refused: the document is [`State::OutOfStep`] from here on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a change of {uri} cannot be applied: {why}. Close and open it to go on.")]
pub struct Refused {
    uri: String,
    why: String,
}

impl Snapshot {
    /// Its file, where it is in one. A notebook's cell, an older state under version control and the
    /// like have schemes of their own and hold a file's text all the same, so what holds for the
    /// file must hold for them: their path counts. So does that of a file which is to be written.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        if self.uri.cannot_be_a_base() {
            return None;
        }
        self.uri.to_file_path().ok().or_else(|| self.path_alone())
    }

    /// What it is called where it is in no file: `.env` for `untitled:.env`.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let path = self.path_alone()?;
        Some(path.file_name()?.to_string_lossy().into_owned())
    }

    /// The path in its address, whatever else is there.
    fn path_alone(&self) -> Option<PathBuf> {
        let mut file = Url::parse("file:///").ok()?;
        file.set_path(self.uri.path());
        file.to_file_path().ok()
    }
}

impl Documents {
    /// Applies `textDocument/didOpen`.
    ///
    /// # Errors
    /// What is wrong with `params`.
    pub fn open(&self, params: Value) -> Result<(), serde_json::Error> {
        let opened: DidOpenTextDocumentParams = serde_json::from_value(params)?;
        let item = opened.text_document;
        let text = Rope::from_str(&item.text);
        let closed = CancellationToken::new();
        let mut inner = self.lock();
        inner.clock += 1;
        let document = Document {
            _close: closed.clone().drop_guard(),
            snapshot: Snapshot {
                uri: item.uri.clone(),
                language: item.language_id,
                version: item.version,
                revision: inner.clock,
                last_change: 0,
                shrunk: false,
                state: good_or_too_large(&text),
                text,
                closed,
            },
        };
        inner.open.insert(item.uri, document);
        Ok(())
    }

    /// Applies `textDocument/didChange`, all of it or, if one part of it makes no sense, nothing:
    /// the document then is out of step until its whole text comes.
    ///
    /// The version is taken as it comes: the pipe keeps the order, and clients exist that count
    /// otherwise than by one.
    ///
    /// # Errors
    /// [`Refused`], for the user to see.
    pub fn change(&self, params: Value, encoding: Encoding) -> Result<(), Refused> {
        let name = params["textDocument"]["uri"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let refused = |why: String| Refused {
            uri: name.clone(),
            why,
        };
        let mut inner = self.lock();
        let Inner { open, clock, edits } = &mut *inner;
        *clock += 1;
        let clock = *clock;
        let changed: DidChangeTextDocumentParams = match serde_json::from_value(params) {
            Ok(changed) => changed,
            Err(error) => {
                let document = Url::parse(&name).ok().and_then(|uri| open.get_mut(&uri));
                if let Some(document) = document {
                    document.snapshot.state = State::OutOfStep(error.to_string());
                    document.snapshot.revision = clock;
                }
                return Err(refused(error.to_string()));
            }
        };
        let Some(document) = open.get_mut(&changed.text_document.uri) else {
            // There is nothing to lose, and nothing that telling it at every keystroke would mend.
            tracing::warn!(uri = name, "a document changes that is not open");
            return Ok(());
        };
        let document = &mut document.snapshot;
        document.version = changed.text_document.version;
        document.revision = clock;
        let whole = changed
            .content_changes
            .iter()
            .any(|change| change.range.is_none());
        if matches!(document.state, State::OutOfStep(_)) && !whole {
            return Ok(());
        }
        let shrinks = |change: &TextDocumentContentChangeEvent| {
            change.range.is_some() && change.text.is_empty()
        };
        document.shrunk =
            !changed.content_changes.is_empty() && changed.content_changes.iter().all(shrinks);
        match apply(&document.text, &changed.content_changes, encoding) {
            Ok((text, last_change, applied)) => {
                let mut before = &document.text;
                for (change, after) in changed.content_changes.iter().zip(&applied) {
                    // A document that is healed was not edited.
                    if document.state == State::Good {
                        let change = change_of(before, change, after);
                        edits.change(document.uri.as_str(), &change);
                    }
                    before = &after.text;
                }
                document.state = good_or_too_large(&text);
                document.text = text;
                document.last_change = last_change;
                Ok(())
            }
            Err(error) => {
                document.state = State::OutOfStep(error.to_string());
                Err(refused(error.to_string()))
            }
        }
    }

    /// Applies `textDocument/didClose`: the text is gone, and work for it ends. Gives the document's
    /// name.
    ///
    /// # Errors
    /// What is wrong with `params`.
    pub fn close(&self, params: Value) -> Result<Url, serde_json::Error> {
        let closed: DidCloseTextDocumentParams = serde_json::from_value(params)?;
        let uri = closed.text_document.uri;
        let mut inner = self.lock();
        inner.open.remove(&uri);
        inner.edits.close(uri.as_str());
        Ok(uri)
    }

    /// What the user edited lately, in all documents.
    #[must_use]
    pub fn edits(&self) -> Edits {
        self.lock().edits.clone()
    }

    /// The user took a proposed edit, or did not want it.
    pub fn judge_edit(&self, proposal: &Proposal, accepted: bool) {
        let edits = &mut self.lock().edits;
        if accepted {
            edits.accept(proposal);
        } else {
            edits.reject(proposal);
        }
    }

    /// A document as it is now.
    #[must_use]
    pub fn get(&self, uri: &Url) -> Option<Snapshot> {
        self.lock()
            .open
            .get(uri)
            .map(|document| document.snapshot.clone())
    }

    /// The other documents that may be served: those of the same language first, then those changed
    /// last.
    #[must_use]
    pub fn others(&self, than: &Snapshot) -> Vec<Snapshot> {
        let inner = self.lock();
        let mut others: Vec<_> = inner.others(than).collect();
        others.sort_unstable_by_key(|other| {
            let same = other.language == than.language;
            std::cmp::Reverse((same, other.revision))
        });
        others.into_iter().cloned().collect()
    }

    /// Of the other documents that may be served, up to `count` that were opened or changed after
    /// `revision`, the last first.
    #[must_use]
    pub fn changed_since(&self, than: &Snapshot, revision: u64, count: usize) -> Vec<Snapshot> {
        let inner = self.lock();
        let mut changed: Vec<_> = inner
            .others(than)
            .filter(|other| other.revision > revision)
            .collect();
        changed.sort_unstable_by_key(|other| std::cmp::Reverse(other.revision));
        changed.truncate(count);
        changed.into_iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn others(&self, than: &Snapshot) -> impl Iterator<Item = &Snapshot> {
        let all = self.open.values().map(|document| &document.snapshot);
        all.filter(|other| other.uri != than.uri && other.state == State::Good)
    }
}

fn good_or_too_large(text: &Rope) -> State {
    if text.len_bytes() > MAX_SERVED_BYTES {
        State::TooLarge
    } else {
        State::Good
    }
}

/// What a part of a change did.
struct Applied {
    /// The text after it.
    text: Rope,
    /// The characters that it replaced; `None` for the whole text.
    replaced: Option<std::ops::Range<usize>>,
}

/// The text after `changes`, which LSP applies one after another, where the last one ended, and what
/// each did.
fn apply(
    text: &Rope,
    changes: &[TextDocumentContentChangeEvent],
    encoding: Encoding,
) -> Result<(Rope, usize, Vec<Applied>), position::PositionError> {
    let mut text = text.clone();
    let mut last_change = 0;
    let mut applied = Vec::with_capacity(changes.len());
    for change in changes {
        let replaced = match change.range {
            None => {
                text = Rope::from_str(&change.text);
                last_change = 0;
                None
            }
            Some(range) => {
                let range = position::to_chars(&text, range, encoding)?;
                text.remove(range.clone());
                text.insert(range.start, &change.text);
                last_change = range.start;
                Some(range)
            }
        };
        // Ropes share what they have in common.
        applied.push(Applied {
            text: text.clone(),
            replaced,
        });
    }
    Ok((text, last_change, applied))
}

fn change_of<'a>(
    before: &'a Rope,
    change: &TextDocumentContentChangeEvent,
    after: &'a Applied,
) -> Change<'a> {
    match &after.replaced {
        None => Change::between(before, &after.text),
        Some(replaced) => Change {
            before,
            replaced: replaced.clone(),
            after: &after.text,
            inserted: change.text.chars().count(),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const URI: &str = "file:///a.rs";

    fn opened(text: &str) -> Documents {
        let documents = Documents::default();
        documents
            .open(json!({"textDocument": {
                "uri": URI, "languageId": "rust", "version": 1, "text": text,
            }}))
            .unwrap();
        documents
    }

    fn change(range: [u32; 4], text: &str) -> Value {
        let [from_line, from, to_line, to] = range;
        json!({
            "range": {
                "start": {"line": from_line, "character": from},
                "end": {"line": to_line, "character": to},
            },
            "text": text,
        })
    }

    fn send(documents: &Documents, changes: &[Value]) -> Result<(), Refused> {
        let params = json!({
            "textDocument": {"uri": URI, "version": 2},
            "contentChanges": changes,
        });
        documents.change(params, Encoding::Utf16)
    }

    fn text(documents: &Documents) -> String {
        documents
            .get(&URI.parse().unwrap())
            .unwrap()
            .text
            .to_string()
    }

    fn check(before: &str, changes: &[Value], after: &str) {
        let documents = opened(before);
        send(&documents, changes).unwrap();
        assert_eq!(text(&documents), after);
    }

    #[test]
    fn changes_apply_one_after_another() {
        check("abc", &[change([0, 1, 0, 2], "XY")], "aXYc");
        check("a😀c", &[change([0, 3, 0, 3], "b")], "a😀bc");
        check("a\nb\n", &[change([0, 1, 1, 0], "")], "ab\n");
        check("a\r\nb", &[change([0, 9, 0, 9], "!")], "a!\r\nb");
        check(
            "one",
            &[change([0, 0, 0, 0], "x\n"), change([1, 0, 1, 3], "two")],
            "x\ntwo",
        );
        check("old", &[json!({"text": "new"})], "new");
        // Past the end means the end.
        check("a\nb", &[change([0, 0, 99, 0], "all")], "all");
        check("a", &[change([0, 99, 0, 100], "b")], "ab");
        check("", &[change([0, 0, 0, 0], "x")], "x");
    }

    #[test]
    fn a_refused_change_leaves_the_text_and_says_so_until_the_whole_text_comes() {
        for bad in [
            change([0, 2, 0, 3], "b"),
            change([0, 3, 0, 1], "b"),
            json!({"range": 3, "text": "b"}),
        ] {
            let documents = opened("a😀c");
            assert!(send(&documents, &[change([0, 0, 0, 0], "!"), bad]).is_err());
            assert_eq!(text(&documents), "a😀c");
            let state = |documents: &Documents| documents.get(&URI.parse().unwrap()).unwrap().state;
            assert!(matches!(state(&documents), State::OutOfStep(_)));
            send(&documents, &[change([0, 0, 0, 0], "x")]).unwrap();
            assert!(matches!(state(&documents), State::OutOfStep(_)));
            send(&documents, &[json!({"text": "whole"})]).unwrap();
            assert_eq!(state(&documents), State::Good);
            assert_eq!(text(&documents), "whole");
        }
    }

    #[cfg(unix)]
    #[test]
    fn text_of_a_file_has_that_files_path_under_any_scheme() {
        for (uri, expected, name) in [
            (
                "file:///project/a%20b.rs",
                Some("/project/a b.rs"),
                "a b.rs",
            ),
            ("file://server/share/.env", Some("/share/.env"), ".env"),
            (
                "vscode-notebook-cell:/project/n.ipynb#W0",
                Some("/project/n.ipynb"),
                "n.ipynb",
            ),
            (
                "git:/project/.env?%7B%22ref%22%3A%22HEAD%22%7D",
                Some("/project/.env"),
                ".env",
            ),
            ("untitled:Untitled-1", None, "Untitled-1"),
            (
                "untitled:/project/new.rs",
                Some("/project/new.rs"),
                "new.rs",
            ),
            ("untitled:.env", None, ".env"),
            ("mailto:somebody", None, "somebody"),
        ] {
            let documents = Documents::default();
            documents
                .open(json!({"textDocument": {
                    "uri": uri, "languageId": "rust", "version": 1, "text": "",
                }}))
                .unwrap();
            let document = documents.get(&uri.parse().unwrap()).unwrap();
            let expected = expected.map(PathBuf::from);
            assert_eq!(document.file(), expected, "{uri}");
            assert_eq!(document.name().as_deref(), Some(name), "{uri}");
        }
    }

    #[test]
    fn closing_forgets_and_cancels() {
        let documents = opened("secret");
        let uri = URI.parse().unwrap();
        let closed = documents.get(&uri).unwrap().closed;
        assert!(!closed.is_cancelled());
        documents
            .close(json!({"textDocument": {"uri": URI}}))
            .unwrap();
        assert!(closed.is_cancelled());
        assert!(documents.get(&uri).is_none());
        send(&documents, &[json!({"text": "x"})]).unwrap();
        assert!(documents.get(&uri).is_none());
    }

    #[test]
    fn a_huge_document_is_kept_in_step_and_not_served() {
        let documents = opened(&"x".repeat(MAX_SERVED_BYTES + 1));
        let uri = URI.parse().unwrap();
        assert_eq!(documents.get(&uri).unwrap().state, State::TooLarge);
        send(&documents, &[change([0, 0, 0, 2], "")]).unwrap();
        assert_eq!(documents.get(&uri).unwrap().state, State::Good);
    }

    #[test]
    fn other_documents_come_same_language_first_then_newest() {
        let documents = opened("");
        for (uri, language) in [
            ("file:///b.rs", "rust"),
            ("file:///c.py", "python"),
            ("file:///d.rs", "rust"),
            ("file:///e.py", "python"),
        ] {
            documents
                .open(json!({"textDocument": {
                    "uri": uri, "languageId": language, "version": 1, "text": "",
                }}))
                .unwrap();
        }
        let this = documents.get(&URI.parse().unwrap()).unwrap();
        let others: Vec<_> = documents
            .others(&this)
            .into_iter()
            .map(|other| other.uri.path().to_owned())
            .collect();
        assert_eq!(others, ["/d.rs", "/b.rs", "/e.py", "/c.py"]);
        let since = documents.get(&"file:///c.py".parse().unwrap()).unwrap();
        let changed = documents.changed_since(&this, since.revision, 9);
        let changed: Vec<_> = changed.iter().map(|other| other.uri.path()).collect();
        assert_eq!(changed, ["/e.py", "/d.rs"]);
        assert_eq!(documents.changed_since(&this, 0, 1).len(), 1);
    }

    proptest! {
        /// The rope against the plainest possible model of the same edit.
        #[test]
        fn edits_agree_with_a_list_of_utf16_units(
            before in "(\\PC|\n){0,30}",
            from in 0usize..30,
            length in 0usize..10,
            insert in "(\\PC|\n){0,8}",
        ) {
            let rope = Rope::from_str(&before);
            let from = from.min(rope.len_chars());
            let to = (from + length).min(rope.len_chars());
            let start = position::to_position(&rope, from, Encoding::Utf16);
            let end = position::to_position(&rope, to, Encoding::Utf16);
            let documents = opened(&before);
            send(&documents, &[change(
                [start.line, start.character, end.line, end.character],
                &insert,
            )]).unwrap();
            let characters: Vec<char> = before.chars().collect();
            let mut expected: String = characters[..from].iter().collect();
            expected.push_str(&insert);
            expected.extend(&characters[to..]);
            prop_assert_eq!(text(&documents), expected);
        }
    }
}
