//! Lines that no client should send.

use proptest::prelude::*;
use serde_json::{Value, json};
use tandem::backend::scripted::Script;

use super::client::{Client, Era, local, router};

const ERA: Era = Era::Initialize("2025-11-25");

/// Sends `bytes` to a session that is open and to one that is not, and checks what comes back:
/// for each reply its id and code. The session must live on.
async fn check(bytes: &[u8], replies: &[(Value, i32)]) {
    for opened in [true, false] {
        let mut client = Client::connect(router(local(|_| Script::text("hi"))));
        if opened {
            client.greet(ERA).await;
        }
        client.raw(bytes).await;
        for (id, code) in replies {
            let line = client.line().await.expect("the session ended");
            assert_eq!(line["id"], *id, "{line}");
            assert_eq!(line["error"]["code"], *code, "{line}");
            let message = line["error"]["message"].as_str().unwrap();
            assert!(message.ends_with('.'), "{message}");
        }
        if !opened {
            client.greet(ERA).await;
        }
        let result = client
            .ask(
                "tools/call",
                json!({ "name": "ask", "arguments": { "question": "?" } }),
            )
            .await;
        assert_eq!(result["content"][0]["text"], "hi");
        assert!(client.hang_up().await.is_empty());
    }
}

#[tokio::test]
async fn every_broken_line_gets_one_reply_and_the_session_lives_on() {
    let none = Value::Null;
    check(b"not json\n", &[(none.clone(), -32700)]).await;
    check(b"\n\r\n   \n", &[]).await;
    check(b"{\"jsonrpc\":\"2.0\",\"id\":9,\n", &[(json!(9), -32700)]).await;
    check(
        b"{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"\xc3\x28\"}\n",
        &[(json!("x"), -32700)],
    )
    .await;
    check(b"\xff\xfe\x00\x01\n", &[(none.clone(), -32700)]).await;
    check(b"[]\n", &[(none.clone(), -32600)]).await;
    check(
        b"42\n\"text\"\nnull\n",
        &[
            (none.clone(), -32600),
            (none.clone(), -32600),
            (none.clone(), -32600),
        ],
    )
    .await;
    check(b"{}\n", &[(none.clone(), -32600)]).await;
    check(
        b"{\"jsonrpc\":\"1.0\",\"id\":4,\"method\":\"ping\"}\n",
        &[(json!(4), -32600)],
    )
    .await;
    check(
        b"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"ping\"}\n",
        &[(none.clone(), -32600)],
    )
    .await;
    check(
        b"{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"ping\",\"result\":1}\n",
        &[(json!(5), -32600)],
    )
    .await;
    check(
        b"{\"jsonrpc\":\"2.0\",\"id\":6,\"method\":\"tools/call\",\"params\":[]}\n",
        &[(json!(6), -32602)],
    )
    .await;
    check(
        b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"initialize\",\"params\":{}}\n",
        &[(json!(7), -32602)],
    )
    .await;
    // What answers no question gets no reply.
    check(
        b"{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{}}\n{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n",
        &[],
    )
    .await;
}

#[tokio::test]
async fn the_framing_of_lsp_is_named() {
    let mut client = Client::connect(router(local(|_| Script::text("hi"))));
    client
        .raw(b"Content-Length: 46\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n")
        .await;
    let line = client.line().await.unwrap();
    assert_eq!(line["error"]["code"], -32700);
    assert!(
        line["error"]["message"]
            .as_str()
            .unwrap()
            .contains("tandem lsp")
    );
    assert_eq!(client.line().await.unwrap()["result"], json!({}));
}

#[tokio::test]
async fn a_document_of_50_megabytes_is_refused_under_its_id() {
    let mut client = Client::open(router(local(|_| Script::text("hi"))), ERA).await;
    client
        .raw(b"{\"method\":\"tools/call\",\"params\":{\"id\":1,\"name\":\"ask\",\"arguments\":{\"question\":\"")
        .await;
    let chunk = vec![b'a'; 1 << 20];
    for _ in 0..50 {
        client.raw(&chunk).await;
    }
    client.raw(b"\"}},\"jsonrpc\":\"2.0\",\"id\":81}\n").await;
    let line = client.line().await.unwrap();
    assert_eq!(line["id"], 81, "{line}");
    assert!(
        line["error"]["message"]
            .as_str()
            .unwrap()
            .contains("16 MiB"),
        "{line}"
    );
    client.ask("tools/list", json!({})).await;
}

#[tokio::test]
async fn a_line_without_end_is_dropped_at_the_end_of_input() {
    let mut client = Client::open(router(local(|_| Script::text("hi"))), ERA).await;
    client.raw(&vec![b'{'; 100_000]).await;
    let lines = client.hang_up().await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["error"]["code"], -32700);
}

#[tokio::test]
async fn json_of_absurd_depth_is_an_error() {
    let mut client = Client::open(router(local(|_| Script::text("hi"))), ERA).await;
    let mut line = b"{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"tools/call\",\"params\":".to_vec();
    line.extend(vec![b'['; 200_000]);
    line.extend(vec![b']'; 200_000]);
    line.extend(b"}\n");
    client.raw(&line).await;
    let reply = client.line().await.unwrap();
    assert_eq!(reply["id"], 8);
    assert_eq!(reply["error"]["code"], -32700);
    client.ask("tools/list", json!({})).await;
}

#[tokio::test]
async fn a_batch_gets_a_reply_for_each_of_its_requests() {
    let mut client = Client::open(router(local(|_| Script::text("hi"))), ERA).await;
    client
        .raw(b"[{\"jsonrpc\":\"2.0\",\"id\":51,\"method\":\"ping\"},7,{\"jsonrpc\":\"2.0\",\"id\":52,\"method\":\"ping\"}]\n")
        .await;
    assert_eq!(client.reply(51).await["result"], json!({}));
    assert_eq!(client.reply(52).await["result"], json!({}));
    let rest = client.take_unread();
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(rest[0]["error"]["code"], -32600);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_in_use_is_refused_and_both_requests_are_answered() {
    let backend = local(|_| Script {
        pause: std::time::Duration::from_secs(1),
        ..Script::text("hi")
    });
    let mut client = Client::open(router(backend), ERA).await;
    let line = b"{\"jsonrpc\":\"2.0\",\"id\":60,\"method\":\"tools/call\",\"params\":{\"name\":\"ask\",\"arguments\":{\"question\":\"?\"}}}\n";
    client.raw(line).await;
    client.raw(line).await;
    let refused = client.line().await.unwrap();
    assert_eq!(refused["error"]["code"], -32600, "{refused}");
    assert_eq!(client.reply(60).await["result"]["content"][0]["text"], "hi");
    // Once answered, the id is free.
    client.raw(line).await;
    assert_eq!(client.reply(60).await["result"]["content"][0]["text"], "hi");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_requests_gets_a_reply_each_and_passes() {
    let backend = local(|_| Script {
        pause: std::time::Duration::from_secs(1),
        ..Script::text("hi")
    });
    let mut client = Client::open(router(backend), ERA).await;
    let mut ids = Vec::new();
    for _ in 0..300 {
        let params = json!({ "name": "ask", "arguments": { "question": "?" } });
        ids.push(client.request("tools/call", params).await);
    }
    let mut answered = 0;
    for id in ids {
        let result = client.reply(id).await["result"].clone();
        let text = result["content"][0]["text"].as_str().unwrap();
        if result["isError"] == true {
            assert!(text.ends_with('.'), "{text}");
        } else {
            assert_eq!(text, "hi");
            answered += 1;
        }
    }
    assert!(answered >= 4, "{answered}");
    client.ask("ping", json!({})).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_end_a_session(
        lines in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..80),
                // Near misses: real messages with a byte changed.
                (0..120_usize, any::<u8>()).prop_map(|(at, byte)| {
                    let mut line = br#"{"jsonrpc":"2.0","id":1000,"method":"tools/call","params":{"name":"ask","arguments":{"question":"?"}}}"#.to_vec();
                    let at = at % line.len();
                    line[at] = byte;
                    line
                }),
            ],
            0..8,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = Client::open(router(local(|_| Script::text("hi"))), ERA).await;
            for line in lines {
                client.raw(&line).await;
                client.raw(b"\n").await;
            }
            client.ask("ping", json!({})).await;
            client.hang_up().await;
        });
    }
}
