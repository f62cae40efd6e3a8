//! Token healing: a prompt ends before the piece that is still being typed.
//!
//! A tokenizer cuts `retu` other than the beginning of `return`, so a prompt that ends in the middle
//! of a word ends in tokens after which a model has hardly ever seen the rest of it. The unfinished
//! piece is therefore left out of the prompt, and the answer has to begin with it (S. Lundberg, "The
//! Art of Prompt Design: Prompt Boundaries and Token Healing", 2023). While a word is being typed the
//! prompt stays the same, too, and with it all that was computed for it.

/// A longer piece (a banner of dashes, text without spaces) stays in the prompt: an answer would have
/// to spell it out again.
pub const LONGEST: usize = 48;

/// The piece at the end of `text` that more text could make part of another token. Qwen2's tokenizer
/// splits text into words with one mark before them, single digits, runs of marks with one space
/// before them, and white space, of which the last belongs to what follows.
#[must_use]
pub fn unfinished(text: &str) -> &str {
    let near = &text[text.floor_char_boundary(text.len().saturating_sub(LONGEST + 1))..];
    let piece = last_piece(near);
    if piece.len() > LONGEST { "" } else { piece }
}

fn last_piece(text: &str) -> &str {
    let Some(last) = text.chars().next_back() else {
        return "";
    };
    if last.is_whitespace() {
        return match last {
            '\n' | '\r' => "",
            _ => &text[text.len() - last.len_utf8()..],
        };
    }
    if is_mark(last) {
        return with_space(text, text.trim_end_matches(is_mark).len());
    }
    if !last.is_alphabetic() {
        return "";
    }
    let word = text.trim_end_matches(char::is_alphabetic).len();
    let mut before = text[..word].chars().rev();
    match before.next() {
        None | Some('\n' | '\r') => &text[word..],
        Some(blank) if blank.is_whitespace() => &text[word - blank.len_utf8()..],
        // A mark belongs to the word behind it unless a run of marks, or a space, took it first.
        Some(mark) if is_mark(mark) => match before.next() {
            Some(other) if other == ' ' || is_mark(other) => &text[word..],
            _ => &text[word - mark.len_utf8()..],
        },
        Some(_) => &text[word..],
    }
}

/// `text` from `start`, or from the space before it.
fn with_space(text: &str, start: usize) -> &str {
    let has_space = text[..start].ends_with(' ');
    &text[start - usize::from(has_space)..]
}

fn is_mark(character: char) -> bool {
    !character.is_whitespace() && !character.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_piece_being_typed_is_left_out_as_the_tokenizer_would_cut_it() {
        for (text, piece) in [
            ("", ""),
            ("retu", "retu"),
            ("    retu", " retu"),
            ("\tretu", "\tretu"),
            ("\nretu", "retu"),
            ("self.it", ".it"),
            ("snake_ca", "_ca"),
            ("Stack::ne", "ne"),
            ("a |x", "x"),
            ("a -> b", " b"),
            ("a ->", " ->"),
            ("a(", "("),
            ("let a = ", " "),
            ("        ", " "),
            ("x = 42", ""),
            ("version2b", "b"),
            ("f();\n", ""),
            ("naï", "naï"),
            ("日本", "日本"),
        ] {
            assert_eq!(unfinished(text), piece, "{text:?}");
        }
    }

    #[test]
    fn what_is_long_stays_in_the_prompt() {
        assert_eq!(unfinished(&"-".repeat(LONGEST)).len(), LONGEST);
        assert_eq!(unfinished(&"-".repeat(LONGEST + 1)), "");
        assert_eq!(unfinished(&"é".repeat(10_000)), "");
    }
}
