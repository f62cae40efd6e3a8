//! One request, from the session's need to its one end, whatever becomes of the daemon meanwhile.

use std::sync::Arc;

use rand::Rng;
use tokio_util::sync::CancellationToken;

use super::backend::{Model, Server};
use super::connection::{Answer, Connection, NotAsked};
use crate::daemon::FrameError;
use crate::daemon::wire::{WireRequest, WireTask};
use crate::inference::{
    Backend, ErrorKind, Event, EventSender, GenerateError, GenerateRequest, TokenStream,
};

/// Bytes before a cursor that the daemon is sent. More than any model's context, by far.
const BEFORE: usize = 4 << 20;

/// Bytes after a cursor that the daemon is sent.
const AFTER: usize = 2 << 20;

/// How an attempt at one daemon ended.
enum Ended {
    /// With its terminal event, or since nobody reads on.
    Final,
    /// Without a word of the answer, through no fault of the request.
    Unanswered(GenerateError),
}

/// Serves `request` of `model`.
pub(super) async fn serve(
    model: Arc<Model>,
    request: GenerateRequest,
    cancel: CancellationToken,
    events: EventSender,
) {
    // The attempts end by the token; what is spawned for them ends when they are dropped. A sender that
    // is dropped without an end reads as cancelled.
    let whole = answer(&model, request, cancel.clone(), events);
    cancel.run_until_cancelled(whole).await;
}

async fn answer(
    model: &Model,
    request: GenerateRequest,
    cancel: CancellationToken,
    events: EventSender,
) {
    let mut failed = None;
    loop {
        let connection = match model.server().await {
            Server::Daemon(connection) => connection,
            Server::Inside(backend) => {
                let stream = backend.generate(request, cancel.child_token());
                return pass_on(&*backend, stream, events).await;
            }
            Server::Nobody(error) => return events.fail(error).await,
        };
        let ended = attempt(model, &connection, &request, &events).await;
        let Ended::Unanswered(error) = ended else {
            return;
        };
        if failed.is_some() {
            return events.fail(error).await;
        }
        failed = Some(error);
        let (least, most) = model.link.options().limits.retry;
        let wait = rand::rng().random_range(least..=most.max(least));
        tokio::time::sleep(wait).await;
    }
}

/// Asks one daemon.
async fn attempt(
    model: &Model,
    connection: &Arc<Connection>,
    request: &GenerateRequest,
    events: &EventSender,
) -> Ended {
    let mut wire = WireRequest::from(request);
    cut(&mut wire.task);
    let mut asked = match connection.ask(model.number, wire) {
        Ok(asked) => asked,
        Err(NotAsked::Gone) => return Ended::Unanswered(lost(false)),
        Err(NotAsked::Full) => return end(events, busy()).await,
        Err(NotAsked::Frame(error)) => return end(events, unsendable(&error)).await,
    };
    let mut begun = false;
    loop {
        match asked.next().await {
            Some(Answer::Count(usage)) => events.count(usage),
            Some(Answer::Delta(text)) => {
                begun = true;
                if events.delta(text).await.is_err() {
                    return Ended::Final;
                }
            }
            Some(Answer::Done(finish)) => {
                events.clone().finish(finish).await;
                return Ended::Final;
            }
            Some(Answer::Failed(error)) => {
                let turned_away = error.kind == ErrorKind::Unavailable && connection.is_draining();
                if turned_away && !begun {
                    return Ended::Unanswered(error);
                }
                return end(events, error).await;
            }
            None => {
                // Before it is tried again, so that the loss counts.
                model.link.lost(connection);
                if begun {
                    return end(events, lost(true)).await;
                }
                return Ended::Unanswered(lost(false));
            }
        }
    }
}

async fn end(events: &EventSender, error: GenerateError) -> Ended {
    events.clone().fail(error).await;
    Ended::Final
}

/// The answer of a model in this process. `_kept` lives until its end.
async fn pass_on(_kept: &dyn Backend, mut stream: TokenStream, events: EventSender) {
    while let Some(event) = stream.next().await {
        events.count(stream.usage_so_far());
        match event {
            Event::Delta(text) => {
                if events.delta(text).await.is_err() {
                    return;
                }
            }
            Event::Done(finish) => return events.finish(finish).await,
            Event::Failed(error) => return events.fail(error).await,
        }
    }
}

/// Cuts what no model reads from the far ends.
fn cut(task: &mut WireTask) {
    let (before, after) = match task {
        WireTask::Complete { prefix, suffix, .. } => (prefix, suffix),
        WireTask::Edit { before, after, .. } => (before, after),
        WireTask::Chat { .. } => return,
    };
    if before.len() > BEFORE {
        *before = before[before.ceil_char_boundary(before.len() - BEFORE)..].into();
    }
    if after.len() > AFTER {
        *after = after[..after.floor_char_boundary(AFTER)].into();
    }
}

fn lost(begun: bool) -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        if begun {
            "the daemon that holds the model was lost in the middle of the answer"
        } else {
            "the daemon that holds the model was lost before it answered"
        },
        "Try again: it is started anew; `tandem daemon logs` may say what happened.",
    )
}

fn busy() -> GenerateError {
    GenerateError::new(
        ErrorKind::Unavailable,
        "too much waits to be sent to the daemon",
        "Try again when it has caught up.",
    )
}

fn unsendable(error: &FrameError) -> GenerateError {
    match error {
        FrameError::TooLarge { .. } => GenerateError::new(
            ErrorKind::TooLong,
            "the request is larger than the daemon takes",
            "Ask about less text.",
        ),
        FrameError::Io(_) | FrameError::CutShort | FrameError::Malformed(_) => GenerateError::new(
            ErrorKind::InvalidRequest,
            "the request cannot be sent to the daemon",
            "Try again; report it if it happens twice.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::CompletionShape;

    #[test]
    fn far_ends_are_cut_between_characters() {
        let mut task = WireTask::Complete {
            path: None,
            language: String::new(),
            prefix: format!("{}x", "é".repeat(BEFORE / 2)).into(),
            suffix: format!("x{}", "é".repeat(AFTER / 2)).into(),
            snippets: Vec::new(),
            shape: CompletionShape::Auto,
        };
        cut(&mut task);
        let WireTask::Complete { prefix, suffix, .. } = task else {
            panic!("another task")
        };
        assert_eq!(prefix.len(), BEFORE - 1);
        assert!(prefix.starts_with('é') && prefix.ends_with("éx"));
        assert_eq!(suffix.len(), AFTER - 1);
        assert!(suffix.starts_with("xé") && suffix.ends_with('é'));
    }
}
