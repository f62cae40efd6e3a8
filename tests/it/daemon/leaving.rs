//! How a daemon comes to its folder, keeps it, and leaves: in order, at once, or for another.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tandem::daemon::Place;
use tandem::daemon::server::{Claim, ClaimError, Ended, Limits};
use tandem::daemon::wire::{FromDaemon, SessionHello, ToDaemon};
use tandem::inference::ErrorKind;

use super::server::Daemon;
use super::speaker::{Speaker, hello, spec, until};

#[tokio::test]
async fn a_daemon_that_leaves_answers_what_is_in_flight_and_makes_room_at_once() {
    let mut daemon = Daemon::start(Limits::default());
    let mut session = Speaker::with_model(&daemon.socket(), spec(1)).await;
    session.ask(1, "flood").await;
    session
        .hear_until(|message| matches!(message, FromDaemon::Delta { .. }).then_some(()))
        .await;
    daemon.drain.cancel();
    session
        .hear_until(|message| matches!(message, FromDaemon::Draining).then_some(()))
        .await;
    until(|| !daemon.socket().exists()).await;
    let _next = Claim::take(&daemon.place).unwrap();
    session.ask(2, "late").await;
    let (_, end) = session.answer(2).await;
    assert_eq!(end.unwrap_err().kind, ErrorKind::Unavailable);
    let (_, end) = session.answer(1).await;
    assert!(end.is_ok(), "{end:?}");
    assert!(session.rest().await.is_empty());
    let next = daemon.socket();
    assert_eq!(daemon.ended().await, Ended::Drained);
    assert!(next.exists(), "the socket of the next daemon is not ours");
}

#[tokio::test]
async fn a_session_may_ask_a_daemon_to_leave_which_ends_what_takes_too_long() {
    let mut daemon = Daemon::start(Limits {
        drain: Duration::from_millis(20),
        ..Limits::default()
    });
    let mut session = Speaker::with_model(&daemon.socket(), spec(1)).await;
    session.ask(1, "hang").await;
    session
        .hear_until(|message| matches!(message, FromDaemon::Delta { .. }).then_some(()))
        .await;
    let observed = daemon.backend().observed();
    session.say(&ToDaemon::Drain).await;
    let said = session.rest().await;
    let draining = |message: &FromDaemon| matches!(message, FromDaemon::Draining);
    assert_eq!(
        said.iter().filter(|said| draining(said)).count(),
        1,
        "{said:?}"
    );
    assert_eq!(daemon.ended().await, Ended::Drained);
    until(|| observed.cancelled.load(Ordering::SeqCst) == 1).await;
}

/// Lets hours pass until the daemon has ended.
async fn hours_pass(daemon: &Daemon) {
    while !daemon.served.is_finished() {
        tokio::time::pause();
        tokio::time::advance(Duration::from_hours(2)).await;
        tokio::time::resume();
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_daemon_without_sessions_that_work_ends() {
    let mut daemon = Daemon::start(Limits::default());
    let (mut working, _) = Speaker::greet(&daemon.socket(), hello("lsp")).await;
    let curious = SessionHello {
        works: false,
        ..hello("status")
    };
    let (mut curious, _) = Speaker::greet(&daemon.socket(), curious).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_hours(20)).await;
    tokio::time::resume();
    let status = working.status().await;
    assert!(
        !status.draining && status.uptime_ms >= 1000 * 3600 * 20,
        "{status:?}"
    );
    drop(working);
    while !curious.status().await.sessions.is_empty() {}
    hours_pass(&daemon).await;
    assert!(!daemon.socket().exists());
    assert_eq!(daemon.ended().await, Ended::Idle);
}

#[tokio::test]
async fn a_socket_that_vanishes_is_made_again() {
    let daemon = Daemon::start(Limits {
        look: Duration::from_millis(1),
        ..Limits::default()
    });
    let (mut before, _) = Speaker::greet(&daemon.socket(), hello("lsp")).await;
    std::fs::remove_file(daemon.socket()).unwrap();
    Speaker::greet(&daemon.socket(), hello("lsp")).await;
    std::fs::remove_dir_all(daemon.place.folder()).unwrap();
    Speaker::greet(&daemon.socket(), hello("lsp")).await;
    // Nobody else gets in meanwhile.
    let second = Claim::take(&daemon.place);
    assert!(matches!(second, Err(ClaimError::Another)), "{second:?}");
    assert!(!before.status().await.draining);
}

#[tokio::test]
async fn a_daemon_whose_folder_another_has_taken_leaves() {
    let mut daemon = Daemon::start(Limits {
        look: Duration::from_hours(1),
        ..Limits::default()
    });
    // The first look is at once.
    let (mut session, _) = Speaker::greet(&daemon.socket(), hello("lsp")).await;
    session.status().await;
    std::fs::remove_dir_all(daemon.place.folder()).unwrap();
    let other = Claim::take(&daemon.place).unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_hours(2)).await;
    tokio::time::resume();
    let (place, socket) = (daemon.place.clone(), daemon.socket());
    assert_eq!(daemon.ended().await, Ended::Drained);
    assert!(socket.exists(), "the other's socket stays");
    drop(other);
    assert!(!socket.exists());
    Claim::take(&place).unwrap();
}

#[tokio::test]
async fn one_claim_at_a_time_whatever_was_left_behind() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let place = Place::choose(Some(folder.path()), None).unwrap();
    let first = Claim::take(&place).unwrap();
    let second = Claim::take(&place);
    assert!(matches!(second, Err(ClaimError::Another)), "{second:?}");
    for path in [place.socket(), place.lock()] {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    drop(first);
    assert!(!place.socket().exists() && place.lock().exists());
    // As a process that was killed leaves it.
    drop(std::os::unix::net::UnixListener::bind(place.socket()).unwrap());
    let third = Claim::take(&place).unwrap();
    tokio::net::UnixStream::connect(place.socket())
        .await
        .unwrap();
    // What is not ours is not removed.
    std::fs::remove_file(place.socket()).unwrap();
    std::fs::write(place.socket(), "another's").unwrap();
    drop(third);
    assert!(place.socket().exists());
}
