//! What of the open documents goes into a request: bounded pieces, cut from ropes in place.

use std::sync::Arc;

use ropey::Rope;

use crate::inference::Snippet;

use super::documents::{Documents, Snapshot};
use super::server::Server;

/// Text before the cursor that is looked at, in bytes. A local model of 4,096 tokens reads about
/// 12 KiB of code; the rest is for those that read more.
pub const PREFIX_BYTES: usize = 24 << 10;

/// Text after the cursor that is looked at, in bytes.
pub const SUFFIX_BYTES: usize = 8 << 10;

/// Pieces of other documents that are offered to the model. Each costs prompt on every keystroke.
const SNIPPETS: usize = 3;

/// The size of a piece, in bytes.
const SNIPPET_BYTES: usize = 2 << 10;

/// Up to `bytes` of text that end at the character `end`, from the start of a line where the cut
/// allows it.
#[must_use]
pub fn before(text: &Rope, end: usize, bytes: usize) -> Arc<str> {
    let end_byte = text.char_to_byte(end);
    let mut start = text.byte_to_char(end_byte.saturating_sub(bytes));
    let line = text.char_to_line(start);
    if text.line_to_char(line) != start && line + 1 < text.len_lines() {
        let next = text.line_to_char(line + 1);
        if next < end {
            start = next;
        }
    }
    piece(text, start..end)
}

/// Up to `bytes` of text that start at the character `start`, to the end of a line where the cut
/// allows it.
#[must_use]
pub fn after(text: &Rope, start: usize, bytes: usize) -> Arc<str> {
    let start_byte = text.char_to_byte(start);
    let limit = (start_byte + bytes).min(text.len_bytes());
    let mut end = text.byte_to_char(limit);
    if limit < text.len_bytes() {
        let line_start = text.line_to_char(text.char_to_line(end));
        if line_start > start {
            end = line_start;
        }
    }
    piece(text, start..end)
}

/// The characters of a range.
#[must_use]
pub fn piece(text: &Rope, range: std::ops::Range<usize>) -> Arc<str> {
    let slice = text.slice(range);
    let mut piece = String::with_capacity(slice.len_bytes());
    for chunk in slice.chunks() {
        piece.push_str(chunk);
    }
    piece.into()
}

/// Pieces of other open documents, around where each was changed last; those of the same language
/// and those changed lately first.
#[must_use]
pub fn snippets(server: &Server, documents: &Documents, than: &Snapshot) -> Vec<Snippet> {
    documents
        .others(than, SNIPPETS)
        .into_iter()
        .filter_map(|other| {
            let middle = other.last_change.min(other.text.len_chars());
            let mut text = before(&other.text, middle, SNIPPET_BYTES / 2).to_string();
            text.push_str(&after(&other.text, middle, SNIPPET_BYTES / 2));
            (!text.trim().is_empty()).then(|| Snippet {
                path: shown_path(server, &other)
                    .or_else(|| other.name())
                    .unwrap_or_else(|| "untitled".to_owned()),
                file: other.file(),
                text: text.into(),
            })
        })
        .collect()
}

/// A document's path as a model is to see it: relative to its workspace, or the file's name, so that
/// no prompt tells where the user's home is.
#[must_use]
pub fn shown_path(server: &Server, document: &Snapshot) -> Option<String> {
    let file = document.file()?;
    let workspace = server.workspace_of(&file);
    let relative = workspace
        .as_deref()
        .and_then(|folder| file.strip_prefix(folder).ok());
    match relative {
        Some(path) => Some(path.to_string_lossy().replace('\\', "/")),
        None => Some(file.file_name()?.to_string_lossy().into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cuts_are_at_lines_where_they_can_be() {
        let text = Rope::from_str("one\ntwo\nthree\nfour");
        assert_eq!(&*before(&text, 11, 8), "two\nthr");
        assert_eq!(&*before(&text, 11, 6), "thr");
        assert_eq!(&*before(&text, 11, 2), "hr");
        assert_eq!(&*before(&text, 11, 100), "one\ntwo\nthr");
        assert_eq!(&*after(&text, 5, 7), "wo\n");
        assert_eq!(&*after(&text, 5, 2), "wo");
        assert_eq!(&*after(&text, 5, 1), "w");
        assert_eq!(&*after(&text, 5, 100), "wo\nthree\nfour");
        assert_eq!(&*before(&Rope::from_str("a\r\nb"), 4, 9), "a\r\nb");
    }

    proptest! {
        #[test]
        fn pieces_are_bounded_and_part_of_the_text(
            text in "(\\PC|\n){0,80}",
            at in 0usize..80,
            bytes in 0usize..40,
        ) {
            let rope = Rope::from_str(&text);
            let at = at.min(rope.len_chars());
            let cursor = rope.char_to_byte(at);
            let prefix = before(&rope, at, bytes);
            // A cut inside a character takes the whole of it.
            prop_assert!(prefix.len() < bytes + 4);
            prop_assert!(text[..cursor].ends_with(&*prefix));
            let suffix = after(&rope, at, bytes);
            prop_assert!(suffix.len() <= bytes);
            prop_assert!(text[cursor..].starts_with(&*suffix));
        }
    }
}
