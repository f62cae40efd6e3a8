//! The completion after the one that is shown, computed meanwhile.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::inference::{BackendKind, Priority, Task};

use super::client::{Setup, inline_params};
use super::editor::{Editor, URI, in_turn};

/// Longer than a person must rest.
const LOOKS: Duration = Duration::from_millis(250);

/// A client that draws suggestions itself.
fn drawing(setup: Setup) -> Setup {
    setup.capabilities(json!({"textDocument": {"inlineCompletion": {}}}))
}

/// A model that names what stands before the cursor, and takes its time over it.
fn slow(pause: Duration) -> Setup {
    let backend = ScriptedBackend::new(BackendKind::Candle, move |request| {
        let Task::Complete(task) = &request.task else {
            panic!("no completion")
        };
        let text = match task.prefix.strip_prefix("let a = ") {
            Some("") => "first",
            Some("first") => {
                assert_eq!(request.priority, Priority::Background);
                ".second"
            }
            _ => "other",
        };
        Script {
            pause,
            ..Script::text(text)
        }
    });
    drawing(Setup::with(backend))
}

#[tokio::test(start_paused = true)]
async fn what_follows_is_there_when_it_is_accepted() {
    let mut editor = Editor::open(drawing(in_turn(&["foo", ".bar", ".baz"])), "let a = |;\n").await;
    editor.check("foo", 1).await;
    tokio::time::sleep(LOOKS).await;
    assert_eq!(editor.asked(), 2);
    // Asked again, or typed along with, it is not computed twice.
    editor.check("foo", 2).await;
    editor.press("fo").await;
    editor.check("o", 2).await;
    tokio::time::sleep(LOOKS).await;
    assert_eq!(editor.asked(), 2);
    editor.press("o").await;
    editor.check(".bar", 2).await;
    tokio::time::sleep(LOOKS).await;
    assert_eq!(editor.asked(), 3);
    // What was not sent was not offered.
    let report = editor.lsp.call("tandem/status", Value::Null).await.unwrap();
    assert_eq!(report["completions"]["offered"], 2);
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_accepts_early_waits_for_what_is_being_computed() {
    let mut editor = Editor::open(slow(Duration::from_millis(300)), "let a = |;\n").await;
    editor.check("first", 1).await;
    tokio::time::sleep(LOOKS).await;
    editor.press("first").await;
    editor.check(".second", 2).await;
    assert_eq!(editor.lsp.observed().cancelled.load(Ordering::SeqCst), 0);
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_key_ends_what_is_computed_ahead() {
    let mut editor = Editor::open(slow(Duration::from_millis(300)), "let a = |;\n").await;
    editor.check("first", 1).await;
    tokio::time::sleep(LOOKS).await;
    assert_eq!(editor.asked(), 2);
    editor.press("x").await;
    editor.check("other", 3).await;
    assert_eq!(editor.lsp.observed().cancelled.load(Ordering::SeqCst), 1);
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_it_and_types_on_gets_the_newer_answer() {
    let mut editor = Editor::open(slow(Duration::from_millis(300)), "let a = |;\n").await;
    editor.check("first", 1).await;
    tokio::time::sleep(LOOKS).await;
    editor.press("first").await;
    let at = editor.position(editor.cursor);
    let method = "textDocument/inlineCompletion";
    let waits = editor.lsp.request(method, inline_params(URI, at, 2)).await;
    editor.press("x").await;
    editor.check("other", 3).await;
    assert_eq!(editor.lsp.reply(waits).await, Ok(json!({"items": []})));
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_computed_ahead_for_who_types_on_or_did_not_ask_for_it() {
    let off = "ahead: false";
    for (setup, kind) in [
        (drawing(in_turn(&["foo", "bar"])).completion(off), 2),
        // The popup's clients ask when a key was pressed, not after an item was accepted.
        (in_turn(&["foo", "bar"]), 0),
        (drawing(in_turn(&["foo", "foo", "foo"])), 1),
        // More than a second.
        (slow(Duration::from_millis(1100)), 2),
    ] {
        let mut editor = Editor::open(setup, "let a = |;\n").await;
        if kind == 0 {
            let params = json!({
                "textDocument": {"uri": URI},
                "position": {"line": 0, "character": 8},
                "context": {"triggerKind": 2, "triggerCharacter": " "},
            });
            editor
                .lsp
                .call("textDocument/completion", params)
                .await
                .unwrap();
        } else {
            assert!(!editor.items(kind).await.is_empty());
        }
        let asked = editor.asked();
        tokio::time::sleep(LOOKS).await;
        assert_eq!(editor.asked(), asked);
        editor.finish().await;
    }
    // Keys come faster than anybody reads.
    let mut editor = Editor::open(drawing(in_turn(&["foo", "bar", "baz"])), "let a = |;\n").await;
    editor.check("foo", 1).await;
    tokio::time::sleep(LOOKS / 2).await;
    editor.press("x").await;
    editor.check("bar", 2).await;
    tokio::time::sleep(LOOKS / 2).await;
    assert_eq!(editor.asked(), 2);
    editor.finish().await;
}
