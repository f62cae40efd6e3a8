//! A commit message for a diff, and the last routes.

use serde_json::{Value, json};

use super::client::{Lsp, Setup};

const DIFF: &str = "diff --git a/a.rs b/a.rs\n+fn f() {}\n";

async fn run(lsp: &mut Lsp, command: &str, arguments: Value) -> Result<Value, i64> {
    let params = json!({"command": command, "arguments": arguments});
    lsp.call("workspace/executeCommand", params).await
}

#[tokio::test(start_paused = true)]
async fn a_diff_gets_a_message_without_its_fence() {
    let mut lsp = Setup::saying("```\nAdd f\n```").start().await;
    let change = json!([{"diff": DIFF, "files": ["file:///project/a.rs"]}]);
    let result = run(&mut lsp, "tandem.commitMessage", change).await.unwrap();
    assert_eq!(result["text"], "Add f");
    assert_eq!(result["backend"], "candle");
    let decisions = run(&mut lsp, "tandem.decisions", json!([])).await.unwrap();
    assert_eq!(decisions[0]["task"], "chat");
    assert!(!decisions.to_string().contains("Add f"), "{decisions}");
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_described_is_told() {
    let mut lsp = Setup::saying("Add f").start().await;
    let long = "+".repeat((1 << 20) + 1);
    for (change, why) in [
        (json!({"diff": " \n", "files": []}), "no change"),
        (json!({"diff": long, "files": []}), "larger than 1 MiB"),
        (
            json!({"diff": DIFF, "files": ["https://example.org/a.rs"]}),
            "not on this machine",
        ),
    ] {
        let result = run(&mut lsp, "tandem.commitMessage", json!([change]))
            .await
            .unwrap();
        assert!(result["text"].is_null(), "{result}");
        let shown = lsp.notification("window/showMessage").await;
        assert!(shown["message"].as_str().unwrap().contains(why), "{shown}");
    }
    // Without its files, nobody knows whether the diff may leave.
    let incomplete = json!([{"diff": DIFF}]);
    let refused = run(&mut lsp, "tandem.commitMessage", incomplete).await;
    assert_eq!(refused, Err(-32602));
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn routes_are_listed_the_newest_first() {
    let mut lsp = Setup::saying("one()").start().await;
    lsp.open("file:///project/a.rs", "rust", "let x = ").await;
    let none = run(&mut lsp, "tandem.decisions", json!([])).await.unwrap();
    assert_eq!(none, json!([]));
    let params = json!({
        "textDocument": {"uri": "file:///project/a.rs"},
        "position": {"line": 0, "character": 8},
        "context": {"triggerKind": 2},
    });
    lsp.call("textDocument/inlineCompletion", params)
        .await
        .unwrap();
    let change = json!([{"diff": DIFF, "files": []}]);
    run(&mut lsp, "tandem.commitMessage", change).await.unwrap();
    let decisions = run(&mut lsp, "tandem.decisions", json!([])).await.unwrap();
    let tasks: Vec<_> = decisions.as_array().unwrap().iter().collect();
    assert_eq!(tasks.len(), 2);
    assert_eq!(
        (&tasks[0]["task"], &tasks[1]["task"]),
        (&json!("chat"), &json!("complete"))
    );
    assert_eq!(tasks[1]["automatic"], true);
    assert_eq!(tasks[1]["attribution"]["reason"], "local-healthy");
    let report = lsp.call("tandem/status", Value::Null).await.unwrap();
    assert_eq!(report["mode"], "auto");
    lsp.finish().await;
}
