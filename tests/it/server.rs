//! Tests: an inference server of the user's, against one that stands in for llama-server, vLLM and
//! others, over real HTTP, and can be told to fail.

mod configured;
mod faults;
mod keys;
mod llama_cpp_python;
mod ollama;
mod program;
mod requests;
mod routes;
mod stand_in;

use std::sync::Arc;
use std::time::Duration;

use tandem::backend::server::ServerBackend;
use tandem::config::{ApiKey, ServerApi, Settings};
use tandem::inference::{
    Backend, ChatTask, ClientId, CompleteTask, CompletionShape, Effort, Event, Finish,
    GenerateError, GenerateRequest, Health, Message, Priority, RequestId, Role, Sampling, Task,
    TokenStream,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::stand_in::{Asked, Counts, Plays, StandIn, say};
use crate::claude::messages_api::http::Response;

const KEY: &str = "tk-it-91c2e7";

/// A backend, what it talks to, and what it is told.
struct Rig {
    server: StandIn,
    backend: ServerBackend,
    settings: watch::Sender<Arc<Settings>>,
}

impl Rig {
    async fn new(
        plays: Plays,
        model: &str,
        answer: impl Fn(&Asked<'_>) -> Response + Send + Sync + 'static,
    ) -> Self {
        Self::with(plays, model, |_| {}, answer).await
    }

    async fn with(
        plays: Plays,
        model: &str,
        change: impl FnOnce(&mut Settings),
        answer: impl Fn(&Asked<'_>) -> Response + Send + Sync + 'static,
    ) -> Self {
        let server = StandIn::serve(plays, model, Some(KEY), answer).await;
        let mut settings = Settings::default();
        settings.server.base_url = Some(server.base_url());
        settings.server.api_key = ApiKey::new(KEY);
        // A loaded machine must not run into these by itself; tests of a limit lower it.
        settings.server.connect_timeout = Duration::from_secs(10);
        change(&mut settings);
        let settings = watch::Sender::new(Arc::new(settings));
        let backend = ServerBackend::new(settings.subscribe()).unwrap();
        Self {
            server,
            backend,
            settings,
        }
    }

    async fn saying(plays: Plays, model: &str, text: &'static str) -> Self {
        Self::new(plays, model, move |asked| say(asked, text)).await
    }

    fn set(&self, change: impl FnOnce(&mut Settings)) {
        self.settings
            .send_modify(|settings| change(Arc::make_mut(settings)));
    }

    fn generate(&self, request: GenerateRequest) -> TokenStream {
        self.backend.generate(request, CancellationToken::new())
    }

    async fn ask(&self, request: GenerateRequest) -> (String, Result<Finish, GenerateError>) {
        read(self.generate(request)).await
    }

    fn health(&self) -> Health {
        self.backend.health().borrow().clone()
    }

    async fn until(&self, enough: impl Fn(&Counts) -> bool) -> Counts {
        let mut counts = self.server.counts();
        let reached = counts.wait_for(enough);
        *tokio::time::timeout(Duration::from_secs(20), reached)
            .await
            .expect("the server saw what it should")
            .expect("the server lives")
    }
}

/// Reads to the end, and checks that there is exactly one.
async fn read(mut stream: TokenStream) -> (String, Result<Finish, GenerateError>) {
    let mut text = String::new();
    let mut end = None;
    while let Some(event) = stream.next().await {
        assert!(end.is_none(), "an event after the terminal one: {event:?}");
        match event {
            Event::Delta(piece) => text.push_str(&piece),
            Event::Done(finish) => end = Some(Ok(finish)),
            Event::Failed(error) => end = Some(Err(error)),
        }
    }
    (text, end.expect("a terminal event"))
}

fn request(task: Task) -> GenerateRequest {
    GenerateRequest {
        client: ClientId::default(),
        id: RequestId::next(),
        task,
        sampling: Sampling::GREEDY,
        max_tokens: 64,
        stop: Vec::new(),
        effort: Effort::Low,
        priority: Priority::Tool,
    }
}

fn chat(text: &str) -> GenerateRequest {
    request(Task::Chat(ChatTask {
        system: Some("Be brief.".to_owned()),
        messages: vec![Message {
            role: Role::User,
            text: text.to_owned(),
        }],
        schema: None,
    }))
}

fn completion(prefix: &str, suffix: &str) -> GenerateRequest {
    request(Task::Complete(CompleteTask {
        path: Some("src/lib.rs".to_owned()),
        language: "rust".to_owned(),
        prefix: prefix.into(),
        suffix: suffix.into(),
        snippets: Vec::new(),
        shape: CompletionShape::Auto,
    }))
}
