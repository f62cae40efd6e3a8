//! What is no LSP gets an error and no more: the session goes on.

use serde_json::{Value, json};

use super::client::{Setup, inline_params};

const URI: &str = "file:///project/a.rs";

#[tokio::test(start_paused = true)]
async fn malformed_messages_get_an_error_and_the_session_goes_on() {
    let mut lsp = Setup::saying("x").start().await;
    lsp.open(URI, "rust", "a").await;
    for (body, code) in [
        (&b"{\"jsonrpc\":\"2.0\",\"id\":1,"[..], -32700),
        (b"", -32700),
        (b"\xff\xfe", -32700),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xc3\x28\"}",
            -32700,
        ),
        (b"[]", -32600),
        (b"null", -32600),
        (b"{\"jsonrpc\":\"2.0\"}", -32600),
        (b"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"x\"}", -32600),
    ] {
        lsp.body(body).await;
        assert_eq!(lsp.stray_error().await, code, "{body:?}");
        assert_eq!(lsp.inline(URI, (0, 1), 1).await.len(), 1);
    }
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn wrong_framing_is_skipped_and_the_session_goes_on() {
    let mut lsp = Setup::saying("x").start().await;
    lsp.open(URI, "rust", "a").await;
    for garbage in [
        "{\"jsonrpc\":\"2.0\",\"method\":\"exit\"}\n",
        "Content-Length: many\r\n\r\n{}",
        "Content-Length: 18446744073709551616\r\n\r\n",
        "Content-Type: text/plain\r\n\r\n",
        "\u{0}\u{1}\u{2}",
    ] {
        lsp.bytes(garbage.as_bytes()).await;
        let id = lsp
            .request(
                "textDocument/inlineCompletion",
                inline_params(URI, (0, 1), 1),
            )
            .await;
        assert_eq!(lsp.stray_error().await, -32700, "{garbage:?}");
        assert_eq!(
            lsp.reply(id).await.unwrap()["items"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
    // Lower-case header names are as good as any.
    let body = json!({"jsonrpc": "2.0", "id": "low", "method": "nope"}).to_string();
    lsp.bytes(format!("content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .await;
    assert_eq!(lsp.reply("low").await, Err(-32601));
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn every_request_has_one_reply() {
    let mut lsp = Setup::saying("x").start().await;
    for (method, params, code) in [
        ("textDocument/hover", json!({}), -32602),
        ("no/such", json!({}), -32601),
        ("$/noSuch", json!({}), -32601),
        ("", json!({}), -32601),
        ("textDocument/didOpen", json!({}), -32600),
        ("initialized", json!({}), -32600),
        (
            "textDocument/inlineCompletion",
            json!({"position": "here"}),
            -32602,
        ),
        ("textDocument/inlineCompletion", Value::Null, -32602),
        ("textDocument/completion", json!([1, 2]), -32602),
        ("workspace/executeCommand", json!({"command": "rm"}), -32602),
        ("workspace/executeCommand", json!({}), -32602),
    ] {
        assert_eq!(
            lsp.call(method, params.clone()).await,
            Err(code),
            "{method} {params}"
        );
    }
    lsp.finish().await;
}

#[tokio::test(start_paused = true)]
async fn notifications_that_make_no_sense_are_passed_over() {
    let mut lsp = Setup::saying("x").start().await;
    for (method, params) in [
        ("textDocument/didShowCompletion", json!({"item": 3})),
        ("textDocument/didPartiallyAcceptCompletion", json!({})),
        ("$/cancelRequest", json!({"id": 99})),
        ("$/cancelRequest", json!({"id": {}})),
        ("$/setTrace", json!({"value": "off"})),
        ("no/such", json!(null)),
    ] {
        lsp.notify(method, params).await;
    }
    // A reply to nothing.
    lsp.answer(json!(77), json!(1)).await;
    for method in ["didOpen", "didChange", "didClose"] {
        lsp.notify(
            &format!("textDocument/{method}"),
            json!({"textDocument": 1}),
        )
        .await;
        lsp.notification("window/showMessage").await;
    }
    lsp.finish().await;
}
