//! Tests: Claude, against a server that speaks the Messages API and can be told to fail.

mod faults;
mod keys;
mod limits;
#[path = "../clients/claude/messages_api/mod.rs"]
pub mod messages_api;
mod requests;
mod spend;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tandem::backend::claude::ClaudeBackend;
use tandem::config::{ApiKey, Settings};
use tandem::inference::{
    Backend, ChatTask, ClientId, CompleteTask, CompletionShape, Effort, Event, Finish,
    GenerateError, GenerateRequest, Message, Priority, RequestId, Role, Sampling, Task,
    TokenStream,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::messages_api::http::Response;
use self::messages_api::reply::{self, Say};
use self::messages_api::{Asked, Counts, StandIn};

const KEY: &str = "sk-ant-it-7f3a9c";

/// A backend, what it talks to, and what it is told.
struct Rig {
    server: StandIn,
    backend: ClaudeBackend,
    settings: watch::Sender<Arc<Settings>>,
    state: TempDir,
}

impl Rig {
    async fn new(answer: impl Fn(&Asked<'_>) -> Response + Send + Sync + 'static) -> Self {
        let server = serve(answer).await;
        let mut settings = Settings::default();
        settings.claude.api_key = ApiKey::new(KEY);
        settings.claude.base_url = server.base_url();
        // A loaded machine must not run into these by itself; tests of a limit lower it.
        settings.claude.first_byte_timeout = Duration::from_secs(10);
        settings.claude.idle_timeout = Duration::from_secs(10);
        let settings = watch::Sender::new(Arc::new(settings));
        let state = tempfile::tempdir().unwrap();
        let backend = ClaudeBackend::new(settings.subscribe(), Some(state.path().to_owned()));
        Self {
            server,
            backend,
            settings,
            state,
        }
    }

    async fn saying(text: &'static str) -> Self {
        Self::new(move |asked| said(asked, &Say::text(text))).await
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

    async fn until(&self, enough: impl Fn(&Counts) -> bool) -> Counts {
        let mut counts = self.server.counts();
        let reached = counts.wait_for(enough);
        *tokio::time::timeout(Duration::from_secs(20), reached)
            .await
            .expect("the server saw what it should")
            .expect("the server lives")
    }
}

async fn serve(answer: impl Fn(&Asked<'_>) -> Response + Send + Sync + 'static) -> StandIn {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    StandIn::serve(address, KEY, answer).await.unwrap()
}

fn said(asked: &Asked<'_>, say: &Say) -> Response {
    reply::stream(reply::events(asked.body, asked.usage, say))
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

fn request(task: Task, effort: Effort) -> GenerateRequest {
    GenerateRequest {
        client: ClientId::default(),
        id: RequestId::next(),
        task,
        sampling: Sampling::GREEDY,
        max_tokens: 64,
        stop: Vec::new(),
        effort,
        priority: Priority::Tool,
    }
}

fn chat(text: &str) -> GenerateRequest {
    let task = ChatTask {
        system: Some("Be brief.".to_owned()),
        messages: vec![Message {
            role: Role::User,
            text: text.to_owned(),
        }],
        schema: None,
    };
    request(Task::Chat(task), Effort::Low)
}

fn completion(prefix: &str, suffix: &str) -> GenerateRequest {
    let task = CompleteTask {
        path: Some("src/lib.rs".to_owned()),
        language: "rust".to_owned(),
        prefix: prefix.into(),
        suffix: suffix.into(),
        snippets: Vec::new(),
        shape: CompletionShape::Auto,
    };
    request(Task::Complete(task), Effort::Low)
}
