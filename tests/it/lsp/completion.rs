//! Inline completions, popups, and why there are none.

use std::sync::atomic::Ordering;

use proptest::prelude::*;
use serde_json::{Value, json};
use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::inference::{BackendKind, ErrorKind, GenerateError, Health, Task};

use super::client::{Lsp, Setup};

const URI: &str = "file:///project/a.rs";

/// Says something else for every seed.
fn varied() -> ScriptedBackend {
    ScriptedBackend::new(BackendKind::Candle, |request| {
        Script::text(match request.sampling.seed {
            1 => "second",
            _ => "first",
        })
    })
}

fn texts(items: &[Value]) -> Vec<&str> {
    items
        .iter()
        .map(|item| item["insertText"].as_str().unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn invoked_offers_several_and_automatic_one() {
    let mut lsp = Setup::with(varied()).start().await;
    lsp.open(URI, "rust", "let a = \n").await;
    let items = lsp.inline(URI, (0, 8), 1).await;
    // The third candidate repeats the first and is dropped.
    assert_eq!(texts(&items), ["let a = first", "let a = second"]);
    assert_eq!(lsp.observed().started.load(Ordering::SeqCst), 3);
    let items = lsp.inline(URI, (0, 8), 2).await;
    assert_eq!(texts(&items), ["let a = first"]);
    // What was there already.
    assert_eq!(lsp.observed().started.load(Ordering::SeqCst), 3);
    lsp.open(URI, "rust", "let b = \n").await;
    let items = lsp.inline(URI, (0, 8), 2).await;
    assert_eq!(texts(&items), ["let b = first"]);
    assert_eq!(lsp.observed().started.load(Ordering::SeqCst), 4);
    let item = &items[0];
    assert_eq!(
        item["range"],
        json!({"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 8}})
    );
    assert_eq!(item["filterText"], item["insertText"]);
    assert_eq!(item["command"]["command"], "tandem.accepted");
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_selected_popup_entry_is_extended_in_its_own_range() {
    let backend = ScriptedBackend::new(BackendKind::Candle, |request| {
        let Task::Complete(task) = &request.task else {
            panic!("no completion")
        };
        assert_eq!(&*task.prefix, "    x.to_string");
        assert_eq!(&*task.suffix, ";\n");
        Script::text("()")
    });
    let mut lsp = Setup::with(backend).start().await;
    lsp.open(URI, "rust", "    x.to;\n").await;
    let range = json!({"start": {"line": 0, "character": 6}, "end": {"line": 0, "character": 8}});
    let mut params = super::client::inline_params(URI, (0, 8), 2);
    params["context"]["selectedCompletionInfo"] = json!({"range": range, "text": "to_string"});
    let result = lsp
        .call("textDocument/inlineCompletion", params.clone())
        .await
        .unwrap();
    assert_eq!(result["items"][0]["insertText"], "to_string()");
    assert_eq!(result["items"][0]["range"], range);
    // A range over two lines is none that an item may use.
    params["context"]["selectedCompletionInfo"]["range"]["end"]["line"] = json!(1);
    let result = lsp
        .call("textDocument/inlineCompletion", params)
        .await
        .unwrap();
    assert_eq!(result, json!({"items": []}));
    assert_eq!(lsp.empty_because().await, "position-invalid");
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn popups_say_who_answered_and_stand_last() {
    let mut lsp = Setup::saying("_string()\n        .more()").start().await;
    lsp.open(URI, "rust", "    x.to\n").await;
    let result = lsp
        .call(
            "textDocument/completion",
            json!({
                "textDocument": {"uri": URI},
                "position": {"line": 0, "character": 8},
                "context": {"triggerKind": 1},
            }),
        )
        .await
        .unwrap();
    assert_eq!(result["isIncomplete"], true);
    let item = &result["items"][0];
    assert_eq!(item["label"], "to_string()");
    assert_eq!(item["detail"], "scripted-candle (candle)");
    assert_eq!(item["preselect"], false);
    assert_eq!(item["sortText"], "\u{10ffff}");
    assert_eq!(
        item["textEdit"],
        json!({
            "range": {"start": {"line": 0, "character": 6}, "end": {"line": 0, "character": 8}},
            "newText": "to_string()\n        .more()",
        })
    );
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn acceptance_is_learned() {
    let mut lsp = Setup::saying("x").start().await;
    lsp.open(URI, "rust", "").await;
    let item = lsp.inline(URI, (0, 0), 2).await.remove(0);
    lsp.notify("textDocument/didShowCompletion", json!({"item": item}))
        .await;
    lsp.notify(
        "textDocument/didPartiallyAcceptCompletion",
        json!({"item": item, "acceptedLength": 1}),
    )
    .await;
    let accepted = lsp
        .call("workspace/executeCommand", item["command"].clone())
        .await;
    assert_eq!(accepted, Ok(json!({"known": true})));
    let report = lsp.call("tandem/status", Value::Null).await.unwrap();
    assert_eq!(
        report["completions"],
        json!({
            "offered": 1, "fromCache": 0, "shown": 1, "accepted": 1, "partiallyAccepted": 1,
        })
    );
    lsp.finish().await;
}

/// Asks in `setup` and expects nothing, for `reason`.
async fn check_empty(setup: Setup, at: (u32, u32), kind: u8, reason: &str) {
    let mut lsp = setup.start().await;
    lsp.open(URI, "rust", "let word = 1;\n").await;
    expect_empty(&mut lsp, at, kind, reason).await;
    lsp.finish().await;
}

async fn expect_empty(lsp: &mut Lsp, at: (u32, u32), kind: u8, reason: &str) {
    assert!(lsp.inline(URI, at, kind).await.is_empty(), "{reason}");
    assert_eq!(lsp.empty_because().await, reason);
}

#[tokio::test(start_paused = true)]
async fn every_empty_completion_has_its_reason() {
    let set = |keys: &str| Setup::saying("x").completion(keys);
    let end = (0, 13);
    check_empty(set("enabled: false"), end, 1, "disabled").await;
    check_empty(set("automatic: false"), end, 2, "disabled").await;
    check_empty(set("languages_off: [rust]"), end, 1, "language-off").await;
    for glob in ["*.rs", "a.rs", "**/a.*"] {
        let setup = set(&format!("paths_off: ['{glob}']"));
        check_empty(setup, end, 1, "path-off").await;
    }
    check_empty(Setup::saying("x"), (9, 0), 1, "position-invalid").await;
    check_empty(Setup::saying("x"), (0, 6), 2, "cursor-inside-word").await;
    check_empty(Setup::saying(""), end, 1, "model-silent").await;
    check_empty(Setup::saying("  \n"), end, 1, "only-whitespace").await;
    let broken = GenerateError::new(ErrorKind::Backend, "it broke", "Mend it.");
    let broken = ScriptedBackend::new(BackendKind::Candle, move |_| {
        Script::failure(broken.clone())
    });
    check_empty(Setup::with(broken), end, 1, "backend-failed").await;

    check_empty(Setup::saying("word = 1;"), (0, 4), 1, "repeats-suffix").await;
    check_empty(
        Setup::saying("let word = 1;\n"),
        (1, 0),
        1,
        "repeats-prefix",
    )
    .await;
    for (health, reason) in [
        (
            Health::Downloading {
                bytes: 1,
                total: None,
            },
            "loading",
        ),
        (
            Health::Absent {
                why: "No model.".to_owned(),
            },
            "no-backend",
        ),
        (
            Health::Failed {
                error: "It broke.".to_owned(),
                retry_after: None,
            },
            "backend-failed",
        ),
    ] {
        let setup = Setup::saying("x");
        setup.backend.publish(health);
        check_empty(setup, end, 1, reason).await;
    }

    let mut lsp = Setup::saying("x").start().await;
    expect_empty(&mut lsp, end, 1, "document-unavailable").await;
    lsp.open(URI, "rust", "let word = 1;\n").await;
    let command = |name: &str| json!({"command": name});
    lsp.call("workspace/executeCommand", command("tandem.pause"))
        .await
        .unwrap();
    expect_empty(&mut lsp, end, 1, "paused").await;
    lsp.call("workspace/executeCommand", command("tandem.resume"))
        .await
        .unwrap();
    assert_eq!(lsp.inline(URI, end, 1).await.len(), 1);
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_latest_automatic_request_wins() {
    let mut lsp = Setup::with(super::session::endless()).start().await;
    lsp.open(URI, "rust", "let word = 1;\n").await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let params = super::client::inline_params(URI, (0, 13), 2);
        ids.push(lsp.request("textDocument/inlineCompletion", params).await);
    }
    assert_eq!(lsp.reply(ids[0]).await, Ok(json!({"items": []})));
    lsp.notify("$/cancelRequest", json!({"id": ids[1]})).await;
    assert_eq!(lsp.reply(ids[1]).await, Err(-32800));
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_word_is_no_hindrance_to_those_who_ask() {
    let mut lsp = Setup::saying("x").start().await;
    lsp.open(URI, "rust", "let word = 1;\n").await;
    assert_eq!(texts(&lsp.inline(URI, (0, 6), 1).await), ["let wox"]);
    // Past the line's end is the line's end.
    assert_eq!(
        texts(&lsp.inline(URI, (0, 999), 1).await),
        ["let word = 1;x"]
    );
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn other_open_documents_are_looked_at_in_small_pieces() {
    let backend = ScriptedBackend::new(BackendKind::Candle, |request| {
        let Task::Complete(task) = &request.task else {
            panic!("no completion")
        };
        let bytes: usize = task.snippets.iter().map(|snippet| snippet.text.len()).sum();
        let paths: Vec<_> = task
            .snippets
            .iter()
            .map(|snippet| snippet.path.as_str())
            .collect();
        assert!(bytes <= 3 * (2 << 10) + 8, "{bytes}");
        assert_eq!(task.path.as_deref(), Some("a.rs"));
        Script::text(paths.join(" "))
    });
    let mut lsp = Setup::with(backend).start().await;
    let long = "call(alpha, beta);\n".repeat(2000);
    for (uri, language) in [
        ("file:///project/src/b.rs", "rust"),
        ("file:///project/c.py", "python"),
        ("file:///elsewhere/d.rs", "rust"),
        ("untitled:Untitled-1", "rust"),
        ("file:///project/empty.rs", "rust"),
    ] {
        let text = if uri.contains("empty") { "" } else { &long };
        lsp.open(uri, language, text).await;
    }
    lsp.open(URI, "rust", "call(alpha, beta);\n").await;
    let items = lsp.inline(URI, (1, 0), 2).await;
    assert_eq!(texts(&items), ["Untitled-1 Untitled-1 d.rs"]);
    lsp.finish().await;
}

/// Applies an edit of whole lines' worth of UTF-16 positions, as a client would.
fn apply(document: &str, item: &Value) -> (usize, usize, String) {
    let offset = |position: &Value| {
        let line = position["line"].as_u64().unwrap() as usize;
        let character = position["character"].as_u64().unwrap() as usize;
        let start: usize = document
            .split_inclusive('\n')
            .take(line)
            .map(str::len)
            .sum();
        let mut units = 0;
        let mut bytes = start;
        for letter in document[start..].chars() {
            if units == character {
                break;
            }
            units += letter.len_utf16();
            bytes += letter.len_utf8();
        }
        assert_eq!(units, character, "a position inside a character");
        bytes
    };
    let start = offset(&item["range"]["start"]);
    let end = offset(&item["range"]["end"]);
    let text = item["insertText"].as_str().unwrap();
    (
        start,
        end,
        format!("{}{text}{}", &document[..start], &document[end..]),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Accepting an item changes nothing but its range, which ends at the cursor and is repeated by
    /// the item up to there.
    #[test]
    fn an_item_touches_its_range_only(
        document in "([a-z😀é\u{301} ]{0,12}\n?){0,6}",
        answer in "[a-z😀(){}]{1,10}",
        cursor in any::<prop::sample::Index>(),
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
                .collect();
            let cursor = places[cursor.index(places.len())];
            let before = &document[..cursor];
            let line = before.matches('\n').count() as u32;
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            let character = before[start..].encode_utf16().count() as u32;
            let mut lsp = Setup::saying(&answer).start().await;
            lsp.open(URI, "text", &document).await;
            for item in lsp.inline(URI, (line, character), 1).await {
                let (from, to, after) = apply(&document, &item);
                assert_eq!(to, cursor);
                assert!(from >= start);
                assert!(after.starts_with(before));
                assert!(after.ends_with(&document[cursor..]));
                assert!(item["insertText"].as_str().unwrap().starts_with(&document[from..to]));
            }
            lsp.finish().await;
        });
    }
}
