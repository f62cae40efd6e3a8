//! A session against a daemon that is played by hand. That a daemon of another user is refused cannot be
//! shown here: that takes two users.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tandem::daemon::client::{ClientError, Limits, OnCrash, drain, status};
use tandem::daemon::wire::{
    DaemonHello, DaemonStatus, FromDaemon, ReportedBackend, ToDaemon, WireHealth,
};
use tandem::daemon::{LIMIT, StartCommand};
use tandem::inference::{Backend, BackendKind, ErrorKind, Event, GenerateError, Health, Usage};
use tokio_util::sync::CancellationToken;

use super::fake::*;

/// What ends `stream`.
async fn failure(stream: tandem::inference::TokenStream) -> GenerateError {
    stream.collect().await.unwrap_err()
}

#[tokio::test]
async fn an_answer_comes_through() {
    let fake = Fake::new();
    let backend = fake.session().backend(OnCrash::Fail);
    let mut stream = ask(&backend);
    let mut seat = fake.accept().await;
    assert_eq!(seat.hello.name, "test");
    assert!(seat.hello.works);
    let (id, _, request) = seat.asked().await;
    assert_eq!(request.max_tokens, 64);
    let usage = usage();
    seat.say(FromDaemon::Count { id, usage }).await;
    seat.delta(id, "hel").await;
    assert_eq!(stream.next().await, Some(Event::Delta("hel".to_owned())));
    assert_eq!(stream.usage_so_far(), Usage::from(usage));
    seat.delta(id, "lo").await;
    seat.done(id).await;
    let rest = stream.collect().await.unwrap();
    assert_eq!(rest.text, "lo");
    assert_eq!(rest.finish.usage, Usage::from(usage));
}

#[tokio::test]
async fn a_failure_comes_through() {
    let fake = Fake::new();
    let backend = fake.session().backend(OnCrash::Fail);
    let stream = ask(&backend);
    let mut seat = fake.accept().await;
    let (id, _, _) = seat.asked().await;
    seat.failed(id, ErrorKind::TooLong).await;
    assert_eq!(failure(stream).await.kind, ErrorKind::TooLong);
}

#[tokio::test]
async fn a_cancelled_and_a_dropped_answer_are_cancelled_in_the_daemon() {
    let fake = Fake::new();
    let backend = fake.session().backend(OnCrash::Fail);
    let cancel = CancellationToken::new();
    let stream = backend.generate(question("hi"), cancel.clone());
    let mut seat = fake.accept().await;
    let (id, _, _) = seat.asked().await;
    cancel.cancel();
    assert_eq!(failure(stream).await.kind, ErrorKind::Cancelled);
    let heard = seat.hear_work().await;
    assert!(matches!(heard, Some(ToDaemon::Cancel { id: of }) if of == id));
    // Its end is still told, to nobody.
    seat.failed(id, ErrorKind::Cancelled).await;

    let stream = ask(&backend);
    let (next, _, _) = seat.asked().await;
    assert_ne!(next, id);
    drop(stream);
    let heard = seat.hear_work().await;
    assert!(matches!(heard, Some(ToDaemon::Cancel { id: of }) if of == next));
}

#[tokio::test]
async fn health_and_placement_are_the_daemons() {
    let fake = Fake::new();
    let session = fake.session();
    let backend = session.backend(OnCrash::Fail);
    assert_eq!(*backend.health().borrow(), Health::Unloaded);
    session.link.attach();
    let mut seat = fake.accept().await;
    let Some(ToDaemon::Open { model, .. }) = seat.hear().await else {
        panic!("not opened")
    };
    seat.health(model, WireHealth::Probing).await;
    healthy(&backend, |health| *health == Health::Probing).await;
    backend.warm_up();
    let heard = seat.hear().await;
    assert!(matches!(heard, Some(ToDaemon::WarmUp { model: of }) if of == model));
    drop(seat);
    healthy(&backend, |health| *health == Health::Unloaded).await;
}

#[tokio::test]
async fn a_need_loads_and_says_so() {
    let fake = Fake::new();
    let backend = fake.session().backend(OnCrash::Fail);
    backend.warm_up();
    healthy(&backend, |health| *health == Health::Loading).await;
    let mut seat = fake.accept().await;
    let heard = seat.hear_work().await;
    assert!(matches!(heard, Some(ToDaemon::WarmUp { .. })), "{heard:?}");
}

#[tokio::test]
async fn models_of_a_session_share_its_connection_and_a_slow_reader_holds_up_nobody() {
    let fake = Fake::new();
    let session = fake.session();
    let (slow, quick) = (
        session.backend(OnCrash::Fail),
        session.backend(OnCrash::Fail),
    );
    let slow_stream = ask(&slow);
    let mut seat = fake.accept().await;
    let (slow_id, slow_model, _) = seat.asked().await;
    // More than a stream holds unread.
    for _ in 0..2000 {
        seat.delta(slow_id, "x").await;
    }
    let quick_stream = ask(&quick);
    let (quick_id, quick_model, _) = seat.asked().await;
    assert_ne!(slow_model, quick_model);
    seat.delta(quick_id, "quick").await;
    seat.done(quick_id).await;
    assert_eq!(quick_stream.collect().await.unwrap().text, "quick");
    seat.done(slow_id).await;
    assert_eq!(slow_stream.collect().await.unwrap().text, "x".repeat(2000));
}

#[tokio::test]
async fn what_is_lost_before_the_first_text_is_asked_again_once() {
    let fake = Fake::new();
    let backend = fake.session().backend(OnCrash::Fail);
    let stream = ask(&backend);
    let mut seat = fake.accept().await;
    seat.asked().await;
    drop(seat);
    fake.accept().await.answer("again").await;
    assert_eq!(stream.collect().await.unwrap().text, "again");

    let stream = ask(&backend);
    let mut seat = fake.accept().await;
    seat.asked().await;
    drop(seat);
    let mut seat = fake.accept().await;
    seat.asked().await;
    drop(seat);
    assert_eq!(failure(stream).await.kind, ErrorKind::Backend);
}

#[tokio::test]
async fn what_is_lost_after_the_first_text_fails_with_the_next_step() {
    let fake = Fake::new();
    let backend = fake.session().backend(OnCrash::Fail);
    let mut stream = ask(&backend);
    let mut seat = fake.accept().await;
    let (id, _, _) = seat.asked().await;
    seat.delta(id, "half").await;
    assert!(matches!(stream.next().await, Some(Event::Delta(_))));
    drop(seat);
    let error = failure(stream).await;
    assert_eq!(error.kind, ErrorKind::Backend);
    assert!(error.next_step.contains("tandem daemon logs"), "{error}");
}

#[tokio::test]
async fn a_daemon_that_leaves_ends_what_it_has_and_the_rest_goes_to_the_next() {
    let fake = Fake::new();
    let backend = fake.session().backend(OnCrash::Fail);
    let old_stream = ask(&backend);
    let mut old = fake.accept().await;
    let (old_id, _, _) = old.asked().await;
    old.say(FromDaemon::Draining).await;
    // Looked for although nobody asks for anything yet.
    let mut new = fake.accept().await;
    let stream = ask(&backend);
    new.answer("new").await;
    assert_eq!(stream.collect().await.unwrap().text, "new");
    old.delta(old_id, "old").await;
    old.done(old_id).await;
    assert_eq!(old_stream.collect().await.unwrap().text, "old");
    assert!(old.hear().await.is_none(), "the old one is let go of");
}

#[tokio::test]
async fn a_daemon_that_leaves_is_not_asked() {
    let fake = Fake::new();
    let backend = fake.session().backend(OnCrash::Fail);
    let stream = ask(&backend);
    let mut leaving = fake.accept_as(build(1), true).await;
    assert!(leaving.hear().await.is_none());
    fake.accept().await.answer("next").await;
    assert_eq!(stream.collect().await.unwrap().text, "next");
}

#[tokio::test]
async fn what_a_leaving_daemon_turns_away_goes_to_the_next() {
    let fake = Fake::new();
    let backend = fake.session().backend(OnCrash::Fail);
    let stream = ask(&backend);
    let mut old = fake.accept().await;
    let (id, _, _) = old.asked().await;
    old.say(FromDaemon::Draining).await;
    old.failed(id, ErrorKind::Unavailable).await;
    fake.accept().await.answer("next").await;
    assert_eq!(stream.collect().await.unwrap().text, "next");
}

/// A session that `spoil` has come between, or that starts by `start`, serves from itself, and opens the
/// model once.
async fn serves_from_here(
    start: Option<StartCommand>,
    spoil: impl AsyncFnOnce(Fake) -> Box<dyn std::any::Any>,
) {
    let fake = Fake::new();
    let session = Session::new(&fake.place, start, limits());
    let backend = session.backend(OnCrash::Fail);
    let streams = [ask(&backend), ask(&backend)];
    let _kept = spoil(fake).await;
    for stream in streams {
        assert_eq!(stream.collect().await.unwrap().text, FROM_HERE);
    }
    let again = ask(&backend).collect().await.unwrap();
    assert_eq!(again.text, FROM_HERE);
    assert_eq!(session.opened_here(), 1);
    healthy(&backend, |health| matches!(health, Health::Healthy { .. })).await;
}

async fn nobody_listens(fake: Fake) -> Box<dyn std::any::Any> {
    Box::new(fake.hang_up())
}

#[tokio::test]
async fn a_session_that_may_start_none_serves_itself() {
    serves_from_here(None, nobody_listens).await;
}

#[tokio::test]
async fn a_session_that_cannot_start_one_serves_itself() {
    let missing = StartCommand {
        program: "/nowhere/tandem".into(),
        arguments: Vec::new(),
        environment: Vec::new(),
    };
    for start in [missing, shell("printf 'Eno room. Make some.'"), shell(":")] {
        serves_from_here(Some(start), nobody_listens).await;
    }
}

#[tokio::test]
async fn a_session_with_an_unsafe_folder_serves_itself() {
    serves_from_here(Some(says_ready()), async |fake: Fake| {
        set_permissions(fake.place.folder(), Permissions::from_mode(0o755)).unwrap();
        Box::new(fake) as Box<dyn std::any::Any>
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_refused_serves_itself() {
    serves_from_here(Some(says_ready()), async |fake: Fake| {
        // An older one might be about to leave, so it is asked more than once.
        for _ in 0..3 {
            fake.accept_with(FromDaemon::Refused {
                why: "no".to_owned(),
                next_step: "Stop.".to_owned(),
            })
            .await;
        }
        Box::new(fake) as Box<dyn std::any::Any>
    })
    .await;
}

#[tokio::test]
async fn a_session_that_understands_no_word_serves_itself() {
    serves_from_here(Some(says_ready()), async |fake: Fake| {
        for _ in 0..3 {
            fake.accept_with(FromDaemon::Hello(DaemonHello {
                protocol: 99,
                build: build(1),
                pid: 1,
                draining: false,
            }))
            .await;
        }
        Box::new(fake) as Box<dyn std::any::Any>
    })
    .await;
}

/// Takes the next three connections and drops each once it has been asked something.
async fn crash_three_times(fake: &Fake) {
    for _ in 0..3 {
        fake.accept().await.asked().await;
    }
}

#[tokio::test]
async fn a_daemon_that_keeps_crashing_is_left_alone() {
    let fake = Fake::new();
    let session = fake.session();
    let (large, small) = (
        session.backend(OnCrash::Fail),
        session.backend(OnCrash::ServeHere),
    );
    let streams = async {
        let first = failure(ask(&large)).await;
        (first, failure(ask(&large)).await)
    };
    let ((first, second), ()) = tokio::join!(streams, crash_three_times(&fake));
    assert_eq!(first.kind, ErrorKind::Backend);
    assert_eq!(second.kind, ErrorKind::Unavailable);
    assert!(second.retry_after.is_some(), "{second:?}");
    healthy(&large, |health| {
        matches!(health, Health::Failed { retry_after: Some(_), error } if error.contains("logs"))
    })
    .await;
    assert_eq!(failure(ask(&large)).await.kind, ErrorKind::Unavailable);
    assert_eq!(session.opened_here(), 0);
    assert_eq!(ask(&small).collect().await.unwrap().text, FROM_HERE);
    assert_eq!(session.opened_here(), 1);
}

#[tokio::test]
async fn after_a_while_the_daemon_is_asked_again() {
    let fake = Fake::new();
    let backend = fake.session().backend(OnCrash::Fail);
    let streams = async {
        failure(ask(&backend)).await;
        failure(ask(&backend)).await;
    };
    tokio::join!(streams, crash_three_times(&fake));
    assert!(!backend.health().borrow().can_serve());
    tokio::time::pause();
    tokio::time::advance(NEVER + Duration::from_secs(1)).await;
    tokio::time::resume();
    healthy(&backend, |health| *health == Health::Unloaded).await;
    let stream = ask(&backend);
    fake.accept().await.answer("well").await;
    assert_eq!(stream.collect().await.unwrap().text, "well");
}

#[tokio::test]
async fn a_connection_without_a_word_is_given_up_for_a_fresh_one() {
    let fake = Fake::new();
    let limits = Limits {
        silence: Duration::from_millis(20),
        ..limits()
    };
    let session = Session::new(&fake.place, Some(says_ready()), limits);
    let backend = session.backend(OnCrash::Fail);
    let stream = ask(&backend);
    let mut hung = fake.accept().await;
    hung.asked().await;
    // The daemon greets, so it is not killed; what it was asked is asked again.
    fake.accept().await.answer("fresh").await;
    assert_eq!(stream.collect().await.unwrap().text, "fresh");
}

#[tokio::test]
async fn a_daemon_that_never_greets_is_not_waited_for_without_end() {
    let fake = Fake::new();
    let limits = Limits {
        hello: Duration::from_millis(1),
        ready: Duration::from_millis(1),
        ..limits()
    };
    let start = shell("printf A");
    let session = Session::new(&fake.place, Some(start), limits);
    let backend = session.backend(OnCrash::Fail);
    let error = failure(ask(&backend)).await;
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_request_that_fits_no_frame_is_too_long() {
    let fake = Fake::new();
    let backend = fake.session().backend(OnCrash::Fail);
    let stream = backend.generate(question(&"x".repeat(LIMIT)), CancellationToken::new());
    let mut seat = fake.accept().await;
    let error = failure(stream).await;
    assert_eq!(error.kind, ErrorKind::TooLong);
    // The connection is none the worse.
    let stream = ask(&backend);
    seat.answer("short").await;
    assert_eq!(stream.collect().await.unwrap().text, "short");
}

#[tokio::test]
async fn each_daemon_hears_how_the_session_is() {
    let fake = Fake::new();
    let session = fake.session();
    let told = vec![ReportedBackend {
        kind: BackendKind::Claude,
        model: "m".to_owned(),
        health: "healthy".to_owned(),
        breaker: "closed".to_owned(),
    }];
    session.link.report(told.clone());
    let backend = session.backend(OnCrash::Fail);
    let stream = ask(&backend);
    let mut seat = fake.accept().await;
    for _ in 0..2 {
        match seat.hear().await {
            Some(ToDaemon::Open { .. }) => {}
            Some(ToDaemon::Report { backends }) => assert_eq!(backends, told),
            other => panic!("{other:?}"),
        }
    }
    drop(stream);
}

#[tokio::test]
async fn the_command_line_asks_and_starts_nothing() {
    let fake = Fake::new();
    let place = fake.place.clone();
    let known = DaemonStatus {
        build: build(1),
        pid: 5,
        uptime_ms: 6,
        resident_bytes: None,
        draining: false,
        models: Vec::new(),
        sessions: Vec::new(),
    };
    let (build, serve) = (build(9), async {
        let mut seat = fake.accept().await;
        assert!(!seat.hello.works);
        assert!(matches!(seat.hear().await, Some(ToDaemon::Status)));
        seat.say(FromDaemon::Status(Box::new(known.clone()))).await;
        let mut seat = fake.accept().await;
        assert!(matches!(seat.hear().await, Some(ToDaemon::Drain)));
        seat.say(FromDaemon::Draining).await;
    });
    let ask = async {
        let told = status(&place, &build).await.unwrap();
        (told, drain(&place, &build).await.unwrap())
    };
    let ((told, left), ()) = tokio::join!(ask, serve);
    assert_eq!(told, Some(known));
    assert_eq!(left, Some(std::process::id()));
    let (_folder, place) = fake.hang_up();
    assert_eq!(status(&place, &build).await.unwrap(), None);
    assert_eq!(drain(&place, &build).await.unwrap(), None);
    set_permissions(place.folder(), Permissions::from_mode(0o755)).unwrap();
    let error = status(&place, &build).await.unwrap_err();
    assert!(matches!(error, ClientError::Place(_)), "{error}");
}
