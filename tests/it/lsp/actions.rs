//! Code actions end in an edit, a shown document, or a reason why not.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::inference::{BackendKind, EditTask, ErrorKind, GenerateError, Task};

use super::client::{Lsp, Setup};

const URI: &str = "file:///project/a.rs";
const TEXT: &str = "use a;\n\nfn f() {\n    g(1);\n}\n";
const FUNCTION: &str = "fn f() {\n    g(1);\n}";

/// A client that can all that actions may use.
fn able() -> Value {
    json!({
        "workspace": {"applyEdit": true, "workspaceEdit": {"documentChanges": true}},
        "window": {"showDocument": {"support": true}},
        "textDocument": {"codeAction": {
            "dataSupport": true,
            "resolveSupport": {"properties": ["edit"]},
            "codeActionLiteralSupport": {"codeActionKind": {"valueSet": []}},
        }},
    })
}

/// Answers edits with `text`, after a second, and notes what it was asked.
fn editor(text: &'static str) -> (ScriptedBackend, Arc<Mutex<Vec<EditTask>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let backend = ScriptedBackend::new(BackendKind::Candle, move |request| {
        if let Task::Edit(task) = &request.task {
            note.lock().unwrap().push(task.clone());
        }
        Script {
            pause: Duration::from_secs(1),
            ..Script::text(text)
        }
    });
    (backend, seen)
}

fn range(from: (u32, u32), to: (u32, u32)) -> Value {
    json!({
        "start": {"line": from.0, "character": from.1},
        "end": {"line": to.0, "character": to.1},
    })
}

async fn list(lsp: &mut Lsp, diagnostics: Value) -> Vec<Value> {
    let params = json!({
        "textDocument": {"uri": URI},
        "range": range((3, 4), (3, 4)),
        "context": {"diagnostics": diagnostics},
    });
    let result = lsp.call("textDocument/codeAction", params).await.unwrap();
    result.as_array().unwrap().clone()
}

fn named<'a>(actions: &'a [Value], title: &str) -> &'a Value {
    actions
        .iter()
        .find(|action| action["title"].as_str().unwrap().starts_with(title))
        .unwrap_or_else(|| panic!("no {title} in {actions:?}"))
}

async fn run(lsp: &mut Lsp, command: &str, more: Value) -> i64 {
    let mut argument = json!({"uri": URI, "range": range((3, 4), (3, 4))});
    for (key, value) in more.as_object().unwrap() {
        argument[key] = value.clone();
    }
    let params = json!({"command": command, "arguments": [argument]});
    lsp.request("workspace/executeCommand", params).await
}

async fn opened(backend: ScriptedBackend) -> Lsp {
    let mut lsp = Setup::with(backend).capabilities(able()).start().await;
    lsp.open(URI, "rust", TEXT).await;
    lsp
}

#[tokio::test(start_paused = true)]
async fn the_list_comes_without_a_model_and_edits_when_resolved() {
    let (backend, seen) = editor("```rust\nfn f() {\n    g(2);\n}\n```");
    let mut lsp = opened(backend).await;
    let diagnostic = json!({"range": range((3, 4), (3, 5)), "message": "wrong number\nmore"});
    let actions = list(&mut lsp, json!([diagnostic])).await;
    assert_eq!(lsp.observed().started.load(Ordering::SeqCst), 0);
    for title in ["Explain", "Document", "Write a test", "Rewrite"] {
        named(&actions, title);
    }
    let fix = named(&actions, "Fix with Tandem: wrong number");
    assert_eq!(fix["kind"], "quickfix");
    assert_eq!(fix["diagnostics"], json!([diagnostic]));
    let resolved = lsp.call("codeAction/resolve", fix.clone()).await.unwrap();
    assert_eq!(
        resolved["edit"]["documentChanges"],
        json!([{
            "textDocument": {"uri": URI, "version": 1},
            "edits": [{"range": range((2, 0), (4, 1)), "newText": "fn f() {\n    g(2);\n}"}],
        }])
    );
    let task = seen.lock().unwrap().remove(0);
    assert_eq!(&*task.selection, FUNCTION);
    assert!(task.instruction.contains("wrong number\nmore"));
    assert_eq!((&*task.before, &*task.after), ("use a;\n\n", "\n"));
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_ends_in_an_edit() {
    let (backend, seen) = editor("h(3)");
    let mut lsp = opened(backend).await;
    let more = json!({"range": range((3, 4), (3, 8)), "instruction": "call h with 3"});
    let command = run(&mut lsp, "tandem.rewrite", more).await;
    let (id, params) = lsp.asked("workspace/applyEdit").await;
    let edit = &params["edit"]["documentChanges"][0];
    assert_eq!(edit["edits"][0]["newText"], "h(3)");
    assert_eq!(edit["edits"][0]["range"], range((3, 4), (3, 8)));
    assert!(
        params["label"]
            .as_str()
            .unwrap()
            .contains("scripted-candle")
    );
    lsp.answer(id, json!({"applied": true})).await;
    let result = lsp.reply(command).await.unwrap();
    assert_eq!(result["applied"], true);
    assert_eq!(result["backend"], "candle");
    assert_eq!(seen.lock().unwrap()[0].instruction, "call h with 3");
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_test_goes_after_the_definition() {
    let (backend, seen) = editor("#[test]\nfn t() {}");
    let mut lsp = opened(backend).await;
    let command = run(&mut lsp, "tandem.test", json!({})).await;
    let (id, params) = lsp.asked("workspace/applyEdit").await;
    let edit = &params["edit"]["documentChanges"][0]["edits"][0];
    assert_eq!(edit["newText"], "\n\n#[test]\nfn t() {}");
    assert_eq!(edit["range"], range((4, 1), (4, 1)));
    lsp.answer(id, json!({"applied": true})).await;
    lsp.reply(command).await.unwrap();
    assert!(seen.lock().unwrap()[0].before.ends_with(FUNCTION));
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_for_an_older_document_is_refused_and_nothing_is_lost() {
    let (backend, _) = editor("fn f() {}");
    let mut lsp = opened(backend).await;
    let change = |version: i32| {
        json!({
            "textDocument": {"uri": URI, "version": version},
            "contentChanges": [{"range": range((0, 0), (0, 0)), "text": "// typed\n"}],
        })
    };
    // While the model works.
    let command = run(&mut lsp, "tandem.document", json!({})).await;
    lsp.notify("textDocument/didChange", change(2)).await;
    let result = lsp.reply(command).await.unwrap();
    assert_eq!(result["applied"], false);
    let shown = lsp.notification("window/showMessage").await;
    assert!(shown["message"].as_str().unwrap().contains("has changed"));
    // Before it starts.
    let actions = list(&mut lsp, json!([])).await;
    lsp.notify("textDocument/didChange", change(3)).await;
    let stale = named(&actions, "Document").clone();
    assert_eq!(lsp.call("codeAction/resolve", stale).await, Err(-32801));
    lsp.notification("window/showMessage").await;
    // In the client.
    let command = run(&mut lsp, "tandem.document", json!({})).await;
    let (id, _) = lsp.asked("workspace/applyEdit").await;
    lsp.answer(id, json!({"applied": false, "failureReason": "stale"}))
        .await;
    assert_eq!(lsp.reply(command).await.unwrap()["applied"], false);
    let shown = lsp.notification("window/showMessage").await;
    assert!(shown["message"].as_str().unwrap().contains("stale"));
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_explanation_is_a_document_or_a_message() {
    let cache = tempfile::tempdir().unwrap();
    let mut setup = Setup::saying("It *adds*.").capabilities(able());
    setup.cache = cache.path().to_owned();
    let mut lsp = setup.start().await;
    lsp.open(URI, "rust", TEXT).await;
    let command = run(&mut lsp, "tandem.explain", json!({})).await;
    let (id, params) = lsp.asked("window/showDocument").await;
    let path = params["uri"]
        .as_str()
        .unwrap()
        .strip_prefix("file://")
        .unwrap();
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page.starts_with("It *adds*."), "{page}");
    assert!(page.contains("scripted-candle"), "{page}");
    lsp.answer(id, json!({"success": true})).await;
    assert_eq!(lsp.reply(command).await.unwrap()["text"], "It *adds*.");
    // The client shows no documents after all.
    let command = run(&mut lsp, "tandem.explain", json!({})).await;
    let (id, _) = lsp.asked("window/showDocument").await;
    lsp.answer(id, json!({"success": false})).await;
    lsp.reply(command).await.unwrap();
    let shown = lsp.notification("window/showMessage").await;
    assert!(shown["message"].as_str().unwrap().contains("It *adds*."));
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_rewrite_without_an_instruction_asks_for_one() {
    let (backend, seen) = editor("fn f() {}");
    let mut lsp = opened(backend).await;
    let command = run(&mut lsp, "tandem.rewrite", json!({"instruction": " "})).await;
    let (id, params) = lsp.asked("window/showMessageRequest").await;
    let first = params["actions"][0].clone();
    lsp.answer(id, first.clone()).await;
    let (id, _) = lsp.asked("workspace/applyEdit").await;
    lsp.answer(id, json!({"applied": true})).await;
    lsp.reply(command).await.unwrap();
    assert_eq!(first["title"], *seen.lock().unwrap()[0].instruction);
    // Nothing chosen is nothing done.
    let command = run(&mut lsp, "tandem.rewrite", json!({})).await;
    let (id, _) = lsp.asked("window/showMessageRequest").await;
    lsp.answer(id, Value::Null).await;
    let result = lsp.reply(command).await;
    assert_eq!(result, Ok(json!({"applied": false})));
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_is_said() {
    let fails = GenerateError::new(ErrorKind::Backend, "it broke", "Mend it.");
    let backend =
        ScriptedBackend::new(BackendKind::Candle, move |_| Script::failure(fails.clone()));
    let mut lsp = opened(backend).await;
    for (more, expected) in [
        (json!({}), "Mend it."),
        (json!({"range": range((1, 0), (2, 0))}), "Select some code"),
        (json!({"range": range((99, 0), (99, 0))}), "Select again"),
        (json!({"uri": "file:///nowhere"}), "Close and open"),
        (json!({"version": 7}), "Run the action again"),
    ] {
        let command = run(&mut lsp, "tandem.document", more).await;
        let result = lsp.reply(command).await.unwrap();
        let message = result["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
        let shown = lsp.notification("window/showMessage").await;
        assert_eq!(shown["message"], format!("Tandem: {message}"));
    }
    lsp.finish().await;

    let mut lsp = opened(ScriptedBackend::saying(BackendKind::Candle, FUNCTION)).await;
    let command = run(&mut lsp, "tandem.document", json!({})).await;
    let result = lsp.reply(command).await.unwrap();
    assert!(
        result["message"]
            .as_str()
            .unwrap()
            .contains("change nothing")
    );
    lsp.notification("window/showMessage").await;
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_with_commands_alone_gets_commands() {
    let mut lsp = Setup::saying("x").start().await;
    lsp.open(URI, "rust", TEXT).await;
    for action in list(&mut lsp, json!([])).await {
        assert!(
            action["command"].as_str().unwrap().starts_with("tandem."),
            "{action}"
        );
        assert_eq!(action["arguments"][0]["uri"], URI);
    }
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn progress_under_the_clients_token_begins_and_ends() {
    let (backend, _) = editor("fn f() {}");
    let mut lsp = opened(backend).await;
    let params = json!({
        "command": "tandem.document",
        "workDoneToken": 9,
        "arguments": [{"uri": URI, "range": range((3, 4), (3, 4))}],
    });
    let command = lsp.request("workspace/executeCommand", params).await;
    let begin = lsp.notification("$/progress").await;
    assert_eq!(
        (&begin["token"], &begin["value"]["kind"]),
        (&json!(9), &json!("begin"))
    );
    // A cancel ends the bar too, and a late answer to what was asked before harms nobody.
    lsp.notify("$/cancelRequest", json!({"id": command})).await;
    assert_eq!(lsp.reply(command).await, Err(-32800));
    assert_eq!(lsp.notification("$/progress").await["value"]["kind"], "end");
    let command = run(&mut lsp, "tandem.document", json!({})).await;
    let (id, _) = lsp.asked("workspace/applyEdit").await;
    lsp.notify("$/cancelRequest", json!({"id": command})).await;
    assert_eq!(lsp.reply(command).await, Err(-32800));
    lsp.answer(id, json!({"applied": true})).await;
    lsp.finish().await;
}
