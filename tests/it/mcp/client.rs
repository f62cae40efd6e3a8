//! A client of our own that sees every line, so that eras, cancellation and broken input are under
//! control.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::config::Settings;
use tandem::inference::{BackendKind, GenerateRequest};
use tandem::protocol::mcp::{self, Session};
use tandem::router::{Backends, Router};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longer than anything takes; on the paused clock it passes at once if nothing else can happen.
const PATIENCE: Duration = Duration::from_mins(10);

/// A router over one local backend.
pub fn router(backend: ScriptedBackend) -> Arc<Router> {
    router_over(
        Settings::default(),
        Backends {
            local: Some(Arc::new(backend)),
            ..Backends::default()
        },
    )
}

/// A router over any backends.
pub fn router_over(settings: Settings, backends: Backends) -> Arc<Router> {
    // The router keeps the last value after the sender is gone.
    let (_, settings) = watch::channel(Arc::new(settings));
    Arc::new(Router::new(settings, backends))
}

/// A local backend that follows a script.
pub fn local(
    choose: impl Fn(&GenerateRequest) -> Script + Send + Sync + 'static,
) -> ScriptedBackend {
    ScriptedBackend::new(BackendKind::Candle, choose)
}

/// How a client opens the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// With `initialize`, at this version.
    Initialize(&'static str),
    /// Without a handshake, with metadata on each request.
    Stateless,
}

/// See the module.
pub struct Client {
    input: Option<DuplexStream>,
    output: Lines<BufReader<DuplexStream>>,
    server: JoinHandle<std::io::Result<()>>,
    era: Option<Era>,
    next_id: i64,
    /// Lines that came while another was awaited, oldest first.
    unread: VecDeque<Value>,
}

impl Client {
    /// A client whose server runs, without a handshake.
    pub fn connect(router: Arc<Router>) -> Self {
        Self::connect_with(Session::new(router, Some(PathBuf::from("/project/space"))))
    }

    /// The same over a session of the test's own.
    pub fn connect_with(session: Session) -> Self {
        let (input, server_input) = tokio::io::duplex(1 << 16);
        let (server_output, output) = tokio::io::duplex(1 << 16);
        Self {
            input: Some(input),
            output: BufReader::new(output).lines(),
            server: tokio::spawn(mcp::serve(server_input, server_output, session)),
            era: None,
            next_id: 1,
            unread: VecDeque::new(),
        }
    }

    /// A client that has opened its session.
    pub async fn open(router: Arc<Router>, era: Era) -> Self {
        let mut client = Self::connect(router);
        client.greet(era).await;
        client
    }

    /// Opens the session and gives what the server said about itself.
    pub async fn greet(&mut self, era: Era) -> Value {
        self.era = Some(era);
        match era {
            Era::Initialize(version) => {
                let params = json!({
                    "protocolVersion": version,
                    "capabilities": {},
                    "clientInfo": { "name": "test", "version": "1" },
                });
                let result = self.ask("initialize", params).await;
                self.notify("notifications/initialized", json!({})).await;
                result
            }
            Era::Stateless => self.ask("server/discover", json!({})).await,
        }
    }

    /// Sends bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("the client hung up");
        input.write_all(bytes).await.unwrap();
    }

    /// Sends a notification.
    pub async fn notify(&mut self, method: &str, params: Value) {
        let line = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        self.raw(format!("{line}\n").as_bytes()).await;
    }

    /// Sends a request and gives its id.
    pub async fn request(&mut self, method: &str, mut params: Value) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        if self.era == Some(Era::Stateless) {
            let meta = &mut params["_meta"];
            meta["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
            meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
            meta["io.modelcontextprotocol/clientInfo"] = json!({ "name": "test", "version": "1" });
        }
        let line = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.raw(format!("{line}\n").as_bytes()).await;
        id
    }

    /// The next line, whatever it is; `None` when the server has closed its side.
    pub async fn line(&mut self) -> Option<Value> {
        if let Some(line) = self.unread.pop_front() {
            return Some(line);
        }
        self.fresh_line().await
    }

    async fn fresh_line(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(PATIENCE, self.output.next_line())
            .await
            .expect("the server says nothing")
            .unwrap()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}")))
    }

    /// The reply to a request; other lines are kept.
    pub async fn reply(&mut self, id: i64) -> Value {
        if let Some(at) = self.unread.iter().position(|line| line["id"] == id) {
            return self.unread.remove(at).unwrap();
        }
        loop {
            let line = self.fresh_line().await.expect("the server hung up");
            if line["id"] == id {
                return line;
            }
            self.unread.push_back(line);
        }
    }

    /// What came besides replies that were awaited.
    pub fn take_unread(&mut self) -> Vec<Value> {
        self.unread.drain(..).collect()
    }

    /// Sends a request and gives its result.
    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params).await;
        let reply = self.reply(id).await;
        assert!(reply.get("error").is_none(), "{method}: {reply}");
        reply["result"].clone()
    }

    /// Sends a request and gives its error.
    pub async fn refused(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params).await;
        let reply = self.reply(id).await;
        assert!(reply.get("result").is_none(), "{method}: {reply}");
        reply["error"].clone()
    }

    /// Calls a tool and gives its result.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask(
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        )
        .await
    }

    /// Closes the server's input and waits until it has ended; gives the lines that still came.
    pub async fn hang_up(mut self) -> Vec<Value> {
        self.input = None;
        while let Some(line) = self.fresh_line().await {
            self.unread.push_back(line);
        }
        tokio::time::timeout(PATIENCE, self.server)
            .await
            .expect("the server does not end")
            .unwrap()
            .unwrap();
        self.unread.into()
    }
}

/// The text of a tool's result; there must be one block.
pub fn text(result: &Value) -> &str {
    assert_eq!(
        result["content"].as_array().map(Vec::len),
        Some(1),
        "{result}"
    );
    result["content"][0]["text"].as_str().unwrap()
}
