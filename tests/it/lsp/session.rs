//! The handshake, cancelling, the end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::inference::{BackendKind, Health};
use tandem::protocol::lsp::Ended;

use super::client::{Setup, inline_params};

const URI: &str = "file:///project/src/main.rs";

/// Says a piece every 10 ms, for ever.
pub fn endless() -> ScriptedBackend {
    ScriptedBackend::new(BackendKind::Candle, |_| Script {
        pieces: vec!["x".to_owned(); 100_000],
        pause: Duration::from_millis(10),
        failure: None,
        hang: true,
    })
}

#[tokio::test(start_paused = true)]
async fn the_handshake_says_what_there_is() {
    let mut lsp = Setup::saying("x").raw();
    let result = lsp
        .call("initialize", json!({"capabilities": {}}))
        .await
        .unwrap();
    let capabilities = &result["capabilities"];
    assert_eq!(capabilities["positionEncoding"], "utf-16");
    assert_eq!(capabilities["textDocumentSync"]["change"], 2);
    assert!(capabilities["inlineCompletionProvider"].is_object());
    assert!(capabilities["completionProvider"].is_object());
    assert_eq!(capabilities["codeActionProvider"]["resolveProvider"], true);
    let commands = capabilities["executeCommandProvider"]["commands"].as_array();
    assert!(commands.unwrap().contains(&json!("tandem.accepted")));
    let methods = &capabilities["experimental"]["inlineEdit"]["methods"];
    assert_eq!(methods[0], "tandem/inlineEdit");
    assert_eq!(result["serverInfo"]["name"], "tandem");
    assert_eq!(
        lsp.call("initialize", json!({"capabilities": {}})).await,
        Err(-32600)
    );
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_served_before_the_handshake() {
    let mut lsp = Setup::saying("x").raw();
    lsp.open(URI, "rust", "fn").await;
    let params = inline_params(URI, (0, 0), 1);
    let reply = lsp.call("textDocument/inlineCompletion", params).await;
    assert_eq!(reply, Err(-32002));
    assert_eq!(lsp.call("shutdown", Value::Null).await, Err(-32002));
    lsp.send(json!({"jsonrpc": "2.0", "method": "exit"})).await;
    assert_eq!(lsp.ended().await, Ended::Abruptly);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_stops_the_backend_within_one_token() {
    let mut lsp = Setup::with(endless()).start().await;
    lsp.open(URI, "rust", "fn main() {\n    \n}\n").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let params = inline_params(URI, (1, 4), 2);
        ids.push(lsp.request("textDocument/inlineCompletion", params).await);
    }
    let observed = lsp.observed();
    while observed.pieces.load(Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for id in &ids {
        lsp.notify("$/cancelRequest", json!({"id": id})).await;
    }
    for id in ids {
        let reply = lsp.reply(id).await;
        // Latest-wins may have ended the earlier ones before the cancel came.
        assert!(
            reply == Err(-32800) || reply == Ok(json!({"items": []})),
            "{reply:?}"
        );
    }
    let before = observed.pieces.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let started = observed.started.load(Ordering::SeqCst);
    assert!(observed.pieces.load(Ordering::SeqCst) <= before + 1);
    assert_eq!(observed.cancelled.load(Ordering::SeqCst), started);
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_completion_says_so_in_the_status() {
    let mut lsp = Setup::with(endless()).start().await;
    lsp.open(URI, "rust", "fn main() {\n    \n}\n").await;
    let params = inline_params(URI, (1, 4), 1);
    let id = lsp.request("textDocument/inlineCompletion", params).await;
    lsp.notify("$/cancelRequest", json!({"id": id})).await;
    assert_eq!(lsp.reply(id).await, Err(-32800));
    assert_eq!(lsp.empty_because().await, "cancelled");
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn exit_ends_while_requests_run_and_the_input_stays_open() {
    for (shutdown, ended) in [(true, Ended::ByProtocol), (false, Ended::Abruptly)] {
        let mut lsp = Setup::with(endless()).start().await;
        lsp.open(URI, "rust", "x").await;
        lsp.request(
            "textDocument/inlineCompletion",
            inline_params(URI, (0, 1), 1),
        )
        .await;
        if shutdown {
            lsp.call("shutdown", Value::Null).await.unwrap();
        }
        lsp.send(json!({"jsonrpc": "2.0", "method": "exit"})).await;
        assert_eq!(lsp.ended().await, ended);
        let observed = lsp.observed();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let started = observed.started.load(Ordering::SeqCst);
        assert_eq!(observed.cancelled.load(Ordering::SeqCst), started);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_ends_the_session() {
    let mut lsp = Setup::with(endless()).start().await;
    lsp.open(URI, "rust", "x").await;
    lsp.request(
        "textDocument/inlineCompletion",
        inline_params(URI, (0, 1), 1),
    )
    .await;
    lsp.hang_up();
    assert_eq!(lsp.ended().await, Ended::Abruptly);
}

#[tokio::test(start_paused = true)]
async fn a_load_shows_as_progress_where_the_client_can_show_it() {
    let setup = Setup::saying("x").capabilities(json!({"window": {"workDoneProgress": true}}));
    let mut lsp = setup.start().await;
    let total = Some(4 << 20);
    lsp.backend.publish(Health::Downloading {
        bytes: 1 << 20,
        total,
    });
    let (id, params) = lsp.asked("window/workDoneProgress/create").await;
    let token = params["token"].clone();
    lsp.answer(id, Value::Null).await;
    let begin = lsp.notification("$/progress").await;
    assert_eq!(begin["token"], token);
    assert_eq!(begin["value"]["kind"], "begin");
    let report = lsp.notification("$/progress").await;
    assert_eq!(report["value"]["percentage"], 25);
    lsp.backend.publish(Health::Healthy { speed: None });
    let end = lsp.notification("$/progress").await;
    assert_eq!(
        (&end["value"]["kind"], &end["token"]),
        (&json!("end"), &token)
    );
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn health_is_told_and_can_be_asked_for() {
    let mut lsp = Setup::saying("x").start().await;
    let status = lsp.notification("tandem/status").await;
    assert_eq!(status["state"], "healthy");
    assert_eq!(status["backend"], "candle");
    lsp.backend.publish(Health::Failed {
        error: "the model is broken. Load it again.".to_owned(),
        retry_after: None,
    });
    let status = lsp.notification("tandem/status").await;
    assert_eq!(status["state"], "failed");
    assert_eq!(status["message"], "the model is broken. Load it again.");
    for params in [json!(null), json!({})] {
        let report = lsp.call("tandem/status", params).await.unwrap();
        assert_eq!(report["state"], "failed");
        assert!(report["backends"].is_array());
        assert_eq!(report["completions"]["offered"], 0);
    }
    lsp.finish().await;
}
