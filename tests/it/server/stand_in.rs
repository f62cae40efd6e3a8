//! A server that stands in for llama-server, vLLM, Ollama or another one: it answers what those answer, asks for
//! the key, and is as faulty as it is told to be.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::claude::messages_api::http::{Connection, Piece, Request, Response, Sent};

/// Which server it plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plays {
    /// llama.cpp's: it has `/infill`.
    LlamaServer,
    /// llama-cpp-python's.
    LlamaCppPython,
    /// vLLM.
    Vllm,
    /// Ollama, whose `/api` is answered by the same function as what generates.
    Ollama,
    /// One that says nothing of itself, and has chat alone.
    Other,
}

/// A sound request to generate.
pub struct Asked<'a> {
    /// `/infill` and its like.
    pub path: &'a str,
    /// The JSON.
    pub body: &'a Value,
}

type Answer = dyn Fn(&Asked<'_>) -> Response + Send + Sync;

/// What has happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests that came, sound or not.
    pub requests: usize,
    /// Those of them for the list of models.
    pub lists: usize,
    /// Answers that the client closed the connection on.
    pub abandoned: usize,
}

/// See the module. Stops when dropped.
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    plays: Plays,
    model: Mutex<Option<String>>,
    key: Option<String>,
    answer: Box<Answer>,
    seen: Mutex<Vec<Request>>,
    counts: watch::Sender<Counts>,
}

impl StandIn {
    /// Serves `model` to whoever has `key`, or to everybody.
    pub async fn serve(
        plays: Plays,
        model: &str,
        key: Option<&str>,
        answer: impl Fn(&Asked<'_>) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            plays,
            model: Mutex::new(Some(model.to_owned())),
            key: key.map(str::to_owned),
            answer: Box::new(answer),
            seen: Mutex::default(),
            counts: watch::Sender::default(),
        });
        let mut serving = JoinSet::new();
        let for_all = Arc::clone(&shared);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let shared = Arc::clone(&for_all);
                connections.spawn(async move { shared.converse(Connection::new(socket)).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            shared,
            _serving: serving,
        }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves another model from now on; `None` has no list of models at all.
    pub fn serve_model(&self, model: Option<&str>) {
        *lock(&self.shared.model) = model.map(str::to_owned);
    }

    /// The requests so far, sound or not.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.seen).clone()
    }

    /// What was asked, in order: `/v1/models /infill`.
    pub fn paths(&self) -> String {
        let requests = self.requests();
        let paths: Vec<_> = requests.iter().map(|one| one.target.as_str()).collect();
        paths.join(" ")
    }

    /// The JSON of the last request.
    pub fn last_body(&self) -> Value {
        let last = self.requests().pop().unwrap();
        serde_json::from_slice(&last.body).unwrap()
    }

    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.shared.counts.subscribe()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    async fn converse(&self, mut connection: Connection) {
        while let Some(request) = connection.request().await {
            lock(&self.seen).push(request.clone());
            self.counts.send_modify(|counts| {
                counts.requests += 1;
                counts.lists += usize::from(request.target == "/v1/models");
            });
            let response = self.response(&request);
            match connection.send(&response).await {
                Sent::Whole => {}
                Sent::Closed => return,
                Sent::Abandoned => {
                    self.counts.send_modify(|counts| counts.abandoned += 1);
                    return;
                }
            }
        }
    }

    fn response(&self, request: &Request) -> Response {
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        if bearer.is_some() && request.header("authorization") != bearer.as_deref() {
            return error(401, "authentication_error", "Invalid API Key");
        }
        match (request.method.as_str(), request.target.as_str()) {
            ("GET", "/v1/models") => match &*lock(&self.model) {
                Some(model) => whole(200, &list(self.plays, model)),
                None => error(404, "not_found_error", "File Not Found"),
            },
            ("GET", path @ "/api/ps") if self.has(path) => (self.answer)(&Asked {
                path,
                body: &Value::Null,
            }),
            ("POST", path) if self.has(path) => {
                match serde_json::from_slice::<Value>(&request.body) {
                    Ok(body) if body["stream"].is_boolean() => {
                        (self.answer)(&Asked { path, body: &body })
                    }
                    _ => error(
                        400,
                        "invalid_request_error",
                        "no JSON, or not about streaming",
                    ),
                }
            }
            _ => error(404, "not_found_error", "File Not Found"),
        }
    }

    fn has(&self, path: &str) -> bool {
        match path {
            "/infill" => self.plays == Plays::LlamaServer,
            "/v1/completions" => self.plays != Plays::Other,
            "/v1/chat/completions" => true,
            "/api/show" | "/api/ps" | "/api/generate" => self.plays == Plays::Ollama,
            _ => false,
        }
    }
}

fn list(plays: Plays, model: &str) -> Value {
    let entry = match plays {
        Plays::LlamaServer => json!({"id": model, "owned_by": "llamacpp", "meta": {"n_ctx": 4096}}),
        Plays::LlamaCppPython => {
            json!({"id": model, "object": "model", "owned_by": "me", "permissions": []})
        }
        Plays::Vllm => {
            json!({"id": model, "owned_by": "vllm", "root": model, "max_model_len": 2048})
        }
        Plays::Ollama => json!({"id": model, "object": "model", "owned_by": "library"}),
        Plays::Other => json!({"id": model}),
    };
    json!({"object": "list", "data": [entry]})
}

/// A body that is no stream.
pub fn whole(status: u16, body: &Value) -> Response {
    Response {
        before: None,
        status,
        headers: vec![("content-type".into(), "application/json".into())],
        body: vec![Piece::Bytes(body.to_string().into_bytes())],
    }
}

/// An error as llama-server and vLLM write it.
pub fn error(status: u16, kind: &str, message: &str) -> Response {
    whole(
        status,
        &json!({"error": {"code": status, "message": message, "type": kind}}),
    )
}

/// A stream of these.
pub fn stream(pieces: Vec<Piece>) -> Response {
    Response {
        before: None,
        status: 200,
        headers: vec![(
            "content-type".into(),
            "text/event-stream; charset=utf-8".into(),
        )],
        body: pieces,
    }
}

/// One event.
pub fn event(data: &Value) -> Piece {
    Piece::Bytes(format!("data: {data}\n\n").into_bytes())
}

/// The last event of the documented interfaces.
pub fn done() -> Piece {
    Piece::Bytes(b"data: [DONE]\n\n".to_vec())
}

/// A piece of text in the form of `path`.
pub fn text(path: &str, text: &str) -> Piece {
    event(&match path {
        "/infill" => json!({"index": 0, "content": text, "stop": false}),
        "/v1/completions" => {
            json!({"choices": [{"index": 0, "text": text, "finish_reason": null}]})
        }
        _ => json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}),
    })
}

/// The end in the form of `path`, with the token counts behind it.
pub fn end(path: &str, reason: &str) -> Vec<Piece> {
    if path == "/infill" {
        let stop_type = if reason == "length" { "limit" } else { "eos" };
        return vec![event(&json!({
            "content": "", "stop": true, "stop_type": stop_type, "model": "served",
            "tokens_evaluated": 21, "tokens_predicted": 2, "timings": {"cache_n": 17},
        }))];
    }
    let choice = match path {
        "/v1/completions" => json!({"index": 0, "text": "", "finish_reason": reason}),
        _ => json!({"index": 0, "delta": {}, "finish_reason": reason}),
    };
    let usage = json!({
        "prompt_tokens": 21, "completion_tokens": 2, "total_tokens": 23,
        "prompt_tokens_details": {"cached_tokens": 17},
    });
    vec![
        event(&json!({"model": "served", "choices": [choice]})),
        event(&json!({"choices": [], "usage": usage})),
        done(),
    ]
}

/// A whole answer in the form of `asked`, word by word; between tags where those are asked for.
pub fn say(asked: &Asked<'_>, answer: &str) -> Response {
    let tagged = asked.body["messages"].to_string().contains("<cursor/>");
    let answer = if tagged {
        format!("<insert>{answer}</insert>")
    } else {
        answer.to_owned()
    };
    let words = answer.split_inclusive(' ');
    let mut pieces: Vec<Piece> = words.map(|word| text(asked.path, word)).collect();
    pieces.extend(end(asked.path, "stop"));
    stream(pieces)
}
