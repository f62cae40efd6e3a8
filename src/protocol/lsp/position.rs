//! Between LSP positions and characters of a document, in the three encodings.

use ropey::Rope;
use tower_lsp::lsp_types::{Position, PositionEncodingKind, Range};

/// What a position's `character` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// Bytes.
    Utf8,
    /// UTF-16 code units: what a client gets that negotiates nothing.
    #[default]
    Utf16,
    /// Unicode code points.
    Utf32,
}

impl Encoding {
    /// The first of the client's encodings that we know, which is all of those LSP has.
    #[must_use]
    pub fn negotiate<'a>(offered: impl IntoIterator<Item = &'a str>) -> Self {
        offered
            .into_iter()
            .find_map(|name| match name {
                "utf-8" => Some(Self::Utf8),
                "utf-16" => Some(Self::Utf16),
                "utf-32" => Some(Self::Utf32),
                _ => None,
            })
            .unwrap_or_default()
    }

    /// The protocol's name for it.
    #[must_use]
    pub fn kind(self) -> PositionEncodingKind {
        match self {
            Self::Utf8 => PositionEncodingKind::UTF8,
            Self::Utf16 => PositionEncodingKind::UTF16,
            Self::Utf32 => PositionEncodingKind::UTF32,
        }
    }
}

/// Why a position is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// The document has fewer lines.
    #[error("the line is past the end of the document")]
    LinePastEnd,
    /// Between the bytes, or the surrogates, of one character.
    #[error("the position is inside a character")]
    InsideCharacter,
    /// A range that ends before it starts.
    #[error("the range ends before it starts")]
    Backwards,
}

/// The character of a position. A `character` past the line's end means the line's end, as LSP 3.17
/// says under Position.
///
/// # Errors
/// [`PositionError`] when there is no such line, or the position is inside a character.
pub fn to_char(rope: &Rope, at: Position, encoding: Encoding) -> Result<usize, PositionError> {
    let line = at.line as usize;
    if line >= rope.len_lines() {
        return Err(PositionError::LinePastEnd);
    }
    let start = rope.line_to_char(line);
    let end = line_end(rope, line);
    let wanted = at.character as usize;
    let (index, whole) = match encoding {
        Encoding::Utf32 => (start + wanted.min(end - start), true),
        Encoding::Utf8 => {
            let target = rope.char_to_byte(start).saturating_add(wanted);
            if target >= rope.char_to_byte(end) {
                (end, true)
            } else {
                let index = rope.byte_to_char(target);
                (index, rope.char_to_byte(index) == target)
            }
        }
        Encoding::Utf16 => {
            let target = rope.char_to_utf16_cu(start).saturating_add(wanted);
            if target >= rope.char_to_utf16_cu(end) {
                (end, true)
            } else {
                let index = rope.utf16_cu_to_char(target);
                (index, rope.char_to_utf16_cu(index) == target)
            }
        }
    };
    if whole {
        Ok(index)
    } else {
        Err(PositionError::InsideCharacter)
    }
}

/// The characters of a range that a client wants changed. A line past the end means the document's
/// end: clients say so to replace everything.
///
/// # Errors
/// [`PositionError`] when an end is inside a character or comes before the start.
pub fn to_chars(
    rope: &Rope,
    range: Range,
    encoding: Encoding,
) -> Result<std::ops::Range<usize>, PositionError> {
    let end_for_past = |at| match to_char(rope, at, encoding) {
        Err(PositionError::LinePastEnd) => Ok(rope.len_chars()),
        other => other,
    };
    let (start, end) = (end_for_past(range.start)?, end_for_past(range.end)?);
    if start <= end {
        Ok(start..end)
    } else {
        Err(PositionError::Backwards)
    }
}

/// The position of a character. `index` is within the document.
#[must_use]
pub fn to_position(rope: &Rope, index: usize, encoding: Encoding) -> Position {
    let index = index.min(rope.len_chars());
    let line = rope.char_to_line(index);
    let start = rope.line_to_char(line);
    let character = match encoding {
        Encoding::Utf32 => index - start,
        Encoding::Utf8 => rope.char_to_byte(index) - rope.char_to_byte(start),
        Encoding::Utf16 => rope.char_to_utf16_cu(index) - rope.char_to_utf16_cu(start),
    };
    // Documents are bounded far below `u32::MAX` characters.
    Position::new(line as u32, character as u32)
}

/// The first character of the line's end, which is its `\n`, `\r\n` or `\r`, or the document's end.
#[must_use]
pub fn line_end(rope: &Rope, line: usize) -> usize {
    let slice = rope.line(line);
    let length = slice.len_chars();
    let mut kept = length;
    if kept > 0 && slice.char(kept - 1) == '\n' {
        kept -= 1;
    }
    if kept > 0 && slice.char(kept - 1) == '\r' {
        kept -= 1;
    }
    rope.line_to_char(line) + kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32];

    fn check(
        text: &str,
        at: (u32, u32),
        encoding: Encoding,
        expected: Result<usize, PositionError>,
    ) {
        let rope = Rope::from_str(text);
        let found = to_char(&rope, Position::new(at.0, at.1), encoding);
        assert_eq!(found, expected, "{text:?} {at:?} {encoding:?}");
    }

    #[test]
    fn positions_count_what_was_negotiated() {
        use Encoding::{Utf8, Utf16, Utf32};
        use PositionError::{InsideCharacter, LinePastEnd};
        // A face of two UTF-16 units and four bytes, then an e with a combining accent.
        let text = "😀e\u{301}x\n";
        check(text, (0, 4), Utf8, Ok(1));
        check(text, (0, 2), Utf16, Ok(1));
        check(text, (0, 1), Utf32, Ok(1));
        check(text, (0, 1), Utf16, Err(InsideCharacter));
        check(text, (0, 3), Utf8, Err(InsideCharacter));
        // Between a letter and its accent is a position like any other.
        check(text, (0, 3), Utf16, Ok(2));
        check(text, (0, 6), Utf8, Err(InsideCharacter));
        check(text, (0, 7), Utf8, Ok(3));
        for encoding in ALL {
            check(text, (0, 99), encoding, Ok(4));
            check(text, (0, u32::MAX), encoding, Ok(4));
            check(text, (1, 0), encoding, Ok(5));
            check(text, (2, 0), encoding, Err(LinePastEnd));
            check("", (0, 5), encoding, Ok(0));
            check("ab\r\ncd", (0, 9), encoding, Ok(2));
            check("ab\rcd", (1, 1), encoding, Ok(4));
            // Only what LSP calls a line end ends a line.
            check("a\u{2028}b", (0, 0), encoding, Ok(0));
            check("a\u{2028}b", (1, 0), encoding, Err(LinePastEnd));
        }
    }

    #[test]
    fn the_clients_first_known_encoding_is_taken() {
        assert_eq!(Encoding::negotiate([]), Encoding::Utf16);
        assert_eq!(
            Encoding::negotiate(["utf-7", "utf-32", "utf-8"]),
            Encoding::Utf32
        );
        assert_eq!(Encoding::negotiate(["utf-8", "utf-16"]), Encoding::Utf8);
    }

    proptest! {
        #[test]
        fn every_character_goes_there_and_back(text in "(\\PC|\n|\r\n|\r){0,60}") {
            let rope = Rope::from_str(&text);
            for index in 0..=rope.len_chars() {
                // The place inside `\r\n` has no position of its own.
                if index > 0 && index < rope.len_chars()
                    && rope.char(index) == '\n' && rope.char(index - 1) == '\r'
                {
                    continue;
                }
                for encoding in ALL {
                    let position = to_position(&rope, index, encoding);
                    prop_assert_eq!(to_char(&rope, position, encoding), Ok(index));
                }
            }
        }

        #[test]
        fn no_position_panics(text in "\\PC{0,20}", line in 0u32..4, character: u32) {
            let rope = Rope::from_str(&text);
            for encoding in ALL {
                let at = Position::new(line, character);
                let _ = to_char(&rope, at, encoding);
                let _ = to_chars(&rope, Range::new(at, Position::new(0, 1)), encoding);
            }
        }
    }
}
