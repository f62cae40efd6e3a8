//! A session that says what a test has it say, frame by frame.

use std::io::ErrorKind::{ConnectionRefused, NotFound};
use std::path::Path;
use std::time::Duration;

use tandem::config::{BundleRuntime, ComputeDevice, ComputeEngine};
use tandem::daemon::wire::{
    DaemonHello, DaemonStatus, FromDaemon, PROTOCOLS, SessionHello, ToDaemon, WireFinish,
    WirePriority, WireRequest, WireTask,
};
use tandem::daemon::{Build, Frame, LIMIT, ModelSpec, SpecSource, read};
use tandem::inference::{CompletionShape, Effort, Sampling};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

/// The build of the daemons and sessions of these tests.
pub const BUILT: u64 = 1000;

pub struct Speaker(pub UnixStream);

pub fn build(built_unix_ms: u64) -> Build {
    Build {
        version: "0.1.0".to_owned(),
        built_unix_ms,
    }
}

pub fn hello(name: &str) -> SessionHello {
    SessionHello {
        protocols: PROTOCOLS,
        build: build(BUILT),
        pid: 1,
        name: name.to_owned(),
        works: true,
    }
}

/// The model that is told apart by `context_tokens`.
pub fn spec(context_tokens: usize) -> ModelSpec {
    ModelSpec {
        source: SpecSource::Embedded,
        context_tokens,
        kv_cache_bytes: 1 << 20,
        idle_unload_ms: 60_000,
        runtime: BundleRuntime::default(),
        device: ComputeDevice::default(),
        engine: ComputeEngine::default(),
        max_first_token_ms: 1000,
        min_tokens_per_second: 10,
    }
}

pub fn request(prefix: &str) -> Box<WireRequest> {
    Box::new(WireRequest {
        task: WireTask::Complete {
            path: None,
            language: "rust".to_owned(),
            prefix: prefix.into(),
            suffix: "".into(),
            snippets: Vec::new(),
            shape: CompletionShape::Auto,
        },
        sampling: Sampling::GREEDY.into(),
        max_tokens: 8,
        stop: Vec::new(),
        effort: Effort::Low,
        priority: WirePriority::Inline,
    })
}

/// `work`, which must come to an end: a test that waits for ever says nothing.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    let patience = Duration::from_mins(2);
    let ended = tokio::time::timeout(patience, work).await;
    ended.expect("the daemon does not do what the test waits for")
}

/// Looks again and again until `is_so`.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    within(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

impl Speaker {
    /// Connects, as soon as somebody listens.
    pub async fn connect(socket: &Path) -> Self {
        within(async {
            loop {
                match UnixStream::connect(socket).await {
                    Ok(stream) => return Self(stream),
                    Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await
    }

    /// Connects and says hello.
    pub async fn greet(socket: &Path, hello: SessionHello) -> (Self, DaemonHello) {
        let mut speaker = Self::connect(socket).await;
        speaker.say(&ToDaemon::Hello(hello)).await;
        match speaker.hear().await {
            Some(FromDaemon::Hello(hello)) => (speaker, hello),
            other => panic!("{other:?}"),
        }
    }

    /// A session with one model open, as number 1.
    pub async fn with_model(socket: &Path, spec: ModelSpec) -> Self {
        let (mut speaker, _) = Self::greet(socket, hello("lsp")).await;
        speaker.say(&ToDaemon::Open { model: 1, spec }).await;
        speaker
    }

    pub async fn say(&mut self, message: &ToDaemon) {
        self.say_bytes(Frame::new(message).unwrap().bytes()).await;
    }

    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        within(self.0.write_all(bytes)).await.unwrap();
    }

    /// Asks the model number 1.
    pub async fn ask(&mut self, id: u64, prefix: &str) {
        let request = request(prefix);
        self.say(&ToDaemon::Generate {
            id,
            model: 1,
            request,
        })
        .await;
    }

    /// The next message; `None` where the daemon has closed the connection.
    pub async fn hear(&mut self) -> Option<FromDaemon> {
        match within(read(&mut self.0, LIMIT)).await {
            Ok(message) => message,
            // What was sent to a daemon that did not read it makes a closed connection a broken one.
            Err(error) if error.to_string().contains("broke") => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next message that `wanted` makes something of; others are passed over.
    pub async fn hear_until<T>(&mut self, wanted: impl Fn(FromDaemon) -> Option<T>) -> T {
        loop {
            let message = self.hear().await.expect("the daemon closed the connection");
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    }

    /// The text of a whole answer and its end.
    pub async fn answer(
        &mut self,
        wanted: u64,
    ) -> (String, Result<WireFinish, tandem::daemon::wire::WireError>) {
        let mut text = String::new();
        loop {
            match self.hear().await.expect("the daemon closed the connection") {
                FromDaemon::Delta { id, text: piece } if id == wanted => text.push_str(&piece),
                FromDaemon::Done { id, finish } if id == wanted => return (text, Ok(finish)),
                FromDaemon::Failed { id, error } if id == wanted => return (text, Err(error)),
                _ => {}
            }
        }
    }

    pub async fn status(&mut self) -> DaemonStatus {
        self.say(&ToDaemon::Status).await;
        let status = self.hear_until(|message| match message {
            FromDaemon::Status(status) => Some(*status),
            _ => None,
        });
        status.await
    }

    /// Reads to the end, and gives all that was said.
    pub async fn rest(&mut self) -> Vec<FromDaemon> {
        let mut said = Vec::new();
        while let Some(message) = self.hear().await {
            said.push(message);
        }
        said
    }
}
