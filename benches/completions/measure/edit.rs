//! Positions as LSP counts them, and what an item inserts at the cursor.

use serde_json::{Value, json};

/// The position of a byte: its line, and UTF-16 units from the line's start.
pub fn position(text: &str, at: usize) -> Value {
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let units: usize = text[line..at].chars().map(char::len_utf16).sum();
    json!({"line": text[..at].matches('\n').count(), "character": units})
}

/// The byte of a position; `None` where the text has none.
pub fn offset(text: &str, position: &Value) -> Option<usize> {
    let line = usize::try_from(position["line"].as_u64()?).ok()?;
    let units = usize::try_from(position["character"].as_u64()?).ok()?;
    let start = match line {
        0 => 0,
        line => text.match_indices('\n').nth(line - 1)?.0 + 1,
    };
    let end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let mut seen = 0;
    for (at, character) in text[start..end].char_indices() {
        if seen == units {
            return Some(start + at);
        }
        seen += character.len_utf16();
    }
    (seen == units).then_some(end)
}

/// What `item` inserts at the cursor, which is all that an item may do; `None` for one that does more.
pub fn inserted(text: &str, cursor: usize, item: &Value) -> Option<String> {
    let range = &item["range"];
    let (start, end) = (offset(text, &range["start"])?, offset(text, &range["end"])?);
    if start > end {
        return None;
    }
    let whole = [&text[..start], item["insertText"].as_str()?, &text[end..]].concat();
    let rest = whole.strip_prefix(&text[..cursor])?;
    Some(rest.strip_suffix(&text[cursor..])?.to_owned())
}
