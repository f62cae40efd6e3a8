//! A server that fails, lies or breaks off: each ends in one error of the right kind, with a next step
//! and none of the server's words.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tandem::inference::ErrorKind;

use super::stand_in::{end, error, event, stream, text, whole};
use super::*;
use crate::claude::messages_api::http::Piece;

/// Tries at most: the first and the retries of the default settings.
const TRIES: usize = 3;

/// What the server says in its errors, and nobody is shown.
const WORDS: &str = "as told by somebody";

struct Expected {
    kind: ErrorKind,
    text: &'static str,
    tries: usize,
    /// A part of the next step.
    next: &'static str,
}

async fn check(
    name: &str,
    answer: impl Fn(&Asked<'_>) -> Response + Send + Sync + 'static,
    expected: Expected,
) {
    let rig = Rig::new(Plays::Vllm, "qwen2.5-coder", answer).await;
    let (text, end) = rig.ask(chat("Hi")).await;
    let error = end.expect_err(name);
    assert_eq!(error.kind, expected.kind, "{name}: {error}");
    assert_eq!(text, expected.text, "{name}");
    let requests = rig.server.counts().borrow().requests;
    // One is for the list of models.
    assert_eq!(requests, 1 + expected.tries, "{name}: {error}");
    assert!(error.next_step.contains(expected.next), "{name}: {error}");
    let shown = error.to_string();
    assert!(shown.ends_with('.') && shown.len() < 400, "{name}: {shown}");
    assert!(!shown.contains(WORDS), "{name}: {shown}");
}

#[tokio::test]
async fn statuses() {
    for (status, kind, tries, next) in [
        (400, ErrorKind::Unavailable, 1, "`server.api`"),
        (401, ErrorKind::Unauthorized, 1, "TANDEM_SERVER_API_KEY"),
        (403, ErrorKind::Unauthorized, 1, "`server.api_key_command`"),
        (404, ErrorKind::Unavailable, 1, "`server.model`"),
        (405, ErrorKind::Unavailable, 1, "`tandem doctor`"),
        (408, ErrorKind::Timeout, TRIES, "Try again"),
        (413, ErrorKind::TooLong, 1, "less text"),
        (422, ErrorKind::Unavailable, 1, "`server.api`"),
        (429, ErrorKind::RateLimited, TRIES, "--max-num-seqs"),
        (500, ErrorKind::Backend, TRIES, "log"),
        (501, ErrorKind::Unavailable, 1, "`server.api`"),
        (503, ErrorKind::Backend, TRIES, "loaded its model"),
        (504, ErrorKind::Timeout, TRIES, "Try again"),
    ] {
        let expected = Expected {
            kind,
            text: "",
            tries,
            next,
        };
        let answer = move |_: &Asked<'_>| error(status, "some_error", WORDS);
        check(&status.to_string(), answer, expected).await;
    }
}

#[tokio::test]
async fn what_is_too_long_for_the_server_is_told_as_that() {
    for (kind, message) in [
        ("exceed_context_size_error", ""),
        (
            "BadRequestError",
            "This model's maximum context length is 9 tokens.",
        ),
        ("", "The input is longer than the model's context length"),
    ] {
        let expected = Expected {
            kind: ErrorKind::TooLong,
            text: "",
            tries: 1,
            next: "less text",
        };
        let answer = move |_: &Asked<'_>| error(400, kind, &format!("{message} {WORDS}"));
        check(message, answer, expected).await;
    }
}

#[tokio::test]
async fn errors_without_the_documented_body() {
    for body in [
        "",
        "<html>",
        "{}",
        "[]",
        r#"{"error":{}}"#,
        r#"{"detail":"x"}"#,
    ] {
        let answer = move |_: &Asked<'_>| Response {
            body: vec![Piece::Bytes(body.as_bytes().to_vec())],
            ..error(500, "", "")
        };
        let expected = Expected {
            kind: ErrorKind::Backend,
            text: "",
            tries: TRIES,
            next: "log",
        };
        check(body, answer, expected).await;
    }
}

#[tokio::test]
async fn a_servers_wish_to_wait_is_kept() {
    let answer = |_: &Asked<'_>| {
        let mut response = error(429, "rate_limit_error", WORDS);
        response.headers.push(("retry-after".into(), "70".into()));
        response
    };
    let rig = Rig::new(Plays::Vllm, "m", answer).await;
    let error = rig.ask(chat("Hi")).await.1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RateLimited);
    assert_eq!(error.retry_after, Some(Duration::from_secs(70)));
    // Longer than all tries have together: it is not tried in vain.
    assert_eq!(rig.server.counts().borrow().requests, 2);
    // It is there, and the breaker sees to the rest.
    assert_eq!(rig.health(), Health::Unloaded);
}

/// A fault in a stream: before any text it has this many tries, after it always one.
async fn check_stream(
    name: &str,
    kind: ErrorKind,
    tries: usize,
    next: &'static str,
    then: Vec<Piece>,
) {
    for (place, said, tries) in [("before", "", tries), ("after", "A", 1)] {
        let then = then.clone();
        let answer = move |asked: &Asked<'_>| {
            let mut pieces = vec![text(asked.path, said)];
            pieces.extend(then.clone());
            stream(pieces)
        };
        let expected = Expected {
            kind,
            text: said,
            tries,
            next,
        };
        check(&format!("{name}, {place} the text"), answer, expected).await;
    }
}

#[tokio::test]
async fn streams_that_break_off() {
    let next = "look at the server's own log";
    let half = Piece::Bytes(b"data: {\"choices\":[{\"del".to_vec());
    for (name, then) in [
        ("closed", vec![Piece::Close]),
        ("ended without [DONE]", vec![]),
        ("closed within an event", vec![half, Piece::Close]),
        (
            "aborted",
            vec![event(
                &json!({"choices": [{"delta": {}, "finish_reason": "abort"}]}),
            )],
        ),
    ] {
        check_stream(name, ErrorKind::Backend, TRIES, next, then).await;
    }
    let expected = Expected {
        kind: ErrorKind::Backend,
        text: "",
        tries: TRIES,
        next: "network",
    };
    let answer = |asked: &Asked<'_>| Response {
        before: Some(Piece::Close),
        ..say(asked, "never")
    };
    check("closed before the head", answer, expected).await;
}

#[tokio::test]
async fn errors_within_a_stream() {
    for (code, kind, tries, next) in [
        (json!(500), ErrorKind::Backend, TRIES, "log"),
        (json!(null), ErrorKind::Backend, TRIES, "log"),
        (json!(429), ErrorKind::RateLimited, TRIES, "Wait"),
        (json!(400), ErrorKind::Unavailable, 1, "`server.api`"),
        (
            json!(401),
            ErrorKind::Unauthorized,
            1,
            "TANDEM_SERVER_API_KEY",
        ),
    ] {
        let reported = event(&json!({"error": {"message": WORDS, "type": "x", "code": code}}));
        check_stream(&format!("{code}"), kind, tries, next, vec![reported]).await;
    }
}

#[tokio::test]
async fn streams_that_lie() {
    let bytes = |text: &str| Piece::Bytes(text.as_bytes().to_vec());
    let choice = |choice: serde_json::Value| event(&json!({"choices": [choice]}));
    for (name, lie) in [
        ("no JSON", bytes("data: <html>\n\n")),
        ("an empty event", bytes("data:\n\n")),
        (
            "no UTF-8",
            Piece::Bytes(b"data: {\"x\":\"\xff\"}\n\n".to_vec()),
        ),
        (
            "an event of another interface",
            event(&json!({"content": WORDS, "stop": false})),
        ),
        ("a tool", choice(json!({"delta": {"tool_calls": [{}]}}))),
        (
            "negative tokens",
            event(&json!({"choices": [], "usage": {"prompt_tokens": -1}})),
        ),
        (
            "impossible tokens",
            event(&json!({"choices": [], "usage": {"prompt_tokens": u64::MAX}})),
        ),
        (
            "a line without end",
            Piece::Bytes(vec![b'a'; (1 << 20) + 1]),
        ),
    ] {
        check_stream(name, ErrorKind::Backend, 1, "`server.base_url`", vec![lie]).await;
    }
    let endless = vec![
        Piece::Bytes(format!(": {}\n\n", "x".repeat(60_000)).into()),
        Piece::Forever,
    ];
    let expected = Expected {
        kind: ErrorKind::Backend,
        text: "",
        tries: 1,
        next: "`server.base_url`",
    };
    check("without end", move |_| stream(endless.clone()), expected).await;
}

#[tokio::test]
async fn text_after_the_end_is_not_taken() {
    let answer = |asked: &Asked<'_>| {
        let mut pieces = vec![text(asked.path, "A")];
        pieces.extend(end(asked.path, "stop").drain(..1));
        pieces.push(text(asked.path, "B"));
        stream(pieces)
    };
    let expected = Expected {
        kind: ErrorKind::Backend,
        text: "A",
        tries: 1,
        next: "`server.base_url`",
    };
    check("text after the end", answer, expected).await;
}

#[tokio::test]
async fn answers_that_are_no_stream() {
    for (name, content_type) in [
        ("a page", "text/html"),
        ("a whole answer", "application/json"),
        ("an event stream by no name", ""),
    ] {
        let answer = move |_: &Asked<'_>| {
            let mut response = whole(200, &json!({"choices": [{"message": {"content": WORDS}}]}));
            response.headers[0].1 = content_type.to_owned();
            response
        };
        let expected = Expected {
            kind: ErrorKind::Backend,
            text: "",
            tries: 1,
            next: "`server.base_url`",
        };
        check(name, answer, expected).await;
    }
}

#[tokio::test]
async fn a_filtered_answer_is_no_answer() {
    let filtered = event(&json!({"choices": [{"delta": {}, "finish_reason": "content_filter"}]}));
    check_stream(
        "filtered",
        ErrorKind::Refused,
        1,
        "other words",
        vec![filtered],
    )
    .await;
}

#[tokio::test]
async fn what_passes_is_tried_again_and_succeeds() {
    let tries = AtomicUsize::new(0);
    let rig = Rig::new(Plays::LlamaServer, "m", move |asked| {
        match tries.fetch_add(1, Ordering::SeqCst) {
            0 => error(503, "unavailable_error", "Loading model"),
            1 => stream(vec![]),
            _ => say(asked, "at last"),
        }
    })
    .await;
    let (text, end) = rig.ask(completion("a", "")).await;
    end.unwrap();
    assert_eq!(text, "at last");
    assert_eq!(rig.server.counts().borrow().requests, 4);
}

#[tokio::test]
async fn slow_servers() {
    type Change = fn(&mut Settings);
    const LIMIT: Duration = Duration::from_millis(300);
    let first: Change = |settings| settings.server.first_byte_timeout = LIMIT;
    let idle: Change = |settings| settings.server.idle_timeout = LIMIT;
    for (name, change, before, said) in [
        ("no head", first, true, ""),
        ("no text", idle, false, ""),
        ("no more text", idle, false, "A"),
    ] {
        let rig = Rig::new(Plays::Vllm, "m", move |asked| {
            if !asked.body.to_string().contains("slowly") {
                return say(asked, "at once");
            }
            Response {
                before: before.then_some(Piece::Hang),
                ..stream(vec![text(asked.path, said), Piece::Hang])
            }
        })
        .await;
        // What it takes to know the server is not what is limited here.
        assert_eq!(rig.ask(chat("Hi")).await.0, "at once", "{name}");
        rig.set(change);
        let (text, end) = rig.ask(chat("slowly")).await;
        let error = end.unwrap_err();
        assert_eq!(
            (text.as_str(), error.kind),
            (said, ErrorKind::Timeout),
            "{name}"
        );
        assert!(error.next_step.contains("Try again"), "{error}");
        assert!(matches!(rig.health(), Health::Failed { .. }), "{name}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Rig::saying(Plays::Vllm, "m", "got you").await;
    let location = format!("{}/v1/chat/completions", other.server.base_url());
    let answer = move |_: &Asked<'_>| {
        let mut response = error(307, "", WORDS);
        response.headers.push(("location".into(), location.clone()));
        response
    };
    let expected = Expected {
        kind: ErrorKind::Backend,
        text: "",
        tries: 1,
        next: "`server.base_url`",
    };
    check("a redirect", answer, expected).await;
    assert_eq!(*other.server.counts().borrow(), Counts::default());
}

#[tokio::test]
async fn nobody_there() {
    let rig = Rig::saying(Plays::Vllm, "m", "never").await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    for (url, kind) in [
        ("ftp://example.com".to_owned(), ErrorKind::Unavailable),
        ("not a url".to_owned(), ErrorKind::Unavailable),
        (format!("http://{address}"), ErrorKind::Backend),
    ] {
        rig.set(|settings| settings.server.base_url = Some(url.clone()));
        let error = rig.ask(chat("Hi")).await.1.unwrap_err();
        assert_eq!(error.kind, kind, "{url}: {error}");
        assert!(error.to_string().ends_with('.'), "{error}");
        if kind == ErrorKind::Backend {
            let message = format!("{address} cannot be reached");
            assert!(error.message.contains(&message), "{error}");
            assert!(error.next_step.contains("`server.base_url`"), "{error}");
        }
    }
    assert_eq!(*rig.server.counts().borrow(), Counts::default());
    let health = rig.health();
    assert!(
        matches!(&health, Health::Failed { error, retry_after: Some(_) } if error.contains("cannot be reached")),
        "{health:?}"
    );
}
