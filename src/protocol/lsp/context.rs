//! What of the open documents goes into a request: bounded pieces, cut from ropes in place.

use std::sync::Arc;

use ropey::Rope;

use crate::inference::Snippet;

use super::documents::Snapshot;
use super::server::Server;

/// Text before the cursor that is looked at, in bytes. A local model of 4,096 tokens reads about
/// 12 KiB of code; the rest is for those that read more.
pub const PREFIX_BYTES: usize = 24 << 10;

/// Text after the cursor that is looked at, in bytes.
pub const SUFFIX_BYTES: usize = 8 << 10;

/// Of a document's beginning, where it is shown apart, in bytes.
const BEGINNING_BYTES: usize = 1 << 10;

/// How far a comment at its beginning, such as a licence, is passed over, in bytes.
const COMMENT_BYTES: usize = 4 << 10;

/// What a line of such a comment begins with.
const COMMENTS: &[&str] = &[
    "//", "/*", "*", "# ", "#!", "##", "--", ";", "\"\"\"", "<!--",
];

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

/// Pieces of other open documents for the character `cursor` of `document`, the most similar first.
/// Before them, of a document that is cut, its own beginning: what it imports stands there.
#[must_use]
pub fn snippets(server: &Server, document: &Snapshot, cursor: usize) -> Vec<Snippet> {
    let snippet = |document: &Snapshot, text: Arc<str>| Snippet {
        path: shown_path(server, document)
            .or_else(|| document.name())
            .unwrap_or_else(|| "untitled".to_owned()),
        file: document.file(),
        text,
    };
    let pieces = server.related.pieces(&server.documents, document, cursor);
    let beginning = beginning(&document.text, cursor).map(|text| snippet(document, text));
    let pieces = pieces
        .into_iter()
        .map(|piece| snippet(&piece.document, piece.text));
    beginning.into_iter().chain(pieces).collect()
}

/// The first lines that are no comments, of a document whose beginning [`before`] does not show.
fn beginning(text: &Rope, cursor: usize) -> Option<Arc<str>> {
    let cut = text.char_to_byte(cursor.min(text.len_chars()));
    if cut <= PREFIX_BYTES + BEGINNING_BYTES + COMMENT_BYTES {
        return None;
    }
    let first = piece(text, 0..text.byte_to_char(COMMENT_BYTES));
    let is_comment = |line: &str| {
        let line = line.trim_start();
        line.is_empty() || COMMENTS.iter().any(|mark| line.starts_with(mark))
    };
    let comment: usize = first
        .split_inclusive('\n')
        .take_while(|line| is_comment(line))
        .map(|line| line.chars().count())
        .sum();
    let text = after(text, comment, BEGINNING_BYTES);
    (!text.trim().is_empty()).then_some(text)
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

    #[test]
    fn a_long_documents_beginning_is_shown_without_its_licence() {
        let licence = "// Licence\n".repeat(9);
        let long = format!("{licence}\nuse a;\n{}", "let b = 1;\n".repeat(9000));
        let shown = beginning(&Rope::from_str(&long), long.len()).unwrap();
        assert!(shown.starts_with("use a;\nlet b") && shown.len() <= BEGINNING_BYTES);
        assert_eq!(beginning(&Rope::from_str(&long), 20_000), None);
        let line = "é".repeat(50_000);
        let shown = beginning(&Rope::from_str(&line), 50_000).unwrap();
        assert!(shown.len() <= BEGINNING_BYTES && line.starts_with(&*shown));
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
