//! How a session begins, what it offers, and how it ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::inference::{BackendKind, Health};
use tandem::protocol::mcp::Session;
use tokio::time::Instant;

use super::client::{Client, Era, local, router};

const ERAS: [Era; 5] = [
    Era::Initialize("2024-11-05"),
    Era::Initialize("2025-03-26"),
    Era::Initialize("2025-06-18"),
    Era::Initialize("2025-11-25"),
    Era::Stateless,
];

fn hanging() -> Script {
    Script {
        pieces: Vec::new(),
        hang: true,
        ..Script::text("")
    }
}

#[tokio::test(start_paused = true)]
async fn every_era_is_greeted_and_served_while_a_model_hangs() {
    for era in ERAS {
        let backend = local(|_| hanging());
        backend.publish(Health::Loading);
        let seen = backend.observed();
        let mut client = Client::connect(router(backend));
        let hello = client.greet(era).await;
        match era {
            Era::Initialize(version) => {
                assert_eq!(hello["protocolVersion"], version);
                assert_eq!(hello["serverInfo"]["name"], "tandem");
            }
            Era::Stateless => {
                let versions = hello["supportedVersions"].as_array().unwrap();
                assert!(versions.contains(&"2026-07-28".into()), "{hello}");
            }
        }
        for capability in ["tools", "resources", "prompts"] {
            assert!(hello["capabilities"][capability].is_object(), "{hello}");
        }
        assert!(
            hello["instructions"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        let tools = client.ask("tools/list", json!({})).await;
        assert_eq!(tools["tools"].as_array().map(Vec::len), Some(7));
        // The shape of a result tells the eras apart.
        assert_eq!(
            tools.get("resultType").is_some(),
            era == Era::Stateless,
            "{tools}"
        );
        assert_eq!(
            seen.started.load(Ordering::SeqCst),
            0,
            "a model was touched"
        );
        assert!(client.hang_up().await.is_empty());
    }
}

#[tokio::test]
async fn an_unknown_version_is_answered_with_the_newest_that_has_a_handshake() {
    for version in ["1999-01-01", "2026-07-28", "2099-01-01"] {
        let mut client = Client::connect(router(local(|_| hanging())));
        let hello = client.greet(Era::Initialize(version)).await;
        assert_eq!(hello["protocolVersion"], "2025-11-25");
        client.ask("tools/list", json!({})).await;
    }
}

#[tokio::test]
async fn both_eras_may_share_one_pipe() {
    let mut client = Client::connect(router(local(|_| Script::text("hi"))));
    client.greet(Era::Stateless).await;
    let hello = client.greet(Era::Initialize("2025-06-18")).await;
    assert_eq!(hello["protocolVersion"], "2025-06-18");
    let result = client.call("ask", json!({ "question": "?" })).await;
    assert_eq!(result["content"][0]["text"], "hi");
}

#[tokio::test]
async fn notifications_before_the_handshake_do_not_end_the_session() {
    let mut client = Client::connect(router(local(|_| hanging())));
    client.notify("notifications/initialized", json!({})).await;
    client
        .notify("notifications/cancelled", json!({ "requestId": 9 }))
        .await;
    client
        .raw(b"{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{}}\n")
        .await;
    client.ask("ping", json!({})).await;
    client.greet(Era::Initialize("2025-11-25")).await;
    assert!(client.hang_up().await.is_empty());
}

#[tokio::test]
async fn requests_before_the_handshake_are_refused_and_the_handshake_still_works() {
    let mut client = Client::connect(router(local(|_| hanging())));
    for method in ["tools/list", "server/discover", "textDocument/hover"] {
        let error = client.refused(method, json!({})).await;
        assert_eq!(error["code"], -32602);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("Send `initialize` first"), "{message}");
    }
    let unknown = json!({ "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2099-01-01",
        "io.modelcontextprotocol/clientCapabilities": {},
    } });
    let error = client.refused("tools/list", unknown).await;
    assert_eq!(error["code"], -32022, "{error}");
    client.greet(Era::Initialize("2025-11-25")).await;
    client.ask("tools/list", json!({})).await;
}

#[tokio::test]
async fn tools_come_in_one_order_with_all_that_hosts_show() {
    let mut client = Client::open(router(local(|_| hanging())), ERAS[3]).await;
    let tools = client.ask("tools/list", json!({})).await;
    let names: Vec<_> = tools["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "complete_code",
            "edit_code",
            "explain_code",
            "summarize",
            "commit_message",
            "ask",
            "status"
        ]
    );
    for tool in tools["tools"].as_array().unwrap() {
        let name = &tool["name"];
        assert!(tool["title"].is_string(), "{name}");
        assert!(
            tool["description"]
                .as_str()
                .is_some_and(|text| text.len() > 80),
            "{name}"
        );
        assert_eq!(tool["annotations"]["readOnlyHint"], true, "{name}");
        assert_eq!(tool["annotations"]["destructiveHint"], false, "{name}");
        assert_eq!(tool["annotations"]["idempotentHint"], true, "{name}");
        assert!(tool["annotations"]["openWorldHint"].is_boolean(), "{name}");
        for schema in ["inputSchema", "outputSchema"] {
            assert_eq!(tool[schema]["type"], "object", "{name}");
            jsonschema::draft202012::meta::validate(&tool[schema]).unwrap();
        }
        assert_eq!(tool["inputSchema"]["additionalProperties"], false, "{name}");
    }
    assert_eq!(client.ask("tools/list", json!({})).await, tools);
}

#[tokio::test]
async fn resources_and_prompts_answer_whether_or_not_a_client_declared_anything() {
    for era in ERAS {
        let mut client = Client::open(router(local(|_| hanging())), era).await;
        let resources = client.ask("resources/list", json!({})).await;
        let uris: Vec<_> = resources["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|resource| resource["uri"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(uris, ["tandem://status", "tandem://decisions"]);
        for uri in uris {
            let read = client.ask("resources/read", json!({ "uri": uri })).await;
            assert_eq!(read["contents"][0]["mimeType"], "application/json");
            let text = read["contents"][0]["text"].as_str().unwrap();
            assert!(serde_json::from_str::<Value>(text).unwrap().is_object());
        }
        let templates = client.ask("resources/templates/list", json!({})).await;
        assert_eq!(templates["resourceTemplates"], json!([]));
        let prompts = client.ask("prompts/list", json!({})).await;
        let names: Vec<_> = prompts["prompts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|prompt| prompt["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["review", "commit_message"]);
        for (name, arguments, holds) in [
            (
                "review",
                json!({ "code": "fn f() {}", "focus": "names" }),
                "names",
            ),
            (
                "commit_message",
                json!({ "diff": "+x", "style": "conventional" }),
                "type(scope)",
            ),
        ] {
            let prompt = client
                .ask(
                    "prompts/get",
                    json!({ "name": name, "arguments": arguments }),
                )
                .await;
            assert_eq!(prompt["messages"][0]["role"], "user");
            let text = prompt["messages"][0]["content"]["text"].as_str().unwrap();
            assert!(text.contains(holds), "{text}");
        }
    }
}

#[tokio::test]
async fn what_does_not_exist_gets_the_code_that_the_protocol_gives() {
    let legacy = Era::Initialize("2025-11-25");
    let check = async |era, method: &str, params: Value, code: i32| {
        let mut client = Client::open(router(local(|_| hanging())), era).await;
        let error = client.refused(method, params).await;
        assert_eq!(error["code"], code, "{method}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(!message.is_empty());
        // The session lives on.
        client.ask("tools/list", json!({})).await;
    };
    let tool = json!({ "name": "shell" });
    check(legacy, "tools/call", tool.clone(), -32602).await;
    check(Era::Stateless, "tools/call", tool, -32602).await;
    let uri = json!({ "uri": "tandem://secrets" });
    check(legacy, "resources/read", uri.clone(), -32002).await;
    check(Era::Stateless, "resources/read", uri, -32602).await;
    check(legacy, "prompts/get", json!({ "name": "poem" }), -32602).await;
    check(legacy, "prompts/get", json!({ "name": "review" }), -32602).await;
    check(legacy, "tools/list", json!({ "cursor": "2" }), -32602).await;
    let odd = json!({ "name": "review", "arguments": { "code": "x", "tone": "y" } });
    check(legacy, "prompts/get", odd, -32602).await;
    check(legacy, "textDocument/completion", json!({}), -32601).await;
    check(
        legacy,
        "logging/setLevel",
        json!({ "level": "info" }),
        -32601,
    )
    .await;
    check(legacy, "completion/complete", json!({}), -32602).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_input_ends_the_session_soon_and_the_work_with_it() {
    let backend = local(|_| Script {
        pieces: vec!["half".to_owned()],
        hang: true,
        ..Script::text("")
    });
    let seen = backend.observed();
    let mut client = Client::open(router(backend), ERAS[3]).await;
    let arguments = json!({ "name": "ask", "arguments": { "question": "?" } });
    client.request("tools/call", arguments).await;
    while seen.pieces.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let left = Instant::now();
    let lines = client.hang_up().await;
    assert!(
        left.elapsed() < Duration::from_secs(2),
        "{:?}",
        left.elapsed()
    );
    assert_eq!(seen.cancelled.load(Ordering::SeqCst), 1);
    // What there was is still said, for whoever pipes requests in.
    assert_eq!(
        lines[0]["result"]["structuredContent"]["truncated"],
        "deadline"
    );
}

#[tokio::test]
async fn a_request_without_a_line_feed_at_the_end_is_still_answered() {
    let backend = ScriptedBackend::saying(BackendKind::Candle, "hi");
    let mut client = Client::open(router(backend), ERAS[3]).await;
    client
        .raw(br#"{"jsonrpc":"2.0","id":77,"method":"tools/call","params":{"name":"ask","arguments":{"question":"?"}}}"#)
        .await;
    let lines = client.hang_up().await;
    assert_eq!(lines[0]["id"], 77);
    assert_eq!(lines[0]["result"]["content"][0]["text"], "hi");
}

#[tokio::test]
async fn a_host_that_leaves_at_once_leaves_no_error() {
    let client = Client::connect(router(local(|_| hanging())));
    assert!(client.hang_up().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_does_not_keep_the_server() {
    let (input, server_input) = tokio::io::duplex(1 << 20);
    // Nobody ever reads these sixteen bytes.
    let (server_output, _unread) = tokio::io::duplex(16);
    let session = Session::new(router(local(|_| Script::text("hi"))), None);
    let server = tokio::spawn(tandem::protocol::mcp::serve(
        server_input,
        server_output,
        session,
    ));
    let mut input = input;
    for id in 0..5 {
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}\n");
        tokio::io::AsyncWriteExt::write_all(&mut input, line.as_bytes())
            .await
            .unwrap();
    }
    drop(input);
    tokio::time::timeout(Duration::from_secs(30), server)
        .await
        .expect("the server does not end")
        .unwrap()
        .unwrap();
}
