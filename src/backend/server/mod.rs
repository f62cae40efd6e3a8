//! An inference server of the user's: vLLM, SGLang, llama.cpp's, TGI, Ollama, whatever speaks OpenAI's
//! completions and chat.
//!
//! On first need it is asked what it is and has ([`discovery`]). A request is rendered for what it can
//! do ([`body`]) and sent; what comes back is understood ([`answer`]) and passed on. It counts as another
//! machine wherever it is: a port of this one may lead anywhere.

mod answer;
mod body;
mod call;
mod discovery;
mod failure;
mod fields;
mod health;
mod ollama;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use reqwest::{StatusCode, Url};
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{ServerApi, ServerSettings, Settings};
use crate::inference::{
    Backend, BackendKind, ClientId, CompleteTask, CompletionShape, Descriptor, Effort, ErrorKind,
    Event, EventSender, Finish, GenerateError, GenerateRequest, Health, Priority, RequestId,
    Sampling, Task, TokenStream,
};

use super::http::client::{self, Clients};
use super::http::retry::Tries;
use super::http::{self, Peer, read};

use self::answer::ApiError;
use self::body::Wire;
use self::call::{Call, Came, Failed, Line};
use self::discovery::{Known, Software, Way};
use self::ollama::{Loading, Urls};

/// An inference server, in words.
const PEER: Peer = Peer {
    name: "the inference server",
    group: "server",
    api: "an OpenAI-compatible server",
    check_url: "Check that `server.base_url` leads to an OpenAI-compatible server, and `server.api` to \
                what it can do.",
    unreachable: "Start the server, or correct `server.base_url`; to another machine, check your network \
                  and proxy.",
    try_again: "Try again in a moment; if it stays so, look at the server's own log.",
};

/// Tokens that a server is tried with: enough to see that it generates.
const TRIED_TOKENS: usize = 8;

/// See the module.
pub struct ServerBackend {
    descriptor: Descriptor,
    inner: Arc<Inner>,
    _forgive: AbortOnDropHandle<()>,
}

struct Inner {
    settings: watch::Receiver<Arc<Settings>>,
    health: Arc<watch::Sender<Health>>,
    clients: Clients,
    /// Asked once, and again after the server said that it has something no more.
    known: Mutex<Option<Arc<Known>>>,
    loading: Loading,
}

/// What trying a server showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// The model that was asked for; `None` where it did not come so far.
    pub model: Option<String>,
    /// What the server is and how completions are asked for.
    pub found: Option<String>,
    /// What it generated, or why not.
    pub outcome: Result<Generated, GenerateError>,
}

/// What a server generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The text; may be empty, where the model ended at once.
    pub text: String,
    /// Until the first text.
    pub first_text: Option<Duration>,
    /// Until the end.
    pub took: Duration,
    /// In how many pieces the text came.
    pub pieces: usize,
    /// Tokens of the prompt, where the server counts.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
}

impl ServerBackend {
    /// A backend that follows `settings`; `None` where they name no server. Connects to nothing.
    ///
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn new(settings: watch::Receiver<Arc<Settings>>) -> Option<Self> {
        let now = Arc::clone(&settings.borrow());
        let base_url = now.server.base_url.as_deref()?;
        let host = || call::host(&Url::parse(base_url).ok()?);
        // Which model a server has, it is asked on first need.
        let model = now.server.model.clone().or_else(host);
        let health = Arc::new(watch::Sender::new(Health::Unloaded));
        let forgive = tokio::spawn(health::forgive(Arc::clone(&health)));
        Some(Self {
            descriptor: Descriptor {
                kind: BackendKind::Server,
                model: model.unwrap_or_default(),
                context_tokens: now.server.context_tokens,
            },
            inner: Arc::new(Inner {
                settings,
                health,
                clients: Clients::default(),
                known: Mutex::default(),
                loading: Loading::default(),
            }),
            _forgive: AbortOnDropHandle::new(forgive),
        })
    }

    /// Has it complete a few tokens of a text that is nobody's.
    pub async fn tried(&self) -> Tried {
        let request = GenerateRequest {
            client: ClientId::default(),
            id: RequestId::next(),
            task: Task::Complete(CompleteTask {
                path: Some("add.py".to_owned()),
                language: "python".to_owned(),
                prefix: "def add(a, b):\n    return ".into(),
                suffix: "\n".into(),
                snippets: Vec::new(),
                shape: CompletionShape::OneLine,
            }),
            sampling: Sampling::GREEDY,
            max_tokens: TRIED_TOKENS,
            stop: Vec::new(),
            effort: Effort::Low,
            priority: Priority::Background,
        };
        let started = Instant::now();
        let mut stream = self.generate(request, CancellationToken::new());
        let (mut text, mut pieces, mut first_text) = (String::new(), 0, None);
        let outcome = loop {
            match stream.next().await {
                Some(Event::Delta(piece)) => {
                    first_text.get_or_insert_with(|| started.elapsed());
                    text.push_str(&piece);
                    pieces += 1;
                }
                Some(Event::Done(finish)) => break Ok(finish),
                Some(Event::Failed(error)) => break Err(error),
                None => break Err(GenerateError::cancelled()),
            }
        };
        let known = self.inner.known.lock().await.clone();
        let api = self.inner.settings.borrow().server.api;
        Tried {
            model: known
                .as_ref()
                .map(|known| answer::shown(&known.model).to_owned()),
            found: known.as_ref().map(|known| {
                let software = known.software.as_str();
                format!("{software}, asked by {}", known.way(api).as_str())
            }),
            outcome: outcome.map(|finish| Generated {
                text,
                pieces,
                first_text,
                took: started.elapsed(),
                prompt_tokens: finish.usage.prompt_tokens,
                completion_tokens: finish.usage.completion_tokens,
            }),
        }
    }
}

impl Backend for ServerBackend {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health.subscribe()
    }

    fn generate(&self, request: GenerateRequest, cancel: CancellationToken) -> TokenStream {
        let (events, stream) = TokenStream::channel(cancel.clone());
        let inner = Arc::clone(&self.inner);
        // Ends with the answer, or with the token, which the stream's drop cancels.
        tokio::spawn(async move {
            let outcome = tokio::select! {
                biased;
                // Dropping the call closes its connection.
                () = cancel.cancelled() => Err(GenerateError::cancelled()),
                outcome = inner.answer(&request, &events) => outcome,
            };
            if let Some(now) = health::after(outcome.as_ref().map(|_| ())) {
                inner.publish(now);
            }
            match outcome {
                Ok(finish) => events.finish(finish).await,
                Err(error) => events.fail(error).await,
            }
        });
        stream
    }
}

impl Inner {
    fn publish(&self, now: Health) {
        self.health.send_if_modified(|health| {
            let changed = *health != now;
            *health = now;
            changed
        });
    }

    async fn answer(
        &self,
        request: &GenerateRequest,
        events: &EventSender,
    ) -> Result<Finish, GenerateError> {
        let settings = Arc::clone(&self.settings.borrow());
        let settings = &settings.server;
        let base_url = settings.base_url.as_deref().unwrap_or_default();
        let place = |path: &[&str]| {
            // People write it with and without what the paths begin with.
            let base = base_url.strip_suffix("/v1").unwrap_or(base_url);
            client::url(base, path).ok_or_else(|| http::failure::bad_url(&PEER))
        };
        let models_url = place(&["v1", "models"])?;
        let key = match &settings.api_key {
            None => None,
            Some(key) => Some(key.expose().await.map_err(|error| {
                let next_step = error.next_step("server.api_key_command", "TANDEM_SERVER_API_KEY");
                GenerateError::new(ErrorKind::Unauthorized, error.to_string(), next_step)
            })?),
        };
        let timeout = settings.connect_timeout;
        let client = self.clients.get(&PEER, &models_url, timeout).await?;
        let line = || Line {
            client: &client,
            key: key.as_deref(),
            settings,
        };
        // Whether the answer is held to its schema by the server too.
        let mut held = true;
        loop {
            let known = {
                let mut known = self.known.lock().await;
                if let Some(known) = known.as_ref().filter(|known| known.is_there_still()) {
                    Arc::clone(known)
                } else {
                    let ollama = Urls {
                        show: place(&["api", "show"])?,
                        loaded: place(&["api", "ps"])?,
                        generate: place(&["api", "generate"])?,
                    };
                    let infill = place(&["infill"])?;
                    let found =
                        discover(&line(), &models_url, &infill, (&ollama, &self.loading)).await?;
                    Arc::clone(known.insert(Arc::new(found)))
                }
            };
            events.name_model(answer::shown(&known.model));
            let way = known.way(settings.api);
            let context_tokens = settings.context_tokens.min(known.most_tokens());
            let wire = Wire::new(request, &known, way, context_tokens, held)?;
            let tokens = wire.prompt_tokens + wire.max_tokens;
            if tokens > context_tokens && !matches!(request.task, Task::Complete(_)) {
                return Err(failure::too_long(tokens, context_tokens));
            }
            let url = place(wire.path)?;
            let call = Call {
                line: line(),
                url: url.clone(),
                wire: &wire,
                stop: &request.stop,
                generated: &|| self.publish(Health::Healthy { speed: None }),
            };
            let Failed { error, came } = match call.run(events).await {
                Ok(finish) => return Ok(finish),
                Err(failed) => failed,
            };
            let absent = came == Came::Absent;
            if came == Came::Silence
                && known.software == Software::LlamaCppPython
                && let Some(tokens) = told_context(&line(), &url, &wire).await
                && tokens < known.most_tokens()
            {
                known.found_context.store(tokens, Ordering::Relaxed);
                continue;
            }
            // A conversation goes by none of the ways of a completion.
            let by_infill = way == Way::Infill && matches!(request.task, Task::Complete(_));
            if absent && by_infill && settings.api == ServerApi::Auto {
                known.infill.store(false, Ordering::Relaxed);
                continue;
            }
            let by_raw = matches!(way, Way::Raw(_)) && matches!(request.task, Task::Complete(_));
            let turned_away = error.kind == ErrorKind::Unavailable && came != Came::Text;
            // What it frames itself, it takes perhaps.
            if turned_away && by_raw && known.others.is_empty() {
                known.raw.store(false, Ordering::Relaxed);
                continue;
            }
            // Servers know different parts of JSON Schema. The answer is looked at in any case.
            let has_schema = matches!(&request.task, Task::Chat(task) if task.schema.is_some());
            if turned_away && !absent && held && has_schema {
                tracing::debug!(
                    "the inference server does not take the schema, and is asked without"
                );
                held = false;
                continue;
            }
            let by_name = absent || !known.takes_any_name();
            if turned_away && by_name && !known.others.is_empty() {
                *self.known.lock().await = None;
                return Err(failure::not_listed(&known.model, &known.others));
            }
            // It may come back with another model.
            if absent || matches!(error.kind, ErrorKind::Backend | ErrorKind::Timeout) {
                *self.known.lock().await = None;
            }
            return Err(error);
        }
    }
}

/// What context the server's model has, by its error for a request that it ended without a word.
/// llama-cpp-python does that to a prompt longer than its context, unless no stream is wanted, and tells
/// its context nowhere else.
async fn told_context(line: &Line<'_>, url: &Url, wire: &Wire) -> Option<usize> {
    let mut body: Map<String, Value> = serde_json::from_slice(&wire.body).ok()?;
    body.remove("stream_options");
    body.insert("stream".to_owned(), json!(false));
    // Where the prompt was not the reason, little is wasted.
    body.insert("max_tokens".to_owned(), json!(1));
    let body = Value::Object(body).to_string().into_bytes();
    let tries = Tries::within(line.settings.first_byte_timeout, 0);
    let response = match line.send(url, Some(body.clone()), &tries).await {
        Ok(response) => response,
        // It may have closed the connection that the silent answer came by.
        Err(_) => line.send(url, Some(body), &tries).await.ok()?,
    };
    if response.status() != StatusCode::BAD_REQUEST {
        return None;
    }
    let body = read::body(response, line.settings.idle_timeout).await;
    ApiError::find(&serde_json::from_slice(&body).ok()?)?.context_tokens()
}

/// Asks a server what it is and has. Nothing of the user's is sent but the key.
async fn discover(
    line: &Line<'_>,
    models: &Url,
    infill: &Url,
    (ollama, loading): (&Urls, &Loading),
) -> Result<Known, GenerateError> {
    let settings: &ServerSettings = line.settings;
    let tries = Tries::within(settings.first_byte_timeout, 0);
    let response = line
        .send(models, None, &tries)
        .await
        .map_err(|failure| failure.error)?;
    let status = response.status();
    let configured = settings.model.as_deref();
    let body = if status == StatusCode::OK {
        read::body(response, settings.idle_timeout).await
    } else if configured.is_some() && matches!(status.as_u16(), 404 | 405 | 501) {
        // Not every server lists its models.
        Vec::new()
    } else {
        return Err(line.turned_away(response, models.path()).await.error);
    };
    let mut known = Known::read(&body, configured).map_err(failure::no_model)?;
    if known.may_have_infill(settings.api) {
        let body = json!({
            "model": known.model,
            "input_prefix": "a",
            "input_suffix": "",
            "n_predict": 1,
            "stream": false,
        });
        let there = match line
            .send(infill, Some(body.to_string().into()), &tries)
            .await
        {
            Ok(response) if response.status() == StatusCode::OK => {
                let body = read::body(response, settings.idle_timeout).await;
                let body = serde_json::from_slice::<Value>(&body);
                body.is_ok_and(|body| body["content"].is_string())
            }
            Ok(_) | Err(_) => false,
        };
        known.infill.store(there, Ordering::Relaxed);
    }
    if known.software == Software::Other && !*known.infill.get_mut() {
        ollama::ask(line, ollama, loading, &mut known, &tries).await?;
    }
    tracing::info!(
        software = known.software.as_str(),
        model = known.model,
        way = known.way(settings.api).as_str(),
        "the inference server is known"
    );
    Ok(known)
}
