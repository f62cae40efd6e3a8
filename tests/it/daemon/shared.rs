//! Sessions and the program's own daemon: many at once, and daemons that are killed or stopped.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tandem::config::LocalSettings;
use tandem::daemon::client::{ClientError, Limits, OnCrash, SharedBackend, drain, status};
use tandem::daemon::{Build, ModelSpec, Place, StartCommand};
use tandem::inference::{
    Backend, BackendKind, CompleteTask, CompletionShape, Descriptor, ErrorKind, Event,
    GenerateRequest, Health, Task,
};
use tokio_util::sync::CancellationToken;

use super::fake::{FROM_HERE, Session, ask, build, limits, place, question};

/// Names the folder in which a process of the tests is one session among others.
const PLACE: &str = "TANDEM_TEST_DAEMON_FOLDER";

/// What the scripted daemon answers.
const ANSWER: &str = "from the daemon";

/// A daemon's folder. What is left of the daemon ends by itself, soon after the sessions.
pub struct Home {
    pub folder: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn place(&self) -> Place {
        place(self.folder.path())
    }

    /// Asks whoever serves to leave, and waits until nobody does.
    pub async fn close(self) {
        let build = Build::of_this_program();
        while drain(&self.place(), &build).await.unwrap().is_some() {}
        let left: Vec<_> = std::fs::read_dir(self.place().folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !matches!(name.as_str(), "daemon.lock" | "start.lock" | "daemon.log"))
            .collect();
        assert_eq!(left, Vec::<String>::new());
    }
}

/// The program's daemon in `folder`, with `more` arguments.
pub fn daemon(folder: &Path, more: &[&str]) -> StartCommand {
    let arguments = ["daemon", "run", "--detached", "--idle-exit", "10s"];
    let arguments = arguments.iter().chain(more).map(OsString::from).collect();
    let environment = ["XDG_RUNTIME_DIR", "HOME"].map(|name| (name.into(), folder.into()));
    StartCommand {
        program: env!("CARGO_BIN_EXE_tandem").into(),
        arguments,
        environment: environment.into(),
    }
}

fn scripted(folder: &Path) -> StartCommand {
    daemon(folder, &["--scripted-answer", ANSWER])
}

/// A session that starts such a daemon on need.
pub fn session(home: &Home, start: StartCommand) -> Session {
    let limits = Limits {
        lock: Duration::from_mins(1),
        ready: Duration::from_mins(1),
        silence: Duration::from_mins(1),
        hello: Duration::from_mins(1),
        ..Limits::default()
    };
    Session::new(&home.place(), Some(start), limits)
}

/// The daemon's process.
pub async fn process(home: &Home) -> u32 {
    process_at(&home.place()).await
}

/// The process of the daemon at `place`. On a machine that is busy it is asked again: who asks once waits
/// as long as a person would.
async fn process_at(place: &Place) -> u32 {
    for _ in 0..20 {
        match status(place, &build(0)).await {
            Err(ClientError::Silent) => {}
            told => return told.unwrap().expect("a daemon").pid,
        }
    }
    panic!("the daemon is silent");
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Answers one question, and says which daemon was there.
async fn one_session(folder: &Path) -> u32 {
    let start = scripted(folder);
    let place = place(folder);
    let session = Session::new(
        &place,
        Some(start),
        Limits {
            lock: Duration::from_mins(1),
            ready: Duration::from_mins(1),
            ..limits()
        },
    );
    let backend = session.backend(OnCrash::Fail);
    let answer = ask(&backend).collect().await.unwrap();
    assert_eq!(answer.text, ANSWER);
    assert_eq!(session.opened_here(), 0);
    process_at(&place).await
}

#[tokio::test]
async fn a_process_that_is_one_session() {
    if let Some(folder) = std::env::var_os(PLACE) {
        one_session(Path::new(&folder)).await;
        return;
    }
    let home = Home::new();
    one_session(home.folder.path()).await;
    home.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_sessions_that_start_at_once_share_one_daemon() {
    let home = Home::new();
    let processes: Vec<_> = (0..5)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "daemon::shared::a_process_that_is_one_session"])
                .env(PLACE, home.folder.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let sessions: Vec<_> = (0..45)
        .map(|_| {
            let folder = home.folder.path().to_owned();
            tokio::spawn(async move { one_session(&folder).await })
        })
        .collect();
    let mut daemons = BTreeSet::new();
    for session in sessions {
        daemons.insert(session.await.unwrap());
    }
    for process in processes {
        let output = process.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("1 passed"), "{said}");
    }
    daemons.insert(process(&home).await);
    assert_eq!(daemons.len(), 1, "{daemons:?}");
    home.close().await;
}

#[tokio::test]
async fn a_daemon_that_is_killed_before_the_first_text_is_started_again() {
    let home = Home::new();
    let slow = ["--scripted-answer", ANSWER, "--scripted-ms", "600000"];
    let session_of = |start| session(&home, start);
    let slow = session_of(daemon(home.folder.path(), &slow));
    let slow = slow.backend(OnCrash::Fail);
    let held = ask(&slow);
    slow.health()
        .wait_for(|health| matches!(health, Health::Healthy { .. }))
        .await
        .unwrap();
    // A session whose daemon, once it has to start one, answers at once.
    let quick = session_of(scripted(home.folder.path()));
    let quick = quick.backend(OnCrash::Fail);
    let stream = ask(&quick);
    quick
        .health()
        .wait_for(|health| matches!(health, Health::Healthy { .. }))
        .await
        .unwrap();
    drop(held);
    drop(slow);
    let killed = process(&home).await;
    signal(killed, Signal::KILL);
    assert_eq!(stream.collect().await.unwrap().text, ANSWER);
    assert_ne!(process(&home).await, killed);
    home.close().await;
}

#[tokio::test]
async fn a_daemon_that_is_killed_in_the_middle_of_an_answer_fails_it_and_is_started_again() {
    let home = Home::new();
    let session = session(&home, daemon(home.folder.path(), &[]));
    let backend = embedded(&session);
    let mut stream = backend.generate(long_completion(), CancellationToken::new());
    loop {
        match stream.next().await {
            Some(Event::Delta(text)) if text.is_empty() => {}
            Some(Event::Delta(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    let killed = process(&home).await;
    signal(killed, Signal::KILL);
    let error = stream.collect().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Backend);
    assert!(error.next_step.contains("tandem daemon logs"), "{error}");

    let mut request = long_completion();
    request.max_tokens = 2;
    let answer = backend.generate(request, CancellationToken::new());
    answer.collect().await.unwrap();
    assert_ne!(process(&home).await, killed);
    home.close().await;
}

#[tokio::test]
async fn a_daemon_that_is_stopped_is_killed_and_started_again() {
    let home = Home::new();
    let limits = Limits {
        // More than two signs of life.
        silence: Duration::from_millis(2500),
        ..Limits::default()
    };
    let start = scripted(home.folder.path());
    let session = Session::new(&home.place(), Some(start), limits);
    let backend = session.backend(OnCrash::Fail);
    ask(&backend).collect().await.unwrap();
    let stopped = process(&home).await;
    signal(stopped, Signal::STOP);
    // Until then it may still answer.
    while !state(stopped).starts_with('T') {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&backend).collect().await.unwrap().text, ANSWER);
    assert_ne!(process(&home).await, stopped);
    home.close().await;
}

#[tokio::test]
async fn a_session_that_is_newer_than_all_daemons_serves_itself() {
    let home = Home::new();
    let start = scripted(home.folder.path());
    let session = Session::of(&home.place(), Some(start), Limits::default(), newest());
    let backend = session.backend(OnCrash::Fail);
    assert_eq!(ask(&backend).collect().await.unwrap().text, FROM_HERE);
    home.close().await;
}

#[tokio::test]
async fn an_older_daemon_leaves_and_its_sessions_move_on_without_an_error() {
    let home = Home::new();
    let old = session(&home, scripted(home.folder.path()));
    let old = old.backend(OnCrash::Fail);
    ask(&old).collect().await.unwrap();
    let left = process(&home).await;
    // The session of a newer build has one of its own, were it not for the tests.
    let new = Session::of(&home.place(), None, Limits::default(), newest());
    let new = new.backend(OnCrash::Fail);
    assert_eq!(ask(&new).collect().await.unwrap().text, FROM_HERE);
    assert_eq!(ask(&old).collect().await.unwrap().text, ANSWER);
    assert_ne!(process(&home).await, left);
    home.close().await;
}

/// The state of a process, as the system lists it: `T` for a stopped one.
fn state(process: u32) -> String {
    let process = process.to_string();
    let listed = std::process::Command::new("ps")
        .args(["-o", "state=", "-p", &process])
        .output()
        .unwrap();
    let state = String::from_utf8(listed.stdout).unwrap().trim().to_owned();
    assert!(!state.is_empty(), "{process} is gone");
    state
}

/// A build that the program is not yet.
fn newest() -> Build {
    Build {
        version: "999.0.0".to_owned(),
        built_unix_ms: 0,
    }
}

/// The model inside the program, behind `session`'s link.
pub fn embedded(session: &Session) -> SharedBackend {
    SharedBackend::new(
        Arc::clone(&session.link),
        ModelSpec::new(None, &LocalSettings::default()).unwrap(),
        Descriptor {
            kind: BackendKind::Embedded,
            model: "tandem-mini".to_owned(),
            context_tokens: 1024,
        },
        Health::Unloaded,
        None,
        Box::new(|| Err(std::io::Error::other("nothing is opened here"))),
        OnCrash::Fail,
    )
}

/// More than can be generated in the time that a signal takes.
fn long_completion() -> GenerateRequest {
    GenerateRequest {
        task: Task::Complete(CompleteTask {
            path: Some("src/lib.rs".to_owned()),
            language: "rust".to_owned(),
            prefix: "fn main() {\n    let numbers = vec![1, 2, 3];\n    for ".into(),
            suffix: "".into(),
            snippets: Vec::new(),
            shape: CompletionShape::Lines,
        }),
        max_tokens: 900,
        ..question("")
    }
}
