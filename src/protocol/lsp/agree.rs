//! Whether what was typed since agrees with what was suggested, and what of it is still to come.

use ropey::{Rope, RopeSlice};

/// What an editor may put behind the cursor by itself: a closing bracket for each one typed, with
/// the line break and the indentation between them. Chosen arbitrarily, above a line of a few.
const MOST_CLOSED: usize = 160;

/// A text with a cursor in it, as a model is to see it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The text. Shares what it can with other states of the document.
    pub text: Rope,
    /// The cursor, in characters; not past the text's end.
    pub cursor: usize,
}

impl Seen {
    /// Whether both are the same text with the same cursor.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.cursor == other.cursor
            && self.text.len_chars() == other.text.len_chars()
            && same(self.text.slice(..), other.text.slice(..))
    }

    /// The text with `inserted` at the cursor, and the cursor behind it.
    #[must_use]
    pub fn with(&self, inserted: &str) -> Self {
        let mut text = self.text.clone();
        text.insert(self.cursor, inserted);
        let grown = text.len_chars() - self.text.len_chars();
        Self {
            cursor: self.cursor + grown,
            text,
        }
    }
}

/// What of `suggestion`, which was made for `before`, is still to be inserted at the cursor of `now`;
/// `None` where the text is another, and where nothing is left but blanks.
///
/// The text before the cursor must be what it was and a beginning of the suggestion, and the text
/// behind it what it was. One thing may stand between: what an editor closes by itself when a bracket
/// or a quote is typed, if the suggestion closes the same. The rest then ends before that.
#[must_use]
pub fn rest<'a>(suggestion: &'a str, before: &Seen, now: &Seen) -> Option<&'a str> {
    let typed = now.cursor.checked_sub(before.cursor)?;
    let closed = now
        .text
        .len_chars()
        .checked_sub(before.text.len_chars() + typed)?;
    if closed > MOST_CLOSED {
        return None;
    }
    let (at, _) = suggestion.char_indices().nth(typed)?;
    let (agreed, rest) = suggestion.split_at(at);
    if now.text.slice(before.cursor..now.cursor) != agreed {
        return None;
    }
    let closing = now.cursor..now.cursor + closed;
    let rest = if closed == 0 {
        rest
    } else {
        let closing = now.text.slice(closing.clone()).to_string();
        before_closing(agreed, &closing, rest)?
    };
    let holds = !rest.trim().is_empty()
        && same(
            before.text.slice(..before.cursor),
            now.text.slice(..before.cursor),
        )
        && same(
            before.text.slice(before.cursor..),
            now.text.slice(closing.end..),
        );
    holds.then_some(rest)
}

/// Whether two texts are equal. States of one document share most of their pieces, which need not
/// be read: of 5 MB with a key typed into them that is all but a few hundred bytes.
fn same(one: RopeSlice<'_>, other: RopeSlice<'_>) -> bool {
    if one.len_bytes() != other.len_bytes() {
        return false;
    }
    let (mut ones, mut others) = (one.chunks(), other.chunks());
    let (mut left, mut right): (&[u8], &[u8]) = (&[], &[]);
    loop {
        // Both end together, since they are equally long.
        while left.is_empty() {
            let Some(chunk) = ones.next() else {
                return true;
            };
            left = chunk.as_bytes();
        }
        while right.is_empty() {
            let Some(chunk) = others.next() else {
                return false;
            };
            right = chunk.as_bytes();
        }
        let length = left.len().min(right.len());
        let (left_now, right_now) = (&left[..length], &right[..length]);
        if !std::ptr::eq(left_now, right_now) && left_now != right_now {
            return false;
        }
        (left, right) = (&left[length..], &right[length..]);
    }
}

/// What of `rest` goes before `closing`, which the editor has put behind the cursor when `agreed` was
/// typed; `None` if that is not what it is.
fn before_closing<'a>(agreed: &str, closing: &str, rest: &'a str) -> Option<&'a str> {
    let mut open = Open::default();
    agreed.chars().try_for_each(|one| open.take(one))?;
    let mut closes = closing.chars().filter(|one| !one.is_whitespace());
    let mut expected = open.closing.iter().rev();
    // Blanks alone close nothing.
    let depth = open.closing.len();
    if closes.next() != expected.next().copied()
        || !closes.all(|one| expected.next() == Some(&one))
        || depth == 0
    {
        return None;
    }
    let end = rest.char_indices().find_map(|(at, one)| {
        if open.take(one).is_none() {
            return Some(None);
        }
        (open.closing.len() < depth).then_some(Some(at))
    })??;
    let before = &rest[..end];
    // The line break before it is there already.
    Some(if closing.starts_with(char::is_whitespace) {
        before.trim_end()
    } else {
        before
    })
}

/// The brackets and quotes that stand open, by what closes them, outermost first.
#[derive(Default)]
struct Open {
    closing: Vec<char>,
    escaped: bool,
}

impl Open {
    /// The next character; `None` if it closes what is not open.
    fn take(&mut self, one: char) -> Option<()> {
        let innermost = self.closing.last().copied();
        if std::mem::take(&mut self.escaped) {
            return Some(());
        }
        if let Some(quote @ ('"' | '\'' | '`')) = innermost {
            if one == quote {
                self.closing.pop();
            }
            self.escaped = one == '\\';
            return Some(());
        }
        match one {
            '(' => self.closing.push(')'),
            '[' => self.closing.push(']'),
            '{' => self.closing.push('}'),
            '"' | '\'' | '`' => self.closing.push(one),
            ')' | ']' | '}' if innermost == Some(one) => {
                self.closing.pop();
            }
            ')' | ']' | '}' => return None,
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A text with its cursor at `|`.
    fn seen(marked: &str) -> Seen {
        let (before, after) = marked.split_once('|').unwrap();
        Seen {
            text: Rope::from_str(&format!("{before}{after}")),
            cursor: before.chars().count(),
        }
    }

    fn check(before: &str, suggestion: &str, now: &str, expected: Option<&str>) {
        let found = rest(suggestion, &seen(before), &seen(now));
        assert_eq!(found, expected, "{before:?} + {suggestion:?}, then {now:?}");
    }

    #[test]
    fn what_agrees_has_a_rest() {
        check("a = |;\n", "foo(1)", "a = |;\n", Some("foo(1)"));
        check("a = |;\n", "foo(1)", "a = f|;\n", Some("oo(1)"));
        check("a = |;\n", "foo(1)", "a = foo(1|;\n", Some(")"));
        check(
            "é😀|\r\n",
            "😀e\u{301}\r\n!",
            "é😀😀|\r\n",
            Some("e\u{301}\r\n!"),
        );
        check("é😀|\r\n", "😀e\r\n  !", "é😀😀e\r\n |\r\n", Some(" !"));
        check("if x:|", "\n    y()\n", "if x:\n    |", Some("y()\n"));
    }

    #[test]
    fn what_differs_has_none() {
        // Another letter, another end, another beginning, another place.
        check("a = |;\n", "foo", "a = x|;\n", None);
        check("a = |;\n", "foo", "a = f|\n", None);
        check("a = |;\n", "foo", "a = f|; \n", None);
        check("a = |;\n", "foo", "b = f|;\n", None);
        check("a = |;\n", "foo", "a =| ;\n", None);
        check("a = |;\n", "foo", "\na = f|;\n", None);
        check("a = |;\n", "foo", "a = fo|o;\n", None);
        // Nothing is left, or blanks alone.
        check("a = |;\n", "foo", "a = foo|;\n", None);
        check("a = |;\n", "foo", "a = foo;|\n", None);
        check("a = |\n", "b\n", "a = b|\n", None);
        // The editor indents otherwise.
        check("if x:|", "\n    y()", "if x:\n\t|", None);
    }

    #[test]
    fn what_the_editor_closes_by_itself_ends_the_rest() {
        check("a = |;", "foo(b, c)", "a = foo(|);", Some("b, c"));
        check("a = |;", "foo(b[1], c).d()", "a = foo(b[|]);", Some("1"));
        check("a = |;", "foo(b[1], c).d()", "a = foo(b[1]|);", Some(", c"));
        check(
            "a = |;",
            "foo(b[1], c).d()",
            "a = foo(b[1], c)|;",
            Some(".d()"),
        );
        check("a = |", "\"b\\\"(c\" + d", "a = \"|\"", Some("b\\\"(c"));
        check(
            "fn f() |",
            "{\n    g();\n}",
            "fn f() {|}",
            Some("\n    g();\n"),
        );
        check(
            "fn f() |",
            "{\n    g();\n}",
            "fn f() {\n    |\n}",
            Some("g();"),
        );
        check("a(|", "{\n  b({c})\n});", "a({\n  |\n}", Some("b({c})"));
        // Another bracket, none to close, one that nothing opened, one more than was opened.
        check("a = |;", "foo(b)", "a = foo(|];", None);
        check("a = |;", "foo(b", "a = foo(|);", None);
        check("a = |;", "foo)", "a = f|);", None);
        check("a = |;", "foo(b)", "a = foo(|));", None);
        check("a = |;", "foo(b)", "a = foo(b|);", None);
        check("a = |;", "foo(b)", "a = foo| ;", None);
        // Nothing goes in between.
        check("a = |;", "foo()", "a = foo(|);", None);
        check("a = |;", "foo( )", "a = foo(|);", None);
        check("a = |;", "foo(b})", "a = foo(|);", None);
    }

    #[test]
    fn texts_are_compared_whatever_their_pieces() {
        let long = "let é = 1;\r\n".repeat(4000);
        let one = Rope::from_str(&long);
        let mut other = one.clone();
        assert!(same(one.slice(..), other.slice(..)));
        other.insert(20_001, "x");
        assert!(same(one.slice(..20_001), other.slice(..20_001)));
        assert!(same(one.slice(20_001..), other.slice(20_002..)));
        assert!(!same(one.slice(..), other.slice(..)));
        assert!(!same(one.slice(..), other.slice(1..)));
        other.remove(20_001..20_002);
        assert!(same(one.slice(..), other.slice(..)));
        assert!(same(one.slice(..), Rope::from_str(&long).slice(..)));
        let mut last = other.clone();
        last.remove(last.len_chars() - 1..);
        last.insert(last.len_chars(), "!");
        assert!(!same(one.slice(..), last.slice(..)));
    }

    proptest! {
        /// Inserting the rest gives the text with the suggestion in its place, but for what the
        /// editor has closed: then what is there is a beginning of it.
        #[test]
        fn the_rest_leads_to_the_suggestion(
            before in "[a(\\[\r\n 😀]{0,6}",
            after in "[b)\\]\r\n 😀]{0,6}",
            suggestion in "[a()\\[\\]{}\"\r\n 😀]{1,10}",
            typed in "[a()\\[\\]{}\"\r\n 😀]{0,4}",
            closed in "[)\\]} \n]{0,3}",
            keep in 0usize..8,
        ) {
            let made_for = Seen {
                text: Rope::from_str(&format!("{before}{after}")),
                cursor: before.chars().count(),
            };
            // Half of the cases agree by their making.
            let typed = if keep < 4 {
                typed
            } else {
                suggestion.chars().take(keep - 4).collect()
            };
            let now = Seen {
                text: Rope::from_str(&format!("{before}{typed}{closed}{after}")),
                cursor: before.chars().count() + typed.chars().count(),
            };
            let Some(rest) = rest(&suggestion, &made_for, &now) else {
                return Ok(());
            };
            let inserted = now.with(rest);
            let whole = made_for.with(&suggestion);
            if closed.is_empty() {
                prop_assert!(inserted.is(&whole));
            } else {
                let start = inserted.text.slice(..inserted.cursor).to_string();
                let typed_so_far = [before, typed].concat();
                prop_assert!(start.starts_with(&typed_so_far));
                prop_assert!(whole.text.to_string().starts_with(&start));
            }
        }
    }
}
