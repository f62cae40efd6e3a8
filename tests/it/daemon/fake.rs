//! A daemon that a test plays by hand, frame by frame, and the sessions that it plays with.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tandem::backend::scripted::ScriptedBackend;
use tandem::config::LocalSettings;
use tandem::daemon::client::{Limits, Link, LinkOptions, OnCrash, SharedBackend};
use tandem::daemon::wire::{
    DaemonHello, FromDaemon, PROTOCOLS, SessionHello, ToDaemon, WireError, WireFinish, WireHealth,
    WireRequest, WireUsage,
};
use tandem::daemon::{Build, Frame, LIMIT, ModelSpec, Place, StartCommand, read};
use tandem::inference::{
    Backend, BackendKind, ChatTask, ClientId, Descriptor, Effort, ErrorKind, GenerateRequest,
    Health, Message, Priority, RequestId, Role, Sampling, Task, TokenStream,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Longer than any test, for what must not end by itself.
pub const NEVER: Duration = Duration::from_hours(1);

/// What a model says that was opened in the session.
pub const FROM_HERE: &str = "from here";

/// Limits under which nothing ends by itself and nothing is waited for.
pub fn limits() -> Limits {
    Limits {
        hello: NEVER,
        silence: NEVER,
        lock: NEVER,
        ready: NEVER,
        settle: Duration::ZERO,
        retry: (Duration::ZERO, Duration::ZERO),
        window: NEVER,
        pause: (NEVER, NEVER),
    }
}

/// The build `number`, in the order of the numbers.
pub fn build(number: u64) -> Build {
    Build {
        version: "0.1.0".to_owned(),
        built_unix_ms: number,
    }
}

/// The place in `folder`.
pub fn place(folder: &Path) -> Place {
    Place::choose(Some(folder), None).unwrap()
}

/// A folder, and the daemon that listens in it.
pub struct Fake {
    folder: tempfile::TempDir,
    pub place: Place,
    listener: UnixListener,
}

/// One connection, seen from the daemon.
pub struct Seat {
    stream: UnixStream,
    pub hello: SessionHello,
    opened: HashSet<u32>,
}

/// A session's link with its counts.
pub struct Session {
    pub link: Arc<Link>,
    /// How often a model was opened in the session.
    pub opened_here: Arc<AtomicUsize>,
}

impl Fake {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        place.prepare().unwrap();
        let listener = UnixListener::bind(place.socket()).unwrap();
        Self {
            folder,
            place,
            listener,
        }
    }

    /// Stops listening; the place is kept.
    pub fn hang_up(self) -> (tempfile::TempDir, Place) {
        std::fs::remove_file(self.place.socket()).unwrap();
        (self.folder, self.place)
    }

    /// The next connection, greeted.
    pub async fn accept(&self) -> Seat {
        self.accept_as(build(1), false).await
    }

    /// The next connection, greeted by a daemon of `build`.
    pub async fn accept_as(&self, build: Build, draining: bool) -> Seat {
        self.accept_with(FromDaemon::Hello(DaemonHello {
            protocol: PROTOCOLS.max,
            build,
            pid: std::process::id(),
            draining,
        }))
        .await
    }

    /// The next connection, whose hello is answered by `first`.
    pub async fn accept_with(&self, first: FromDaemon) -> Seat {
        let mut stream = self.listener.accept().await.unwrap().0;
        let said = read(&mut stream, LIMIT).await.unwrap();
        let Some(ToDaemon::Hello(hello)) = said else {
            panic!("{said:?}")
        };
        let mut seat = Seat {
            stream,
            hello,
            opened: HashSet::new(),
        };
        seat.say(first).await;
        seat
    }

    /// A session that finds this daemon and can start none.
    pub fn session(&self) -> Session {
        Session::new(&self.place, Some(says_ready()), limits())
    }
}

impl Seat {
    pub async fn say(&mut self, message: FromDaemon) {
        let frame = Frame::new(&message).unwrap();
        self.stream.write_all(frame.bytes()).await.unwrap();
    }

    /// What the session says next; `None` when it hung up.
    pub async fn hear(&mut self) -> Option<ToDaemon> {
        read(&mut self.stream, LIMIT).await.unwrap()
    }

    /// The next message that is about requests or loading. What it is about was opened before, once.
    pub async fn hear_work(&mut self) -> Option<ToDaemon> {
        loop {
            let message = self.hear().await?;
            match &message {
                ToDaemon::Open { model, .. } => {
                    assert!(self.opened.insert(*model), "opened twice: {model}");
                }
                ToDaemon::Report { .. } => {}
                ToDaemon::Generate { model, .. } | ToDaemon::WarmUp { model } => {
                    assert!(self.opened.contains(model), "not opened: {model}");
                    return Some(message);
                }
                _ => return Some(message),
            }
        }
    }

    /// The next request: its number, its model, and what it asks.
    pub async fn asked(&mut self) -> (u64, u32, WireRequest) {
        match self.hear_work().await {
            Some(ToDaemon::Generate { id, model, request }) => (id, model, *request),
            other => panic!("{other:?}"),
        }
    }

    pub async fn delta(&mut self, id: u64, text: &str) {
        let text = text.to_owned();
        self.say(FromDaemon::Delta { id, text }).await;
    }

    pub async fn done(&mut self, id: u64) {
        let finish = WireFinish {
            cut: false,
            usage: usage(),
            model: None,
        };
        self.say(FromDaemon::Done { id, finish }).await;
    }

    pub async fn failed(&mut self, id: u64, kind: ErrorKind) {
        let error = WireError {
            kind,
            message: "no".to_owned(),
            next_step: "Wait.".to_owned(),
            retry_after_ms: None,
        };
        self.say(FromDaemon::Failed { id, error }).await;
    }

    /// Answers the next request whole.
    pub async fn answer(&mut self, text: &str) {
        let (id, _, _) = self.asked().await;
        self.delta(id, text).await;
        self.done(id).await;
    }

    pub async fn health(&mut self, model: u32, health: WireHealth) {
        self.say(FromDaemon::Health {
            model,
            health,
            placement: None,
        })
        .await;
    }
}

impl Session {
    pub fn new(place: &Place, start: Option<StartCommand>, limits: Limits) -> Self {
        Self::of(place, start, limits, build(1))
    }

    /// A session of `build`.
    pub fn of(place: &Place, start: Option<StartCommand>, limits: Limits, build: Build) -> Self {
        let link = Link::new(LinkOptions {
            place: place.clone(),
            build,
            name: "test".to_owned(),
            start,
            limits,
        });
        Self {
            link,
            opened_here: Arc::default(),
        }
    }

    /// A model behind the link.
    pub fn backend(&self, crash: OnCrash) -> SharedBackend {
        let opened = Arc::clone(&self.opened_here);
        SharedBackend::new(
            Arc::clone(&self.link),
            ModelSpec::new(Some(Path::new("/m.gguf")), &LocalSettings::default()).unwrap(),
            Descriptor {
                kind: BackendKind::Candle,
                model: "m".to_owned(),
                context_tokens: 4096,
            },
            Health::Unloaded,
            None,
            Box::new(move || {
                opened.fetch_add(1, Ordering::Relaxed);
                let backend = ScriptedBackend::saying(BackendKind::Candle, FROM_HERE);
                Ok(Arc::new(backend))
            }),
            crash,
        )
    }

    pub fn opened_here(&self) -> usize {
        self.opened_here.load(Ordering::Relaxed)
    }
}

/// Starts nothing, and says that it did.
pub fn says_ready() -> StartCommand {
    shell("printf R")
}

/// A daemon that is this much of a shell script.
pub fn shell(script: &str) -> StartCommand {
    StartCommand {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: Vec::new(),
    }
}

pub fn usage() -> WireUsage {
    WireUsage {
        prompt: 9,
        cached: 8,
        completion: 7,
    }
}

/// A question.
pub fn question(text: &str) -> GenerateRequest {
    GenerateRequest {
        client: ClientId::default(),
        id: RequestId::next(),
        task: Task::Chat(ChatTask {
            system: None,
            messages: vec![Message {
                role: Role::User,
                text: text.to_owned(),
            }],
            schema: None,
        }),
        sampling: Sampling::GREEDY,
        max_tokens: 64,
        stop: Vec::new(),
        effort: Effort::Low,
        priority: Priority::Tool,
    }
}

/// Asks a question.
pub fn ask(backend: &dyn Backend) -> TokenStream {
    backend.generate(question("hi"), CancellationToken::new())
}

/// Waits until the health is such.
pub async fn healthy(backend: &dyn Backend, wanted: impl FnMut(&Health) -> bool) {
    backend.health().wait_for(wanted).await.unwrap();
}
