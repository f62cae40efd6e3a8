//! Limits of time, the server's wish to wait, and cancellation.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tandem::inference::ErrorKind;

use super::messages_api::check::Refusal;
use super::messages_api::http::Piece;
use super::*;

/// A limit that is sure to pass soon, and that a busy machine keeps while something comes.
const SOON: Duration = Duration::from_millis(400);

fn begun(asked: &Asked<'_>, then: Vec<Piece>) -> Response {
    let mut pieces = reply::events(asked.body, asked.usage, &Say::text("A"));
    pieces.truncate(4);
    pieces.extend(then);
    reply::stream(pieces)
}

#[tokio::test]
async fn a_server_that_hangs_before_its_answer() {
    let rig = Rig::new(|asked| Response {
        before: Some(Piece::Hang),
        ..begun(asked, vec![])
    })
    .await;
    rig.set(|settings| settings.claude.first_byte_timeout = SOON);
    let (text, end) = rig.ask(chat("Hi")).await;
    assert_eq!(
        (text.as_str(), end.unwrap_err().kind),
        ("", ErrorKind::Timeout)
    );
    let counts = rig.until(|counts| counts.abandoned == 1).await;
    assert_eq!(counts.requests, 1);
}

#[tokio::test]
async fn a_server_that_hangs_within_its_answer() {
    check_no_progress("hangs", "A", |asked| begun(asked, vec![Piece::Hang])).await;
}

#[tokio::test]
async fn signs_of_life_without_end_are_no_progress() {
    let without_end = |sign: &'static str| {
        let pause = Piece::Pause(Duration::from_millis(10));
        let sign = Piece::Bytes(sign.as_bytes().to_vec());
        move |_: &Asked<'_>| reply::stream(vec![sign.clone(), pause.clone(), Piece::Forever])
    };
    tokio::join!(
        check_no_progress("drips", "", without_end("d")),
        check_no_progress("comments", "", without_end(": still here\n")),
        check_no_progress(
            "pings",
            "",
            without_end("event: ping\ndata: {\"type\":\"ping\"}\n\n")
        ),
    );
}

async fn check_no_progress(
    name: &str,
    expected: &str,
    answer: impl Fn(&Asked<'_>) -> Response + Send + Sync + 'static,
) {
    let rig = Rig::new(answer).await;
    rig.set(|settings| settings.claude.idle_timeout = SOON);
    let (text, end) = rig.ask(chat("Hi")).await;
    assert_eq!(end.unwrap_err().kind, ErrorKind::Timeout, "{name}");
    assert_eq!(text, expected, "{name}");
    let counts = rig.until(|counts| counts.abandoned == 1).await;
    assert_eq!(counts.requests, 1, "{name}");
}

#[tokio::test]
async fn a_slow_answer_that_comes_on_is_no_timeout() {
    let rig = Rig::new(|asked| {
        let say = Say {
            pause: Duration::from_millis(100),
            ..Say::text("one two three four five six seven eight nine ten eleven twelve")
        };
        said(asked, &say)
    })
    .await;
    // The pauses together pass this limit, which holds for each alone.
    rig.set(|settings| settings.claude.idle_timeout = Duration::from_secs(1));
    let (text, end) = rig.ask(chat("Count")).await;
    end.unwrap();
    assert!(text.ends_with("twelve"), "{text}");
}

fn limited(headers: &[(&str, &str)]) -> Response {
    let mut response = reply::error(&Refusal {
        status: 429,
        kind: "rate_limit_error",
        message: "slow down".to_owned(),
    });
    for (name, value) in headers {
        response
            .headers
            .push(((*name).to_owned(), (*value).to_owned()));
    }
    response
}

#[tokio::test]
async fn the_servers_wish_to_wait_is_kept() {
    let tries = AtomicUsize::new(0);
    let rig = Rig::new(move |asked| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => limited(&[("retry-after-ms", "150")]),
        _ => said(asked, &Say::text("now")),
    })
    .await;
    let began = Instant::now();
    assert_eq!(rig.ask(chat("Hi")).await.0, "now");
    assert!(began.elapsed() >= Duration::from_millis(150));
    assert_eq!(rig.server.counts().borrow().requests, 2);
}

#[tokio::test]
async fn a_wish_beyond_the_limit_is_told_at_once() {
    let rig = Rig::new(|_| limited(&[("retry-after", "3600")])).await;
    let error = rig.ask(chat("Hi")).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RateLimited);
    assert_eq!(error.retry_after, Some(Duration::from_hours(1)));
    assert_eq!(rig.server.counts().borrow().requests, 1);
}

#[tokio::test]
async fn cancelling_closes_the_connection_at_once() {
    let rig = Rig::new(|asked| begun(asked, vec![Piece::Hang])).await;
    let cancel = CancellationToken::new();
    let mut stream = rig.backend.generate(chat("Hi"), cancel.clone());
    assert_eq!(stream.next().await, Some(Event::Delta("A".to_owned())));
    cancel.cancel();
    let (text, end) = read(stream).await;
    assert_eq!(
        (text.as_str(), end.unwrap_err().kind),
        ("", ErrorKind::Cancelled)
    );
    rig.until(|counts| counts.abandoned == 1).await;
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection_at_once() {
    let text = || reply::text(0, "more ");
    let rig = Rig::new(move |asked| {
        begun(
            asked,
            vec![
                text(),
                Piece::Pause(Duration::from_millis(5)),
                text(),
                Piece::Hang,
            ],
        )
    })
    .await;
    let mut stream = rig.generate(chat("Hi"));
    assert_eq!(stream.next().await, Some(Event::Delta("A".to_owned())));
    drop(stream);
    rig.until(|counts| counts.abandoned == 1).await;
}

#[tokio::test]
async fn cancelling_before_the_answer_and_between_tries() {
    for answer in [
        (|asked| Response {
            before: Some(Piece::Hang),
            ..begun(asked, vec![])
        }) as fn(&Asked<'_>) -> Response,
        |_| limited(&[("retry-after", "5")]),
    ] {
        let rig = Rig::new(answer).await;
        let cancel = CancellationToken::new();
        let stream = rig.backend.generate(chat("Hi"), cancel.clone());
        rig.until(|counts| counts.requests == 1).await;
        cancel.cancel();
        let error = read(stream).await.1.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Cancelled);
        assert_eq!(rig.server.counts().borrow().requests, 1);
    }
}
