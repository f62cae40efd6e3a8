//! When a model is asked while somebody types, and what the client is told of it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::{Setup, inline_params};
use super::editor::{Editor, URI, in_turn};
use super::session::endless;

/// A session in which the program itself finds how long to wait.
fn auto(mut setup: Setup) -> Setup {
    "completion: {debounce: auto}".clone_into(&mut setup.settings);
    setup
}

#[tokio::test(start_paused = true)]
async fn a_key_waits_as_the_person_types_and_one_that_agrees_does_not() {
    let mut editor = Editor::open(auto(Setup::saying("b a")), "|\n").await;
    // Nobody knows yet how this person types.
    let asked = Instant::now();
    editor.check("b a", 1).await;
    assert_eq!(asked.elapsed(), Duration::from_millis(75));
    editor.press("b").await;
    editor.check(" a", 1).await;
    assert_eq!(asked.elapsed(), Duration::from_millis(75));
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        editor.press("x").await;
        editor.ghost().await;
    }
    // The model answers at once, long before the next key.
    let asked = Instant::now();
    editor.press("x").await;
    editor.ghost().await;
    assert_eq!(asked.elapsed(), Duration::from_millis(20));
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_fixed_debounce_stays() {
    let mut setup = Setup::saying("b");
    "completion: {debounce: 300ms}".clone_into(&mut setup.settings);
    let mut editor = Editor::open(setup, "|\n").await;
    let asked = Instant::now();
    editor.check("b", 1).await;
    assert_eq!(asked.elapsed(), Duration::from_millis(300));
    // Who asks by hand need not wait.
    editor.press("x").await;
    let asked = Instant::now();
    assert_eq!(editor.items(1).await.len(), 1);
    assert_eq!(asked.elapsed(), Duration::ZERO);
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_suggested_where_something_was_just_deleted() {
    let mut editor = Editor::open(in_turn(&["b", "c"]), "let ab|;\n").await;
    editor.backspace().await;
    assert_eq!(editor.ghost().await, None);
    assert_eq!(editor.lsp.empty_because().await, "after-deletion");
    assert_eq!(editor.asked(), 0);
    // Elsewhere, by hand, and after the next key there is.
    let cursor = std::mem::replace(&mut editor.cursor, 3);
    editor.check("b", 1).await;
    editor.cursor = cursor;
    assert_eq!(editor.items(1).await.len(), 1);
    editor.press("x").await;
    assert_eq!(editor.ghost().await, None);
    assert_eq!(editor.lsp.empty_because().await, "model-silent");
    // What is replaced is not deleted.
    editor.edit(4..6, "y").await;
    editor.cursor = 5;
    assert_eq!(editor.ghost().await, None);
    assert_eq!(editor.lsp.empty_because().await, "model-silent");
    editor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn keys_that_overtake_each_other_are_not_told() {
    let mut editor = Editor::open(Setup::with(endless()), "|\n").await;
    let method = "textDocument/inlineCompletion";
    let mut ids = Vec::new();
    for _ in 0..3 {
        editor.press("a").await;
        let at = editor.position(editor.cursor);
        ids.push(editor.lsp.request(method, inline_params(URI, at, 2)).await);
    }
    assert_eq!(editor.lsp.reply(ids[0]).await, Ok(json!({"items": []})));
    assert_eq!(editor.lsp.reply(ids[1]).await, Ok(json!({"items": []})));
    let cancel = json!({"id": ids[2]});
    editor.lsp.notify("$/cancelRequest", cancel).await;
    assert_eq!(editor.lsp.reply(ids[2]).await, Err(-32800));
    let report = editor.lsp.call("tandem/status", Value::Null).await.unwrap();
    assert_eq!(report.get("emptyReason"), None);
    // The first status, when the session began, is all.
    assert_eq!(editor.lsp.statuses(), 1);
    let command = json!({"command": "tandem.decisions"});
    let decisions = editor
        .lsp
        .call("workspace/executeCommand", command)
        .await
        .unwrap();
    let superseded = |one: &&Value| one["outcome"] == json!({"empty": "superseded"});
    let decisions = decisions.as_array().unwrap();
    assert_eq!(decisions.iter().filter(superseded).count(), 2);
    editor.finish().await;
}
