//! `tandem daemon run`, the real process: it tells that it is ready, is killed, and leaves in good order.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tandem::daemon::wire::{FromDaemon, SessionHello, ToDaemon};
use tandem::daemon::{Place, Readiness};
use tokio::task::spawn_blocking;

use super::speaker::{Speaker, hello, spec, within};

/// A daemon, which ends with the test at the latest.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(home: &Path, arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_tandem"))
            .args(["daemon", "run"])
            .args(arguments)
            .env_clear()
            .env("HOME", home)
            .env("XDG_RUNTIME_DIR", home)
            // Nothing of it is read; a daemon that did would stumble.
            .env("TANDEM_MODE", "nonsense")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// One that a session started, and what it told.
    async fn detached(home: &Path, arguments: &[&str]) -> (Self, Readiness) {
        let arguments = [&["--detached"], arguments].concat();
        let mut process = Self::start(home, &arguments);
        let mut stdout = process.0.stdout.take().unwrap();
        let read = spawn_blocking(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let bytes = within(read).await.unwrap();
        (process, Readiness::read(&bytes))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// How it ended, and what it told on standard error.
    async fn ended(mut self) -> (Option<i32>, String) {
        let waited = spawn_blocking(move || {
            let mut told = String::new();
            let mut stderr = self.0.stderr.take().unwrap();
            stderr.read_to_string(&mut told).unwrap();
            (self.0.wait().unwrap().code(), told)
        });
        within(waited).await.unwrap()
    }
}

fn home() -> (tempfile::TempDir, Place) {
    let home = tempfile::tempdir().unwrap();
    let place = Place::choose(
        Some(home.path()),
        Some(&home.path().join(".local/state/tandem")),
    );
    (home, place.unwrap())
}

/// A daemon that is of another build than the tests think.
fn session() -> SessionHello {
    SessionHello {
        build: super::speaker::build(0),
        ..hello("lsp")
    }
}

async fn answers(place: &Place, text: &str) {
    let mut session = asking(place).await;
    assert_eq!(session.answer(1).await.0, text);
}

/// A session whose request 1 waits for its answer.
async fn asking(place: &Place) -> Speaker {
    let (mut session, _) = Speaker::greet(&place.socket(), session()).await;
    let open = ToDaemon::Open {
        model: 1,
        spec: spec(1),
    };
    session.say(&open).await;
    session.ask(1, "a").await;
    session
}

#[tokio::test]
async fn a_daemon_that_was_killed_leaves_room_for_the_next() {
    let (home, place) = home();
    let (first, ready) = Process::detached(home.path(), &["--scripted-answer", "one"]).await;
    assert_eq!(ready, Readiness::Ready);
    answers(&place, "one").await;
    let (second, told) = Process::detached(home.path(), &[]).await;
    assert_eq!(told, Readiness::Another);
    assert_eq!(second.ended().await.0, Some(0));
    first.signal(Signal::KILL);
    assert_eq!(first.ended().await.0, None);
    assert!(place.socket().exists(), "nobody removed it");
    let (_third, ready) = Process::detached(home.path(), &["--scripted-answer", "two"]).await;
    assert_eq!(ready, Readiness::Ready);
    answers(&place, "two").await;
    assert!(place.log().exists());
}

#[tokio::test]
async fn a_signal_lets_what_is_in_flight_be_answered_and_leaves_nothing() {
    let (home, place) = home();
    let arguments = ["--scripted-answer", "done", "--scripted-ms", "500"];
    let (process, ready) = Process::detached(home.path(), &arguments).await;
    assert_eq!(ready, Readiness::Ready);
    let mut session = asking(&place).await;
    // What was said before has been taken by the time that this is answered.
    session.status().await;
    process.signal(Signal::TERM);
    assert_eq!(session.answer(1).await.0, "done");
    session.rest().await;
    assert_eq!(process.ended().await.0, Some(0));
    assert!(!place.socket().exists());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (home, place) = home();
    let arguments = ["--scripted-answer", "never", "--scripted-ms", "100000000"];
    let process = Process::start(home.path(), &arguments);
    let mut session = asking(&place).await;
    session.status().await;
    process.signal(Signal::INT);
    session
        .hear_until(|message| matches!(message, FromDaemon::Draining).then_some(()))
        .await;
    process.signal(Signal::INT);
    session.rest().await;
    let (code, told) = process.ended().await;
    assert_eq!(code, Some(130), "{told}");
    assert!(told.contains(place.socket().to_str().unwrap()), "{told}");
    assert!(!place.socket().exists());
}

#[tokio::test]
async fn what_keeps_a_daemon_from_serving_is_told() {
    let (home, place) = home();
    std::fs::write(place.folder(), "").unwrap();
    let (process, told) = Process::detached(home.path(), &[]).await;
    let Readiness::Failed(why) = told else {
        panic!("{told:?}")
    };
    assert!(why.contains("no folder") && why.ends_with('.'), "{why}");
    assert_eq!(process.ended().await.0, Some(1));
    std::fs::remove_file(place.folder()).unwrap();
    let (process, ready) = Process::detached(home.path(), &["--idle-exit", "1ms"]).await;
    assert_eq!(ready, Readiness::Ready);
    assert_eq!(process.ended().await.0, Some(0));
}
