//! The next edit: as a request under both of its names, as a code action, and what becomes of it.

use serde_json::{Value, json};

use super::client::{Lsp, Setup};

const URI: &str = "file:///project/a.rs";
const TEXT: &str = "fn total_count(items: &[u32]) -> usize {\n    items.len()\n}\n\nfn main() {\n    \
                    let a = \"😀\"; total_count(&[1]);\n    let b = total_count(&[2]);\n}\n";

fn range(from: (u32, u32), to: (u32, u32)) -> Value {
    json!({
        "start": {"line": from.0, "character": from.1},
        "end": {"line": to.0, "character": to.1},
    })
}

fn able() -> Value {
    json!({
        "workspace": {"workspaceEdit": {"documentChanges": true}},
        "textDocument": {"codeAction": {
            "codeActionLiteralSupport": {"codeActionKind": {"valueSet": []}},
        }},
    })
}

async fn change(lsp: &mut Lsp, version: i32, range: Value, text: &str) {
    let params = json!({
        "textDocument": {"uri": URI, "version": version},
        "contentChanges": [{"range": range, "text": text}],
    });
    lsp.notify("textDocument/didChange", params).await;
}

/// A document in which the declaration was renamed, letter by letter.
async fn renamed(setup: Setup) -> Lsp {
    let mut lsp = setup.start().await;
    lsp.open(URI, "rust", TEXT).await;
    change(&mut lsp, 2, range((0, 3), (0, 8)), "").await;
    for (at, letter) in (0..).zip(["i", "t", "e", "m"]) {
        let here = (0, 3 + at);
        change(&mut lsp, 3 + at as i32, range(here, here), letter).await;
    }
    lsp
}

const VERSION: i32 = 6;

async fn ask(lsp: &mut Lsp, method: &str, version: i32) -> Value {
    let params = json!({
        "textDocument": {"uri": URI, "version": version},
        "position": {"line": 0, "character": 7},
        "context": {"triggerKind": 2},
    });
    lsp.call(method, params).await.unwrap()
}

async fn next(lsp: &mut Lsp) -> Value {
    ask(lsp, "tandem/inlineEdit", VERSION).await
}

async fn command(lsp: &mut Lsp, name: &str, edit: &Value) -> Value {
    let params = json!({"command": name, "arguments": edit["command"]["arguments"]});
    lsp.call("workspace/executeCommand", params).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_rename_goes_on_under_both_names_and_in_each_encoding() {
    for (encoding, start) in [("utf-8", 20), ("utf-16", 18), ("utf-32", 17)] {
        let capabilities = json!({"general": {"positionEncodings": [encoding]}});
        let mut lsp = renamed(Setup::saying("x").capabilities(capabilities)).await;
        for method in ["tandem/inlineEdit", "textDocument/copilotInlineEdit"] {
            let list = ask(&mut lsp, method, VERSION).await;
            assert_eq!(list.get("emptyReason"), None);
            let edit = &list["edits"][0];
            assert_eq!(edit["text"], "item", "{edit}");
            assert_eq!(edit["range"], range((5, start), (5, start + 5)));
            let document = json!({"uri": URI, "version": VERSION});
            assert_eq!(edit["textDocument"], document);
            assert_eq!(edit["kind"], "rename");
            assert_eq!(edit["command"]["command"], "tandem.acceptedEdit");
        }
        let shown = json!({"item": {"command": null}});
        lsp.notify("textDocument/didShowInlineEdit", shown).await;
        lsp.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn accepting_one_brings_the_next_and_then_none() {
    let mut lsp = renamed(Setup::saying("x")).await;
    for (version, line) in [(VERSION, 5), (VERSION + 1, 6)] {
        let list = ask(&mut lsp, "tandem/inlineEdit", version).await;
        let edit = &list["edits"][0];
        assert_eq!(edit["range"]["start"]["line"], line);
        let text = edit["text"].as_str().unwrap();
        change(&mut lsp, version + 1, edit["range"].clone(), text).await;
        let known = command(&mut lsp, "tandem.acceptedEdit", edit).await;
        assert_eq!(known, json!({"known": true}));
    }
    let list = ask(&mut lsp, "tandem/inlineEdit", VERSION + 2).await;
    assert_eq!(list, json!({"edits": [], "emptyReason": "nothing-likely"}));
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_rejected_does_not_come_back() {
    let mut lsp = renamed(Setup::saying("x")).await;
    let first = next(&mut lsp).await["edits"][0].take();
    let known = command(&mut lsp, "tandem.rejectedEdit", &first).await;
    assert_eq!(known, json!({"known": true}));
    // It has been judged.
    let known = command(&mut lsp, "tandem.rejectedEdit", &first).await;
    assert_eq!(known, json!({"known": false}));
    let second = next(&mut lsp).await["edits"][0].take();
    assert_eq!(second["range"]["start"]["line"], 6);
    command(&mut lsp, "tandem.rejectedEdit", &second).await;
    assert_eq!(next(&mut lsp).await["edits"], json!([]));
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_goes_elsewhere_does_not_want_it() {
    let mut lsp = renamed(Setup::saying("x")).await;
    assert_eq!(
        next(&mut lsp).await["edits"][0]["range"]["start"]["line"],
        5
    );
    let mut version = VERSION;
    for line in [1, 3, 7] {
        version += 1;
        change(&mut lsp, version, range((line, 0), (line, 0)), " ").await;
    }
    let list = ask(&mut lsp, "tandem/inlineEdit", version).await;
    let line = list["edits"]
        .get(0)
        .map(|edit| &edit["range"]["start"]["line"]);
    assert_ne!(line, Some(&json!(5)), "{list}");
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn there_is_a_reason_for_none() {
    let mut lsp = renamed(Setup::saying("x")).await;
    let reason = async |lsp: &mut Lsp, params: Value| {
        let list = lsp.call("tandem/inlineEdit", params).await.unwrap();
        assert_eq!(list["edits"], json!([]));
        list["emptyReason"].as_str().unwrap().to_owned()
    };
    let at = json!({"line": 0, "character": 0});
    let ask = |uri: &str, version: Value, at: &Value| json!({"textDocument": {"uri": uri, "version": version}, "position": at});
    let stale = ask(URI, json!(VERSION - 1), &at);
    assert_eq!(reason(&mut lsp, stale).await, "document-changed");
    let past = ask(URI, json!(VERSION), &json!({"line": 99, "character": 0}));
    assert_eq!(reason(&mut lsp, past).await, "position-invalid");
    let unknown = ask("file:///project/b.rs", Value::Null, &at);
    assert_eq!(reason(&mut lsp, unknown).await, "document-unavailable");
    let params = json!({"command": "tandem.pause"});
    lsp.call("workspace/executeCommand", params).await.unwrap();
    let here = ask(URI, json!(null), &at);
    assert_eq!(reason(&mut lsp, here).await, "paused");
    lsp.finish().await;

    for (keys, expected) in [
        ("next_edit: false", "disabled"),
        ("enabled: false", "disabled"),
        ("languages_off: [rust]", "language-off"),
        ("paths_off: [\"*.rs\"]", "path-off"),
    ] {
        let setup = Setup::saying("x").completion(keys).capabilities(able());
        let mut lsp = renamed(setup).await;
        assert_eq!(next(&mut lsp).await["emptyReason"], expected, "{keys}");
        assert_eq!(actions(&mut lsp, json!(null)).await, Vec::<Value>::new());
        lsp.finish().await;
    }
}

/// The code actions at the cursor that an editor asks for by itself.
async fn actions(lsp: &mut Lsp, only: Value) -> Vec<Value> {
    let mut context = json!({"diagnostics": [], "triggerKind": 2});
    if !only.is_null() {
        context["only"] = only;
    }
    let params = json!({
        "textDocument": {"uri": URI},
        "range": range((0, 7), (0, 7)),
        "context": context,
    });
    let result = lsp.call("textDocument/codeAction", params).await.unwrap();
    result.as_array().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn it_is_a_code_action_where_there_is_one() {
    let mut lsp = Setup::saying("x").capabilities(able()).start().await;
    lsp.open(URI, "rust", TEXT).await;
    assert_eq!(actions(&mut lsp, json!(null)).await, Vec::<Value>::new());
    change(&mut lsp, 2, range((0, 3), (0, 8)), "item").await;
    let action = actions(&mut lsp, json!(null)).await.remove(0);
    assert_eq!(
        action["title"],
        "Next edit: rename total_count to item_count in line 6"
    );
    assert_eq!(action["kind"], "refactor.rewrite.nextEdit");
    assert_eq!(
        action["edit"]["documentChanges"],
        json!([{
            "textDocument": {"uri": URI, "version": 2},
            "edits": [{"range": range((5, 18), (5, 23)), "newText": "item"}],
        }])
    );
    assert_eq!(actions(&mut lsp, json!(["refactor"])).await.len(), 1);
    assert_eq!(actions(&mut lsp, json!(["quickfix"])).await.len(), 0);
    let known = command(&mut lsp, "tandem.acceptedEdit", &action).await;
    assert_eq!(known, json!({"known": true}));
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn whole_texts_and_other_documents_teach_too() {
    let mut lsp = Setup::saying("x").start().await;
    lsp.open(URI, "rust", TEXT).await;
    lsp.open(
        "file:///project/b.rs",
        "rust",
        "fn sum() -> usize {\n    total_count(&[3])\n}\n",
    )
    .await;
    // A client without incremental changes.
    let text = TEXT.replace("total_count", "item_count");
    let params = json!({
        "textDocument": {"uri": URI, "version": 2},
        "contentChanges": [{"text": text}],
    });
    lsp.notify("textDocument/didChange", params).await;
    let list = ask(&mut lsp, "tandem/inlineEdit", 2).await;
    assert_eq!(list["emptyReason"], "nothing-likely");
    let params = json!({
        "textDocument": {"uri": "file:///project/b.rs", "version": 1},
        "position": {"line": 0, "character": 0},
    });
    let list = lsp.call("tandem/inlineEdit", params).await.unwrap();
    assert_eq!(list["edits"][0]["range"], range((1, 4), (1, 9)), "{list}");
    lsp.finish().await;
}
