//! The daemon's side, over a real socket, with a scripted model: greetings, requests, limits.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tandem::backend::scripted::{Script, ScriptedBackend};
use tandem::daemon::server::{Claim, Ended, Limits, OpenModel, ServerOptions, serve};
use tandem::daemon::wire::{
    FromDaemon, Protocols, ReportedBackend, SessionHello, ToDaemon, WireHealth,
};
use tandem::daemon::{Frame, HELLO_LIMIT, Place};
use tandem::inference::{Backend, BackendKind, ErrorKind, GenerateRequest, Health, Task};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::speaker::{BUILT, Speaker, build, hello, spec, until, within};

/// More text than any queue, buffer or pipe between a model and a session holds.
const FLOOD: usize = 20_000;

/// A daemon in this process.
pub struct Daemon {
    pub place: Place,
    pub served: JoinHandle<Ended>,
    models: Arc<Models>,
    pub drain: CancellationToken,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

/// What the daemon opened.
#[derive(Default)]
struct Models {
    opened: AtomicUsize,
    last: Mutex<Weak<ScriptedBackend>>,
}

/// `ScriptedBackend`, as the request's prefix says.
fn script(request: &GenerateRequest) -> Script {
    let Task::Complete(task) = &request.task else {
        panic!("a task of no test")
    };
    match &*task.prefix {
        "hang" => Script {
            hang: true,
            ..Script::text("begun")
        },
        "flood" => Script {
            pieces: vec!["x".repeat(4096); FLOOD],
            ..Script::text("")
        },
        "panic" => panic!("as the test wants"),
        text => Script::text(text),
    }
}

fn options(limits: Limits) -> ServerOptions {
    ServerOptions {
        build: build(BUILT),
        idle_exit: Duration::from_hours(1),
        limits,
    }
}

impl Daemon {
    pub fn start(limits: Limits) -> Self {
        Self::start_with(options(limits))
    }

    fn start_with(options: ServerOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::choose(Some(folder.path()), None).unwrap();
        let claim = Claim::take(&place).unwrap();
        let models = Arc::<Models>::default();
        let open: OpenModel = {
            let models = Arc::clone(&models);
            Arc::new(move |spec| {
                models.opened.fetch_add(1, Ordering::SeqCst);
                if spec.context_tokens == 0 {
                    return Err(std::io::Error::other("no thread"));
                }
                let backend = Arc::new(ScriptedBackend::new(BackendKind::Scripted, script));
                *models.last.lock().unwrap() = Arc::downgrade(&backend);
                Ok(backend as Arc<dyn Backend>)
            })
        };
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        let served = tokio::spawn(serve(claim, open, options, drain.clone(), stop.clone()));
        Self {
            place,
            served,
            models,
            drain,
            stop,
            _folder: folder,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.place.socket()
    }

    fn opened(&self) -> usize {
        self.models.opened.load(Ordering::SeqCst)
    }

    pub fn backend(&self) -> Arc<ScriptedBackend> {
        self.models.last.lock().unwrap().upgrade().unwrap()
    }

    /// Waits until the model has seen so many requests cancelled.
    async fn cancelled(&self, requests: usize) {
        let observed = self.backend().observed();
        until(|| observed.cancelled.load(Ordering::SeqCst) == requests).await;
    }

    pub async fn ended(&mut self) -> Ended {
        within(&mut self.served).await.unwrap()
    }
}

fn health_of(wanted: u32) -> impl Fn(FromDaemon) -> Option<WireHealth> {
    move |message| match message {
        FromDaemon::Health { model, health, .. } if model == wanted => Some(health),
        _ => None,
    }
}

#[tokio::test]
async fn a_session_is_greeted_told_the_health_and_answered() {
    let mut daemon = Daemon::start(Limits::default());
    let (mut session, greeting) = Speaker::greet(&daemon.socket(), hello("lsp")).await;
    assert_eq!((greeting.protocol, greeting.draining), (1, false));
    assert_eq!(greeting.pid, std::process::id());
    session
        .say(&ToDaemon::Open {
            model: 1,
            spec: spec(7),
        })
        .await;
    let health = session.hear_until(health_of(1)).await;
    assert!(matches!(health, WireHealth::Healthy { .. }), "{health:?}");
    session.ask(9, "grüß").await;
    let (text, end) = session.answer(9).await;
    assert_eq!(text, "grüß");
    assert_eq!(end.unwrap().usage.completion, 1);

    daemon.backend().publish(Health::Loading);
    assert_eq!(session.hear_until(health_of(1)).await, WireHealth::Loading);
    // A newer build's words are passed over.
    session.say_bytes(b"\0\0\0\x0e{\"say\":\"sing\"}").await;
    assert!(!session.status().await.draining);
    daemon.stop.cancel();
    assert_eq!(daemon.ended().await, Ended::Stopped);
}

/// A connection that begins with `bytes` is closed without a word.
async fn closed(bytes: &[u8], hello: Duration) {
    let daemon = Daemon::start(Limits {
        hello,
        ..Limits::default()
    });
    let mut session = Speaker::connect(&daemon.socket()).await;
    session.say_bytes(bytes).await;
    let said = session.rest().await;
    assert!(said.is_empty(), "{said:?}");
}

#[tokio::test]
async fn whoever_does_not_say_hello_is_closed() {
    let (patient, short) = (Duration::from_hours(1), Duration::from_millis(5));
    let status = Frame::new(&ToDaemon::Status).unwrap();
    closed(status.bytes(), patient).await;
    closed(b"\0\0\0\x02{]", patient).await;
    closed(b"GET / HTTP/1.1\r\n\r\n", patient).await;
    closed(&(HELLO_LIMIT as u32 + 1).to_be_bytes(), patient).await;
    closed(b"", short).await;
    closed(b"\0\0\0\x30{\"say\":", short).await;
}

#[tokio::test]
async fn a_protocol_that_is_not_ours_is_refused_with_the_next_step() {
    let daemon = Daemon::start(Limits::default());
    let mut session = Speaker::connect(&daemon.socket()).await;
    session
        .say(&ToDaemon::Hello(SessionHello {
            protocols: Protocols { min: 7, max: 9 },
            ..hello("lsp")
        }))
        .await;
    let said = session.rest().await;
    let [FromDaemon::Refused { why, next_step }] = &said[..] else {
        panic!("{said:?}")
    };
    assert!(why.contains("0.1.0"), "{why}");
    assert!(next_step.contains("Restart"), "{next_step}");
}

#[tokio::test]
async fn too_many_connections_are_refused() {
    let daemon = Daemon::start(Limits {
        connections: 1,
        ..Limits::default()
    });
    let (_first, _) = Speaker::greet(&daemon.socket(), hello("lsp")).await;
    let said = Speaker::connect(&daemon.socket()).await.rest().await;
    assert!(matches!(said[..], [FromDaemon::Refused { .. }]), "{said:?}");
}

#[tokio::test]
async fn only_a_newer_build_that_works_makes_a_daemon_leave() {
    let mut daemon = Daemon::start(Limits::default());
    let of = |built, works| SessionHello {
        build: build(built),
        works,
        ..hello("lsp")
    };
    let (mut older, greeting) = Speaker::greet(&daemon.socket(), of(BUILT - 1, true)).await;
    assert!(!greeting.draining);
    let (_curious, greeting) = Speaker::greet(&daemon.socket(), of(BUILT + 1, false)).await;
    assert!(!greeting.draining);
    let (mut newer, greeting) = Speaker::greet(&daemon.socket(), of(BUILT + 1, true)).await;
    assert!(greeting.draining);
    assert!(newer.rest().await.is_empty());
    let said = older.rest().await;
    assert!(matches!(said[..], [FromDaemon::Draining]), "{said:?}");
    assert_eq!(daemon.ended().await, Ended::Drained);
}

#[tokio::test]
async fn a_request_that_is_cancelled_ends_once_and_its_work_ends() {
    let daemon = Daemon::start(Limits::default());
    let mut session = Speaker::with_model(&daemon.socket(), spec(1)).await;
    session.ask(1, "hang").await;
    session
        .hear_until(|message| matches!(message, FromDaemon::Delta { .. }).then_some(()))
        .await;
    session.say(&ToDaemon::Cancel { id: 1 }).await;
    session.say(&ToDaemon::Cancel { id: 1 }).await;
    session.say(&ToDaemon::Cancel { id: 2 }).await;
    let (_, end) = session.answer(1).await;
    assert_eq!(end.unwrap_err().kind, ErrorKind::Cancelled);
    daemon.cancelled(1).await;
    session.ask(3, "more").await;
    let next = session.hear().await;
    assert!(
        matches!(next, Some(FromDaemon::Delta { id: 3, .. })),
        "{next:?}"
    );
}

#[tokio::test]
async fn the_work_of_a_session_ends_with_it() {
    let daemon = Daemon::start(Limits::default());
    let mut session = Speaker::with_model(&daemon.socket(), spec(1)).await;
    for id in [1, 2] {
        session.ask(id, "hang").await;
        session
            .hear_until(|message| matches!(message, FromDaemon::Delta { .. }).then_some(()))
            .await;
    }
    drop(session);
    daemon.cancelled(2).await;
}

#[tokio::test]
async fn signs_of_life_come_while_something_is_outstanding() {
    let daemon = Daemon::start(Limits {
        beat: Duration::from_millis(1),
        ..Limits::default()
    });
    let mut session = Speaker::with_model(&daemon.socket(), spec(1)).await;
    session.ask(1, "hang").await;
    for _ in 0..3 {
        session
            .hear_until(|message| matches!(message, FromDaemon::Beat).then_some(()))
            .await;
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_taken_fails_alone() {
    let daemon = Daemon::start(Limits {
        in_flight: 2,
        ..Limits::default()
    });
    let mut session = Speaker::with_model(&daemon.socket(), spec(1)).await;
    let fails = async |session: &mut Speaker, id: u64, kind: ErrorKind| {
        let (text, end) = session.answer(id).await;
        let error = end.unwrap_err();
        assert_eq!((&*text, error.kind), ("", kind), "{error:?}");
        assert!(error.next_step.ends_with('.'), "{error:?}");
    };
    let request = super::speaker::request("a");
    session
        .say(&ToDaemon::Generate {
            id: 1,
            model: 5,
            request,
        })
        .await;
    fails(&mut session, 1, ErrorKind::InvalidRequest).await;
    session.ask(2, "panic").await;
    fails(&mut session, 2, ErrorKind::Backend).await;
    for id in [3, 4] {
        session.ask(id, "hang").await;
        session
            .hear_until(|message| matches!(message, FromDaemon::Delta { .. }).then_some(()))
            .await;
    }
    session.ask(5, "one too many").await;
    fails(&mut session, 5, ErrorKind::Unavailable).await;
    session.ask(3, "again").await;
    fails(&mut session, 3, ErrorKind::InvalidRequest).await;
    session.say(&ToDaemon::Cancel { id: 4 }).await;
    fails(&mut session, 4, ErrorKind::Cancelled).await;
    session.ask(6, "room").await;
    assert_eq!(session.answer(6).await.0, "room");
}

#[tokio::test]
async fn sessions_that_want_the_same_share_it() {
    let daemon = Daemon::start(Limits::default());
    let mut sessions = Vec::new();
    for tokens in [1, 1, 2] {
        let mut session = Speaker::with_model(&daemon.socket(), spec(tokens)).await;
        session.hear_until(health_of(1)).await;
        sessions.push(session);
    }
    assert_eq!(daemon.opened(), 2);
    sessions[1]
        .say(&ToDaemon::Report {
            backends: vec![ReportedBackend {
                kind: BackendKind::Claude,
                model: "m".to_owned(),
                health: "healthy".to_owned(),
                breaker: "open".to_owned(),
            }],
        })
        .await;
    sessions[1].ask(1, "a").await;
    sessions[1].answer(1).await.1.unwrap();
    let status = sessions[0].status().await;
    let mut shared: Vec<_> = status
        .models
        .iter()
        .map(|model| (model.spec.context_tokens, model.sessions))
        .collect();
    shared.sort_unstable();
    assert_eq!(shared, [(1, 2), (2, 1)]);
    assert_eq!(status.sessions.len(), 2);
    assert_eq!(status.sessions[0].backends[0].breaker, "open");
    assert_eq!(status.sessions[0].requests, 1);
    assert_eq!(status.pid, std::process::id());
    if cfg!(target_os = "linux") {
        assert!(status.resident_bytes.unwrap() > 1 << 20, "{status:?}");
    }
}

#[tokio::test]
async fn a_model_that_nobody_has_open_is_kept_while_it_is_loaded() {
    let daemon = Daemon::start(Limits {
        models: 1,
        ..Limits::default()
    });
    let mut first = Speaker::with_model(&daemon.socket(), spec(1)).await;
    first.hear_until(health_of(1)).await;
    let mut other = Speaker::with_model(&daemon.socket(), spec(2)).await;
    let health = other.hear_until(health_of(1)).await;
    assert!(matches!(health, WireHealth::Failed { .. }), "{health:?}");
    other.ask(1, "a").await;
    let (_, end) = other.answer(1).await;
    assert_eq!(end.unwrap_err().kind, ErrorKind::Unavailable);

    // Loaded, it outlives its session.
    drop(first);
    let mut curious = Speaker::with_model(&daemon.socket(), spec(1)).await;
    curious.hear_until(health_of(1)).await;
    assert_eq!(daemon.opened(), 1);
    let weak = daemon.models.last.lock().unwrap().clone();
    daemon.backend().publish(Health::Unloaded);
    assert_eq!(curious.hear_until(health_of(1)).await, WireHealth::Unloaded);
    assert!(weak.upgrade().is_some());
    drop(curious);
    until(|| weak.upgrade().is_none()).await;

    // And a loaded one makes room for one that is wanted.
    let mut second = Speaker::with_model(&daemon.socket(), spec(2)).await;
    second.hear_until(health_of(1)).await;
    let weak = daemon.models.last.lock().unwrap().clone();
    drop(second);
    while !other
        .status()
        .await
        .models
        .iter()
        .all(|model| model.sessions == 0)
    {}
    other
        .say(&ToDaemon::Open {
            model: 1,
            spec: spec(3),
        })
        .await;
    let health = other.hear_until(health_of(1)).await;
    assert!(matches!(health, WireHealth::Healthy { .. }), "{health:?}");
    until(|| weak.upgrade().is_none()).await;
}

#[tokio::test]
async fn a_model_that_cannot_be_opened_says_why_and_is_tried_again() {
    let daemon = Daemon::start(Limits::default());
    let mut session = Speaker::with_model(&daemon.socket(), spec(0)).await;
    let health = session.hear_until(health_of(1)).await;
    let WireHealth::Failed { error, .. } = health else {
        panic!("{health:?}")
    };
    assert!(error.contains("no thread"), "{error}");
    session.ask(1, "a").await;
    let (_, end) = session.answer(1).await;
    assert_eq!(end.unwrap_err().kind, ErrorKind::Unavailable);
    let mut again = Speaker::with_model(&daemon.socket(), spec(0)).await;
    again.hear_until(health_of(1)).await;
    assert_eq!(daemon.opened(), 2);
}

#[tokio::test]
async fn a_session_that_does_not_read_holds_up_itself_alone() {
    let daemon = Daemon::start(Limits::default());
    let mut slow = Speaker::with_model(&daemon.socket(), spec(1)).await;
    slow.ask(1, "flood").await;
    let mut other = Speaker::with_model(&daemon.socket(), spec(1)).await;
    for id in 1..20 {
        other.ask(id, "quick").await;
        assert_eq!(other.answer(id).await.0, "quick");
    }
    let backend = daemon.backend();
    let pieces = backend.observed().pieces.load(Ordering::SeqCst);
    assert!(pieces < FLOOD, "{pieces}");
    // It loses nothing by that.
    let (text, end) = slow.answer(1).await;
    assert_eq!((text.len(), end.is_ok()), (FLOOD * 4096, true));
}

#[tokio::test]
async fn a_session_that_never_reads_is_given_up() {
    let daemon = Daemon::start(Limits {
        stalled: Duration::from_millis(20),
        ..Limits::default()
    });
    let mut slow = Speaker::with_model(&daemon.socket(), spec(1)).await;
    slow.hear_until(health_of(1)).await;
    slow.ask(1, "flood").await;
    daemon.cancelled(1).await;
}

#[tokio::test]
async fn a_large_piece_comes_in_parts_of_whole_characters() {
    let daemon = Daemon::start(Limits::default());
    let mut session = Speaker::with_model(&daemon.socket(), spec(1)).await;
    let large = "€".repeat(5000);
    session.ask(1, &large).await;
    let (text, end) = session.answer(1).await;
    assert!(end.is_ok());
    assert_eq!(text, large);
}
