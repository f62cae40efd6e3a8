//! The loop between a pipe and a service: messages in wire order, one reply a request, an end.
//!
//! It stands in for `tower_lsp::Server`, whose queue delays a cancel behind the requests it cancels,
//! which ends at the first malformed message and does not end at `exit`.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tower_lsp::jsonrpc::{Error, ErrorCode, Id, Request, Response};
use tower_service::Service;

use super::client::{Client, Outgoing};
use super::framing::{Frame, Frames};
use super::message::{self, Incoming};

/// Requests that may be under way at once. An editor has a handful; what is more is refused, so
/// that a client gone wild cannot fill the memory.
const MAX_IN_FLIGHT: usize = 256;

/// How many messages one write takes together.
const MESSAGES_A_WRITE: usize = 32;

/// How long the last messages may take to be written when the session ends.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Serves until `exit`, the end of the input, or a pipe that broke.
pub async fn run<I, O, S>(
    input: I,
    output: O,
    mut service: S,
    client: Client,
    outbox: mpsc::Receiver<Outgoing>,
) where
    I: AsyncBufRead + Unpin,
    O: AsyncWrite + Unpin + Send + 'static,
    S: Service<Request, Response = Option<Response>>,
    S::Future: Future<Output = Result<Option<Response>, S::Error>> + Send + Unpin + 'static,
    S::Error: std::fmt::Display + Send,
{
    let mut writer = tokio::spawn(write(output, outbox));
    let mut frames = Frames::new(input);
    // Owns what is under way; all of it ends with this loop.
    let mut requests = JoinSet::new();
    loop {
        let frame = tokio::select! {
            frame = frames.next() => frame,
            // Nobody reads: there is no use in answering.
            _ = &mut writer => break,
        };
        while requests.try_join_next().is_some() {}
        let request = match frame {
            Ok(Some(Frame::Body(body))) => match message::parse(&body) {
                Incoming::Request(request) => request,
                Incoming::Reply { id, outcome } => {
                    client.answered(id, outcome);
                    continue;
                }
                Incoming::Invalid(reply) => {
                    tracing::warn!(error = ?reply.error(), "a malformed message came");
                    client.reply(&reply).await;
                    continue;
                }
            },
            Ok(Some(Frame::Garbage)) => {
                tracing::warn!("bytes outside any message came");
                client.reply(&message::garbage()).await;
                continue;
            }
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the input broke");
                break;
            }
        };
        let id = request.id().cloned();
        let ends = id.is_none() && request.method() == "exit";
        if let Some(id) = id.clone().filter(|_| requests.len() >= MAX_IN_FLIGHT) {
            client.reply(&too_many(id)).await;
            continue;
        }
        let mut answer = call(&mut service, request, id);
        // The first poll is in wire order: a handler takes its snapshot of the document before the
        // next change is applied, and a cancel works before anything else runs.
        if let Some(reply) = (&mut answer).now_or_never() {
            if let Some(reply) = reply {
                client.reply(&reply).await;
            }
        } else {
            let client = client.clone();
            requests.spawn(async move {
                if let Some(reply) = answer.await {
                    client.reply(&reply).await;
                }
            });
        }
        if ends {
            break;
        }
    }
    requests.shutdown().await;
    client.close().await;
    if !writer.is_finished()
        && tokio::time::timeout(LAST_WRITES, &mut writer)
            .await
            .is_err()
    {
        writer.abort();
    }
}

type Answer = futures_util::future::BoxFuture<'static, Option<Response>>;

/// Calls the service so that a request has exactly one reply, whatever happens inside.
fn call<S>(service: &mut S, request: Request, id: Option<Id>) -> Answer
where
    S: Service<Request, Response = Option<Response>>,
    S::Future: Future<Output = Result<Option<Response>, S::Error>> + Send + Unpin + 'static,
    S::Error: std::fmt::Display + Send,
{
    let method = request.method().to_owned();
    let called = std::panic::catch_unwind(AssertUnwindSafe(|| service.call(request)));
    let future = match called {
        Ok(future) => future,
        Err(panic) => {
            let reply = id.map(|id| panicked(id, &method, panic.as_ref()));
            return std::future::ready(reply).boxed();
        }
    };
    AssertUnwindSafe(future)
        .catch_unwind()
        .map(move |outcome| match (outcome, id) {
            (Ok(Ok(Some(reply))), Some(_)) => Some(reply),
            // tower-lsp leaves requests it does not know unanswered when their name begins with
            // `$/`; the protocol wants an error.
            (Ok(Ok(None)), Some(id)) => Some(Response::from_error(id, Error::method_not_found())),
            (Ok(Err(error)), Some(id)) => {
                let mut reply = Error::invalid_request();
                reply.message = error.to_string().into();
                Some(Response::from_error(id, reply))
            }
            (Err(panic), Some(id)) => Some(panicked(id, &method, panic.as_ref())),
            (Err(panic), None) => {
                log_panic(&method, panic.as_ref());
                None
            }
            (Ok(_), None) => None,
        })
        .boxed()
}

fn panicked(id: Id, method: &str, panic: &(dyn Any + Send)) -> Response {
    log_panic(method, panic);
    let mut error = Error::internal_error();
    error.message = format!(
        "{method} failed inside Tandem. Nothing in your documents has changed; please report it \
         with the log."
    )
    .into();
    Response::from_error(id, error)
}

fn log_panic(method: &str, panic: &(dyn Any + Send)) {
    let what = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(method, what, "a handler panicked");
}

fn too_many(id: Id) -> Response {
    let mut error = Error::new(ErrorCode::ServerError(REQUEST_FAILED));
    error.message =
        format!("more than {MAX_IN_FLIGHT} requests are under way. Try again in a moment.").into();
    Response::from_error(id, error)
}

/// LSP 3.17, `RequestFailed`: sound, and not served.
pub const REQUEST_FAILED: i64 = -32803;

async fn write<O: AsyncWrite + Unpin>(mut output: O, mut outbox: mpsc::Receiver<Outgoing>) {
    let mut messages = Vec::with_capacity(MESSAGES_A_WRITE);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        if outbox.recv_many(&mut messages, MESSAGES_A_WRITE).await == 0 {
            return;
        }
        let mut close = false;
        for message in messages.drain(..) {
            match message {
                Outgoing::Body(body) => {
                    let header = format!("Content-Length: {}\r\n\r\n", body.len());
                    buffer.extend_from_slice(header.as_bytes());
                    buffer.extend_from_slice(&body);
                }
                Outgoing::Close => close = true,
            }
            if close {
                break;
            }
        }
        let written = match output.write_all(&buffer).await {
            Ok(()) => output.flush().await,
            broken => broken,
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the client does not read any more");
            return;
        }
        if close {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use futures_util::future::BoxFuture;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, BufReader};

    use super::*;

    /// Does what the method's name says.
    struct Mock;

    impl Service<Request> for Mock {
        type Response = Option<Response>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Result<Option<Response>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request) -> Self::Future {
            let (method, id, _) = request.into_parts();
            assert!(method != "panic in call", "boom");
            async move {
                match &*method {
                    "panic later" => {
                        tokio::task::yield_now().await;
                        panic!("boom")
                    }
                    "panic" => panic!("boom"),
                    "nothing" => Ok(None),
                    "hang" => std::future::pending().await,
                    "later" => {
                        tokio::task::yield_now().await;
                        Ok(id.map(|id| Response::from_ok(id, Value::Null)))
                    }
                    _ => Ok(id.map(|id| Response::from_ok(id, Value::Null))),
                }
            }
            .boxed()
        }
    }

    /// The replies to `messages`, sorted by their id, when the input then stays open.
    async fn replies(messages: &[Value]) -> Vec<(Value, i64)> {
        let (client, outbox) = Client::new();
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (input, output) = tokio::io::split(near);
        let served = tokio::spawn(run(BufReader::new(input), output, Mock, client, outbox));
        for message in messages {
            let body = message.to_string();
            let frame = format!("Content-Length: {}\r\n\r\n{body}", body.len());
            far.write_all(frame.as_bytes()).await.unwrap();
        }
        served.await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        let mut replies: Vec<_> = text
            .split("Content-Length: ")
            .skip(1)
            .map(|frame| {
                let body = frame.split_once("\r\n\r\n").unwrap().1;
                let body: Value = serde_json::from_str(body).unwrap();
                let code = body["error"]["code"].as_i64().unwrap_or(0);
                (body["id"].clone(), code)
            })
            .collect();
        replies.sort_by_key(|(id, _)| id.as_i64());
        replies
    }

    #[tokio::test]
    async fn each_request_has_one_reply_whatever_happens() {
        let methods = ["panic", "panic in call", "nothing", "fine"];
        let mut messages: Vec<_> = methods
            .iter()
            .enumerate()
            .map(|(id, method)| json!({"jsonrpc": "2.0", "id": id, "method": method}))
            .collect();
        messages.push(json!({"jsonrpc": "2.0", "method": "panic"}));
        messages.push(json!({"jsonrpc": "2.0", "method": "panic in call"}));
        messages.push(json!({"jsonrpc": "2.0", "method": "exit"}));
        assert_eq!(
            replies(&messages).await,
            [
                (json!(0), -32603),
                (json!(1), -32603),
                (json!(2), -32601),
                (json!(3), 0)
            ]
        );
    }

    #[tokio::test]
    async fn more_requests_than_the_limit_are_refused() {
        let mut messages: Vec<_> = (0..=MAX_IN_FLIGHT)
            .map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "hang"}))
            .collect();
        messages.push(json!({"jsonrpc": "2.0", "method": "exit"}));
        assert_eq!(
            replies(&messages).await,
            [(json!(MAX_IN_FLIGHT), REQUEST_FAILED)]
        );
    }
}
