//! What is proposed after which edits, and that nothing typed breaks it.

use proptest::prelude::*;

use super::*;

const NAME: &str = "file:///a";

/// These tests are about what is likeliest. How sure one must be to say so is measured on commits.
const LIKELY: f32 = 0.6;

/// A document that is edited.
struct Typing {
    text: Rope,
    edits: Edits,
    language: &'static str,
    line: usize,
}

impl Typing {
    fn of(text: &str) -> Self {
        Self {
            text: Rope::from_str(text),
            edits: Edits::default(),
            language: "rust",
            line: 0,
        }
    }

    /// Puts `new` where `old` stands in a line, at once.
    fn replace(&mut self, line: usize, old: &str, new: &str) {
        let text = self.text.line(line).to_string();
        let at = text.find(old).unwrap();
        let start = self.text.line_to_char(line) + text[..at].chars().count();
        self.change(start..start + old.chars().count(), new);
    }

    fn change(&mut self, range: Range<usize>, new: &str) {
        let before = self.text.clone();
        self.text.remove(range.clone());
        self.text.insert(range.start, new);
        self.line = self.text.char_to_line(range.start);
        self.edits.change(
            NAME,
            &Change {
                before: &before,
                replaced: range,
                after: &self.text,
                inserted: new.chars().count(),
            },
        );
    }

    fn propose(&self) -> Option<Proposal> {
        let here = Here {
            document: NAME,
            language: self.language,
            text: &self.text,
            line: self.line,
        };
        propose(&self.edits, here, LIKELY)
    }

    /// The line and what it becomes.
    fn next(&self) -> Option<(usize, String)> {
        self.propose()
            .map(|proposal| (proposal.line, proposal.after))
    }

    fn accept(&mut self) {
        let proposal = self.propose().unwrap();
        let (range, new) = proposal.replacement(&self.text).unwrap();
        self.edits.accept(&proposal);
        self.change(range, new);
    }
}

fn line(number: usize, text: &str) -> (usize, String) {
    (number, text.to_owned())
}

const NAMES: &str = "fn total_count(items: &[u32]) -> usize {\n    items.len()\n}\n\nfn main() {\n    \
                     let a = total_count(&[1]);\n    let b = total_count(&[2]);\n}\n";

#[test]
fn a_renamed_declaration_has_its_uses_renamed() {
    let mut typing = Typing::of(NAMES);
    assert_eq!(typing.next(), None);
    typing.replace(0, "total_count", "item_count");
    assert_eq!(
        typing.next(),
        Some(line(5, "    let a = item_count(&[1]);"))
    );
    typing.accept();
    assert_eq!(
        typing.next(),
        Some(line(6, "    let b = item_count(&[2]);"))
    );
    typing.accept();
    assert_eq!(typing.next(), None);
}

#[test]
fn keystrokes_are_one_edit() {
    let mut typing = Typing::of(NAMES);
    typing.replace(0, "total", "");
    for (at, letter) in ["i", "t", "e", "m"].into_iter().enumerate() {
        typing.change(3 + at..3 + at, letter);
    }
    assert_eq!(
        typing.next(),
        Some(line(5, "    let a = item_count(&[1]);"))
    );
    assert_eq!(typing.edits.made(), 1);
}

#[test]
fn what_was_taken_back_teaches_nothing() {
    let mut typing = Typing::of(NAMES);
    typing.replace(0, "total_count", "item_count");
    typing.replace(0, "item_count", "total_count");
    assert_eq!(typing.next(), None);
    // And much later, as another edit.
    typing.replace(0, "total_count", "item_count");
    for _ in 0..20 {
        typing.replace(1, "items", "items ");
    }
    typing.replace(0, "item_count", "total_count");
    assert_eq!(typing.next(), None);
}

#[test]
fn a_rejected_proposal_does_not_come_back() {
    let mut typing = Typing::of(NAMES);
    typing.replace(0, "total_count", "item_count");
    let first = typing.propose().unwrap();
    typing.edits.reject(&first);
    let second = typing.propose().unwrap();
    assert_eq!(second.line, 6);
    typing.edits.reject(&second);
    assert_eq!(typing.next(), None);
    // Who takes one after all wants the others.
    typing.edits.accept(&second);
    assert_eq!(
        typing.next(),
        Some(line(5, "    let a = item_count(&[1]);"))
    );
}

#[test]
fn an_accepted_proposal_that_is_undone_is_rejected() {
    let mut typing = Typing::of(NAMES);
    typing.replace(0, "total_count", "item_count");
    typing.accept();
    typing.replace(5, "item_count", "total_count");
    assert_eq!(
        typing.next(),
        Some(line(6, "    let b = item_count(&[2]);"))
    );
}

#[test]
fn a_change_made_twice_is_made_again() {
    let mut typing = Typing::of(
        "a = read(one).unwrap();\nb = seek(two).unwrap();\nx = 1;\nc = tell(three).unwrap();\n",
    );
    typing.replace(0, ".unwrap()", "?");
    typing.replace(1, ".unwrap()", "?");
    assert_eq!(typing.next(), Some(line(3, "c = tell(three)?;")));
}

#[test]
fn an_argument_is_added_to_the_other_calls() {
    let mut typing = Typing::of(
        "f.draw_line(a, b);\nlet x = 2;\nf.draw_line(c, d);\nother(c, d);\nf.draw_line(e, g);\n",
    );
    typing.replace(0, "b)", "b, RED)");
    typing.replace(2, "d)", "d, RED)");
    let here = Here {
        document: NAME,
        language: "rust",
        text: &typing.text,
        line: 2,
    };
    let all = candidates(&typing.edits, here);
    let after: Vec<&str> = all.iter().map(|one| one.after.as_str()).collect();
    assert_eq!(after, ["f.draw_line(e, g, RED);"]);
}

#[test]
fn the_same_line_changes_the_same_way() {
    let mut typing = Typing::of(
        "    x.lock().expect(\"poisoned\");\n\n        x.lock().expect(\"poisoned\");\n",
    );
    typing.replace(0, "expect(\"poisoned\")", "unwrap_or_else(into_inner)");
    let expected = "        x.lock().unwrap_or_else(into_inner);";
    assert_eq!(typing.next(), Some(line(2, expected)));
}

#[test]
fn what_is_new_code_is_not_repeated() {
    let mut typing = Typing::of("fn a() {}\n\nfn b() {}\n");
    typing.change(10..10, "fn c() {\n    todo();\n}\n");
    assert_eq!(typing.next(), None);
}

#[test]
fn an_edit_goes_on_in_another_document() {
    let mut typing = Typing::of(NAMES);
    typing.replace(0, "total_count", "item_count");
    typing.replace(5, "total_count", "item_count");
    typing.replace(6, "total_count", "item_count");
    let other = Rope::from_str("use a::total_count;\n\nlet n = total_count(&all);\n");
    let here = Here {
        document: "file:///b",
        language: "rust",
        text: &other,
        line: 0,
    };
    let proposal = propose(&typing.edits, here, 0.5).unwrap();
    assert!(proposal.elsewhere);
    assert_eq!(proposal.change.1, "item_count");
}

#[test]
fn line_ends_and_wide_characters_stay() {
    let text = NAMES.replace('\n', "\r\n").replace("[1]", "[\"😀é\"]");
    let mut typing = Typing::of(&text);
    typing.replace(0, "total_count", "item_größe");
    assert_eq!(
        typing.next(),
        Some(line(5, "    let a = item_größe(&[\"😀é\"]);"))
    );
    typing.accept();
    let line = typing.text.line(5).to_string();
    assert_eq!(line, "    let a = item_größe(&[\"😀é\"]);\r\n");
}

#[test]
fn lines_of_megabytes_are_passed_by() {
    let long = "total_count ".repeat(500_000);
    let mut typing = Typing::of(&format!("fn total_count() {{}}\n{long}\ntotal_count();\n"));
    typing.replace(0, "total_count", "item_count");
    assert_eq!(typing.next(), Some(line(2, "item_count();")));
    let length = typing.text.len_chars();
    typing.change(40..length, "");
    assert_eq!(typing.next(), None);
}

#[test]
fn titles_say_what_happens_where() {
    let mut typing = Typing::of(NAMES);
    typing.replace(0, "total_count", "item_count");
    let title = typing.propose().unwrap().title();
    assert_eq!(title, "rename total_count to item_count in line 6");
}

/// Text that has what edits are about: words again and again, all kinds of line ends, characters of
/// several bytes.
fn text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "alpha",
        "beta_gamma",
        "f(",
        ")",
        ", ",
        "\n",
        "\r\n",
        "\r",
        "    ",
        "😀",
        "é",
        "e\u{301}",
        "\"",
        "// ",
        " = ",
        ".",
        "let ",
        "fn ",
        "🏳\u{200d}🌈",
        "1",
        "\u{2028}",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_edits_break_it(
        start in text(),
        edits in prop::collection::vec((0.0..1.0_f64, 0..8_usize, text()), 1..12),
        whole: bool,
    ) {
        let mut typing = Typing::of(&start);
        for (at, length, new) in edits {
            let from = (at * typing.text.len_chars() as f64) as usize;
            let to = (from + length).min(typing.text.len_chars());
            if whole {
                let before = typing.text.clone();
                typing.text.remove(from..to);
                typing.text.insert(from, &new);
                let change = Change::between(&before, &typing.text);
                // What is said to have changed makes the one text of the other.
                let mut made = before.clone();
                made.remove(change.replaced.clone());
                let end = change.replaced.start + change.inserted;
                made.insert(change.replaced.start, &typing.text.slice(change.replaced.start..end).to_string());
                prop_assert_eq!(&made, &typing.text);
                typing.edits.change(NAME, &change);
            } else {
                typing.change(from..to, &new);
            }
            let here = Here { document: NAME, language: "rust", text: &typing.text, line: typing.line };
            for proposal in candidates(&typing.edits, here) {
                let (range, new) = proposal.replacement(&typing.text).unwrap();
                prop_assert!(range.end <= typing.text.len_chars());
                // Only its line changes, and to what was proposed.
                let mut after = typing.text.clone();
                after.remove(range.clone());
                after.insert(range.start, new);
                let line = typing.text.line_to_char(proposal.line);
                prop_assert_eq!(after.slice(..line), typing.text.slice(..line));
                let end = line + proposal.before.chars().count();
                let new_end = line + proposal.after.chars().count();
                prop_assert_eq!(after.slice(line..new_end).to_string(), proposal.after);
                prop_assert_eq!(after.slice(new_end..), typing.text.slice(end..));
            }
        }
    }
}
