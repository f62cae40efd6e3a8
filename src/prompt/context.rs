//! What goes into a prompt of a document and of other files, within a budget. Pure.

use crate::inference::Snippet;

/// Window edges fall on multiples of this many lines, so that the far part of a prompt stays the
/// same from one keystroke to the next and a prompt cache can serve it. Chosen arbitrarily: about a
/// screenful.
const EDGE_LINES: usize = 64;

/// Lines before the cursor that are never in the stable part, since they change while typing.
const NEAR_LINES: usize = 16;

/// Tokens of a text, estimated from above.
///
/// Source code comes to three to four bytes a token, and text outside ASCII to at most about two
/// tokens a character, with the tokenizers of current models.
#[must_use]
pub fn estimate_tokens(text: &str) -> usize {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    let others = text.chars().filter(|c| !c.is_ascii()).count();
    ascii.div_ceil(3) + others * 2
}

/// The text before a cursor, cut to a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before<'a> {
    /// Whether the document begins earlier.
    pub cut: bool,
    /// The far part, whole lines. The same for many keystrokes; may be empty.
    pub stable: &'a str,
    /// The rest, up to the cursor.
    pub near: &'a str,
}

/// Cuts the text before a cursor to at most `budget` bytes, at line starts that do not move with
/// every keystroke. A last line longer than the budget is cut within.
#[must_use]
pub fn before(text: &str, budget: usize) -> Before<'_> {
    let starts: Vec<usize> = std::iter::once(0)
        .chain(text.match_indices('\n').map(|(at, _)| at + 1))
        .collect();
    let fits = |at: &usize| text.len() - at <= budget && (*at < text.len() || text.is_empty());
    let start = starts
        .iter()
        .step_by(EDGE_LINES)
        .copied()
        .find(fits)
        // The lines after the last edge do not fit: take what does, from any line start.
        .or_else(|| starts.iter().copied().find(fits))
        .unwrap_or_else(|| ceil_boundary(text, text.len().saturating_sub(budget)));
    let last_edge = starts.len().saturating_sub(NEAR_LINES) / EDGE_LINES * EDGE_LINES;
    let edge = starts.get(last_edge).copied().unwrap_or(0).max(start);
    Before {
        cut: start > 0,
        stable: &text[start..edge],
        near: &text[edge..],
    }
}

/// Cuts the text after a cursor to at most `budget` bytes, at a line end where there is one.
/// The flag says whether the document goes on.
#[must_use]
pub fn after(text: &str, budget: usize) -> (&str, bool) {
    if text.len() <= budget {
        return (text, false);
    }
    let end = floor_boundary(text, budget);
    let end = text[..end].rfind('\n').map_or(end, |at| at + 1);
    (&text[..end], true)
}

/// A piece of another file that made it into the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Where it comes from.
    pub path: &'a str,
    /// The text, whole or cut at a line end.
    pub text: &'a str,
}

/// Picks from `snippets`, which come best first, what fits `budget` bytes. Blank and repeated ones
/// are left out; the last one may be cut at a line end.
#[must_use]
pub fn select(snippets: &[Snippet], budget: usize) -> Vec<Piece<'_>> {
    let mut left = budget;
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    for snippet in snippets {
        if snippet.text.trim().is_empty()
            || pieces
                .iter()
                .any(|piece| piece.text.contains(&*snippet.text))
        {
            continue;
        }
        let (text, cut) = after(&snippet.text, left);
        // A cut within a line would show the model half a statement.
        if text.trim().is_empty() || (cut && !text.ends_with('\n')) {
            break;
        }
        left -= text.len();
        pieces.push(Piece {
            path: &snippet.path,
            text,
        });
        if cut {
            break;
        }
    }
    pieces
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn ceil_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbered(lines: usize) -> String {
        (0..lines).fold(String::new(), |text, n| text + &format!("line {n}\n"))
    }

    fn snippet(path: &str, text: &str) -> Snippet {
        Snippet {
            path: path.to_owned(),
            file: None,
            text: text.into(),
        }
    }

    #[test]
    fn a_short_document_is_whole_and_near() {
        let got = before("fn main() {\n    ", 1000);
        assert_eq!(
            (got.cut, got.stable, got.near),
            (false, "", "fn main() {\n    ")
        );
    }

    #[test]
    fn the_stable_part_does_not_change_while_typing() {
        let document = numbered(300);
        let first = before(&document, 1000);
        assert!(first.cut && !first.stable.is_empty());
        for typed in ["l", "let", "let x = 1;\n", "let x = 1;\nlet y = 2;\n    r"] {
            let later = format!("{document}{typed}");
            assert_eq!(before(&later, 1000).stable, first.stable, "{typed:?}");
        }
    }

    #[test]
    fn a_line_longer_than_the_budget_is_cut_within() {
        let document = format!("short\n{}", "é".repeat(100));
        let got = before(&document, 21);
        assert_eq!((got.cut, got.near.chars().count()), (true, 10));
    }

    #[test]
    fn the_text_after_ends_at_a_line_end() {
        assert_eq!(after("one\ntwo\nthree\n", 9), ("one\ntwo\n", true));
        assert_eq!(after("one\n", 9), ("one\n", false));
        assert_eq!(after("ééééé", 5), ("éé", true));
    }

    #[test]
    fn the_best_pieces_fit_the_budget_without_repeats() {
        let snippets = [
            snippet("a.rs", "fn a() {}\nfn b() {}\n"),
            snippet("blank.rs", " \n"),
            snippet("again.rs", "fn b() {}\n"),
            snippet("c.rs", "fn c() {}\nfn d() {}\n"),
            snippet("e.rs", "fn e() {}\n"),
        ];
        let got: Vec<_> = select(&snippets, 32)
            .iter()
            .map(|piece| (piece.path, piece.text))
            .collect();
        assert_eq!(
            got,
            [("a.rs", "fn a() {}\nfn b() {}\n"), ("c.rs", "fn c() {}\n")]
        );
    }

    proptest! {
        #[test]
        fn windows_never_exceed_their_budget(text in "(\\PC{0,12}\n){0,200}\\PC{0,40}", budget in 0usize..900) {
            let window = before(&text, budget);
            prop_assert!(window.stable.len() + window.near.len() <= budget);
            let joined = format!("{}{}", window.stable, window.near);
            prop_assert!(text.ends_with(&joined));
            let (head, _) = after(&text, budget);
            prop_assert!(head.len() <= budget && text.starts_with(head));
        }
    }
}
