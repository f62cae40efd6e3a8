//! Positions and insertions, as the bench of completions reads them.

use serde_json::json;

use super::measure::edit::{inserted, offset, position};

#[test]
fn positions_and_bytes_are_each_others_inverse() {
    let text = "aé🦀b\n\nc";
    for (at, _) in text.char_indices().chain([(text.len(), ' ')]) {
        assert_eq!(offset(text, &position(text, at)), Some(at));
    }
    assert_eq!(position(text, text.find('b').unwrap())["character"], 4);
    assert_eq!(offset(text, &json!({"line": 0, "character": 3})), None);
    assert_eq!(offset(text, &json!({"line": 3, "character": 0})), None);
}

#[test]
fn an_item_inserts_at_the_cursor_or_does_too_much() {
    let text = "let a = ;\nb";
    let item = |insert: &str, from: usize, to: usize| {
        let range = json!({"start": position(text, from), "end": position(text, to)});
        inserted(text, 8, &json!({"insertText": insert, "range": range}))
    };
    assert_eq!(item("let a = 1", 0, 8).as_deref(), Some("1"));
    assert_eq!(item("1", 8, 8).as_deref(), Some("1"));
    assert_eq!(item("let b = 1", 0, 8), None);
    assert_eq!(item("let a = 1", 0, 9), None);
    assert_eq!(item("", 8, 4), None);
}
