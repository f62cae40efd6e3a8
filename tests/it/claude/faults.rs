//! A Claude that fails, lies or breaks off: each ends in one error of the right kind.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tandem::inference::{Effort, ErrorKind};

use super::messages_api::check::Refusal;
use super::messages_api::http::Piece;
use super::*;

/// Tries at most: the first and the retries of the default settings.
const TRIES: usize = 3;

struct Expected {
    kind: ErrorKind,
    text: &'static str,
    tries: usize,
}

async fn check(
    name: &str,
    answer: impl Fn(&Asked<'_>) -> Response + Send + Sync + 'static,
    expected: Expected,
) {
    let rig = Rig::new(answer).await;
    let (text, end) = rig.ask(chat("Hi")).await;
    let error = end.expect_err(name);
    assert_eq!(error.kind, expected.kind, "{name}: {error}");
    assert_eq!(text, expected.text, "{name}");
    assert_eq!(
        rig.server.counts().borrow().requests,
        expected.tries,
        "{name}: {error}"
    );
    let shown = error.to_string();
    assert!(shown.ends_with('.') && shown.len() < 400, "{name}: {shown}");
}

fn error(status: u16, kind: &'static str) -> Response {
    reply::error(&Refusal {
        status,
        kind,
        message: "as told".to_owned(),
    })
}

#[tokio::test]
async fn statuses() {
    for (status, name, kind, tries) in [
        (400, "invalid_request_error", ErrorKind::InvalidRequest, 1),
        (401, "authentication_error", ErrorKind::Unauthorized, 1),
        (402, "billing_error", ErrorKind::Unauthorized, 1),
        (403, "permission_error", ErrorKind::Unauthorized, 1),
        (404, "not_found_error", ErrorKind::Unavailable, 1),
        (408, "timeout_error", ErrorKind::Timeout, TRIES),
        (409, "conflict_error", ErrorKind::Backend, TRIES),
        (413, "request_too_large", ErrorKind::TooLong, 1),
        (422, "invalid_request_error", ErrorKind::InvalidRequest, 1),
        (429, "rate_limit_error", ErrorKind::RateLimited, TRIES),
        (500, "api_error", ErrorKind::Backend, TRIES),
        (504, "timeout_error", ErrorKind::Timeout, TRIES),
        (529, "overloaded_error", ErrorKind::Backend, TRIES),
    ] {
        let expected = Expected {
            kind,
            text: "",
            tries,
        };
        check(name, move |_| error(status, name), expected).await;
    }
}

#[tokio::test]
async fn errors_without_the_documented_body() {
    for body in ["", "<html>", "{}", "[]", r#"{"error":{}}"#] {
        let answer = move |_: &Asked<'_>| Response {
            body: vec![Piece::Bytes(body.as_bytes().to_vec())],
            ..error(400, "")
        };
        let expected = Expected {
            kind: ErrorKind::Backend,
            text: "",
            tries: 1,
        };
        check(body, answer, expected).await;
    }
}

/// The events of an answer with the text `A`, up to and with number `last`, then what is given.
fn events_to(asked: &Asked<'_>, last: usize, then: Vec<Piece>) -> Response {
    let mut pieces = reply::events(asked.body, asked.usage, &Say::text("A"));
    pieces.truncate(last + 1);
    pieces.extend(then);
    reply::stream(pieces)
}

// The numbers of events in `events_to`.
const START: usize = 0;
const PING: usize = 1;
const TEXT: usize = 3;
const BLOCK_STOP: usize = 4;
const END: usize = 5;

/// A fault in a stream: before any text it has this many tries, after it always one.
async fn check_stream(name: &str, kind: ErrorKind, tries: usize, then: Vec<Piece>) {
    let before = then.clone();
    check(
        &format!("{name}, before the text"),
        move |asked| events_to(asked, PING, before.clone()),
        Expected {
            kind,
            text: "",
            tries,
        },
    )
    .await;
    check(
        &format!("{name}, after the text"),
        move |asked| events_to(asked, TEXT, then.clone()),
        Expected {
            kind,
            text: "A",
            tries: 1,
        },
    )
    .await;
}

#[tokio::test]
async fn streams_that_break_off() {
    check_stream("closed", ErrorKind::Backend, TRIES, vec![Piece::Close]).await;
    check_stream("ended", ErrorKind::Backend, TRIES, vec![]).await;
    let half = Piece::Bytes(b"event: content_block_delta\ndata: {\"type\":\"content".to_vec());
    check_stream(
        "closed within an event",
        ErrorKind::Backend,
        TRIES,
        vec![half, Piece::Close],
    )
    .await;
    for last in [BLOCK_STOP, END] {
        check(
            "ended without message_stop",
            move |asked| events_to(asked, last, vec![]),
            Expected {
                kind: ErrorKind::Backend,
                text: "A",
                tries: 1,
            },
        )
        .await;
    }
    check(
        "closed before the head",
        |asked| Response {
            before: Some(Piece::Close),
            ..events_to(asked, START, vec![])
        },
        Expected {
            kind: ErrorKind::Backend,
            text: "",
            tries: TRIES,
        },
    )
    .await;
}

#[tokio::test]
async fn errors_within_a_stream() {
    for (name, kind, tries) in [
        ("overloaded_error", ErrorKind::Backend, TRIES),
        ("api_error", ErrorKind::Backend, TRIES),
        ("rate_limit_error", ErrorKind::RateLimited, TRIES),
        ("timeout_error", ErrorKind::Timeout, TRIES),
        ("invalid_request_error", ErrorKind::InvalidRequest, 1),
        ("authentication_error", ErrorKind::Unauthorized, 1),
        ("what_is_this", ErrorKind::Backend, 1),
    ] {
        let event = reply::error_event(name, "as told");
        check_stream(name, kind, tries, vec![event]).await;
    }
}

#[tokio::test]
async fn streams_that_lie() {
    let bytes = |text: &str| Piece::Bytes(text.as_bytes().to_vec());
    for (name, lie) in [
        ("no JSON", bytes("data: <html>\n\n")),
        ("an empty event", bytes("data:\n\n")),
        (
            "no UTF-8",
            Piece::Bytes(b"data: {\"type\":\"ping\xff\"}\n\n".to_vec()),
        ),
        (
            "a second start",
            reply::event("message_start", &json!({"message": {}})),
        ),
        ("another block's text", reply::text(7, "B")),
        (
            "a block with another number",
            reply::start(5, &json!({"type": "text", "text": ""})),
        ),
        (
            "a negative index",
            reply::event("content_block_stop", &json!({"index": -1})),
        ),
        (
            "negative tokens",
            reply::event(
                "message_delta",
                &json!({"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": -1}}),
            ),
        ),
        ("an early end", reply::event("message_stop", &json!({}))),
        (
            "a line without end",
            Piece::Bytes(vec![b'a'; (1 << 20) + 1]),
        ),
    ] {
        check_stream(name, ErrorKind::Backend, 1, vec![lie]).await;
    }
    let endless = vec![
        Piece::Bytes(
            format!(
                "data: {{\"type\":\"ping\",\"x\":\"{}\"}}\n\n",
                "x".repeat(60_000)
            )
            .into(),
        ),
        Piece::Forever,
    ];
    check(
        "an answer without end",
        move |_| reply::stream(endless.clone()),
        Expected {
            kind: ErrorKind::Backend,
            text: "",
            tries: 1,
        },
    )
    .await;
}

#[tokio::test]
async fn answers_that_are_no_stream() {
    for (name, content_type) in [
        ("a page", Some("text/html")),
        ("a whole message", None),
        ("an event stream by no name", Some("")),
    ] {
        let answer = move |asked: &Asked<'_>| {
            let mut response = reply::whole(asked.body, asked.usage.clone(), &Say::text("A"));
            if let Some(content_type) = content_type {
                response.headers[0].1 = content_type.to_owned();
            }
            response
        };
        let expected = Expected {
            kind: ErrorKind::Backend,
            text: "",
            tries: 1,
        };
        check(name, answer, expected).await;
    }
}

#[tokio::test]
async fn a_refusal_is_no_answer() {
    for last in [PING, TEXT] {
        check(
            "refusal",
            move |asked| {
                let mut then = vec![
                    reply::end("refusal", 1),
                    reply::event("message_stop", &json!({})),
                ];
                if last == TEXT {
                    then.insert(0, reply::event("content_block_stop", &json!({"index": 0})));
                }
                events_to(asked, last, then)
            },
            Expected {
                kind: ErrorKind::Refused,
                text: if last == TEXT { "A" } else { "" },
                tries: 1,
            },
        )
        .await;
    }
}

#[tokio::test]
async fn what_passes_is_tried_again_and_succeeds() {
    let tries = AtomicUsize::new(0);
    let rig = Rig::new(move |asked| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => error(529, "overloaded_error"),
        1 => {
            let overloaded = reply::error_event("overloaded_error", "Overloaded");
            events_to(asked, PING, vec![overloaded])
        }
        _ => said(asked, &Say::text("at last")),
    })
    .await;
    let (text, end) = rig.ask(chat("Hi")).await;
    end.unwrap();
    assert_eq!(text, "at last");
    assert_eq!(rig.server.counts().borrow().requests, 3);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = serve(|asked| said(asked, &Say::text("got you"))).await;
    let location = format!("{}/v1/messages", other.base_url());
    let rig = Rig::new(move |_| {
        let mut response = error(307, "");
        response
            .headers
            .push(("location".to_owned(), location.clone()));
        response
    })
    .await;
    let (text, end) = rig.ask(chat("Hi")).await;
    assert_eq!(
        (text.as_str(), end.unwrap_err().kind),
        ("", ErrorKind::Backend)
    );
    assert_eq!(*other.counts().borrow(), Counts::default());
}

#[tokio::test]
async fn nobody_there() {
    let rig = Rig::saying("never").await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    for (url, kind) in [
        (format!("http://{address}"), ErrorKind::Backend),
        ("ftp://example.com".to_owned(), ErrorKind::Unavailable),
        ("not a url".to_owned(), ErrorKind::Unavailable),
        (String::new(), ErrorKind::Unavailable),
    ] {
        rig.set(|settings| settings.claude.base_url.clone_from(&url));
        let error = rig.ask(chat("Hi")).await.1.unwrap_err();
        assert_eq!(error.kind, kind, "{url}: {error}");
        assert!(error.to_string().ends_with('.'), "{error}");
    }
    assert_eq!(*rig.server.counts().borrow(), Counts::default());
}

#[tokio::test]
async fn what_does_not_fit_is_not_sent() {
    let rig = Rig::saying("never").await;
    let error = rig.ask(chat(&"word ".repeat(200_000))).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLong);
    let mut empty = chat(" ");
    empty.effort = Effort::High;
    let error = rig.ask(empty).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidRequest);
    assert_eq!(*rig.server.counts().borrow(), Counts::default());
}
