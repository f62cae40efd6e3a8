//! A download as editors and hosts see it: the real program, a client on its pipes, a hub that waits.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::Semaphore;

use super::Rig;
use super::hub_api::{Fault, What};
use super::session::rig;

/// A hub that stops in the middle of the model until it is told to go on.
async fn waiting_hub() -> (Rig, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let decide =
        move |asked: &_| (what(asked) == What::Content).then(|| Fault::Gate(Arc::clone(&held)));
    (rig(decide).await, gate)
}

fn what(asked: &super::hub_api::Asked) -> What {
    asked.what
}

/// How long a client waits for a message before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program, with a client on its pipes.
struct Client {
    _child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    fn start(rig: &Rig, args: &[&str]) -> Self {
        let common = ["--model", "one", "--set", "local.download=true"];
        let mut command = rig.command(&[args, &common].concat());
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            _child: child,
        }
    }

    async fn send_framed(&mut self, message: &Value) {
        let body = message.to_string();
        let text = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        self.stdin.write_all(text.as_bytes()).await.unwrap();
    }

    async fn receive_framed(&mut self) -> Value {
        let mut header = String::new();
        self.stdout.read_line(&mut header).await.unwrap();
        let length = header.trim().strip_prefix("Content-Length: ").unwrap();
        let mut body = vec![0; length.parse::<usize>().unwrap() + 2];
        self.stdout.read_exact(&mut body).await.unwrap();
        serde_json::from_slice(&body[2..]).unwrap()
    }

    /// The value of the next progress for which `wanted` holds. Whatever the server asks for is
    /// granted, and all else passed over.
    async fn progress(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut heard = Vec::new();
        loop {
            let message = tokio::time::timeout(PATIENCE, self.receive_framed()).await;
            let message = message.unwrap_or_else(|_| panic!("silence after {heard:#?}"));
            heard.push(message.clone());
            if message["method"].is_string() && !message["id"].is_null() {
                let reply = json!({"jsonrpc": "2.0", "id": message["id"], "result": null});
                self.send_framed(&reply).await;
            }
            let value = &message["params"]["value"];
            if message["method"] == "$/progress" && wanted(value) {
                return value.clone();
            }
        }
    }

    /// A call of MCP, and its result.
    async fn call(&mut self, id: u32, method: &str, params: Value) -> Value {
        let call = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let line = format!("{call}\n");
        self.stdin.write_all(line.as_bytes()).await.unwrap();
        loop {
            let mut line = String::new();
            let read = self.stdout.read_line(&mut line);
            tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
            let message: Value = serde_json::from_str(&line).unwrap();
            if message["id"] == id {
                return message["result"].clone();
            }
        }
    }
}

#[tokio::test]
async fn an_editor_shows_a_bar_from_the_first_byte_until_the_model_has_generated() {
    let (rig, gate) = waiting_hub().await;
    let mut editor = Client::start(&rig, &["lsp"]);
    let initialize = json!({"capabilities": {"window": {"workDoneProgress": true}}});
    let call = |id: Option<u32>, method: &str, params: Value| {
        let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        if let Some(id) = id {
            message["id"] = id.into();
        }
        message
    };
    editor
        .send_framed(&call(Some(1), "initialize", initialize))
        .await;
    editor
        .send_framed(&call(None, "initialized", json!({})))
        .await;
    let document =
        json!({"uri": "untitled:a", "languageId": "python", "version": 1, "text": "def f():\n"});
    let opened = call(
        None,
        "textDocument/didOpen",
        json!({"textDocument": document}),
    );
    editor.send_framed(&opened).await;
    let place = json!({
        "textDocument": {"uri": "untitled:a"},
        "position": {"line": 1, "character": 0},
        "context": {"triggerKind": 1},
    });
    let complete = call(Some(2), "textDocument/inlineCompletion", place);
    editor.send_framed(&complete).await;
    let begun = editor.progress(|value| value["kind"] == "begin").await;
    assert_eq!(begun["title"], "Tandem: one");
    let half_way = |value: &Value| value["percentage"].as_u64().is_some_and(|share| share > 0);
    let on_its_way = editor.progress(half_way).await;
    assert!(on_its_way["percentage"].as_u64().unwrap() < 100);
    let message = on_its_way["message"].as_str().unwrap();
    assert!(message.starts_with("downloading, "), "{message}");
    gate.add_permits(1);
    let end = editor.progress(|value| value["kind"] == "end").await;
    assert_eq!(end["message"], "healthy");
}

#[tokio::test]
async fn a_host_hears_how_far_the_download_is() {
    let (rig, gate) = waiting_hub().await;
    let mut host = Client::start(&rig, &["mcp", "--no-embedded"]);
    let info = json!({"name": "t", "version": "1"});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info});
    host.call(1, "initialize", hello).await;
    let ask = json!({"name": "ask", "arguments": {"question": "Why?"}});
    let mut id = 1;
    let mut next = || {
        id += 1;
        id
    };
    // The first need starts it. The model is no use yet, and the answer says why.
    let told = loop {
        let result = host.call(next(), "tools/call", ask.clone()).await;
        assert_eq!(result["isError"], true, "{result}");
        let text = result["content"][0]["text"].as_str().unwrap().to_owned();
        if text.contains("MB so far") {
            break text;
        }
        assert!(text.contains("download"), "{text}");
    };
    assert!(told.contains("still being downloaded ("), "{told}");
    let status = json!({"name": "status", "arguments": {}});
    let local = |result: &Value| -> Value {
        let backends = result["structuredContent"]["backends"].as_array().unwrap();
        backends[0].clone()
    };
    let result = host.call(next(), "tools/call", status.clone()).await;
    assert_eq!(local(&result)["state"], "downloading", "{result}");
    gate.add_permits(1);
    loop {
        let result = host.call(next(), "tools/call", status.clone()).await;
        if local(&result)["state"] == "healthy" {
            break;
        }
    }
}
