//! One request: asked of its model, and its answer passed on as it comes.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::models::Lease;
use super::outgoing::{Gone, Outgoing};
use crate::daemon::wire::FromDaemon;
use crate::inference::{
    ErrorKind, Event, Finish, GenerateError, GenerateRequest, TokenStream, Usage,
};

/// Bytes of text in one message, at most; pieces that wait are put together up to it.
pub const LARGEST_DELTA: usize = 4 << 10;

/// A request, as the session numbers it.
pub struct Question {
    pub id: u64,
    pub request: GenerateRequest,
    pub cancel: CancellationToken,
}

/// Asks, passes on all but the end, and returns the end.
pub async fn answer(
    question: Question,
    model: &Lease,
    outgoing: &Outgoing,
) -> Result<FromDaemon, Gone> {
    let id = question.id;
    // What a panic leaves behind is dropped with the request.
    let ended = AssertUnwindSafe(pass_on(question, model, outgoing)).catch_unwind();
    ended.await.unwrap_or_else(|_| {
        let error = GenerateError::new(
            ErrorKind::Backend,
            "the answer was lost to a defect in Tandem",
            "Report it with the daemon's log (`tandem daemon logs`).",
        );
        Ok(failed(id, error))
    })
}

/// The end by a failure.
pub fn failed(id: u64, error: GenerateError) -> FromDaemon {
    let error = error.into();
    FromDaemon::Failed { id, error }
}

async fn pass_on(
    question: Question,
    model: &Lease,
    outgoing: &Outgoing,
) -> Result<FromDaemon, Gone> {
    let Question {
        id,
        request,
        cancel,
    } = question;
    let opened = tokio::select! {
        biased;
        () = cancel.cancelled() => return Ok(failed(id, GenerateError::cancelled())),
        opened = model.backend() => opened,
    };
    let backend = match opened {
        Ok(backend) => backend,
        Err(error) => return Ok(failed(id, error.clone())),
    };
    let mut stream = backend.generate(request, cancel.clone());
    let mut counted = Usage::default();
    let mut text = String::new();
    let mut end = None;
    loop {
        if text.is_empty() && end.is_none() {
            let event = tokio::select! {
                biased;
                // Not every backend is at leisure to end at once, and nobody waits for more.
                () = cancel.cancelled() => Some(Event::Failed(GenerateError::cancelled())),
                event = stream.next() => event,
            };
            take(event, &mut text, &mut end);
        }
        if !text.is_empty() {
            let late = || {
                // What came while there was no room goes along.
                while text.len() < LARGEST_DELTA && end.is_none() {
                    let Some(event) = stream.next().now_or_never() else {
                        break;
                    };
                    take(event, &mut text, &mut end);
                }
                let rest = text.split_off(text.floor_char_boundary(LARGEST_DELTA));
                let text = std::mem::replace(&mut text, rest);
                [
                    count(id, &stream, &mut counted),
                    Some(FromDaemon::Delta { id, text }),
                ]
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    return Ok(failed(id, GenerateError::cancelled()));
                }
                said = outgoing.say_late(late) => said?,
            }
            continue;
        }
        let Some(end) = end else { continue };
        outgoing
            .say_late(|| [count(id, &stream, &mut counted)])
            .await?;
        return Ok(end.into_message(id));
    }
}

/// How an answer ended.
enum End {
    Done(Finish),
    Failed(GenerateError),
}

impl End {
    fn into_message(self, id: u64) -> FromDaemon {
        match self {
            Self::Done(finish) => FromDaemon::Done {
                id,
                finish: finish.into(),
            },
            Self::Failed(error) => failed(id, error),
        }
    }
}

fn take(event: Option<Event>, text: &mut String, end: &mut Option<End>) {
    match event {
        Some(Event::Delta(more)) => text.push_str(&more),
        Some(Event::Done(finish)) => *end = Some(End::Done(finish)),
        Some(Event::Failed(error)) => *end = Some(End::Failed(error)),
        // Never: a stream ends after its end, which was taken.
        None => *end = Some(End::Failed(GenerateError::cancelled())),
    }
}

/// What it has cost by now, where that is news.
fn count(id: u64, stream: &TokenStream, counted: &mut Usage) -> Option<FromDaemon> {
    let usage = stream.usage_so_far();
    (std::mem::replace(counted, usage) != usage).then(|| FromDaemon::Count {
        id,
        usage: usage.into(),
    })
}
