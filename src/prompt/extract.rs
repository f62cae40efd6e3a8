//! Takes the wanted text out of what a chat model says, while it says it. Pure.
//!
//! Models answer between the tags they were asked for, and sometimes add a preamble, a code fence,
//! or the line that the cursor stands in. What is passed on is never taken back: text is held until
//! it is certain to belong to the answer.

/// A preamble longer than this means that the opening tag will not come.
const LONGEST_PREAMBLE: usize = 400;

/// A current line shorter than this may well be repeated on purpose (`x = x`).
const SHORTEST_ECHO: usize = 3;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extractor {
    form: Form,
    raw: String,
    sent: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// All of it is the answer.
    Verbatim,
    Tagged(Tagged),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tagged {
    open: String,
    close: String,
    /// The text may itself hold code fences, which are then no wrapping.
    fences_belong: bool,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// At a cursor; the line before it.
    Cursor { line: String },
    /// Instead of a piece, which begins and ends with a line break or not.
    Piece { leading: bool, trailing: bool },
}

impl Extractor {
    /// Passes everything on.
    #[must_use]
    pub fn verbatim() -> Self {
        Self::new(Form::Verbatim)
    }

    /// Expects `<tag>text</tag>` for a cursor that stands after `line` in its line.
    #[must_use]
    pub fn insertion(tag: &str, line: &str, fences_belong: bool) -> Self {
        Self::new(Form::Tagged(Tagged {
            open: format!("<{tag}>"),
            close: format!("</{tag}>"),
            fences_belong,
            place: Place::Cursor {
                line: line.to_owned(),
            },
        }))
    }

    /// Expects `<tag>text</tag>` as the replacement for `piece`.
    #[must_use]
    pub fn replacement(tag: &str, piece: &str, fences_belong: bool) -> Self {
        Self::new(Form::Tagged(Tagged {
            open: format!("<{tag}>"),
            close: format!("</{tag}>"),
            fences_belong,
            place: Place::Piece {
                leading: piece.starts_with('\n'),
                trailing: piece.ends_with('\n'),
            },
        }))
    }

    fn new(form: Form) -> Self {
        Self {
            form,
            raw: String::new(),
            sent: 0,
        }
    }

    /// Takes what the model said next and gives what is now certain to be answer.
    pub fn push(&mut self, text: &str) -> String {
        match &self.form {
            Form::Verbatim => text.to_owned(),
            Form::Tagged(tagged) => {
                self.raw.push_str(text);
                let clean = tagged.clean(&self.raw, false);
                Self::fresh(&mut self.sent, &clean)
            }
        }
    }

    /// The rest, once the model has ended.
    pub fn finish(&mut self) -> String {
        match &self.form {
            Form::Verbatim => String::new(),
            Form::Tagged(tagged) => {
                let clean = tagged.clean(&self.raw, true);
                Self::fresh(&mut self.sent, &clean)
            }
        }
    }

    fn fresh(sent: &mut usize, clean: &str) -> String {
        let fresh = clean.get(*sent..).unwrap_or_default().to_owned();
        *sent += fresh.len();
        fresh
    }
}

impl Tagged {
    /// The answer as far as `raw` tells. With `done` unset, only what no further text can change.
    fn clean(&self, raw: &str, done: bool) -> String {
        let (body, closed) = match raw.find(&self.open) {
            Some(at) if at <= LONGEST_PREAMBLE => {
                let body = &raw[at + self.open.len()..];
                match body.find(&self.close) {
                    Some(end) => (&body[..end], true),
                    None if done => (body, true),
                    None => (without_start_of(body, &self.close), false),
                }
            }
            // Without tags nothing is certain before the end.
            _ if !done => return String::new(),
            _ => {
                let body = raw.strip_suffix(&self.close).unwrap_or(raw);
                (self.bare(body), true)
            }
        };
        let Some((body, closed)) = self.unfenced(body, closed) else {
            return String::new();
        };
        match &self.place {
            Place::Cursor { line } => at_cursor(body, line, closed).to_owned(),
            Place::Piece { leading, trailing } => as_piece(body, *leading, *trailing, closed),
        }
    }

    /// An answer without tags: the first fenced block if there is one, else all of it.
    fn bare<'a>(&self, body: &'a str) -> &'a str {
        if self.fences_belong {
            return body;
        }
        match body.find("```") {
            Some(at) if at == 0 || body[..at].ends_with('\n') => &body[at..],
            _ => body,
        }
    }

    /// Takes a code fence off that wraps the whole body. `None` while that is not decided.
    fn unfenced<'a>(&self, body: &'a str, closed: bool) -> Option<(&'a str, bool)> {
        if self.fences_belong {
            return Some((body, closed));
        }
        let inner = body.trim_start();
        if inner.is_empty() || !inner.starts_with('`') {
            // A fence may still come after white space.
            return (closed || !inner.is_empty()).then_some((body, closed));
        }
        if !inner.starts_with("```") {
            return (closed || !inner.trim_start_matches('`').is_empty()).then_some((body, closed));
        }
        let Some((_, inside)) = inner.split_once('\n') else {
            return closed.then_some(("", true));
        };
        if let Some(code) = inside.strip_prefix("```") {
            // Nothing between the fences.
            return (closed || !code.is_empty()).then_some(("", true));
        }
        match inside.find("\n```") {
            Some(end) => Some((&inside[..end], true)),
            None if closed => Some((inside, true)),
            None => Some((without_start_of(inside, "\n```"), false)),
        }
    }
}

/// Leaves out a last part that may become `tag`.
fn without_start_of<'a>(text: &'a str, tag: &str) -> &'a str {
    let longest = (1..tag.len())
        .rev()
        .filter(|len| tag.is_char_boundary(*len))
        .find(|len| text.ends_with(&tag[..*len]))
        .unwrap_or(0);
    &text[..text.len() - longest]
}

/// Takes off what repeats the line the cursor stands in.
fn at_cursor<'a>(body: &'a str, line: &str, closed: bool) -> &'a str {
    let word = line.trim_start();
    if word.is_empty() {
        // The cursor stands in white space: a line break and that white space again are the
        // model's layout, not the document's.
        if !closed && (body.is_empty() || body == "\n") {
            return "";
        }
        let text = body.strip_prefix('\n').unwrap_or(body);
        if line.is_empty() {
            return text;
        }
        if !closed && line.starts_with(text) {
            return "";
        }
        return text.strip_prefix(line).unwrap_or(text);
    }
    if word.chars().count() < SHORTEST_ECHO {
        return body;
    }
    let start = body.trim_start();
    if !closed && word.starts_with(start) {
        return "";
    }
    start.strip_prefix(word).unwrap_or(body)
}

/// Gives a replacement the line breaks at its ends that the piece had.
fn as_piece(body: &str, leading: bool, trailing: bool, closed: bool) -> String {
    if !closed && body == "\n" {
        return String::new();
    }
    let body = if leading {
        body
    } else {
        body.strip_prefix('\n').unwrap_or(body)
    };
    if !closed {
        return body.strip_suffix('\n').unwrap_or(body).to_owned();
    }
    let ended = body.strip_suffix('\n').unwrap_or(body);
    if trailing && !ended.is_empty() {
        format!("{ended}\n")
    } else {
        ended.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(mut extractor: Extractor, said: &str) -> String {
        let mut text = extractor.push(said);
        text.push_str(&extractor.finish());
        text
    }

    fn in_pieces(mut extractor: Extractor, said: &str) -> String {
        let mut text = String::new();
        for c in said.chars() {
            text.push_str(&extractor.push(c.encode_utf8(&mut [0; 4])));
        }
        text.push_str(&extractor.finish());
        text
    }

    fn check(extractor: &Extractor, said: &str, wanted: &str) {
        assert_eq!(whole(extractor.clone(), said), wanted, "whole: {said:?}");
        assert_eq!(
            in_pieces(extractor.clone(), said),
            wanted,
            "in pieces: {said:?}"
        );
    }

    #[test]
    fn an_insertion_is_what_stands_between_the_tags() {
        let at = Extractor::insertion("insert", "    let area = ", false);
        for (said, wanted) in [
            ("<insert>w * h;</insert>", "w * h;"),
            ("<insert>w * h;", "w * h;"),
            ("Here it is:\n<insert>w * h;</insert> Done.", "w * h;"),
            ("<insert></insert>", ""),
            ("<insert>a < b </i></insert>", "a < b </i>"),
            ("<insert>let area = w * h;</insert>", "w * h;"),
            (
                "<insert>    let area = w * h;\n    area</insert>",
                "w * h;\n    area",
            ),
            ("<insert>\n```rust\nw * h;\n```\n</insert>", "w * h;"),
            ("<insert>`w`</insert>", "`w`"),
            ("```rust\nw * h;\n```", "w * h;"),
            ("Sure:\n```\nw * h;\n```\nThat is all.", "w * h;"),
            ("w * h;", "w * h;"),
            ("w * h;</insert>", "w * h;"),
            ("", ""),
        ] {
            check(&at, said, wanted);
        }
    }

    #[test]
    fn in_white_space_the_layout_is_not_repeated() {
        let at = Extractor::insertion("insert", "    ", false);
        for (said, wanted) in [
            ("<insert>return x</insert>", "return x"),
            ("<insert>    return x</insert>", "return x"),
            ("<insert>\n    return x\n    y</insert>", "return x\n    y"),
        ] {
            check(&at, said, wanted);
        }
        let at = Extractor::insertion("insert", "", false);
        check(&at, "<insert>\nfn f() {}\n</insert>", "fn f() {}\n");
    }

    #[test]
    fn a_line_break_after_a_brace_is_kept() {
        let at = Extractor::insertion("insert", "fn f() {", false);
        check(&at, "<insert>\n    1\n}</insert>", "\n    1\n}");
    }

    #[test]
    fn fences_of_a_document_in_markdown_are_kept() {
        let at = Extractor::insertion("insert", "", true);
        check(&at, "<insert>```sh\nls\n```\n</insert>", "```sh\nls\n```\n");
    }

    #[test]
    fn a_replacement_ends_as_the_piece_did() {
        let line = Extractor::replacement("replacement", "x = 1\n", false);
        check(&line, "<replacement>\nx = 2\n</replacement>", "x = 2\n");
        check(&line, "<replacement>x = 2</replacement>", "x = 2\n");
        let word = Extractor::replacement("replacement", "x", false);
        check(&word, "<replacement>\ny\n</replacement>", "y");
        check(&word, "<replacement></replacement>", "");
    }

    #[test]
    fn text_is_passed_on_before_the_end() {
        let mut at = Extractor::insertion("insert", "", false);
        assert_eq!(at.push("<insert>one"), "one");
        assert_eq!(at.push(" two</ins"), " two");
        assert_eq!(at.push("ide>"), "</inside>");
        assert_eq!(at.finish(), "");
    }

    proptest! {
        #[test]
        fn how_the_text_is_cut_changes_nothing(
            said in "(<insert>)?[ \n`a<>/é]{0,24}(</insert>)?[a\n`]{0,4}",
            line in "[ a]{0,5}",
        ) {
            for extractor in [
                Extractor::insertion("insert", &line, false),
                Extractor::replacement("insert", &line, false),
                Extractor::insertion("insert", &line, true),
            ] {
                prop_assert_eq!(
                    whole(extractor.clone(), &said),
                    in_pieces(extractor, &said)
                );
            }
        }
    }
}
