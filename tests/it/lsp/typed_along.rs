//! Keys that agree with what is suggested, and what a person sees who presses them.

use proptest::prelude::*;
use serde_json::{Value, json};
use tandem::inference::Health;

use super::client::{Setup, inline_params};
use super::editor::{Editor, URI, in_turn};

#[tokio::test(start_paused = true)]
async fn a_key_that_agrees_needs_no_model() {
    let mut editor = Editor::open(in_turn(&["foo(1)", "bar"]), "let a = |;\n").await;
    editor.check("foo(1)", 1).await;
    // Asked again without a change.
    editor.check("foo(1)", 1).await;
    for rest in ["oo(1)", "o(1)", "(1)", "1)", ")"] {
        let key = "foo(1)".len() - rest.len() - 1;
        editor.press(&"foo(1)"[key..=key]).await;
        editor.check(rest, 1).await;
    }
    // Back into it, and forth.
    editor.backspace().await;
    editor.backspace().await;
    editor.check("(1)", 1).await;
    editor.press("(").await;
    editor.check("1)", 1).await;
    // All of it is there: what comes next, nobody knows yet.
    editor.press("1)").await;
    editor.check("bar", 2).await;
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_disagrees_asks_the_model() {
    let mut editor = Editor::open(in_turn(&["foo", "yz", "!"]), "let a = |;\n").await;
    editor.check("foo", 1).await;
    editor.press("x").await;
    editor.check("yz", 2).await;
    // Both answers are for texts that may come back.
    editor.backspace().await;
    editor.check("foo", 2).await;
    editor.press("xy").await;
    editor.check("z", 2).await;
    editor.backspace().await;
    editor.backspace().await;
    // The end of the line is another.
    editor.edit(8..9, ",").await;
    editor.check("!", 3).await;
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_elsewhere_asks_the_model() {
    for at in [0, 4, 13, 14] {
        let mut editor = Editor::open(in_turn(&["foo", "bar"]), "let a = |;\n// b\n").await;
        editor.check("foo", 1).await;
        editor.edit(at..at, "é").await;
        editor.cursor += if at < editor.cursor {
            'é'.len_utf8()
        } else {
            0
        };
        editor.press("f").await;
        editor.check("bar", 2).await;
        editor.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_text_of_another_document_asks_the_model() {
    let mut editor = Editor::open(in_turn(&["foo", "bar", "baz"]), "let a = |;\n").await;
    editor.check("foo", 1).await;
    let text = editor.text.clone();
    let other = "file:///project/b.rs";
    editor.lsp.open(other, "rust", &text).await;
    editor.uri = other.to_owned();
    editor.check("bar", 2).await;
    editor.uri = URI.to_owned();
    editor.check("foo", 2).await;
    // What is closed is forgotten.
    let document = json!({"textDocument": {"uri": URI}});
    editor.lsp.notify("textDocument/didClose", document).await;
    editor.lsp.open(URI, "rust", &text).await;
    editor.check("baz", 3).await;
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn parts_and_lines_are_accepted_without_a_model() {
    let answer = "Some(\"😀\") => {\n        one();\n    }";
    let mut editor = Editor::open(Setup::saying(answer), "    |\n").await;
    editor.check(answer, 1).await;
    // A word, a line, and the next line by hand, which the editor indents.
    let mut taken = 0;
    for part in [
        "Some",
        "(\"😀\")",
        " => {",
        "\n        ",
        "o",
        "ne();\n    ",
    ] {
        editor.press(part).await;
        taken += part.len();
        editor.check(&answer[taken..], 1).await;
    }
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn lines_that_end_in_crlf_are_typed_through() {
    let setup = in_turn(&["if 😀 {\n  b\n}"]);
    let mut editor = Editor::open(setup, "e\u{301}😀 |\r\nend\r\n").await;
    editor.check("if 😀 {\r\n  b\r\n}", 1).await;
    for (part, rest) in [
        ("if 😀", " {\r\n  b\r\n}"),
        (" {\r\n  ", "b\r\n}"),
        ("b\r\n", "}"),
    ] {
        editor.press(part).await;
        editor.check(rest, 1).await;
    }
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_editor_closes_by_itself_is_not_suggested_twice() {
    let setup = in_turn(&["foo(b[1], c).d()", "no"]);
    let mut editor = Editor::open(setup, "a = |;\n").await;
    editor.check("foo(b[1], c).d()", 1).await;
    editor.press("foo").await;
    editor.press("(").await;
    editor.edit(editor.cursor..editor.cursor, ")").await;
    editor.check("b[1], c", 1).await;
    editor.press("b[1], c").await;
    // Nothing goes in between any more; the editor lets the bracket be typed over.
    editor.cursor += 1;
    editor.check(".d()", 1).await;
    // A bracket that the suggestion does not close.
    editor.press(".d").await;
    editor.edit(editor.cursor..editor.cursor, "]").await;
    editor.check("no", 2).await;
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_block_is_opened_with_the_brace_that_the_editor_closes() {
    let setup = in_turn(&["{\n    one();\n}"]);
    let mut editor = Editor::open(setup, "fn f() |\n").await;
    editor.check("{\n    one();\n}", 1).await;
    editor.press("{").await;
    editor.edit(editor.cursor..editor.cursor, "}").await;
    editor.check("\n    one();\n", 1).await;
    editor.press("\n    ").await;
    editor.edit(editor.cursor..editor.cursor, "\n").await;
    editor.check("one();", 1).await;
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_holds_must_hold_under_the_settings() {
    let mut editor = Editor::open(in_turn(&["foo", "bar", "baz"]), "let a = |;\n").await;
    editor.check("foo", 1).await;
    let change = |keys: Value| json!({"settings": {"tandem": {"completion": keys}}});
    let changed = "workspace/didChangeConfiguration";
    editor
        .lsp
        .notify(changed, change(json!({"max_tokens": 9})))
        .await;
    editor.press("f").await;
    editor.check("bar", 2).await;
    // The same settings again are no others.
    editor
        .lsp
        .notify(changed, change(json!({"max_tokens": 9})))
        .await;
    editor.check("bar", 2).await;
    let off = change(json!({"max_tokens": 9, "languages_off": ["rust"]}));
    editor.lsp.notify(changed, off).await;
    assert_eq!(editor.ghost().await, None);
    assert_eq!(editor.lsp.empty_because().await, "language-off");
    editor
        .lsp
        .notify(changed, change(json!({"max_tokens": 9})))
        .await;
    editor.check("bar", 2).await;
    // After a pause all is new.
    for command in ["tandem.pause", "tandem.resume"] {
        let command = json!({"command": command});
        editor
            .lsp
            .call("workspace/executeCommand", command)
            .await
            .unwrap();
    }
    editor.check("baz", 3).await;
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_by_hand_gets_what_was_asked_by_hand() {
    let setup = in_turn(&["foo", "fob", "bar", "foo", "other"]);
    let mut editor = Editor::open(setup, "let a = |;\n").await;
    editor.check("foo", 1).await;
    // Three candidates, of which one was not offered while typing either.
    assert_eq!(editor.items(1).await.len(), 3);
    assert_eq!(editor.asked(), 4);
    assert_eq!(editor.items(1).await.len(), 3);
    assert_eq!(editor.asked(), 4);
    // Those of them that agree stay to be cycled through.
    editor.press("fo").await;
    let items = editor.items(1).await;
    let rest: Vec<_> = items
        .iter()
        .map(|item| editor.behind_cursor(item))
        .collect();
    assert_eq!(rest, ["b", "o"]);
    assert_eq!(editor.asked(), 4);
    editor.check("b", 4).await;
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_selected_popup_entry_is_followed() {
    let mut editor = Editor::open(in_turn(&["().len()", "no"]), "    x.to|;\n").await;
    let select = |editor: &Editor, text: &str| {
        let mut params = inline_params(URI, editor.position(editor.cursor), 2);
        let end = json!({"line": 0, "character": editor.cursor});
        let range = json!({"start": {"line": 0, "character": 6}, "end": end});
        params["context"]["selectedCompletionInfo"] = json!({"range": range, "text": text});
        params
    };
    let method = "textDocument/inlineCompletion";
    for _ in 0..2 {
        let params = select(&editor, "to_string");
        let result = editor.lsp.call(method, params).await.unwrap();
        assert_eq!(result["items"][0]["insertText"], "to_string().len()");
        assert_eq!(editor.asked(), 1);
        // A key into the entry changes nothing.
        editor.press("_").await;
    }
    // The entry is taken.
    editor.backspace().await;
    editor.press("string").await;
    editor.check("().len()", 1).await;
    let params = select(&editor, "to_owned");
    let result = editor.lsp.call(method, params).await.unwrap();
    assert_eq!(result["items"][0]["insertText"], "to_ownedno");
    assert_eq!(editor.asked(), 2);
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn that_there_is_nothing_is_known_for_the_same_text() {
    let mut editor = Editor::open(in_turn(&["", "foo"]), "let a = |;\n").await;
    for _ in 0..2 {
        assert_eq!(editor.ghost().await, None);
        assert_eq!(editor.lsp.empty_because().await, "model-silent");
        assert_eq!(editor.asked(), 1);
    }
    editor.press(" ").await;
    editor.check("foo", 2).await;
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopgap_is_forgotten_when_somebody_gets_well() {
    let setup = in_turn(&["foo", "bar"]);
    setup.backend.publish(Health::Degraded {
        why: "It is slow. Close other programs.".to_owned(),
    });
    let mut editor = Editor::open(setup, "let a = |;\n").await;
    editor.check("foo", 1).await;
    editor.check("foo", 1).await;
    editor.lsp.backend.publish(Health::Healthy { speed: None });
    while editor.lsp.notification("tandem/status").await["state"] != "healthy" {}
    editor.check("bar", 2).await;
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_the_cache_keeps_its_author_and_is_one_suggestion() {
    let mut editor = Editor::open(in_turn(&["foo"]), "let a = |;\n").await;
    let first = editor.items(2).await.remove(0);
    editor.press("f").await;
    let second = editor.items(2).await.remove(0);
    assert_eq!(first["command"], second["command"]);
    for item in [&first, &second] {
        let item = json!({"item": item});
        editor
            .lsp
            .notify("textDocument/didShowCompletion", item)
            .await;
    }
    let report = editor.lsp.call("tandem/status", Value::Null).await.unwrap();
    assert_eq!(report["cached"], true);
    assert_eq!(report["backend"], "candle");
    assert_eq!(report["reason"], "local-healthy");
    assert_eq!(
        report["completions"],
        json!({
            "offered": 1, "fromCache": 1, "shown": 1, "accepted": 0, "partiallyAccepted": 0,
        })
    );
    let command = json!({"command": "tandem.decisions"});
    let decisions = editor
        .lsp
        .call("workspace/executeCommand", command)
        .await
        .unwrap();
    let all = decisions.as_array().unwrap();
    let cached: Vec<_> = all.iter().map(|one| one["cached"] == true).collect();
    assert_eq!(cached, [true, false]);
    assert_eq!(all[0]["attribution"], all[1]["attribution"]);
    assert_eq!(all[0]["outcome"], "answered");
    editor.finish().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is pressed, an answer that needed no model leads to the text that the model's own
    /// answer would have led to at its place.
    #[test]
    fn every_answer_without_a_model_leads_where_the_model_led(
        document in "([a(😀\n]|\r\n){0,8}",
        cursor in any::<prop::sample::Index>(),
        answer in "[ab()😀]{1,6}(\n  [ab]{1,3})?",
        keys in proptest::collection::vec((0u8..8, "[ab(😀\n]"), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let places: Vec<usize> = document
                .char_indices()
                .map(|(at, _)| at)
                .chain([document.len()])
                // A cursor stands between a line's end and the next line, not in a line's end.
                .filter(|at| !document[..*at].ends_with('\r'))
                .collect();
            let at = places[cursor.index(places.len())];
            let marked = format!("{}|{}", &document[..at], &document[at..]);
            let mut editor = Editor::open(Setup::saying(&answer), &marked).await;
            // Where each answer of the model leads.
            let mut leads: Vec<String> = Vec::new();
            for (kind, key) in keys {
                let asked = editor.asked();
                if let Some(item) = editor.items(1).await.first() {
                    let behind = editor.behind_cursor(item);
                    let mut led = editor.text.clone();
                    led.insert_str(editor.cursor, &behind);
                    if editor.asked() == asked {
                        assert!(leads.contains(&led), "{led:?} of {leads:?}");
                    } else {
                        leads.push(led);
                    }
                    // Mostly the key that agrees.
                    if kind < 5 {
                        let next = behind.chars().next().unwrap().to_string();
                        editor.press(if next == "\r" { "\r\n" } else { &next }).await;
                        continue;
                    }
                }
                match kind {
                    0 if editor.cursor > 0 && !editor.text[..editor.cursor].ends_with('\n') => {
                        editor.backspace().await;
                    }
                    1 => editor.edit(0..0, &key).await,
                    2 => {
                        let end = editor.text.len();
                        editor.edit(end..end, &key).await;
                    }
                    _ => editor.press(&key).await,
                }
                if kind == 1 {
                    editor.cursor += key.len();
                }
            }
            editor.finish().await;
        });
    }
}
