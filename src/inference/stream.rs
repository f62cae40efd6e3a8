//! The stream of an answer: text pieces, then exactly one terminal event.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ErrorKind, GenerateError};

/// Pieces that may wait unread before the backend waits too. A piece is about a token, so this is
/// more than a second of any engine's work and less than a page.
const UNREAD_EVENTS: usize = 256;

/// One thing that happens to an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// More text. Always whole characters.
    Delta(String),
    /// The end, as wanted. Terminal.
    Done(Finish),
    /// The end, by failure. Terminal.
    Failed(GenerateError),
}

/// How an answer ended, and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Why it ended.
    pub reason: FinishReason,
    /// What it cost.
    pub usage: Usage,
    /// The model, where it is not the one of the backend's descriptor.
    pub model: Option<String>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model, or a stop sequence, ended it.
    Stop,
    /// It reached the longest allowed length.
    Length,
}

/// Tokens counted by the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were not computed again (KV prefix reuse or prompt caching).
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The text.
    pub text: String,
    /// How it ended.
    pub finish: Finish,
}

/// An answer as it comes. Dropping it cancels the work behind it.
///
/// The stream yields any number of [`Event::Delta`], then one terminal event, then ends. A backend
/// that goes away without a terminal event reads as [`Event::Failed`].
#[derive(Debug)]
pub struct TokenStream {
    events: mpsc::Receiver<Event>,
    ended: bool,
    cancel: CancellationToken,
    so_far: Arc<Mutex<SoFar>>,
    _cancel_on_drop: DropGuard,
}

/// The backend's end of a [`TokenStream`]. Of several, the first terminal event counts.
#[derive(Debug, Clone)]
pub struct EventSender {
    events: mpsc::Sender<Event>,
    so_far: Arc<Mutex<SoFar>>,
}

/// What is known of an answer before its end.
#[derive(Debug, Default)]
struct SoFar {
    usage: Usage,
    model: Option<String>,
}

/// The reader went away: stop working.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnected;

/// Why an event was not sent at once.
#[derive(Debug, Clone, PartialEq)]
pub enum NotSent {
    /// The reader is behind; here is the event again.
    Full(Event),
    /// The reader went away: stop working.
    Disconnected,
}

impl TokenStream {
    /// A stream and its sender. `cancel` is this attempt's own token (a child of the caller's): it
    /// is cancelled when the stream is dropped, and a backend that stops because of it may simply
    /// drop its sender, which reads as [`ErrorKind::Cancelled`].
    #[must_use]
    pub fn channel(cancel: CancellationToken) -> (EventSender, Self) {
        let (sender, events) = mpsc::channel(UNREAD_EVENTS);
        let guard = cancel.clone().drop_guard();
        let so_far = Arc::<Mutex<SoFar>>::default();
        (
            EventSender {
                events: sender,
                so_far: Arc::clone(&so_far),
            },
            Self {
                so_far,
                events,
                ended: false,
                cancel,
                _cancel_on_drop: guard,
            },
        )
    }

    /// A stream that has failed already.
    #[must_use]
    pub fn failed(error: GenerateError) -> Self {
        let (sender, stream) = Self::channel(CancellationToken::new());
        sender.fail_now(error);
        stream
    }

    /// The next event, `None` after the terminal one.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// What the backend has counted so far: for whoever stops reading before the end, which alone has
    /// the final count.
    #[must_use]
    pub fn usage_so_far(&self) -> Usage {
        lock(&self.so_far).usage
    }

    /// The model that answers, where the backend has said so already and it is not the descriptor's.
    #[must_use]
    pub fn model_so_far(&self) -> Option<String> {
        lock(&self.so_far).model.clone()
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// The failure that the stream ended with.
    pub async fn collect(mut self) -> Result<Generation, GenerateError> {
        let mut text = String::new();
        loop {
            match self.next().await {
                Some(Event::Delta(piece)) => text.push_str(&piece),
                Some(Event::Done(finish)) => return Ok(Generation { text, finish }),
                Some(Event::Failed(error)) => return Err(error),
                None => return Err(abandoned()),
            }
        }
    }
}

impl Stream for TokenStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = match ready!(self.events.poll_recv(cx)) {
            Some(event) => event,
            None if self.cancel.is_cancelled() => Event::Failed(GenerateError::cancelled()),
            None => Event::Failed(abandoned()),
        };
        self.ended = !matches!(event, Event::Delta(_));
        Poll::Ready(Some(event))
    }
}

impl EventSender {
    /// Says what it has cost so far, before the text that it has cost.
    pub fn count(&self, usage: Usage) {
        lock(&self.so_far).usage = usage;
    }

    /// Says which model answers, for a backend that has several.
    pub fn name_model(&self, model: &str) {
        lock(&self.so_far).model = Some(model.to_owned());
    }

    /// Sends text, waiting while the reader is behind.
    ///
    /// # Errors
    /// When the reader went away; the backend then stops.
    pub async fn delta(&self, text: String) -> Result<(), Disconnected> {
        self.events
            .send(Event::Delta(text))
            .await
            .map_err(|_| Disconnected)
    }

    /// [`Self::delta`] for a thread outside the async runtime.
    ///
    /// # Errors
    /// As [`Self::delta`].
    pub fn blocking_delta(&self, text: String) -> Result<(), Disconnected> {
        self.events
            .blocking_send(Event::Delta(text))
            .map_err(|_| Disconnected)
    }

    /// Ends the stream as wanted.
    pub async fn finish(self, finish: Finish) {
        // A reader that went away needs no end.
        let _ = self.events.send(Event::Done(finish)).await;
    }

    /// Ends the stream by failure.
    pub async fn fail(self, error: GenerateError) {
        let _ = self.events.send(Event::Failed(error)).await;
    }

    /// [`Self::finish`] for a thread outside the async runtime.
    pub fn blocking_finish(self, finish: Finish) {
        let _ = self.events.blocking_send(Event::Done(finish));
    }

    /// [`Self::fail`] for a thread outside the async runtime.
    pub fn blocking_fail(self, error: GenerateError) {
        let _ = self.events.blocking_send(Event::Failed(error));
    }

    /// Sends an event without waiting, for a backend that has others to serve while one reader is
    /// behind. Nothing may follow a terminal event.
    ///
    /// # Errors
    /// When the reader is behind or went away.
    pub fn try_send(&self, event: Event) -> Result<(), NotSent> {
        self.events.try_send(event).map_err(|error| match error {
            mpsc::error::TrySendError::Full(event) => NotSent::Full(event),
            mpsc::error::TrySendError::Closed(_) => NotSent::Disconnected,
        })
    }

    /// Whether the reader went away.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.events.is_closed()
    }

    fn fail_now(self, error: GenerateError) {
        let _ = self.events.try_send(Event::Failed(error));
    }
}

fn lock(so_far: &Mutex<SoFar>) -> MutexGuard<'_, SoFar> {
    so_far.lock().unwrap_or_else(PoisonError::into_inner)
}

fn abandoned() -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        "the backend stopped without ending its answer",
        "Try again; if it happens twice, run `tandem status` and look at the log.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sender_that_vanishes_reads_as_one_failure() {
        let (sender, mut stream) = TokenStream::channel(CancellationToken::new());
        sender.delta("a".into()).await.unwrap();
        drop(sender);
        assert_eq!(stream.next().await, Some(Event::Delta("a".into())));
        let Some(Event::Failed(error)) = stream.next().await else {
            panic!("no terminal event")
        };
        assert_eq!(error.kind, ErrorKind::Backend);
        assert_eq!(stream.next().await, None);
    }

    #[tokio::test]
    async fn nothing_follows_the_terminal_event() {
        let (sender, mut stream) = TokenStream::channel(CancellationToken::new());
        let finish = Finish {
            reason: FinishReason::Stop,
            usage: Usage::default(),
            model: None,
        };
        sender.finish(finish.clone()).await;
        assert_eq!(stream.next().await, Some(Event::Done(finish)));
        assert_eq!(stream.next().await, None);
    }

    #[test]
    fn what_was_counted_can_be_read_before_the_end() {
        let (sender, stream) = TokenStream::channel(CancellationToken::new());
        assert_eq!(stream.usage_so_far(), Usage::default());
        let usage = Usage {
            prompt_tokens: 7,
            cached_tokens: 3,
            completion_tokens: 1,
        };
        sender.count(usage);
        assert_eq!(stream.usage_so_far(), usage);
        assert_eq!(stream.model_so_far(), None);
        sender.name_model("m");
        assert_eq!(stream.model_so_far().as_deref(), Some("m"));
    }

    #[test]
    fn dropping_the_stream_cancels_the_work() {
        let cancel = CancellationToken::new();
        let (_sender, stream) = TokenStream::channel(cancel.clone());
        drop(stream);
        assert!(cancel.is_cancelled());
    }
}
