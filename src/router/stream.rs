//! A routed answer as it comes, and as a whole.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use crate::inference::{Attribution, EmptyReason, ErrorKind, Finish, GenerateError};

/// As in [`crate::inference::TokenStream`]: more than a second of any engine's work.
const UNREAD_EVENTS: usize = 256;

/// Stands for a limit too large for the clock.
const A_YEAR: Duration = Duration::from_hours(24 * 365);

/// One thing that happens to a routed answer.
#[derive(Debug, Clone, PartialEq)]
pub enum RoutedEvent {
    /// Who answers from here on. Precedes the first text, and the end if somebody was asked.
    Attributed(Attribution),
    /// Text.
    Delta(String),
    /// The end, as wanted. Terminal.
    Done(Finish),
    /// The end, for a completion that came to nothing. Terminal.
    Empty(EmptyReason),
    /// The end, by failure. Terminal.
    Failed(GenerateError),
}

/// A routed answer as it comes. Dropping it cancels the work.
#[derive(Debug)]
pub struct RoutedStream {
    events: mpsc::Receiver<RoutedEvent>,
    ended: bool,
    completion: bool,
    why_empty: Arc<OnceLock<GenerateError>>,
    _cancel_on_drop: DropGuard,
}

/// The router's end of a [`RoutedStream`].
#[derive(Debug)]
pub(super) struct Outlet {
    events: mpsc::Sender<RoutedEvent>,
    why_empty: Arc<OnceLock<GenerateError>>,
}

/// A whole answer, and who gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The text, after post-processing. Not empty for a completion.
    pub text: String,
    /// Who gave it.
    pub attribution: Attribution,
    /// How it ended; `None` when it was cut at a deadline.
    pub finish: Option<Finish>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq)]
pub struct NoAnswer {
    /// For a completion: the reason. Other tasks have none.
    pub empty: Option<EmptyReason>,
    /// What failed; `None` where nothing did and there was simply nothing to say.
    pub error: Option<GenerateError>,
    /// Who was asked last; `None` if nobody was.
    pub attribution: Option<Attribution>,
}

impl RoutedStream {
    /// A stream and its outlet. `cancel` is cancelled when the stream is dropped.
    pub(super) fn channel(completion: bool, cancel: DropGuard) -> (Outlet, Self) {
        let (sender, events) = mpsc::channel(UNREAD_EVENTS);
        let why_empty = Arc::default();
        (
            Outlet {
                events: sender,
                why_empty: Arc::clone(&why_empty),
            },
            Self {
                events,
                ended: false,
                completion,
                why_empty,
                _cancel_on_drop: cancel,
            },
        )
    }

    /// The next event, `None` after the terminal one.
    pub async fn next(&mut self) -> Option<RoutedEvent> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().await;
        let event = event.unwrap_or_else(|| RoutedEvent::Failed(abandoned()));
        self.ended = match &event {
            RoutedEvent::Attributed(_) | RoutedEvent::Delta(_) => false,
            RoutedEvent::Done(_) | RoutedEvent::Empty(_) | RoutedEvent::Failed(_) => true,
        };
        Some(event)
    }

    /// What went wrong behind [`RoutedEvent::Empty`], once that has come; `None` where nothing did
    /// and there was simply nothing to say.
    #[must_use]
    pub fn why_empty(&self) -> Option<&GenerateError> {
        self.why_empty.get()
    }

    /// Reads to the end, handing each piece of text to `on_text` as it comes, or until `limit` has
    /// passed: the answer then has no [`Answer::finish`], and the work behind it is cancelled.
    ///
    /// # Errors
    /// [`NoAnswer`] when there is no text to show; a limit that passes before the first text is
    /// [`ErrorKind::Timeout`].
    pub async fn collect_within(
        mut self,
        limit: Duration,
        mut on_text: impl FnMut(&str),
    ) -> Result<Answer, NoAnswer> {
        let now = tokio::time::Instant::now();
        let deadline = now.checked_add(limit).unwrap_or(now + A_YEAR);
        let mut text = String::new();
        let mut attribution: Option<Attribution> = None;
        loop {
            let Ok(event) = tokio::time::timeout_at(deadline, self.next()).await else {
                return match attribution {
                    Some(attribution) if !text.is_empty() => Ok(Answer {
                        text,
                        attribution,
                        finish: None,
                    }),
                    attribution => Err(self.no_answer(too_late(limit), attribution)),
                };
            };
            match event {
                Some(RoutedEvent::Attributed(who)) => attribution = Some(who),
                Some(RoutedEvent::Delta(piece)) => {
                    on_text(&piece);
                    text.push_str(&piece);
                }
                Some(RoutedEvent::Done(finish)) => {
                    let Some(mut attribution) = attribution else {
                        return Err(self.no_answer(abandoned(), None));
                    };
                    if let Some(model) = &finish.model {
                        attribution.model.clone_from(model);
                    }
                    return Ok(Answer {
                        text,
                        attribution,
                        finish: Some(finish),
                    });
                }
                Some(RoutedEvent::Empty(reason)) => {
                    return Err(NoAnswer {
                        empty: Some(reason),
                        error: self.why_empty().cloned(),
                        attribution,
                    });
                }
                Some(RoutedEvent::Failed(error)) => return Err(self.no_answer(error, attribution)),
                None => return Err(self.no_answer(abandoned(), attribution)),
            }
        }
    }

    fn no_answer(&self, error: GenerateError, attribution: Option<Attribution>) -> NoAnswer {
        NoAnswer {
            empty: self.completion.then(|| empty_reason(error.kind)),
            error: Some(error),
            attribution,
        }
    }
}

impl Outlet {
    /// Sends one event, waiting while the reader is behind. `false` when the reader went away.
    pub(super) async fn send(&self, event: RoutedEvent) -> bool {
        self.events.send(event).await.is_ok()
    }

    /// Keeps what went wrong behind an empty completion, for whoever asks.
    pub(super) fn explain(&self, error: &GenerateError) {
        let _ = self.why_empty.set(error.clone());
    }
}

/// The reason a completion is empty when it failed with an error of `kind`.
pub(super) fn empty_reason(kind: ErrorKind) -> EmptyReason {
    match kind {
        ErrorKind::Cancelled => EmptyReason::Cancelled,
        ErrorKind::SpendCap => EmptyReason::SpendCap,
        ErrorKind::Denied => EmptyReason::Denied,
        ErrorKind::RateLimited => EmptyReason::Busy,
        ErrorKind::Refused => EmptyReason::ModelSilent,
        ErrorKind::TooLong | ErrorKind::Unavailable | ErrorKind::Unauthorized => {
            EmptyReason::NoBackend
        }
        ErrorKind::InvalidRequest | ErrorKind::Timeout | ErrorKind::Backend => {
            EmptyReason::BackendFailed
        }
    }
}

fn too_late(limit: Duration) -> GenerateError {
    GenerateError::new(
        ErrorKind::Timeout,
        format!("no answer within {:.1} s", limit.as_secs_f64()),
        "Ask for less at once, or try again when the backend is less busy.",
    )
}

fn abandoned() -> GenerateError {
    GenerateError::new(
        ErrorKind::Backend,
        "the router stopped without ending its answer",
        "This is a defect in Tandem: please report it with the log.",
    )
}
