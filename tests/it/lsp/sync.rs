//! Documents stay as the client has them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::inference::{BackendKind, Task};

use super::client::{Setup, inline_params};

const URI: &str = "file:///project/a.rs";

/// A backend that answers slowly and notes the prefixes it was given.
fn slow() -> (ScriptedBackend, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let backend = ScriptedBackend::new(BackendKind::Candle, move |request| {
        if let Task::Complete(task) = &request.task {
            note.lock().unwrap().push(task.prefix.to_string());
        }
        Script {
            pause: Duration::from_secs(1),
            ..Script::text("answer")
        }
    });
    (backend, seen)
}

fn change(version: i32, changes: &Value) -> Value {
    json!({
        "textDocument": {"uri": URI, "version": version},
        "contentChanges": changes,
    })
}

fn insertion(line: u32, character: u32, text: &str) -> Value {
    let at = json!({"line": line, "character": character});
    json!([{"range": {"start": at, "end": at}, "text": text}])
}

#[tokio::test(start_paused = true)]
async fn changes_apply_in_order_while_slow_requests_run() {
    let (backend, seen) = slow();
    let mut lsp = Setup::with(backend)
        .completion("concurrency: 64, candidates: 1")
        .start()
        .await;
    lsp.open(URI, "rust", "").await;
    let mut ids = Vec::new();
    for version in 1..=50 {
        let params = change(
            version,
            &insertion(version as u32 - 1, 0, &format!("v{version}\n")),
        );
        lsp.notify("textDocument/didChange", params).await;
        let params = inline_params(URI, (version as u32 - 1, 9), 1);
        ids.push(lsp.request("textDocument/inlineCompletion", params).await);
    }
    for id in ids {
        lsp.reply(id).await.unwrap();
    }
    // Each request saw the text as it was when it was sent, although all ran at once.
    let seen = seen.lock().unwrap().clone();
    let lines: Vec<_> = (1..=50).map(|version| format!("v{version}")).collect();
    for count in 1..=lines.len() {
        let text = lines[..count].join("\n");
        assert!(seen.contains(&text), "nobody saw {text:?}");
    }
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_document_is_forgotten_and_its_work_ends() {
    let mut lsp = Setup::with(super::session::endless()).start().await;
    lsp.open(URI, "rust", "let secret = 1;").await;
    let id = lsp
        .request(
            "textDocument/inlineCompletion",
            inline_params(URI, (0, 15), 1),
        )
        .await;
    lsp.notify(
        "textDocument/didClose",
        json!({"textDocument": {"uri": URI}}),
    )
    .await;
    assert_eq!(lsp.reply(id).await, Ok(json!({"items": []})));
    assert_eq!(lsp.empty_because().await, "document-unavailable");
    assert!(lsp.inline(URI, (0, 0), 1).await.is_empty());
    assert_eq!(lsp.empty_because().await, "document-unavailable");
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn each_encoding_finds_the_same_place() {
    // A face, an e with a combining accent, a family of three joined by U+200D.
    let line = "let s = \"😀e\u{301}👩\u{200d}👩\u{200d}👦\";";
    for (encoding, length) in [
        ("utf-8", line.len()),
        ("utf-16", line.encode_utf16().count()),
        ("utf-32", line.chars().count()),
    ] {
        let (backend, seen) = slow();
        let mut lsp = Setup::with(backend)
            .capabilities(json!({"general": {"positionEncodings": [encoding]}}))
            .start()
            .await;
        lsp.open(URI, "rust", line).await;
        let params = change(2, &insertion(0, length as u32, " // ok"));
        lsp.notify("textDocument/didChange", params).await;
        let items = lsp.inline(URI, (0, length as u32 + 6), 2).await;
        let expected = format!("{line} // ok");
        assert_eq!(*seen.lock().unwrap(), [expected.as_str()]);
        assert_eq!(items[0]["insertText"], format!("{expected}answer"));
        assert_eq!(
            items[0]["range"],
            json!({
                "start": {"line": 0, "character": 0},
                "end": {"line": 0, "character": length + 6},
            })
        );
        lsp.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_makes_no_sense_is_told_and_heals() {
    let mut lsp = Setup::saying("x").start().await;
    lsp.open(URI, "rust", "a😀b").await;
    // Between the surrogates.
    let params = change(2, &insertion(0, 2, "c"));
    lsp.notify("textDocument/didChange", params).await;
    let shown = lsp.notification("window/showMessage").await;
    assert!(shown["message"].as_str().unwrap().contains(URI), "{shown}");
    assert!(lsp.inline(URI, (0, 0), 1).await.is_empty());
    assert_eq!(lsp.empty_because().await, "document-unavailable");
    let params = change(3, &json!([{"text": "whole"}]));
    lsp.notify("textDocument/didChange", params).await;
    assert_eq!(lsp.inline(URI, (0, 5), 1).await[0]["insertText"], "wholex");
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_document_of_50_mb_is_kept_in_step_and_not_served() {
    let mut lsp = Setup::saying("x").start().await;
    lsp.open(URI, "rust", &"let a = 1;\n".repeat(50_000_000 / 11))
        .await;
    assert!(lsp.inline(URI, (0, 0), 1).await.is_empty());
    assert_eq!(lsp.empty_because().await, "document-unavailable");
    let everything =
        json!({"start": {"line": 0, "character": 0}, "end": {"line": 9_999_999, "character": 0}});
    let params = change(2, &json!([{"range": everything, "text": "a"}]));
    lsp.notify("textDocument/didChange", params).await;
    assert_eq!(lsp.inline(URI, (0, 1), 1).await[0]["insertText"], "ax");
    lsp.finish().await;
}
