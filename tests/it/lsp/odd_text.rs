//! Documents as nobody would write them and everybody has one: accepting what is offered there leaves
//! sound text and touches the item's own range only.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::client::{Lsp, Setup};

const URI: &str = "file:///project/odd";

/// The byte of a position in UTF-16 units; lines end as LSP has it, with `\n`, `\r\n` or `\r`.
fn offset(document: &str, position: &Value) -> usize {
    let line = position["line"].as_u64().unwrap();
    let units = position["character"].as_u64().unwrap() as usize;
    let mut start = 0;
    for _ in 0..line {
        let rest = &document[start..];
        let end = rest.find(['\n', '\r']).expect("the line is there");
        let both = rest[end..].starts_with("\r\n");
        start += end + 1 + usize::from(both);
    }
    let mut seen = 0;
    let mut at = start;
    for letter in document[start..]
        .chars()
        .take_while(|letter| !matches!(letter, '\n' | '\r'))
    {
        if seen >= units {
            break;
        }
        seen += letter.len_utf16();
        at += letter.len_utf8();
    }
    assert_eq!(
        seen, units,
        "a position inside a character or behind its line"
    );
    at
}

/// The position of a byte that is a character's first.
fn position(document: &str, at: usize) -> (u32, u32) {
    let before = document[..at].replace("\r\n", "\n").replace('\r', "\n");
    let line = before.rsplit('\n').next().unwrap_or_default();
    let character = line.encode_utf16().count();
    (before.matches('\n').count() as u32, character as u32)
}

/// Whatever both kinds of request offer at a byte of the document, as range and text.
async fn offered(lsp: &mut Lsp, at: (u32, u32)) -> Vec<(Value, String)> {
    let mut found = Vec::new();
    for item in lsp.inline(URI, at, 1).await {
        let text = item["insertText"].as_str().unwrap().to_owned();
        found.push((item["range"].clone(), text));
    }
    let params = json!({
        "textDocument": {"uri": URI},
        "position": {"line": at.0, "character": at.1},
        "context": {"triggerKind": 1},
    });
    let list = lsp.call("textDocument/completion", params).await.unwrap();
    for item in list["items"].as_array().unwrap() {
        let edit = &item["textEdit"];
        let text = edit["newText"].as_str().unwrap().to_owned();
        found.push((edit["range"].clone(), text));
    }
    found
}

/// Opens the document, asks at the cursor, and holds every item against it. Gives how many there were.
async fn check(lsp: &mut Lsp, language: &str, document: &str, cursor: usize) -> usize {
    lsp.open(URI, language, document).await;
    let items = offered(lsp, position(document, cursor)).await;
    for (range, text) in &items {
        let from = offset(document, &range["start"]);
        let to = offset(document, &range["end"]);
        assert_eq!(to, cursor, "what follows the cursor is not touched");
        let replaced = &document[from..to];
        assert!(
            !replaced.contains(['\n', '\r']),
            "one line at most: {replaced:?}"
        );
        let added = text.strip_prefix(replaced);
        let added = added.unwrap_or_else(|| panic!("{text:?} does not repeat {replaced:?}"));
        assert!(!added.trim().is_empty(), "nothing but blanks: {added:?}");
        let unsound = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t');
        assert!(!added.contains(unsound), "{added:?}");
        // Line ends are those of the document, and whole.
        let alone = added.replace("\r\n", "");
        assert!(!alone.contains('\r'), "{added:?}");
        if document.contains("\r\n") && !document.replace("\r\n", "").contains('\n') {
            assert!(!alone.contains('\n'), "{added:?}");
        }
    }
    let close = json!({"textDocument": {"uri": URI}});
    lsp.notify("textDocument/didClose", close).await;
    items.len()
}

#[tokio::test(start_paused = true)]
async fn odd_documents_are_completed_where_the_cursor_stands() {
    let answer = "value();\n    more(\u{0}é)";
    let mut lsp = Setup::saying(answer).start().await;
    for (language, document) in [
        ("rust", "fn a() {\r\n    let b = ▮\r\n}\r\n"),
        ("rust", "fn a() {\n    let b = ▮\r\n}\rfn c() {}\n"),
        ("rust", "\r▮\r\n\r\n"),
        ("go", "\tif x {\n\t  \t▮\n}"),
        ("python", "x = '👨‍👩‍👧'▮"),
        ("python", "cafe\u{301}▮ = 1"),
        ("python", "👍🏽 = ▮\u{200d}x"),
        ("rust", ")))]]}}} fn (( ▮ '\" /* "),
        ("no-such-language", "((▮"),
        ("", "▮"),
        ("markdown", "```rust\nlet a = ▮\n```\n"),
        ("csv", "\u{feff}a;b\r\n▮"),
    ] {
        let cursor = document.find('▮').unwrap();
        let document = document.replace('▮', "");
        let items = check(&mut lsp, language, &document, cursor).await;
        assert_eq!(items, 2, "{document:?}");
    }
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_line_of_five_megabytes_is_completed_in_a_small_range() {
    let mut lsp = Setup::saying("1, 2]").start().await;
    let line = "[0, 1, 2, \"é😀\"], ".repeat(250_000);
    assert!(line.len() > 5_000_000);
    for cursor in [
        0,
        line.find('😀').unwrap(),
        line.len() / 2 / 20 * 20,
        line.len(),
    ] {
        lsp.open(URI, "json", &line).await;
        let cursor = line.floor_char_boundary(cursor);
        let units = line[..cursor].encode_utf16().count() as u32;
        let items = offered(&mut lsp, (0, units)).await;
        for (range, text) in items {
            assert_eq!(range["end"]["character"], units);
            let from = range["start"]["character"].as_u64().unwrap() as u32;
            assert!(units - from <= 512 && text.len() < 2048);
        }
        let close = json!({"textDocument": {"uri": URI}});
        lsp.notify("textDocument/didClose", close).await;
    }
    lsp.finish().await;
}

/// Text like code, with every line end, blanks, marks that combine and characters of two units.
fn odd() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        12 => proptest::sample::select(vec![
            "\n", "\r\n", "\r", "\t", "    ", " ", "(", ")", "{", "}", "[", "]", "\"", "'", "`",
            "//", "/*", "*/", "#", "\\", ";", ",", "let x = 1;", "return value", "else", "word",
            "é", "e\u{301}", "😀", "👨‍👩‍👧", "日本", "\u{feff}", "\u{2028}", "\u{85}", "```",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the document, the place, the language and the answer.
    #[test]
    fn what_is_accepted_touches_its_range_only(
        document in odd(),
        answer in odd(),
        language in proptest::sample::select(vec!["rust", "python", "go", "markdown", "", "x"]),
        cursor in any::<prop::sample::Index>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        // A cursor stands between the two characters of a line end in no editor.
        let places: Vec<usize> = (0..=document.len())
            .filter(|at| document.is_char_boundary(*at))
            .filter(|at| !(document[..*at].ends_with('\r') && document[*at..].starts_with('\n')))
            .collect();
        let cursor = places[cursor.index(places.len())];
        runtime.block_on(async {
            let mut lsp = Setup::saying(&answer).start().await;
            check(&mut lsp, language, &document, cursor).await;
            lsp.finish().await;
        });
    }
}
