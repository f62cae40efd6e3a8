//! A session against a daemon that is played by hand. That a daemon of another user is refused cannot be
//! shown here: that takes two users.

use tandem::daemon::client::OnCrash;
use tandem::daemon::wire::{FromDaemon, ToDaemon, WireHealth};
use tandem::inference::{Backend, ErrorKind, Event, GenerateError, Health, Usage};
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
