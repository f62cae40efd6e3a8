//! The router over scripted backends, on a paused clock: who answers, what falls back, what ends.

mod ahead;
mod last_resort;
mod schema;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::config::{Mode, Settings};
use tandem::inference::{
    Backend, BackendKind, ChatTask, ClientId, CompleteTask, CompletionShape, Descriptor, EditTask,
    Effort, EmptyReason, ErrorKind, GenerateError, GenerateRequest, Health, Message, Placement,
    Priority, RequestId, Role, RouteReason, Sampling, Task, TokenStream,
};
use tandem::router::{
    Answer, Backends, NoAnswer, Origin, RouteRequest, RoutedEvent, RoutedStream, Router,
};
use tandem::telemetry::Outcome;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_hours(1); // longer than anything here takes

pub struct World {
    pub router: Arc<Router>,
    pub settings: watch::Sender<Arc<Settings>>,
    pub local: Option<Arc<ScriptedBackend>>,
    pub embedded: Option<Arc<ScriptedBackend>>,
    pub server: Option<Arc<ScriptedBackend>>,
    pub claude: Option<Arc<ScriptedBackend>>,
}

impl World {
    pub fn new(
        settings: Settings,
        local: Option<ScriptedBackend>,
        embedded: Option<ScriptedBackend>,
        claude: Option<ScriptedBackend>,
    ) -> Self {
        Self::with_server(settings, local, embedded, None, claude)
    }

    pub fn with_server(
        settings: Settings,
        local: Option<ScriptedBackend>,
        embedded: Option<ScriptedBackend>,
        server: Option<ScriptedBackend>,
        claude: Option<ScriptedBackend>,
    ) -> Self {
        let backends = [local, embedded, server, claude];
        let [local, embedded, server, claude] = backends.map(|one| one.map(Arc::new));
        let (sender, receiver) = watch::channel(Arc::new(settings));
        let backends = Backends {
            local: local.clone().map(|one| one as _),
            embedded: embedded.clone().map(|one| one as _),
            server: server.clone().map(|one| one as _),
            claude: claude.clone().map(|one| one as _),
        };
        let router = Arc::new(Router::new(receiver, backends));
        Self {
            router,
            settings: sender,
            local,
            embedded,
            server,
            claude,
        }
    }

    pub fn route(&self, request: RouteRequest) -> RoutedStream {
        self.router.route(request, &CancellationToken::new())
    }

    pub async fn ask(&self, request: RouteRequest) -> Result<Answer, NoAnswer> {
        self.route(request).collect_within(LIMIT, |_| {}).await
    }
}

pub fn started(backend: Option<&Arc<ScriptedBackend>>) -> usize {
    backend.map_or(0, |one| one.observed().started.load(Ordering::SeqCst))
}

pub fn local(text: &str) -> ScriptedBackend {
    ScriptedBackend::saying(BackendKind::Candle, text)
}

pub fn embedded(text: &str) -> ScriptedBackend {
    ScriptedBackend::saying(BackendKind::Embedded, text)
}

pub fn claude(text: &str) -> ScriptedBackend {
    ScriptedBackend::saying(BackendKind::Claude, text)
}

pub fn failing(kind: BackendKind, error: ErrorKind) -> ScriptedBackend {
    ScriptedBackend::new(kind, move |_| {
        Script::failure(GenerateError::new(error, "it broke", "Mend it."))
    })
}

pub fn request(task: Task) -> RouteRequest {
    RouteRequest {
        generate: GenerateRequest {
            client: ClientId::default(),
            id: RequestId::next(),
            task,
            sampling: Sampling::GREEDY,
            max_tokens: 64,
            stop: Vec::new(),
            effort: Effort::Low,
            priority: Priority::Inline,
        },
        origin: Origin {
            file: Some(PathBuf::from("/project/space/src/main.rs")),
            workspace: Some(PathBuf::from("/project/space")),
            document: Some("main.rs".into()),
            ..Origin::default()
        },
    }
}

pub fn complete(prefix: &str, suffix: &str) -> RouteRequest {
    request(Task::Complete(CompleteTask {
        path: Some("src/main.rs".into()),
        language: "rust".into(),
        prefix: prefix.into(),
        suffix: suffix.into(),
        snippets: Vec::new(),
        shape: CompletionShape::Auto,
    }))
}

pub fn automatic(prefix: &str) -> RouteRequest {
    let mut request = complete(prefix, "");
    request.origin.automatic = true;
    request.origin.rest = Duration::from_millis(75);
    request
}

pub fn chat(text: &str) -> RouteRequest {
    let mut request = request(Task::Chat(ChatTask {
        system: None,
        messages: vec![Message {
            role: Role::User,
            text: text.into(),
        }],
        schema: None,
    }));
    request.generate.priority = Priority::Tool;
    request
}

pub fn edit(selection: &str) -> RouteRequest {
    let mut request = request(Task::Edit(EditTask {
        path: None,
        language: "rust".into(),
        before: "".into(),
        selection: selection.into(),
        after: "".into(),
        instruction: "improve".into(),
    }));
    request.generate.priority = Priority::Tool;
    request
}

pub fn with_mode(mode: Mode) -> Settings {
    Settings {
        mode,
        ..Settings::default()
    }
}

fn who(answer: &Result<Answer, NoAnswer>) -> Option<(BackendKind, RouteReason)> {
    match answer {
        Ok(answer) => Some(&answer.attribution),
        Err(no_answer) => no_answer.attribution.as_ref(),
    }
    .map(|who| (who.backend, who.reason))
}

#[tokio::test(start_paused = true)]
async fn light_requests_stay_on_the_device() {
    let world = World::new(
        Settings::default(),
        Some(local("1;")),
        Some(embedded("2;")),
        Some(claude("3;")),
    );
    for request in [complete("let x = ", ""), chat("hi"), edit("x")] {
        let answer = world.ask(request).await;
        assert_eq!(
            who(&answer),
            Some((BackendKind::Candle, RouteReason::LocalHealthy))
        );
    }
    assert_eq!(started(world.claude.as_ref()), 0);
    assert_eq!(started(world.embedded.as_ref()), 0);
}

#[tokio::test(start_paused = true)]
async fn heavy_requests_go_to_claude_and_fall_back_to_the_device() {
    let world = World::new(
        Settings::default(),
        Some(local("here")),
        None,
        Some(failing(BackendKind::Claude, ErrorKind::Timeout)),
    );
    let mut request = chat("think");
    request.generate.effort = Effort::High;
    let answer = world.ask(request).await;
    assert_eq!(
        who(&answer),
        Some((BackendKind::Candle, RouteReason::FellBack))
    );
    let decisions = world.router.decisions();
    let decision = decisions.last().unwrap();
    assert_eq!(decision.outcome, Outcome::Answered);
    assert_eq!(decision.failed_attempts.len(), 1);
    assert_eq!(decision.failed_attempts[0].backend, BackendKind::Claude);
    assert_eq!(decision.failed_attempts[0].error, ErrorKind::Timeout);
    assert_eq!(decision.failed_attempts[0].reason, RouteReason::HeavyEffort);
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_the_first_text_never_changes_the_author() {
    let local = ScriptedBackend::new(BackendKind::Candle, |_| Script {
        pieces: vec!["half ".into()],
        pause: Duration::ZERO,
        failure: Some(GenerateError::new(
            ErrorKind::Backend,
            "it broke",
            "Mend it.",
        )),
        hang: false,
    });
    let world = World::new(
        Settings::default(),
        Some(local),
        None,
        Some(claude("other")),
    );
    let mut stream = world.route(chat("hi"));
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event);
    }
    assert!(
        matches!(&events[0], RoutedEvent::Attributed(who) if who.backend == BackendKind::Candle)
    );
    assert_eq!(events[1], RoutedEvent::Delta("half ".into()));
    assert!(matches!(&events[2], RoutedEvent::Failed(error) if error.kind == ErrorKind::Backend));
    assert_eq!(events.len(), 3);
    assert_eq!(started(world.claude.as_ref()), 0);
}

#[tokio::test(start_paused = true)]
async fn local_only_asks_nobody_else_and_says_what_to_do() {
    let world = World::new(
        with_mode(Mode::LocalOnly),
        Some(failing(BackendKind::Candle, ErrorKind::Backend)),
        Some(embedded("2;")),
        Some(claude("3;")),
    );
    let answer = world.ask(complete("let x = ", "")).await;
    let fell_back = (BackendKind::Embedded, RouteReason::FellBack);
    assert_eq!(who(&answer), Some(fell_back));
    let no_answer = world.ask(chat("hi")).await.unwrap_err();
    assert_eq!(no_answer.empty, None);
    assert_eq!(no_answer.error.unwrap().kind, ErrorKind::Backend);
    assert_eq!(started(world.claude.as_ref()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_loads_is_waited_for_only_if_nobody_else_may_answer() {
    let loading = local("local");
    loading.publish(Health::Loading);
    let world = World::new(
        with_mode(Mode::LocalOnly),
        Some(loading),
        Some(embedded("2;")),
        None,
    );
    let answer = world.ask(complete("let x = ", "")).await;
    assert_eq!(
        who(&answer),
        Some((BackendKind::Embedded, RouteReason::LocalLoading))
    );
    let answer = world.ask(chat("hi")).await;
    assert_eq!(
        who(&answer),
        Some((BackendKind::Candle, RouteReason::LocalLoading))
    );
}

#[tokio::test(start_paused = true)]
async fn without_any_model_a_completion_is_empty_and_a_chat_says_what_to_configure() {
    let world = World::new(Settings::default(), None, None, None);
    let no_answer = world.ask(complete("let x = ", "")).await.unwrap_err();
    assert_eq!(no_answer.empty, Some(EmptyReason::NoBackend));
    assert!(no_answer.error.unwrap().next_step.contains("local.model"));
    let no_answer = world.ask(chat("hi")).await.unwrap_err();
    assert_eq!(no_answer.empty, None);
    let error = no_answer.error.unwrap();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.next_step.contains("ANTHROPIC_API_KEY"));
}

#[tokio::test(start_paused = true)]
async fn an_older_automatic_request_for_the_document_is_superseded() {
    let slow = ScriptedBackend::new(BackendKind::Candle, |_| Script {
        pieces: vec!["1;".into()],
        pause: Duration::from_secs(1),
        failure: None,
        hang: false,
    });
    let world = World::new(Settings::default(), Some(slow), None, None);
    let first = world.route(automatic("let x = "));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = world.route(automatic("let xy = "));
    let first = first.collect_within(LIMIT, |_| {}).await.unwrap_err();
    assert_eq!(first.empty, Some(EmptyReason::Superseded));
    assert_eq!(
        second.collect_within(LIMIT, |_| {}).await.unwrap().text,
        "1;"
    );
    let observed = world.local.as_ref().unwrap().observed();
    assert_eq!(observed.cancelled.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn typing_on_within_the_debounce_computes_nothing() {
    let world = World::new(Settings::default(), Some(local("1;")), None, None);
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(world.route(automatic("let x = ")));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let last = waiting.pop().unwrap();
    assert!(last.collect_within(LIMIT, |_| {}).await.is_ok());
    for older in waiting {
        let no_answer = older.collect_within(LIMIT, |_| {}).await.unwrap_err();
        assert_eq!(no_answer.empty, Some(EmptyReason::Superseded));
    }
    assert_eq!(started(world.local.as_ref()), 1);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_stops_the_backend() {
    let slow = ScriptedBackend::new(BackendKind::Candle, |_| Script {
        pieces: vec!["a".into()],
        pause: Duration::ZERO,
        failure: None,
        hang: true,
    });
    let world = World::new(Settings::default(), Some(slow), None, None);
    let mut stream = world.route(chat("hi"));
    while !matches!(stream.next().await, Some(RoutedEvent::Delta(_))) {}
    drop(stream);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let observed = world.local.as_ref().unwrap().observed();
    assert_eq!(observed.cancelled.load(Ordering::SeqCst), 1);
    let decisions = world.router.decisions();
    assert_eq!(decisions[0].outcome, Outcome::Failed(ErrorKind::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn a_local_model_that_keeps_failing_is_left_alone_and_tried_again_later() {
    let world = World::new(
        Settings::default(),
        Some(failing(BackendKind::Candle, ErrorKind::Backend)),
        None,
        Some(claude("1;")),
    );
    let mut changes = world.router.watch_status();
    let breaker = || world.router.status()[0].breaker;
    for _ in 0..3 {
        let answer = world.ask(complete("let x = ", "")).await;
        assert_eq!(
            who(&answer),
            Some((BackendKind::Claude, RouteReason::FellBack))
        );
    }
    changes.changed().await;
    assert_eq!(breaker(), "open");
    let answer = world.ask(complete("let x = ", "")).await;
    assert_eq!(
        who(&answer),
        Some((BackendKind::Claude, RouteReason::LocalFailed))
    );
    assert_eq!(started(world.local.as_ref()), 3);
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(breaker(), "half-open");
    world.ask(complete("let x = ", "")).await.unwrap();
    assert_eq!(started(world.local.as_ref()), 4);
    assert_eq!(breaker(), "open");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_backends_fault_neither_opens_its_breaker_nor_falls_back() {
    for kind in [ErrorKind::InvalidRequest, ErrorKind::Refused] {
        let world = World::new(
            Settings::default(),
            Some(failing(BackendKind::Candle, kind)),
            None,
            Some(claude("1;")),
        );
        for _ in 0..5 {
            let no_answer = world.ask(chat("hi")).await.unwrap_err();
            assert_eq!(no_answer.error.unwrap().kind, kind);
        }
        assert_eq!(started(world.local.as_ref()), 5);
        assert_eq!(started(world.claude.as_ref()), 0);
        assert_eq!(world.router.status()[0].breaker, "closed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reached_spend_cap_is_remembered_for_a_while() {
    let world = World::new(
        Settings::default(),
        None,
        Some(embedded("2;")),
        Some(failing(BackendKind::Claude, ErrorKind::SpendCap)),
    );
    for _ in 0..3 {
        let answer = world.ask(complete("let x = ", "")).await;
        assert_eq!(who(&answer).unwrap().0, BackendKind::Embedded);
    }
    assert_eq!(started(world.claude.as_ref()), 1);
    let no_answer = world.ask(chat("hi")).await.unwrap_err();
    assert_eq!(no_answer.error.unwrap().kind, ErrorKind::SpendCap);
    tokio::time::advance(Duration::from_mins(2)).await;
    world.ask(complete("let x = ", "")).await.unwrap();
    assert_eq!(started(world.claude.as_ref()), 2);
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_error_names_each() {
    let world = World::new(
        Settings::default(),
        Some(failing(BackendKind::Candle, ErrorKind::Backend)),
        None,
        Some(failing(BackendKind::Claude, ErrorKind::Timeout)),
    );
    let no_answer = world.ask(chat("hi")).await.unwrap_err();
    let error = no_answer.error.unwrap();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert_eq!(error.message, "candle: it broke; claude: it broke");
    assert_eq!(
        no_answer.attribution.unwrap().backend,
        BackendKind::Claude,
        "who was asked last"
    );
    let no_answer = world.ask(complete("a", "")).await.unwrap_err();
    assert_eq!(no_answer.empty, Some(EmptyReason::BackendFailed));
    assert!(no_answer.error.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_keeps_what_there_is_and_stops_the_backend() {
    let slow = || {
        ScriptedBackend::new(BackendKind::Candle, |_| Script {
            pieces: vec!["one ".into(), "two ".into(), "three".into()],
            pause: Duration::from_secs(1),
            failure: None,
            hang: true,
        })
    };
    let world = World::new(Settings::default(), Some(slow()), None, None);
    let limit = Duration::from_millis(2500);
    let mut heard = String::new();
    let answer = world
        .route(chat("hi"))
        .collect_within(limit, |text| heard.push_str(text))
        .await
        .unwrap();
    assert_eq!(
        (answer.text.as_str(), heard.as_str()),
        ("one two ", "one two ")
    );
    assert_eq!(answer.finish, None);
    let no_answer = world
        .route(complete("let x = ", ""))
        .collect_within(Duration::from_millis(500), |_| {})
        .await
        .unwrap_err();
    assert_eq!(no_answer.empty, Some(EmptyReason::BackendFailed));
    assert_eq!(no_answer.error.unwrap().kind, ErrorKind::Timeout);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let observed = world.local.as_ref().unwrap().observed();
    assert_eq!(observed.cancelled.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_has_enough_stops_its_backend() {
    let chatty = ScriptedBackend::new(BackendKind::Candle, |_| Script {
        pieces: ["1;\n", "let y = 2;\n", "let z = 3;\n"]
            .map(String::from)
            .to_vec(),
        pause: Duration::from_millis(10),
        failure: None,
        hang: true,
    });
    let world = World::new(Settings::default(), Some(chatty), None, None);
    let answer = world.ask(complete("let x = ", "")).await.unwrap();
    assert_eq!(answer.text, "1;");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let observed = world.local.as_ref().unwrap().observed();
    assert_eq!(observed.cancelled.load(Ordering::SeqCst), 1);
    assert!(observed.pieces.load(Ordering::SeqCst) < 3);
}

#[tokio::test(start_paused = true)]
async fn settings_that_change_are_followed() {
    let world = World::new(
        with_mode(Mode::LocalOnly),
        None,
        None,
        Some(claude("hello")),
    );
    assert!(world.ask(chat("hi")).await.is_err());
    world.settings.send_replace(Arc::new(with_mode(Mode::Auto)));
    assert!(world.ask(chat("hi")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_written_with_its_figures() {
    let slow = ScriptedBackend::new(BackendKind::Candle, |_| Script {
        pieces: vec!["a".into(), "b".into()],
        pause: Duration::from_millis(20),
        failure: None,
        hang: false,
    });
    let world = World::new(Settings::default(), Some(slow), None, None);
    world.ask(chat("hi")).await.unwrap();
    let decision = serde_json::to_value(world.router.decisions().pop().unwrap()).unwrap();
    assert_eq!(decision["task"], "chat");
    assert_eq!(decision["outcome"], "answered");
    assert_eq!(decision["attribution"]["reason"], "local-healthy");
    assert_eq!(decision["took_ms"], 40.0);
    assert_eq!(decision["first_token_ms"], 20.0);
    assert_eq!(decision["tokens"]["completion_tokens"], 2);
    // Some day of the year 2020 or later.
    assert!(decision["at_unix_ms"].as_u64().unwrap() > 1_577_836_800_000);
}

/// Publishes its health while it is asked where it runs, as a worker may on its own thread.
struct Publishing {
    descriptor: Descriptor,
    health: watch::Sender<Health>,
}

impl Backend for Publishing {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn placement(&self) -> Option<Placement> {
        self.health.send_replace(Health::Loading);
        Some(Placement::default())
    }

    fn generate(&self, _: GenerateRequest, _: CancellationToken) -> TokenStream {
        TokenStream::failed(GenerateError::cancelled())
    }
}

#[test]
fn the_status_holds_nothing_that_a_backend_needs_to_publish() {
    let backend = Publishing {
        descriptor: Descriptor {
            kind: BackendKind::Candle,
            model: "publishing".to_owned(),
            context_tokens: 4096,
        },
        health: watch::Sender::new(Health::Unloaded),
    };
    let backends = Backends {
        local: Some(Arc::new(backend)),
        ..Backends::default()
    };
    let (_settings, settings) = watch::channel(Arc::default());
    let (done, told) = std::sync::mpsc::channel();
    // On a thread of its own, since what is looked for is a thread that never comes back.
    std::thread::spawn(move || {
        let before = Router::new(settings, backends).status().remove(0).health;
        let _ = done.send(before);
    });
    let before = told.recv_timeout(Duration::from_mins(1));
    assert_eq!(before, Ok(Health::Unloaded));
}
