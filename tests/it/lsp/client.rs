//! A small LSP client for tests: it ends by protocol, and it fails on messages nobody read.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tandem::backend::scripted::{Observed, ScriptedBackend};
use tandem::config::{Configuration, Layer, Layers, Options};
use tandem::inference::{Backend, BackendKind};
use tandem::protocol::lsp::{Ended, Session, serve};
use tandem::router::{Backends, Router};
use tokio::io::{
    AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf,
};
use tokio::task::JoinHandle;

/// How long a test waits for a message. Under the paused clock it passes only once nothing else
/// can happen.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a test begins with.
pub struct Setup {
    pub backend: ScriptedBackend,
    /// The user's own file.
    pub settings: String,
    /// The `capabilities` of `initialize`.
    pub capabilities: Value,
    pub cache: PathBuf,
}

impl Setup {
    /// A local backend that always says `text`, no debounce, and a client that can nothing.
    pub fn saying(text: &str) -> Self {
        Self::with(ScriptedBackend::saying(BackendKind::Candle, text))
    }

    pub fn with(backend: ScriptedBackend) -> Self {
        Self {
            backend,
            settings: "completion: {debounce: 0ms}".to_owned(),
            capabilities: json!({}),
            cache: std::env::temp_dir(),
        }
    }

    pub fn capabilities(mut self, capabilities: Value) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// The keys of `completion`, as YAML.
    pub fn completion(mut self, keys: &str) -> Self {
        self.settings = format!("completion: {{debounce: 0ms, {keys}}}");
        self
    }

    /// Starts a session whose handshake is done.
    pub async fn start(self) -> Lsp {
        let capabilities = self.capabilities.clone();
        let mut lsp = self.raw();
        let result = lsp
            .call(
                "initialize",
                json!({"processId": null, "capabilities": capabilities, "workspaceFolders": [
                    {"uri": "file:///project", "name": "project"},
                ]}),
            )
            .await
            .unwrap();
        assert!(result["capabilities"]["inlineCompletionProvider"].is_object());
        lsp.notify("initialized", json!({})).await;
        lsp
    }

    /// Starts a session that nothing was said in yet.
    pub fn raw(self) -> Lsp {
        let options = Options::from_yaml(&self.settings, "test").unwrap();
        let configuration = Arc::new(Configuration::new(Layers {
            user: Some(Layer::new("test", options)),
            ..Layers::default()
        }));
        let backend = Arc::new(self.backend);
        let backends = Backends {
            local: Some(Arc::clone(&backend) as Arc<dyn Backend>),
            ..Backends::default()
        };
        let session = Session {
            router: Arc::new(Router::new(configuration.settings(), backends)),
            configuration,
            cache: self.cache,
        };
        let (near, far) = tokio::io::duplex(1 << 16);
        let (input, output) = tokio::io::split(near);
        let served = tokio::spawn(serve(BufReader::new(input), output, session));
        let (reader, writer) = tokio::io::split(far);
        Lsp {
            reader: BufReader::new(reader),
            writer: Some(writer),
            unread: VecDeque::new(),
            next_id: 1,
            backend,
            served: Some(served),
        }
    }
}

/// A session under test.
pub struct Lsp {
    reader: BufReader<ReadHalf<DuplexStream>>,
    writer: Option<WriteHalf<DuplexStream>>,
    unread: VecDeque<Value>,
    next_id: i64,
    pub backend: Arc<ScriptedBackend>,
    served: Option<JoinHandle<Ended>>,
}

impl Lsp {
    pub fn observed(&self) -> Arc<Observed> {
        self.backend.observed()
    }

    pub async fn bytes(&mut self, bytes: &[u8]) {
        let writer = self.writer.as_mut().unwrap();
        writer.write_all(bytes).await.unwrap();
    }

    pub async fn body(&mut self, body: &[u8]) {
        let header = format!("Content-Length: {}\r\n\r\n", body.len());
        self.bytes(header.as_bytes()).await;
        self.bytes(body).await;
    }

    pub async fn send(&mut self, message: Value) {
        self.body(message.to_string().as_bytes()).await;
    }

    pub async fn notify(&mut self, method: &str, params: Value) {
        self.send(json!({"jsonrpc": "2.0", "method": method, "params": params}))
            .await;
    }

    /// Sends a request and does not wait.
    pub async fn request(&mut self, method: &str, params: Value) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
            .await;
        id
    }

    /// The reply to a request: its result, or its error's code.
    pub async fn reply(&mut self, id: impl Into<Value>) -> Result<Value, i64> {
        let id = id.into();
        let mut reply = self
            .find(|message| message["id"] == id && message.get("method").is_none())
            .await;
        match reply.get("error") {
            Some(error) => Err(error["code"].as_i64().unwrap()),
            None => Ok(reply["result"].take()),
        }
    }

    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value, i64> {
        let id = self.request(method, params).await;
        self.reply(id).await
    }

    /// The params of the next notification of a method.
    pub async fn notification(&mut self, method: &str) -> Value {
        self.find(|message| message["method"] == method && message.get("id").is_none())
            .await["params"]
            .take()
    }

    /// The next request of the server: its id and params.
    pub async fn asked(&mut self, method: &str) -> (Value, Value) {
        let mut request = self
            .find(|message| message["method"] == method && message.get("id").is_some())
            .await;
        (request["id"].take(), request["params"].take())
    }

    pub async fn answer(&mut self, id: Value, result: Value) {
        self.send(json!({"jsonrpc": "2.0", "id": id, "result": result}))
            .await;
    }

    /// The next error reply without an id.
    pub async fn stray_error(&mut self) -> i64 {
        self.find(|message| message["id"].is_null() && message.get("error").is_some())
            .await["error"]["code"]
            .as_i64()
            .unwrap()
    }

    /// The next status with this reason for an empty completion.
    pub async fn empty_because(&mut self) -> String {
        let status = self
            .find(|message| {
                message["method"] == "tandem/status"
                    && message["params"].get("emptyReason").is_some()
            })
            .await;
        assert!(status["params"]["message"].is_string(), "{status}");
        status["params"]["emptyReason"].as_str().unwrap().to_owned()
    }

    /// How many statuses have come and were not looked for.
    pub fn statuses(&self) -> usize {
        let status = |message: &&Value| message["method"] == "tandem/status";
        self.unread.iter().filter(status).count()
    }

    pub async fn open(&mut self, uri: &str, language: &str, text: &str) {
        let document = json!({"uri": uri, "languageId": language, "version": 1, "text": text});
        self.notify("textDocument/didOpen", json!({"textDocument": document}))
            .await;
    }

    /// An inline completion that was invoked (1) or came by itself (2).
    pub async fn inline(&mut self, uri: &str, at: (u32, u32), kind: u8) -> Vec<Value> {
        let result = self
            .call(
                "textDocument/inlineCompletion",
                inline_params(uri, at, kind),
            )
            .await
            .unwrap();
        result["items"].as_array().unwrap().clone()
    }

    /// Ends by protocol.
    pub async fn finish(mut self) {
        assert_eq!(self.call("shutdown", Value::Null).await, Ok(Value::Null));
        self.send(json!({"jsonrpc": "2.0", "method": "exit"})).await;
        assert_eq!(self.ended().await, Ended::ByProtocol);
        while let Some(message) = self.next().await {
            self.unread.push_back(message);
        }
        // A status may come at any time; all else has a meaning that the test must have wanted.
        self.unread.retain(|message| {
            message["method"] != "tandem/status" && message["method"] != "$/progress"
        });
        assert!(self.unread.is_empty(), "unread: {:?}", self.unread);
    }

    /// Closes the input.
    pub fn hang_up(&mut self) {
        // The halves share one pipe, so only `shutdown` closes a direction.
        self.writer = None;
        let (_, other) = tokio::io::duplex(1);
        self.reader = BufReader::new(tokio::io::split(other).0);
    }

    /// How the server ended.
    pub async fn ended(&mut self) -> Ended {
        tokio::time::timeout(PATIENCE, self.served.take().unwrap())
            .await
            .expect("the server does not end")
            .unwrap()
    }

    async fn find(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        if let Some(at) = self.unread.iter().position(&mut wanted) {
            return self.unread.remove(at).unwrap();
        }
        loop {
            let message = tokio::time::timeout(PATIENCE, self.next())
                .await
                .unwrap_or_else(|_| panic!("nothing comes; unread: {:?}", self.unread))
                .unwrap_or_else(|| panic!("the server ended; unread: {:?}", self.unread));
            if wanted(&message) {
                return message;
            }
            self.unread.push_back(message);
        }
    }

    async fn next(&mut self) -> Option<Value> {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).await.unwrap() == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => length = line.strip_prefix("Content-Length: ")?.parse().unwrap(),
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).await.unwrap();
        let message: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(message["jsonrpc"], "2.0");
        Some(message)
    }
}

impl Drop for Lsp {
    fn drop(&mut self) {
        assert!(
            self.served.is_none() || std::thread::panicking(),
            "the test did not end its session"
        );
    }
}

pub fn inline_params(uri: &str, at: (u32, u32), kind: u8) -> Value {
    json!({
        "textDocument": {"uri": uri},
        "position": {"line": at.0, "character": at.1},
        "context": {"triggerKind": kind},
    })
}
